"""From globs to files: expanded in a fixed order, and never outside the project and its allow_paths."""

from __future__ import annotations

import difflib
import fnmatch
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Protocol, TypedDict

from msgspec import Struct

from batchform.errors import SourceError
from batchform.spec.remote import is_remote
from batchform.spec.wording import counted

_GLOB = frozenset("*?[")
_SETTLE_NS = 2_000_000_000
"""Times of files are no finer than this on some file systems."""


class SourceFile(Struct, frozen=True):
    """path: real path, links resolved; name: as a user writes it, relative to the project, POSIX slashes.

    version: of a file in Cloud Storage, whose bytes `path` holds: its name with the generation.
    """

    path: Path
    name: str
    version: str = ""


class Remote(Protocol):
    """Files in Cloud Storage, for sources that read local ones. Both raise SourceError."""

    def fetch(self, pattern: str) -> list[SourceFile]:
        """The files that a gs:// pattern names, each brought to this machine. At least one."""
        ...

    def versions(self, pattern: str) -> list[str]:
        """Their names with generations. Nothing but a listing is read."""
        ...


def expand(
    patterns: str | Sequence[str],
    *,
    root: Path,
    allow: Sequence[Path],
    remote: Remote | None = None,
    optional: bool = False,
) -> list[SourceFile]:
    """The files that the patterns name, sorted by name, each name once. Raises SourceError for a pattern without any,
    unless files are `optional`.

    A pattern that names an existing file is that file, whatever characters it holds. `*`, `?` and `[…]` stay within one
    folder, `**` goes through folders but not through links; hidden names must be spelled out.
    """
    found: dict[str, SourceFile] = {}
    for pattern in [patterns] if isinstance(patterns, str) else patterns:
        if remote is not None and is_remote(pattern):
            found |= {file.name: file for file in remote.fetch(pattern)}
            continue
        matches = list(_matches(pattern, root=root))
        if not matches and not optional:
            raise _nothing(pattern, root, allow)
        for match in matches:
            file = confine(match, root=root, allow=allow)
            found[file.name] = file
    return [found[name] for name in sorted(found)]


def confine(path: Path, *, root: Path, allow: Sequence[Path]) -> SourceFile:
    """The readable regular file at `path`, if it lies inside the project or an allowed folder. Raises SourceError."""
    name = _shown(path, root)
    try:
        real = path.resolve(strict=True)
    except (OSError, RuntimeError) as error:  # RuntimeError: a loop of links
        raise SourceError(f"{name} is a link that leads nowhere.") from error
    if not _inside(real, root, allow):
        leads = f" leads to {real}," if path.is_symlink() or real != Path(os.path.normpath(path)) else " lies"
        raise SourceError(
            f"{name}{leads} outside the project {root}.",
            hint="Name its folder in allow_paths of batchform.yaml to read it.",
        )
    if not real.is_file():
        raise SourceError(f"{name} is neither a file nor a folder of files.")
    if not os.access(real, os.R_OK):
        raise SourceError(f"{name} cannot be read: permission denied.")
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise SourceError(f"The file name {name!r} is not valid UTF-8.", hint="Rename the file.") from error
    return SourceFile(real, name)


def describe(files: Sequence[SourceFile], patterns: str | Sequence[str]) -> str:
    """What was read, for people: the file's name, or how many files of which patterns."""
    if len(files) == 1:
        return files[0].name
    return f"{len(files)} files, {patterns if isinstance(patterns, str) else ', '.join(patterns)}"


def look(patterns: str | Sequence[str], *, root: Path, allow: Sequence[Path], remote: Remote | None = None) -> str:
    """What the patterns name, for people, without reading any of it. Raises SourceError as `expand` does."""
    texts = [patterns] if isinstance(patterns, str) else patterns
    local = [pattern for pattern in texts if remote is None or not is_remote(pattern)]
    files = expand(local, root=root, allow=allow)
    size = sum(file.path.stat().st_size for file in files)
    there = [f"{describe(files, local)} ({size:,} bytes)"] if files else []
    for pattern in texts:
        if remote is not None and is_remote(pattern):
            there.append(f"{pattern} ({counted(len(remote.versions(pattern)), 'object')})")
    return ", ".join(there)


class Read(TypedDict):
    """What a relation says of what was read."""

    paths: tuple[Path, ...]
    identity: str
    versions: tuple[str, ...]


def read_from(files: Sequence[SourceFile]) -> Read:
    """The local files, and the exact versions of those in Cloud Storage."""
    versions = tuple(f.version for f in files if f.version)
    return Read(paths=tuple(f.path for f in files if not f.version), identity=identity_of(versions), versions=versions)


def stamp_of(files: Iterable[SourceFile], *, settled: Iterable[Path] = ()) -> str | None:
    """What the file system says of files, and of the reader's own code and library: another text once one of them was
    written, or is found under another name.

    settled: files that are written once. None if another file is so young that it could be written again without a
    change of its times, or if a file is away.
    """
    from importlib.util import find_spec

    engine = find_spec("_duckdb")
    code = [Path(__file__), *([Path(engine.origin)] if engine is not None and engine.origin else [])]
    once = [("", path) for path in (*settled, *code)]
    said = []
    try:
        for name, path in [*((f.name, f.path) for f in files), *once]:
            at = path.stat()
            if name and not is_settled(at.st_mtime_ns, at.st_ctime_ns):
                return None
            said.append((name, str(path), at.st_size, at.st_mtime_ns, at.st_ctime_ns, at.st_ino, at.st_dev))
    except OSError:
        return None
    return repr(said)


def is_settled(*times: int) -> bool:
    """Whether a file was changed, at any of these times in nanoseconds, so long ago that another change would show."""
    return max(times) <= time.time_ns() - _SETTLE_NS


def identity_of(versions: Iterable[str]) -> str:
    """One text for a set of versions."""
    return "\n".join(sorted(set(versions)))


def _shown(path: Path, root: Path) -> str:
    plain = Path(os.path.normpath(path))
    for base in (root, root.resolve()):
        if plain.is_relative_to(base):
            return plain.relative_to(base).as_posix()
    return plain.as_posix()


def _matches(pattern: str, *, root: Path) -> Iterator[Path]:
    if pattern.partition("://")[1]:
        raise SourceError(
            f"source.path {pattern!r} is not a local path.", hint="Copy the files into the project first."
        )
    if not pattern.strip() or "\0" in pattern:
        raise SourceError(f"source.path {pattern!r} names no file.")
    literal = root / pattern
    if literal.is_dir():
        raise SourceError(
            f"source.path {pattern!r} is a folder.",
            hint=f"Name the files in it, such as {pattern.rstrip('/')}/* or {pattern.rstrip('/')}/**/*.txt",
        )
    if os.path.lexists(literal):
        yield literal
        return
    parts = Path(pattern).parts
    start = Path(parts[0]) if Path(pattern).is_absolute() else root
    yield from dict.fromkeys(_walk(start, parts[1:] if Path(pattern).is_absolute() else parts))


def _walk(folder: Path, parts: Sequence[str]) -> Iterator[Path]:
    head, rest = parts[0], parts[1:]
    if head == "**":
        if rest:
            yield from _walk(folder, rest)
        for entry in _entries(folder):
            if entry.name.startswith("."):
                continue
            if entry.is_dir(follow_symlinks=False):  # links would loop
                yield from _walk(folder / entry.name, parts)
            elif not rest:
                yield from _file(folder / entry.name)
        return
    if not _GLOB.intersection(head):
        names = [head] if os.path.lexists(folder / head) else []
    else:
        hidden = head.startswith(".")
        names = [
            entry.name
            for entry in _entries(folder)
            if entry.name.startswith(".") == hidden and fnmatch.fnmatchcase(entry.name, head)
        ]
    for name in names:
        if not rest:
            yield from _file(folder / name)
        elif (folder / name).is_dir():
            yield from _walk(folder / name, rest)


def _file(path: Path) -> Iterator[Path]:
    if path.is_file() or (path.is_symlink() and not path.exists()):
        yield path


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except NotADirectoryError:
        return []
    except OSError as error:
        raise SourceError(f"The folder {folder} cannot be read: {error.strerror}.") from error


def _nothing(pattern: str, root: Path, allow: Sequence[Path]) -> SourceError:
    """No file: say where we looked and what is there instead."""
    folder, wanted = root, pattern
    for part in Path(pattern).parts:
        wanted = part
        if not (folder / part).is_dir():
            break
        folder = folder / part
    folder = folder.resolve()
    verb = "No file matches" if _GLOB.intersection(pattern) else "There is no file"
    if not _inside(folder, root, allow):
        return SourceError(
            f"{verb} {pattern} in the project {root}, and it lies outside.",
            hint="Name its folder in allow_paths of batchform.yaml to read it.",
        )
    names = [entry.name for entry in _entries(folder) if not entry.name.startswith(".")]
    spoken = {name.lower(): name for name in reversed(names)}
    near = [spoken[n] for n in difflib.get_close_matches(wanted.lower(), list(spoken), n=3, cutoff=0.5)]
    hint = f"There is {', '.join(near or names[:3])}." if names else "That folder is empty."
    return SourceError(f"{verb} {pattern}: looked for {wanted} in {folder}.", hint=hint)


def _inside(real: Path, root: Path, allow: Sequence[Path]) -> bool:
    return any(real.is_relative_to(base.resolve()) for base in (root, *allow))

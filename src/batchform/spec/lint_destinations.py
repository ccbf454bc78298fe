"""Where answers may not be written: over the project's own files, and over what another spec reads."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from msgspec import Struct

from batchform.errors import Diagnostic
from batchform.spec.lint import glob_pattern, place_of, real_path, source_paths, written_file
from batchform.spec.model import Spec
from batchform.spec.remote import is_remote
from batchform.spec.wording import shown
from batchform.spec.yaml_source import Document

_WILD = frozenset("*?[")


class ProjectFiles(Struct, frozen=True):
    """The project's own files. spec_entries: as listed in `specs:`, relative to the root; spec_files: found in them."""

    root: Path
    file: Path
    spec_entries: Sequence[str]
    spec_files: Sequence[Path]


def lint_destinations(specs: Sequence[tuple[Document, Spec]], project: ProjectFiles) -> list[Diagnostic]:
    """Complaints about destinations that would write over the project's own files, or over another spec's source."""
    own, readers = _Own(project), _Readers(specs, project.root)
    return [c for at, (document, spec) in enumerate(specs) for c in _complaints(document, spec, at, own, readers)]


def _complaints(document: Document, spec: Spec, at: int, own: _Own, readers: _Readers) -> Iterator[Diagnostic]:
    target = written_file(spec, own.root)
    if target is None:
        return
    written = f"the destination `{shown(spec.destination.place)}`"
    if kept := own.what_is(target):
        message, hint = f"{written} {kept}", "Answers are no part of the project: write them to results/."
        yield document.diagnostic("destination-in-project", message, ("destination", "path"), hint=hint)
    if other := readers.of(target, but=at):
        message = f"{written} is one of the files that {other} reads"
        hint = "What a source holds is never written over: write elsewhere, and let that spec read a copy."
        yield document.diagnostic("destination-is-source", message, ("destination", "path"), hint=hint)


class _Own:
    """What files are to the project. Each path is followed once: there may be a thousand specs."""

    def __init__(self, project: ProjectFiles) -> None:
        self.root = project.root
        self._file = real_path(project.file)
        self._specs = {real_path(file) for file in project.spec_files}
        names = dict.fromkeys((*project.spec_entries, "templates", "schemas"))
        folders = {name: project.root / name for name in names}
        self._folders = {name: real_path(folder) for name, folder in folders.items() if folder.is_dir()}

    def what_is(self, target: str) -> str:
        """What the file of this path is to the project; "" if nothing."""
        if is_remote(target):
            return ""
        if target == self._file:
            return "is the project's file"
        if target in self._specs:
            return "is a spec"
        for name, folder in self._folders.items():
            if Path(target).is_relative_to(folder):
                return f"is inside {shown(name.rstrip('/'))}/, which holds the project's own files"
        return ""


class _Readers:
    """Which spec reads a file: plain names are looked up, only globs are tried one by one."""

    def __init__(self, specs: Sequence[tuple[Document, Spec]], root: Path) -> None:
        self._names = [document.path for document, _ in specs]
        self._plain: dict[str, list[int]] = {}
        self._globs: dict[str, list[int]] = {}
        for at, (_, spec) in enumerate(specs):
            for path in (place_of(root, path) for _, path in source_paths(spec)):
                (self._globs if _WILD & set(path) else self._plain).setdefault(path, []).append(at)

    def of(self, target: str, *, but: int) -> str:
        """The file of the first spec that reads it, of those that are not the one at `but`; "" if none does."""
        found = list(self._plain.get(target, ()))
        for pattern, readers in self._globs.items():
            if glob_pattern(pattern).fullmatch(target):
                found += readers
        others = [at for at in found if at != but]
        return self._names[min(others)] if others else ""

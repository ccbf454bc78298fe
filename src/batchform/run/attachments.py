"""The files that a shard names are placed where its job can read them, and its lines say where.

Planned, fingerprinted and archived are the lines that name files by their content. What is uploaded is a copy of them:
where a file is at the service changes from run to run, and changes no row.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Final

import msgspec

from batchform.canon import digest, file_digest
from batchform.errors import BackendError, StalePlan
from batchform.plan.attached import listed_files
from batchform.plan.model import Shard
from batchform.ports import Backend, File, Placed
from batchform.rows.attached import AttachedFile, at_uri, inline, names_in, with_places
from batchform.rows.pages import pages_of
from batchform.rows.pdf import cut
from batchform.run.context import PASSING, RunContext, call_again
from batchform.spec.remote import without_query

_AT_ONCE: Final = 8
_ROUNDS: Final = 3
OF_OBJECT: Final = "crc32c:"
"""How digests of objects begin that a service reads where they are."""
_AGAIN: Final = PASSING | {404, 410}
Places = dict[tuple[str, str], bytes]


def sent_lines_path(ctx: RunContext, tag: str) -> Path:
    """The copy of a shard's lines that is uploaded."""
    return ctx.work_dir / f"{tag}.sent.jsonl"


def with_files(ctx: RunContext, backend: Backend, shard: Shard, bundle: Path, lines_at: Path) -> Path:
    """The lines of a shard as its job will read them, its files placed. Safe to repeat.

    lines_at: its lines; those that name a cache leave out files that the cache holds.

    Raises StalePlan when a file no longer holds what was planned, BackendError.
    """
    try:
        files = listed_files(bundle / shard.files_path)
    except (OSError, msgspec.DecodeError) as error:
        raise StalePlan(f"{bundle / shard.files_path} is no list of files: {error}", hint="Plan again.") from error
    if shard.cached:
        with lines_at.open("rb") as lines:
            named = {name for line in lines for name in names_in(line)}
        files = [f for f in files if f.identity in named]
    places = place_files(ctx, backend, files, what=shard.tag)
    to = sent_lines_path(ctx, shard.tag)
    with lines_at.open("rb") as lines, to.open("wb") as out:
        for line in lines:
            out.write(_placed(line, places, bundle / shard.files_path))
    return to


def with_own_files(
    ctx: RunContext, backend: Backend, requests: Sequence[tuple[str, bytes, list[AttachedFile]]]
) -> list[tuple[str, bytes]]:
    """(key, request) pairs with their files placed: for the synchronous API."""
    found = {f.identity: f for _, _, files in requests for f in files}
    places = place_files(ctx, backend, list(found.values()), what="the files of these rows")
    return [(key, with_places(request, places)) for key, request, _ in requests]


def _placed(line: bytes, places: Places, listed: Path) -> bytes:
    try:
        return with_places(line, places)
    except KeyError:
        missing = next(name for name in names_in(line) if name not in places)
        raise StalePlan(f"{listed} does not list {missing[0]}", hint="Plan again.") from None


def place_files(ctx: RunContext, backend: Backend, files: Sequence[AttachedFile], *, what: str) -> Places:
    """What stands in requests for these files. Uploads several at once, and what grew old meanwhile again."""
    places = {f.identity: inline(_content(ctx, f), f.mime_type) for f in files if f.inline}
    uploaded = [f for f in files if not f.inline]
    there: dict[tuple[str, str], Placed] = {}
    for _ in range(_ROUNDS):
        now = ctx.clock.now()
        due = [f for f in uploaded if f.identity not in there or _is_old(there[f.identity].renew_at, now)]
        if not due:
            return places | {name: at_uri(found.uri, name[1]) for name, found in there.items()}
        there |= _uploaded(ctx, backend, due)
    raise BackendError(
        f"{what}: its {len(uploaded):,} files are not uploaded before the first of them are too old to be used.",
        hint="Make jobs smaller with `max_rows_per_job` of the backend.",
    )


def _is_old(renew_at: datetime | None, now: datetime) -> bool:
    return renew_at is not None and renew_at <= now


def _uploaded(ctx: RunContext, backend: Backend, files: Sequence[AttachedFile]) -> dict[tuple[str, str], Placed]:
    def one(file: AttachedFile) -> Placed:
        with _file(ctx, file) as known:
            return call_again(ctx, lambda: backend.place_file(known), while_=_AGAIN)

    first, *others = files
    found = {first.identity: one(first)}  # alone: it opens the connection that the others share
    pool = ThreadPoolExecutor(max_workers=_AT_ONCE, thread_name_prefix="files")
    try:
        found |= dict(zip((f.identity for f in others), pool.map(one, others), strict=True))
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
    return found


@contextmanager
def _file(ctx: RunContext, file: AttachedFile) -> Iterator[File]:
    """A file as a backend takes it; one that is made for it is there until then."""
    if file.digest.startswith(OF_OBJECT):
        yield File(file.digest, file.mime_type, file.size, None, file.name)
    elif (pages := pages_of(file.digest)) is None:
        yield File(file.digest, file.mime_type, file.size, _local(ctx, file))
    else:
        content = _content(ctx, file)
        name = f"{pages[0].rpartition(':')[2]}.pages-{pages[1]}-{pages[2]}"
        path = ctx.work_dir / f"{name}.pdf"
        path.write_bytes(content)
        try:
            yield File(digest(content), file.mime_type, len(content), path, name=name)
        finally:
            path.unlink(missing_ok=True)


def _content(ctx: RunContext, file: AttachedFile) -> bytes:
    if (pages := pages_of(file.digest)) is not None:
        whole = _local(ctx, file, digest=pages[0])
        check_content(whole, pages[0], file.name)
        return cut(whole, pages[1], pages[2], name=without_query(file.name))
    try:
        content = _local(ctx, file).read_bytes()
    except OSError as error:
        text = f"{without_query(file.name)} cannot be read: {error.strerror}."
        raise StalePlan(text, hint="Put it back, or plan again.") from error
    if digest(content) != file.digest:
        raise changed(file.name)
    return content


def _local(ctx: RunContext, file: AttachedFile, digest: str = "") -> Path:
    """Where the bytes of a file are on this machine. digest: of the whole, if pages of it are meant."""
    if "://" not in file.name:
        return ctx.project.root / file.name
    assert ctx.fetched is not None
    return ctx.fetched(file.name, digest or file.digest)


def changed(name: str) -> StalePlan:
    """A file that holds something else than was planned."""
    return StalePlan(
        f"{without_query(name)} changed since it was planned.", hint="Nothing of its job was sent. Plan again."
    )


def check_content(path: Path, expected: str, name: str) -> None:
    """Raise StalePlan unless a file holds what was planned."""
    try:
        found = file_digest(path)
    except OSError as error:
        text = f"{without_query(name)} cannot be read: {error.strerror}."
        raise StalePlan(text, hint="Put it back, or plan again.") from error
    if found != expected:
        raise changed(name)

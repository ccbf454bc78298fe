"""Raw results on their way into the archive: a copy beside the segments, or, where the backend says so, a record of
where they stay. Durable before anything reads them."""

from __future__ import annotations

import gzip
import shutil
from pathlib import Path

from batchform.errors import BatchformError, NotFound
from batchform.ledger.raw import Raw, StoredResults, keep_reference, raw_results, results_name
from batchform.ledger.records import JobRecord, archive_name
from batchform.ports import RemoteJob
from batchform.run.context import RunContext
from batchform.run.fetch import fetch


def archive(ctx: RunContext, record: JobRecord, remote: RemoteJob | None, scratch: Path) -> Raw | None:
    """The raw results of an ended job, stored durably; None if it has none.

    Raises NotFound when they are not where they were, BackendError when they cannot be fetched now.
    """
    if results_name(ctx.ledger, record.tag):  # stored by a run that ended before it could record it
        return _stored_before(ctx, record)
    if remote is None or remote.results is None:
        return None
    raw = scratch / "results.jsonl"
    fetch(ctx, record, remote, raw)
    try:
        if not _stay(ctx, record, remote, raw, scratch):
            packed = scratch / "results.jsonl.gz"
            pack(raw, packed)
            ctx.ledger.put_blob(archive_name(record.tag), packed)
    except BatchformError:
        if not results_name(ctx.ledger, record.tag):
            raise
        return _stored_before(ctx, record)  # another runner was faster, and the service sent the lines in another order
    return raw


def _stored_before(ctx: RunContext, record: JobRecord) -> Raw:
    found = raw_results(ctx.ledger, record.tag)
    if isinstance(found, StoredResults) and (problem := found.problem()):
        raise NotFound(f"The results of {record.tag} are not where they were: {problem}.")
    return found


def _stay(ctx: RunContext, record: JobRecord, remote: RemoteJob, raw: Path, scratch: Path) -> bool:
    """Record where results are, if the backend leaves them there and they still are what was fetched."""
    backend = record.intent.backend
    if getattr(ctx.settings(backend), "raw_results", "ledger") != "bucket":
        return False
    store = ctx.backend_of(record.intent).stored
    files = store.files_of(remote, results=raw) if store else ()
    if files:
        keep_reference(ctx.ledger, record.tag, backend, files, scratch)
    return bool(files)


def pack(raw: Path, packed: Path) -> None:
    """gzip without name and time, so that the same results are the same bytes."""
    with (
        raw.open("rb") as source,
        packed.open("wb") as target,
        gzip.GzipFile(filename="", fileobj=target, mode="wb", compresslevel=3, mtime=0) as archive,
    ):
        shutil.copyfileobj(source, archive, 1 << 20)

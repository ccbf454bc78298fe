"""What is sent: each shard's lines, staged for its job, and archived beside the ledger before that is created.

Archived lines let a plan show a row's request before and after a change. They are private like the results, and kept as
long as they are.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Final

from batchform.canon import RequestHasher, digest_of, file_digest
from batchform.ledger.records import CacheUse, Intent
from batchform.ledger.store import Ledger
from batchform.plan.sent import asked_name, input_name, sent_lines
from batchform.plan.shard import split_line
from batchform.ports import Backend, Staged
from batchform.run.attachments import with_files
from batchform.run.context import PASSING, RunContext, call_again
from batchform.run.submission import Work

_BATCH: Final = 10_000
_UPLOAD_AGAIN: Final = PASSING | {404, 410}
"""404 and 410: the service has forgotten how far an upload had got."""


def stage_input(ctx: RunContext, backend: Backend, work: Work, bundle: Path) -> tuple[Staged, CacheUse | None]:
    """Upload the input of a shard; safe to repeat, since its name comes from its digest. Second: the context cache that
    its lines name, if any."""
    # Two ledgers may send the same rows with the same credential. Neither may delete the other's input.
    shard, cache = work.shard, None
    planned = lines = bundle / shard.path
    if shard.cached:
        from batchform.run.caches import with_cache

        lines, cache = with_cache(ctx, backend, work, bundle)
    if shard.files_path:
        lines = with_files(ctx, backend, shard, bundle, lines)
    identity = [ctx.ledger.lineage, shard.digest]
    if lines != planned:
        identity.append(file_digest(lines))  # where its files are, and what its cache is called, is part of it
    name = digest_of("input", identity)
    staged = call_again(
        ctx,
        lambda: backend.stage(lines, digest=name, tag=shard.tag, mode=shard.mode),
        while_=_UPLOAD_AGAIN,
        told=lambda error: f"Uploading {shard.tag} failed; it is tried again: {error}",
    )
    return staged, cache


def archive_input(ledger: Ledger, tag: str, lines: Path, scratch: Path, *, asked: Path | None = None) -> None:
    """Archive a shard's lines, compressed. Repeatable.

    asked: its row states, where the requests are not what the files ask for: which of those each row stands for is
    archived first.
    """
    import pyarrow as pa

    name = input_name(tag)
    if ledger.has_blob(name):
        return
    if asked is not None:
        _archive_asked(ledger, tag, asked, scratch)
    packed = scratch / f"{tag}.jsonl.zst"
    with lines.open("rb") as source, pa.CompressedOutputStream(str(packed), "zstd") as sink:
        while chunk := source.read(1 << 20):
            sink.write(chunk)
    ledger.put_blob(name, packed)
    packed.unlink(missing_ok=True)


def _archive_asked(ledger: Ledger, tag: str, states: Path, scratch: Path) -> None:
    import pyarrow.parquet as pq

    if ledger.has_blob(asked_name(tag)):
        return
    to = scratch / f"{tag}.asked.parquet"
    pq.write_table(pq.read_table(states, columns=["key_hash", "request_fp"]), to)
    ledger.put_blob(asked_name(tag), to)
    to.unlink(missing_ok=True)


def sent_requests(ledger: Ledger, intent: Intent, folder: Path) -> Path | None:
    """A Parquet of (key_hash, request_fp) of what a job carried, or None if its input is not archived whole.

    Of rows on a rung of the retry ladder that is the request of their files, which the one that was sent answers.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    name = input_name(intent.tag)
    if not ledger.has_blob(name):
        return None
    if ledger.has_blob(asked_name(intent.tag)):
        return Path(shutil.copy(ledger.blob(asked_name(intent.tag)), folder / f"{intent.tag}.requests.parquet"))
    hasher = RequestHasher(model=intent.model, realm=intent.realm)
    schema = pa.schema([("key_hash", pa.uuid()), ("request_fp", pa.binary())])
    to = folder / f"{intent.tag}.requests.parquet"
    try:
        with pq.ParquetWriter(to, schema) as writer:
            rest: Iterator[bytes] = sent_lines(ledger, intent.tag)
            while lines := list(islice(rest, _BATCH)):
                keys, requests = zip(*(split_line(line + b"\n") for line in lines), strict=True)
                prints = [hasher.fingerprint(request) for request in requests]
                writer.write_batch(pa.record_batch([pa.array(keys, pa.uuid()), prints], schema=schema))
    except (OSError, ValueError):  # Arrow's errors are among them
        return None
    return to

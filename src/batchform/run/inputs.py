"""What was sent: each shard's lines, archived beside the ledger before its job is created.

They let a plan show a row's request before and after a change. Private like the results; kept as long as they are.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Final

from batchform.canon import RequestHasher
from batchform.ledger.records import Intent
from batchform.ledger.store import Ledger
from batchform.plan.sent import input_name, sent_lines
from batchform.plan.shard import split_line

_BATCH: Final = 10_000


def archive_input(ledger: Ledger, tag: str, lines: Path, scratch: Path) -> None:
    """Archive a shard's lines, compressed. Repeatable."""
    import pyarrow as pa

    name = input_name(tag)
    if ledger.has_blob(name):
        return
    packed = scratch / f"{tag}.jsonl.zst"
    with lines.open("rb") as source, pa.CompressedOutputStream(str(packed), "zstd") as sink:
        while chunk := source.read(1 << 20):
            sink.write(chunk)
    ledger.put_blob(name, packed)
    packed.unlink(missing_ok=True)


def sent_requests(ledger: Ledger, intent: Intent, folder: Path) -> Path | None:
    """A Parquet of (key_hash, request_fp) of what a job carried, or None if its input is not archived whole."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    name = input_name(intent.tag)
    if not ledger.has_blob(name):
        return None
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

"""What was sent: each shard's lines, archived beside the ledger before its job is created.

They let a plan show a row's request before and after a change. Private like the results; kept as long as they are.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any, Final

from batchform.canon import RequestHasher
from batchform.ledger.records import Intent
from batchform.ledger.store import Ledger
from batchform.plan.shard import split_line

_BATCH: Final = 10_000


def input_name(tag: str) -> str:
    """Blob name of a job's lines: zstd JSON lines."""
    return f"archive/{tag}.input.jsonl.zst"


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


def earlier_request(ledger: Ledger, tag: str, key_hex: str) -> bytes | None:
    """The canonical request that a job carried for a row, or None if its input is not archived."""
    name = input_name(tag)
    if not ledger.has_blob(name):
        return None
    wanted = b'{"key":"k' + key_hex.encode() + b'","request":'
    for line in _lines(ledger.blob(name)):
        if line.startswith(wanted):
            return bytes(line[len(wanted) :].rstrip(b"\n")[:-1])
    return None


def sent_lines(ledger: Ledger, tag: str) -> Iterator[bytes]:
    """The lines that a job carried; none if its input is not archived."""
    name = input_name(tag)
    if ledger.has_blob(name):
        yield from _lines(ledger.blob(name))


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
            rest: Iterator[bytes] = iter(_lines(ledger.blob(name)))
            while lines := list(islice(rest, _BATCH)):
                keys, requests = zip(*(split_line(line + b"\n") for line in lines), strict=True)
                prints = [hasher.fingerprint(request) for request in requests]
                writer.write_batch(pa.record_batch([pa.array(keys, pa.uuid()), prints], schema=schema))
    except (OSError, ValueError):  # Arrow's errors are among them
        return None
    return to


def _lines(path: Path) -> Any:
    import pyarrow as pa

    with pa.CompressedInputStream(str(path), "zstd") as stream:
        rest = b""
        while chunk := stream.read(1 << 20):
            pieces = (rest + chunk).split(b"\n")
            rest = pieces.pop()
            yield from pieces
        if rest:
            yield rest

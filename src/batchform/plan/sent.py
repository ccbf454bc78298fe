"""What was sent, as the ledger archives it: the lines of each job."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from batchform.ledger.store import Ledger


def input_name(tag: str) -> str:
    """Blob name of a job's lines: zstd JSON lines."""
    return f"archive/{tag}.input.jsonl.zst"


def asked_name(tag: str) -> str:
    """Blob name of what the rows of a job on the retry ladder ask for: Parquet of key_hash and request_fp."""
    return f"archive/{tag}.asked.parquet"


def attempts_name(tag: str) -> str:
    """Blob name of a job's rows without a result: Parquet of key_hash, request_fp, tag, parse_digest and class."""
    return f"answers/{tag}.attempts.parquet"


def earlier_request(ledger: Ledger, tag: str, key_hex: str) -> bytes | None:
    """The canonical request that a job carried for a row, or None if its input is not archived."""
    wanted = b'{"key":"k' + key_hex.encode() + b'","request":'
    for line in sent_lines(ledger, tag):
        if line.startswith(wanted):
            return bytes(line[len(wanted) :].rstrip(b"\n")[:-1])
    return None


def sent_lines(ledger: Ledger, tag: str) -> Iterator[bytes]:
    """The lines that a job carried, without their ends; none if its input is not archived."""
    name = input_name(tag)
    if ledger.has_blob(name):
        yield from _lines(ledger.blob(name))


def _lines(path: Path) -> Iterator[bytes]:
    import pyarrow as pa

    with pa.CompressedInputStream(str(path), "zstd") as stream:
        rest = b""
        while chunk := stream.read(1 << 20):
            pieces = (rest + chunk).split(b"\n")
            rest = pieces.pop()
            yield from pieces
        if rest:
            yield rest

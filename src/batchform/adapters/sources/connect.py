"""One confined DuckDB connection per run: it reads and writes only in folders that it was given."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from batchform.adapters.sources.sql import quote_text

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

_BYTES_PER_THREAD = 128 << 20
_UNITS = {"MB": 10**6, "GB": 10**9}


def connect(temp_dir: Path, *, memory_limit: str, threads: int, allowed: Sequence[Path]) -> DuckDBPyConnection:
    """An in-memory DuckDB that spills to `temp_dir`, speaks UTC, keeps insertion order and loads no extension.

    threads: at most so many, and fewer when `memory_limit` ("320MB") has no 128 MiB for each: readers hold buffers per
    thread, and a machine with many cores must not need more memory than another.
    allowed: folders that SQL in this connection may touch (project, allow_paths, ledger); `temp_dir` always is.
    Confinement cannot be undone from SQL. Databases inside these folders can still be attached.
    """
    import duckdb

    temp_dir.mkdir(parents=True, exist_ok=True)
    con = duckdb.connect(
        config={
            "memory_limit": memory_limit,
            "threads": max(1, min(threads, _bytes(memory_limit) // _BYTES_PER_THREAD)),
            "temp_directory": str(temp_dir.resolve()),
            "preserve_insertion_order": "true",
            "autoinstall_known_extensions": "false",
            "autoload_known_extensions": "false",
            "allocator_background_threads": "true",  # what one query freed is the system's before the next one
        }
    )
    # DuckDB compares real paths, so that a link cannot lead out; the folders must be real paths as well.
    folders = sorted({str(folder.resolve()) for folder in (temp_dir, *allowed)})
    con.execute("SET GLOBAL TimeZone = 'UTC'")  # for every cursor of this connection
    con.execute(f"SET allowed_directories = [{', '.join(map(quote_text, folders))}]")
    # The order matters: neither the list nor anything else can be changed after these two.
    con.execute("SET enable_external_access = false")
    con.execute("SET lock_configuration = true")
    return con


def _bytes(limit: str) -> int:
    return int(limit[:-2]) * _UNITS[limit[-2:]]

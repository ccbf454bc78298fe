"""Work on a project's ledger through its library, where no command does just that.

python benchmarks/work.py grow PROJECT BUNDLE     the rows of a saved first plan become answered rows
python benchmarks/work.py commits PROJECT N ROWS  N commits of so many transitions each; the time of all counts
python benchmarks/work.py bytes PROJECT N ROWS    its baseline: the same bytes, written and synced as often
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

import duckdb

from batchform.adapters.local_blobs import LocalBlobs
from batchform.ledger.records import ROW_COLUMNS
from batchform.ledger.store import Ledger, RowsFile
from batchform.run.row_states import write_states
from measure import counted

SPEC = "triage"
_ANSWER = ("status", *(c for c in ROW_COLUMNS if c.startswith("answer_")), "parse_digest", "answered_at",
           "finish_reason", "model_version", "prompt_tokens", "output_tokens", "cost_usd")  # fmt: skip


class Clock:
    """The machine's."""

    def now(self) -> datetime:
        return datetime.now(UTC)

    def monotonic(self) -> float:
        return datetime.now(UTC).timestamp()

    def sleep(self, seconds: float) -> None:
        raise AssertionError(f"nobody else writes, so nothing waits {seconds} s")


def grow(project: Path, bundle: Path) -> None:
    """Each row as the one that was really applied: answered by the same job, delivered, with its own fingerprints."""
    ledger = opened(project)
    with TemporaryDirectory(dir=project) as folder, closing(_connected(folder)) as con:
        con.execute(f"CREATE TEMP TABLE one AS SELECT * FROM {ledger.rows_relation(con, SPEC)} LIMIT 1")
        own = {"answer_fp": "r.request_fp", "answer_key_hash": "r.key_hash"}
        values = {"tag": "one.tag", **{c: own.get(c, f"one.{c}") for c in _ANSWER}}
        states = f"read_parquet('{bundle}/specs/{SPEC}/shard-*.rows.parquet')"
        rows = Path(folder) / "rows.parquet"
        count = write_states(con, values, f"{states} r CROSS JOIN one", rows)
        ledger.commit([], [RowsFile(SPEC, rows, count)])


def commits(project: Path, times: int, rows_each: int) -> None:
    ledger = opened(project)
    with TemporaryDirectory(dir=project) as folder:
        files = _transitions(ledger, Path(folder), times, rows_each)
        with counted():
            for file in files:
                ledger.commit([], [file])


def write_bytes(project: Path, times: int, rows_each: int) -> None:
    ledger = opened(project)
    with TemporaryDirectory(dir=project) as folder:
        files = _transitions(ledger, Path(folder), times, rows_each)
        with counted():
            for number, file in enumerate(files):
                with (Path(folder) / f"copy-{number}").open("wb") as target:
                    target.write(file.path.read_bytes())
                    target.flush()
                    os.fsync(target.fileno())


def _transitions(ledger: Ledger, folder: Path, times: int, rows_each: int) -> list[RowsFile]:
    """Files of row states, each of other rows."""
    files = []
    with closing(_connected(str(folder))) as con:
        rows = ledger.rows_relation(con, SPEC)
        some = f"SELECT *, row_number() OVER () - 1 AS n FROM {rows} LIMIT {times * rows_each}"
        con.execute(f"CREATE TEMP TABLE chosen AS {some}")
        [(there,)] = con.execute("SELECT count(*) FROM chosen").fetchall()
        for number in range(times):
            start = number * rows_each % max(there - rows_each + 1, 1)
            path = folder / f"rows-{number}.parquet"
            source = f"(SELECT * FROM chosen WHERE n >= {start} AND n < {start + rows_each}) r"
            files.append(RowsFile(SPEC, path, write_states(con, {}, source, path)))
    return files


def opened(project: Path) -> Ledger:
    return Ledger.open(LocalBlobs(project / ".batchform"), clock=Clock(), who="benchmark")


def _connected(folder: str) -> duckdb.DuckDBPyConnection:
    return duckdb.connect(config={"memory_limit": "512MB", "temp_directory": folder})


def main() -> None:
    name, project, *rest = sys.argv[1:]
    if name == "grow":
        grow(Path(project), Path(rest[0]))
        return
    done: Callable[[Path, int, int], None] = {"commits": commits, "bytes": write_bytes}[name]
    done(Path(project), int(rest[0]), int(rest[1]))


if __name__ == "__main__":
    main()

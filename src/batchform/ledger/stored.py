"""Parsed answers and raw results beside the segments: whole, missing or damaged.

Answers are derived: `batchform apply` and `sync` make lost ones again from the archived results (run/rebuild.py). Who
only reads says what is lost and how it comes back.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from batchform.errors import LedgerCorrupt, no_room
from batchform.ledger.records import ANSWER_COLUMNS

if TYPE_CHECKING:
    from batchform.ledger.store import Ledger

_MAGIC: Final = b"PAR1"
_SMALLEST: Final = 12  # bytes of a Parquet file: magic, length of the footer, magic
_PIECE: Final = 1 << 20

AGAIN: Final = "`batchform sync` makes it again from the archived results, for nothing."
_LOST: Final = (
    "The results that it was made from are archived no longer. `batchform ledger repair --from BACKUP` takes it from a "
    "copy of the ledger's folder; without one, `batchform rerun` asks for these rows anew, and they are paid for again."
)
_ASIDE: Final = f"`batchform ledger repair` sets it aside, then {AGAIN}"


class DamagedAnswers(LedgerCorrupt):
    """A file of answers that cannot be read to its end. name: the file's."""

    def __init__(self, ledger: Ledger, name: str, problem: str) -> None:
        super().__init__(f"{ledger.place}/{name} is damaged: {problem}.", hint=_ASIDE)
        self.name = name


def tag_of_answers(name: str) -> str:
    """The job whose results a file of answers was made from."""
    return name.removeprefix("answers/").removesuffix(".parquet").rpartition(".")[0]


def can_be_made_again(ledger: Ledger, name: str) -> bool:
    """Whether the results from which a file of answers was made are archived and can be read to the end."""
    from batchform.ledger.raw import results_name, results_problem

    results = results_name(ledger, tag_of_answers(name))
    return bool(results) and not results_problem(ledger, results)


def is_whole(ledger: Ledger, name: str) -> bool:
    """Whether a blob with answers is there and ends as a Parquet file does. Cheap: looks at its end alone."""
    if not ledger.has_blob(name):
        return False
    path = ledger.blob(name)
    size = path.stat().st_size
    if size < _SMALLEST:
        return False
    with path.open("rb") as file:
        file.seek(-8, 2)
        end = file.read()
    return end[4:] == _MAGIC and int.from_bytes(end[:4], "little") <= size - _SMALLEST


def require_whole(ledger: Ledger, names: Sequence[str]) -> None:
    """Raise LedgerCorrupt that names the first blob with answers that is missing or visibly damaged."""
    from batchform.ledger.raw import results_missing

    for name in names:
        if not is_whole(ledger, name):
            what = "damaged" if ledger.has_blob(name) else "missing"
            hint = _LOST if results_missing(ledger, tag_of_answers(name)) else AGAIN
            raise LedgerCorrupt(f"{ledger.place}/{name} is {what}.", hint=hint)


@contextmanager
def reading_answers(ledger: Ledger, names: Sequence[str]) -> Iterator[None]:
    """Turn what DuckDB says of damaged answers into LedgerCorrupt with the file's name. Other errors pass."""
    import duckdb

    try:
        yield
    except duckdb.Error as error:
        if no_room(error):
            raise
        for name in names:
            if problem := answers_problem(ledger.blob(name)):
                raise DamagedAnswers(ledger, name, problem) from error
        raise


def answers_problem(path: Path) -> str:
    """What is wrong with a file of answers, every value read; "" if nothing."""
    return parquet_problem(path, columns=tuple(ANSWER_COLUMNS))


def parquet_problem(path: Path, *, columns: Sequence[str] = ("key_hash",)) -> str:
    """What is wrong with a Parquet file that must have these columns, every value read; "" if nothing."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            missing = [name for name in columns if name not in file.schema_arrow.names]
            if missing:
                return f"it has no column {', '.join(missing)}"
            rows = sum(batch.num_rows for batch in file.iter_batches())
            if rows != file.metadata.num_rows:
                return f"it has {rows:,} rows, its own footer says {file.metadata.num_rows:,}"
    except (pa.ArrowException, OSError) as error:
        return _words(error)
    return ""


def archive_problem(path: Path) -> str:
    """What is wrong with gzip lines, read to the end and summed; "" if nothing."""
    if not path.stat().st_size:
        return "it is empty"
    try:
        with gzip.open(path) as lines:
            while lines.read(_PIECE):
                pass
    except (OSError, EOFError, zlib.error) as error:
        return _words(error)
    return ""


def input_problem(path: Path) -> str:
    """What is wrong with zstd lines, read to the end; "" if nothing."""
    import pyarrow as pa

    if not path.stat().st_size:
        return "it is empty"
    try:
        with pa.CompressedInputStream(str(path), "zstd") as lines:
            while lines.read(_PIECE):
                pass
    except (pa.ArrowException, OSError) as error:
        return _words(error)
    return ""


def _words(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")

"""Several commits in one: one segment of events, one swap of the head.

Cloud Storage takes about one write of an object in a second, and every commit replaces the head. So commits that wait
at the same time are joined: those of several threads, and those that one step decides on, each on top of the last.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Final

from msgspec import Struct, field

from batchform.ledger.records import ROW_COLUMNS, AnyEvent, Head
from batchform.ledger.row_writer import RowStateWriter
from batchform.ledger.segments import RowsFile, parquet

if TYPE_CHECKING:
    from collections.abc import Callable

    from duckdb import DuckDBPyConnection

MOST: Final = 20
"""Commits that are joined where each would wait for its turn."""
_ONE_FILE: Final = 50_000  # rows; up to this, files of one spec become one segment
_BATCH_ROWS: Final = 8_192


class Member(Struct, eq=False):
    """A commit that waits for its turn, and what became of it. expect: as in Ledger.commit."""

    events: Sequence[AnyEvent]
    files: Sequence[RowsFile]
    expect: int | None
    head: Head | None = None
    error: BaseException | None = None

    @property
    def settled(self) -> bool:
        return self.head is not None or self.error is not None


def together(waiting: Sequence[Member]) -> tuple[list[Member], list[Member]]:
    """Of the commits that wait, those that may be one, in order, and the rest.

    Only one that rests on what the ledger says can be among them, and comes first: the others are true whatever it
    says. Rows of one spec come from one of them, since a commit holds a key once.
    """
    chosen: list[Member] = []
    rest: list[Member] = []
    specs: set[str] = set()
    for member in sorted(waiting, key=lambda m: m.expect is None):
        mine = {f.spec for f in member.files}
        if chosen and (member.expect is not None or mine & specs):
            rest.append(member)
        else:
            chosen.append(member)
            specs |= mine
    return chosen, rest


class Pending(Struct):
    """What was decided and is not recorded yet. Made by `Ledger.joined`."""

    events: list[AnyEvent] = field(default_factory=list)
    files: list[RowsFile] = field(default_factory=list)

    def add(self, events: Sequence[AnyEvent], files: Sequence[RowsFile]) -> None:
        """Lay a decision on top of those before; from now on it is seen. Its files must stay until the end."""
        self.events += events
        self.files += [f for f in files if f.rows]

    def holds_rows_of(self, files: Sequence[RowsFile], connect: Callable[[], DuckDBPyConnection]) -> bool:
        """Whether rows of these files are here already: they would be twice in one commit."""
        for file in files:
            mine = [f.path for f in self.files if f.spec == file.spec and file.rows]
            if not mine:
                continue
            with closing(connect()) as con:
                common = f"SELECT 1 FROM {parquet([file.path])} SEMI JOIN {parquet(mine)} USING (key_hash) LIMIT 1"
                if con.execute(common).fetchone():
                    return True
        return False

    def joined_files(self, folder: Path) -> list[RowsFile]:
        """The files to record: those of a spec as one, if that is a small one. It is made in `folder`."""
        files: list[RowsFile] = []
        for spec in dict.fromkeys(f.spec for f in self.files):
            mine = [f for f in self.files if f.spec == spec]
            if len(mine) > 1 and sum(f.rows for f in mine) <= _ONE_FILE:
                mine = [_one_file(spec, mine, folder / f"{spec}.joined.parquet")]
            files += mine
        return files


def _one_file(spec: str, files: Sequence[RowsFile], to: Path) -> RowsFile:
    import pyarrow.parquet as pq

    with RowStateWriter(to) as writer:
        for source in files:
            with pq.ParquetFile(source.path) as file:
                for batch in file.iter_batches(_BATCH_ROWS, columns=list(ROW_COLUMNS)):
                    writer.append(dict(zip(batch.schema.names, batch.columns, strict=True)))
    return RowsFile(spec, to, writer.rows)

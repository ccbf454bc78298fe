"""The source that is another spec's answers: read from ledger and archive, never from where they were delivered.

A row is there when its last request is answered, or when it was and its key has left the upstream's source since. What
is in a job, queued or failed is not, even if an earlier answer is still delivered: another one is to come.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Final

from msgspec import Struct
from msgspec.structs import replace

from batchform.adapters.sources.snapshot import take
from batchform.canon import digest_of
from batchform.ledger.store import Ledger
from batchform.plan.diff import sent_again
from batchform.ports import Identified, Relation, Source
from batchform.rows.keyed import source_digest
from batchform.rows.pages import not_left_sql
from batchform.rows.sql import identifier, literal
from batchform.run.columns import Context, key_types, recorded_kind
from batchform.run.deliver import SourceRows, in_order, recorded_types
from batchform.run.joined import DELIVERABLE, join_answers
from batchform.spec.chains import STATUS, answer_columns
from batchform.spec.delivery import OutputColumn
from batchform.spec.expressions import FIELDS, Field, InResponse, KeyColumn, RowColumn
from batchform.spec.model import SpecSource
from batchform.spec.realm import realm_of
from batchform.spec.resolved import ResolvedSpec
from batchform.spec.wording import counted

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

_SETTLED: Final = f"status IN ('answered', 'absent') AND answer_fp IS NOT NULL AND {not_left_sql()}"
_OF_SOURCE: Final = "source_"
_ROW_BYTES: Final = 4_096


class Upstream(Struct, frozen=True):
    """A spec whose answers are read. source: opens the upstream's own source; source_rows: reads it under its keys;
    connect: a fresh connection; scratch: an existing folder that it may read and write."""

    spec: ResolvedSpec
    ledger: Ledger
    connect: Callable[[], DuckDBPyConnection]
    scratch: Path
    source: Callable[[], Source]
    source_rows: SourceRows

    @property
    def name(self) -> str:
        return self.spec.name

    @property
    def known(self) -> bool:
        """Whether the ledger has any row of it."""
        return self.name in self.ledger.specs()


class AnswersSource(Struct, frozen=True):
    """The `spec` source; see `batchform.ports.Chained`. reader: the spec that it is the source of; rows: SQL, which
    row states are read; changing: see `without`."""

    spec: SpecSource
    reader: ResolvedSpec
    of: Upstream
    rows: str = _SETTLED
    changing: tuple[Path, ...] = ()

    @property
    def upstream(self) -> str:
        return self.of.name

    @property
    def whole_only(self) -> bool:
        return self.spec.query is not None

    def without(self, changing: Sequence[Path]) -> AnswersSource:
        return replace(self, changing=tuple(changing))

    def delivered(self) -> AnswersSource:
        return replace(self, rows=f"{DELIVERABLE} AND {not_left_sql()}")

    def settled(self) -> int:
        if not self.of.known:
            return 0
        with closing(self.of.connect()) as con:
            return _count(con, self.of.ledger.rows_relation(con, self.upstream), _SETTLED)

    def unsettled(self) -> int:
        if not self.of.known:
            return 0
        retried = ", ".join(map(literal, sent_again(self.of.spec))) or "NULL"
        again = f"status = 'failed' AND failure IN ({retried}) AND attempt < {self.of.spec.retry.max_attempts}"
        with closing(self.of.connect()) as con:
            rows = self.of.ledger.rows_relation(con, self.upstream)
            return _count(con, rows, f"status IN ('in_flight', 'pending') OR ({again})")

    def identity(self) -> str:
        """Of what is read beside the ledger, whose serial tells its own changes: the upstream's own source."""
        if not self.spec.with_source:
            return f"answers of {self.upstream}"
        source = self.of.source()
        if isinstance(source, Identified):
            return digest_of("source", [self.upstream, source.identity()])
        with closing(self.of.connect()) as con:
            read = source.open(con)
        return digest_of("source", [self.upstream, source_digest(read.paths, read.identity)])

    def open(self, con: DuckDBPyConnection) -> Relation:  # noqa: ARG002  (read by a connection of its own)
        """Read the answers into a snapshot, in the order of their keys. Raises SourceError, LedgerCorrupt."""
        with (
            closing(self.of.connect()) as reading,
            TemporaryDirectory(prefix="chain-", dir=self.of.scratch) as folder,
        ):
            answers, rows, notes = self._answers(reading, Path(folder))
            snapshot = take(reading, answers, where=self.spec.where, query=self.spec.query, row_bytes=_ROW_BYTES)
        columns, sql = dict(snapshot.columns), snapshot.sql
        if self.spec.query is None and self._sees_status():
            del columns[STATUS]
            sql = f"(SELECT * EXCLUDE ({STATUS}) FROM {snapshot.sql})"
        described = f"{counted(rows, 'answer')} of {self.upstream}" + (", source.query" if self.spec.query else "")
        return Relation(sql, columns, described, identity=self.identity(), notes=tuple(notes))

    def locate(self, con: DuckDBPyConnection, ordinals: Sequence[int]) -> list[str]:  # noqa: ARG002
        """`row 17 of the answers of extract`, by the order of keys or of the query."""
        what = "source.query on the answers" if self.spec.query else "the answers"
        return [f"row {number + 1} of {what} of {self.upstream}" for number in ordinals]

    # --- reading

    def _sees_status(self) -> bool:
        """Whether a condition may speak of STATUS, unless the answers have such a column themselves."""
        own = {c.name.casefold() for c in answer_columns(self.of.spec)}
        return (self.spec.where is not None or self.spec.query is not None) and STATUS not in own

    def _answers(self, con: DuckDBPyConnection, folder: Path) -> tuple[str, int, list[str]]:
        """FROM-able answers, how many, and what is to be said of the others."""
        upstream, columns = self.of.spec, list(answer_columns(self.of.spec))
        if not self.of.known:
            return self._nothing(con, columns), 0, [f"{self.upstream} has no answers yet"]
        ledger, control = self.of.ledger, self.of.ledger.control()
        every = ledger.rows_relation(con, self.upstream)
        chosen = f"(SELECT * FROM {every} WHERE {self.rows} AND {self._realm()}{self._stays()})"
        rows = _count(con, chosen)
        joined = join_answers(con, ledger, control, chosen, expected=rows, folder=folder)
        key = key_types(con, upstream.key_columns, recorded_types(control, upstream), joined.rows)
        source = self._source(con, chosen, columns)
        context = Context(self.upstream, key, source, folder)
        values, relation, order = in_order(con, columns, context, joined, rows=rows)
        whole = folder / "answers.parquet"
        con.execute(f"COPY (SELECT {values} FROM {relation} {order}) TO {literal(str(whole))} (FORMAT parquet)")
        return f"read_parquet({literal(str(whole))})", rows, self._left_out(con, every)

    def _realm(self) -> str:
        """Answers that are made up are no rows for a model that is paid for."""
        return "realm = 'google'" if realm_of(self.reader.backend) == "google" else "true"

    def _stays(self) -> str:
        if not self.changing:
            return ""
        files = ", ".join(literal(str(path)) for path in self.changing)
        return f" AND key_hash NOT IN (SELECT key_hash FROM read_parquet([{files}], union_by_name = true))"

    def _source(self, con: DuckDBPyConnection, chosen: str, columns: list[OutputColumn]) -> str | None:
        """What `columns` reads beside answers, which are added to it: FROM-able, with `key_hash`."""
        if self._sees_status():
            columns.append(OutputColumn(STATUS, RowColumn(STATUS)))
        states = f"SELECT key_hash, status AS {STATUS} FROM {chosen}"
        if not self.spec.with_source:
            return f"({states})" if self._sees_status() else None
        rows = self.of.source_rows(con)
        described = con.execute(f"DESCRIBE SELECT * FROM {rows}").fetchall()
        selected = []
        for name, own in self._beside(columns, [name for name, *_ in described if name != "key_hash"]):
            selected.append(f", o.{identifier(name)} AS {identifier(own)}")
            columns.append(OutputColumn(own, RowColumn(own)))
        return (
            f"(SELECT t.key_hash, t.{STATUS}{''.join(selected)} FROM ({states}) t LEFT JOIN {rows} o USING (key_hash))"
        )

    def _beside(self, columns: Sequence[OutputColumn], names: Sequence[str]) -> Iterator[tuple[str, str]]:
        """(column of the upstream's source, what it is called here), without those of the key."""
        taken = {c.name.casefold() for c in columns}
        for name in names:
            if name in self.of.spec.key_columns:
                continue
            own = name
            while own.casefold() in taken:
                own = _OF_SOURCE + own
            taken.add(own.casefold())
            yield name, own

    def _nothing(self, con: DuckDBPyConnection, columns: Sequence[OutputColumn]) -> str:
        """FROM-able no answers, in the columns that they will have."""
        there = self.of.source().open(con).columns
        kinds = {c.name: _kind(c, there) for c in columns}
        if self._sees_status():
            kinds[STATUS] = "VARCHAR"
        if self.spec.with_source:
            kinds |= {own: there[name] for name, own in self._beside(columns, list(there))}
        nulls = ", ".join(f"NULL::{kind} AS {identifier(name)}" for name, kind in kinds.items())
        return f"(SELECT {nulls} WHERE false)"

    def _left_out(self, con: DuckDBPyConnection, every: str) -> list[str]:
        open_, failed, foreign = con.execute(
            "SELECT count(*) FILTER (status IN ('in_flight', 'pending')), count(*) FILTER (status = 'failed'), "
            f"count(*) FILTER ({_SETTLED} AND NOT ({self._realm()})) FROM {every}"
        ).fetchall()[0]
        notes = []
        if open_:
            notes.append(f"{counted(open_, 'row')} of {self.upstream} not answered yet: in flight, or queued")
        if failed:
            notes.append(f"{counted(failed, 'row')} of {self.upstream} failed, and not read")
        if foreign:
            notes.append(f"{counted(foreign, 'answer')} of {self.upstream} not read: the emulator made them up")
        return notes


def _kind(column: OutputColumn, of_source: Mapping[str, str]) -> str:
    """The DuckDB type of a column before there is any answer."""
    match column.expression:
        case InResponse(type=kind):
            return kind
        case Field(name=name):
            return FIELDS[name]
        case KeyColumn(name=name):
            return recorded_kind(of_source.get(name, "VARCHAR"))
        case _:
            return "VARCHAR"


def _count(con: DuckDBPyConnection, rows: str, where: str = "true") -> int:
    return int(con.execute(f"SELECT count(*) FROM {rows} WHERE {where}").fetchall()[0][0])

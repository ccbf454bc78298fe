"""Rows with their attachments: any source, and beside its columns which files each row has and what they hold.

That the content is a column makes it part of the input fingerprint: a row whose file has other bytes is a changed row,
and one whose file was only moved is not.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from msgspec.structs import replace

from batchform.adapters.contents import Contents, Found
from batchform.adapters.sources.paths import expand
from batchform.adapters.sources.snapshot import write_batches
from batchform.canon import digest_of
from batchform.errors import SourceError
from batchform.ports import Chained, Relation, Source
from batchform.rows.attached import encode, part
from batchform.rows.names import ATTACHMENTS, FILES, PART, ROW
from batchform.rows.stream import stream, values_sql
from batchform.spec.attachments import CompiledAttachment
from batchform.spec.resolved import ResolvedSpec
from batchform.spec.wording import counted, suggestion

if TYPE_CHECKING:
    from pathlib import Path

    import pyarrow as pa
    from duckdb import DuckDBPyConnection

MAX_FILES: Final = 3000
"""Files of one row: what a request may hold of images."""


class AttachedSource:
    """A source whose rows come with ATTACHMENTS and FILES."""

    def __init__(
        self, source: Source, spec: ResolvedSpec, contents: Contents, *, root: Path, allow: Sequence[Path]
    ) -> None:
        self._source, self._spec, self._contents = source, spec, contents
        self._root, self._allow = root, allow
        self._rows: str | None = None  # SQL: which row of the source a part comes of

    def open(self, con: DuckDBPyConnection) -> Relation:
        """Open the rows and read what their files hold. Raises SourceError naming the row and the file."""
        found = self._source.open(con)
        self._contents.begin()
        for name in (ATTACHMENTS, FILES, *((PART, ROW) if self._spec.splits else ())):
            if name in found.columns:
                raise SourceError(f"the source has a column {name}, which batchform makes itself", hint="Rename it.")
        names = self._read_columns(found.columns)
        values = values_sql(names, found.columns, "s").removeprefix(", ") or "NULL"
        rows = Rows(self._spec, names, self)
        schema = _schema(splits=self._spec.splits)
        try:
            attached = write_batches(con, schema, rows.batches(stream(con, f"SELECT {values} FROM {found.sql} s")))
        except SourceError as error:
            raise self._placed(con, error, rows.done - 1) from error
        sql, added = f"(SELECT * FROM {found.sql} bf_r POSITIONAL JOIN {attached.sql} bf_a)", {}
        self._rows = None
        if self._spec.splits:
            sql, added = self._in_parts(con, found, attached.sql), {PART: "VARCHAR", ROW: "BIGINT"}
        return Relation(
            sql,
            {**found.columns, ATTACHMENTS: "VARCHAR", FILES: "VARCHAR", **added},
            found.described,
            found.paths,
            digest_of("attached", [found.identity, rows.digest]),
            (*found.notes, *rows.notes),
            found.versions,
        )

    def _in_parts(self, con: DuckDBPyConnection, found: Relation, attached: str) -> str:
        """FROM-able: each row as often as it has parts, in the order of rows and parts."""
        con.execute(
            f"CREATE OR REPLACE TEMP TABLE bf_in_parts AS SELECT s.* EXCLUDE (bf_n), a.* FROM "
            f"(SELECT *, row_number() OVER () - 1 AS bf_n FROM {found.sql}) s "
            f"JOIN (SELECT *, row_number() OVER () AS bf_m FROM {attached}) a ON s.bf_n = a.{ROW} ORDER BY a.bf_m"
        )
        self._rows = f"SELECT {ROW} FROM bf_in_parts WHERE rowid = ?"
        return "(SELECT * EXCLUDE (bf_m) FROM bf_in_parts)"

    def _placed(self, con: DuckDBPyConnection, error: SourceError, ordinal: int) -> SourceError:
        """An error of one row, with where that row stands."""
        where = self._source.locate(con, [ordinal]) if ordinal >= 0 else []
        if not where:
            return error
        return SourceError(f"{where[0]}: {error.message}", place=error.place, hint=error.hint)

    def locate(self, con: DuckDBPyConnection, ordinals: Sequence[int]) -> list[str]:
        """Where rows stand in the source itself."""
        if self._rows is not None:
            ordinals = [int(con.execute(self._rows, [o]).fetchall()[0][0]) for o in ordinals]
        return self._source.locate(con, ordinals)

    def _read_columns(self, columns: Mapping[str, str]) -> tuple[str, ...]:
        """The columns that the attachments read. Raises SourceError for those that are not there."""
        wanted: set[str] = set()
        for attachment in self._spec.attachments:
            read = columns.keys() if attachment.columns is None else attachment.columns
            for name in sorted(read):
                if name not in columns:
                    raise SourceError(
                        f"the source of {self._spec.name} has no column `{name}`",
                        place=self._spec.at(attachment.at),
                        hint=suggestion(name, list(columns), noun="Its columns"),
                    )
            wanted |= set(read)
        return tuple(c for c in columns if c in wanted)

    def prefetch(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Fetch what rows name elsewhere. What is wrong with a row is told when it is read."""
        found: dict[str, None] = {}
        for row in rows:
            for one in self._spec.attachments:
                with suppress(Exception):
                    found |= dict.fromkeys(one.named(row))
        self._contents.prefetch(found)

    def files(self, row: Mapping[str, Any], one: CompiledAttachment) -> Iterator[tuple[Found, ...]]:
        """What each file is that one attachment gives a row: in one piece, or in parts. Raises SourceError."""
        found = one.named(row)
        if one.kind == "pattern" and found:
            paths = expand(found, root=self._root, allow=self._allow, optional=one.optional)
            found = [file.name for file in paths]
        if not found and not one.optional:
            raise SourceError(
                "it has no file here, and the attachment is not optional",
                hint="Set `optional: true` on the attachment, or leave the row out with source.where.",
            )
        for text in found:
            yield self._contents.of(text, one)


class AttachedAnswers(AttachedSource):
    """Rows of a chain, with their attachments; see `batchform.ports.Chained`."""

    _source: Chained

    @property
    def upstream(self) -> str:
        return self._source.upstream

    @property
    def whole_only(self) -> bool:
        return self._source.whole_only

    def open(self, con: DuckDBPyConnection) -> Relation:
        """As of other sources; but which rows there are is told by the ledger, and no part of the identity."""
        found = super().open(con)
        return replace(found, identity="attachments of answers")

    def without(self, changing: Sequence[Path]) -> Source:
        return self._of(self._source.without(changing))

    def delivered(self) -> Source:
        return self._of(self._source.delivered())

    def settled(self) -> int:
        return self._source.settled()

    def unsettled(self) -> int:
        return self._source.unsettled()

    def _of(self, source: Source) -> Source:
        return AttachedAnswers(source, self._spec, self._contents, root=self._root, allow=self._allow)


class Rows:
    """The values of ATTACHMENTS and FILES for rows as they come, with PART and ROW where rows may have parts; `digest`
    of all of them at the end."""

    def __init__(self, spec: ResolvedSpec, names: Sequence[str], source: AttachedSource) -> None:
        self._spec, self._names, self._source = spec, names, source
        self.done = 0
        self.digest = ""
        self._made = self._split = 0

    @property
    def notes(self) -> tuple[str, ...]:
        """What is to be said of rows in parts."""
        if not self._split:
            return ()
        said = (
            f"{counted(self.done, 'row')} of the source: {counted(self._split, 'PDF')} longer than `split_pages`, so "
            f"{counted(self._made, 'request')}. Each counts as a row until the answers are delivered."
        )
        return (said,)

    def batches(self, rows: Iterator[list[tuple[Any, ...]]]) -> Iterator[pa.RecordBatch]:
        """One Arrow batch for each of rows."""
        import pyarrow as pa

        splits = self._spec.splits
        for batch in rows:
            made: list[tuple[str, str, str, int]] = []
            named = [dict(zip(self._names, values, strict=False)) for values in batch]
            self._source.prefetch(named)
            for row in named:
                self.done += 1
                made += self._row(row)
            self._made += len(made)
            shown = [one for one, *_ in made]
            self.digest = digest_of("files", [self.digest, shown])
            arrays = [pa.array(shown, pa.string()), pa.array([files for _, files, *_ in made], pa.string())]
            if splits:
                arrays += [pa.array([m[2] for m in made], pa.string()), pa.array([m[3] for m in made], pa.int64())]
            yield pa.RecordBatch.from_arrays(arrays, schema=_schema(splits=splits))

    def _row(self, row: Mapping[str, Any]) -> Iterator[tuple[str, str, str, int]]:
        """ATTACHMENTS, FILES, PART and ROW of each part of a row."""
        pieces: list[tuple[CompiledAttachment, tuple[Found, ...]]] = []
        for one in self._spec.attachments:
            try:
                pieces += [(one, found) for found in self._source.files(row, one)]
            except SourceError as error:
                raise self._at(error, one) from error
            except Exception as error:  # whatever a template can raise
                raise self._explained(error, one) from error
        if len(pieces) > MAX_FILES:
            many = SourceError(f"it has {len(pieces):,} files, and a request holds {MAX_FILES:,}")
            raise self._at(many, self._spec.attachments[0])
        long = [(one, found) for one, found in pieces if len(found) > 1]
        if len(long) > 1:
            several = SourceError(
                f"it has {len(long)} PDFs that are longer than `split_pages`, and only one can be asked about in parts",
                hint="Make a row of each.",
            )
            raise self._at(several, long[1][0])
        self._split += len(long)
        for number in range(len(long[0][1]) if long else 1):
            chosen = [(one, found[number] if len(found) > 1 else found[0]) for one, found in pieces]
            yield self._piece(chosen)

    def _piece(self, chosen: Sequence[tuple[CompiledAttachment, Found]]) -> tuple[str, str, str, int]:
        parts: dict[str, list[dict[str, Any]]] = {}
        for one, found in chosen:
            parts.setdefault(one.position, []).append(part(found.content, found.mime))
        files = {f.file.identity: f.file for _, f in chosen if f.file is not None}
        suffix = next((f.part for _, f in chosen if f.part), "")
        return *encode(parts, files.values()), suffix, self.done - 1

    def _at(self, error: SourceError, one: CompiledAttachment) -> SourceError:
        return SourceError(
            f"row {self.done:,} of {self._spec.name}: {error.message}", place=self._spec.at(one.at), hint=error.hint
        )

    def _explained(self, error: Exception, one: CompiledAttachment) -> SourceError:
        from batchform.spec.templates import explain_render_error

        if one.template is None:
            return self._at(SourceError(str(error)), one)
        return explain_render_error(one.template, error, f"row {self.done}")


def _schema(*, splits: bool) -> pa.Schema:
    import pyarrow as pa

    own = [(PART, pa.string()), (ROW, pa.int64())] if splits else []
    return pa.schema([(ATTACHMENTS, pa.string()), (FILES, pa.string()), *own])

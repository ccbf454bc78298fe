"""Rows with their attachments: any source, and beside its columns which files each row has and what they hold.

That the content is a column makes it part of the input fingerprint: a row whose file has other bytes is a changed row,
and one whose file was only moved is not.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from msgspec.structs import replace

from batchform.adapters.contents import Contents
from batchform.adapters.sources.paths import expand
from batchform.adapters.sources.snapshot import write_batches
from batchform.canon import digest_of
from batchform.errors import SourceError
from batchform.ports import Chained, Relation, Source
from batchform.rows.attached import AttachedFile, encode, part
from batchform.rows.names import ATTACHMENTS, FILES
from batchform.rows.stream import stream, values_sql
from batchform.spec.attachments import CompiledAttachment
from batchform.spec.resolved import ResolvedSpec
from batchform.spec.wording import suggestion

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

    def open(self, con: DuckDBPyConnection) -> Relation:
        """Open the rows and read what their files hold. Raises SourceError naming the row and the file."""
        found = self._source.open(con)
        self._contents.begin()
        for name in (ATTACHMENTS, FILES):
            if name in found.columns:
                raise SourceError(f"the source has a column {name}, which batchform makes itself", hint="Rename it.")
        names = self._read_columns(found.columns)
        values = values_sql(names, found.columns, "s").removeprefix(", ") or "NULL"
        rows = Rows(self._spec, names, self)
        try:
            attached = write_batches(con, _schema(), rows.batches(stream(con, f"SELECT {values} FROM {found.sql} s")))
        except SourceError as error:
            raise self._placed(con, error, rows.done - 1) from error
        sql = f"(SELECT * FROM {found.sql} bf_r POSITIONAL JOIN {attached.sql} bf_a)"
        return Relation(
            sql,
            {**found.columns, ATTACHMENTS: "VARCHAR", FILES: "VARCHAR"},
            found.described,
            found.paths,
            digest_of("attached", [found.identity, rows.digest]),
            found.notes,
            found.versions,
        )

    def _placed(self, con: DuckDBPyConnection, error: SourceError, ordinal: int) -> SourceError:
        """An error of one row, with where that row stands."""
        where = self._source.locate(con, [ordinal]) if ordinal >= 0 else []
        if not where:
            return error
        return SourceError(f"{where[0]}: {error.message}", place=error.place, hint=error.hint)

    def locate(self, con: DuckDBPyConnection, ordinals: Sequence[int]) -> list[str]:
        """Where rows stand in the source itself."""
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

    def files(self, row: Mapping[str, Any], one: CompiledAttachment) -> Iterator[tuple[str, str, AttachedFile | None]]:
        """(content or address, MIME type, file) of each file that one attachment gives a row. Raises SourceError."""
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
            yield self._contents.of(text, one.mime_type, one.inline_up_to)


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
    """The values of ATTACHMENTS and FILES for rows as they come; `digest` of all of them at the end."""

    def __init__(self, spec: ResolvedSpec, names: Sequence[str], source: AttachedSource) -> None:
        self._spec, self._names, self._source = spec, names, source
        self.done = 0
        self.digest = ""

    def batches(self, rows: Iterator[list[tuple[Any, ...]]]) -> Iterator[pa.RecordBatch]:
        """One Arrow batch for each of rows."""
        import pyarrow as pa

        for batch in rows:
            made = []
            for values in batch:
                self.done += 1
                made.append(self._row(dict(zip(self._names, values, strict=False))))
            shown = [one for one, _ in made]
            self.digest = digest_of("files", [self.digest, shown])
            yield pa.RecordBatch.from_arrays(
                [pa.array(shown, pa.string()), pa.array([files for _, files in made], pa.string())], schema=_schema()
            )

    def _row(self, row: Mapping[str, Any]) -> tuple[str, str]:
        parts: dict[str, list[dict[str, Any]]] = {}
        files: dict[tuple[str, str], AttachedFile] = {}
        count = 0
        for one in self._spec.attachments:
            try:
                for uri, mime, file in self._source.files(row, one):
                    parts.setdefault(one.position, []).append(part(uri, mime))
                    count += 1
                    if file is not None:
                        files[file.identity] = file
            except SourceError as error:
                raise self._at(error, one) from error
            except Exception as error:  # whatever a template can raise
                raise self._explained(error, one) from error
        if count > MAX_FILES:
            many = SourceError(f"it has {count:,} files, and a request holds {MAX_FILES:,}")
            raise self._at(many, self._spec.attachments[0])
        return encode(parts, files.values())

    def _at(self, error: SourceError, one: CompiledAttachment) -> SourceError:
        return SourceError(
            f"row {self.done:,} of {self._spec.name}: {error.message}", place=self._spec.at(one.at), hint=error.hint
        )

    def _explained(self, error: Exception, one: CompiledAttachment) -> SourceError:
        from batchform.spec.templates import explain_render_error

        if one.template is None:
            return self._at(SourceError(str(error)), one)
        return explain_render_error(one.template, error, f"row {self.done}")


def _schema() -> pa.Schema:
    import pyarrow as pa

    return pa.schema([(ATTACHMENTS, pa.string()), (FILES, pa.string())])

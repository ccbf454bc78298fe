"""One row per file: path, name, size, sha256, mime, text."""

from __future__ import annotations

import codecs
import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from batchform.adapters.sources.paths import Remote, SourceFile, describe, expand, read_from
from batchform.adapters.sources.snapshot import Snapshot, locate, take, write_batches
from batchform.adapters.sources.sql import source_error
from batchform.adapters.sources.text import CHUNK, is_utf8
from batchform.errors import SourceError
from batchform.ports import Relation
from batchform.spec.mime import mime_type
from batchform.spec.model import FilesSource

if TYPE_CHECKING:
    import pyarrow as pa
    from duckdb import DuckDBPyConnection

MAX_TEXT = 32 << 20
"""Files above this many bytes have no text: a request could not hold it."""

_BATCH_BYTES = 16 << 20
_BATCH_ROWS = 4_096


class FileListSource:
    """The `files` source."""

    def __init__(self, spec: FilesSource, *, root: Path, allow: Sequence[Path], remote: Remote | None = None) -> None:
        self._spec, self._root, self._allow, self._remote = spec, root, allow, remote
        self._encoding = spec.encoding or "utf-8"
        self._files: list[SourceFile] = []
        self._snapshot: Snapshot | None = None

    def open(self, con: DuckDBPyConnection) -> Relation:
        """Read all files, in the order of their names. Raises SourceError naming the file."""
        import duckdb

        is_utf8(self._encoding)  # an unknown encoding is an error even if every file is binary
        files = expand(self._spec.path, root=self._root, allow=self._allow, remote=self._remote)
        snapshot = write_batches(con, _schema(), self._batches(files))
        if self._spec.where is not None or self._spec.query is not None:
            whole = snapshot
            try:
                snapshot = take(con, whole.sql, where=self._spec.where, query=self._spec.query)
            except duckdb.Error as error:
                raise source_error(error, "source.where") from error
            finally:
                whole.path.unlink(missing_ok=True)
        self._files, self._snapshot = files, snapshot
        return Relation(snapshot.sql, snapshot.columns, describe(files, self._spec.path), **read_from(files))

    def locate(self, con: DuckDBPyConnection, ordinals: Sequence[int]) -> list[str]:
        """The path of each row's file."""
        return locate(con, self._snapshot, ordinals, (file.name for file in self._files))

    def _batches(self, files: Sequence[SourceFile]) -> Iterator[pa.RecordBatch]:
        import pyarrow as pa

        rows: list[dict[str, Any]] = []
        held = 0
        for file in files:
            rows.append(_row(file, self._encoding))
            held += len(rows[-1]["text"] or "")
            if held >= _BATCH_BYTES or len(rows) >= _BATCH_ROWS:
                yield pa.RecordBatch.from_pylist(rows, schema=_schema())
                rows, held = [], 0
        if rows:
            yield pa.RecordBatch.from_pylist(rows, schema=_schema())


def _schema() -> pa.Schema:
    import pyarrow as pa

    text = pa.string()
    return pa.schema(
        [("path", text), ("name", text), ("size", pa.int64()), ("sha256", text), ("mime", text), ("text", text)]
    )


def _row(file: SourceFile, encoding: str) -> dict[str, Any]:
    """size in bytes; sha256 as 64 hex digits; text NULL if it does not decode, holds a NUL or is above MAX_TEXT."""
    hasher = hashlib.sha256()
    held: list[bytes] | None = []
    size = 0
    try:
        with file.path.open("rb") as stream:
            while chunk := stream.read(CHUNK):
                hasher.update(chunk)
                size += len(chunk)
                if held is not None:
                    held.append(chunk)
                    if size > MAX_TEXT:
                        held = None
    except OSError as error:
        raise SourceError(f"{file.name} cannot be read: {error.strerror}.") from error
    name = file.name.rpartition("/")[2]
    return {
        "path": file.name,
        "name": name,
        "size": size,
        "sha256": hasher.hexdigest(),
        "mime": mime_type(name),
        "text": None if held is None else _text(b"".join(held), encoding),
    }


def _text(content: bytes, encoding: str) -> str | None:
    if is_utf8(encoding):
        content = content.removeprefix(codecs.BOM_UTF8)
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError:
        return None
    return None if "\0" in text else text

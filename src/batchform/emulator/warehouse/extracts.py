"""Tables and results → objects in Cloud Storage: NDJSON, CSV or Parquet, each as one object, streamed."""

from __future__ import annotations

import csv
import gzip
import io
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final, cast

import msgspec

from batchform.emulator.refusal import Refusal
from batchform.emulator.warehouse import rows
from batchform.emulator.warehouse.catalog import File, Version
from batchform.emulator.warehouse.declined import Declined, invalid, not_supported
from batchform.emulator.warehouse.fields import Schema
from batchform.emulator.warehouse.shown import plain_row, rest_row
from batchform.emulator.warehouse.warehouse import Warehouse

if TYPE_CHECKING:
    import pyarrow as pa

_FIRST: Final = "000000000000"
_FORMATS: Final = {"JSON": "NEWLINE_DELIMITED_JSON"}
_TYPES: Final = {
    "NEWLINE_DELIMITED_JSON": "application/octet-stream",
    "CSV": "text/csv",
    "PARQUET": "application/octet-stream",
}


class Order(msgspec.Struct, frozen=True):
    """What to write where. uris: `gs://bucket/name`, a `*` stands for the number of the object."""

    uris: tuple[str, ...]
    format: str = "CSV"
    compression: str = "NONE"
    delimiter: str = ","
    header: bool = True
    overwrite: bool = True


def of_options(given: Mapping[str, Any]) -> Order:
    """OPTIONS of EXPORT DATA."""
    kind = str(given.get("format", "")).upper()
    return _checked(
        Order(
            (str(given.get("uri", "")),),
            _FORMATS.get(kind, kind),
            str(given.get("compression") or "NONE").upper(),
            str(given.get("field_delimiter") or ","),
            bool(given.get("header", False)),
            bool(given.get("overwrite", False)),
        )
    )


def of_config(config: Mapping[str, Any]) -> Order:
    """The `extract` of a job's configuration."""
    uris = config.get("destinationUris") or [config.get("destinationUri") or ""]
    return _checked(
        Order(
            tuple(uris),
            str(config.get("destinationFormat") or "CSV").upper(),
            str(config.get("compression") or "NONE").upper(),
            str(config.get("fieldDelimiter") or ","),
            bool(config.get("printHeader", True)),
        )
    )


def _checked(order: Order) -> Order:
    if order.format not in _TYPES:
        raise not_supported(f"exports as {order.format or 'nothing'}; it writes {', '.join(_TYPES)}")
    for uri in order.uris:
        split_uri(uri)
    if order.format != "PARQUET" and order.compression not in ("NONE", "GZIP"):
        raise invalid(f"Compression {order.compression} does not go with {order.format}.")
    return order


def split_uri(uri: str) -> tuple[str, str]:
    """Bucket and name. Raises Declined."""
    bucket, _, name = uri.removeprefix("gs://").partition("/")
    if not uri.startswith("gs://") or not bucket or not name:
        raise invalid(f'Invalid URI "{uri}". It must be gs://bucket/name.')
    return bucket, name


def write(warehouse: Warehouse, schema: Schema, files: Iterable[File], order: Order) -> dict[str, Any]:
    """The rows of files as one object; what a job says of it."""
    bucket, name = split_uri(order.uris[0])
    if not order.overwrite:
        _refuse_overwrite(warehouse, bucket, name)
    version = Version(0, 0, schema, tuple(files))
    try:
        with warehouse.objects.writing(bucket, name.replace("*", _FIRST), content_type=_TYPES[order.format]) as out:
            _write(rows.batches(warehouse, version), schema, order, cast(Any, out))
    except Declined:
        raise
    except Refusal as e:
        raise Declined(e.status, e.message) from e
    return {"destinationUriFileCounts": ["1"], "rows": version.rows}


def _refuse_overwrite(warehouse: Warehouse, bucket: str, name: str) -> None:
    prefix = name.partition("*")[0]
    try:
        there = next(iter(warehouse.objects.list(bucket, prefix)), None)
    except Refusal as e:
        raise Declined(e.status, e.message) from e
    if there is not None:
        raise invalid(f"Invalid value: The URI gs://{bucket}/{prefix} is not empty; say overwrite=true.")


class _Sink(io.RawIOBase):
    """What pyarrow and gzip want of a file, over what only takes bytes."""

    def __init__(self, out: Any) -> None:
        self._out, self._at = out, 0

    def writable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def write(self, data: Any) -> int:
        self._out.write(bytes(data))
        self._at += len(data)
        return len(data)


def _write(tables: Iterator[pa.Table], schema: Schema, order: Order, out: Any) -> None:
    if order.format == "PARQUET":
        _parquet(tables, schema, order, _Sink(out))
        return
    lines = _json_lines(tables, schema) if order.format != "CSV" else _csv_lines(tables, schema, order)
    if order.compression == "GZIP":
        with gzip.GzipFile(fileobj=cast(Any, _Sink(out)), mode="wb", mtime=0) as zipped:
            for line in lines:
                zipped.write(line)
    else:
        for line in lines:
            out.write(line)


def _parquet(tables: Iterator[pa.Table], schema: Schema, order: Order, sink: _Sink) -> None:
    import pyarrow.parquet as pq

    from batchform.emulator.warehouse.fields import arrow_schema

    compression = "NONE" if order.compression == "NONE" else order.compression
    with pq.ParquetWriter(sink, arrow_schema(schema), compression=compression) as writer:
        for table in tables:
            writer.write_table(table)


def _json_lines(tables: Iterator[pa.Table], schema: Schema) -> Iterator[bytes]:
    plain = plain_row(schema, integers_as_text=True)
    for row in rows.dicts(tables):
        shown = {name: value for name, value in plain(row).items() if value is not None}
        yield msgspec.json.encode(shown) + b"\n"


def _csv_lines(tables: Iterator[pa.Table], schema: Schema, order: Order) -> Iterator[bytes]:
    for field in schema:
        if field.repeated or field.type == "RECORD":
            raise invalid(f"Operation cannot be performed on a nested schema. Field: {field.name}")
    buffer = io.StringIO()
    writer = csv.writer(buffer, delimiter=order.delimiter, lineterminator="\n")
    if order.header:
        writer.writerow([f.name for f in schema])
    shown = rest_row(schema, "ISO8601_STRING")
    for row in rows.dicts(tables):
        writer.writerow(["" if cell["v"] is None else cell["v"] for cell in shown(row)["f"]])
        if buffer.tell() > 65_536:
            yield buffer.getvalue().encode()
            buffer.seek(0)
            buffer.truncate()
    yield buffer.getvalue().encode()

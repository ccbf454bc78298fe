"""What a load reads: NDJSON and CSV line by line, Parquet in batches; and the schema that such files suggest."""

from __future__ import annotations

import csv
import gzip
import io
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from batchform.emulator.warehouse import values
from batchform.emulator.warehouse.declined import invalid
from batchform.emulator.warehouse.fields import Field, Schema, arrow_schema, of_arrow
from batchform.emulator.warehouse.values import Misfit

if TYPE_CHECKING:
    import pyarrow as pa

SAMPLE: Final = 500
_GZIP: Final = b"\x1f\x8b"
_DATE: Final = re.compile(r"\d{4}-\d{2}-\d{2}")
_STAMP: Final = re.compile(r"\d{4}-\d{2}-\d{2}[T ]\d{2}:\d{2}(:\d{2}(\.\d+)?)?( ?(UTC|Z|[+-]\d{2}(:?\d{2})?))?")
_INTEGER: Final = re.compile(r"[+-]?\d{1,18}")
_FLOAT: Final = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")

Outcome = dict[str, Any] | Misfit


def opened(path: Path) -> io.BufferedIOBase:
    """The bytes of a file, unpacked."""
    with path.open("rb") as f:
        packed = f.read(2) == _GZIP
    return gzip.open(path, "rb") if packed else path.open("rb")


def json_rows(path: Path, convert: values.Convert) -> Iterator[Outcome]:
    """Rows, or what is wrong with them."""
    with opened(path) as lines:
        for line in lines:
            if line.strip():
                yield _row(line, convert)


def _row(line: bytes, convert: values.Convert) -> Outcome:
    try:
        return dict(convert(values.decode(line)))
    except msgspec.DecodeError as e:
        return Misfit("", f"JSON parsing error: {e}")
    except Misfit as e:
        return e


class CsvFormat(msgspec.Struct, frozen=True):
    """How CSV is written."""

    delimiter: str = ","
    quote: str = '"'
    skip: int = 0
    null: str = ""
    jagged: bool = False
    ignore_unknown: bool = False


def csv_cells(path: Path, how: CsvFormat) -> Iterator[list[str]]:
    """Rows of text, without those that are skipped."""
    with opened(path) as raw, io.TextIOWrapper(raw, encoding="utf-8-sig", newline="") as text:  # type: ignore[type-var]
        delimiter = {"\\t": "\t", "tab": "\t"}.get(how.delimiter, how.delimiter)
        quoting: Any = csv.QUOTE_MINIMAL if how.quote else csv.QUOTE_NONE
        reader = csv.reader(text, delimiter=delimiter, quotechar=how.quote or None, quoting=quoting)
        yield from islice((cells for cells in reader if cells), how.skip, None)


def csv_rows(path: Path, schema: Schema, how: CsvFormat) -> Iterator[Outcome]:
    """Rows, or what is wrong with them."""
    for field in schema:
        if field.repeated or field.type == "RECORD":
            raise invalid(f"CSV cannot hold the repeated or nested field {field.name}.")
    converters = [values.SCALARS[f.type] for f in schema]
    for cells in csv_cells(path, how):
        yield _csv_row(cells, schema, converters, how)


def _csv_row(cells: list[str], schema: Schema, converters: list[values.Convert], how: CsvFormat) -> Outcome:
    if len(cells) < len(schema) and not how.jagged:
        return Misfit(
            "", f"CSV table references column position {len(schema) - 1}, but line contains only {len(cells)} columns."
        )
    if len(cells) > len(schema) and not how.ignore_unknown:
        return Misfit(
            "", f"Too many values in row. Found {len(cells)} column(s) while {len(schema)} column(s) were expected."
        )
    row: dict[str, Any] = {}
    for i, field in enumerate(schema):
        cell = cells[i] if i < len(cells) else how.null
        if cell == how.null:
            if field.required:
                return Misfit(field.name, f"Missing required field: {field.name}.")
            row[field.name] = None
            continue
        try:
            row[field.name] = converters[i](cell)
        except Misfit as e:
            return Misfit(field.name, e.message)
    return row


def parquet_schema(path: Path) -> Schema:
    """The columns of a file."""
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as parquet:
            return tuple(of_arrow(f) for f in parquet.schema_arrow)
    except (OSError, ValueError) as e:
        raise invalid(f"Error while reading data, error message: it is not a Parquet file: {e}") from e


def parquet_tables(path: Path, schema: Schema) -> Iterator[pa.Table]:
    """Rows in the types of a schema, a few thousand at a time. Raises Declined."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    target = arrow_schema(schema)
    with pq.ParquetFile(path, arrow_extensions_enabled=False) as parquet:
        for batch in parquet.iter_batches(batch_size=8192, use_threads=False):
            there = {name.lower(): i for i, name in enumerate(batch.schema.names)}
            columns = []
            for field, wanted in zip(schema, target, strict=True):
                i = there.get(field.name.lower())
                column = pa.nulls(batch.num_rows, wanted.type) if i is None else batch.column(i)
                columns.append(_fitted(column, field, wanted.type))
            yield pa.Table.from_arrays(columns, schema=target)


def _fitted(column: pa.Array, field: Field, kind: pa.DataType) -> pa.Array:
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.types as is_

    if field.required and column.null_count:
        raise invalid(f"Required column {field.name} has {column.null_count} nulls.")
    try:
        if is_.is_decimal(column.type) and field.type == "BIGNUMERIC":
            return pa.array([None if v is None else values.plain_decimal(v) for v in column.to_pylist()], pa.string())
        if is_.is_dictionary(column.type):
            column = column.dictionary_decode()
        truncated = is_.is_timestamp(column.type) or is_.is_time(column.type)
        kept = column.cast(kind, safe=not truncated)
        if field.repeated and kept.null_count:
            kept = pc.fill_null(kept, pa.scalar([], kind))
    except pa.ArrowException as e:
        raise invalid(
            f"Parquet column '{field.name}' has type {column.type} which does not match {field.type}: {e}"
        ) from e
    return kept


def json_schema(paths: Iterable[Path]) -> Schema:
    """What the first rows of NDJSON files suggest."""
    rows: list[Mapping[str, Any]] = []
    for path in paths:
        with opened(path) as lines:
            for line in islice((x for x in lines if x.strip()), SAMPLE):
                try:
                    found = values.decode(line)
                except msgspec.DecodeError:
                    continue
                if isinstance(found, dict):
                    rows.append(found)
    return _record(rows)


def _record(rows: Sequence[Mapping[str, Any]]) -> Schema:
    seen: dict[str, list[Any]] = {}
    for row in rows:
        for name, value in row.items():
            seen.setdefault(name, []).append(value)
    return tuple(f for name, given in seen.items() if (f := _guess(name, given)))


def _guess(name: str, given: list[Any]) -> Field | None:
    known = [v for v in given if v is not None]
    if any(isinstance(v, list) for v in known):
        inner = _guess(name, [e for v in known if isinstance(v, list) for e in v])
        return msgspec.structs.replace(inner, mode="REPEATED") if inner else None
    if known and all(isinstance(v, dict) for v in known):
        inner_fields = _record(known)
        return Field(name, "RECORD", "NULLABLE", inner_fields) if inner_fields else Field(name, "STRING")
    return Field(name, _widest({_type_of(v) for v in known})) if known else None


def _widest(kinds: set[str]) -> str:
    if len(kinds) == 1:
        return next(iter(kinds))
    return "FLOAT" if kinds == {"INTEGER", "FLOAT"} else "STRING"


def _type_of(value: Any) -> str:
    if isinstance(value, bool):
        return "BOOLEAN"
    if isinstance(value, int):
        return "INTEGER"
    return _type_of_text(value) if isinstance(value, str) else "FLOAT"


def _type_of_text(value: str) -> str:
    for pattern, kind in ((_INTEGER, "INTEGER"), (_FLOAT, "FLOAT"), (_DATE, "DATE"), (_STAMP, "TIMESTAMP")):
        if pattern.fullmatch(value):
            return kind
    return "BOOLEAN" if value.lower() in ("true", "false") else "STRING"


def csv_schema(path: Path, how: CsvFormat) -> tuple[Schema, int]:
    """What the first rows of a CSV file suggest, and how many rows to skip."""
    whole = msgspec.structs.replace(how, skip=max(how.skip - 1, 0))
    first, *rest = [*islice(csv_cells(path, whole), SAMPLE), []][:-1] or [[]]
    is_header = how.skip > 0 or (
        all(_type_of_text(c) == "STRING" for c in first) and any(_type_of_text(c) != "STRING" for r in rest for c in r)
    )
    names = [re.sub(r"\W", "_", c.strip()) for c in first] if is_header else []
    sample = rest if is_header else [first, *rest]
    fields = []
    for i in range(len(first)):
        kinds = {_type_of_text(r[i]) for r in sample if i < len(r) and r[i] != ""}
        kind = _widest(kinds) if kinds else "STRING"
        fields.append(Field(names[i] if names and names[i] else f"{kind.lower()}_field_{i}", kind))
    return tuple(fields), (how.skip or 1) if is_header else how.skip

"""Load jobs: files, uploaded or in Cloud Storage, become rows of a table in one transaction."""

from __future__ import annotations

import fnmatch
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import msgspec

from batchform.emulator.refusal import Refusal
from batchform.emulator.store import new_id
from batchform.emulator.warehouse import inputs, values
from batchform.emulator.warehouse.catalog import Conflict, File, TableRef
from batchform.emulator.warehouse.declined import Declined, invalid, not_supported
from batchform.emulator.warehouse.evolution import added, grown
from batchform.emulator.warehouse.extracts import split_uri
from batchform.emulator.warehouse.fields import Field, Schema, read_schema
from batchform.emulator.warehouse.inputs import CsvFormat
from batchform.emulator.warehouse.query import Finish, Outcome, store
from batchform.emulator.warehouse.rows import RowWriter
from batchform.emulator.warehouse.values import Misfit
from batchform.emulator.warehouse.warehouse import Warehouse
from batchform.emulator.warehouse.workspace import Workspace

_BATCH: Final = 2_000
_FORMATS: Final = ("NEWLINE_DELIMITED_JSON", "CSV", "PARQUET")
_SHOWN_ERRORS: Final = 5
KEPT: Final = ("timePartitioning", "rangePartitioning", "clustering", "requirePartitionFilter")
"""What a job may say of the table that it makes."""


class FailedLoad(Declined):
    """Rows that do not fit: the refusal, and what a job lists in `errors`."""

    def __init__(self, message: str, rows: list[dict[str, Any]]) -> None:
        super().__init__(400, message)
        self.rows = rows


class Load(msgspec.Struct):
    """A load as a job's configuration has it."""

    destination: TableRef
    format: str
    uris: list[str]
    schema: Schema
    autodetect: bool
    write: str
    create: str
    max_bad: int
    ignore_unknown: bool
    csv: CsvFormat
    updates: frozenset[str]
    settings: dict[str, Any]

    @classmethod
    def of(cls, config: Mapping[str, Any], destination: TableRef) -> Load:
        """Raises Declined."""
        kind = str(config.get("sourceFormat") or "CSV").upper()
        if kind not in _FORMATS:
            raise not_supported(f"loads of {kind}; it reads {', '.join(_FORMATS)}")
        if config.get("hivePartitioningOptions"):
            raise not_supported("hive partitioning")
        settings = {k: config[k] for k in KEPT if config.get(k)}
        return cls(
            destination=destination,
            format=kind,
            uris=list(config.get("sourceUris") or []),
            schema=read_schema(config.get("schema")),
            autodetect=bool(config.get("autodetect")),
            write=str(config.get("writeDisposition") or "WRITE_APPEND"),
            create=str(config.get("createDisposition") or "CREATE_IF_NEEDED"),
            max_bad=int(config.get("maxBadRecords") or 0),
            ignore_unknown=bool(config.get("ignoreUnknownValues")),
            csv=CsvFormat(
                delimiter=str(config.get("fieldDelimiter") or ","),
                quote=str(config.get("quote", '"')),
                skip=int(config.get("skipLeadingRows") or 0),
                null=str(config.get("nullMarker") or ""),
                jagged=bool(config.get("allowJaggedRows")),
                ignore_unknown=bool(config.get("ignoreUnknownValues")),
            ),
            updates=frozenset(config.get("schemaUpdateOptions") or ()),
            settings={**settings, **_properties(config.get("destinationTableProperties") or {})},
        )


def _properties(given: Mapping[str, Any]) -> dict[str, Any]:
    return {k: given[k] for k in ("description", "friendlyName", "labels") if given.get(k)}


def run(warehouse: Warehouse, load: Load, upload: Path | None, location: str, finish: Finish) -> Outcome:
    """Raises Declined; then nothing is loaded."""
    home = warehouse.dataset(load.destination.project, load.destination.dataset)
    if location and location.upper() != home.location.upper():
        message = f"Not found: Dataset {home.project}:{home.id} was not found in location {location}"
        raise Declined(404, message)
    with _sources(warehouse, load, upload) as paths:
        for _ in range(20):
            workspace = Workspace(warehouse)
            try:
                outcome = _once(warehouse, workspace, load, paths)
                workspace.commit(finish(outcome))
            except Conflict:
                continue
            return outcome
    raise invalid(f"Table {load.destination} is changed by others all the time.")


def _once(warehouse: Warehouse, workspace: Workspace, load: Load, paths: list[Path]) -> Outcome:
    try:
        there: Any = workspace.read(load.destination)
    except Declined:
        there = None
    schema, skip = _schema(load, there[1].schema if there else (), paths)
    load = msgspec.structs.replace(load, csv=msgspec.structs.replace(load.csv, skip=skip))
    file, bad = _read(warehouse, load, schema, paths)
    files = [file] if file else []
    if there and load.write != "WRITE_TRUNCATE" and schema != there[1].schema:
        if load.write == "WRITE_EMPTY" and there[1].rows:
            raise Declined(409, f"Already Exists: Table {load.destination}")
        workspace.append(there[0], there[1], files, schema)
    else:
        store(workspace, load, load.destination, schema, files)
    sizes = sum(p.stat().st_size for p in paths)
    said = {
        "inputFiles": str(len(paths)),
        "inputFileBytes": str(sizes),
        "outputRows": str(file.rows if file else 0),
        "outputBytes": str(file.bytes if file else 0),
        "badRecords": str(bad),
    }
    return Outcome("", load=said, destination=load.destination, schema=schema)


@contextmanager
def _sources(warehouse: Warehouse, load: Load, upload: Path | None) -> Iterator[list[Path]]:
    """The files to read; objects are copied to this machine's disk while they are read."""
    if upload is not None:
        yield [upload]
        return
    folder = warehouse.spill / f"load-{new_id(16)}"
    folder.mkdir()
    try:
        yield [
            _fetched(warehouse, bucket, name, folder / str(i))
            for i, (bucket, name) in enumerate(_named(warehouse, load))
        ]
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _named(warehouse: Warehouse, load: Load) -> Iterator[tuple[str, str]]:
    for uri in load.uris:
        bucket, pattern = split_uri(uri)
        prefix, star, _ = pattern.partition("*")
        if not star:
            yield bucket, pattern
            continue
        glob = pattern.replace("[", "[[]").replace("?", "[?]")
        try:
            found = [o.name for o in warehouse.objects.list(bucket, prefix) if fnmatch.fnmatchcase(o.name, glob)]
        except Refusal as e:
            raise Declined(e.status, e.message) from e
        if not found:
            raise Declined(404, f"Not found: Uris {uri}")
        yield from ((bucket, name) for name in found)


def _fetched(warehouse: Warehouse, bucket: str, name: str, target: Path) -> Path:
    try:
        with warehouse.objects.open_read(bucket, name) as source, target.open("xb") as out:
            shutil.copyfileobj(source, out)
    except Refusal as e:
        raise Declined(404, f"Not found: URI gs://{bucket}/{name}") from e
    return target


def _schema(load: Load, there: Schema, paths: list[Path]) -> tuple[Schema, int]:
    """The columns of the table after the load, and the rows to skip."""
    given, skip = load.schema, load.csv.skip
    if not given and load.format == "PARQUET":
        merged: dict[str, Field] = {}
        for path in paths:
            for field in inputs.parquet_schema(path):
                merged.setdefault(field.name.lower(), msgspec.structs.replace(field, mode=_loose(field)))
        given = tuple(merged.values())
    elif not given and load.autodetect and (not there or load.updates or load.write == "WRITE_TRUNCATE"):
        if load.format == "CSV":
            given, skip = inputs.csv_schema(paths[0], load.csv)
        else:
            given = inputs.json_schema(paths)
        if not given:
            raise invalid("No schema could be detected: there are no rows.")
    if not there or load.write == "WRITE_TRUNCATE":
        if not (given or there):
            raise invalid("No schema specified on job or table.")
        return given or there, skip
    return _merged(load, there, given), skip


def _loose(field: Field) -> str:
    return "REPEATED" if field.repeated else "NULLABLE"


def _merged(load: Load, there: Schema, given: Schema) -> Schema:
    ref, known = load.destination, {f.name.lower(): f for f in given}
    kept = []
    for old in there:
        new = known.pop(old.name.lower(), None)
        if new is None or new.mode == old.mode or load.format == "PARQUET":
            relaxed = old
        elif "ALLOW_FIELD_RELAXATION" in load.updates and old.required:
            relaxed = msgspec.structs.replace(old, mode="NULLABLE")
        else:
            message = f"Field {old.name} has changed mode from {old.mode} to {new.mode}"
            raise invalid(f"Provided Schema does not match Table {ref}. {message}")
        if new is not None and new.type != old.type and not _converts(load, new, old):
            message = f"Field {old.name} has changed type from {old.type} to {new.type}"
            raise invalid(f"Provided Schema does not match Table {ref}. {message}")
        if new is not None and (load.schema or "ALLOW_FIELD_ADDITION" in load.updates):
            bigger = grown(ref, relaxed, new)
            if bigger != relaxed and "ALLOW_FIELD_ADDITION" not in load.updates:
                raise invalid(f"Provided Schema does not match Table {ref}. Cannot add fields (in field: {old.name})")
            relaxed = bigger
        kept.append(relaxed)
    if known and "ALLOW_FIELD_ADDITION" not in load.updates:
        name = next(iter(known.values())).name
        raise invalid(f"Provided Schema does not match Table {ref}. Cannot add fields (field: {name})")
    return (*kept, *added(ref, list(known.values())))


def _converts(load: Load, new: Field, old: Field) -> bool:
    """Parquet has fewer types than a table; a guess is only a guess."""
    pairs = {("STRING", "JSON"), ("STRING", "GEOGRAPHY"), ("STRING", "BIGNUMERIC"), ("INTEGER", "FLOAT")}
    pairs |= {("INTEGER", "NUMERIC"), ("NUMERIC", "BIGNUMERIC"), ("DATETIME", "TIMESTAMP"), ("INTEGER", "BIGNUMERIC")}
    return not load.schema and (load.format != "PARQUET" or (new.type, old.type) in pairs)


def _read(warehouse: Warehouse, load: Load, schema: Schema, paths: list[Path]) -> tuple[File | None, int]:
    errors: list[dict[str, Any]] = []
    bad = 0
    with RowWriter(warehouse, schema) as writer:
        if load.format == "PARQUET":
            for path in paths:
                for table in inputs.parquet_tables(path, schema):
                    writer.add_table(table)
            good: list[dict[str, Any]] = []
        else:
            good, number = [], 0
            for row in _outcomes(load, schema, paths):
                number += 1
                if isinstance(row, Misfit):
                    bad += 1
                    if len(errors) < _SHOWN_ERRORS:
                        where = f" Field: {row.path};" if row.path else ""
                        message = f"Error while reading data, error message: Row {number}:{where} {row.message}"
                        errors.append({"reason": "invalid", "message": message})
                    if bad > load.max_bad:
                        raise _too_many(load, number, bad, errors)
                    continue
                good.append(row)
                if len(good) >= _BATCH:
                    writer.add(good)
                    good = []
        if good:
            writer.add(good)
    return writer.file, bad


def _outcomes(load: Load, schema: Schema, paths: list[Path]) -> Iterator[inputs.Outcome]:
    convert = values.record(schema, ignore_unknown=load.ignore_unknown)
    for path in paths:
        if load.format == "CSV":
            yield from inputs.csv_rows(path, schema, load.csv)
        else:
            yield from inputs.json_rows(path, convert)


def _too_many(load: Load, rows: int, bad: int, errors: list[dict[str, Any]]) -> FailedLoad:
    kind = "CSV" if load.format == "CSV" else "JSON"
    message = (
        f"Error while reading data, error message: {kind} table encountered too many errors, giving up. Rows: {rows};"
        f" errors: {bad}. Please look into the errors[] collection for more details."
    )
    return FailedLoad(message, errors)

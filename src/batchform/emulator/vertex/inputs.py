"""Reads the input of a job into lines of its own, when the job is made. What is wrong with it fails the job later."""

from __future__ import annotations

import re
from array import array
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import msgspec
from msgspec import Struct, field

from batchform.emulator import execute
from batchform.emulator.vertex import places
from batchform.emulator.vertex.columns import Column, Columns, ImportFault, Tags
from batchform.emulator.vertex.rows import OUTPUTS, Line, encode_line
from batchform.emulator.vertex.stores import Stores

MAX_REQUESTS: Final = 200_000
MAX_BYTES: Final = 1_000_000_000
_COLUMN_KINDS: Final = ("STRING", "JSON")
_NO_PASS: Final = ("STRUCT", "RECORD", "RANGE", "DATETIME", "GEOGRAPHY")
INVALID, PRECONDITION = 3, 9

_decode = msgspec.json.Decoder().decode


class Failed(Exception):
    """The job fails when it would begin. code: google.rpc.Code."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class Found(Struct):
    """What the input holds. offsets: where each block of lines starts, and where the last one ends."""

    lines: int = 0
    offsets: array[int] = field(default_factory=lambda: array("Q", [0]))
    looks: dict[str, str] = field(default_factory=dict)
    request: Column | None = None
    passed: list[places.Column] = field(default_factory=list)
    request_kind: str = "JSON"


class _Spool:
    """Writes lines, and notes where blocks of them start."""

    def __init__(self, write: Callable[[bytes], object], found: Found) -> None:
        self._write, self._found, self._at, self._lines = write, found, 0, 0

    def add(self, line: Line) -> None:
        if self._found.lines == MAX_REQUESTS:
            raise ImportFault(f"The input has more than {MAX_REQUESTS} requests, which is the most of one job.")
        data = encode_line(line)
        start = self._found.offsets[-1]
        if self._lines >= execute.BLOCK_LINES or self._at - start >= execute.BLOCK_BYTES:
            self._found.offsets.append(self._at)
            self._lines = 0
        self._write(data)
        self._at += len(data)
        self._lines += 1
        self._found.lines += 1

    def close(self) -> None:
        if self._lines:
            self._found.offsets.append(self._at)


def take_in(source: dict[str, Any], location: str, path: Path, stores: Stores) -> Found:
    """Copy what an inputConfig names into a file. Raises Failed with what the job's error will say."""
    try:
        with path.open("wb") as out:
            found = Found()
            spool = _Spool(out.write, found)
            if "gcsSource" in source:
                _from_objects(source["gcsSource"]["uris"], location, stores, spool, found)
            else:
                _from_table(source["bigquerySource"]["inputUri"], location, stores, spool, found)
            spool.close()
    except (ImportFault, places.Gone) as e:
        raise Failed(INVALID, f"Failed to import data. {e}") from e
    if not found.lines:
        raise Failed(INVALID, "Failed to import data. The input has no requests.")
    return found


def _from_objects(uris: list[str], location: str, stores: Stores, spool: _Spool, found: Found) -> None:
    columns, tags, size = Columns(), Tags(), 0
    for folder, bytes_ in _objects(uris, location, stores):
        size += bytes_
        if size > MAX_BYTES:
            raise ImportFault(f"The input has more than {MAX_BYTES} bytes, which is the most of one job.")
        for number, raw in enumerate(_lines_of(stores, folder), 1):
            try:
                spool.add(_line(raw, columns, tags))
            except ImportFault as e:
                at = f"Error while reading data, error message: {folder}, line {number}: {e.message}"
                raise ImportFault(at) from e
    found.looks = tags.looks
    found.request = columns.root.fields.get("request")
    found.passed = [
        places.Column(name, tags.looks.get(name, column.kind))
        for name, column in columns.root.fields.items()
        if name != "request"
    ]


def _objects(uris: list[str], location: str, stores: Stores) -> Iterator[tuple[places.Folder, int]]:
    """The objects that URIs name, with their sizes."""
    for uri in uris:
        folder = places.folder(uri)
        if folder is None or not folder.name:
            raise ImportFault(f"{uri} does not name an object of Cloud Storage.")
        check_bucket(folder.bucket, location, stores)
        glob = re.compile(".*".join(map(re.escape, folder.name.split("*"))), re.DOTALL)
        named = [n for n in stores.objects(folder.bucket, folder.name.partition("*")[0]) if glob.fullmatch(n[0])]
        if not named:
            raise ImportFault(f"Not found: {uri}")
        for name, size in named:
            yield places.Folder(folder.bucket, name), size


def check_bucket(bucket: str, location: str, stores: Stores) -> None:
    """Raise Failed unless the bucket is there and suits the job's location."""
    place = stores.place_of_bucket(bucket)
    if place is None:
        raise Failed(PRECONDITION, f"The bucket gs://{bucket} does not exist, or its location cannot be read.")
    if not places.suits(place, location):
        message = f"The bucket gs://{bucket} is in {place.lower()}; a job in {location} cannot use it."
        raise Failed(PRECONDITION, message)


def check_dataset(table: places.Table, location: str, stores: Stores) -> None:
    """Raise Failed unless the dataset is there and suits the job's location."""
    place = stores.place_of_dataset(table)
    if place is None:
        raise Failed(INVALID, f"Not found: Dataset {table.project}:{table.dataset}")
    if not places.suits_tables(place, location):
        where = f"The dataset {table.project}.{table.dataset} is in {place.lower()}"
        raise Failed(PRECONDITION, f"{where}; a job in {location} cannot use it.")


def _lines_of(stores: Stores, folder: places.Folder) -> Iterator[bytes]:
    rest = b""
    for piece in stores.read_object(folder):
        *whole, rest = (rest + piece).split(b"\n")
        yield from whole
    if rest:
        yield rest


def _line(raw: bytes, columns: Columns, tags: Tags) -> Line:
    try:
        row = _decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as e:
        raise ImportFault(f"JSON parsing error: {e if raw.strip() else 'the line is empty'}") from e
    if not isinstance(row, dict):
        raise ImportFault("JSON parsing error: the line is not an object.")
    request = row.get("request")
    if not isinstance(request, dict):
        raise ImportFault("request: a line needs this field, with an object.")
    beside = {name: value for name, value in row.items() if name not in ("request", *OUTPUTS)}
    if any(name in row for name in OUTPUTS):  # a line that a job has written, nulls and all
        columns.add({name: value for name, value in _scalars(beside).items() if value is not None})
        return Line(tags=beside, request=request, prior={name: row.get(name) for name in OUTPUTS})
    _check_tags(beside)
    columns.add({"request": request, **_scalars(beside)})
    tags.add(beside)
    return Line(tags=beside, request=request)


def _scalars(beside: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in beside.items() if not isinstance(value, (list, dict))}


def _check_tags(beside: dict[str, Any]) -> None:
    for name, value in beside.items():
        if isinstance(value, dict) and not value:
            raise ImportFault(f"{name}: an empty object is a RECORD without fields, which a table cannot hold.")


def _from_table(uri: str, location: str, stores: Stores, spool: _Spool, found: Found) -> None:
    table = places.table(uri)
    if table is None or not table.table:
        raise ImportFault(f"{uri} does not name a table of BigQuery.")
    check_dataset(table, location, stores)
    columns = stores.columns(table)
    if columns is None:
        raise ImportFault(f"Not found: Table {table.project}:{table.dataset}.{table.table}")
    found.passed = [c for c in columns if c.name not in ("request", *OUTPUTS)]
    found.request_kind = _check_columns(columns, uri)
    names = {column.name for column in columns}
    for row in stores.read_table(table):
        prior = {name: row.get(name) for name in OUTPUTS} if names.issuperset(OUTPUTS) else None
        beside = {column.name: row.get(column.name) for column in found.passed}
        spool.add(Line(tags=beside, request=row.get("request"), prior=prior))


def _check_columns(columns: list[places.Column], uri: str) -> str:
    """The type of the column `request`."""
    request = next((column for column in columns if column.name == "request"), None)
    if request is None:
        raise ImportFault(f"The table {uri} has no column `request`.")
    if request.kind not in _COLUMN_KINDS or request.repeated:
        raise ImportFault(f"The column `request` of {uri} is {request.kind}; it must be STRING or JSON.")
    for column in columns:
        if column.repeated or column.kind in _NO_PASS:
            kind = "ARRAY" if column.repeated else column.kind
            raise ImportFault(f"The column `{column.name}` of {uri} is {kind}, which a job cannot hand on.")
    return request.kind

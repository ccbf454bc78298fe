"""What the ledger's files look like, and what is wrong with one that does not. Format: docs/ledger.md."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Final, get_args

import msgspec
from msgspec import Struct

from batchform.canon import digest, file_digest
from batchform.errors import BatchformError, LedgerCorrupt
from batchform.ledger.records import FORMAT_VERSION, ROW_COLUMNS, AnyEvent, Head, RowStatus, Segment
from batchform.ports import Blobs
from batchform.rows.sql import literal

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

FOLDER: Final = "segments/"
STATUSES: Final = get_args(RowStatus)
RESTORE: Final = (
    "Restore the ledger's folder from a backup or from the bucket's object versions; `batchform ledger verify` lists "
    "all that is damaged. Do not edit it: rows that it forgets are sent, and paid for, again."
)
DIGEST_ON_READ = 4 << 20  # bytes; larger row segments are checked by size on reading, by digest in verify
_CHECK_KEYS_UP_TO = 1_000_000  # rows of one commit; above, writers are trusted to give each key once
_SHORT = {"TIMESTAMP WITH TIME ZONE": "TIMESTAMPTZ"}

_events_in = msgspec.json.Decoder(AnyEvent)
_json_out = msgspec.json.Encoder()


class RowsFile(Struct, frozen=True):
    """A Parquet file with ROW_COLUMNS, all rows of one spec, each key at most once per spec and commit."""

    spec: str
    path: Path
    rows: int


# --- names and times ---------------------------------------------------------------------------------------------


def timestamp(at: datetime) -> str:
    """RFC 3339 in UTC, to the second."""
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def segment_name(kind: str, at: datetime, token: str, *, spec: str = "", index: int = 0) -> str:
    """`segments/rows-<spec>-<when>-<token>-<n>.parquet` or `segments/events-<when>-<token>.jsonl`."""
    when = at.astimezone(UTC).strftime("%Y%m%dT%H%M%SZ")
    if kind == "events":
        return f"{FOLDER}events-{when}-{token}.jsonl"
    return f"{FOLDER}rows-{spec}-{when}-{token}-{index}.parquet"


def written_at(name: str) -> datetime | None:
    """When a segment was named, from its name; None if it is not one of ours."""
    for part in name.rpartition(".")[0].split("-"):
        if len(part) == len("20250101T000000Z") and part[8:9] == "T" and part.endswith("Z"):
            try:
                return datetime.strptime(part, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
            except ValueError:
                continue
    return None


# --- head --------------------------------------------------------------------------------------------------------


class _Version(msgspec.Struct):
    format_version: int


def encode_head(head: Head) -> bytes:
    return msgspec.json.format(_json_out.encode(head), indent=1) + b"\n"


class _Kind(msgspec.Struct):
    type: str


_KINDS: Final = frozenset(str(kind.__struct_config__.tag) for kind in get_args(AnyEvent))
_UPGRADE: Final = "Upgrade batchform: pip install -U batchform"


class FromNewer(LedgerCorrupt):
    """A ledger that a newer batchform wrote: nothing is wrong with it."""


def decode_head(raw: bytes, place: str, *, name: str = "head.json") -> Head:
    """The head, or LedgerCorrupt if it is none: FromNewer if that is because a newer batchform wrote it."""
    try:
        version = msgspec.json.decode(raw, type=_Version).format_version
        if version <= FORMAT_VERSION:
            return msgspec.json.decode(raw, type=Head)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        what = f"is not a ledger's head: {error}" if raw else "is empty"
        raise LedgerCorrupt(f"{place}/{name} {what}.", hint=RESTORE) from None
    raise FromNewer(
        f"{place}/{name} was written by a newer batchform: ledger format {version}, this one reads up to "
        f"{FORMAT_VERSION}.",
        hint=_UPGRADE,
    )


# --- events ------------------------------------------------------------------------------------------------------


def encode_events(events: Iterable[AnyEvent]) -> bytes:
    """One event a line."""
    return _json_out.encode_lines(events)


def number_events(numbered: Iterable[tuple[int, AnyEvent]]) -> bytes:
    """Events of many commits in one segment: each line carries its own serial."""
    return encode_events(msgspec.structs.replace(event, serial=serial) for serial, event in numbered)


def read_events(blobs: Blobs, segment: Segment) -> tuple[tuple[int, AnyEvent], ...]:
    """(serial, event) pairs in order. Raises FileNotFoundError, LedgerCorrupt."""
    raw = blobs.read(segment.name)
    if len(raw) != segment.bytes:
        raise _truncated(blobs, segment, len(raw))
    if digest(raw) != segment.sha256:
        raise _altered(blobs, segment)
    try:
        events = _events_in.decode_lines(raw)
    except msgspec.MsgspecError as error:
        if kind := _unknown_kind(raw):
            raise FromNewer(
                f"{blobs.describe()}/{segment.name} was written by a newer batchform: it records {kind!r}, of which "
                "this one does not know.",
                hint=_UPGRADE,
            ) from None
        raise LedgerCorrupt(f"{blobs.describe()}/{segment.name} holds no events: {error}.", hint=RESTORE) from None
    return tuple((e.serial, msgspec.structs.replace(e, serial=0)) if e.serial else (segment.serial, e) for e in events)


def _unknown_kind(raw: bytes) -> str:
    """The first kind of event that only a newer version can have written, "" if there is none."""
    with suppress(msgspec.MsgspecError):
        kinds = (line.type for line in msgspec.json.Decoder(_Kind).decode_lines(raw))
        return next((kind for kind in kinds if kind not in _KINDS), "")
    return ""


def readable_events(blobs: Blobs, name: str) -> list[AnyEvent]:
    """What can be read of a segment that no head vouches for: whole lines of known kinds, the rest left out."""
    found: list[AnyEvent] = []
    try:
        lines = blobs.read(name).splitlines()
    except FileNotFoundError:
        return found
    for line in lines:
        with suppress(msgspec.MsgspecError, UnicodeDecodeError):
            found.append(_events_in.decode(line))
    return found


# --- rows --------------------------------------------------------------------------------------------------------


def rows_path(blobs: Blobs, segment: Segment) -> Path:
    """The local file of a rows segment, checked by size, and by digest if small. Raises FileNotFoundError."""
    path = blobs.local(segment.name)
    size = path.stat().st_size
    if size != segment.bytes:
        raise _truncated(blobs, segment, size)
    if size <= DIGEST_ON_READ:
        check_digest(blobs, segment, path)
    return path


def check_digest(blobs: Blobs, segment: Segment, path: Path) -> None:
    if file_digest(path) != segment.sha256:
        raise _altered(blobs, segment)


def _truncated(blobs: Blobs, segment: Segment, size: int) -> LedgerCorrupt:
    what = "truncated" if size < segment.bytes else "longer than it was written"
    return LedgerCorrupt(
        f"{blobs.describe()}/{segment.name} is {what}: {size} bytes, the head says {segment.bytes}.", hint=RESTORE
    )


def _altered(blobs: Blobs, segment: Segment) -> LedgerCorrupt:
    return LedgerCorrupt(
        f"{blobs.describe()}/{segment.name} was altered: its digest is not the one in head.json.", hint=RESTORE
    )


def parquet(paths: Sequence[Path]) -> str:
    """A FROM-able read of these very files: wildcards in a folder's name are taken literally."""
    return "read_parquet([" + ", ".join(literal(literal_path(p)) for p in paths) + "])"


def literal_path(path: Path) -> str:
    return "".join(f"[{c}]" if c in "*?[" else c for c in str(path))


def check_rows(files: Sequence[RowsFile]) -> None:
    """Refuse files that are not row states: wrong columns, wrong count, NULLs where none may be, a key twice."""
    if not files:
        return
    import duckdb

    con = _checking(os.getpid()).cursor()
    for file in files:
        try:
            problem = _row_problem(con, file)
        except duckdb.Error as error:
            problem = str(error).splitlines()[0]
        if problem:
            raise _bug(f"{file.path} of spec {file.spec}: {problem}")
    for spec in {f.spec for f in files}:
        mine = [f for f in files if f.spec == spec]
        if sum(f.rows for f in mine) <= _CHECK_KEYS_UP_TO:
            twice = con.execute(
                f"SELECT key_hash FROM {parquet([f.path for f in mine])} GROUP BY 1 HAVING count(*) > 1 LIMIT 1"
            ).fetchone()
            if twice:
                raise _bug(f"spec {spec}: one commit has key hash {twice[0]} twice")


@cache
def _checking(pid: int) -> DuckDBPyConnection:  # noqa: ARG001  (a forked process must not use its parent's)
    """What looks at each commit's rows: to open a database costs more than to look. Never spills to disk."""
    import duckdb

    return duckdb.connect(config={"memory_limit": "512MB", "threads": 1, "temp_directory": ""})


def _row_problem(con: DuckDBPyConnection, file: RowsFile) -> str:
    source = parquet([file.path])
    described = con.execute(f"DESCRIBE SELECT * FROM {source}").fetchall()
    found = {name: _SHORT.get(kind, kind) for name, kind, *_ in described}
    if found != ROW_COLUMNS:
        wrong = sorted(n for n in {*found, *ROW_COLUMNS} if found.get(n) != ROW_COLUMNS.get(n))
        return "wrong columns: " + ", ".join(
            f"{n} is {found.get(n, 'absent')}, must be {ROW_COLUMNS.get(n, 'absent')}" for n in wrong
        )
    statuses = ", ".join(literal(s) for s in STATUSES)
    counted = con.execute(
        f"SELECT count(*), count(*) FILTER (key IS NULL OR key_hash IS NULL OR status IS NULL "
        f"OR status NOT IN ({statuses})), count(changed_serial) FROM {source}"
    ).fetchone()
    assert counted is not None
    if counted[0] != file.rows:
        return f"{counted[0]} rows, {file.rows} were announced"
    if counted[1]:
        return f"{counted[1]} rows without a key, a key hash or a known status"
    if counted[2]:
        return f"{counted[2]} rows set changed_serial, which only the ledger may"
    return ""


def _bug(what: str) -> BatchformError:
    return BatchformError(
        f"Internal error: row states are not fit to be recorded: {what}. Nothing was recorded.",
        hint="This is a bug in batchform; please report it with this message.",
    )

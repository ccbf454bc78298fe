"""Keyed rows: every source row under its key, with the input fingerprint that lets an unchanged row skip rendering.

All of it runs in DuckDB. Two relations matter to the rest of the plan:

- NARROW: a temp table (key, key_hash, endless, fp_0 … fp_n), one row per source row, `rowid` is its 0-based ordinal;
- WIDE: a view of the source's columns with `bf_key` and `bf_key_hash` in front, scanned only for candidates.

An input fingerprint is md5 over a length-prefixed encoding of some columns. It keeps NULL apart from '', types apart
from their text and columns apart from each other. It is a hint: equal means "do not render", never "pay".
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import Struct

from batchform.canon import digest_of, file_digest
from batchform.errors import SourceError, disk_full, no_room
from batchform.ports import Relation, Source
from batchform.rows.key_sql import INTEGERS, key_sql
from batchform.rows.names import ATTACHMENTS, FILES, MADE, PART
from batchform.rows.pages import check_rows
from batchform.rows.sql import identifier, literal
from batchform.spec.delivery import output_columns, source_columns
from batchform.spec.expressions import Rendered
from batchform.spec.resolved import ResolvedSpec

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

NARROW = "bf_narrow"
WIDE = "bf_wide"
_OFFENDERS_SHOWN = 5
_NESTED = ("[", "STRUCT", "MAP", "UNION", "LIST")


class KeyedRows(Struct, frozen=True):
    """What a spec's source holds, keyed and checked."""

    relation: Relation
    rows: int
    columns: Mapping[str, str]  # source columns and their DuckDB types
    key_columns: tuple[tuple[str, str], ...]
    fingerprints: Mapping[str, str]  # fp_columns (JSON list) → column of the narrow table
    notes: tuple[str, ...] = ()


def template_columns(spec: ResolvedSpec, columns: Mapping[str, str]) -> tuple[str, ...]:
    """The source columns that the prompt can read, in source order: all of them when a template uses `row`."""
    templates = spec.templates
    wanted: set[str] = set()
    for template in templates:
        if template.columns is None:
            return tuple(c for c in columns if c == ATTACHMENTS or c not in MADE)
        wanted |= template.columns
    return tuple(c for c in columns if c in wanted or c == ATTACHMENTS)


def rendered_columns(spec: ResolvedSpec, columns: Mapping[str, str]) -> tuple[str, ...]:
    """The source columns that a renderer is given: those that the prompt can read, and where its files are."""
    return (*template_columns(spec, columns), *([FILES] if FILES in columns else []))


def needed_columns(spec: ResolvedSpec) -> frozenset[str] | None:
    """The source columns that the key, the prompt and the destination read; None for all of them."""
    keys = [t for t in (spec.key_template, spec.moved_key and spec.moved_key.template) if t]
    templates = (*spec.templates, *keys)
    attached = _attached(spec)
    if attached is None:
        return None
    earlier = spec.moved_key.columns if spec.moved_key else ()
    needed = {*spec.key_columns, *earlier, *source_columns(spec), *attached}
    for template in templates:
        if template.columns is None:
            return None
        needed |= template.columns
    columns = [column.expression for column in output_columns(spec)]
    if any(isinstance(found, Rendered) and "row" in found.reads for found in columns):
        return None
    return frozenset(needed)


def _attached(spec: ResolvedSpec) -> frozenset[str] | None:
    """The source columns that attachments read; None for all of them."""
    read = [a.columns for a in spec.attachments]
    return None if None in read else frozenset[str]().union(*(r for r in read if r))


def key_order(spec: ResolvedSpec) -> tuple[str, ...]:
    """The columns that the key is made of, in a fixed order."""
    if spec.key_template is None:
        return spec.key_columns
    return tuple(sorted(spec.key_template.columns or ()))


def fp_columns_text(names: Sequence[str], columns: Mapping[str, str]) -> str:
    """How a ledger row names the columns that its input fingerprint covers: JSON list of [name, kind]."""
    return json.dumps([[n, _kind(columns[n])] for n in names], separators=(",", ":"), ensure_ascii=False)


def fingerprint_sql(fp_columns: str, columns: Mapping[str, str]) -> str | None:
    """SQL of the input fingerprint over recorded columns, as UUID; None if a column or its kind is no longer there."""
    names = json.loads(fp_columns)
    if any(name not in columns or _kind(columns[name]) != kind for name, kind in names):
        return None
    encoded = [f"coalesce(strlen({text}) || ':' || {text}, '~')" for text in (_text(n, columns[n]) for n, _ in names)]
    return f"CAST(md5({' || '.join([literal(fp_columns), *encoded])}) AS UUID)"


def prepare(
    con: DuckDBPyConnection, spec: ResolvedSpec, source: Source, *, recorded_fp_columns: Sequence[str]
) -> KeyedRows:
    """Open the source, key it, refuse NULL, empty and duplicate keys, and fingerprint what must be compared.

    recorded_fp_columns: the distinct fp_columns of the spec's ledger rows; empty on a first plan, when nothing needs
    comparing and the narrow table holds keys only.
    """
    import duckdb

    try:
        relation = source.open(con)
    except SourceError as exc:
        exc.place = exc.place or spec.at(_field(exc))
        raise
    try:
        return _keyed(con, spec, source, relation, recorded_fp_columns)
    except duckdb.Error as exc:
        if no_room(exc):
            raise disk_full(exc) from exc
        what = str(exc).splitlines()[0]
        raise SourceError(f"{relation.described} cannot be read: {what}", place=spec.at("source.path")) from exc


def _field(error: SourceError) -> str:
    """The field of the spec that an error of a source is about: the one its sentence begins with, or else the path."""
    named = re.match(r"source\.[a-z_]+", error.message)
    return named[0] if named else "source.path"


def _keyed(
    con: DuckDBPyConnection, spec: ResolvedSpec, source: Source, relation: Relation, recorded: Sequence[str]
) -> KeyedRows:
    _check_columns(spec, relation.columns)
    key, rows_from = key_sql(con, spec.key_template, spec.key_columns, relation.columns, f"{relation.sql} s")
    con.execute(
        f"CREATE OR REPLACE TEMP VIEW {WIDE} AS SELECT *, CAST(left(sha256(bf_key), 32) AS UUID) AS bf_key_hash "
        f"FROM (SELECT {key}{f' || s.{PART}' if PART in relation.columns else ''} AS bf_key, s.* FROM {rows_from})"
    )
    if PART in relation.columns:
        check_rows(con, spec, WIDE)
    fingerprints = _fingerprints(recorded, relation.columns)
    endless = _endless(spec, relation.columns)
    _build_narrow(con, fingerprints, endless)
    notes = _check_keys(con, spec, source)
    if notes:
        _build_narrow(con, fingerprints, endless)
    return KeyedRows(
        relation=relation,
        rows=_row(con, f"SELECT count(*) FROM {NARROW}")[0],
        columns=relation.columns,
        key_columns=tuple((c, relation.columns[c]) for c in spec.key_columns),
        fingerprints={recorded: name for recorded, (name, _) in fingerprints.items()},
        notes=(*relation.notes, *notes),
    )


def _endless(spec: ResolvedSpec, columns: Mapping[str, str]) -> str:
    """SQL: whether a column of the key holds NaN or an infinity, which no other system would take for a key."""
    keyed = spec.key_columns if spec.key_template is None else (spec.key_template.columns or ())
    floats = [c for c in keyed if columns[c] in ("DOUBLE", "FLOAT")]
    return " OR ".join(f"coalesce(NOT isfinite({identifier(c)}), false)" for c in floats) or "false"


def _build_narrow(con: DuckDBPyConnection, fingerprints: Mapping[str, tuple[str, str]], endless: str) -> None:
    extra = "".join(f", {sql} AS {name}" for name, sql in fingerprints.values())
    con.execute(
        f"CREATE OR REPLACE TEMP TABLE {NARROW} AS SELECT bf_key AS key, bf_key_hash AS key_hash, "
        f"{endless} AS endless{extra} FROM {WIDE}"
    )


def source_digest(paths: Sequence[Path], identity: str = "") -> str:
    """Digest of a source's files by name and content; touching or moving them does not change it. identity: of what was
    read beside files (see `Relation`)."""
    files = sorted([p.name, file_digest(p)] for p in paths if p.is_file())
    return digest_of("source", [*files, identity] if identity else files)


def _fingerprints(recorded: Sequence[str], columns: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    found = {}
    for i, fp_columns in enumerate(recorded):
        sql = fingerprint_sql(fp_columns, columns)
        if sql is not None:
            found[fp_columns] = (f"fp_{i}", sql)
    return found


def _check_columns(spec: ResolvedSpec, columns: Mapping[str, str]) -> None:
    """Every column that the key, a template or a column of the destination names must be there: before anything is
    paid for."""
    from batchform.spec.wording import suggestion

    key = "idempotency.key"
    keyed = [*spec.key_columns, *((spec.key_template.columns or ()) if spec.key_template else ())]
    missing = {column: spec.at(key) for column in keyed if column not in columns}
    for template in spec.templates:
        for column in sorted(template.columns or ()):
            if column not in columns and column not in missing:
                missing[column] = template.where(column)
    delivered = {c: f"destination.columns.{by}" for c, by in source_columns(spec).items()}
    missing |= {c: spec.at(by) for c, by in delivered.items() if c not in columns and c not in missing}
    if missing:
        first, place = next(iter(missing.items()))
        named = [
            f"`{c}` (read by {delivered[c]})" if c in delivered
            else f"`{c}`" if at == place
            else f"`{c}` (read at {at})"
            for c, at in missing.items()
        ]  # fmt: skip
        raise SourceError(
            f"the source of {spec.name} has no column {', '.join(named)}",
            place=place,
            hint=suggestion(first, list(columns), noun="Its columns"),
        )


def _check_keys(con: DuckDBPyConnection, spec: ResolvedSpec, source: Source) -> tuple[str, ...]:
    """Refuse NULL, empty and duplicate keys, all in one error, or resolve duplicates as the spec says."""
    total, nulls, empties, endless, repeated = _row(
        con,
        "SELECT count(*), count(*) FILTER (key IS NULL), count(*) FILTER (key = ''), "
        "count(*) FILTER (endless), count(*) FILTER (key <> '') - count(DISTINCT key_hash) FILTER (key <> '') "
        f"FROM {NARROW}",
    )
    mode = spec.spec.idempotency.duplicates
    found, ways_out = [], []
    for count, what, condition in (
        (nulls, "no key (NULL)", "key IS NULL"),
        (empties, "an empty key", "key = ''"),
        (endless, "a key that is not a finite number", "endless"),
    ):
        if count:
            verb = "has" if count == 1 else "have"
            found.append(f"{count:,} {verb} {what}: {_offenders(con, source, condition, count)}")
    if found:
        ways_out.append("Fill the key's columns, choose others, or leave such rows out with source.where.")
    if repeated and mode == "error":
        verb = "repeats" if repeated == 1 else "repeat"
        found.append(f"{repeated:,} {verb} a key: {_repeated(con, source)}")
        ways_out.append("Make the key unique, or set idempotency.duplicates to first or last.")
    if found:
        raise SourceError(
            f"of {total:,} rows of {spec.name}, {'; '.join(found)}",
            place=spec.at("idempotency.key"),
            hint=" ".join(ways_out),
        )
    return (_keep_one(con, mode=mode, extra=repeated),) if repeated else ()


def _offenders(con: DuckDBPyConnection, source: Source, condition: str, count: int) -> str:
    """Where the first rows with this condition stand."""
    rows = con.execute(
        f"SELECT rowid FROM {NARROW} WHERE {condition} ORDER BY rowid LIMIT {_OFFENDERS_SHOWN}"
    ).fetchall()
    places = source.locate(con, [r[0] for r in rows])
    more = f" and {count - len(places):,} more" if count > len(places) else ""
    return ", ".join(places) + more


def _repeated(con: DuckDBPyConnection, source: Source) -> str:
    """The first keys that several rows have, and where those stand."""
    groups = con.execute(
        f"SELECT any_value(key), list(rowid ORDER BY rowid)[1:4], count(*) FROM {NARROW} WHERE key <> '' "
        f"GROUP BY key_hash HAVING count(*) > 1 ORDER BY min(rowid) LIMIT {_OFFENDERS_SHOWN}"
    ).fetchall()
    ordinals = [o for _, found, _ in groups for o in found]
    places = dict(zip(ordinals, source.locate(con, ordinals), strict=True))
    shown = []
    for key, found, count in groups:
        more = f" and {count - len(found)} more" if count > len(found) else ""
        shown.append(f"{key!r} at {', '.join(places[o] for o in found)}{more}")
    return ", ".join(shown)


def _keep_one(con: DuckDBPyConnection, *, mode: str, extra: int) -> str:
    """Keep the first or last row of each key. Rows are materialised, so that both scans agree on their numbers."""
    pick = "min" if mode == "first" else "max"
    con.execute(f"CREATE OR REPLACE TEMP TABLE bf_rows AS SELECT * FROM {WIDE}")
    con.execute(
        f"CREATE OR REPLACE TEMP TABLE bf_kept AS SELECT {pick}(rowid) AS ordinal FROM bf_rows GROUP BY bf_key_hash"
    )
    con.execute(
        f"CREATE OR REPLACE TEMP VIEW {WIDE} AS SELECT * FROM bf_rows WHERE rowid IN (SELECT ordinal FROM bf_kept)"
    )
    return f"{extra:,} rows with a repeated key were left out (duplicates: {mode})"


def _kind(duckdb_type: str) -> str:
    """Coarse type: what a template could tell apart. Integers of any width are one kind."""
    if duckdb_type in INTEGERS:
        return "i"
    if duckdb_type == "VARCHAR":
        return "t"
    return "f" if duckdb_type in ("DOUBLE", "FLOAT") else duckdb_type


def _text(name: str, duckdb_type: str) -> str:
    """SQL of a column as unambiguous text."""
    column = identifier(name)
    if duckdb_type == "VARCHAR":
        return column
    if any(mark in duckdb_type for mark in _NESTED):
        return f"CAST(to_json({column}) AS VARCHAR)"
    return f"CAST({column} AS VARCHAR)"


def _row(con: DuckDBPyConnection, sql: str) -> tuple[int, ...]:
    found: tuple[int, ...] = con.execute(sql).fetchall()[0]
    return found

"""Typed columns of other databases for what DuckDB has, and the values as SQLAlchemy takes them."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

from msgspec import Struct

from batchform.adapters.destinations.staging import as_text
from batchform.rows.sql import identifier

if TYPE_CHECKING:
    from sqlalchemy import Dialect
    from sqlalchemy.types import TypeEngine

_NUL_IN_JSON = re.compile(r"(?<!\\)((?:\\\\)*)\\u0000")
_DECIMAL = re.compile(r"DECIMAL\((\d+),(\d+)\)")
_WIDE: Final = {"UBIGINT": 20, "HUGEINT": 39, "UHUGEINT": 39}  # digits
_INTEGERS: Final = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "UTINYINT", "USMALLINT", "UINTEGER")
_LONGEST_KEY: Final = {"mysql": 191, "mariadb": 191, "mssql": 225, "oracle": 1_000}  # characters, where text is no key


class TableColumn(Struct, frozen=True):
    """kind: SQLAlchemy's type; value: DuckDB's SQL for it, from the staged rows; convert: from DuckDB's value to the
    driver's, None where they are the same."""

    name: str
    kind: Any
    value: str
    convert: Callable[[Any], Any] | None = None


def table_columns(
    columns: Sequence[tuple[str, str]], *, key: Sequence[str], dialect: Dialect
) -> tuple[TableColumn, ...]:
    """What a table of this database holds of these columns, given as (name, DuckDB type)."""
    make = _of_sqlite if dialect.name == "sqlite" else _typed
    return tuple(make(name, kind, dialect.name, is_key=name in key) for name, kind in columns)


def _of_sqlite(name: str, kind: str, database: str, *, is_key: bool) -> TableColumn:
    """As `type: sqlite` has it: times and JSON are text."""
    del database, is_key
    from sqlalchemy import types

    plain: dict[str, TypeEngine[Any]] = {
        **dict.fromkeys(_INTEGERS, types.Integer()),
        **dict.fromkeys(("FLOAT", "DOUBLE"), types.REAL()),
        "BOOLEAN": types.Boolean(),
        "BLOB": types.LargeBinary(),
    }
    if kind in plain:
        return TableColumn(name, plain[kind], identifier(name))
    return TableColumn(name, types.Text(), as_text(name, kind))


def _typed(name: str, kind: str, database: str, *, is_key: bool) -> TableColumn:
    from sqlalchemy import types

    column = identifier(name)
    if kind in _PLAIN:
        return TableColumn(name, _plain(kind, database), column)
    if found := _DECIMAL.fullmatch(kind):
        return TableColumn(name, types.Numeric(int(found[1]), int(found[2])), column)
    if kind in _WIDE:
        return TableColumn(name, types.Numeric(_WIDE[kind], 0), f"CAST({column} AS VARCHAR)", Decimal)
    if kind in ("TIMESTAMP", "TIMESTAMP_S", "TIMESTAMP_MS"):
        return TableColumn(name, _moment(database, zone=False), f"CAST({column} AS TIMESTAMP)")
    if kind == "TIMESTAMP WITH TIME ZONE":
        if database in ("postgresql", "oracle", "mssql"):
            return TableColumn(name, _moment(database, zone=True), column)
        return TableColumn(name, _moment(database, zone=False), f"{column} AT TIME ZONE 'UTC'")
    if kind == "UUID" and database == "postgresql":
        return TableColumn(name, types.Uuid(as_uuid=False), f"CAST({column} AS VARCHAR)")
    if kind == "JSON" or (kind.endswith(("]", ")")) and not kind.startswith("ENUM(")):
        value = column if kind == "JSON" else f"to_json({column})"
        return TableColumn(name, _json(database), f"CAST({value} AS VARCHAR)", _json_for(database))
    return TableColumn(name, _text(database, is_key=is_key), f"CAST({column} AS VARCHAR)", _text_for(database))


_PLAIN: Final = (*_INTEGERS, "FLOAT", "DOUBLE", "BOOLEAN", "BLOB", "DATE", "TIME")


def _plain(kind: str, database: str) -> TypeEngine[Any]:
    from sqlalchemy import types
    from sqlalchemy.dialects import mysql

    if kind == "BLOB" and database in ("mysql", "mariadb"):
        return mysql.LONGBLOB()
    made: dict[str, TypeEngine[Any]] = {
        **dict.fromkeys(("TINYINT", "SMALLINT", "UTINYINT"), types.SmallInteger()),
        **dict.fromkeys(("INTEGER", "USMALLINT"), types.Integer()),
        **dict.fromkeys(("BIGINT", "UINTEGER"), types.BigInteger()),
        "FLOAT": types.REAL(),
        "DOUBLE": types.Double(),
        "BOOLEAN": types.Boolean(),
        "BLOB": types.LargeBinary(),
        "DATE": types.Date(),
        "TIME": types.Time(),
    }
    return made[kind]


def _moment(database: str, *, zone: bool) -> TypeEngine[Any]:
    from sqlalchemy import types
    from sqlalchemy.dialects import mysql

    return mysql.DATETIME(fsp=6) if database in ("mysql", "mariadb") else types.DateTime(timezone=zone)


def _json(database: str) -> TypeEngine[Any]:
    from sqlalchemy import types
    from sqlalchemy.dialects import postgresql

    if database == "postgresql":
        return postgresql.JSONB(none_as_null=True)
    return types.JSON(none_as_null=True) if database in ("mysql", "mariadb") else _text(database, is_key=False)


def _text(database: str, *, is_key: bool) -> TypeEngine[Any]:
    from sqlalchemy import types
    from sqlalchemy.dialects import mysql

    if is_key and database in _LONGEST_KEY:
        return types.Unicode(_LONGEST_KEY[database])
    return mysql.LONGTEXT() if database in ("mysql", "mariadb") else types.UnicodeText()


def _text_for(database: str) -> Callable[[Any], Any] | None:
    return _without_nul if database == "postgresql" else None


def _json_for(database: str) -> Callable[[Any], Any] | None:
    return _json_without_nul if database == "postgresql" else None


def _without_nul(text: str) -> str:
    """PostgreSQL has no NUL in text. One answer that holds it must not keep all others from being delivered."""
    return text.replace("\0", "\ufffd") if "\0" in text else text


def _json_without_nul(text: str) -> str:
    return _NUL_IN_JSON.sub(r"\1\\ufffd", text) if "\\u0000" in text else text

"""SQL that users write, checked before it runs, and DuckDB's complaints in one sentence."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from batchform.errors import SourceError, disk_full, no_room

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

_READING_NODES = frozenset({"SELECT_NODE", "SET_OPERATION_NODE", "RECURSIVE_CTE_NODE", "CTE_NODE"})
# Functions that run SQL given as text, which no check here could see.
_RUNS_TEXT = frozenset({"query", "query_table", "json_execute_serialized_sql"})
_MAX_MESSAGE = 300


def quote_name(name: str) -> str:
    """An SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def quote_text(value: str) -> str:
    """An SQL string literal."""
    return "'" + value.replace("'", "''") + "'"


def check_query(con: DuckDBPyConnection, query: str) -> str:
    """`query` without its trailing semicolon, if it is one statement that only reads. Raises SourceError."""
    statements = _statements(con, query, field="query")
    if len(statements) != 1:
        found = "no statement" if not statements else f"{len(statements)} statements"
        raise SourceError(f"source.query holds {found}, and must hold exactly one SELECT.")
    _refuse_writes(statements[0], field="query")
    return query.rstrip().removesuffix(";")


def check_where(con: DuckDBPyConnection, where: str) -> str:
    """`where` if it is one condition and nothing else. Raises SourceError."""
    # The line break keeps a trailing comment from swallowing the parenthesis.
    statements = _statements(con, f"SELECT * FROM source WHERE (\n{where}\n)", field="where")
    node = statements[0]["node"] if len(statements) == 1 else {}
    plain = (
        node.get("type") == "SELECT_NODE"
        and node["where_clause"]
        and node["from_table"]["type"] == "BASE_TABLE"
        and not any(node[part] for part in ("modifiers", "group_expressions", "having", "qualify", "sample"))
    )
    if not plain:
        raise SourceError(
            "source.where must be one SQL condition, such as status = 'open'.",
            hint="Use source.query for anything more.",
        )
    _refuse_writes(statements[0], field="where")
    return where


def _statements(con: DuckDBPyConnection, sql: str, *, field: str) -> list[dict[str, Any]]:
    row = con.execute("SELECT json_serialize_sql(?)", [sql]).fetchone()
    answer = json.loads(row[0]) if row else {}
    if not answer.get("error"):
        statements: list[dict[str, Any]] = answer["statements"]
        return statements
    if answer.get("error_type") == "not implemented":
        raise SourceError(f"source.{field} may only read: it must be one SELECT.")
    raise SourceError(f"source.{field} is not valid SQL: {answer.get('error_message', '')}.")


def _refuse_writes(statement: dict[str, Any], *, field: str) -> None:
    for part in _walk(statement):
        kind = part.get("type")
        if isinstance(kind, str) and kind.endswith("_NODE") and kind not in _READING_NODES:
            verb = kind.partition("_")[0]
            raise SourceError(f"source.{field} may only read, and it holds {_an(verb)}.")
        if str(part.get("function_name", "")).lower() in _RUNS_TEXT:
            raise SourceError(f"source.{field} may not call {part['function_name']}().")


def _an(verb: str) -> str:
    return f"{'an' if verb[0] in 'AEIOU' else 'a'} {verb}"


def _walk(value: object) -> Iterator[dict[str, Any]]:
    pending = [value]  # not recursion: a long AND chain nests deeply
    while pending:
        item = pending.pop()
        if isinstance(item, dict):
            yield item
            pending.extend(item.values())
        elif isinstance(item, list):
            pending.extend(item)


def short_message(error: Exception) -> str:
    """DuckDB's message without its kind, the quoted statement and the advice, on one line."""
    kept: list[str] = []
    for line in str(error).splitlines():
        if line.startswith(("LINE ", "Possible ", "* ", "Original Line:", "Traceback")):
            break
        if line.strip():
            kept.append(line.strip())
    message = " ".join(kept) or type(error).__name__
    kind, found, rest = message.partition("Error: ")
    if found and len(kind) < 40:
        message = rest
    message = message if len(message) <= _MAX_MESSAGE else message[:_MAX_MESSAGE] + "…"
    return message.rstrip(". ")


def source_error(error: Exception, what: str) -> SourceError:
    """The SourceError for a duckdb.Error that came up while reading `what` ("data/a.parquet", "source.where").

    Raises BatchformError when it was the disk: sources are read into the scratch folder.
    """
    if no_room(error):
        raise disk_full(error) from error
    kind = type(error).__name__
    if kind == "OutOfMemoryException":
        return SourceError(
            f"{what} needs more memory than the limit allows: {short_message(error)}.",
            hint="Select fewer columns or rows with source.query, or raise the memory limit.",
        )
    return SourceError(f"{what}: {short_message(error)}.")

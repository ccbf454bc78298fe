"""SQL that users write, checked before it runs, and DuckDB's complaints in one sentence."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from batchform.errors import SourceError, disk_full, no_room

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

_READING_NODES = frozenset({"SELECT_NODE", "SET_OPERATION_NODE", "RECURSIVE_CTE_NODE", "CTE_NODE"})
# Functions that run SQL given as text, which no check here could see.
_RUNS_TEXT = frozenset({"query", "query_table", "json_execute_serialized_sql"})
# Whatever DuckDB calls volatile is refused; these it calls something else, or called so in another version.
_UNSTEADY = frozenset(
    {
        *("random", "setseed", "uuid", "gen_random_uuid", "uuidv4", "uuidv7", "nextval", "currval", "setval"),
        *("txid_current", "current_connection_id", "current_query_id", "current_transaction_id"),
    }
)
_STEADY = frozenset({"error"})  # volatile for DuckDB only so that it is not called ahead of time
# Built-in functions that depend on nothing but their arguments: asking DuckDB for all of its functions takes longer
# than the plan of a small table.
_PLAIN = frozenset(
    {
        *("length", "strlen", "lower", "upper", "trim", "ltrim", "rtrim", "substring", "substr", "left", "right"),
        *("contains", "starts_with", "prefix", "suffix", "replace", "concat", "regexp_matches", "regexp_full_match"),
        *("coalesce", "ifnull", "nullif", "abs", "round", "floor", "ceil", "mod", "least", "greatest", "hash", "md5"),
        *("~~", "!~~", "~~*", "!~~*", "like_escape", "not_like_escape", "ilike_escape", "not_ilike_escape"),
        *("count", "count_star", "sum", "min", "max", "avg", "row_number"),
    }
)
# More of them, and words that stand before a bracket and are no functions; for those who cannot ask DuckDB.
_PLAIN_WORDS = _PLAIN | frozenset(
    {
        *("and", "or", "not", "in", "is", "like", "ilike", "between", "when", "then", "else", "case", "similar", "to"),
        *("cast", "try_cast", "len", "reverse", "lpad", "rpad", "split_part", "concat_ws", "position", "ends_with"),
        *(
            "year",
            "quarter",
            "month",
            "week",
            "day",
            "hour",
            "minute",
            "second",
            "strftime",
            "strptime",
            "try_strptime",
        ),
        *("date_part", "date_trunc", "date_diff", "epoch", "isnan", "isfinite", "sign", "sha256", "list_contains"),
        *("regexp_extract", "regexp_replace", "json_extract", "json_extract_string"),
    }
)
_ELSEWHERE = frozenset(
    {
        *("select", "from", "table", "values", "with", "call", "describe", "summarize", "show", "pivot", "unpivot"),
        *("localtime", "localtimestamp"),
    }
)
_MAX_MESSAGE = 300


def quote_name(name: str) -> str:
    """An SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def quote_text(value: str) -> str:
    """An SQL string literal."""
    return "'" + value.replace("'", "''") + "'"


def check_query(con: DuckDBPyConnection, query: str) -> str:
    """`query` without its trailing semicolon, if it is one statement that only reads. Raises SourceError."""
    what = "source.query"
    statements = _statements(con, query, what)
    if len(statements) != 1:
        found = "no statement" if not statements else f"{len(statements)} statements"
        raise SourceError(f"{what} holds {found}, and must hold exactly one SELECT.")
    _refuse_writes(statements[0], what)
    _refuse_unsteady(con, statements[0], what)
    return query.rstrip().removesuffix(";")


def check_where(con: DuckDBPyConnection, where: str) -> str:
    """`where` if it is one condition and nothing else. Raises SourceError."""
    return _one_condition(con, where, "source.where", hint="Use source.query for anything more.")


def reads_nothing_else(where: str) -> bool:
    """Whether a condition surely depends on the row alone: not on the clock, on settings or on other files. Told from
    its words, without DuckDB: rather no than yes."""
    text = where.replace('"', " ").lower()
    if "--" in text or "/*" in text:
        return False
    words, called = set(re.findall(r"\w+", text)), set(re.findall(r"(\w+)\s*\(", text))
    return not (words & _ELSEWHERE or any(w.startswith("current_") for w in words) or called - _PLAIN_WORDS)


def check_condition(sql: str) -> None:
    """Raise SourceError unless `sql`, given with --where, is one condition that reads and draws no lots."""
    import duckdb

    with duckdb.connect() as con:
        _one_condition(con, sql, "--where")


def check_relation(con: DuckDBPyConnection, relation: str, what: str) -> None:
    """Raise SourceError if `relation` is a view with other rows in every run."""
    for statement in _statements(con, f"SELECT * FROM {relation}", what):
        _refuse_unsteady(con, statement, what)


def _one_condition(con: DuckDBPyConnection, where: str, what: str, *, hint: str = "") -> str:
    # Within parentheses nothing may follow the condition, and without them none of its own may close them early.
    # The line breaks keep a trailing comment from swallowing what comes after.
    for condition in (f"(\n{where}\n)", f"\n{where}\n"):
        statements = _statements(con, f"SELECT * FROM source WHERE {condition}", what)
        if len(statements) != 1 or not _is_plain(statements[0]["node"]):
            raise SourceError(f"{what} must be one SQL condition, such as status = 'open'.", hint=hint)
        _refuse_writes(statements[0], what)
    _refuse_unsteady(con, statements[0], what)
    return where


def _is_plain(node: dict[str, Any]) -> bool:
    return bool(
        node["type"] == "SELECT_NODE"
        and node["where_clause"]
        and node["from_table"]["type"] == "BASE_TABLE"
        and not any(node[part] for part in ("modifiers", "group_expressions", "having", "qualify", "sample"))
    )


def _statements(con: DuckDBPyConnection, sql: str, what: str) -> list[dict[str, Any]]:
    answer = _parsed(con, sql)
    if not answer.get("error"):
        statements: list[dict[str, Any]] = answer["statements"]
        return statements
    if answer.get("error_type") == "not implemented":
        raise SourceError(f"{what} may only read: it must be one SELECT.")
    raise SourceError(f"{what} is not valid SQL: {answer.get('error_message', '')}.")


def _parsed(con: DuckDBPyConnection, sql: str) -> dict[str, Any]:
    row = con.execute("SELECT json_serialize_sql(?)", [sql]).fetchone()
    answer: dict[str, Any] = json.loads(row[0]) if row else {}
    return answer


def _refuse_writes(statement: dict[str, Any], what: str) -> None:
    for part in _walk(statement):
        kind = part.get("type")
        if isinstance(kind, str) and kind.endswith("_NODE") and kind not in _READING_NODES:
            verb = kind.partition("_")[0]
            raise SourceError(f"{what} may only read, and it holds {_an(verb)}.")
        if str(part.get("function_name", "")).lower() in _RUNS_TEXT:
            raise SourceError(f"{what} may not call {part['function_name']}().")


def _refuse_unsteady(con: DuckDBPyConnection, statement: dict[str, Any], what: str) -> None:
    """Refuse what has another value in every run, also inside the views and macros that are used: unchanged rows would
    look changed to every plan, and be paid for again."""
    if not _may_be_unsteady(con, statement):
        return
    rows = con.execute("SELECT DISTINCT function_name FROM duckdb_functions() WHERE stability = 'VOLATILE'").fetchall()
    unsteady = (_UNSTEADY | {str(name).lower() for (name,) in rows}) - _STEADY
    definitions = _definitions(con)
    pending = [statement]
    while pending:
        for part in _walk(pending.pop()):
            name = str(part.get("function_name", "")).lower()
            if name in unsteady:
                raise unsteady_error(f"{name}()", what)
            if "sample_size" in part and not part.get("repeatable"):
                raise SourceError(
                    f"{what} takes a sample without a seed, which is another one in every run.",
                    hint="Write REPEATABLE (1) after the sample.",
                )
            for used in (name, str(part.get("table_name", "")).lower()):
                for sql in definitions.pop(used, ()):
                    pending += _definition(con, sql)


def _may_be_unsteady(con: DuckDBPyConnection, statement: dict[str, Any]) -> bool:
    """Whether a statement calls a function that is not known to be steady, samples, or reads anything but `source`."""
    called = set()
    for part in _walk(statement):
        if part.get("sample_size") is not None or str(part.get("table_name") or "source").lower() != "source":
            return True
        if part.get("function_name") and not part.get("is_operator"):
            called.add(str(part["function_name"]).lower())
    # A database that is attached can have a macro of any name.
    return bool(called) and (not called <= _PLAIN or _attached(con))


def _attached(con: DuckDBPyConnection) -> bool:
    row = con.execute("SELECT count(*) FROM duckdb_databases() WHERE NOT internal").fetchone()
    return row is None or row[0] > 1


def unsteady_error(called: str, what: str) -> SourceError:
    """The refusal of a function whose value is another one in every run."""
    return SourceError(
        f"{what} may not call {called}: its value can be another one in every run, "
        "and rows that did not change would be sent again.",
        hint="A part of the rows that stays the same can be had from their key, such as id % 10 = 0.",
    )


def _definitions(con: DuckDBPyConnection) -> dict[str, list[str]]:
    """What views and macros are made of, by lowercase name."""
    rows = con.execute(
        "SELECT view_name, sql FROM duckdb_views() WHERE sql <> '' UNION ALL "
        "SELECT function_name, CASE WHEN function_type = 'macro' THEN 'SELECT ' ELSE '' END || macro_definition "
        "FROM duckdb_functions() WHERE macro_definition IS NOT NULL"
    ).fetchall()
    found: dict[str, list[str]] = {}
    for name, sql in rows:
        found.setdefault(str(name).lower(), []).append(sql)
    return found


def _definition(con: DuckDBPyConnection, sql: str) -> list[dict[str, Any]]:
    """The parsed SELECT of a macro, or of a view, where it follows the first AS that is no part of a name."""
    while True:
        answer = _parsed(con, sql)
        if not answer.get("error"):
            statements: list[dict[str, Any]] = answer["statements"]
            return statements
        _, found, sql = sql.partition(" AS ")
        if not found:
            return []


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

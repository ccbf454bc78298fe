"""The SQL that a BigQuery source runs, and what in a user's SQL would make its rows other ones in every run."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Final

from batchform.adapters.bigquery_client import quoted
from batchform.adapters.bigquery_types import CAST_TO_TEXT, kind_of, repeated
from batchform.adapters.sources.sql import unsteady_error
from batchform.errors import SourceError

if TYPE_CHECKING:
    from google.cloud.bigquery import SchemaField

SNAPSHOT: Final = "@snapshot"
"""In a query, the time of the snapshot: `FROM t FOR SYSTEM_TIME AS OF @snapshot`."""

_WITH: Final = "What must come before it can be written as WITH name AS (SELECT …)."
# What SQL must be cleared of before words are looked for: strings of all kinds, quoted names, comments.
_NOT_CODE: Final = re.compile(
    r"""(?isx) [rb]{0,2}(?:'''(?:\\.|(?!''').)*''' | \"\"\"(?:\\.|(?!\"\"\").)*\"\"\"
    | '(?:\\.|[^'\\])*' | "(?:\\.|[^"\\])*")
    | `(?:\\.|[^`\\])*` | --[^\n]* | \#[^\n]* | /\*.*?\*/"""
)
_UNSTEADY: Final = re.compile(r"(?i)\b(RAND|GENERATE_UUID|SESSION_USER)\s*\(")
_SAMPLE: Final = re.compile(r"(?i)\bTABLESAMPLE\b")
_MOVING: Final = re.compile(r"(?i)\bCURRENT_(TIMESTAMP|DATE|DATETIME|TIME)\b|\bEXTERNAL_QUERY\s*\(")
_SNAPSHOT: Final = re.compile(r"(?i)@snapshot\b")
_ALIAS: Final = r"(?:\s+(?:AS\s+)?(?:`[^`]+`|(?!FOR\b)[A-Za-z_]\w*))?"
_TIME: Final = r"\s+FOR\s+SYSTEM[_ ]TIME\s+AS\s+OF\s+"
_AT_SNAPSHOT: Final = re.compile(rf"(?i)`?{_ALIAS}{_TIME}@snapshot\b")
_READS: Final = re.compile(r"(?i)\b(?:FROM|JOIN)\b")
_NAME: Final = re.compile(r"\s*((?:`[^`]+`|[A-Za-z_][\w-]*)(?:\s*\.\s*(?:`[^`]+`|[A-Za-z_][\w-]*))*)(?!\s*\()")
_NEXT: Final = re.compile(rf"(?i){_ALIAS}(?:{_TIME}\S+)?\s*,")


def code_of(sql: str) -> str:
    """SQL with every string, quoted name and comment as spaces: positions stay."""
    return _NOT_CODE.sub(lambda found: " " * len(found[0]), sql)


def check_steady(sql: str, what: str) -> None:
    """Refuse what has another value in every run: unchanged rows would be paid for again. Raises SourceError."""
    code = code_of(sql)
    if found := _UNSTEADY.search(code):
        raise unsteady_error(f"{found[1].upper()}()", what)
    if _SAMPLE.search(code):
        raise SourceError(
            f"{what} takes a sample, which is another one in every run.",
            hint="A part of the rows that stays the same can be had from their key, such as MOD(id, 10) = 0.",
        )


def is_moving(sql: str) -> bool:
    """Whether the SQL reads the time, or another database: its rows can change while its tables do not."""
    return _MOVING.search(code_of(sql)) is not None


def names_snapshot(query: str) -> bool:
    """Whether a query names the time of the snapshot."""
    return _SNAPSHOT.search(code_of(query)) is not None


def all_pinned(query: str, tables: Collection[str]) -> bool:
    """Whether a query reads these tables, by their ids, as they were at the time of the snapshot, wherever it names
    them. A table that it does not name, such as one below a view, is not."""
    code = _NOT_CODE.sub(lambda found: found[0] if found[0].startswith("`") else " " * len(found[0]), query)
    return bool(tables) and all(_pinned(code, table) for table in tables)


def _pinned(code: str, table: str) -> bool:
    named = [code[m.end() :] for m in re.finditer(rf"(?<![\w-]){re.escape(table)}(?![\w-])", code)]
    read = [rest for rest in named if not re.match(r"`?\s*\.", rest)]  # else it says whose a column is
    return bool(read) and all(_AT_SNAPSHOT.match(rest) for rest in read)


def names_read(query: str) -> list[str]:
    """What stands behind FROM and JOIN and could be a table or a view: names of two or three parts, unquoted."""
    code = _NOT_CODE.sub(lambda found: found[0] if found[0].startswith("`") else " " * len(found[0]), query)
    found = []
    for start in _READS.finditer(code):
        at = start.end()
        while name := _NAME.match(code, at):
            text = "".join(name[1].replace("`", "").split())
            found += [text] if "." in text else []
            more = _NEXT.match(code, name.end())
            if not more:
                break
            at = more.end()
    return found


def at_time(query: str, moment: str | None) -> str:
    """The query with `@snapshot` as the literal that `moment` (RFC 3339) is, or as the time at which it runs."""
    code, literal = code_of(query), _literal(moment) if moment else "CURRENT_TIMESTAMP()"
    parts, start = [], 0
    for found in _SNAPSHOT.finditer(code):
        parts += [query[start : found.start()], literal]
        start = found.end()
    return "".join([*parts, query[start:]])


def one_statement(query: str) -> str:
    """The query without its last semicolon. Raises SourceError if another statement follows one."""
    code = code_of(query).rstrip()
    if code.endswith(";"):
        code = code[:-1]
        query = query[: len(code)]
    if ";" in code:
        raise SourceError("source.query holds several statements, and must hold exactly one SELECT.", hint=_WITH)
    if not code.strip():
        raise SourceError("source.query holds no statement, and must hold exactly one SELECT.", hint=_WITH)
    return query


def one_condition(where: str) -> str:
    """`where`, if it cannot be anything but one condition. Raises SourceError."""
    code, depth = code_of(where), 0
    for sign in code:
        depth += {"(": 1, ")": -1}.get(sign, 0)
        if depth < 0 or sign == ";":
            break
    if depth or ";" in code or not where.strip():
        raise SourceError(
            "source.where must be one SQL condition, such as status = 'open'.",
            hint="Use source.query for anything more.",
        )
    return where


def from_table(table: str, *, moment: str | None, where: str | None) -> str:
    """FROM and WHERE over a table, as it was at `moment` (RFC 3339)."""
    pinned = f" FOR SYSTEM_TIME AS OF {_literal(moment)}" if moment else ""
    condition = f" WHERE (\n{where}\n)" if where is not None else ""
    return f"FROM {quoted(table)}{pinned}{condition}"


def from_query(query: str) -> str:
    """FROM over what a query gives. The line breaks keep a trailing comment from swallowing what comes after."""
    return f"FROM (\n{query}\n)"


def select(fields: Sequence[SchemaField], rest: str) -> str:
    """A SELECT of these columns; types that have no place in Arrow as BigQuery's own text."""
    items = []
    for field in fields:
        name = quoted(field.name)
        text = kind_of(field) in CAST_TO_TEXT and not repeated(field)
        items.append(f"CAST({name} AS STRING) AS {name}" if text else name)
    return f"SELECT {', '.join(items) or '1 AS `none`'} {rest}"


def _literal(moment: str) -> str:
    return f"TIMESTAMP '{moment}'"

"""Rows whose PDF is asked about in parts: one request for each range of pages, and one answer of all of them.

Each part is a row of the ledger, with a key of its own: the row's key, and which pages of which file it is. So a part
fails, is sent again and is paid for alone, and no answer to one version of a file meets one to another. A row is
delivered when all parts of one version are answered.

A request names its pages by the content of the whole file, `sha256:<hex>#pages=51-100`: never by the bytes that the
pages are cut to, which another version of the library that cuts may write otherwise.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Final

from batchform.errors import SourceError
from batchform.rows.names import PART, ROW
from batchform.rows.sql import identifier, literal
from batchform.spec.resolved import ResolvedSpec

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

FIRST: Final = "bf_first"
LAST: Final = "bf_last"
"""Columns of `whole_sets`: the pages of a part, NULL of a row that is in one piece."""

_MARK: Final = "#pages="
_SUFFIX: Final = r" \[pages (\d+)-(\d+) of (\d+) in ([0-9a-f]{12})\]$"
_BARE: Final = re.compile(_SUFFIX)
_NAMED: Final = re.compile(rf"^(sha256:[0-9a-f]{{64}}){_MARK}(\d+)-(\d+)$")
SETS: Final = "bf_sets"
"""Temp table of `whole_sets`: key_hash of each part of what can be delivered, and the serial that it has there."""


def ranges(pages: int, most: int) -> Iterator[tuple[int, int]]:
    """First and last page of each part, from 1."""
    return ((first, min(first + most - 1, pages)) for first in range(1, pages + 1, most))


def part_name(digest: str, first: int, last: int) -> str:
    """How a request names these pages of the file with this digest."""
    return f"{digest}{_MARK}{first}-{last}"


def pages_of(name: str) -> tuple[str, int, int] | None:
    """(digest of the file, first page, last page) that a name of a part says; None of a whole file."""
    found = _NAMED.match(name)
    return (found[1], int(found[2]), int(found[3])) if found else None


def part_suffix(digest: str, first: int, last: int, pages: int) -> str:
    """What stands behind a row's key in that of its part."""
    return f" [pages {first}-{last} of {pages} in {digest.rpartition(':')[2][:12]}]"


def row_key(key: str) -> str:
    """The key of the row that a part belongs to."""
    return _BARE.sub("", key)


def row_key_sql(key: str) -> str:
    """SQL of `row_key`."""
    return f"regexp_replace({key}, {literal(_SUFFIX)}, '')"


def not_left_sql() -> str:
    """SQL condition: no part of a row that is no longer asked in parts, by its `key` and `status`."""
    return f"NOT (status = 'absent' AND regexp_matches(key, {literal(_SUFFIX)}))"


def chosen_sql(keys: Sequence[str], spec: ResolvedSpec, key: str = "bf_key") -> str:
    """SQL condition: rows of these keys. The key of a row that is asked in parts means all of them."""
    listed = ", ".join(map(literal, keys))
    parts = f" OR {row_key_sql(key)} IN ({listed})" if spec.splits else ""
    return f"({key} IN ({listed}){parts})"


def check_rows(con: DuckDBPyConnection, spec: ResolvedSpec, wide: str) -> None:
    """Refuse rows whose keys would be taken for parts, and keys that several rows have. Raises SourceError."""
    place = spec.at("idempotency.key")
    bare = f"left(bf_key, length(bf_key) - length({identifier(PART)}))"
    for (key,) in con.execute(
        f"SELECT {bare} FROM {wide} WHERE regexp_matches({bare}, {literal(_SUFFIX)}) LIMIT 1"
    ).fetchall():
        raise SourceError(
            f"the key {key!r} of {spec.name} ends like that of a part of a PDF", place=place, hint="Choose another key."
        )
    for key, rows in con.execute(
        f"SELECT {bare} AS k, count(DISTINCT {identifier(ROW)}) AS n FROM {wide} GROUP BY k HAVING n > 1 LIMIT 1"
    ).fetchall():
        raise SourceError(
            f"{rows:,} rows of {spec.name} have the key {key!r}", place=place, hint="Make the key unique."
        )


def whole_sets(con: DuckDBPyConnection, rows: str) -> str:
    """FROM-able: the row states of what can be delivered, under the keys of their rows, with FIRST and LAST; and those
    that are gone, as they are. rows: FROM-able row states of a spec.

    Of several versions of a row, the one that the source has; or else the one that was answered last. Each part has the
    serial of the part that came last.
    """
    con.execute(
        f"CREATE OR REPLACE TEMP TABLE bf_parts AS SELECT key_hash, {row_key_sql('key')} AS row_key, "
        "status <> 'absent' AS there, answer_serial, changed_serial, p[1] <> '' AS is_part, "
        "TRY_CAST(p[1] AS BIGINT) AS first, TRY_CAST(p[2] AS BIGINT) AS last, TRY_CAST(p[3] AS BIGINT) AS pages, "
        "p[4] AS file FROM (SELECT *, "
        f"[{', '.join(f'regexp_extract(key, {literal(_SUFFIX)}, {n})' for n in range(1, 5))}] AS p FROM {rows} "
        "WHERE answer_fp IS NOT NULL AND status <> 'gone')"
    )
    con.execute(
        # A set begins with a first part, whose length tells where all others are.
        f"CREATE OR REPLACE TEMP TABLE {SETS} AS WITH begun AS ("
        "SELECT row_key, file, pages, last AS most FROM bf_parts WHERE is_part AND first = 1"
        "), members AS ("
        "SELECT p.key_hash, p.row_key, p.file, b.most, p.first, p.last, p.there, p.answer_serial, p.changed_serial, "
        "CAST(ceil(p.pages / b.most) AS BIGINT) AS wanted FROM bf_parts p JOIN begun b "
        "ON p.row_key = b.row_key AND p.file = b.file AND p.pages = b.pages "
        "WHERE (p.first - 1) % b.most = 0 AND p.last = least(p.first - 1 + b.most, p.pages) "
        "UNION ALL SELECT key_hash, row_key, '', 0, NULL, NULL, there, answer_serial, changed_serial, 1 FROM bf_parts "
        "WHERE NOT is_part"
        "), sets AS ("
        "SELECT row_key, file, most, bool_and(there) AS there, max(answer_serial) AS serial, "
        "max(changed_serial) AS changed FROM members "
        "GROUP BY row_key, file, most, wanted HAVING count(*) = wanted"
        "), best AS ("
        # Where there are several versions, one may come back without a new answer: what changed counts, then.
        "SELECT row_key, file, most, "
        "CASE WHEN count(*) OVER (PARTITION BY row_key) > 1 THEN greatest(serial, changed) ELSE serial END AS as_of "
        "FROM sets QUALIFY row_number() OVER (PARTITION BY row_key ORDER BY there DESC, serial DESC, file, most) = 1"
        ") SELECT m.key_hash, m.row_key, m.first, m.last, b.as_of AS serial FROM members m "
        "JOIN best b USING (row_key, file, most)"
    )
    con.execute("DROP TABLE bf_parts")
    return (
        "(SELECT r.* REPLACE (coalesce(s.row_key, r.key) AS key, "
        "coalesce(s.serial, r.answer_serial) AS answer_serial), "
        f"s.first AS {FIRST}, s.last AS {LAST} FROM {rows} r LEFT JOIN {SETS} s USING (key_hash) "
        "WHERE s.key_hash IS NOT NULL OR r.status = 'gone')"
    )

"""Why rows of a spec have their actions, group by group: rows that the same edit, or the same past, concerns."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Any, Final

from msgspec import Struct

from batchform.ledger.store import Ledger
from batchform.plan.bookkeeping import FreeRows
from batchform.plan.build import render_candidates
from batchform.plan.compare import compare
from batchform.plan.diff import CANDIDATES
from batchform.plan.draft import actions_of
from batchform.plan.model import Action, Reason
from batchform.plan.work import Settings, Work
from batchform.rows.keyed import NARROW
from batchform.spec.resolved import ResolvedSpec

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

_WORDS: Final = {
    "new": "never answered",
    "pending": "queued, or given back",
    "changed": "the input differs from the recorded one",
    "requested": "asked for with `rerun`",
    "retry": "failed, and may be tried again",
    "for_apply": "failed, and tried again by apply alone",
    "saved": "failed, and answered since by a job that was given up on",
}
_PARTS: Final = (
    ("prompt", "prompt_digest"), ("model", "model"), ("config", "config_digest"), ("schema", "schema_digest"),
)  # fmt: skip


class Group(Struct, frozen=True):
    """Rows that are looked at for one cause. words: the cause; components: (name, before, after) of what differs, None
    where each row has its own; keys: a few of them, the first by the hash of the key."""

    words: str
    rows: int
    components: tuple[tuple[str, str | None, str | None], ...]
    keys: tuple[str, ...]


class SpecExplanation(Struct, frozen=True):
    """actions, reasons: rows, as the next plan has them; held: why → rows; groups: of the rows that were rendered to
    find them, the largest first."""

    actions: dict[Action, int]
    reasons: dict[Reason, int]
    held: dict[str, int]
    groups: tuple[Group, ...]


def explain_spec(work: Work, ledger: Ledger, settings: Settings, *, examples: int) -> SpecExplanation:
    """Explain all rows of a spec at once. examples: keys to name of each group."""
    spec = work.spec
    with closing(work.connect()) as con:
        past, rows, found = compare(con, work, ledger, settings)
        rendered, _, _ = render_candidates(
            con, spec, rows, past, found, ledger.control(), settings, folder=None, free=FreeRows(None)
        )
        groups = _first(con, rows.rows, examples) if past.relation is None else ()
        if past.relation is not None and found.count(*_WORDS):
            groups = _groups(con, spec, past.relation, examples)
    actions = {a: n for a, n in actions_of(found, rendered).items() if n}
    return SpecExplanation(actions, dict(rendered.reasons), {**found.exhausted, **rendered.held}, tuple(groups))


def _first(con: DuckDBPyConnection, rows: int, examples: int) -> tuple[Group, ...]:
    keys = con.execute(f"SELECT key FROM {NARROW} ORDER BY key_hash LIMIT {int(examples)}").fetchall()
    return (Group(_WORDS["new"], rows, (), tuple(k for (k,) in keys)),) if rows else ()


def _groups(con: DuckDBPyConnection, spec: ResolvedSpec, relation: str, examples: int) -> tuple[Group, ...]:
    columns = ", ".join(f"l.{column} AS {name}" for name, column in _PARTS)
    found = con.execute(
        f"SELECT c.class, {columns}, c.row_same IS NOT TRUE AND c.known AS row_differs, "
        "CASE WHEN c.class IN ('retry', 'for_apply', 'saved') THEN c.failure END AS failure, count(*) AS n, "
        f"(list(n.key ORDER BY n.key_hash))[1:{int(examples)}] FROM {CANDIDATES} c "
        f"JOIN {NARROW} n ON c.key_hash = n.key_hash LEFT JOIN {relation} l ON c.key_hash = l.key_hash "
        "GROUP BY ALL ORDER BY n DESC, 1, 2, 3, 4, 5"
    ).fetchall()
    return tuple(_group(spec, row) for row in found)


def _group(spec: ResolvedSpec, row: tuple[Any, ...]) -> Group:
    kind, recorded, differs, failure, count, keys = row[0], row[1:5], row[5], row[6], row[7], row[8]
    now = (spec.prompt_digest, spec.model, spec.config_digest, spec.schema_digest)
    components: list[tuple[str, str | None, str | None]] = []
    if kind != "new":
        triples = zip(_PARTS, recorded, now, strict=True)
        components = [(name, before, after) for (name, _), before, after in triples if before != after]
        components += [("row", None, None)] if differs else []
    words = _WORDS[kind] + (f" ({failure})" if failure else "")
    return Group(words, int(count), tuple(components), tuple(keys))

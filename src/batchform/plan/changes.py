"""Edits of a spec that would send answered rows again: what becomes of those rows, and who said so.

rerun   all of them are sent
keep    they keep their answers; new rows, and rows whose own columns change, are asked with the new prompt
canary  the first few by the hash of their key are sent; the others wait until somebody has seen those answers
ask     all of them wait until somebody says which

Whether an edit concerns a row at all is found by rendering it: a row whose request stays the same is kept for nothing.
A decision holds for the prompt, model, configuration and schema that it was made about. The command line's comes first,
then what it said before, as recorded, unless the spec's own `on_prompt_change` was edited since, then that.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final

from msgspec import Struct
from msgspec.structs import replace

from batchform.canon import digest_of
from batchform.errors import UsageError
from batchform.ledger.records import ControlView
from batchform.plan.model import Reason
from batchform.rows.keyed import NARROW
from batchform.rows.sql import literal
from batchform.spec.model_change import Canary
from batchform.spec.resolved import ResolvedSpec

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

CLASSES: Final = ("rerun", "keep", "canary")
SUGGESTED: Final = 50
"""Rows of a canary, where nobody says how many."""
_MOST: Final = 10_000


class Decision(Struct, frozen=True):
    """kind: one of CLASSES or "ask"; rows: of a canary; source: "command", "recorded" or "spec"; by: who recorded it,
    and when; chosen: the canary's key hashes in hex, once they are known."""

    kind: str
    rows: int = 0
    source: str = "spec"
    by: str = ""
    chosen: frozenset[str] = frozenset()

    @property
    def words(self) -> str:
        """`canary of 50`."""
        return f"canary of {self.rows:,}" if self.kind == "canary" else self.kind


def components_of(spec: ResolvedSpec) -> str:
    """A digest of all that an edit of a spec can change in the requests of its rows."""
    return digest_of("components", [spec.prompt_digest, spec.model, spec.config_digest, spec.schema_digest])


def own_words(spec: ResolvedSpec) -> str:
    """What the spec itself says: `ask`, `canary:50`."""
    own = spec.spec.idempotency.on_prompt_change
    return f"canary:{own.canary}" if isinstance(own, Canary) else own


def decide(spec: ResolvedSpec, control: ControlView, said: Mapping[str, Decision]) -> Decision:
    """What becomes of rows that the spec, as it is now, would ask otherwise. said: on the command line, by spec."""
    if spec.name in said:
        return said[spec.name]
    recorded = control.changes.get(spec.name)
    if recorded is not None and (recorded.components, recorded.own) == (components_of(spec), own_words(spec)):
        by = f"{recorded.by or 'somebody'} at {recorded.at[:19]}Z"
        return Decision(recorded.decision, recorded.rows, "recorded", by)
    own = spec.spec.idempotency.on_prompt_change
    return Decision("canary", own.canary) if isinstance(own, Canary) else Decision(own)


def with_canary(
    con: DuckDBPyConnection, spec: ResolvedSpec, decision: Decision, relation: str | None, *, first_keys: str | None
) -> Decision:
    """The decision with the rows of its canary: of those that have an answer, the first by the hash of their key, so
    that the next plan names the same ones. A row that left the source after it was asked stays one of them: no other
    takes its place. first_keys: FROM-able (key_hash, first) of rows whose keys changed, None if none did."""
    if decision.kind != "canary" or relation is None:
        return decision
    now = ", ".join(map(literal, (spec.prompt_digest, spec.model, spec.config_digest, spec.schema_digest)))
    joined = f" LEFT JOIN {first_keys} f ON f.key_hash = l.key_hash" if first_keys else ""
    order = "coalesce(f.first, l.key_hash), l.key_hash" if first_keys else "l.key_hash"
    found = con.execute(
        f"SELECT replace(CAST(l.key_hash AS VARCHAR), '-', '') FROM {relation} l LEFT JOIN {NARROW} n "
        f"ON n.key_hash = l.key_hash{joined} WHERE l.answer_fp IS NOT NULL AND (n.key_hash IS NOT NULL "
        f"OR (l.prompt_digest, l.model, l.config_digest, l.schema_digest) = ({now})) "
        f"ORDER BY {order} LIMIT {int(decision.rows)}"
    ).fetchall()
    return replace(decision, chosen=frozenset(row[0] for row in found))


def kept_words(decision: Decision) -> str:
    """Why a row keeps the answer to an earlier prompt."""
    who = {"command": "--on-change", "recorded": f"decided by {decision.by}"}.get(decision.source, "the spec says so")
    return f"keeps its answer to an earlier prompt, model, configuration or schema: on_prompt_change keep ({who})"


def parse_changes(given: Iterable[str], specs: Iterable[str]) -> dict[str, Decision]:
    """`--on-change SPEC=rerun|keep|canary:N`, each for one spec. Raises UsageError."""
    known, found = tuple(specs), dict[str, Decision]()
    for text in given:
        name, _, said = text.partition("=")
        if name not in known:
            from batchform.spec.wording import suggestion

            hint = suggestion(name, known, noun="Specs") or "Such as: --on-change triage=keep"
            raise UsageError(f"--on-change {text}: there is no spec {name!r} in this plan", hint=hint)
        match = re.fullmatch(r"(rerun|keep)|canary:(\d{1,6})", said)
        rows = int(match[2]) if match and match[2] else 0
        if match is None or rows > _MOST or (match[2] and not rows):
            hint = f"It is rerun, keep or canary:N, such as: --on-change {name}=canary:{SUGGESTED}"
            raise UsageError(f"--on-change {text}: {said!r} is no way to treat answered rows", hint=hint)
        if name in found:
            raise UsageError(f"--on-change names {name} twice", hint="Say once what becomes of its answered rows.")
        found[name] = Decision(match[1] or "canary", rows, "command")
    return found


class Edited(Struct):
    """Answered rows that an edit concerns, as they are rendered. rows, size: all of them, with those that
    are held, and the bytes of their requests."""

    decision: Decision
    rows: int = 0
    size: int = 0
    held: int = 0
    held_size: int = 0

    def holds(self, key_hex: str, request: bytes, state: Mapping[str, Any], reason: Reason) -> str:
        """Why a row is held, in words; "" if it is sent."""
        if not concerns(state):
            return ""
        self.rows += 1
        self.size += len(request)
        decision = self.decision
        if decision.kind == "rerun" or (decision.kind == "canary" and key_hex in decision.chosen):
            return ""
        self.held += 1
        self.held_size += len(request)
        words = "on_prompt_change: ask" if decision.kind == "ask" else f"not in the {decision.words}"
        return f"{words} ({reason.value})"


def concerns(state: Mapping[str, Any]) -> bool:
    """Whether a row, whose request is another than the answered one, has become so by an edit of the spec alone.

    A row that changed itself, failed, or was asked for is sent whatever is decided.
    """
    own = state["row_same"] is not False and state["realm_same"] is not False
    edited = any(state[f"{c}_same"] is False for c in ("prompt", "model", "config", "schema"))
    return bool(state["class"] == "changed" and state["answered"] and state["status"] != "failed" and own and edited)

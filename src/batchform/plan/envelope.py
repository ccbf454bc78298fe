"""The envelope of a plan: made when it is planned, and what a later plan must stay inside to be applied under it.

Rows come and go between a review and the merge, so that the same bytes are rarely sent. What is approved is therefore
what was asked, and how much of it at most: the digests of spec, template, configuration and schema, the model, rows per
action, dollars, what becomes of answered rows, and until when.
"""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Iterator, Mapping
from typing import Final

import msgspec
from msgspec.structs import replace

from batchform.canon import digest_of, short
from batchform.plan.bounds import Envelope, Spare, SpecBound, Used
from batchform.plan.model import Action, Change, Plan, SpecPlan
from batchform.spec.resolved import ResolvedSpec
from batchform.spec.wording import counted, money

BOUNDED: Final = (Action.RUN, Action.RERUN, Action.REMOVE)
"""Actions whose rows are bounded one by one. The others cost nothing and take nothing away."""
_FRACTION: Final = 1e-9
"""US dollars by which sums of floats may miss each other."""
_PARTS: Final[Mapping[str, str]] = {
    "template": "its prompt",
    "config": "its configuration",
    "schema": "its response schema",
    "parse": "how its answers are read",
}


def parts_of(spec: ResolvedSpec) -> dict[str, str]:
    """Digests of a spec and of its parts, by the names of `SpecBound.digests`."""
    return {
        "spec": spec.spec_digest,
        "template": spec.prompt_digest,
        "config": spec.config_digest,
        "schema": spec.schema_digest,
        "parse": spec.parse_digest,
    }


def envelope_of(plan: Plan, digests: Mapping[str, Mapping[str, str]], *, spare: Spare, now: dt.datetime) -> Envelope:
    """The envelope of a plan. digests: of each spec's parts, by its name."""
    specs = tuple(_bound(s, digests[s.name], spare) for s in plan.specs)
    made = Envelope(
        digest="",
        plan_digest=plan.digest,
        project=plan.project,
        environment=plan.environment,
        lineage=plan.lineage,
        created_at=plan.created_at,
        expires_at=_rfc3339(now + dt.timedelta(seconds=spare.valid)),
        specs=specs,
        rows=sum(s.rows for s in specs),
        usd=round(sum(s.usd for s in specs), 6),
        partial=plan.partial,
        allowed=tuple(sorted(f"{v.scope}.{v.name}" for v in plan.all_verdicts if v.allowed)),
        reason=plan.reason,
    )
    return replace(made, digest=envelope_digest(made))


def envelope_digest(envelope: Envelope) -> str:
    """The digest that an envelope is approved by: of all that it says."""
    return digest_of("envelope", msgspec.to_builtins(replace(envelope, digest="")))


def _bound(spec: SpecPlan, digests: Mapping[str, str], spare: Spare) -> SpecBound:
    after = spec.after.rows if spec.after else 0
    planned = spec.rows_to_send + after
    more = math.ceil(planned * spare.percent / 100) + spare.rows
    high = spec.cost.expected + (spec.after.cost.high if spec.after else 0.0)
    mean = high / planned if planned else 0.0
    usd = high * (1 + spare.percent / 100) + mean * spare.rows
    return SpecBound(
        name=spec.name,
        model=spec.model,
        backend=spec.backend,
        realm=spec.realm,
        digests=dict(digests),
        change=change_words(spec.change),
        said=change_words(spec.change) if spec.change and spec.change.source == "command" else "",
        actions={a.value: spec.actions.get(a, 0) + (more if a.pays else 0) for a in BOUNDED},
        rows=planned + more,
        usd=round(usd + 5e-7, 6),
        after=after,
    )


def change_words(change: Change | None) -> str:
    """`canary:50`: the way that `--on-change` names; "" where no answered row is concerned."""
    if change is None:
        return ""
    return f"canary:{change.canary}" if change.decision == "canary" else change.decision


def outside(
    envelope: Envelope, plan: Plan, digests: Mapping[str, Mapping[str, str]], *, now: dt.datetime, used: Used
) -> list[str]:
    """What of a plan lies outside an envelope, each in words with its numbers; nothing when it is inside.

    used: what was sent under the same envelope before.
    """
    grown = list(_elsewhere(envelope, plan, now))
    planned = {s.name: s for s in plan.specs}
    for bound in envelope.specs:
        spec = planned.get(bound.name)
        if spec is None:
            grown.append(f"spec {bound.name} is gone")
            continue
        changed = list(_changed(bound, spec, digests[bound.name]))
        grown += changed or _more(bound, spec, used.of(bound.name), used.removed.get(bound.name, 0))
    return grown


def _elsewhere(envelope: Envelope, plan: Plan, now: dt.datetime) -> Iterator[str]:
    if now > dt.datetime.fromisoformat(envelope.expires_at):
        yield f"it was approved until {envelope.expires_at[:19]}Z, and it is {_rfc3339(now)[:19]}Z"
    approved, here = (envelope.project, envelope.environment), (plan.project, plan.environment)
    if approved != here:
        yield f"it was approved for {_place(*approved)}, and this is {_place(*here)}"
    if envelope.lineage and envelope.lineage != plan.lineage:
        yield f"the ledger is another one (lineage {plan.lineage or 'none'}, approved on {envelope.lineage})"


def _changed(bound: SpecBound, spec: SpecPlan, digests: Mapping[str, str]) -> Iterator[str]:
    name = bound.name
    if bound.model != spec.model:
        yield f"{name}: model {spec.model}, and {bound.model} was approved"
    if (bound.backend, bound.realm) != (spec.backend, spec.realm):
        yield f"{name}: backend {spec.backend} ({spec.realm}), and {bound.backend} ({bound.realm}) was approved"
    moved = [part for part in _PARTS if bound.digests.get(part) != digests.get(part)]
    for part in moved:
        approved, is_now = short(bound.digests.get(part, "")), short(digests.get(part, ""))
        yield f"{name}: {_PARTS[part]} is {is_now}, and {approved} was approved"
    if not moved and bound.model == spec.model and bound.digests.get("spec") != digests.get("spec"):
        yield f"{name}: the spec is not as it was approved"


def _more(bound: SpecBound, spec: SpecPlan, used: tuple[int, float], removed: int) -> Iterator[str]:
    """What a spec would do beyond what was approved of it."""
    name, change = bound.name, change_words(spec.change)
    rows_used, usd_used = used
    if change and change != bound.change:
        what = f"{bound.change} was approved" if bound.change else "no such row was approved"
        rows = counted(spec.change.rows if spec.change else 0, "answered row")
        yield f"{name}: an edit concerns {rows}: {change}, and {what}"
    after = spec.after.rows if spec.after else 0
    turned = max(bound.after - after, 0)  # rows that were to come are there by now
    for action in BOUNDED:
        most = bound.actions.get(action.value, 0) + (turned if action.pays else 0)
        gone = removed if action is Action.REMOVE else 0
        if spec.actions.get(action, 0) and spec.actions[action] + gone > most:
            found = counted(spec.actions[action], "row")
            told = f", {gone:,} of them removed before" if gone else ""
            yield f"{name}: {found} to {action.value}, and {most:,} were approved at most{told}"
    count, usd = spec.rows_to_send + after, spec.cost.expected + (spec.after.cost.high if spec.after else 0.0)
    sent = f", {rows_used:,} of them sent before" if rows_used else ""
    if count + rows_used > bound.rows:
        yield f"{name}: {counted(count, 'row')} to send, and {bound.rows:,} were approved at most{sent}"
    if count and not usd and bound.usd:
        yield f"{name}: what it costs is not known any more, and {money(bound.usd)} was approved at most"
    if count and usd + usd_used > bound.usd + _FRACTION:
        before = f", {money(usd_used)} of that spent before" if usd_used else ""
        yield f"{name}: {money(usd)}, and {money(bound.usd)} was approved at most{before}"


def _place(project: str, environment: str) -> str:
    return f"project {project}" + (f" in environment {environment}" if environment else "")


def _rfc3339(when: dt.datetime) -> str:
    return when.astimezone(dt.UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")

"""What a reviewed plan approved of chains: rows that are known only when other specs have answered.

Recorded before anything of the plan is sent, so that whoever goes on (the same apply, a sync, after a kill) sends what
was reviewed and no more. It ends when all is sent, when more would be sent, or when a later apply is about the same
rows.
"""

from __future__ import annotations

from collections import Counter
from contextlib import closing
from typing import Final

from batchform.errors import StalePlan
from batchform.ledger.records import Admitted, ApprovalEnded, Approved, ControlView
from batchform.plan.approved_rest import left_of
from batchform.plan.bounds import Used
from batchform.plan.model import Plan, Shard, SpecPlan, Verdict
from batchform.rows.sql import literal
from batchform.run.context import RunContext
from batchform.spec.chains import ancestors
from batchform.spec.resolved import ResolvedSpec
from batchform.spec.wording import counted, money

_FRACTION: Final = 1e-9
"""US dollars by which sums of floats may miss each other."""


def record_approvals(ctx: RunContext, plan: Plan) -> None:
    """Commit what a plan approves of chains, and end what it takes the place of."""
    if plan.purpose != "apply":
        return
    events: list[Admitted | Approved | ApprovalEnded] = []
    if plan.under:
        after = plan.cost_after.high
        events.append(
            Admitted(
                at=ctx.now(), by=ctx.who, envelope=plan.under, plan_digest=plan.digest, approver=plan.approver,
                rows=plan.rows_to_send + plan.rows_after, usd=plan.cost.expected + after,
            )
        )  # fmt: skip
    held, planned = ctx.ledger.control().approved, {s.name: s for s in plan.specs}
    for spec in plan.specs:
        if spec.after is not None:
            events.append(
                Approved(
                    at=ctx.now(), by=ctx.who, spec=spec.name, plan_digest=plan.digest, upstream=spec.after.upstream,
                    rows=spec.after.rows, usd=spec.after.cost.high, digests=digests_of(ctx, spec.name),
                    sends=planned[spec.after.upstream].rows_to_send if spec.after.upstream else 0,
                )
            )  # fmt: skip
    for name, approved in held.items():
        above = planned.get(approved.upstream)
        if name in planned and planned[name].after is None:
            events.append(ended(ctx, approved, "applied anew"))
        elif name not in planned and above is not None and above.rows_to_send:
            events.append(ended(ctx, approved, f"rows of {approved.upstream} were sent without it"))
            ctx.progress.note(
                f"{name} is not in this plan: rows that this makes for it are left to the next plan of it."
            )
    if events:
        ctx.ledger.commit(events)


def ended(ctx: RunContext, approved: Approved, reason: str) -> ApprovalEnded:
    """The event that ends an approval."""
    return ApprovalEnded(at=ctx.now(), by=ctx.who, spec=approved.spec, plan_digest=approved.plan_digest, reason=reason)


def digests_of(ctx: RunContext, name: str) -> dict[str, str]:
    """Digests of a spec and of those that its rows come from, as they are now; none if it is gone."""
    spec = ctx.spec(name)
    chain: list[ResolvedSpec] = [spec, *ancestors(spec, ctx.project.specs)] if spec else []
    return {s.name: s.spec_digest for s in chain}


def taken_up(ctx: RunContext, approved: Approved) -> bool:
    """Whether all rows that the upstream was to send are in jobs made since, or queued: an apply that was killed may
    have left some that the ledger knows nothing of."""
    control = ctx.ledger.control()
    since = [j for j in control.jobs.values() if j.intent.spec == approved.upstream and j.intent.at >= approved.at]
    if not approved.sends or sum(j.intent.rows for j in since if j.status != "not_submitted") >= approved.sends:
        return True
    if approved.upstream not in ctx.ledger.specs():
        return False
    tags = ", ".join(literal(j.tag) for j in since) or "NULL"
    with closing(ctx.connect()) as con:
        rows = ctx.ledger.rows_relation(con, approved.upstream)
        queued = f"status = 'pending' AND \"at\" >= {literal(approved.at)}::TIMESTAMPTZ"
        found = con.execute(f"SELECT count(*) FROM {rows} WHERE tag IN ({tags}) OR ({queued})").fetchall()
    return int(found[0][0]) >= approved.sends


def used_under(control: ControlView, envelope: str) -> Used:
    """What was done under an envelope: rows sent, those under the bounds of chains that it held among them, and rows
    removed. Rows that it left queued, or that came back, count once others have sent as many; retries are not counted.
    """
    admitted = [a for a in control.admitted if a.envelope == envelope]
    plans, removed, left = {a.plan_digest for a in admitted}, Counter[str](), Counter[str]()
    for event in (e for plan in plans for e in control.refreshed.get(plan, ())):
        removed[event.spec] += event.rows.get("remove", 0)
        left[event.spec] += event.rows.get("queued", 0)
    own: dict[str, tuple[int, float]] = {}
    others: dict[str, tuple[int, float]] = {}
    for job in control.jobs.values():
        intent, by = job.intent, own
        inside = bool({intent.plan_digest, intent.wave_of} & plans)
        if job.status == "not_submitted":
            left[intent.spec] += intent.rows if inside else 0
            continue
        if not inside:
            by = others
        if inside or (admitted and intent.at >= admitted[0].at):
            rows, usd = by.get(intent.spec, (0, 0.0))
            by[intent.spec] = rows + intent.rows, usd + intent.est_usd
    for spec, (rows, usd) in others.items():
        if taken := min(left[spec], rows):
            before = own.get(spec, (0, 0.0))
            own[spec] = before[0] + taken, before[1] + usd * taken / rows
    return Used(own, removed)


def grown(control: ControlView, approved: Approved, *, rows: int, usd: float) -> str:
    """What would be sent beyond an approval, in words; empty when it is within."""
    rows_left, usd_left = left_of(control, approved)
    if rows <= rows_left and usd <= usd_left + _FRACTION:
        return ""
    return (
        f"{approved.spec} would send {counted(rows, 'row')} for about {money(usd)}, and of what was approved "
        f"{_when(approved)} {counted(max(rows_left, 0), 'row')} for at most {money(max(usd_left, 0.0))} are left"
    )


def beyond_approval(ctx: RunContext, plan: Plan, planned: SpecPlan, shard: Shard) -> list[Verdict]:
    """Why a shard of a wave may not be sent as the ledger stands now: another run has used the approval up."""
    control = ctx.ledger.control()
    if plan.under:
        _refuse_outside(control, plan, planned, shard)
    if not plan.wave_of:
        return []
    approved = control.approved.get(planned.name)
    words = f"what was approved of {planned.name} holds no longer"
    if approved is not None and approved.plan_digest == plan.wave_of:
        words = grown(control, approved, rows=shard.rows, usd=shard.usd.expected)
    if not words:
        return []
    return [Verdict("known_after_apply", planned.name, ok=False, limit=0.0, actual=float(shard.rows), message=words)]


def _refuse_outside(control: ControlView, plan: Plan, planned: SpecPlan, shard: Shard) -> None:
    """Raises StalePlan when another apply has used up, since this one was planned, what both may send together."""
    bound = next((s for s in plan.envelope.specs if s.name == planned.name), None) if plan.envelope else None
    rows, usd = used_under(control, plan.under).of(planned.name)
    if bound is None or (rows + shard.rows <= bound.rows and usd + shard.usd.expected <= bound.usd + _FRACTION):
        return
    raise StalePlan(
        f"{planned.name}: another apply was at work under the same approval: {counted(rows, 'row')} for {money(usd)} "
        f"were sent under it, and {counted(shard.rows, 'row')} more pass {bound.rows:,} for {money(bound.usd)}"
    )


def _when(approved: Approved) -> str:
    return "as known after apply" if approved.upstream else "of later stages"


def approval_notes(control: ControlView) -> list[str]:
    """What is approved and still to come, for `status`."""
    notes = []
    for name, approved in control.approved.items():
        rows, usd = left_of(control, approved)
        when = f"answers of {approved.upstream} are there" if approved.upstream else "the stages of its rollout pass"
        notes.append(
            f"{name}: up to {counted(max(rows, 0), 'row')} for at most {money(max(usd, 0.0))} are sent when {when} "
            f"(approved by {approved.by} at {approved.at[:19]}Z)"
        )
    return notes

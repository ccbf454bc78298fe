"""What is left of an approval of rows that are sent later. Pure: a control view in, figures out."""

from __future__ import annotations

from batchform.ledger.records import Approved, ControlView


def left_of(control: ControlView, approved: Approved) -> tuple[int, float]:
    """(rows, US dollars) of an approval that were not sent yet.

    Rows that a wave left queued count as sent: whoever sends them makes no wave of it. Those that came back from a
    refused job count once others have sent as many.
    """
    plan, name = approved.plan_digest, approved.spec
    left = [e for e in control.refreshed.get(plan, ()) if e.wave_of == plan and e.spec == name]
    queued = sum(e.rows.get("queued", 0) for e in left)
    returned = sent = others = 0
    usd = others_usd = 0.0
    for job in control.jobs.values():
        intent = job.intent
        if intent.spec != name:
            continue
        if job.status == "not_submitted":
            returned += intent.rows if intent.wave_of == plan else 0
        elif intent.wave_of == plan:
            sent, usd = sent + intent.rows, usd + intent.est_usd
        elif intent.plan_digest != plan and intent.at >= approved.at:
            others, others_usd = others + intent.rows, others_usd + intent.est_usd
    taken = queued + min(returned, max(0, others - queued))
    gone = min(taken, others)
    usd += others_usd * gone / max(others, 1) + approved.usd * (taken - gone) / max(approved.rows, 1)
    return approved.rows - sent - taken, approved.usd - usd

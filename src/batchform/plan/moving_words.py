"""What moves, in words."""

from __future__ import annotations

from batchform.plan.model import Moving
from batchform.spec.wording import counted


def moving_words(moving: Moving) -> str:
    """`triage → support: 6 rows, 1 job at work`; `support: 6 rows take a new key`."""
    if moving.reason:
        waits = f", when {counted(moving.jobs, 'job')} at work is collected" if moving.waits else ""
        return f"{moving.spec}: {counted(moving.rows, 'row')} given up{waits} ({moving.reason})"
    if moving.waits:
        return (
            f"{moving.spec}: {counted(moving.keys, 'row')} to take a new key, when {moving.waits:,} in flight are back"
        )
    if moving.keys:
        return f"{moving.spec}: {counted(moving.keys, 'row')} {'takes' if moving.keys == 1 else 'take'} a new key"
    at_work = f", {counted(moving.jobs, 'job')} at work" if moving.jobs else ""
    return f"{moving.before} → {moving.spec}: {counted(moving.rows, 'row')}{at_work}"

"""What a run did, for people and programs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from batchform.errors import BatchformError, as_json
from batchform.run.outcome import Outcome
from batchform.spec.wording import counted, money


def outcome_lines(outcome: Outcome, *, detached: bool, held: int = 0) -> Iterator[str]:
    """One plain line per spec, then the money, and how to go on. What each job did, progress has told.

    held: rows that the plan did not send.
    """
    if held:
        yield f"{counted(held, 'row')} held: `batchform plan` says why."
    did = (outcome.created, outcome.adopted, outcome.collected, outcome.reread, outcome.delivered, outcome.running)
    told = bool(outcome.stopped or outcome.not_sent or outcome.unknown or outcome.unseen)  # by the error, or below
    if not any(did) and not told:
        yield _nothing(outcome, held)
        return
    for spec in sorted({*outcome.rows, *outcome.reread, *outcome.delivered}):
        yield f"{spec}: {'; '.join(_of_spec(outcome, spec))}."
    if outcome.collected:
        yield f"Cost of what was collected: {money(outcome.usd)}."
    if outcome.left and outcome.left.for_apply:
        yield f"{_waits(outcome.left.for_apply)}: `batchform plan` shows why."
    if detached and outcome.not_sent:
        yield f"{counted(outcome.not_sent, 'shard')} not sent yet for want of room: batchform sync sends them."
    if detached and outcome.running:
        yield f"{counted(len(outcome.running), 'job')} at work. Come back with: batchform sync --wait"


def _nothing(outcome: Outcome, held: int) -> str:
    """Why nothing was done. A sync does not look at sources, so it does not know that all is up to date."""
    left = outcome.left
    if left is None:
        return "Nothing to do." if held else "Nothing to do: every row is up to date."
    if not left.failed and not left.for_apply:
        return "Nothing to do: no job is open, no row is queued or to be retried."
    words = [f"{counted(left.failed, 'row')} failed"] if left.failed else []
    words += [_waits(left.for_apply)] if left.for_apply else []
    return f"Nothing to do now: {', '.join(words)}. `batchform plan` shows why."


def _waits(rows: int) -> str:
    return f"{counted(rows, 'row')} {'waits' if rows == 1 else 'wait'} for apply"


def _of_spec(outcome: Outcome, spec: str) -> Iterator[str]:
    """What became of one spec's rows, and where they are."""
    for classes, words in (
        (outcome.rows.get(spec), "answered"),
        (outcome.reread.get(spec), "archived answers read anew"),
    ):
        if classes is not None:
            failed = [f"{n:,} {name}" for name, n in classes.most_common() if n and name != "answered"]
            yield ", ".join([f"{classes['answered']:,} {words}", *failed])
    if delivered := outcome.delivered.get(spec):
        yield f"{counted(delivered.rows, 'row')} delivered to {delivered.location}"


def outcome_json(outcome: Outcome, error: BatchformError | None) -> dict[str, Any]:
    """The outcome as JSON: `exit_code` and `error` (type, message, hint, place) say how it ended."""
    return {
        "created": outcome.created,
        "adopted": outcome.adopted,
        "collected": outcome.collected,
        "running": outcome.running,
        "unknown": outcome.unknown,
        "reopened": outcome.reopened,
        "unseen": sorted(outcome.unseen),
        "not_sent": outcome.not_sent,
        "grown": outcome.grown,
        "left": {"failed": outcome.left.failed, "for_apply": outcome.left.for_apply} if outcome.left else None,
        "rows": {spec: dict(classes) for spec, classes in outcome.rows.items()},
        "reread": {spec: dict(classes) for spec, classes in outcome.reread.items()},
        "usd": outcome.usd,
        "delivered": {s: {"rows": d.rows, "location": d.location} for s, d in outcome.delivered.items()},
        "exit_code": error.exit_code if error else 0,
        "error": as_json(error) if error else None,
    }

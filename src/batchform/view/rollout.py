"""What a plan says of a rollout: the stage that is released, what was measured, and what the next one waits for."""

from __future__ import annotations

from typing import Any

from batchform.plan.model import SpecPlan
from batchform.plan.stages import Measure, StagePlan, failures_told, what_to_do
from batchform.spec.wording import counted
from batchform.view.text import count


def rollout_lines(spec: SpecPlan, *, keys: bool) -> list[str]:
    """Sentences, the state first; none where all stages were released before. keys: whether rows may be named."""
    found = spec.rollout
    if found is None:
        return []
    lines = [f"rollout: stage {found.stage} of {found.of}{_size(found)}: {_becomes(spec, found)}"]
    lines += [f"{'✓' if m.ok else '✗'} {m.words}" for m in found.gate]
    if found.failed:
        lines.append(f"failed so far: {failures_told(found.failed, found.samples if keys else ())}")
    if found.state == "failed":
        lines.append(what_to_do(spec.name))
    return lines


def _size(found: StagePlan) -> str:
    return f" ({counted(found.size, 'row')})" if found.state != "complete" else ""


def _becomes(spec: SpecPlan, found: StagePlan) -> str:
    after = found.stage + 1
    match found.state:
        case "complete":
            return "all rows are released"
        case "failed":
            return f"its gate failed after {counted(found.sent, 'row')}, {count(found.held)} held"
        case "manual":
            return f"its gate passed; stage {after} is released by: batchform approve {spec.name} --stage {after}"
        case "sending":
            done = f"{count(found.sent)} sent before, " if found.sent else ""
            return f"{done}{count(spec.rows_to_send)} to send, {count(found.held)} wait for its gate"
    return f"{counted(found.sent, 'row')} sent, {count(found.held)} wait for its gate"


def rollout_json(found: StagePlan, *, keys: bool) -> dict[str, Any]:
    """As docs/plan-format.md has it."""
    return {
        "edit": found.edit,
        "stage": found.stage,
        "of": found.of,
        "state": found.state,
        "rows_of_stage": found.size,
        "rows_sent": found.sent,
        "rows_held": found.held,
        "gate": [{"name": m.name, "required": m.required, "measured": m.measured, "ok": m.ok} for m in found.gate],
        "failed": dict(found.failed),
        "failed_rows": [{"key": key, "failure": failure} for key, failure in found.samples] if keys else [],
    }


def rollout_of(told: dict[str, Any]) -> StagePlan:
    """The rollout that `rollout_json` told of."""
    return StagePlan(
        edit=told["edit"], stage=told["stage"], of=told["of"], before=told["stage"], state=told["state"],
        size=told["rows_of_stage"], sent=told["rows_sent"], held=told["rows_held"],
        gate=tuple(Measure(m["name"], m["required"], m["measured"], m["ok"]) for m in told["gate"]),
        failed=dict(told["failed"]), samples=tuple((f["key"], f["failure"]) for f in told["failed_rows"]),
    )  # fmt: skip

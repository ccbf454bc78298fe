"""Guards on what a spec asks, beside the limits on how much: named verdicts, released by name like any other.

allowed_models     fails when rows would be sent to a model that no pattern names, on a rung of the retry ladder too.
required_labels    fails when a spec that sends rows has no label of that name.
min_model_days     fails when rows would be sent to a model that is shut down sooner than so many days from now.

A spec's own guards are judged on it alone, the project's on every spec of the plan. What sends nothing passes.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable
from fnmatch import fnmatchcase
from typing import Final

from batchform.plan.model import SpecPlan, Verdict
from batchform.plan.registry import Registry
from batchform.spec.model import Limits
from batchform.spec.realm import cloud_of
from batchform.spec.resolved import ResolvedSpec
from batchform.spec.wording import counted

_NAMED: Final = 5
"""Offenders that a sentence names."""


def judge_guards(
    scope: str,
    limits: Limits,
    planned: Iterable[tuple[ResolvedSpec, SpecPlan]],
    *,
    registry: Registry,
    now: dt.datetime,
) -> tuple[Verdict, ...]:
    """Verdicts of the guards that are set, of one scope, on its specs."""
    sending = [(spec, plan) for spec, plan in planned if plan.rows_to_send or plan.after]
    verdicts = []
    if limits.allowed_models is not None:
        verdicts.append(_models(scope, limits.allowed_models, sending))
    if limits.required_labels:
        verdicts.append(_labels(scope, limits.required_labels, sending))
    if limits.min_model_days is not None:
        verdicts.append(_lives(scope, limits.min_model_days, sending, registry, now.astimezone(dt.UTC).date()))
    return tuple(verdicts)


def _used(spec: ResolvedSpec, plan: SpecPlan) -> list[str]:
    """The models that rows would be sent to."""
    return sorted({spec.model, *(s.model for s in plan.shards if s.model)})


def _models(scope: str, allowed: list[str], sending: list[tuple[ResolvedSpec, SpecPlan]]) -> Verdict:
    wrong = [
        f"{spec.name} asks {model}"
        for spec, plan in sending
        for model in _used(spec, plan)
        if not any(fnmatchcase(model, pattern) for pattern in allowed)
    ]
    words = f"{_listed(wrong)}, and allowed are {', '.join(allowed) or 'none'}" if wrong else "each model is allowed"
    return Verdict("allowed_models", scope, not wrong, float(len(allowed)), float(len(wrong)), words)


def _labels(scope: str, required: list[str], sending: list[tuple[ResolvedSpec, SpecPlan]]) -> Verdict:
    wrong = [f"{spec.name} has no label {n}" for spec, _ in sending for n in required if not spec.spec.labels.get(n)]
    words = _listed(wrong) if wrong else f"{counted(len(required), 'label')} on each spec"
    return Verdict("required_labels", scope, not wrong, float(len(required)), float(len(wrong)), words)


def _lives(
    scope: str, days: int, sending: list[tuple[ResolvedSpec, SpecPlan]], registry: Registry, today: dt.date
) -> Verdict:
    """The life of a model is what is left until its shutdown; one of which none is known lives on."""
    ends: dict[str, int] = {}
    for spec, plan in sending:
        for model in _used(spec, plan):
            info = registry.on(cloud_of(spec.backend)).model(model)
            if info is not None and info.shutdown is not None:
                ends[model] = (info.shutdown - today).days
    wrong = [f"{model} is shut down in {counted(left, 'day')}" for model, left in sorted(ends.items()) if left < days]
    least = min(ends.values(), default=days)
    words = f"{_listed(wrong)}, sooner than {counted(days, 'day')}" if wrong else f"no model ends within {days:,} days"
    return Verdict("min_model_days", scope, not wrong, float(days), float(least), words)


def _listed(words: list[str]) -> str:
    more = len(words) - _NAMED
    return ", ".join(words[:_NAMED]) + (f" and {more:,} more" if more > 0 else "")

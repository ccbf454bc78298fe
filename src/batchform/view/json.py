"""A plan as JSON: a versioned contract, documented in docs/plan-format.md, with a schema in
docs/plan.schema.json.

It may be posted: the text and key of a row are in it only where the spec says `preview: public`. (A saved
plan, which holds the prompts, is another file: see plan/bundle.py.)
"""

from __future__ import annotations

import json
from typing import Any

from batchform.plan.bounds import Envelope
from batchform.plan.importing import Importing
from batchform.plan.model import (
    FORMAT_VERSION,
    Action,
    After,
    Budget,
    Change,
    Moving,
    Plan,
    Range,
    Resumed,
    Sample,
    Shard,
    SpecPlan,
    Verdict,
)
from batchform.view.caching import cache_json
from batchform.view.rollout import rollout_json


def plan_json(plan: Plan) -> dict[str, Any]:
    """The contract's value, in the order in which its documentation lists the fields."""
    return {
        "format_version": FORMAT_VERSION,
        "digest": plan.digest,
        "project": plan.project,
        "environment": plan.environment,
        "purpose": plan.purpose,
        "created_at": plan.created_at,
        "batchform_version": plan.batchform_version,
        "prices_dated": plan.prices_dated,
        "models_dated": plan.models_dated,
        "ledger": {"lineage": plan.lineage, "serial": plan.serial},
        "selected": list(plan.selected),
        "partial": plan.partial,
        "has_changes": plan.has_changes,
        "rows_to_send": plan.rows_to_send,
        "cost_usd": _range(plan.cost),
        "rows_known_after_apply": plan.rows_after,
        "specs": [_spec(spec) for spec in plan.specs],
        **({"imports": [_importing(i) for i in plan.imports]} if plan.imports else {}),
        **({"moves": [_moving(m) for m in plan.moves]} if plan.moves else {}),
        "verdicts": [_verdict(v) for v in plan.verdicts],
        "reason": plan.reason,
        "envelope": _envelope(plan.envelope) if plan.envelope else None,
    }


def plan_json_text(plan: Plan) -> str:
    """The contract as text that ends in a newline."""
    return json.dumps(plan_json(plan), ensure_ascii=False, indent=2, allow_nan=False) + "\n"


def _envelope(envelope: Envelope) -> dict[str, Any]:
    import msgspec

    told: dict[str, Any] = msgspec.to_builtins(envelope)
    return told


def _spec(spec: SpecPlan) -> dict[str, Any]:
    return {
        "name": spec.name,
        "actions": {action.value: spec.actions.get(action, 0) for action in Action},
        "reasons": {reason.value: rows for reason, rows in spec.reasons.items() if rows},
        "rows_to_send": spec.rows_to_send,
        "requests_to_send": spec.requests_to_send,
        "jobs": len(spec.shards),
        "cost_usd": _range(spec.cost),
        "known_after_apply": _after(spec.after) if spec.after else None,
        **({"cache": cache_json(spec.cache)} if spec.cache else {}),
        **({"rollout": rollout_json(spec.rollout, keys=spec.preview == "public")} if spec.rollout else {}),
        "verdicts": [_verdict(v) for v in spec.verdicts],
        "held_by": dict(spec.held_by),
        "change": _change(spec.change) if spec.change else None,
        "model": spec.model,
        "backend": spec.backend,
        "realm": spec.realm,
        "source": {"described": spec.source, "rows": spec.source_rows},
        "destination": spec.destination,
        "spec_digest": spec.spec_digest,
        "bytes": spec.bytes,
        "tokens": {
            "input": spec.tokens.input,
            "output": _range(spec.tokens.output),
            "counted_requests": spec.tokens.counted,
            "input_basis": spec.tokens.input_basis,
            "output_basis": spec.tokens.basis,
        },
        "shards": [_shard(s) for s in spec.shards],
        "notes": list(spec.notes),
        "previous": spec.previous,
        "samples": [_sample(s) for s in spec.samples] if spec.preview == "public" else [],
    }


def _importing(one: Importing) -> dict[str, Any]:
    """Results of jobs made elsewhere, and the rows that they answer."""
    told: dict[str, Any] = {"spec": one.spec, "source": one.source, "lines": one.lines, "answers": one.answers}
    told |= {"rows": one.rows, "used": one.used, "skipped": dict(one.skipped), "examples": list(one.examples)}
    noted = {"notes": list(one.notes)} if one.notes else {}
    there = {"environment": one.environment, "paid_there_usd": one.paid_usd} if one.environment else {}
    return {**told, **noted, **there}


def _moving(moving: Moving) -> dict[str, Any]:
    """What goes on under another name or key; the files of a saved plan are its own affair."""
    told = {"spec": moving.spec, "from": moving.before, "rows": moving.rows, "jobs_at_work": moving.jobs}
    given_up = {"forgotten": moving.reason} if moving.reason else {}
    return {**told, "keys": moving.keys, "rows_in_flight": moving.waits, **given_up}


def _change(change: Change) -> dict[str, Any]:
    return {
        "decision": change.decision,
        "canary": change.canary,
        "source": change.source,
        "by": change.by,
        "components": change.components,
        "rows": change.rows,
        "held": change.held,
        "options": [
            {"decision": o.decision, "canary": o.canary, "rows_to_send": o.rows, "cost_usd": _range(o.cost)}
            for o in change.options
        ],
    }


def _after(after: After) -> dict[str, Any]:
    return {
        "upstream": after.upstream,
        "rows_at_most": after.rows,
        "cost_usd": _range(after.cost),
        "basis": after.basis,
        **({"rows_in_later_stages": after.staged} if after.staged else {}),
    }


def _shard(shard: Shard) -> dict[str, Any]:
    return {
        "tag": shard.tag,
        "digest": shard.digest,
        "rows": shard.rows,
        "requests": shard.requests,
        "bytes": shard.bytes,
        "mode": shard.mode,
        "input_tokens": shard.input_tokens,
        "cost_usd": _range(shard.usd),
        "resumes": _resumed(shard.resumes) if shard.resumes else None,
        **({"rung": shard.rung} if shard.rung else {}),
        **({"model": shard.model} if shard.model else {}),
    }


def _resumed(resumed: Resumed) -> dict[str, Any]:
    return {"tag": resumed.tag, "job": resumed.job, "results": resumed.results}


def _sample(sample: Sample) -> dict[str, Any]:
    return {
        "key": sample.key,
        "action": sample.action.value,
        "reason": sample.reason.value if sample.reason else None,
        "chosen_as": sample.chosen_as,
        "changed": list(sample.changed),
        "request": sample.request,
        "before": sample.before,
    }


def _verdict(verdict: Verdict) -> dict[str, Any]:
    return {
        "name": verdict.name,
        "scope": verdict.scope,
        "ok": verdict.ok,
        "allowed": verdict.allowed,
        "limit": verdict.limit,
        "actual": verdict.actual,
        "message": verdict.message,
        "budget": _budget(verdict.budget) if verdict.budget else None,
    }


def _budget(budget: Budget) -> dict[str, Any]:
    return {
        "settled": budget.settled,
        "in_flight": budget.in_flight,
        "planned": budget.planned,
        "basis": budget.basis,
    }


def _range(figures: Range) -> dict[str, float]:
    return {"low": figures.low, "expected": figures.expected, "high": figures.high}

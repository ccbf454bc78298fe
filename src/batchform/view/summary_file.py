"""A plan read back from its summary, `plan.json`: enough to show it again, wherever the private bundle is."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import msgspec

from batchform.errors import UsageError
from batchform.plan.bounds import Envelope
from batchform.plan.importing import Importing
from batchform.plan.model import (
    FORMAT_VERSION,
    Action,
    After,
    Budget,
    Change,
    Moving,
    Option,
    Plan,
    Range,
    Reason,
    Resumed,
    Sample,
    Shard,
    SpecPlan,
    Tokens,
    Verdict,
)
from batchform.view.rollout import rollout_of

SUMMARY: Final = "plan.json"


def load_summary(path: Path) -> Plan:
    """The plan that a `plan.json` tells of. What only a bundle has (files, row states) is empty. Raises UsageError."""
    again = "Make one with `batchform plan --out DIR`."
    try:
        told = msgspec.json.decode(path.read_bytes())
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise UsageError(f"{path} is not the summary of a plan: {exc}", hint=again) from exc
    if not isinstance(told, dict) or "format_version" not in told:
        raise UsageError(f"{path} is not the summary of a plan: it has no format_version", hint=again)
    if told["format_version"] != FORMAT_VERSION:
        message = f"{path} has format {told['format_version']}, this batchform reads {FORMAT_VERSION}"
        raise UsageError(message, hint="Show it with the version that made it.")
    try:
        return _plan(told)
    except (KeyError, TypeError, ValueError, AttributeError, msgspec.ValidationError) as exc:
        raise UsageError(f"{path} is not the summary of a plan: {type(exc).__name__} {exc}", hint=again) from exc


def _plan(told: dict[str, Any]) -> Plan:
    ledger = told["ledger"]
    return Plan(
        digest=told["digest"],
        project=told["project"],
        environment=told["environment"],
        created_at=told["created_at"],
        lineage=ledger["lineage"],
        serial=ledger["serial"],
        batchform_version=told["batchform_version"],
        prices_dated=told["prices_dated"],
        models_dated=told.get("models_dated", ""),
        specs=tuple(_spec(s) for s in told["specs"]),
        selected=tuple(told["selected"]),
        partial=told["partial"],
        verdicts=tuple(_verdict(v) for v in told["verdicts"]),
        purpose=told["purpose"],
        envelope=_envelope(told),
        reason=told.get("reason", ""),
        imports=tuple(_importing(i) for i in told.get("imports", ())),
        moves=tuple(_moving(m) for m in told.get("moves", ())),
    )


def _importing(told: dict[str, Any]) -> Importing:
    return Importing(
        told["spec"], "", told["source"], told["lines"], told["answers"], rows=told["rows"], used=told["used"],
        skipped=told["skipped"], examples=tuple(told["examples"]), notes=tuple(told.get("notes", ())),
        environment=told.get("environment", ""), paid_usd=told.get("paid_there_usd", 0.0),
    )  # fmt: skip


def _moving(told: dict[str, Any]) -> Moving:
    return Moving(
        told["spec"], told["from"], rows=told["rows"], jobs=told["jobs_at_work"], keys=told["keys"],
        waits=told["rows_in_flight"], reason=told.get("forgotten", ""),
    )  # fmt: skip


def load_envelope(path: Path) -> Envelope:
    """What somebody may approve of the plan whose summary this is. Raises UsageError."""
    plan = load_summary(path)
    if plan.envelope is None:
        raise UsageError(f"{path} holds nothing that could be approved", hint="Plan with `batchform plan --out DIR`.")
    return plan.envelope


def _envelope(told: dict[str, Any]) -> Envelope | None:
    found = told.get("envelope")
    return msgspec.convert(found, Envelope) if found else None


def _spec(told: dict[str, Any]) -> SpecPlan:
    after = told.get("known_after_apply")
    return SpecPlan(
        name=told["name"],
        spec_digest=told["spec_digest"],
        source=told["source"]["described"],
        source_rows=told["source"]["rows"],
        backend=told["backend"],
        realm=told["realm"],
        model=told["model"],
        destination=told["destination"],
        actions={Action(a): n for a, n in told["actions"].items()},
        reasons={Reason(r): n for r, n in told["reasons"].items()},
        rows_to_send=told["rows_to_send"],
        requests_to_send=told["requests_to_send"],
        shards=tuple(_shard(i, s) for i, s in enumerate(told["shards"])),
        bytes=told["bytes"],
        tokens=_tokens(told["tokens"]),
        cost=_range(told["cost_usd"]),
        verdicts=tuple(_verdict(v) for v in told["verdicts"]),
        samples=tuple(_sample(s) for s in told["samples"]),
        held_by=dict(told["held_by"]),
        notes=tuple(told["notes"]),
        previous=told["previous"],
        change=_change(told["change"]) if told.get("change") else None,
        preview="public" if told["samples"] or told.get("rollout", {}).get("failed_rows") else "private",
        after=_after(after) if after else None,
        rollout=rollout_of(told["rollout"]) if told.get("rollout") else None,
    )


def _after(told: dict[str, Any]) -> After:
    staged = told.get("rows_in_later_stages", 0)
    return After(told["upstream"], told["rows_at_most"], _range(told["cost_usd"]), told["basis"], staged)


def _change(told: dict[str, Any]) -> Change:
    options = (Option(o["decision"], o["rows_to_send"], _range(o["cost_usd"]), o["canary"]) for o in told["options"])
    return Change(
        decision=told["decision"], canary=told["canary"], source=told["source"], by=told["by"],
        components=told["components"], rows=told["rows"], held=told["held"], options=tuple(options),
    )  # fmt: skip


def _shard(index: int, told: dict[str, Any]) -> Shard:
    resumed = told.get("resumes")
    return Shard(
        index=index, tag=told["tag"], digest=told["digest"], rows=told["rows"], requests=told["requests"],
        bytes=told["bytes"], input_tokens=told["input_tokens"], usd=_range(told["cost_usd"]), mode=told["mode"],
        path="", rows_path="", resumes=Resumed(resumed["tag"], resumed["job"], resumed["results"]) if resumed else None,
        model=told.get("model", ""), rung=told.get("rung", ""),
    )  # fmt: skip


def _sample(told: dict[str, Any]) -> Sample:
    reason = told["reason"]
    return Sample(
        key=told["key"], action=Action(told["action"]), reason=Reason(reason) if reason else None,
        request=told["request"], chosen_as=told["chosen_as"], before=told["before"], changed=tuple(told["changed"]),
    )  # fmt: skip


def _verdict(told: dict[str, Any]) -> Verdict:
    budget = told.get("budget")
    return Verdict(
        name=told["name"], scope=told["scope"], ok=told["ok"], limit=told["limit"], actual=told["actual"],
        message=told["message"], allowed=told["allowed"],
        budget=Budget(budget["settled"], budget["in_flight"], budget["planned"], budget["basis"]) if budget else None,
    )  # fmt: skip


def _tokens(told: dict[str, Any]) -> Tokens:
    many = told.get("counted_requests", 0)
    return Tokens(told["input"], _range(told["output"]), told["output_basis"], told["input_basis"], many)


def _range(told: dict[str, float]) -> Range:
    return Range(told["low"], told["expected"], told["high"])

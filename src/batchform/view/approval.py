"""What somebody approves by a digest, in words: what is asked, and how much of it at most."""

from __future__ import annotations

from batchform.canon import short
from batchform.plan.bounds import Envelope, SpecBound
from batchform.spec.wording import money


def approval_title(envelope: Envelope) -> str:
    """`You approve 1,300 rows for $4.20 at most, until 2026-12-01 09:00 UTC`."""
    until = envelope.expires_at[:16].replace("T", " ")
    return f"You approve {envelope.rows:,} rows for {money(envelope.usd)} at most, until {until} UTC"


def approval_lines(envelope: Envelope) -> list[str]:
    """A line for each spec of which anything may be done."""
    return [_bound(s) for s in envelope.specs if any(s.actions.values()) or s.after]


def approval_command(envelope: Envelope) -> str:
    """The command that applies it."""
    return f"batchform apply --approved {envelope.digest}{in_environment(envelope.environment)}"


def in_environment(name: str) -> str:
    """What a command needs that is to work in an environment."""
    return f" --env {name}" if name else ""


def _bound(spec: SpecBound) -> str:
    most = [f"{rows:,} to {action}" for action, rows in spec.actions.items() if rows]
    most += [f"{spec.after:,} known after apply"] if spec.after else []
    change = f", answered rows: {spec.change}" if spec.change else ""
    prompt, config = short(spec.digests.get("template", ""), 7), short(spec.digests.get("config", ""), 7)
    return (
        f"{spec.name}: prompt {prompt}, configuration {config}, {spec.model} on {spec.backend}{change}; "
        f"at most {', '.join(most)}, {money(spec.usd)}"
    )

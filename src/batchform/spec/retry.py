"""Which failed rows are sent again, how often, and with what changed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Final, Literal

from pydantic import Field, StringConstraints

from batchform.spec.fields import Strict
from batchform.spec.yaml_source import NodePath

FailureClass = Literal[
    "internal", "rate_limited", "expired", "cancelled", "job_failed", "missing", "truncated", "empty", "invalid_output",
    "blocked", "invalid_request",
]  # fmt: skip
OF_JOBS: Final = ("expired", "cancelled", "job_failed", "missing")
"""Failures that say nothing of the row: its job ended before it came to it."""

Factor = Annotated[str, StringConstraints(pattern=r"^x([2-9]|[1-9][0-9]|1\.[0-9]*[1-9]|[2-9]\.[0-9]+)$")]


class Change(Strict):
    """What the next attempt changes after a failure of this class; again for each such failure. The row's request stays
    what the files ask for: an answer to the changed one answers it."""

    model: str | None = Field(None, description="Another model; its rows go into jobs of their own.")
    max_output_tokens: int | Factor | None = Field(
        None, description="`x2`: so many times as many, for each failure, up to what the model takes; or a number."
    )
    temperature: float | None = Field(None, ge=0, le=2, description="As in generation_config.")
    seed: int | None = Field(None, description="As in generation_config.")
    thinking_level: Literal["minimal", "low", "medium", "high", "xhigh"] | None = Field(
        None, description="As in generation_config.thinking_config; takes the place of a budget."
    )
    thinking_budget: int | None = Field(
        None, ge=-1, description="As in generation_config.thinking_config; takes the place of a level."
    )


def _worth_another_attempt() -> list[FailureClass]:
    return ["internal", "rate_limited", "expired", "job_failed", "missing", "truncated", "invalid_output"]


class Retry(Strict):
    """Which failed rows are sent again, and how often."""

    max_attempts: int = Field(3, ge=1, le=20, description="Attempts per row and request, the first included.")
    on: list[FailureClass] | dict[FailureClass, Change | None] = Field(
        default_factory=_worth_another_attempt,
        description="Failure classes worth another attempt; as a mapping, with what that changes.",
    )

    @property
    def changes(self) -> dict[str, Change]:
        """What changes after a failure, by its class, in the order as written."""
        listed: Any = self.on if isinstance(self.on, dict) else {}
        return {name: change for name, change in listed.items() if change and change.model_fields_set}


def factor_of(value: object) -> float | None:
    """What `x2` multiplies by; None for what is no factor."""
    return float(value[1:]) if isinstance(value, str) else None


def check_changes(retry: Retry, config: Mapping[str, Any]) -> Iterator[tuple[NodePath, str, str]]:
    """Path within `retry.on`, message and hint of each change that means nothing. config: generationConfig of the
    spec's requests."""
    for name, change in retry.changes.items():
        if name in OF_JOBS:
            hint = f"Write `{name}:` without changes: the job ended before it came to the row."
            yield (name,), f"`{name}` says nothing of the request, so nothing of it can be changed", hint
        if change.thinking_level is not None and change.thinking_budget is not None:
            hint = "Gemini 3 takes thinking_level, Gemini 2.5 takes thinking_budget."
            yield (name, "thinking_budget"), "thinking_level and thinking_budget exclude each other", hint
        if factor_of(change.max_output_tokens) is not None and not isinstance(config.get("maxOutputTokens"), int):
            message = f"`{change.max_output_tokens}` multiplies max_output_tokens, and the spec sets none"
            hint = "Set generation_config.max_output_tokens, or give a number here."
            yield (name, "max_output_tokens"), message, hint
        if isinstance(change.max_output_tokens, int) and change.max_output_tokens < 1:
            yield (name, "max_output_tokens"), "`max_output_tokens` must be 1 or more, or a factor such as x2", ""

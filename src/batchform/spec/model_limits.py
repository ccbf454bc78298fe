"""What a plan must not pass: how much it may send, and what it may ask."""

from __future__ import annotations

from typing import Any, Final, Literal

from pydantic import Field

from batchform.spec.fields import Count, Strict

_LATER: Final = {"max_shrink_percent", "allowed_models", "required_labels", "min_model_days"}
"""Fields that are younger than the digests of specs: where they are not used, digests do not know of them."""


class Limits(Strict):
    """What a plan must not pass. No limit holds unless a file sets it. Budgets are judged in US dollars, and again
    when each job is about to be created."""

    max_usd: float | None = Field(
        None, ge=0, description="US dollars per day (UTC): what was spent today, what is in flight and what is planned."
    )
    max_usd_per_plan: float | None = Field(None, ge=0, description="US dollars that one plan may cost.")
    max_usd_per_month: float | None = Field(
        None, ge=0, description="As `max_usd`, with what was spent in this calendar month (UTC)."
    )
    max_usd_total: float | None = Field(None, ge=0, description="As `max_usd`, with all that was ever spent.")
    max_usd_basis: Literal["expected", "high"] = Field(
        "expected",
        description="What budgets count of jobs that are planned or in flight: their expected cost, which the bill can "
        "pass by as much as the estimate was wrong, or their upper estimate.",
    )
    max_rows: Count | None = Field(None, description="Rows sent by one plan.")
    max_changed_percent: float | None = Field(
        None, ge=0, le=100, description="Share of already answered rows that one plan sends again."
    )
    changed_floor: int = Field(
        20, ge=0, description="max_changed_percent holds only when more answered rows than this are sent again."
    )
    max_shrink_percent: float | None = Field(
        None,
        ge=0,
        le=100,
        description="Share of known rows that may leave the source; changed_floor holds for it, too.",
    )
    allowed_models: list[str] | None = Field(
        None, description="Models that rows may be sent to, as names or globs: gemini-3.5-flash*."
    )
    required_labels: list[str] = Field(default_factory=list, description="Labels that each spec must have.")
    min_model_days: int | None = Field(
        None, ge=0, description="Days that a model must still have until its shutdown when rows are sent to it."
    )

    def told(self) -> dict[str, Any]:
        """All that matters of them to a digest."""
        used = self.model_dump(mode="json", include=_LATER, exclude_defaults=True)
        return {**self.model_dump(mode="json", exclude=_LATER), **used}

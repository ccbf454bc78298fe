"""How far what somebody approves may lie around the plan that was read."""

from __future__ import annotations

from pydantic import Field

from batchform.spec.fields import Duration, Strict


class Approval(Strict):
    """What `apply --approved` accepts beyond the figures of the plan: rows move between a review and the merge."""

    valid: Duration = Field(7 * 86400.0, description="How long an approval holds after its plan was made.")
    percent: float = Field(10.0, ge=0, le=1000, description="So much more of a spec's rows and dollars, in percent.")
    rows: int = Field(0, ge=0, description="And so many more rows of each spec, at the price of its others.")

"""What becomes of answered rows when an edit of their spec changes what they would ask."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from batchform.spec.fields import Strict


class Canary(Strict):
    """A few answered rows are sent with the new prompt; the others are held until somebody has seen their answers."""

    canary: int = Field(ge=1, le=10_000, description="How many rows: the first ones by the hash of their key.")


PromptChange = Literal["rerun", "keep", "ask"] | Canary

"""What an answer about a passage holds."""

from typing import Literal

from pydantic import BaseModel, Field


class Source(BaseModel):
    """Where a statement stands."""

    sentence: int = Field(ge=1, description="Number of the sentence, from 1.")
    quote: str = Field(description="Its words, as they stand there.")


class Passage(BaseModel):
    """What a passage says."""

    subject: Literal["water", "sky", "food", "other"]
    statement: str = Field(description="What it says, in one sentence.")
    source: Source
    doubt: Source | None = Field(None, description="What speaks against it, if anything does.")

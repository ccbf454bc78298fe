"""Answers that were paid for elsewhere: result files of jobs that batchform did not send."""

from __future__ import annotations

from pydantic import Field

from batchform.spec.fields import Strict


class Import(Strict):
    """A file of results. A row takes the answer to the very request that it would send, and is not sent."""

    results: str | list[str] = Field(
        description="JSON lines of the Gemini API or of Vertex AI, here or at gs://: files, globs, or a list of them."
    )
    requests: str | list[str] | None = Field(
        None, description="The input that was sent, lines of `key` and `request`, for results that repeat no request."
    )

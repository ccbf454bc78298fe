"""Answers that were paid for elsewhere: results of jobs that batchform did not send, as files or at the service."""

from __future__ import annotations

from pydantic import Field

from batchform.spec.fields import Strict


class Import(Strict):
    """Results of a job. A row takes the answer to the very request that it would send, and is not sent."""

    results: str | list[str] | None = Field(
        None, description="JSON lines of the Gemini API or of Vertex AI, here or at gs://: files, globs, or a list."
    )
    job: str | list[str] | None = Field(
        None, description="Instead of files, the name of an ended job that the spec's backend has, or a list of names."
    )
    requests: str | list[str] | None = Field(
        None, description="The input that was sent, lines of `key` and `request`, for results that repeat no request."
    )

    @property
    def jobs(self) -> tuple[str, ...]:
        """Names of jobs at the service, in the order as written."""
        return () if self.job is None else (self.job,) if isinstance(self.job, str) else tuple(self.job)

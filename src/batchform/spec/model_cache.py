"""Context caching, as a user writes it: what all rows of a spec share is kept by the service, and named by requests."""

from __future__ import annotations

from pydantic import Field

from batchform.spec.fields import Duration, Strict


class Cache(Strict):
    """Keep what all rows begin with at the Gemini API, for a lower price of each request and a price by the hour: the
    system instruction, tools, and turns that read no column. Never part of the request: switching it on sends nothing.
    """

    system: bool = Field(
        default=True,
        description="The system instruction and tools are cached. A request that names a cache cannot have its own, so "
        "false is for specs that have neither.",
    )
    attachments: list[str] = Field(
        default_factory=list,
        description="Entries of `prompt.attachments`, as they are written there, that are the same for all rows and "
        "come first: a manual, a price list.",
    )
    ttl: Duration | None = Field(
        None,
        gt=0,
        description="How long it is kept after the last job that was sent with it, for later runs; not less than a job "
        "may take. Default: until no open job names it.",
    )

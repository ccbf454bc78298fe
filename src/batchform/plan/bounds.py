"""What somebody approves in place of exact bytes: an envelope around a plan, which a later plan must stay inside."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct, field


class SpecBound(Struct, frozen=True):
    """What is approved of one spec.

    digests: of the spec and of its parts: spec, template, config, schema, parse; change: what becomes of answered rows
    that an edit concerns, "" where there were none; said: the same, if the command line decided it; actions: "run",
    "rerun", "remove" → rows at most; rows, usd: rows sent and dollars at most, those that are known after apply among
    them; after: how many those may be.
    """

    name: str
    model: str
    backend: str
    realm: str
    digests: Mapping[str, str]
    change: str
    said: str
    actions: Mapping[str, int]
    rows: int
    usd: float
    after: int = 0


class Envelope(Struct, frozen=True):
    """digest: of all the rest, what is approved by; plan_digest: of the plan that it was made from; rows, usd: of all
    specs together; allowed: limits that are released, `SCOPE.NAME`, and the reason; created_at, expires_at: RFC 3339,
    UTC."""

    digest: str
    plan_digest: str
    project: str
    environment: str
    lineage: str
    created_at: str
    expires_at: str
    specs: tuple[SpecBound, ...]
    rows: int
    usd: float
    partial: bool
    allowed: tuple[str, ...] = ()
    reason: str = ""


class Spare(Struct, frozen=True):
    """How far an envelope lies around its plan. valid: seconds; percent: of rows and dollars; rows: beside that."""

    valid: float = 7 * 86400.0
    percent: float = 10.0
    rows: int = 0


class Used(Struct, frozen=True):
    """What was done under an envelope before: spec → (rows, US dollars) that were sent; removed: spec → rows."""

    by_spec: Mapping[str, tuple[int, float]] = field(default_factory=dict)
    removed: Mapping[str, int] = field(default_factory=dict)

    def of(self, name: str) -> tuple[int, float]:
        return self.by_spec.get(name, (0, 0.0))

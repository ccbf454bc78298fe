"""What the candidates of a spec came to once they were rendered: counts, bytes, and rows that may be shown."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct, field

from batchform.errors import Diagnostic
from batchform.plan.changes import Decision, Edited
from batchform.plan.model import Action, Reason
from batchform.spec.wording import counted

if TYPE_CHECKING:
    from batchform.plan.staging import Rollout


class Preview(Struct):
    """A row that may be shown: what it is and what it would send."""

    key: str
    key_hex: str
    action: Action
    reason: Reason
    request: bytes
    changed: tuple[str, ...]
    tag: str | None = None  # job that carried the row's earlier request


class Counted(Struct, frozen=True):
    """Requests that the service counted. of: how many there are in all; size: bytes of the counted ones; spread: how
    far off the sum of all may be, as a share of it, at 95 %."""

    requests: int
    of: int
    tokens: int
    size: int
    spread: float = 0.0

    @property
    def words(self) -> str:
        if self.requests == self.of:
            return f"counted by the service in {'all ' if self.of > 1 else ''}{counted(self.of, 'request')}"
        share = f"{self.spread * 100:.1f}"
        return f"counted by the service in {self.requests:,} of {self.of:,} requests, give or take {share} %"


class Rendered(Struct):
    """What the candidates came to."""

    actions: dict[Action, int] = field(default_factory=dict)
    reasons: dict[Reason, int] = field(default_factory=dict)
    held: dict[str, int] = field(default_factory=dict)
    resent: int = 0  # paying rows that already have an answer
    request_bytes: int = 0
    fixed_bytes: int = 0  # of each request, those that no row's text is part of
    shortest: Preview | None = None
    longest: Preview | None = None
    chosen: Preview | None = None
    waiting: int = 0  # rows that another row's request will answer
    notes: list[str] = field(default_factory=list)  # on what is resumed, and what is not
    edited: Edited = field(default_factory=lambda: Edited(Decision("rerun")))
    counted: Counted | None = None  # by the service, where that was asked for
    rollout: Rollout | None = None  # with the rows that it held
    complaints: list[Diagnostic] = field(default_factory=list)  # about single rows

    def count(self, action: Action, reason: Reason | None) -> None:
        self.actions[action] = self.actions.get(action, 0) + 1
        if reason is not None:
            self.reasons[reason] = self.reasons.get(reason, 0) + 1

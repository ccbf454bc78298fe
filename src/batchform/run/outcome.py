"""What a run did, and the exit code that it says."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from msgspec import Struct, field

from batchform.errors import (
    BackendError,
    BatchformError,
    Interrupted,
    LimitExceeded,
    RowsFailed,
    StalePlan,
    StillRunning,
    UnknownSubmissions,
)
from batchform.plan.stages import what_to_do
from batchform.ports import Delivered
from batchform.run.answers import UNREAD
from batchform.run.budget import Refused, not_sent
from batchform.spec.wording import counted


class Left(Struct, frozen=True):
    """Rows that a sync saw and left alone: those that failed for good, and those that only an apply goes on with."""

    failed: int = 0
    for_apply: int = 0


class Outcome(Struct):
    """What a run did.

    created, adopted, unknown: tags; rows: spec → class → rows, of the jobs collected in this run; failures: likewise,
    of those rows that are failed at its end, not those sent again; reread: of archived answers that were parsed anew;
    running: jobs that go on; not_sent: shards that were not sent for want of room, or because the run was stopped;
    refused: rows that limits held when they were about to be sent; grown: chains that would send more than was
    approved, in words; gates: those of rollouts that failed, in words; reopened: jobs that were given up on and are
    there after all; unseen: tag → why, of jobs that could not be asked for; stopped: what ended the sending; left: what
    sync saw and left alone, None if it did not come to that.
    """

    created: list[str] = field(default_factory=list)
    adopted: list[str] = field(default_factory=list)
    returned: list[str] = field(default_factory=list)
    collected: list[str] = field(default_factory=list)
    rows: dict[str, Counter[str]] = field(default_factory=dict)
    failures: dict[str, Counter[str]] = field(default_factory=dict)
    reread: dict[str, Counter[str]] = field(default_factory=dict)
    usd: float = 0.0
    delivered: dict[str, Delivered] = field(default_factory=dict)
    running: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    reopened: list[str] = field(default_factory=list)
    unseen: dict[str, str] = field(default_factory=dict)
    not_sent: int = 0
    stopped: BatchformError | None = None
    refused: list[Refused] = field(default_factory=list)
    grown: list[str] = field(default_factory=list)
    gates: list[str] = field(default_factory=list)
    left: Left | None = None
    interrupted: bool = False

    @property
    def answered(self) -> int:
        return sum(classes["answered"] for classes in self.rows.values())

    @property
    def failed(self) -> int:
        return sum(sum(classes.values()) - classes["answered"] - classes[UNREAD] for classes in self.rows.values())

    def error(self, tolerated: Mapping[str, float], *, detached: bool = False) -> BatchformError | None:
        """What the exit code says: interrupted, stopped, unknown, held by a limit, unseen, still running (unless
        detached), failed rows; None if well.

        tolerated: spec → share of failed rows that is not an error.
        """
        waiting = f", {counted(self.not_sent, 'shard')} not sent yet" if self.not_sent else ""
        if self.interrupted:
            return Interrupted(
                f"Stopped. Everything is recorded; {counted(len(self.running), 'job')} at work{waiting}.",
                hint="Come back with: batchform sync --wait"
                + ("; send the rest with: batchform apply" if waiting else ""),
            )
        if self.stopped is not None:
            return self.stopped
        if self.unknown:
            return UnknownSubmissions(
                f"Whether {counted(len(self.unknown), 'job')} came to be is unknown: {', '.join(self.unknown[:5])}.",
                hint="Nothing is sent twice. Run `batchform sync` later: it looks for them. `batchform status` says "
                "when this settles, and how to settle it by hand.",
            )
        if self.refused:
            return not_sent(self.refused)
        if self.grown:
            return StalePlan("; ".join(self.grown), hint="Nothing of it was sent. Review it: batchform plan")
        if self.gates:
            return LimitExceeded("; ".join(self.gates), hint=what_to_do())
        if self.unseen:
            return BackendError(
                "; ".join(list(self.unseen.values())[:3]) + ("; …" if len(self.unseen) > 3 else "") + ".",
                hint="No row of theirs was changed. Run `batchform sync` with the credential and backend that made "
                "them; if those are gone for good, give a job up with: batchform jobs abandon TAG",
            )
        if (self.running or self.not_sent) and not detached:
            return StillRunning(
                f"{counted(len(self.running), 'job')} still running{waiting}.",
                hint="Come back with: batchform sync --wait",
            )
        return self._failed_rows(tolerated)

    def _failed_rows(self, tolerated: Mapping[str, float]) -> BatchformError | None:
        above = []
        for spec in dict.fromkeys((*self.rows, *self.reread)):
            reread = self.reread.get(spec, Counter())
            answered = self.rows.get(spec, Counter())["answered"] + reread["answered"]
            failures = self.failures.get(spec, Counter()) + reread
            del failures["answered"]
            failed = failures.total()
            total = failed + answered
            if failed and failed / total > tolerated.get(spec, 0.0):
                why = ", ".join(f"{n} {name}" for name, n in failures.most_common())
                above.append(f"{failed} of {total} rows of {spec} failed ({why})")
        if not above:
            return None
        return RowsFailed(
            "; ".join(above) + ".", hint="Run `batchform plan`: it shows which are sent again, and for how much."
        )

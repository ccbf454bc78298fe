"""What a run works with: project, ledger, backends, clock, and someone to tell. Built once, by cli/wiring."""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Final, Protocol, TypeVar

from msgspec import Struct, field

from batchform.errors import AuthError, BackendError, BatchformError, LedgerMoved
from batchform.ledger.records import AnyEvent, Collected, Intent, JobRecord, StateSeen
from batchform.ledger.segments import timestamp
from batchform.ledger.store import Ledger, RowsFile
from batchform.plan.model import Shard
from batchform.plan.price import Rates
from batchform.ports import Backend, Clock, Delivered, RemoteJob
from batchform.spec.model import Backend as BackendSettings
from batchform.spec.resolved import ResolvedProject, ResolvedSpec
from batchform.spec.wording import counted

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection


class Progress(Protocol):
    """Who is told while a run goes on. Calls come from one thread, after the fact is recorded."""

    def staged(self, spec: str, shard: Shard) -> None:
        """A shard's input is uploaded; its job is about to be created."""
        ...

    def submitted(self, record: JobRecord, how: str) -> None:
        """A job exists. how: "created" or "adopted"."""
        ...

    def state(self, record: JobRecord, remote: RemoteJob) -> None:
        """A job was looked at; its state or counts may be new."""
        ...

    def collected(self, record: JobRecord, collected: Collected) -> None:
        """A job's results are archived, parsed and recorded."""
        ...

    def delivered(self, spec: str, delivered: Delivered) -> None:
        """A destination was written."""
        ...

    def note(self, message: str) -> None:
        """Something a person should know, that stops nothing."""
        ...


class Backends:
    """Backends by name, each opened once. `open_backend` is the only place that picks an adapter."""

    def __init__(self, open_backend: Callable[[str], Backend]) -> None:
        self._open = open_backend
        self._opened: dict[str, Backend] = {}

    def __call__(self, name: str) -> Backend:
        if name not in self._opened:
            self._opened[name] = self._open(name)
        return self._opened[name]

    def of(self, intent: Intent) -> Backend:
        """The backend that an intent's job is at, in the place where it was sent."""
        return self(intent.backend).at(intent.place)

    def close(self) -> None:
        """Close all that were opened."""
        while self._opened:
            self._opened.popitem()[1].close()


class RunContext(Struct, frozen=True):
    """connect: a fresh DuckDB connection; rates: model, backend → prices of its batch answers, None if unknown;
    deliver: writes what is new to a spec's destination, None if nothing is; work_dir: for files that live as long as
    the run; told: what was noted once and for all; fetched: the file on this machine with what an address held when it
    was planned, by its digest."""

    project: ResolvedProject
    ledger: Ledger
    backends: Backends
    connect: Callable[[], DuckDBPyConnection]
    rates: Callable[[str, str], Rates | None]
    deliver: Callable[[RunContext, ResolvedSpec], Delivered | None]
    clock: Clock
    who: str
    work_dir: Path
    progress: Progress
    rng: Random = field(default_factory=Random)
    told: set[str] = field(default_factory=set)
    fetched: Callable[[str, str], Path] | None = None

    def tell_once(self, message: str) -> None:
        """A note that is not repeated when the same is found again in the same run."""
        if message not in self.told:
            self.told.add(message)
            self.progress.note(message)

    def spec(self, name: str) -> ResolvedSpec | None:
        """A spec of the project; None if it is gone since its job was created."""
        return next((s for s in self.project.specs if s.name == name), None)

    def task(self, name: str) -> str:
        """What a spec makes of each row."""
        spec = self.spec(name)
        return spec.task if spec else "generate"

    def edit(self, name: str) -> str:
        """What rows of a spec are asked with now, as a digest; "" if the spec is gone."""
        from batchform.plan.rollout import edit_of

        spec = self.spec(name)
        return edit_of(spec) if spec else ""

    def backend(self, name: str) -> Backend:
        """The backend of this name, opened once per run."""
        return self.backends(name)

    def backend_of(self, intent: Intent) -> Backend:
        """The backend of an intent's job, in the place where it was sent, whatever the project says now."""
        return self.backends.of(intent)

    def settings(self, name: str) -> BackendSettings:
        """What the project says about a backend."""
        found = self.project.config.backends.get(name)
        for spec in self.project.specs:
            found = found or (spec.backend if spec.backend_name == name else None)
        if found is None:
            raise BatchformError(
                f"Backend {name!r} has jobs in the ledger but is not in {self.project.file.name}.",
                hint="Put it back until its jobs are collected.",
            )
        return found

    def now(self) -> str:
        """The time as the ledger writes it."""
        return timestamp(self.clock.now())


def parse_stamp(text: str) -> datetime:
    """A time that the ledger wrote."""
    return datetime.fromisoformat(text)


def open_jobs(ctx: RunContext) -> list[JobRecord]:
    """Jobs that exist at a service and are not collected."""
    return [r for r in ctx.ledger.control().jobs.values() if r.status == "submitted" and r.job]


def open_intents(ctx: RunContext) -> list[JobRecord]:
    """Intents of which it is not known whether a job came of them."""
    return [r for r in ctx.ledger.control().jobs.values() if r.status == "intent"]


PASSING: Final = frozenset({0, 408, 429, 500, 502, 503, 504})
"""Statuses of a failed call that may come through when it is made again; 0: no answer."""
STILL_LOOKED_FOR: Final = timedelta(days=14)
"""How long a job that was given up on is asked for: a late answer is an answer."""
_CALLS: Final = 4
_COMMIT_ATTEMPTS: Final = 20
_Answer = TypeVar("_Answer")
_Event = TypeVar("_Event", bound=AnyEvent)


def call_again(
    ctx: RunContext,
    call: Callable[[], _Answer],
    *,
    while_: Container[int] = PASSING,
    told: Callable[[BackendError], str] | None = None,
) -> _Answer:
    """The answer of a call that does no harm twice: up to four times, with growing waits or those that the service
    asks for, while it fails with one of these statuses. told: the note about a failure. Raises the last failure."""
    for attempt in range(1, _CALLS):
        try:
            return call()
        except BackendError as error:
            if error.status not in while_ or isinstance(error, AuthError):
                raise
            if told:
                ctx.progress.note(told(error))
            ctx.clock.sleep(max(error.retry_after or 0.0, 2.0**attempt))
    return call()


Decide = Callable[[], tuple[Sequence[AnyEvent], Sequence[RowsFile]] | None]
"""What is to be recorded, by the ledger as it is now; None if there is nothing, or no longer."""


def commit_decided(
    ctx: RunContext,
    decide: Callable[[], tuple[_Event, Sequence[RowsFile]] | None],
    *,
    what: str,
    hint: str,
) -> _Event | None:
    """Commit what `decide` makes of the ledger on top of that very ledger; it decides again when another was faster.

    Returns the event; None if there was nothing to record, or is no longer. Raises LedgerMoved, saying `what` was not
    recorded, if others are faster every time.
    """
    decided: tuple[_Event, Sequence[RowsFile]] | None = None

    def one() -> tuple[Sequence[AnyEvent], Sequence[RowsFile]] | None:
        nonlocal decided
        decided = decide()
        return None if decided is None else ((decided[0],), decided[1])

    commit_together(ctx, [one], what=what, hint=hint)
    return None if decided is None else decided[0]


def commit_together(ctx: RunContext, decisions: Sequence[Decide], *, what: str, hint: str) -> list[bool]:
    """Commit several decisions as one, each made on the ledger with those before it, as if they came one by one.

    When another writer was faster, all are made again. Two that change the same row are committed one after the other.
    Returns which had something to record. Raises LedgerMoved, saying `what` was not recorded, if others are faster
    every time, and what a decision raises; nothing of its commit is recorded then.
    """
    made: list[bool] = []
    attempts = 0
    while len(made) < len(decisions):
        fresh: list[bool] = []
        try:
            with ctx.ledger.joined(ctx.work_dir) as pending:
                for decide in decisions[len(made) :]:
                    decided = decide()
                    if decided is not None and pending.holds_rows_of(decided[1], ctx.connect):
                        break  # it is decided on again when those before it are recorded
                    if decided is not None:
                        pending.add(*decided)
                    fresh.append(decided is not None)
        except LedgerMoved:
            attempts += 1
            if attempts == _COMMIT_ATTEMPTS:
                raise LedgerMoved(f"{ctx.ledger.place} is too busy to record {what}.", hint=hint) from None
            ctx.ledger.refresh()
        else:
            made += fresh
    return made


NOT_FOUND: Final = "NOT_FOUND"
RESULTS_NOT_FOUND: Final = "RESULTS_NOT_FOUND"
"""States of our own, recorded while the service says that it has no such job, or none of its results."""


def missing_for_long(ctx: RunContext, record: JobRecord, state: str, said: str) -> bool:
    """Whether what the service does not find has been missing for a whole settle window. The first time is recorded:
    one answer, or the first minutes, prove nothing."""
    if record.state == state and record.state_at is not None:
        settle = timedelta(seconds=ctx.settings(record.intent.backend).settle)
        return ctx.clock.now() > parse_stamp(record.state_at) + settle
    ctx.ledger.commit([StateSeen(at=ctx.now(), by=ctx.who, tag=record.tag, state=state, error=said)])
    return False


def results_may_come(ctx: RunContext, record: JobRecord, remote: RemoteJob) -> bool:
    """Whether it is too early to call results missing that a job which ended should have: they have the settle window
    after its end, and a second look."""
    if record.state != remote.state or record.state_at is None:
        return True
    settle = timedelta(seconds=ctx.settings(record.intent.backend).settle)
    return ctx.clock.now() <= (remote.ended_at or parse_stamp(record.state_at)) + settle


def state_seen(ctx: RunContext, record: JobRecord, remote: RemoteJob) -> list[StateSeen]:
    """The event of a state that the ledger does not have yet; none if it has."""
    if remote.state == record.state and remote.error == record.error:
        return []
    return [
        StateSeen(
            at=ctx.now(),
            by=ctx.who,
            tag=record.tag,
            state=remote.state,
            error=remote.error,
            counts=dict(remote.counts),
            ended_at=timestamp(remote.ended_at) if remote.ended_at else None,
        )
    ]


def described(intent: Intent) -> str:
    """A job in words, for messages."""
    return f"{intent.tag} ({counted(intent.rows, 'row')} of {intent.spec})"

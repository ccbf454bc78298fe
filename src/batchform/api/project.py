"""`Project`: the commands as methods. Each runs what the command of its name runs, and returns values."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from io import StringIO
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

from batchform.api.results import Results
from batchform.api.values import Outcome, Plan, Status, Validation, outcome_value, plan_value
from batchform.errors import BatchformError, UsageError, disk_full, no_room
from batchform.spec.load import find_project

if TYPE_CHECKING:
    from batchform.cli.looking import Answers
    from batchform.cli.wiring import Session
    from batchform.plan.model import Plan as PlanModel
    from batchform.view.progress import LineProgress

Said = Callable[[str], object]
"""Takes one line of progress: `print`, or a logger's `info`."""
Ways = Mapping[str, str]
"""Spec → `rerun`, `keep` or `canary:N`: what becomes of answered rows after an edit."""
Selection = str | Sequence[str]
"""Specs by name, glob or `tag:NAME`; empty for all."""


class Project:
    """A folder with `batchform.yaml`.

    Nothing stays open between calls: each reads the project's files anew, so edits count at once, and any number of
    projects live in one process. Calls block, and may come from any thread; of one ledger one at a time sends. Errors
    are the classes of `batchform.errors`; nothing is printed.
    """

    def __init__(self, path: str | PathLike[str] = ".", *, env: str | None = None) -> None:
        """path: the project's folder, or one inside it; env: one of its environments. Raises UsageError if there is no
        project."""
        self.file = find_project(Path(path))
        self.env = env

    @property
    def root(self) -> Path:
        """The project's folder."""
        return self.file.parent

    def __repr__(self) -> str:
        return f"Project({str(self.root)!r}{f', env={self.env!r}' if self.env else ''})"

    def validate(self, *, sample: int | None = None) -> Validation:
        """Check all files, and offline the rows that would be sent. sample: render only so many rows of each spec.

        Raises InvalidProject with all complaints.
        """
        from batchform.cli.judging import judge_project

        unchecked: dict[str, str] = {}
        with self._session() as session:
            judged = judge_project(session, sample=sample, unchecked=unchecked.__setitem__)
        return Validation(judged.specs, judged.warnings, unchecked)

    def plan(
        self,
        select: Selection = (),
        *,
        allow: Selection = (),
        reason: str = "",
        on_change: Ways | None = None,
        count: int = 0,
        out: str | PathLike[str] | None = None,
    ) -> Plan:
        """What would be sent, why, and for how much. Reads only. A plan that a limit holds is returned, not raised.

        allow: limits to release, such as `max_usd`; reason: why, recorded when it is applied; on_change: what becomes
        of answered rows after an edit; count: requests of each spec whose input tokens the service counts, 20 to
        10,000; out: a folder or gs:// that takes the exact bytes to send, so that `apply` sends
        those.
        """
        from batchform.cli.plans import asked_of, make_plan, plan_into

        with self._session() as session:
            session.count = _count(count)
            specs = session.select(_several(select))
            asked = asked_of(specs, _allowed(allow, reason), _ways(on_change), reason=reason.strip())
            if out is None:
                return plan_value(make_plan(session, specs, asked=asked))
            place = str(out)
            saved = place if "://" in place else str(Path(place).absolute())
            return plan_value(plan_into(session, specs, saved, asked), saved=saved)

    def apply(
        self,
        plan: Plan | str | PathLike[str] | None = None,
        *,
        select: Selection = (),
        allow: Selection = (),
        reason: str = "",
        on_change: Ways | None = None,
        count: int = 0,
        approved: str | PathLike[str] | None = None,
        approver: str = "",
        detach: bool = False,
        check: bool = True,
        progress: Said | None = None,
    ) -> Outcome:
        """Plan and send, or send exactly a saved plan; wait for the jobs, collect and deliver. Nobody is asked: limits,
        a saved plan, or what was approved say what may be spent.

        approved: plan anew, and send only inside what somebody approved: its digest, or the file or folder of the plan;
        approver: who, recorded. count: as in `plan`. detach: return once the jobs are created. check: raise what the
        exit code says (RowsFailed, StillRunning, …) instead of returning it as `outcome.error`. Raises LimitExceeded
        and StalePlan, with nothing sent.
        """
        from batchform.cli.applying import apply_project, error_of
        from batchform.cli.options import Reviewed
        from batchform.cli.wiring import RUNNING_MEMORY

        if approver and approved is None:
            raise UsageError("approver says who approved it", hint="Say what as well: approved=DIGEST.")
        saved = _saved(plan)
        if saved and count:
            raise UsageError("a saved plan says its tokens already", hint="Count when it is made: plan(count=200).")
        with self._session(memory=RUNNING_MEMORY, saved=saved) as session:
            session.count = _count(count)
            done = apply_project(
                session,
                _Quiet(progress),
                saved=saved,
                reviewed=None if approved is None else Reviewed(str(approved), approver=approver),
                select=_several(select),
                allow=_allowed(allow, reason),
                reason=reason.strip(),
                on_change=_ways(on_change),
                detach=detach,
            )
            error = error_of(session, done.outcome, detached=detach)
            outcome = outcome_value(done.outcome, error, held=done.held, plan=done.plan)
        return _checked(outcome, check=check)

    def sync(
        self,
        select: Selection = (),
        *,
        wait: bool = False,
        at_most: float | None = None,
        check: bool = True,
        progress: Said | None = None,
    ) -> Outcome:
        """Bring what was applied a step further: recover, look at jobs, collect, retry, deliver.

        wait: go on until no job is open; at_most: for so many seconds. check: as in `apply`. A job that still runs is
        no error unless it was waited for.
        """
        from batchform.cli.applying import error_of, sync_project
        from batchform.cli.wiring import RUNNING_MEMORY

        if at_most is not None and not wait:
            raise UsageError("at_most says how long to wait", hint="Add wait=True.")
        with self._session(memory=RUNNING_MEMORY) as session:
            done = sync_project(session, _Quiet(progress), select=_several(select), wait=wait, at_most=at_most)
            outcome = outcome_value(done, error_of(session, done, detached=not wait))
        return _checked(outcome, check=check)

    def status(self, select: Selection = (), *, settled: bool = False) -> Status:
        """Rows, jobs, spend and budgets as the ledger knows them; asks no service. settled: with the jobs that are."""
        from batchform.cli.looking import status_of

        with self._session() as session:
            return status_of(session, session.select(_several(select)), settled, whole=not select)

    def results(self, spec: str, *, keys: Sequence[str] = ()) -> Results:
        """A spec's answers, or those of some keys. Raises UsageError if there is no such spec, or none was sent."""

        @contextmanager
        def read() -> Iterator[Answers]:
            from batchform.cli.looking import answers

            with self._session() as session, answers(session, session.spec(spec), _several(keys)) as found:
                yield found

        with read():  # says now what is wrong
            return Results(spec, read)

    def report(self, out: str | PathLike[str], *, select: Selection = (), samples: int = 3) -> Path:
        """Write the report page into a folder. samples: rows shown of each spec that says `preview: public`. Returns
        the file."""
        from batchform.cli.reporting import write_report

        with self._session() as session:
            return write_report(session, str(out), select=_several(select), samples=samples)

    @contextmanager
    def _session(self, *, memory: str = "", saved: str | None = None) -> Iterator[Session]:
        from batchform.cli.options import Common
        from batchform.cli.wiring import READING_MEMORY, open_session

        common = Common(str(self.root), self.env, as_json=False, quiet=True)
        try:
            with open_session(common, memory=memory or READING_MEMORY, saved=saved) as session:
                yield session
        except BatchformError:
            raise
        except Exception as exc:
            if no_room(exc):
                raise disk_full(exc) from exc
            raise


class _Quiet:
    """Who runs a method: agrees to what limits let pass, and hears of it only where it said so."""

    def __init__(self, said: Said | None) -> None:
        self._said = said

    def progress(self) -> LineProgress:
        from batchform.view.progress import LineProgress

        return LineProgress(_Lines(self._said))

    def planned(self, plan: PlanModel, *, moved: str) -> None:  # noqa: ARG002
        if moved and self._said:
            self._said(moved)

    def agree(self, plan: PlanModel) -> None:  # noqa: ARG002
        return None


class _Lines(StringIO):
    """A stream that hands each line on."""

    def __init__(self, said: Said | None) -> None:
        super().__init__()
        self._said = said

    def write(self, text: str) -> int:
        if self._said and (line := text.rstrip("\n")):
            self._said(line)
        return len(text)


def _several(names: Selection) -> Sequence[str]:
    return (names,) if isinstance(names, str) else tuple(names)


def _allowed(allow: Selection, reason: str) -> Sequence[str]:
    """Raises UsageError for limits that are released without a word."""
    if allow and not reason.strip():
        raise UsageError("allow releases a limit, and needs a reason", hint='It is recorded in the ledger: reason="…".')
    return _several(allow)


def _count(count: int) -> int:
    from batchform.plan.sample_sizes import MIN_COUNTED, MOST_COUNTED

    if count and not MIN_COUNTED <= count <= MOST_COUNTED:
        hint = f"Say how many requests of each spec: {MIN_COUNTED} to {MOST_COUNTED:,}; 0 for none."
        raise UsageError(f"count={count} is not a number of requests to count", hint=hint)
    return count


def _ways(on_change: Ways | None) -> Sequence[str]:
    return [f"{spec}={way}" for spec, way in (on_change or {}).items()]


def _saved(plan: Plan | str | PathLike[str] | None) -> str | None:
    """Where a plan is saved. Raises UsageError for one that is not."""
    if not isinstance(plan, Plan):
        return None if plan is None else str(plan)
    if plan.saved is None:
        raise UsageError(
            "this plan is not saved, so what it would send is gone",
            hint="Save it with plan(out=DIR), or apply() without it: it plans anew.",
        )
    return plan.saved


def _checked(outcome: Outcome, *, check: bool) -> Outcome:
    if check and outcome.error:
        raise outcome.error
    return outcome

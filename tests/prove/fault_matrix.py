"""The fault matrix: every kind of fault at every call of a run with several shards, and pairs over one submission.

    python tests/prove/fault_matrix.py [--every N] [--group TEXT] [--only TEXT] [--full] [--lanes N] [--report FILE]

Each schedule: a project and a service set back to the start, the command with its faults, what its messages tell a user
to do, and the laws. Prints counts by base; the exit code is 1 when a law was broken.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import shutil
import sys
import time
import traceback
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from crash_laws import Facts
from crash_matrix import work_folder
from crash_world import Ran, warm_up
from fault_laws import judge, judge_limit, undisturbed
from fault_schedules import (
    APPLY,
    BASES,
    CERTAIN,
    HOUR,
    ONE,
    ONE_ON_VERTEX,
    SYNC,
    Base,
    Schedule,
    beyond_the_window,
    lagging,
    outages,
    pairs,
    pairs_of_recovery,
    results_gone,
    singles,
    slow_calls,
)  # fmt: skip
from fault_world import SETTLE, World

from batchform.emulator.faults import catalogue

ROUNDS: Final = 10
LIMIT: Final = "list lag beyond the window"
_BY_CALL: Final = ("outages", "slow calls", "results gone")
UNKNOWN: Final = 8
AGAIN: Final = "the next run tries again"  # what is told of an input that could not be deleted
LOG: Final[dict[str, Any]] = {"call": "*", "times": "all", "do": {"type": "slow", "seconds": 0}}
"""A fault that does nothing: the log of what fired is then a log of all calls."""


@dataclass(frozen=True)
class Outcome:
    """What a schedule came to. group: it belongs to; state: fired, or idle when not all of its faults found a call;
    ended: how the user got through: the exit codes of the commands; failure: the law that was broken."""

    group: str
    name: str
    state: str
    ended: str
    seconds: float
    failure: str = ""


class Matrix:
    """One process's world, with its prepared projects."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._world = World(folder / "world")
        self._world.__enter__()
        self._expected: dict[tuple[str, int, str, bool], Facts] = {}

    def close(self) -> None:
        self._world.__exit__()

    # --- undisturbed runs --------------------------------------------------------------------------------------------

    def calls(self, base: Base) -> Counter[str]:
        """How often the run of a base makes each of the calls that faults are to happen to."""
        from fnmatch import fnmatchcase

        world = self._world
        self._begin(base, {})
        world.server.set_faults([*base.faults, LOG])
        self._follow(base)
        made = Counter(f.call for f in world.server.fired() if f.fault == len(base.faults))
        return Counter({call: n for call, n in made.items() if any(fnmatchcase(call, glob) for glob in base.calls)})

    def expected(self, base: Base) -> Facts:
        """What a run without any fault comes to."""
        wanted = base.submit, base.shards, base.cloud, base.anew
        if wanted not in self._expected:
            self._world.reset(submit=base.submit, shards=base.shards, cloud=base.cloud)
            if base.anew:
                self._prepare(base)
            ran = self._world.run(APPLY)
            assert ran.code == 0, ran.err
            self._expected[wanted] = undisturbed(self._world)
        return self._expected[wanted]

    # --- a schedule --------------------------------------------------------------------------------------------------

    def run(self, group: str, schedule: Schedule) -> Outcome:
        """Carry out a schedule and judge it."""
        began, world, failure, state, said = time.monotonic(), self._world, "", "fired", list[Ran]()
        try:
            expected = self.expected(schedule.base)
            self._begin(schedule.base, schedule.backend)
            world.server.set_faults(schedule.every_fault)
            said = self._follow(schedule.base)
            if group.startswith(LIMIT):
                said += self._later()
            state = self._fired(schedule)
            world.server.set_faults([f for f in schedule.faults if f.get("times") == "all"])
            (judge_limit if group.startswith(LIMIT) else judge)(world, schedule, said, expected)
        except Exception as error:  # noqa: BLE001  (whatever it is, it is a finding about this schedule)
            failure = _told(error, said)
        ended = " ".join(str(ran.code) for ran in said)
        return Outcome(group, schedule.name, state, ended, time.monotonic() - began, failure)

    def _begin(self, base: Base, backend: dict[str, Any]) -> None:
        """The project as it is before the command."""
        if not base.before or backend:
            self._world.reset(submit=base.submit, shards=base.shards, cloud=base.cloud, **backend)
            self._prepare(base)
            return
        template = self._folder / base.name
        if not template.exists():
            self._world.reset(submit=base.submit, shards=base.shards, cloud=base.cloud)
            self._prepare(base)
            self._world.store(template)
        self._world.restore(template)

    def _prepare(self, base: Base) -> None:
        for command in base.before:
            ran = self._world.run(command)
            assert ran.code == 0, ran.err
        if base.anew:
            self._world.read_otherwise()

    def _follow(self, base: Base) -> list[Ran]:
        """The command, and what its messages tell a user to do, until apply has nothing left to do.

        Who is told that it is unknown whether a job came to be asks again soon, and several times before it settles.
        """
        said = [self._world.run(base.command)]
        for _ in range(ROUNDS):
            if said[-1].code == 0 and AGAIN not in said[-1].err:
                return said
            self._world.pass_time(SETTLE / 3 if said[-1].code == UNKNOWN else 2 * SETTLE)
            said.append(self._world.run(SYNC))
            if said[-1].code != UNKNOWN:
                said.append(self._world.run(APPLY))
        raise AssertionError(f"still not done after {ROUNDS} rounds: {said[-1].err[-2000:]}")

    def _later(self) -> list[Ran]:
        """What cron does in the hours that follow."""
        said = []
        for _ in range(3):
            self._world.pass_time(3 * HOUR)
            said.append(self._world.run(SYNC))
        return said

    def _fired(self, schedule: Schedule) -> str:
        """Whether all faults happened. Those that take any call must have, when they are alone."""
        happened = {f.fault for f in self._world.server.fired()}
        missed = [f for i, f in enumerate(schedule.every_fault) if i not in happened]
        if missed and len(schedule.faults) == 1 and missed[0]["do"]["type"] in CERTAIN:
            raise AssertionError(f"it did not happen: {missed}")
        return "idle" if missed else "fired"


def _told(error: Exception, said: list[Ran]) -> str:
    """The law that was broken, or where it went wrong, and what the first command said last."""
    law = str(error) if isinstance(error, AssertionError) else "".join(traceback.format_exception(error))[-3000:]
    return law + (f"\n    | {said[0].err.strip()[-600:]}" if said else "")


# --- all schedules ---------------------------------------------------------------------------------------------------


def schedules(matrix: Matrix, *, full: bool = False, group: str = "") -> Iterator[tuple[str, Schedule]]:
    """Every schedule with the name of its group. group: text that those of interest hold; others may be left out."""
    for base in BASES:
        if not any(group in name for name in (f"single: {base.name}", *_BY_CALL)):
            continue
        counts = matrix.calls(base)
        for schedule in singles(base, counts, full=full):
            yield f"single: {base.name}", schedule
        for schedule in outages(base, counts):
            yield "outages", schedule
        for schedule in slow_calls(base, counts):
            yield "slow calls", schedule
        if "files.download" in counts:
            for schedule in results_gone(base):
                yield "results gone", schedule
    for one in (ONE, ONE_ON_VERTEX):
        there = " on Vertex" if one is ONE_ON_VERTEX else ""
        yield from ((f"pairs of a submission{there}", s) for s in pairs(one))
        yield from ((f"pairs of a recovery{there}", s) for s in pairs_of_recovery(one))
        yield from ((f"list lag{there}", s) for s in lagging(one))
        cancels = catalogue("vertex.batches.cancel" if there else "batches.cancel")
        yield from ((LIMIT + there, s) for s in beyond_the_window(cancels, on=one))


@dataclass
class Tally:
    """Counts of a group."""

    group: str
    schedules: int = 0
    fired: int = 0
    idle: int = 0
    ended: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0
    failures: list[str] = field(default_factory=list)

    def add(self, outcome: Outcome) -> None:
        self.schedules += 1
        self.fired += outcome.state == "fired"
        self.idle += outcome.state == "idle"
        self.ended[outcome.ended] += 1
        self.seconds += outcome.seconds
        if outcome.failure:
            self.failures.append(f"{outcome.name} [{outcome.ended}]\n{outcome.failure}")


def tallies(outcomes: Iterable[Outcome]) -> list[Tally]:
    found: dict[str, Tally] = {}
    for outcome in outcomes:
        found.setdefault(outcome.group, Tally(outcome.group)).add(outcome)
    return list(found.values())


def _counts(outcomes: Iterable[Outcome]) -> dict[str, int]:
    """For the table of `make prove`. at once: ended well by the one command that the faults happened to."""
    found = list(outcomes)
    return {
        "schedules": len(found),
        "of which all faults happened": sum(o.state == "fired" for o in found),
        "got over at once": sum(o.ended == "0" for o in found),
        "failures": sum(bool(o.failure) for o in found),
    }


# --- lanes -----------------------------------------------------------------------------------------------------------

_matrix: Matrix | None = None


@dataclass(frozen=True)
class Chosen:
    """Which schedules: of groups whose name holds `group`, whose own name holds `only`, each `every`-th."""

    full: bool
    group: str
    only: str
    every: int


def _open(folder: Path) -> None:
    global _matrix
    _matrix = Matrix(folder / f"lane{os.getpid()}")


def _play(job: tuple[str, Schedule]) -> Outcome:
    assert _matrix is not None
    return _matrix.run(*job)


def _all(chosen: Chosen) -> list[tuple[str, Schedule]]:
    assert _matrix is not None
    every = schedules(_matrix, full=chosen.full, group=chosen.group)
    return [(group, s) for group, s in every if chosen.group in group and chosen.only in s.name][:: chosen.every]


def run_lanes(lanes: int, folder: Path, chosen: Chosen) -> Iterator[Outcome]:
    """All schedules, in processes side by side."""
    warm_up()
    with multiprocessing.get_context("fork").Pool(lanes, _open, (folder,)) as pool:
        work = pool.apply(_all, (chosen,))
        yield from pool.imap_unordered(_play, work)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--every", type=int, default=1, help="each n-th schedule only")
    parser.add_argument("--group", default="", help="groups whose name holds this text")
    parser.add_argument("--only", default="", help="schedules whose name holds this text")
    parser.add_argument("--full", action="store_true", help="every example of every kind at every call")
    parser.add_argument("--lanes", type=int, default=os.cpu_count() or 1, help="processes at work side by side")
    parser.add_argument("--report", type=Path, help="also write the outcomes there, as JSON lines")
    parser.add_argument("--verbose", action="store_true", help="a line for each schedule")
    given = parser.parse_args()
    chosen = Chosen(given.full, given.group, given.only, given.every)
    folder, outcomes = work_folder(), []
    try:
        for outcome in run_lanes(given.lanes, folder, chosen):
            outcomes.append(outcome)
            if given.verbose or outcome.failure:
                print(f"{outcome.state} [{outcome.ended}] {outcome.seconds:.1f} s  {outcome.group}: {outcome.name}")  # noqa: T201
            if outcome.failure:
                print(f"    {outcome.failure}", flush=True)  # noqa: T201
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    if given.report:
        given.report.write_text("".join(json.dumps(asdict(o)) + "\n" for o in outcomes), encoding="utf-8")
    for t in tallies(outcomes):
        print(  # noqa: T201
            f"{t.group:38} {t.schedules:5} schedules {t.fired:5} fired {t.idle:4} idle {len(t.failures):3} failures "
            f"{t.seconds:7.1f} s"
        )
    print(json.dumps(_counts(outcomes)))  # noqa: T201
    return 1 if any(o.failure for o in outcomes) else 0


if __name__ == "__main__":
    sys.exit(main())

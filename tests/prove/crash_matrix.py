"""The crash matrix: each command is killed at each of its effects, and what follows must make it as if it had not been.

    python tests/prove/crash_matrix.py [--every N] [--all] [--cloud NAME]… [--only TEXT]… [--journal FILE]
                                      [--lanes N]

One process per lane is a fork server (crash_world). Each point: the prepared world, the command killed there, what a
user would run then, and the laws. Prints a line per scenario and the counts of all; exits with 1 when a law was broken.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final, Self

from crash_cloud import CLOUDS
from crash_effects import Point
from crash_laws import Facts, compare, facts, leftovers
from crash_scenarios import APPLY, SCENARIOS, SYNC, Scenario
from crash_world import SETTLE, Command, Ran, World, warm_up, warm_up_client, warm_up_project

_ROUNDS: Final = 4
_SAMPLED: Final = 20
_DONE: Final = (0, 6)  # 6: some rows have failed for good
_AGAIN: Final = (4, 5, 7, 8)  # stale, moved, running, unknown: each says to run something again


@dataclass
class Tally:
    """What a scenario came to.

    points: before and after each effect of the command; states: those of them that leave something else than the one
    before, and a sample of the others; killed: runs that died; twice: of these, in what followed as well; failures:
    place, and the law that was broken.
    """

    scenario: str
    points: int = 0
    states: int = 0
    killed: int = 0
    twice: int = 0
    seconds: float = 0.0
    failures: list[str] = field(default_factory=list)

    def tell(self) -> None:
        print(  # noqa: T201
            f"{self.scenario:32} {self.points:5} points {self.states:4} states {self.killed:4} killed "
            f"{self.twice:3} twice {len(self.failures):3} failures {self.seconds:6.1f} s",
            *(f"    {failure[:1500]}" for failure in self.failures),
            sep="\n",
            flush=True,
        )


class Matrix:
    """Runs scenarios. every: kill at each n-th state; all_points: at each point, whether its state is new or not."""

    def __init__(self, folder: Path, *, every: int = 1, all_points: bool = False) -> None:
        self._template = folder / "template"
        self._world = World(folder / "world")
        self._every, self._all = every, all_points
        self._parent = os.getppid()
        self._warm: set[str] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._world.close()

    def run(self, scenario: Scenario) -> Tally:
        start, tally = time.monotonic(), Tally(scenario.name)
        self._world.cloud = scenario.cloud
        if scenario.cloud.name not in self._warm:
            self._warm.add(scenario.cloud.name)
            self._world.reset()
            warm_up_client(self._world)
        try:
            expected, points = self._undisturbed(scenario)
        except AssertionError as error:
            tally.failures.append(f"{scenario.name}, undisturbed: {error}")
            return tally
        chosen = points if self._all else distinct(points)
        tally.points, tally.states = len(points), len(distinct(points))
        for variant, point in enumerate(chosen[self._every // 2 :: self._every]):
            if os.getppid() != self._parent:
                raise KeyboardInterrupt  # nobody waits for the outcome any more
            try:
                self._one(scenario, point, expected, tally, variant=variant)
            except AssertionError as error:
                tally.failures.append(f"{scenario.name}, killed {point}, variant {variant % 4}: {error}")
        tally.seconds = time.monotonic() - start
        return tally

    def _undisturbed(self, scenario: Scenario) -> tuple[Facts, list[Point]]:
        world = self._world
        world.reset()
        scenario.prepare(world)
        warm_up_project(world)
        world.store(self._template)
        points = scenario.focus(world.ok(scenario.command, _DONE, note_states=True).points)
        for command in scenario.rest:
            world.ok(command, _DONE)
        found = facts(world, scenario)
        leftovers(world, scenario, kills=0)
        return found, points

    def _one(self, scenario: Scenario, point: Point, expected: Facts, tally: Tally, *, variant: int) -> None:
        world = self._world
        world.reset(self._template)
        ran = world.run(scenario.command, kill_at=point.place)
        if not ran.killed:
            raise AssertionError(f"the command did not come here: exit code {ran.code}\n{ran.err}")
        tally.killed += 1
        kills = 1
        if variant % 4 == 3:  # what follows is killed as well, somewhere
            again = world.run(scenario.again[0], kill_at=(variant * 37) % 211)
            kills += again.killed
            tally.twice += again.killed
        self._recover(scenario, variant)
        compare(facts(world, scenario), expected, regroups=scenario.regroups)
        leftovers(world, scenario, kills=kills)

    def _recover(self, scenario: Scenario, variant: int) -> None:
        """Run what a user would, until all is done. Every other time without waiting in between."""
        commands: Sequence[Command] = (*scenario.again, *scenario.rest)
        if commands[:2] == (SYNC, APPLY) and variant % 2:
            commands = (APPLY, *commands)
        said: list[Ran] = []
        for _ in range(_ROUNDS):
            said = [self._world.run(c) for c in commands]
            odd = [r for r in said if r.code not in _DONE + _AGAIN]
            if odd:
                raise AssertionError(f"what followed failed with exit code {odd[0].code}: {odd[0].err}")
            if said[-1].code in _DONE:
                return
            self._world.pass_time(2 * SETTLE)
            commands = (SYNC, APPLY, *scenario.rest)
        raise AssertionError(f"still not done after {_ROUNDS} rounds: {said[-1].err}")


def distinct(points: Sequence[Point]) -> list[Point]:
    """One point for each state that a kill can leave, and some of the others. A database may change unseen within its
    pages: all of its points."""
    found, before = [], ""
    for number, point in enumerate(points):
        if point.state != before or point.kind == "database" or number % _SAMPLED == 0:
            found.append(point)
        before = point.state
    return found


# --- lanes -----------------------------------------------------------------------------------------------------------


def chosen_scenarios(clouds: Sequence[str], only: Sequence[str]) -> list[Scenario]:
    """Of these clouds, all if none is named; those of these names, or else all whose name holds one of these texts."""
    here = [s for s in SCENARIOS if not clouds or s.cloud in [CLOUDS[name] for name in clouds]]
    return [s for s in here if s.name in only] or [s for s in here if not only or any(o in s.name for o in only)]


@dataclass(frozen=True)
class Chosen:
    """How scenarios are run. every, all_points: see Matrix; journal: a file that gets what each came to."""

    every: int = 1
    all_points: bool = False
    journal: Path | None = None


def run_lanes(lanes: int, scenarios: Sequence[Scenario], chosen: Chosen, folder: Path) -> list[Tally]:
    """The scenarios that the journal does not have, each taken by the next lane that is free: processes of their own.

    Returns what all came to, those of the journal included."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that it ends its lanes, and they their emulators
    held = held_before(chosen.journal) if chosen.journal else []
    rest = [s for s in scenarios if s.name not in {t.scenario for t in held}]
    warm_up()
    take, give = os.pipe()
    os.write(give, bytes(range(len(rest))))
    os.close(give)
    children = [_lane(rest, take, chosen, folder / str(n)) for n in range(lanes)]
    try:
        codes = [os.waitstatus_to_exitcode(os.waitpid(c, 0)[1]) for c in children]
    except BaseException:
        for child in children:
            os.kill(child, signal.SIGTERM)
        raise
    if any(codes):
        raise RuntimeError(f"a lane failed: {codes}")
    return held + [Tally(**t) for n in range(lanes) for t in json.loads((folder / f"{n}.json").read_text())]


def held_before(journal: Path) -> list[Tally]:
    """The scenarios of a journal in which no law was broken."""
    lines = journal.read_text(encoding="utf-8").splitlines() if journal.exists() else []
    return [t for t in (Tally(**json.loads(line)) for line in lines) if not t.failures]


def _lane(scenarios: Sequence[Scenario], take: int, chosen: Chosen, folder: Path) -> int:
    """take: a pipe with the numbers of the scenarios that nobody has begun, a byte each."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        folder.mkdir()
        with Matrix(folder, every=chosen.every, all_points=chosen.all_points) as matrix:
            tallies = []
            while number := os.read(take, 1):
                tallies.append(matrix.run(scenarios[number[0]]))
                tallies[-1].tell()
                if chosen.journal:
                    with chosen.journal.open("a", encoding="utf-8") as file:
                        file.write(json.dumps(asdict(tallies[-1])) + "\n")
        folder.with_suffix(".json").write_text(json.dumps([asdict(t) for t in tallies]), encoding="utf-8")
        code = 0
    except BaseException:  # noqa: BLE001  (a fork must never go on as its parent)
        traceback.print_exc()
        sys.stderr.flush()
    finally:
        os._exit(code)


def work_folder() -> Path:
    """In memory where there is such a place: a killed process needs no disk, and fsync then costs nothing."""
    memory = Path("/dev/shm")
    return Path(tempfile.mkdtemp(prefix="crash-matrix-", dir=memory if os.access(memory, os.W_OK) else None))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--every", type=int, default=1, help="kill at each n-th point only")
    parser.add_argument("--all", action="store_true", help="at all points, not once for each state they can leave")
    parser.add_argument("--cloud", action="append", choices=CLOUDS, help="of these only; may be repeated")
    parser.add_argument(
        "--only",
        action="append",
        help="the scenario of this name, or those whose name holds this text; may be repeated",
    )
    parser.add_argument("--journal", type=Path, help="go on from this file: what held is not run again")
    parser.add_argument("--lanes", type=int, default=os.cpu_count() or 1, help="processes at work side by side")
    given = parser.parse_args()
    scenarios = chosen_scenarios(given.cloud or (), given.only or ())
    folder = work_folder()
    try:
        tallies = run_lanes(given.lanes, scenarios, Chosen(given.every, given.all, given.journal), folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    counts = {name: sum(getattr(t, name) for t in tallies) for name in ("points", "states", "killed", "twice")}
    failures = sum(len(t.failures) for t in tallies)
    print(json.dumps({"scenarios": len(tallies), **counts, "failures": failures}))  # noqa: T201
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())

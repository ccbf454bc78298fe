"""Random histories of a project, as a hypothesis state machine: what users, time and accidents do, and the laws.

After each step: nothing was paid twice, no budget was passed, every delivered answer is its own row's. Where nothing
interferes: a plan's counts are what apply then sends, a second apply does nothing, and commands succeed. At the end,
when all is quiet: every row is answered as the files want it or says why not, the ledger verifies, and the destination
and the service hold what the ledger says.
"""

from __future__ import annotations

import json
from collections import Counter
from typing import Any, ClassVar, Final

from history_faults import Chance
from history_process import KILLED, Done
from history_truth import GOOD, over_budget, paid_twice, wire
from history_world import ENOUGH, MARKERS, PLAIN, World
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

MINUTE, HOUR, DAY = 60.0, 3600.0, 86400.0
SETTLE: Final = 15 * MINUTE

Line = tuple[str, ...]
Edits = list[tuple[str, Any]]
ROW: Final = st.integers(1, 5)
EDITS: Final = st.lists(
    st.tuples(st.just("row"), st.tuples(ROW, st.sampled_from(MARKERS)))
    | st.tuples(st.just("drop"), ROW)
    | st.sampled_from(
        [("prompt", "A"), ("prompt", "B"), ("prompt", "C"), ("temperature", 0), ("temperature", 1), ("schema", True),
         ("schema", False), ("max_output_tokens", ENOUGH), ("max_output_tokens", 4), ("destination", "one.jsonl"),
         ("destination", "two.jsonl"), ("template", 1), ("template", 2)]
    ),
    max_size=2,
)  # fmt: skip
LINE: Final = st.sampled_from(
    [("apply", "--yes"), ("apply", "--yes", "--detach"), ("sync",), ("sync", "--wait"), ("ledger", "compact")]
)
ACCIDENTS: Final = st.lists(
    st.builds(
        Chance, st.integers(0, 999), st.integers(0, 999), st.sampled_from([1, 1, 2, 3]), st.sampled_from([1, 2, 5])
    ),
    min_size=1,
    max_size=5,
)
EXPECTED: Final = frozenset({0, 3, 6, 8})  # where nothing interferes: done, over a budget, failed rows, unknown
TOLD_OFF: Final = frozenset({1, 4, 5, 7, KILLED})
_PLACES: Final = {"apply": 360, "sync": 240, "ledger": 50}  # to be killed at


class Histories(RuleBasedStateMachine):
    """One history. `totals` counts over all of them; cloud: whose API it speaks (history_world.CLOUDS)."""

    totals: ClassVar[Counter[str]] = Counter()
    cloud: ClassVar[str] = "gemini"

    @initialize(
        job_seconds=st.sampled_from([0.0, 40 * MINUTE, 20 * HOUR]),
        rows_per_job=st.sampled_from([2, 100]),
        jobs_at_once=st.sampled_from([1, 20]),
        lag=st.sampled_from([0.0, SETTLE / 2]),
        submit=st.sampled_from(["file", "file", "inline"]),
        max_usd=st.sampled_from([None, None, 0.00008]),
        max_usd_total=st.sampled_from([None, None, 0.0004]),
    )
    def begin(
        self,
        job_seconds: float,
        rows_per_job: int,
        jobs_at_once: int,
        lag: float,
        submit: str,
        max_usd: float | None,
        max_usd_total: float | None,
    ) -> None:
        self.world = World(
            job_seconds=job_seconds, cloud=self.cloud, max_rows_per_job=rows_per_job, max_jobs_in_flight=jobs_at_once
        )
        self.world.accidents.lag = lag
        self.world.accidents.end()
        self.reruns: list[tuple[str, int]] = []
        self.killed = False  # and not yet recovered from it
        self.saved: dict[str, Any] | None = None
        self.table = self.world.table
        self.table.submit = submit if self.cloud == "gemini" else "file"
        self.table.max_usd, self.table.max_usd_total = max_usd, max_usd_total
        self.world.write()
        self.totals["histories"] += 1

    # --- what users do ---------------------------------------------------------------------------------------------

    @rule(edits=EDITS)
    def plan_and_apply(self, edits: Edits) -> None:
        """A plan says what apply then sends; and after that there is nothing to do."""
        self._edit(edits)
        planned = self._plan()
        if planned is None:
            return
        jobs = len(self.world.truth.jobs())
        done = self._run("apply", "--yes", "--json")
        sent = sum(j.lines for j in self.world.truth.jobs()[jobs:])
        if self.killed or planned["actions"]["unknown"]:
            return
        assert sent == planned["requests_to_send"] == planned["rows_to_send"], (planned, str(done))
        self.totals["plans held to what was sent"] += 1
        if done.code == 0 and not planned["actions"]["in_flight"]:
            self._second_apply_does_nothing()

    def _second_apply_does_nothing(self) -> None:
        jobs, serial = len(self.world.truth.jobs()), self.world.head()["serial"]
        again = self._run("apply", "--yes", "--json")
        assert again.code == 0 and len(self.world.truth.jobs()) == jobs, str(again)
        assert self.world.head()["serial"] == serial, str(again)
        self.totals["second applies that did nothing"] += 1

    @rule(edits=EDITS, accidents=ACCIDENTS)
    def apply_badly(self, edits: Edits, accidents: list[Chance]) -> None:
        self._run_badly(edits, accidents, "apply", "--yes")

    @rule(edits=EDITS, accidents=ACCIDENTS)
    def sync_badly(self, edits: Edits, accidents: list[Chance]) -> None:
        """What was sent before is collected while something goes wrong."""
        self._edit(edits)
        self._run("apply", "--yes", "--detach")
        self._run_badly([], accidents, "sync", "--wait")

    @rule(edits=EDITS, line=LINE, accidents=ACCIDENTS)
    def run_badly(self, edits: Edits, line: Line, accidents: list[Chance]) -> None:
        self._run_badly(edits, accidents, *line)

    def _run_badly(self, edits: Edits, accidents: list[Chance], *line: str) -> None:
        """A command, and what goes wrong while it runs."""
        self._edit(edits)
        self._schedule(accidents)
        self._run(*line)

    @rule()
    def save_plan(self) -> None:
        before = self.world.head()
        done = self._run("plan", "--json", "--out", str(self.world.home / f"plan-{len(self.world.commands)}"))
        assert self.world.head() == before, str(done)
        if done.code in (0, 2):
            folder = done.line[-1]
            self.saved = {"folder": folder, **json.loads(done.out)["specs"][0]}

    @precondition(lambda self: self.saved is not None)
    @rule()
    def apply_saved(self) -> None:
        """A saved plan sends what it said, or nothing."""
        assert self.saved is not None
        jobs = len(self.world.truth.jobs())
        done = self._run("apply", self.saved["folder"], also=frozenset({4}))
        sent = sum(j.lines for j in self.world.truth.jobs()[jobs:])
        if done.code == 4:
            assert sent == 0, str(done)
        elif done.code in (0, 6) and not self.killed:
            assert sent == self.saved["requests_to_send"], str(done)

    @rule(number=ROW)
    def rerun(self, number: int) -> None:
        jobs = len(self.world.truth.jobs())
        done = self._run("rerun", "triage", "--key", f"T-{number}", also=frozenset({64}))
        if "Recorded: 1 row" in done.out:
            self.reruns.append((wire(number), jobs))

    @rule(what=st.sampled_from(["cancel", "cancel", "delete"]), index=st.integers(0, 3), accidents=ACCIDENTS)
    def tell_a_job(self, what: str, index: int, accidents: list[Chance]) -> None:
        listed = json.loads(self._run("jobs", "list", "--json", *(["--open"] if what == "cancel" else [])).out)
        tags = [job["tag"] for job in listed]
        if index < len(tags):
            self._schedule(accidents)
            self._run("jobs", what, tags[index], also=frozenset({1, 64}))

    # --- what happens to them --------------------------------------------------------------------------------------

    @rule(seconds=st.sampled_from([20 * MINUTE, 3 * HOUR, DAY, 3 * DAY, 50 * DAY]))
    def time_passes(self, seconds: float) -> None:
        self.world.clock.advance(seconds)

    @rule(edits=EDITS, line=LINE, share=st.floats(0, 1))
    def kill(self, edits: Edits, line: Line, share: float) -> None:
        self._edit(edits)
        self.killed = True
        done = self.world.kill(int(share**2 * _PLACES[line[0]]), *line)  # most have few effects
        self.totals["kills"] += done.code == KILLED
        self._looked_at(done)
        self._verify()

    @rule(edits=EDITS, one=LINE, other=LINE)
    def two_at_once(self, edits: Edits, one: Line, other: Line) -> None:
        self._edit(edits)
        self.totals["pairs of processes"] += 1
        for done in self.world.both(one, other):
            self._looked_at(done, also=TOLD_OFF)

    # --- running ---------------------------------------------------------------------------------------------------

    def _edit(self, edits: Edits) -> None:
        """Change the user's files."""
        for what, value in edits:
            if what == "row":
                self.table.rows[value[0]] = value[1]
            elif what != "drop":
                setattr(self.table, what, value)
            elif len(self.table.rows) > 1:
                self.table.rows.pop(value, None)
        self.world.write()

    def _schedule(self, accidents: list[Chance]) -> None:
        self.world.commands.append(f"accidents: {'; '.join(self.world.accidents.schedule(accidents))}")

    def _run(self, *line: str, also: frozenset[int] = frozenset()) -> Done:
        done = self.world.run(*line)
        self._looked_at(done, also)
        return done

    def _looked_at(self, done: Done, also: frozenset[int] = frozenset()) -> None:
        """Whether a command came to an end that it may come to."""
        self.totals["commands"] += 1
        self.world.accidents.end()
        troubled = self.killed or self.world.accidents.last
        if done.code in EXPECTED and done.line[0] in ("apply", "sync"):
            self.killed = False  # what was left half done is done
        allowed = (EXPECTED | TOLD_OFF if troubled else EXPECTED) | also
        assert done.code in allowed, f"exit code {done.code} after\n" + "\n".join(self.world.commands[-3:])

    def _plan(self) -> dict[str, Any] | None:
        """The plan of the only spec; None if a limit holds it."""
        done = self._run("plan", "--json")
        return json.loads(done.out)["specs"][0] if done.code == 0 else None

    def _verify(self) -> None:
        done = self.world.run("ledger", "verify")
        assert done.code == 0, str(done) + "\n".join(self.world.commands[-3:])

    # --- laws ------------------------------------------------------------------------------------------------------

    @invariant()
    def nothing_is_paid_twice(self) -> None:
        if not hasattr(self, "world"):
            return
        world = self.world
        self.totals["steps"] += 1
        world.server.bill_summary()  # jobs that are due are run
        attempts = world.truth.attempts(world.accidents.damaged)
        self.totals["charges checked"] += len(attempts)
        twice = paid_twice(attempts, self.reruns, world.truth.archived())
        assert not twice, "\n".join([*twice, *world.commands])
        passed = over_budget(attempts, day=self.table.max_usd, total=self.table.max_usd_total)
        assert not passed, "\n".join([*passed, *world.commands])

    @invariant()
    def every_answer_is_its_rows_own(self) -> None:
        delivered = self.world.delivered() if hasattr(self, "world") else None
        if delivered is None:
            return
        given: dict[str, set[str]] = {}
        for attempt in (*self.world.truth.attempts(), *self.world.truth.attempts(self.world.accidents.damaged)):
            given.setdefault(attempt.key, set()).add(attempt.text)
        for key, row in delivered.items():
            number = int(key.partition("-")[2])
            assert row["text"] in given[wire(number)], (key, row)
            assert f" {key} " in row["text"] or "echo" in row["text"], (key, row)
        self.totals["delivered answers checked"] += len(delivered)

    def teardown(self) -> None:
        if not hasattr(self, "world"):
            return
        try:
            self._come_to_rest()
            self._all_is_well()
        finally:
            self.totals.update({f"fault {name}": n for name, n in self.world.accidents.fired.items()})
            self.totals["faults"] += self.world.accidents.fired.total()
            self.totals["jobs"] += len(self.world.truth.jobs())
            self.world.close()

    def _come_to_rest(self) -> None:
        """No more accidents and no budgets: go on until there is nothing to do."""
        world = self.world
        world.accidents.lag = 0.0
        world.accidents.end()
        self.killed = False
        self.table.max_usd = self.table.max_usd_total = None
        world.write()
        world.clock.advance(3 * HOUR)
        for _ in range(8):
            self._run("sync", "--wait")
            self._run("apply", "--yes")
            self.nothing_is_paid_twice()
            planned = self._plan()
            assert planned is not None
            left = {name: n for name, n in planned["actions"].items() if n and name not in ("keep", "held")}
            if not left:
                return
        raise AssertionError(f"it does not come to rest: {left}\n" + "\n".join(world.commands[-6:]))

    def _all_is_well(self) -> None:
        world, table = self.world, self.table
        self._verify()
        self._run("ledger", "export", str(world.home / "export"), "--format", "jsonl")
        rows, jobs = (
            [json.loads(line) for line in (world.home / "export" / name).read_text(encoding="utf-8").splitlines()]
            for name in ("rows.jsonl", "jobs.jsonl")
        )
        delivered = world.delivered() or {}
        states = {r["key"]: r for r in rows}
        hurt = {a.key for a in world.truth.attempts(world.accidents.damaged) if a.outcome != GOOD}
        fateful = world.accidents.fateful or any(j.cancelled for j in world.truth.jobs())
        for number, marker in table.rows.items():
            key = f"T-{number}"
            row = states[key]
            if row["status"] == "failed":
                assert row["failure"] and row["failure_message"], row
                assert not table.plain or marker not in PLAIN or fateful or wire(number) in hurt, (row, world.commands)
                continue
            assert row["status"] == "answered", row
            job = delivered[key]["batch_job"].rpartition("/")[2]
            if not table.schema and job not in world.accidents.damaged | world.accidents.spoilt:
                assert delivered[key]["text"] == table.answer(number), (delivered[key], row, world.commands)
        held = {r["key"] for r in rows if r["answer_tag"] is not None and r["status"] != "gone"}
        assert delivered.keys() == held, (delivered.keys(), held)
        self._jobs_are_known(jobs)

    def _jobs_are_known(self, jobs: list[dict[str, Any]]) -> None:
        """Every job at the service is one of the ledger's, and none is open."""
        known = {j["job"].rpartition("/")[2] for j in jobs if j["job"]}
        there = {j.name for j in self.world.truth.jobs()}
        assert there == known, (there, known, self.world.commands)
        assert not [j for j in jobs if j["status"] in ("intent", "submitted")], jobs

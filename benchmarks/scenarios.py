"""All that is measured, each beside its baseline: one entry of SCENARIOS is one line of the report.

A scenario's `make` gets a size (rows) and an empty folder, and returns both sides. A side is a command with what comes
before each of its runs, which does not count. States that scenarios start from are in states.py.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import states
from measure import BATCHFORM, Command
from project import deliver_to, edit_template, write_project

SMALL, MEDIUM, LARGE, HUGE = 10_000, 100_000, 1_000_000, 10_000_000
SIZES = (SMALL, MEDIUM, LARGE, HUGE)
_HERE = Path(__file__).resolve().parent
_NOTHING: Callable[[], None] = lambda: None  # noqa: E731


@dataclass(frozen=True)
class Side:
    """before: what is done before each run; around: what goes on during each run; left: bytes on disk that are worth
    telling, after the last."""

    command: Command
    before: Callable[[], object] = _NOTHING
    around: Callable[[], AbstractContextManager[object]] = nullcontext


@dataclass(frozen=True)
class Pair:
    """Both sides, and figures that are read off afterwards (name → number)."""

    ours: Side
    base: Side
    facts: Callable[[], dict[str, float]] = dict


@dataclass(frozen=True)
class Target:
    """figure: a name of run.figures; at_least: else at most; least, most: rows from which and up to which it holds."""

    figure: str
    bound: float
    at_least: bool = False
    least: int = SMALL
    most: int = HUGE


@dataclass(frozen=True)
class Scenario:
    """title: for people; baseline: what runs beside it; bound_by: what limits it now; million: about how many seconds
    both sides take together at a million rows, states not counted; most: largest size that is measured."""

    name: str
    title: str
    baseline: str
    make: Callable[[int, Path], Pair]
    bound_by: str
    million: float
    targets: tuple[Target, ...] = ()
    most: int = HUGE
    least: int = SMALL
    sizes: tuple[int, ...] = field(default=())  # where it does not grow with rows: the one size that stands for all


def _python(script: str, *arguments: object, cwd: Path) -> Command:
    return Command([sys.executable, str(_HERE / script), *map(str, arguments)], cwd)


def _batchform(*arguments: str, cwd: Path, codes: tuple[int, ...] = (0,)) -> Command:
    return Command([BATCHFORM, *arguments], cwd, codes=codes)


def _floor(rows: Path, work: Path) -> Side:
    """The bare query over these rows."""
    return Side(_python("baselines/bare_query.py", rows, states.recorded_of(rows), cwd=work))


def _naive(project: Path, size: int, work: Path) -> Side:
    """The naive loop over the same rows in CSV. Neither side's output stays while the other runs: disks are small."""
    out, rows = work / "naive.jsonl", states.rows_of(size, "csv")
    return Side(_python("baselines/naive.py", project, rows, out, cwd=work), partial(_removed, work / "bundle"))


# --- plans ---


def no_op(kind: str) -> Callable[[int, Path], Pair]:
    def make(size: int, work: Path) -> Pair:
        project = states.answered(size, kind)
        ours = Side(_batchform("plan", cwd=project), partial(states.forget, project))
        return Pair(ours, _floor(states.rows_of(size, kind), work), partial(_ledger_bytes, project, size))

    return make


def remembered(size: int, work: Path) -> Pair:
    project = states.answered(size)
    return Pair(Side(_batchform("plan", cwd=project)), _floor(states.rows_of(size), work))


def some_moved(size: int, work: Path) -> Pair:
    project = states.clone(states.answered(size), work / "moved")
    moved = states.rows_of(size, "moved")
    link = project / "data/rows.parquet"
    link.unlink()
    link.symlink_to(moved)
    floor = _python("baselines/bare_query.py", moved, states.recorded_of(states.rows_of(size)), cwd=work)
    return Pair(Side(_batchform("plan", cwd=project)), Side(floor))


def template_edit(size: int, work: Path) -> Pair:
    project, answered = work / "edited", states.answered(size)

    def edited() -> None:
        states.clone(answered, project)
        edit_template(project)

    edited()
    ours = Side(_batchform("apply", "--yes", cwd=project), edited)
    return Pair(ours, _naive(project, size, work), partial(_jobs, project))


def first_plan(kind: str) -> Callable[[int, Path], Pair]:
    def make(size: int, work: Path) -> Pair:
        project, bundle = work / f"first-{kind}", work / "bundle"
        write_project(project, states.rows_of(size, kind))
        ours = Side(
            _batchform("plan", "--out", str(bundle), cwd=project), partial(_removed, bundle, work / "naive.jsonl")
        )
        return Pair(ours, _naive(project, size, work))

    return make


def many_specs(size: int, _work: Path) -> Pair:
    project = states.many_specs(size, rows_each=100)
    return Pair(Side(_batchform("plan", cwd=project), partial(states.forget, project)), _one_spec(size))


def _one_spec(size: int) -> Side:
    project = states.answered(size, "csv")
    return Side(_batchform("plan", cwd=project), partial(states.forget, project))


# --- runs ---


def apply_all(size: int, work: Path) -> Pair:
    project = work / "apply"
    port = _free_port()

    def fresh() -> None:
        _removed(project)
        write_project(project, states.rows_of(size), emulator_url=f"http://127.0.0.1:{port}")

    fresh()
    ours = Side(_batchform("apply", "--yes", cwd=project), fresh, partial(_served, work / "served", port))
    return Pair(ours, _naive(project, size, work))


def collect(schema: str) -> Callable[[int, Path], Pair]:
    def make(size: int, work: Path) -> Pair:
        port = _free_port()
        url = f"http://127.0.0.1:{port}"
        kept, ended, project = work / "detached", work / "detached-served", work / "collect"
        write_project(kept, states.rows_of(size), emulator_url=url, schema=schema)
        with _served(ended, port):
            states.run(Command([BATCHFORM, "apply", "--yes", "--detach"], kept))
            states.wait_for_the_end(kept)
        around = partial(_served, work / "served", port, start=ended)
        ours = Side(_batchform("sync", "--wait", cwd=project), partial(states.clone, kept, project), around)
        states.clone(kept, project)
        with around():
            states.run(ours.command)
        results = [p for p in (project / ".batchform/archive").glob("*.jsonl.gz") if ".input." not in p.name]
        archives = [shutil.move(p, work / p.name) for p in results]
        bare = "baselines/bare_collect.py"
        return Pair(ours, Side(_python(bare, schema, work / "bare.parquet", *archives, cwd=work)))

    return make


def deliver(kind: str) -> Callable[[int, Path], Pair]:
    def make(size: int, work: Path) -> Pair:
        project, applied = work / "deliver", states.applied(size)
        table = ", table: answers" if kind in ("sqlite", "duckdb") else ""
        out = f"results/again.{kind}"

        def changed() -> None:
            states.clone(applied, project)
            deliver_to(project, f"{{type: {kind}, path: {out}{table}}}")

        ours = Side(_batchform("apply", "--yes", cwd=project), changed)
        base = _python("baselines/bare_deliver.py", applied / "results/triage.parquet", work / f"bare.{kind}", cwd=work)
        return Pair(ours, Side(base))

    return make


def recovery(size: int, work: Path) -> Pair:
    jobs, port = 20, _free_port()
    url, rows_per_job = f"http://127.0.0.1:{port}", max(size // 20, 1)
    killed, whole, project = work / "killed", work / "whole", work / "recovered"
    write_project(killed, states.rows_of(size), emulator_url=url, rows_per_job=rows_per_job)
    with _served(work / "killed-served", port):
        states.killed(killed, after_jobs=jobs // 2)

    def fresh() -> None:
        _removed(whole)
        write_project(whole, states.rows_of(size), emulator_url=url, rows_per_job=rows_per_job)

    fresh()
    ours = Side(
        _batchform("apply", "--yes", cwd=project),
        partial(states.clone, killed, project),
        partial(_served, work / "served", port, start=work / "killed-served"),
    )
    return Pair(ours, Side(_batchform("apply", "--yes", cwd=whole), fresh, partial(_served, work / "served", port)))


def in_flight(size: int, work: Path) -> Pair:
    jobs, port = 500, _free_port()
    waiting = work / "in-flight"
    write_project(
        waiting, states.rows_of(size), emulator_url=f"http://127.0.0.1:{port}", rows_per_job=max(size // jobs, 1),
        jobs=jobs, poll="30s",
    )  # fmt: skip
    started = work / "in-flight-served"
    with _served(started, port, job_seconds=3_600):
        states.run(Command([BATCHFORM, "apply", "--yes", "--detach"], waiting))
    project = work / "followed"
    around = partial(_served, work / "served", port, start=started, job_seconds=3_600)
    before = partial(states.clone, waiting, project)
    ours = Side(_batchform("sync", "--wait", "--at-most", "60s", cwd=project, codes=(7,)), before, around)
    # What a run costs that looks once at each job and ends; the rest of the minute is waiting and polls.
    return Pair(ours, Side(_batchform("sync", cwd=project, codes=(0, 7)), before, around))


# --- ledger ---


def ledger_commit(size: int, work: Path) -> Pair:
    project, answered = work / "ledger", states.answered(size)
    rows = min(10_000, size)
    before = partial(states.clone, answered, project)
    return Pair(
        Side(_python("work.py", "commits", project, 20, rows, cwd=work), before),
        Side(_python("work.py", "bytes", project, 20, rows, cwd=work), before),
    )


def plan_after_commits(size: int, work: Path) -> Pair:
    small, folded = _thousand_commits(size, work), work / "folded"
    states.clone(small, folded)
    states.run(Command([BATCHFORM, "ledger", "compact", "--keep", "0s"], folded))
    sides = [Side(_batchform("plan", cwd=p), partial(states.forget, p)) for p in (small, folded)]
    return Pair(*sides)


def compaction(size: int, work: Path) -> Pair:
    small, project = _thousand_commits(size, work), work / "compacted"
    segments = sorted((small / ".batchform/segments").iterdir())
    listed = work / "segments.txt"
    listed.write_text("\n".join(map(str, segments)), encoding="utf-8")
    ours = Side(_batchform("ledger", "compact", "--keep", "0s", cwd=project), partial(states.clone, small, project))
    base = Side(_python("baselines/copy_bytes.py", work / "copied", f"@{listed}", cwd=work))
    return Pair(ours, base, partial(_ledger_bytes, project, size))


def _thousand_commits(size: int, work: Path) -> Path:
    project = work / "commits"
    if not project.exists():
        states.clone(states.answered(size), project)
        states.run(_python("work.py", "commits", project, 1_000, 10, cwd=work))
    return project


# --- start-up ---


def start_up(*arguments: str) -> Callable[[int, Path], Pair]:
    def make(_size: int, _work: Path) -> Pair:
        project = states.demo()
        base = Side(Command([sys.executable, "-c", ""], project))
        return Pair(Side(_batchform(*arguments, cwd=project), partial(states.forget, project)), base)

    return make


# --- shared ---


def _removed(*paths: Path) -> None:
    for path in paths:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def _live(project: Path, kind: str) -> list[Path]:
    """The ledger's segments of a kind. Those that a compaction replaced stay for a while, and say the same again."""
    head = json.loads((project / ".batchform/head.json").read_text(encoding="utf-8"))
    return [project / ".batchform" / s["name"] for s in head["segments"] if s["kind"] == kind]


def _ledger_bytes(project: Path, size: int) -> dict[str, float]:
    return {"ledger_bytes_per_row": sum(p.stat().st_size for p in _live(project, "rows")) / size}


def _jobs(project: Path) -> dict[str, float]:
    """Jobs that an apply created on top of the one that the state was made with."""
    texts = [p.read_text(encoding="utf-8") for p in _live(project, "events")]
    return {"new_jobs": sum(text.count('"type":"Intent"') for text in texts) - 1}


@contextmanager
def _served(state: Path, port: int, *, start: Path | None = None, job_seconds: float = 0.0) -> Iterator[None]:
    """An emulator in a process of its own, from a copy of `start`; what it costs is not counted."""
    _removed(state)
    if start is not None:
        shutil.copytree(start, state)
    with states.emulator(state, job_seconds=job_seconds, port=port):
        yield


def _free_port() -> int:
    import socket

    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


_PLAN = "reading the source and hashing its columns"
_RENDER = "rendering by Jinja, one row at a time"

SCENARIOS: tuple[Scenario, ...] = (
    Scenario(
        "no-op-parquet", "No-op plan, Parquet", "bare DuckDB query over the same file", no_op("parquet"), _PLAN, 50,
        (Target("wall_ratio", 1.5, least=LARGE), Target("peak_mb", 300, most=LARGE), Target("peak_mb", 600, least=HUGE),
         Target("ledger_bytes_per_row", 60, least=MEDIUM)),
    ),
    Scenario(
        "no-op-csv", "No-op plan, CSV", "bare DuckDB query over the same file", no_op("csv"), _PLAN, 60,
        (Target("wall_ratio", 1.6, least=LARGE), Target("peak_mb", 600, least=HUGE)),
    ),
    Scenario("no-op-jsonl", "No-op plan, JSONL", "bare DuckDB query over the same file", no_op("jsonl"), _PLAN, 60,
             most=LARGE),
    Scenario("no-op-sqlite", "No-op plan, SQLite", "sqlite3 → Arrow → the same query", no_op("sqlite"), _PLAN, 80,
             most=LARGE),
    Scenario("no-op-remembered", "No-op plan, nothing touched", "bare DuckDB query over the same file", remembered,
             "start-up: no row is read", 30),
    Scenario("1%-new-1%-changed", "Plan, 1% new and 1% changed", "bare DuckDB query over the same file", some_moved,
             _PLAN, 60),
    Scenario("template-edit", "Template edit with equal output, applied", "naive loop", template_edit, _RENDER, 200,
             (Target("new_jobs", 0),)),
    Scenario(
        "first-plan-parquet", "First plan and its shards, Parquet", "naive loop", first_plan("parquet"), _RENDER, 180,
        (Target("cpu_ratio", 0.6, least=MEDIUM), Target("peak_mb", 300)),
    ),
    Scenario(
        "first-plan-csv", "First plan and its shards, CSV", "naive loop", first_plan("csv"), _RENDER, 180,
        (Target("cpu_ratio", 0.6, least=MEDIUM), Target("peak_mb", 300)), most=LARGE,
    ),
    Scenario("apply", "Apply on the emulator, to the end", "naive loop, which sends nothing", apply_all,
             "the emulator, which answers each row", 700, most=LARGE),
    Scenario("collect", "Collect and deliver to Parquet, with a response schema",
             "msgspec → typed values → Parquet, and no more", collect("validated"), "parsing and validating lines", 400,
             (Target("rows_per_cpu_second", 50_000, at_least=True, least=MEDIUM),), most=LARGE),
    Scenario("collect-text", "Collect and deliver to Parquet, text answers",
             "msgspec → typed values → Parquet, and no more", collect("none"), "parsing lines", 400,
             (Target("rows_per_cpu_second", 100_000, at_least=True, least=MEDIUM),), most=LARGE),
    *(
        Scenario(f"deliver-{kind}", f"Deliver all answers anew, {kind}", "the same rows, by the plainest means",
                 deliver(kind), "joining answers with rows, and the form itself", 60, most=LARGE)
        for kind in ("parquet", "csv", "jsonl", "sqlite", "duckdb")
    ),
    Scenario("ledger-commit", "20 commits of 10,000 transitions", "the same bytes, written and synced", ledger_commit,
             "fsync", 20, (Target("wall_ratio", 3),)),
    Scenario("plan-after-1000-commits", "No-op plan after 1,000 small commits", "the same after a compaction",
             plan_after_commits, _PLAN, 60, (Target("wall_ratio", 1.3, least=MEDIUM),), most=LARGE),
    Scenario("compaction", "Compaction of 1,000 small commits", "a plain copy of the segments", compaction,
             "decoding and encoding Parquet", 60, (Target("ledger_bytes_per_row", 60, least=MEDIUM),), most=LARGE),
    Scenario("recovery", "Apply after one that was killed half-way", "the whole apply, undisturbed", recovery,
             "the rows that were not sent yet", 900, most=LARGE),
    Scenario("many-specs", "No-op plan of specs with 100 rows each", "no-op plan of one spec with as many rows, CSV",
             many_specs, "what each spec costs, whatever its rows", 3_000, most=MEDIUM),
    Scenario("in-flight", "A minute with 500 jobs in flight", "one look at each job", in_flight,
             "one request for each job and poll", 600, (Target("cpu_share", 0.05),), sizes=(SMALL,)),
    Scenario("help", "--help", "bare Python", start_up("--help"), "importing", 1, (Target("wall_ms", 100),),
             sizes=(SMALL,)),
    Scenario("validate-demo", "validate, small project", "bare Python", start_up("validate"), "importing", 5,
             sizes=(SMALL,)),
    Scenario("plan-demo", "No-op plan, small project, rows read", "bare Python", start_up("plan"), "importing", 5,
             (Target("wall_ms", 400),), sizes=(SMALL,)),
)  # fmt: skip
"""The registry."""

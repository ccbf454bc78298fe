"""What a scenario starts from: rows in some form, and projects that have a history. Each is made once, and kept."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import make_rows
from measure import BATCHFORM, Command, environment, measure
from project import CACHE, ROOT, code_version, write_many, write_project

SEED_ROWS = 100
DEMO = ("batchform.yaml", "specs", "templates", "schemas", "data")


def rows_of(size: int, kind: str = "parquet") -> Path:
    """The file with so many rows: parquet, csv, jsonl, sqlite or moved (see make_rows.form)."""
    folder = CACHE / f"rows-{size}"
    make_rows.make(size, folder)
    return make_rows.form(folder, kind)


def recorded_of(rows: Path) -> Path:
    """What the bare query joins with: the fingerprints of the rows as they were."""
    recorded = rows.with_name(f"recorded-{rows.suffix[1:]}.parquet")
    if not recorded.exists():
        measure(
            [sys.executable, str(ROOT / "benchmarks/baselines/bare_query.py"), str(rows), str(recorded), "--record"]
        )
    return recorded


def answered(size: int, kind: str = "parquet") -> Path:
    """A project whose every row is answered and delivered, at any size within the time of a first plan.

    A few rows are applied; their ledger then gets, in one commit through the ledger's own library, the rows of a saved
    first plan as answered ones, and is compacted. `data/rows.KIND` is the source: a link that may be put elsewhere.
    """
    name = f"answered-{kind}-{size}"
    found = _kept(name)
    if found is not None:
        return found
    building = _building(name)
    rows, link = rows_of(size, kind), building / f"data/rows.{kind}"
    link.parent.mkdir(parents=True)
    seed = rows_of(SEED_ROWS, kind)
    link.symlink_to(seed)
    write_project(building, Path(f"data/rows.{kind}"))
    _allow(building, seed.parent, rows.parent)
    measure([BATCHFORM, "apply", "--yes"], cwd=building)
    point(building, rows)
    with _moved_away(building / ".batchform"):  # a first plan is made without a ledger
        measure([BATCHFORM, "plan", "--out", "saved"], cwd=building)
    measure([sys.executable, str(ROOT / "benchmarks/work.py"), "grow", str(building), str(building / "saved")])
    shutil.rmtree(building / "saved")
    measure([BATCHFORM, "ledger", "compact", "--keep", "0s"], cwd=building)
    return _keep(name)


def point(project: Path, rows: Path) -> None:
    """Put another file behind a project's source."""
    link = project / f"data/rows.{rows.suffix[1:]}"
    link.unlink()
    link.symlink_to(rows)


def forget(project: Path) -> None:
    """Have the next plan read all rows, also where nothing was touched since the last."""
    shutil.rmtree(project / ".batchform/cache/plans", ignore_errors=True)


def applied(size: int) -> Path:
    """A project that was applied on the emulator, with all that this leaves: archive, parsed answers, delivery."""
    name = f"applied-{size}"
    found = _kept(name)
    if found is not None:
        return found
    building = _building(name)
    with emulator(building / "served") as url:
        write_project(building, rows_of(size), emulator_url=url)
        measure([BATCHFORM, "apply", "--yes"], cwd=building)
    shutil.rmtree(building / "served")
    return _keep(name)


def many_specs(size: int, rows_each: int) -> Path:
    """A project of many small specs, all answered and delivered, and its rows in one file beside them."""
    name = f"many-{size}"
    found = _kept(name)
    if found is not None:
        return found
    building = _building(name)
    parts = make_rows.split(rows_of(size), CACHE / f"rows-{size}/parts", rows_each)
    write_many(building, parts)
    measure([BATCHFORM, "apply", "--yes"], cwd=building)
    return _keep(name)


def demo() -> Path:
    """The project of this repository, applied."""
    found = _kept("demo")
    if found is not None:
        return found
    building = _building("demo")
    building.mkdir(parents=True)
    for name in DEMO:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, building / name)
    measure([BATCHFORM, "apply", "--yes"], cwd=building)
    return _keep("demo")


def killed(project: Path, *, after_jobs: int) -> None:
    """Apply, and kill that without warning when so many jobs were created."""
    nowhere = subprocess.DEVNULL
    command = [BATCHFORM, "apply", "--yes"]
    with subprocess.Popen(command, cwd=project, env=environment(), stdout=nowhere, stderr=nowhere) as process:
        while process.poll() is None and _recorded(project, '"type":"Submitted"') < after_jobs:
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)


@contextmanager
def emulator(state: Path, *, job_seconds: float = 0.0, port: int = 0) -> Iterator[str]:
    """The address of an emulator in a process of its own."""
    state.mkdir(parents=True, exist_ok=True)
    command = [BATCHFORM, "emulator", "serve", "--port", str(port), "--job-seconds", str(job_seconds)]
    command += ["--state", str(state)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment()) as server:
        assert server.stdout is not None
        address = re.search(r"http://\S+?(?=[;,\s])", server.stdout.readline())
        if not address:
            sys.exit("the emulator did not say where it listens")
        try:
            yield address[0]
        finally:
            server.terminate()


def clone(source: Path, to: Path) -> Path:
    """A copy of a folder for one run, in place of the last one; files are linked where they are never written again."""
    shutil.rmtree(to, ignore_errors=True)
    shutil.copytree(source, to, symlinks=True, copy_function=_linked)
    return to


def _linked(source: str, target: str) -> None:
    immutable = ("/segments/", "/archive/", "/answers/")
    if any(part in source for part in immutable):
        os.link(source, target)
    else:
        shutil.copy2(source, target)


def wait_for_the_end(project: Path) -> None:
    """Waits until the service has run every job: asks for nothing else."""
    deadline = time.monotonic() + 3_600
    while time.monotonic() < deadline:
        asking = [BATCHFORM, "jobs", "list", "--json"]
        done = subprocess.run(asking, cwd=project, env=environment(), capture_output=True, text=True, check=False)
        listed = done.stdout
        if "RUNNING" not in listed and "PENDING" not in listed and "QUEUED" not in listed:
            return
        time.sleep(0.5)
    sys.exit("the emulator's jobs did not end within an hour")


def _recorded(project: Path, what: str) -> int:
    found = 0
    for path in (project / ".batchform/segments").glob("events-*.jsonl"):
        with suppress(OSError):
            found += path.read_text(encoding="utf-8").count(what)
    return found


def _allow(project: Path, *folders: Path) -> None:
    path = project / "batchform.yaml"
    text = re.sub(
        r"allow_paths: .*", f"allow_paths: [{', '.join(map(str, folders))}]", path.read_text(encoding="utf-8")
    )
    path.write_text(text, encoding="utf-8")


@contextmanager
def _moved_away(folder: Path) -> Iterator[None]:
    aside = folder.with_name("aside")
    folder.rename(aside)
    try:
        yield
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        aside.rename(folder)


def _kept(name: str) -> Path | None:
    path = CACHE / "states" / f"{name}-{code_version()}"
    return path if path.exists() else None


def _building(name: str) -> Path:
    """A folder to build a state in. States of other code are removed: they are large."""
    for stale in (CACHE / "states").glob(f"{name}-*"):
        shutil.rmtree(stale)
    path = CACHE / "states" / f"{name}-{code_version()}.part"
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def _keep(name: str) -> Path:
    path = CACHE / "states" / f"{name}-{code_version()}"
    path.with_name(f"{path.name}.part").rename(path)
    return path


def run(command: Command) -> None:
    """Run what prepares and is not measured."""
    measure(command)

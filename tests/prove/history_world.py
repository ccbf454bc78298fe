"""A project on disk, an emulator that misbehaves, and one virtual time for both."""

from __future__ import annotations

import csv
import json
import os
import shutil
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any, Final

import yaml
from google_patience import patience_in
from history_clock import SharedClock
from history_faults import Accidents
from history_process import Done, forked, here
from history_truth import MODEL, Truth
from msgspec.structs import replace
from pytest import MonkeyPatch
from vertex_results import written

from batchform.cli import wiring
from batchform.emulator import EmulatorServer
from batchform.run.context import RunContext

MARKERS: Final = (
    "", "!", "?", "[[emulator:error 503 x1]]", "[[emulator:missing x1]]", "[[emulator:max_tokens x2]]",
    "[[emulator:empty x1]]", "[[emulator:blocked]]", "[[emulator:duplicate]]", "[[emulator:unknown_key]]",
)  # fmt: skip
PLAIN: Final = ("", "!", "?", "[[emulator:duplicate]]", "[[emulator:unknown_key]]")
ENOUGH: Final = 12  # tokens of the longest answer, nearly: so that budgets are tight
TEMPLATES: Final = ("{{ id }} {{ body }}", "{{ id ~ ' ' ~ body }}", "{% set said = body %}{{ id }} {{ said }}")
SCHEMA: Final = {"type": "object", "properties": {"echo": {"type": "string"}}, "required": ["echo"]}


@dataclass
class Table:
    """The rows and the spec that a history edits: the model of what a user wants."""

    rows: dict[int, str] = field(default_factory=lambda: {1: "", 2: "", 3: ""})
    prompt: str = "A"
    template: int = 0
    temperature: int = 0
    max_output_tokens: int = ENOUGH
    schema: bool = False
    destination: str = "one.jsonl"
    submit: str = "file"
    max_usd: float | None = None
    max_usd_total: float | None = None

    def spec(self) -> dict[str, Any]:
        config: dict[str, Any] = {"temperature": self.temperature, "max_output_tokens": self.max_output_tokens}
        if self.schema:
            config["response_schema"] = SCHEMA
        return {
            "name": "triage",
            "source": {"type": "csv", "path": "data/rows.csv"},
            "prompt": {"user": "triage.j2"},
            "model": MODEL,
            "generation_config": config,
            "destination": {"type": "jsonl", "path": f"results/{self.destination}"},
            "idempotency": {"key": ["id"]},
            "submit": self.submit,
        }

    def body(self, number: int) -> str:
        return f"text {number}{self.rows[number]}"

    def answer(self, number: int) -> str:
        """What the emulator says to a row's request as it is now, without a schema."""
        return f"Emulated answer to: {self.prompt}: T-{number} {self.body(number).partition('[[')[0]}"

    @property
    def plain(self) -> bool:
        """Whether the spec lets every ordinary row be answered, with an echo of its request."""
        return self.max_output_tokens == ENOUGH and not self.schema

    @property
    def limits(self) -> dict[str, Any]:
        """Budgets on upper estimates, since only they bound what is really taken."""
        found = {"max_usd": self.max_usd, "max_usd_total": self.max_usd_total}
        given = {name: usd for name, usd in found.items() if usd is not None}
        return {"limits": {**given, "max_usd_basis": "high"}} if given else {}


CLOUDS: Final[dict[str, dict[str, Any]]] = {
    "gemini": {},
    "vertex": {"cloud": "vertex", "staging": "gs://history-batches/staging"},
    "tables": {"cloud": "vertex", "via": "bigquery", "dataset": "history_batches"},
}
"""Whose API a history speaks: settings of its backend."""


class World:
    """One history's project. `close` it."""

    def __init__(self, *, job_seconds: float = 3600.0, cloud: str = "gemini", **settings: Any) -> None:
        self.stack = ExitStack()
        self.home = Path(tempfile.mkdtemp(prefix="history-"))
        self.stack.callback(shutil.rmtree, self.home, ignore_errors=True)
        self.root = self.home / "project"
        for folder in ("specs", "templates", "data"):
            (self.root / folder).mkdir(parents=True)
        self.clock = SharedClock(self.home / "clock")
        self._live_here()
        self.server = self.stack.enter_context(
            EmulatorServer(self.home / "emulator", job_seconds=job_seconds, clock=self.clock)
        )
        places = {"vertex": {"bucket": "history-batches"}, "tables": {"dataset": "emulated-project.history_batches"}}
        place = places.get(cloud, {})
        if place:
            self.server.provide("us-central1", **place)
        self.accidents = Accidents(self.server, cloud)
        self.truth = Truth(
            self.home / "emulator", self.root / ".batchform/archive", lambda tag: written(self.server, tag, **place)
        )
        self.table = Table()
        self.settings = {**CLOUDS[cloud], **settings}
        self.commands: list[str] = []
        here_before = Path.cwd()
        os.chdir(self.root)
        self.stack.callback(os.chdir, here_before)
        self.write()

    def close(self) -> None:
        self.stack.close()

    def _live_here(self) -> None:
        """Every command of this process and of its forks lives in the virtual time, without chance, and in one
        thread."""
        patch = MonkeyPatch()
        self.stack.callback(patch.undo)
        run_context = wiring.Session.run_context

        def steady(session: wiring.Session, *args: Any) -> RunContext:
            return replace(run_context(session, *args), rng=Random(7))

        patch.setattr(wiring, "SystemClock", lambda: self.clock)
        patch.setattr(wiring.Session, "run_context", steady)
        patch.setattr(os, "cpu_count", lambda: 1)
        timing = SimpleNamespace(**{**vars(time), "sleep": lambda seconds: self.clock.sleep(seconds)})
        patch.setattr("google.genai._api_client.time", timing)  # it sleeps between two tries of an upload
        patience_in(patch, lambda: self.clock.seconds, self.clock.sleep)

    # --- the project

    def write(self) -> None:
        """Write the table as a user's files."""
        table = self.table
        backend = {"type": "emulator", "url": self.server.url, "settle": "15m", "poll": "10m", **self.settings}
        project = {
            "version": 1, "project": "history", "backends": {"local": backend}, "defaults": {"backend": "local"},
            **table.limits,
        }  # fmt: skip
        (self.root / "batchform.yaml").write_text(yaml.safe_dump(project))
        (self.root / "specs/triage.yaml").write_text(yaml.safe_dump(table.spec()))
        (self.root / "templates/triage.j2").write_text(f"{table.prompt}: {TEMPLATES[table.template]}\n")
        with (self.root / "data/rows.csv").open("w", newline="") as f:
            writer = csv.writer(f)
            writer.writerow(["id", "body"])
            writer.writerows([f"T-{n}", table.body(n)] for n in table.rows)

    def delivered(self) -> dict[str, dict[str, Any]] | None:
        """Rows of the destination by id; None if there is none."""
        path = self.root / "results" / self.table.destination
        if not path.exists():
            return None
        return {r["id"]: r for r in map(json.loads, path.read_text(encoding="utf-8").splitlines())}

    def head(self) -> dict[str, Any]:
        path = self.root / ".batchform/head.json"
        return dict(json.loads(path.read_text())) if path.exists() else {"serial": 0}

    # --- commands

    def run(self, *line: str) -> Done:
        """A command line in this process."""
        done = here(self.clock, line)
        self._note(done)
        return done

    def kill(self, place: int, *line: str) -> Done:
        """A command line that is killed at a place (see crash_effects), unless it ends before."""
        [done] = forked(self.clock, line, home=self.home, kill_at=place)
        self._note(done)
        return done

    def both(self, one: tuple[str, ...], other: tuple[str, ...]) -> list[Done]:
        """Two command lines at once."""
        done = forked(self.clock, one, other, home=self.home)
        for each in done:
            self._note(each)
        return done

    def _note(self, done: Done) -> None:
        assert "Traceback" not in done.err, str(done)
        assert "internal error" not in done.err, str(done)
        self.commands.append(str(done))

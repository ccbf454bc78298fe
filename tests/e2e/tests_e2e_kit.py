"""Projects on disk, driven through the command line in process, against the embedded emulator over real sockets."""

from __future__ import annotations

import csv
import json
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from batchform.cli import run

PROJECT = {
    "version": 1,
    "project": "tests",
    "backends": {"local": {"type": "emulator", "job_seconds": 0, "poll": "10ms"}},
    "defaults": {"backend": "local"},
}
SPEC: dict[str, Any] = {
    "name": "triage",
    "source": {"type": "csv", "path": "data/tickets.csv"},
    "prompt": {"user": "triage.j2"},
    "model": "gemini-3.5-flash-lite",
    "generation_config": {"temperature": 0, "max_output_tokens": 64},
    "destination": {"type": "jsonl", "path": "results/triage.jsonl"},
    "idempotency": {"key": ["id"]},
}
FIELDS = ("id", "tenant", "title", "body")


class Result:
    """Exit code and output of one command line."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err

    @property
    def words(self) -> str:
        """What both streams say, in one line: where lines break depends on the terminal."""
        return " ".join(f"{self.out} {self.err}".split())

    @property
    def json(self) -> Any:
        return json.loads(self.out)


class Workspace:
    """A project folder and the commands a user would type in it."""

    def __init__(self, root: Path, capture: Callable[[], tuple[str, ...]]) -> None:
        self.root = root
        self._capture = capture
        for folder in ("specs", "templates", "schemas", "data"):
            (root / folder).mkdir(parents=True)
        self.write("templates/triage.j2", "Title: {{ title }}\nBody: {{ body }}\n")
        self.project()
        self.spec()
        self.rows([self.row(i) for i in range(1, 7)])

    def become_copy_of(self, root: Path) -> None:
        """Go on in a copy of another project; the working directory is the caller's to change."""
        self.root = self.root.with_name("copy")
        shutil.copytree(root, self.root)

    @staticmethod
    def row(number: int, **changes: str) -> dict[str, str]:
        return {"id": f"T-{number}", "tenant": "acme", "title": f"ticket {number}", "body": f"text {number}", **changes}

    def write(self, name: str, text: str | bytes) -> Path:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return path

    def project(self, **changes: Any) -> None:
        self.write("batchform.yaml", yaml.safe_dump({**PROJECT, **changes}))

    def spec(self, **changes: Any) -> None:
        self.write("specs/triage.yaml", yaml.safe_dump({**SPEC, **changes}))

    def rows(self, rows: list[dict[str, str]], **kwargs: Any) -> None:
        path = self.root / "data/tickets.csv"
        with path.open("w", newline="", encoding="utf-8") as f:
            writer = csv.DictWriter(f, list(rows[0]) if rows else list(FIELDS), **kwargs)
            writer.writeheader()
            writer.writerows(rows)

    def run(self, *arguments: str) -> Result:
        self._capture()
        code = run(arguments)
        out, err = self._capture()
        return Result(code, out, err)

    def ok(self, *arguments: str) -> Result:
        result = self.run(*arguments)
        assert result.code == 0, (arguments, result.code, result.out, result.err)
        return result

    def plan(self, *arguments: str) -> dict[str, Any]:
        """The JSON plan of the only spec."""
        found = self.run("plan", "--json", *arguments)
        assert found.code in (0, 2, 3), found.err
        specs = found.json["specs"]
        assert len(specs) == 1
        return dict(specs[0])

    def actions(self, *arguments: str) -> dict[str, int]:
        """Actions of the only spec, without zeros."""
        return {name: count for name, count in self.plan(*arguments)["actions"].items() if count}

    def apply(self, *arguments: str) -> Result:
        return self.ok("apply", "--yes", "--json", *arguments)

    def snapshot(self) -> dict[str, bytes | None]:
        """Every file and folder of the ledger and of the results, byte for byte; not the emulator's own state, nor who
        was last at work, nor what a plan may note."""
        found: dict[str, bytes | None] = {}
        for folder in (".batchform", "results"):
            for path in sorted((self.root / folder).rglob("*")):
                name = path.relative_to(self.root).as_posix()
                if not name.startswith((".batchform/emulator", ".batchform/lease", ".batchform/cache")):
                    found[name] = path.read_bytes() if path.is_file() else None
        return found

    def billed(self) -> list[str]:
        """Digests of the requests that the emulator charged, in order."""
        state = self.root / ".batchform/emulator/emulator.sqlite"
        if not state.exists():
            return []
        con = sqlite3.connect(state)
        try:
            return [r[0] for r in con.execute("SELECT hex(digest) FROM bill ORDER BY id")]
        finally:
            con.close()

    def delivered(self, name: str = "results/triage.jsonl") -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.root / name).read_text(encoding="utf-8").splitlines()]

"""Whatever happened on the way, a chain ends as if its upstream had been complete first; no request is paid twice."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random
from typing import Any

import pytest
import yaml
from tests_e2e_kit import SPEC, Workspace

READS = {
    "follow": ({"type": "spec", "name": "extract"}, "Why {{ text }}?"),
    "last": ({"type": "spec", "name": "follow"}, "Then {{ text }}?"),
    "groups": (
        {
            "type": "spec",
            "name": "extract",
            "query": "SELECT id[:3] AS id, string_agg(text, ', ' ORDER BY id) AS text FROM source GROUP BY ALL",
        },
        "All: {{ text }}",
    ),
}
NAMES = ("extract", *READS)
STEPS = (
    ("apply", "--yes"),
    ("apply", "--yes", "--detach"),
    ("apply", "--yes", "--select", "extract"),
    ("apply", "--yes", "--select", "follow,groups"),
    ("sync",),
    ("sync", "--wait"),
)
_DONE = (0, 6, 7)


def write(workspace: Workspace) -> None:
    (workspace.root / "specs/triage.yaml").unlink(missing_ok=True)
    common: dict[str, Any] = {**SPEC, "prompt": {"user": {"text": "{{ title }} {{ body }}"}}}
    specs = {"extract": {**common, "name": "extract", "retry": {"max_attempts": 2}}}
    for name, (source, text) in READS.items():
        specs[name] = {**common, "name": name, "source": source, "prompt": {"user": {"text": text}}}
    for name, spec in specs.items():
        to = {"type": "jsonl", "path": f"results/{name}.jsonl", "columns": {"text": "text"}, "prune": True}
        workspace.write(f"specs/{name}.yaml", yaml.safe_dump({**spec, "destination": to}))


def results(root: Path) -> dict[str, list[Any]]:
    found = {}
    for name in NAMES:
        path = root / f"results/{name}.jsonl"
        found[name] = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    return found


def edited(rows: dict[int, str], random: Random) -> None:
    """Some rows change, come and go."""
    for number in random.sample(range(1, 9), 3):
        body = random.choice(["plain", "other", "third", "[[emulator:error 503 x1]] late"])
        if random.random() < 0.25 and len(rows) > 2:
            rows.pop(number, None)
        else:
            rows[number] = body


@pytest.mark.parametrize("seed", range(2))
def test_a_chain_ends_as_if_its_upstream_had_been_complete_first(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    random = Random(seed)
    write(workspace)
    rows = dict.fromkeys(range(1, 6), "plain")
    for _ in range(4):
        edited(rows, random)
        workspace.rows([workspace.row(n, body=body) for n, body in sorted(rows.items())])
        found = workspace.run(*random.choice(STEPS))
        assert found.code in _DONE, found.err
    for _ in range(4):  # until all is done: failed rows are tried again
        workspace.run("sync", "--wait")
        if workspace.run("apply", "--yes").code == 0:
            break
    assert workspace.run("plan", "--detailed-exitcode").code == 0, workspace.run("plan").out
    billed = workspace.billed()

    truth = Workspace(tmp_path / "truth", workspace._capture)
    monkeypatch.chdir(truth.root)
    write(truth)
    truth.rows([truth.row(n, body=body) for n, body in sorted(rows.items())])
    for name in ("extract", "extract", "follow", "last", "groups"):
        truth.run("apply", "--yes", "--select", name)
    assert results(workspace.root) == results(truth.root)
    late = [d for d in set(billed) if billed.count(d) > 1]
    assert not late, "a request was paid for twice"

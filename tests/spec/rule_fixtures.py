"""What breaks a rule, and what does not by a hair: for rules whose examples are no text to show in a page.

A fixture is files, laid over the small project of test_rules, and how they are judged: as they are loaded, as
`validate` judges their rows, as rows that are given here as requests, or as a schedule of faults.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal, NamedTuple

import pytest

from batchform.cli import run
from batchform.emulator import faults
from batchform.plan.importer import Columns
from batchform.plan.registry import Registry
from batchform.plan.row_rules import RowRules
from batchform.spec.load import load_project
from batchform.spec.yaml_source import MAX_BYTES

Files = Mapping[str, str | bytes]
How = Literal["load", "rows", "requests", "faults"]


class Fixture(NamedTuple):
    """Files that break a rule, files that do not, and how they are judged."""

    bad: Files
    good: Files
    how: How = "load"


SPEC = (
    "name: triage\nsource: {type: csv, path: data/tickets.csv}\nprompt: {user: ask.j2}\n"
    "destination: {type: jsonl, path: results/triage.jsonl}\nidempotency: {key: [id]}\n"
)
TICKETS = "data/tickets.csv"
TEXT = "templates/ask.j2"
TRIAGE = "specs/triage.yaml"


def _values(number: int) -> str:
    """Values by aliases, which count each time they are used."""
    lists = f"a: &a [{', '.join('1' * 100)}]\nb: &b [{', '.join(['*a'] * 100)}]\n"
    return lists + SPEC + f"tags: [{', '.join(['*b'] * number)}]\n"


def _cached(*, tokens: int, rows: int, ttl: str = "49h") -> Files:
    system = json.dumps("Sort tickets. " * (tokens * 4 // 14))
    spec = SPEC.replace("prompt: {", f"prompt: {{system: {{text: {system}}}, ") + f"cache: {{ttl: {ttl}}}\n"
    return {TRIAGE: spec, TICKETS: "id,text\n" + "".join(f"{n},It is broken\n" for n in range(rows))}


def _requests(*labels: object) -> Files:
    lines = [{"contents": [{"parts": [{"text": "x"}], "role": "user"}], "labels": {"n": one}} for one in labels]
    return {"requests.jsonl": "".join(json.dumps(line, separators=(",", ":")) + "\n" for line in lines)}


def _fault(call: str, do: str) -> Files:
    return {"faults.yaml": f"faults:\n- {{call: {call}, do: {do}}}\n"}


INLINE = {TRIAGE: SPEC + "submit: inline\n"}
FIXTURES: dict[str, Fixture] = {
    "file-too-large": Fixture(
        {TRIAGE: f"{SPEC}# {'x' * MAX_BYTES}\n"}, {TRIAGE: f"{SPEC}# {'x' * (MAX_BYTES // 2)}\n"}
    ),
    "yaml-too-deep": Fixture(
        {TRIAGE: f"{SPEC}tags: {'[' * 20_000}{']' * 20_000}\n"}, {TRIAGE: f"{SPEC}tags: [a, b]\n"}
    ),
    "yaml-too-large": Fixture({TRIAGE: _values(20)}, {TRIAGE: SPEC}),
    "not-utf-8": Fixture({TRIAGE: SPEC.encode() + b"# caf\xe9\n"}, {TRIAGE: SPEC.encode() + "# café\n".encode()}),
    "cache-too-small": Fixture(_cached(tokens=100, rows=1), _cached(tokens=9_000, rows=500), "rows"),
    "cache-costs-more": Fixture(_cached(tokens=9_000, rows=5), _cached(tokens=9_000, rows=500), "rows"),
    "row-fails": Fixture({TICKETS: "id,text\n1,a\n1,b\n"}, {TICKETS: "id,text\n1,a\n2,b\n"}, "rows"),
    "row-too-large": Fixture({**INLINE, TEXT: "{{ text * 500000 }}"}, {**INLINE, TEXT: "{{ text * 200000 }}"}, "rows"),
    "rows-differ": Fixture(_requests("1", 1), _requests("1", "2"), "requests"),
    "unknown-call": Fixture(_fault("batches.crate", "drop"), _fault("batches.create", "drop"), "faults"),
    "wrong-call": Fixture(_fault("batches.get", "hide"), _fault("batches.list", "hide"), "faults"),
}


def write(files: Files, root: Path, base: Mapping[str, str]) -> None:
    """The small project, with these files laid over it."""
    for name, text in {**base, **files}.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())


def judged(how: How, root: Path, loaded: Callable[[Path], set[str]], capsys: pytest.CaptureFixture[str]) -> set[str]:
    """Names of the rules that the files below `root` break."""
    if how == "load":
        return loaded(root)
    if how == "faults":
        try:
            faults.load(root / "faults.yaml")
        except faults.InvalidSchedule as error:
            return {d.rule for d in error.diagnostics}
        return set()
    if how == "requests":
        spec = load_project(root / "batchform.yaml", environment=None, env={}).specs[0]
        rules = RowRules(spec, Registry.load().model(spec.model), columns=Columns(15))
        for number, line in enumerate((root / "requests.jsonl").read_bytes().splitlines()):
            rules.look(str(number), line)
        return {d.rule for d in rules.complaints()}
    capsys.readouterr()
    code = run(["validate", "--json", "-C", str(root)])
    told = json.loads(capsys.readouterr().out)
    found = told["error"]["diagnostics"] if "error" in told else told["diagnostics"]
    assert code == (1 if "error" in told else 0)
    return {complaint["rule"] for complaint in found}

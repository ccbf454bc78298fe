"""The catalogue of rules: complete, its codes stable, its examples true."""

from __future__ import annotations

import ast
import csv
import datetime as dt
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from rule_fixtures import FIXTURES, judged, write

import batchform
from batchform.errors import Diagnostic, InvalidProject, Place
from batchform.plan.build import judge_models
from batchform.plan.override import lay_over
from batchform.plan.registry import Registry
from batchform.plan.row_rules import RowRules
from batchform.rows.request import RequestRenderer
from batchform.rules import Example, catalogue, code_of, may_be_ignored
from batchform.spec.load import load_project
from batchform.spec.resolved import ResolvedProject

_SOURCE = Path(batchform.__file__).parent
_NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)+|schema")
_NOW = dt.datetime(2026, 11, 21, tzinfo=dt.UTC)
_PROJECT = {
    "batchform.yaml": "version: 1\nproject: example\nbackends: {local: {type: emulator}}\n"
    "defaults: {backend: local, model: gemini-3.5-flash-lite}\n",
    "specs/triage.yaml": "name: triage\nsource: {type: csv, path: data/tickets.csv}\nprompt: {user: ask.j2}\n"
    "destination: {type: jsonl, path: results/triage.jsonl}\nidempotency: {key: [id]}\n",
    "templates/ask.j2": "Classify: {{ text }}",
    "schemas/answer.json": '{"type": "object", "properties": {"label": {"type": "string"}}}',
    "data/tickets.csv": "id,text\n1,It is broken\n",
}
_MERGED = ("batchform.yaml", "specs/triage.yaml")


def _merged(base: str, fields: str) -> str:
    """The fields in place of those of the same names, whatever the others are."""
    names = set(re.findall(r"^(\w+):", fields, re.MULTILINE))
    kept = [line for line in base.splitlines() if line.partition(":")[0] not in names]
    return "\n".join([*kept, fields.strip("\n"), ""])


def _complaints(example: Example, root: Path) -> list[Diagnostic]:
    files = {"specs/triage.yaml": example} if isinstance(example, str) else example
    for name, text in {**_PROJECT, **files}.items():
        base = _PROJECT.get(name, "") if name in _MERGED and name in files else ""
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(_merged(base, text) if base else text, encoding="utf-8")
    try:
        project = load_project(root / "batchform.yaml", environment=None, env={})
        registry = Registry.load()
        if project.config.prices:
            registry = lay_over(registry, root / project.config.prices, project.config.prices)
    except InvalidProject as error:
        return list(error.diagnostics)
    return [*project.warnings, *judge_models(project.specs, registry, _NOW), *_rows(project, registry)]


def _rows(project: ResolvedProject, registry: Registry) -> Iterator[Diagnostic]:
    """What is said of the rows of the small project, whose columns are `id` and `text`."""
    for spec in project.specs:
        rules, renderer = RowRules(spec, registry.model(spec.model)), RequestRenderer(spec, ("id", "text"))
        with (project.root / "data/tickets.csv").open(encoding="utf-8", newline="") as rows:
            for row in csv.DictReader(rows):
                rules.look(row["id"], renderer.render(row["id"], (row["id"], row["text"])))
        yield from rules.complaints()


def _names_in_code() -> Mapping[str, str]:
    """Rule → a place that complains of it: first arguments of whatever makes a complaint."""
    makers = {"diagnostic", "Diagnostic", "Finding", "_complain", "_problem", "bad", "_Unreadable"}
    found = {}
    for folder in ("spec", "plan", "rows", "emulator"):
        for file in (_SOURCE / folder).glob("*.py"):
            for node in ast.walk(ast.parse(file.read_text())):
                if not isinstance(node, ast.Call) or not node.args or not isinstance(node.args[0], ast.Constant):
                    continue
                maker = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
                name = node.args[0].value
                if maker in makers and isinstance(name, str) and _NAME.fullmatch(name):
                    found[name] = f"{file.name}:{node.lineno}"
    return found


def test_every_complaint_of_the_code_has_a_rule() -> None:
    known = {rule.name for rule in catalogue().values()}
    assert {name: place for name, place in _names_in_code().items() if name not in known} == {}


def test_codes_are_unique_in_order_and_found_by_name() -> None:
    rules = catalogue()
    assert list(rules) == sorted(rules)
    assert len({rule.name for rule in rules.values()}) == len(rules)
    for code, rule in rules.items():
        assert code_of(rule.name) == code
        assert rule.severity in ("error", "warning", "error or warning")
        for text in (rule.title, rule.why, rule.fix):
            assert text == text.strip()
            assert text
        assert not rule.title.endswith(".")
        assert rule.why.endswith(".")
        assert rule.fix.endswith(".")


def test_what_may_be_ignored_is_known_without_reading_all_texts() -> None:
    assert {code: may_be_ignored(code) for code in catalogue()} == {c: r.may_be_ignored for c, r in catalogue().items()}
    assert may_be_ignored("BF000") is None


def test_every_rule_has_one_failing_and_one_passing_fixture() -> None:
    lacking = {r.name for r in catalogue().values() if r.bad is None or r.good is None}
    assert lacking == set(FIXTURES)


@pytest.mark.parametrize("name", FIXTURES)
def test_a_fixture_breaks_its_rule_and_its_mended_form_does_not(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fixture = FIXTURES[name]
    found = {}
    for kind, files in (("bad", fixture.bad), ("good", fixture.good)):
        write(files, tmp_path / kind, _PROJECT)
        found[kind] = judged(fixture.how, tmp_path / kind, _loaded, capsys)
    assert name in found["bad"]
    assert found["good"] == set()


def _loaded(root: Path) -> set[str]:
    try:
        return {d.rule for d in load_project(root / "batchform.yaml", environment=None, env={}).warnings}
    except InvalidProject as error:
        return {d.rule for d in error.diagnostics}


@pytest.mark.parametrize("code", [c for c, rule in catalogue().items() if rule.bad is not None])
def test_an_example_breaks_its_rule_and_its_mended_form_breaks_none(code: str, tmp_path: Path) -> None:
    rule = catalogue()[code]
    assert rule.bad is not None
    assert rule.good is not None
    found = _complaints(rule.bad, tmp_path / "bad")
    assert code in [d.code for d in found], [d.render() for d in found]
    severities = {d.severity for d in found if d.code == code}
    assert severities <= set(rule.severity.split(" or "))
    assert [d.render() for d in _complaints(rule.good, tmp_path / "good")] == []


def test_a_complaint_shows_its_code() -> None:
    complaint = Diagnostic("unknown-field", "there is no field `x`", Place("specs/a.yaml", 3, 1))
    assert complaint.render() == "specs/a.yaml:3:1: error: there is no field `x` [BF101 unknown-field]"

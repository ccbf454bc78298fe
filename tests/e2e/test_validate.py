"""`batchform validate`: what it says to people, programs, pull requests and code scanning."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
from tests_e2e_kit import Workspace

from batchform.errors import Diagnostic, Place, RowPlace
from batchform.rules import catalogue
from batchform.view.complaints import as_sarif


@pytest.fixture
def broken(workspace: Workspace) -> Workspace:
    """Two complaints: one of them with a hint, both in one file."""
    workspace.spec(modle="x", prompt={"user": "triag.j2"})
    return workspace


def test_a_warning_is_shown_and_does_not_fail(workspace: Workspace) -> None:
    workspace.spec(output={"format": "json"})
    shown = workspace.run("validate")
    assert shown.code == 0
    assert "warning: answers are read as JSON" in shown.out
    assert "[BF504 json-not-asked]" in shown.out
    assert shown.out.endswith("1 spec valid: triage\n")
    told = workspace.run("validate", "--json").json
    assert told["valid"] is True
    assert [(d["code"], d["severity"]) for d in told["diagnostics"]] == [("BF504", "warning")]


def test_github_shows_each_complaint_at_its_line(broken: Workspace) -> None:
    shown = broken.run("validate", "--format", "github")
    assert shown.code == 1
    lines = shown.out.splitlines()
    assert len(lines) == 2
    for line in lines:
        assert line.startswith("::error file=specs/triage.yaml,line=")
    assert any(",title=BF101 unknown-field::" in line and "%0A" in line for line in lines)


def test_github_text_cannot_become_another_command(workspace: Workspace) -> None:
    workspace.spec(**{"modle\n::error ::x": "y"})
    shown = workspace.run("validate", "--format", "github")
    assert [line[:8] for line in shown.out.splitlines()] == ["::error "]


def test_sarif_names_rules_places_and_levels(broken: Workspace) -> None:
    shown = broken.run("validate", "--format", "sarif")
    assert shown.code == 1
    log: dict[str, Any] = json.loads(shown.out)
    (run,) = log["runs"]
    rules = run["tool"]["driver"]["rules"]
    assert log["version"] == "2.1.0"
    assert [r["id"] for r in rules] == ["BF101", "BF301"]
    for result in run["results"]:
        assert rules[result["ruleIndex"]]["id"] == result["ruleId"]
        place = result["locations"][0]["physicalLocation"]
        assert place["artifactLocation"]["uri"] == "specs/triage.yaml"
        assert place["region"]["startLine"] > 0
        assert result["level"] == "error"


def test_sarif_is_what_its_published_schema_says() -> None:
    """sarif-schema-2.1.0.json: as OASIS publishes it, errata 01."""
    schema = json.loads((Path(__file__).parent / "sarif-schema-2.1.0.json").read_bytes())
    validator = jsonschema_rs.validator_for(schema)
    rows = (RowPlace("Ärger\n#1", "$.contents[0]"), RowPlace("", "$"))
    complaints = [
        Diagnostic("conflicting-fields", "two of them", Place("specs/a b é#100%.yaml", 1, 2), hint="Leave one out."),
        Diagnostic("duplicate-key", "again", Place("/srv/shared/a b.yaml")),
        Diagnostic("secret-in-row", "a key", Place("specs/x.yaml", 3, 1), rows=rows, row_count=7),
        *(Diagnostic(rule.name, "x", Place("specs/x.yaml", 1), severity="warning") for rule in catalogue().values()),
    ]
    log = json.loads(as_sarif(complaints))
    assert [error.message for error in validator.iter_errors(log)] == []
    uris = [r["locations"][0]["physicalLocation"]["artifactLocation"]["uri"] for r in log["runs"][0]["results"][:2]]
    assert uris == ["specs/a%20b%20%C3%A9%23100%25.yaml", "file:///srv/shared/a%20b.yaml"]
    assert [e.message for e in validator.iter_errors(json.loads(as_sarif([])))] == []


def test_a_valid_project_has_an_empty_log(workspace: Workspace) -> None:
    log = json.loads(workspace.run("validate", "--format", "sarif").out)
    assert log["runs"][0]["results"] == []
    assert workspace.run("validate", "--format", "github").out == ""


@pytest.mark.parametrize("code", list(catalogue()))
def test_every_rule_explains_itself(workspace: Workspace, code: str) -> None:
    rule = catalogue()[code]
    shown = workspace.run("validate", "--explain", code)
    assert shown.code == 0
    assert shown.out.startswith(f"# {code} {rule.name}\n")
    assert rule.fix in shown.out
    assert workspace.run("validate", "--explain", rule.name).out == shown.out


def test_a_rule_that_does_not_exist_is_refused(workspace: Workspace) -> None:
    shown = workspace.run("validate", "--explain", "BF999")
    assert shown.code == 64
    assert "there is no rule BF999" in shown.err


def test_a_warning_can_be_ignored_with_a_reason(workspace: Workspace) -> None:
    workspace.spec(output={"format": "json"}, ignore=[{"rule": "BF504", "reason": "the prompt asks for it"}])
    assert workspace.run("validate").out == "1 spec valid: triage\n"


def test_what_a_model_is_thought_to_refuse_can_be_ignored(workspace: Workspace) -> None:
    too_much = {"max_output_tokens": 10_000_000}
    workspace.spec(generation_config=too_much)
    assert workspace.run("plan").code == 1
    workspace.spec(generation_config=too_much, ignore=[{"rule": "BF407", "reason": "raised in November"}])
    assert workspace.run("validate").code == 0
    assert workspace.run("plan").code == 0


@pytest.mark.parametrize(
    ("entry", "complaint"),
    [
        ({"rule": "BF101", "reason": "x"}, "BF101 unknown-field cannot be ignored"),
        ({"rule": "BF999", "reason": "x"}, "there is no rule BF999"),
        ({"rule": "BF504"}, "`reason` is missing in `ignore[0]`"),
        ({"rule": "json-not-asked", "reason": "x"}, "ignore[0].rule"),
    ],
)
def test_ignoring_has_rules_of_its_own(workspace: Workspace, entry: dict[str, str], complaint: str) -> None:
    workspace.spec(output={"format": "json"}, ignore=[entry])
    shown = workspace.run("validate")
    assert shown.code == 1
    assert complaint in shown.err


def test_plan_and_apply_say_once_that_there_are_warnings(workspace: Workspace) -> None:
    workspace.spec(output={"format": "json"})
    said = "1 warning (BF504 json-not-asked): `batchform validate` shows it.\n"
    assert workspace.ok("plan").err == said
    assert workspace.ok("plan", "--quiet").err == ""
    assert workspace.ok("plan", "--json").err == ""
    assert workspace.run("apply", "--yes").err.count(said) == 1


def test_rows_are_judged_as_a_plan_would(workspace: Workspace) -> None:
    rows = [workspace.row(i) for i in range(1, 4)]
    rows[2]["body"] = "AIzaSyA" + "0" * 32
    workspace.rows(rows)
    assert "[BF701 secret-in-row]" in workspace.run("validate").err
    assert workspace.run("validate", "--sample", "2").code == 0
    assert workspace.run("validate", "--sample", "0").code == 0
    told = workspace.run("validate", "--format", "github")
    assert told.code == 1
    assert told.out.startswith("::error file=specs/triage.yaml,line=")


def test_rows_that_cannot_be_used_are_a_complaint_with_a_place(workspace: Workspace) -> None:
    workspace.rows([workspace.row(1), workspace.row(1)])
    refused = workspace.run("validate", "--json")
    assert refused.code == 1
    (complaint,) = refused.json["error"]["diagnostics"]
    assert (complaint["code"], complaint["rule"]) == ("BF705", "row-fails")
    workspace.rows([workspace.row(1)])
    workspace.write("templates/triage.j2", "{{ nope }}")
    assert "BF705 row-fails" in workspace.run("validate").err


def test_rows_that_are_not_here_are_left_out_and_named(workspace: Workspace) -> None:
    (workspace.root / "data/tickets.csv").unlink()
    shown = workspace.ok("validate")
    assert shown.out == "1 spec valid: triage\n"
    assert shown.err.startswith("rows of triage were not checked: ")
    workspace.spec(source={"type": "csv", "path": "gs://bucket/tickets.csv"})
    assert workspace.ok("validate").err == "rows of triage were not checked: they are not on this machine\n"


def test_answered_rows_are_not_rendered_again(workspace: Workspace) -> None:
    """What was sent is not judged: only what would be sent now."""
    workspace.ok("apply", "--yes")
    workspace.rows([workspace.row(i) for i in range(1, 7)])
    assert workspace.ok("validate").out == "1 spec valid: triage\n"
    assert not (workspace.root / "results/other.jsonl").exists()


def test_a_ledger_elsewhere_is_not_asked(workspace: Workspace) -> None:
    workspace.project(ledger="gs://nowhere/ledger")
    rows = [workspace.row(1)]
    rows[0]["body"] = "AIzaSyA" + "0" * 32
    workspace.rows(rows)
    assert "[BF701 secret-in-row]" in workspace.run("validate").err

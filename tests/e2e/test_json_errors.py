"""With --json every command that fails says so in one JSON object on stdout, and as text on stderr."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest
from tests_e2e_kit import Workspace


@pytest.mark.parametrize(
    ("command", "code", "kind"),
    [
        (["apply", "--json"], 64, "UsageError"),
        (["plan", "--json", "--nope"], 64, "UsageError"),
        (["aply", "--json"], 64, "UsageError"),
        (["explain", "triage", "T-99", "--json"], 64, "UsageError"),
        (["plan", "--env", "nope", "--json"], None, None),
        (["rerun", "--json", "triage", "--where", "nope = 1"], 1, "SourceError"),
        (["apply", "nowhere", "--json"], 64, "UsageError"),
        (["results", "nope", "--json"], 64, "UsageError"),
    ],
)
def test_an_error_is_one_json_object(workspace: Workspace, command: list[str], code: int | None, kind: str) -> None:
    done = workspace.run(*command)
    assert done.code != 0 and done.err
    told = done.json
    assert told["exit_code"] == done.code
    assert set(told["error"]) >= {"message", "hint", "place", "type"}
    assert told["error"]["message"].splitlines()[0] in done.err
    if code is not None:
        assert (done.code, told["error"]["type"]) == (code, kind)


def test_complaints_about_files_keep_their_places(workspace: Workspace) -> None:
    workspace.spec(modle="x")
    done = workspace.run("validate", "--json")
    error = done.json["error"]
    assert (done.code, done.json["exit_code"], error["type"], error["place"]) == (1, 1, "InvalidProject", None)
    assert any(d["place"].startswith("specs/triage.yaml:") and "modle" in d["message"] for d in error["diagnostics"])


def test_limits_are_told_to_programs(workspace: Workspace) -> None:
    workspace.spec(limits={"max_rows": 1})
    done = workspace.run("apply", "--yes", "--json")
    assert (done.code, done.json["exit_code"], done.json["error"]["type"]) == (3, 3, "LimitExceeded")
    assert workspace.billed() == []


def test_an_outcome_is_not_told_twice(workspace: Workspace) -> None:
    workspace.rows([workspace.row(1), workspace.row(2, body="[[emulator:block]]")])
    done = workspace.run("apply", "--yes", "--json")
    assert len(done.out.splitlines()) == 1
    assert done.json["exit_code"] == done.code


def test_without_json_stdout_stays_empty(workspace: Workspace) -> None:
    done = workspace.run("apply")
    assert (done.code, done.out.count("{")) == (64, 0)
    assert workspace.run("explain", "triage", "--", "--json").out == ""


def test_a_reader_that_left_is_no_traceback(workspace: Workspace) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-m", "batchform", "explain", "triage", "T-99", "--json"],
        cwd=workspace.root, stdout=writing, stderr=subprocess.PIPE, text=True, check=False,
    )  # fmt: skip
    os.close(writing)
    assert "Traceback" not in done.stderr and "T-99" in done.stderr


@pytest.mark.parametrize(
    "content", ["[]", "1", '"text"', "null", "{}", "{", "[" * 100_000, b"\xff", '{"bundle_format": 1}']
)
def test_a_manifest_that_is_none_is_named(workspace: Workspace, content: Any) -> None:
    workspace.write("saved/bundle.json", content)
    for command in ("apply", "show"):
        done = workspace.run(command, "saved", "--json")
        message = done.json["error"]["message"]
        assert (done.code, json.loads(done.out)["error"]["type"]) == (64, "UsageError")
        assert "saved/bundle.json is not a saved plan: " in message
        assert "attribute" not in message

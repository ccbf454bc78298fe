"""Every command, as its user would type it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
from tests_e2e_kit import Workspace

from batchform.cli.app import _COMMANDS

SLOW = {"local": {"type": "emulator", "job_seconds": 60, "poll": "50ms"}}


def _batchform(*arguments: str, cwd: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "batchform", *arguments],
        cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, stdin=subprocess.DEVNULL,
    )  # fmt: skip


@pytest.mark.parametrize("command", _COMMANDS)
def test_every_command_has_help(workspace: Workspace, command: str) -> None:
    assert "Usage:" in workspace.ok(command, "--help").out


def test_unknown_command_names_the_nearest(workspace: Workspace) -> None:
    found = workspace.run("aply")
    assert (found.code, "'apply'" in found.err) == (64, True)


def test_unknown_option_is_a_usage_error(workspace: Workspace) -> None:
    assert workspace.run("plan", "--nope").code == 64


def test_init_makes_a_working_project(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    workspace.ok("init", "fresh")
    monkeypatch.chdir(workspace.root / "fresh")
    workspace.ok("validate")
    assert workspace.plan()["rows_to_send"] == 10
    workspace.ok("apply", "--yes")
    assert workspace.actions() == {"keep": 10}
    again = workspace.run("init")
    assert (again.code, "nothing was changed" in again.err) == (64, True)


def test_commands_find_the_project_from_a_folder_inside_it(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(workspace.root / "data")
    workspace.ok("validate")
    monkeypatch.chdir(workspace.root.parent)
    assert workspace.run("validate").code != 0
    workspace.ok("validate", "-C", "project")


def test_environments_have_their_own_ledger(workspace: Workspace) -> None:
    workspace.project(environments={"prod": {"ledger": ".prod"}})
    workspace.apply()
    assert workspace.actions() == {"keep": 6}
    assert workspace.plan("--env", "prod")["rows_to_send"] == 6
    assert workspace.run("plan", "--env", "nope").code != 0


def test_status_jobs_and_cancel(workspace: Workspace) -> None:
    workspace.project(backends=SLOW)
    workspace.ok("apply", "--yes", "--detach")
    status = workspace.ok("status", "--json").json
    assert status["specs"][0]["rows"] == {"in_flight": 6}
    tag = workspace.ok("jobs", "list", "--json").json[0]["tag"]
    assert tag in workspace.ok("jobs", "list").out
    shown = workspace.ok("jobs", "show", tag).json
    assert shown["service"]["tag"] == tag
    refused = workspace.run("jobs", "delete", tag)
    assert (refused.code, "not settled" in refused.err) == (64, True)
    workspace.ok("jobs", "cancel", tag)
    synced = workspace.run("sync", "--json")
    assert synced.json["rows"] == {"triage": {"cancelled": 6}}
    assert workspace.billed() == []
    assert workspace.plan()["rows_to_send"] == 6, "sync leaves what was cancelled alone; a reviewed apply sends it"
    workspace.ok("jobs", "delete", tag)
    assert "triage" in workspace.ok("status").out
    near = workspace.run("jobs", "show", tag[:-1])
    assert (near.code, tag in near.err) == (64, True)


def test_results_explain_and_render(workspace: Workspace) -> None:
    assert workspace.run("results", "triage").code == 64
    workspace.apply()
    rows = [json.loads(line) for line in workspace.ok("results", "triage", "--rows", "2", "--json").out.splitlines()]
    assert [r["id"] for r in rows] == ["T-1", "T-2"]
    assert "T-5" in workspace.ok("results", "triage", "--key", "T-5").out
    assert workspace.run("results", "triage", "--key", "T-9").code == 64
    request = workspace.ok("render", "triage", "--key", "T-3").json
    assert request["contents"][0]["parts"][0]["text"] == "Title: ticket 3\nBody: text 3"
    assert len(workspace.ok("render", "triage", "--all").out.splitlines()) == 6
    assert workspace.ok("explain", "triage", "T-3", "--json").json["action"] == "keep"
    workspace.rows([workspace.row(i, body=f"changed {i}") for i in range(1, 7)])
    found = workspace.ok("explain", "triage", "T-3", "--json").json
    assert (found["action"], found["reason"]) == ("rerun", "row_changed")
    assert "text 3" in found["before"]
    assert "changed 3" in found["after"]
    assert "+  Body: changed 3" in workspace.ok("explain", "triage", "T-3").out
    assert workspace.run("explain", "triage", "T-33").code == 64


def test_try_sends_the_exact_request_and_records_nothing(workspace: Workspace) -> None:
    tried = [json.loads(line) for line in workspace.ok("try", "triage", "--rows", "2", "--json").out.splitlines()]
    assert [t["class"] for t in tried] == ["answered", "answered"]
    assert workspace.actions() == {"run": 6}
    workspace.apply()
    answers = {r["id"]: r["text"] for r in workspace.delivered()}
    assert [answers[t["key"]] for t in tried] == [t["text"] for t in tried]


def test_ledger_commands(workspace: Workspace, tmp_path: Path) -> None:
    assert "nothing is recorded" in workspace.ok("ledger", "list").out
    workspace.apply()
    assert "holds together" in workspace.ok("ledger", "verify").out
    workspace.ok("ledger", "compact")
    assert workspace.ok("ledger", "verify", "--json").json["ok"]
    assert workspace.actions() == {"keep": 6}
    for kind in ("parquet", "jsonl", "csv"):
        workspace.ok("ledger", "export", str(tmp_path / kind), "--format", kind)
        assert list((tmp_path / kind).iterdir())
    archive = next((workspace.root / ".batchform/archive").glob("*[0-9].jsonl.gz"))
    archive.unlink()
    assert archive.name in workspace.run("ledger", "verify").out


def test_schema_of_both_files(workspace: Workspace) -> None:
    assert workspace.ok("schema", "spec").json["properties"]["idempotency"]
    assert workspace.ok("schema", "project").json["properties"]["backends"]
    workspace.ok("schema", "--out", "schemas/editor")
    assert len(list((workspace.root / "schemas/editor").iterdir())) == 2


def test_rerun_refuses_what_is_not_there(workspace: Workspace) -> None:
    assert workspace.run("rerun", "triage").code == 64
    assert workspace.run("rerun", "triage", "--key", "T-99").code == 64
    assert workspace.run("rerun", "triage", "--where", "nope = 1").code == 1
    assert workspace.run("rerun", "triag", "--key", "T-1").code == 64
    assert not (workspace.root / ".batchform/head.json").exists()


def test_rows_that_cost_are_asked_for(workspace: Workspace) -> None:
    refused = workspace.run("apply")
    assert (refused.code, "--yes" in refused.err) == (64, True)
    assert workspace.billed() == []


def test_selecting_specs(workspace: Workspace) -> None:
    text = (workspace.root / "specs/triage.yaml").read_text()
    workspace.write("specs/other.yaml", text.replace("name: triage", "name: other").replace("triage.jsonl", "o.jsonl"))
    assert [s["name"] for s in workspace.ok("plan", "--json").json["specs"]] == ["other", "triage"]
    found = workspace.ok("plan", "--json", "--select", "tri*").json
    assert [s["name"] for s in found["specs"]] == ["triage"]
    near = workspace.run("plan", "--select", "triagee")
    assert (near.code, "triage" in near.err) == (64, True)


@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGTERM])
def test_interrupt_detaches_and_sync_comes_back(workspace: Workspace, kind: signal.Signals) -> None:
    workspace.project(backends={"local": {"type": "emulator", "job_seconds": 4, "poll": "50ms"}})
    process = _batchform("apply", "--yes", cwd=workspace.root)
    head = workspace.root / ".batchform/head.json"
    for _ in range(600):
        time.sleep(0.05)
        named = json.loads(head.read_text())["segments"] if head.exists() else []
        events = [workspace.root / ".batchform" / s["name"] for s in named if s["kind"] == "events"]
        if any('"Submitted"' in path.read_text() for path in events):
            break
    process.send_signal(kind)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "batchform sync --wait" in err
    assert "Traceback" not in err
    assert workspace.actions() == {"in_flight": 6}
    workspace.ok("sync", "--wait")
    assert (workspace.actions(), len(workspace.billed())) == ({"keep": 6}, 6)


def test_emulator_serves_other_programs(tmp_path: Path) -> None:
    process = _batchform("emulator", "serve", "--port", "0", "--state", str(tmp_path / "state"), cwd=tmp_path)
    assert process.stdout is not None
    url = next(word for word in process.stdout.readline().split() if word.startswith("http")).rstrip(";")
    request = urllib.request.Request(f"{url}/v1/models", headers={"x-goog-api-key": "k"})
    with urllib.request.urlopen(request) as answer:
        assert json.load(answer)["models"]
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=30)
    assert process.returncode == 0


def test_help_imports_nothing_heavy() -> None:
    script = (
        "import sys; from batchform.cli import run; run(['--help']); "
        "heavy = {'pydantic', 'duckdb', 'jinja2', 'yaml', 'rich', 'pyarrow', 'google'} & set(sys.modules); "
        "sys.exit(str(heavy) if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def _python(script: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", script]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=cwd, env=os.environ)


def test_a_process_ends_with_all_that_waited_for_its_end(workspace: Workspace) -> None:
    for late in ("import atexit; atexit.register(print, 'late')", _LATE_THREAD):
        done = _python(f"{late}; from batchform.cli import main; main(['validate'])", workspace.root)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.splitlines()[-1] == "late"


_LATE_THREAD = "import threading as t; t.Thread(target=lambda: (t.main_thread().join(), print('late'))).start()"


def test_validating_looks_for_no_plugins(workspace: Workspace) -> None:
    script = "import sys; from batchform.cli import _start_quickly, run; _start_quickly(); "
    script += "run(['validate', '--sample', '0']); "
    done = _python(script + "sys.exit('importlib.metadata' in sys.modules)", workspace.root)
    assert done.returncode == 0, done.stderr


def test_planning_imports_no_google_library(workspace: Workspace) -> None:
    workspace.apply()
    script = (
        "import sys; from batchform.cli import run; run(['validate']); run(['plan']); "
        "heavy = {'google.genai', 'pyarrow', 'starlette', 'rich'} & set(sys.modules); "
        "sys.exit(str(heavy) if heavy else 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False, cwd=workspace.root, env=os.environ
    )
    assert done.returncode == 0, done.stderr

"""The composite action and the pre-commit hook of this repository: valid, and run as their hosts run them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from forge_server import GITHUB_TOKEN, ForgeServer
from pre_commit.clientlib import load_manifest
from runner_kit import Runner, check_schema, make_repository

ROOT = Path(__file__).resolve().parents[2]
PULL = {"number": 7, "pull_request": {"number": 7, "head": {"sha": "0123456789abcdef"}}}


@pytest.fixture(scope="module")
def action() -> Any:
    return yaml.safe_load((ROOT / "action.yml").read_text(encoding="utf-8"))


def use(machine: Runner, action: Any, **inputs: str) -> tuple[list[int], dict[str, str]]:
    """Exit codes of the action's steps, and its outputs."""
    given = {name: str(i.get("default", "")) for name, i in action["inputs"].items()} | inputs | {"token": GITHUB_TOKEN}
    outputs = machine.folder / "outputs"
    outputs.write_text("")
    env = {"GITHUB_ACTION_PATH": str(ROOT), "GITHUB_OUTPUT": str(outputs)}
    workflow = {
        "env": env,
        "defaults": {"run": {"working-directory": given["directory"]}},
        "jobs": {"use": {"steps": action["runs"]["steps"]}},
    }
    codes = machine.github(workflow, "use", {f"inputs.{name}": value for name, value in given.items()}, PULL)
    return codes, dict(line.split("=", 1) for line in outputs.read_text().splitlines())


def test_the_action_is_valid(action: Any) -> None:
    check_schema("github-actions", action)
    for step in action["runs"]["steps"]:
        assert "run" not in step or ("${{" not in step["run"] and step["shell"] == "bash")


def test_the_action_validates_plans_and_applies(
    action: Any, program: Path, forge: ForgeServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("BATCHFORM_ENV", raising=False)
    repository = make_repository(tmp_path / "repository")
    machine = Runner(tmp_path / "runner", repository, program, forge.url, {})
    assert use(machine, action, command="validate", directory="llm") == ([0, 0], {"exit-code": "0"}), machine.log
    assert "1 spec" not in machine.log, "the form is that of annotations"
    codes, outputs = use(
        machine, action, command="plan", directory="llm", args="--detailed-exitcode -s 'tri*'", comment="true"
    )
    assert (codes, outputs["exit-code"]) == ([0, 2], "2"), machine.log
    assert "10 to send" in (machine.folder / "summary.md").read_text()
    assert len(forge.bodies()) == 1
    assert (Path(outputs["plan"]) / "bundle.json").is_file()
    codes, outputs = use(machine, action, command="plan", directory="llm", args="-s nothing", comment="true")
    assert codes[1] not in (0, 2) and "no plan of llm" in forge.bodies()[0], "the plan of the step before was posted"
    # Half of the arguments would apply more than was meant.
    codes, outputs = use(machine, action, command="apply", directory="llm", args="--select triage's")
    assert (codes, outputs) == ([0, 64], {}) and "is a quote not closed?" in machine.log
    codes, outputs = use(machine, action, command="apply", directory="llm", args="--quiet", extras="bigquery,sql")
    assert (codes, outputs) == ([0, 0], {"exit-code": "0"}), machine.log
    assert len((repository / "llm/results/triage.jsonl").read_text().splitlines()) == 10
    assert use(machine, action, command="init; rm -rf .", directory="llm")[0] == [0, 64]
    assert (repository / "llm").is_dir()
    assert machine.installed.read_text().split() == [str(ROOT)] * 4 + [f"{ROOT}[bigquery,sql]", str(ROOT)]


def test_the_pre_commit_hook(program: Path, tmp_path: Path) -> None:
    """The real pre-commit takes our manifest, and runs the hook's entry on a real commit."""
    [hook] = load_manifest(str(ROOT / ".pre-commit-hooks.yaml"))
    assert hook["language"] == "python"
    repository = make_repository(tmp_path / "repository")
    (tmp_path / "repository/.pre-commit-config.yaml").write_text(
        yaml.safe_dump({"repos": [{"repo": "local", "hooks": [{**hook, "language": "system"}]}]})
    )
    (repository / "batchform.yaml").write_text((repository / "llm/batchform.yaml").read_text())
    for folder in ("specs", "templates", "schemas", "data"):
        (repository / "llm" / folder).rename(repository / folder)
    path = os.pathsep.join([str(program.parent), str(Path(sys.executable).parent), os.environ["PATH"]])
    env = {**os.environ, "PATH": path, "PRE_COMMIT_HOME": str(tmp_path / "home")}

    def commit(name: str, text: str) -> subprocess.CompletedProcess[str]:
        (repository / name).write_text(text)
        command = f"git add {name} && pre-commit run --verbose"
        return subprocess.run(
            command, shell=True, cwd=repository, env=env, capture_output=True, text=True, check=False, timeout=60
        )

    assert "(no files to check)Skipped" in commit("notes.txt", "nothing of ours").stdout
    done = commit("specs/triage.yaml", (repository / "specs/triage.yaml").read_text() + "\ntags: [support]\n")
    assert done.returncode == 0 and "Passed" in done.stdout, done.stdout
    done = commit("specs/triage.yaml", "name: triage\nmodle: x\n")
    assert done.returncode == 1
    assert "did you mean" in done.stdout.lower() and "specs/triage.yaml:2:1" in done.stdout

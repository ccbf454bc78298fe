"""The workflow files that batchform writes: valid, safe, and each of their steps does what it says.

They are held to the published JSON Schemas of GitHub and GitLab, and audited by zizmor. Every `run:` step is executed
by bash in a scratch git repository, with an emulator in place of Gemini and of GitHub.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from forge_server import ForgeServer
from packaging.requirements import Requirement
from runner_kit import Runner, check_schema, make_repository

from batchform import __version__
from batchform.cli import run
from batchform.emulator import EmulatorServer

PULL = {"number": 7, "pull_request": {"number": 7, "head": {"sha": "0123456789abcdef"}}}
GITLAB_PULL = {"CI_MERGE_REQUEST_IID": "7", "CI_PIPELINE_SOURCE": "merge_request_event"}


def read_yaml(path: Path) -> Any:
    """YAML 1.2 as the services read it: `on` is a word."""
    return yaml.safe_load(re.sub(r"(?m)^on:", '"on":', path.read_text(encoding="utf-8")))


@pytest.fixture(scope="module")
def emulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmulatorServer]:
    with EmulatorServer(tmp_path_factory.mktemp("emulator"), job_seconds=0) as server:
        yield server


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Path:
    root = make_repository(tmp_path / "repository")
    file = root / "llm/batchform.yaml"
    text = file.read_text().replace("ledger: .batchform ", "ledger: ${ENV:BATCHFORM_LEDGER} ")
    file.write_text(
        text.replace("backend: local", "backend: gemini").replace("{type: gemini}", "{type: gemini, poll: 0.1}")
    )
    subprocess.run("git -c user.name=a -c user.email=a@b commit -qam two", shell=True, cwd=root, check=True)
    monkeypatch.chdir(root / "llm")
    monkeypatch.delenv("BATCHFORM_ENV", raising=False)
    capsys.readouterr()
    return root


@pytest.fixture
def machine(repository: Path, program: Path, forge: ForgeServer, emulator: EmulatorServer) -> Runner:
    env = {"GOOGLE_GEMINI_BASE_URL": emulator.url}
    return Runner(repository.parent / "runner", repository, program, forge.url, env)


def contexts(ledger: Path) -> dict[str, str]:
    return {"vars.BATCHFORM_LEDGER": str(ledger), "secrets.GEMINI_API_KEY": "a-secret-key"}


def allow(repository: Path, folder: Path) -> None:
    """Let the ledger lie on a disk that runners keep."""
    file = repository / "llm/batchform.yaml"
    file.write_text(f"{file.read_text()}\nallow_paths: [{folder}]\n")


def write(repository: Path, service: str, *options: str) -> Any:
    assert run(["ci", service, *options]) == 0
    name = ".github/workflows/batchform.yml" if service == "github" else ".gitlab-ci.yml"
    return read_yaml(repository / name)


def add_row(repository: Path) -> None:
    rows = repository / "llm/data/tickets.csv"
    rows.write_text(rows.read_text() + "T-999,Late,It is late\n")


def edit_prompt(repository: Path, text: str) -> None:
    template = next((repository / "llm/templates").glob("*.j2"))
    template.write_text(template.read_text() + text)
    subprocess.run("git -c user.name=a -c user.email=a@b commit -qam edit", shell=True, cwd=repository, check=True)


def test_a_pull_request_on_github_from_review_to_delivery(
    repository: Path, machine: Runner, forge: ForgeServer, tmp_path: Path
) -> None:
    allow(repository, tmp_path)
    workflow = write(repository, "github", "--runs-on", "self-hosted,batchform")
    check_schema("github-workflows", workflow)
    given = contexts(tmp_path / "ledger")

    assert machine.github(workflow, "validate", {}, PULL) == [0, 0], machine.log
    assert machine.github(workflow, "plan", given, PULL) == [0, 0, 0], machine.log
    [comment] = forge.bodies()
    assert "**Plan: 10 to send" in comment and "Planned at `0123456789`" in comment
    edit_prompt(repository, "\nBe brief.\n")
    assert machine.github(workflow, "plan", given, PULL) == [0, 0, 0], machine.log
    assert len(forge.bodies()) == 1 and forge.bodies() != [comment]

    # Merged: what the comment shows is sent, also when a row came meanwhile; a plan that nobody saw is not.
    forge.pulls = [
        {"number": 7, "merged_at": "2026-01-01T00:00:00Z", "base": {"ref": "main"}},
        {"number": 9, "merged_at": None},
    ]
    shown, forge.comments[0]["body"] = forge.comments[0]["body"], comment
    assert machine.github(workflow, "apply", given, {}) == [0, 0, 0, 4], machine.log
    assert "outside what was approved: " in machine.log
    forge.comments[0]["body"] = shown
    add_row(repository)
    assert machine.github(workflow, "apply", given, {}) == [0, 0, 0, 0], machine.log
    assert "approved in GitHub #7: 11 rows" in machine.log
    assert "a-secret-key" not in machine.log

    assert machine.github(workflow, "sync", given, {}) == [0, 0], machine.log
    assert list((repository / "llm/results").iterdir())
    assert machine.github(workflow, "drift", given, {}) == [0, 0, 0], machine.log
    assert "No drift" in (machine.folder / "summary.md").read_text() and forge.issues == []

    # An edit is merged whose rows wait: nothing would be sent, and somebody has to decide.
    subprocess.run("git -c user.name=a -c user.email=a@b commit -qam rows", shell=True, cwd=repository, check=True)
    edit_prompt(repository, "\nBe very brief.\n")
    assert machine.github(workflow, "drift", given, {}) == [0, 0, 2], machine.log
    [issue] = forge.opened()
    assert issue["title"].endswith("11 rows wait for a decision") and "on_prompt_change: ask" in issue["body"]
    assert "apply --approved" not in issue["body"] and issue["body"] in (machine.folder / "summary.md").read_text()
    assert {str(Requirement(line)) for line in machine.installed.read_text().split()} == {f"batchform=={__version__}"}


def test_a_failed_plan_is_told_in_the_comment_and_fails_the_check(
    repository: Path, machine: Runner, forge: ForgeServer, tmp_path: Path
) -> None:
    workflow = write(repository, "github", "--runs-on", "self-hosted")
    given = contexts(tmp_path / "ledger")
    allow(repository, tmp_path)
    file = repository / "llm/batchform.yaml"
    text = file.read_text()
    file.write_text(text.replace("max_rows: 10000", "max_rows: 3"))
    assert machine.github(workflow, "plan", given, PULL) == [0, 3, 0], machine.log
    assert "is held by max_rows" in forge.bodies()[0]
    subprocess.run(["rm", "-r", str(machine.temp / "plan")], check=True)
    file.write_text(text + "\nnonsense: 1\n")
    assert machine.github(workflow, "plan", given, PULL) == [0, 1, 0], machine.log
    assert len(forge.bodies()) == 1 and "no plan of llm" in forge.bodies()[0]


def test_a_merge_request_on_gitlab_from_review_to_delivery(
    repository: Path, machine: Runner, forge: ForgeServer, tmp_path: Path
) -> None:
    pipeline = write(repository, "gitlab", "--runs-on", "batchform")
    allow(repository, tmp_path)
    check_schema("gitlab-ci", pipeline)
    env = {"BATCHFORM_LEDGER": str(tmp_path / "ledger"), "GEMINI_API_KEY": "a-secret-key"}
    assert machine.gitlab(pipeline, "batchform-validate", GITLAB_PULL) == 0, machine.log
    assert machine.gitlab(pipeline, "batchform-plan", env | GITLAB_PULL) == 0, machine.log
    [comment] = forge.bodies("project_42_bot")
    digest = re.search(r"Digest `([0-9a-f]{12})`", comment)
    assert digest
    assert machine.gitlab(pipeline, "batchform-apply", env | {"BATCHFORM_DIGEST": digest[1]}) == 0, machine.log
    assert machine.gitlab(pipeline, "batchform-sync", env) == 0, machine.log
    add_row(repository)
    assert machine.gitlab(pipeline, "batchform-drift", env) == 2, machine.log
    [issue] = forge.opened()
    assert "1 row to send for $" in issue["title"] and "issue of GitLab: opened" in machine.log
    subprocess.run(["git", "checkout", "-q", "--", "llm/data"], cwd=repository, check=True)
    assert machine.gitlab(pipeline, "batchform-drift", env) == 0, machine.log
    assert forge.opened() == []


def test_google_cloud_is_signed_in_to(repository: Path, machine: Runner, tmp_path: Path) -> None:
    workflow = write(repository, "github")
    check_schema("github-workflows", workflow)
    jobs = workflow["jobs"]
    signed = {name for name, job in jobs.items() if any("google" in s.get("uses", "") for s in job["steps"])}
    assert signed == {"plan", "apply", "sync", "drift"}
    assert all(("id-token" in job["permissions"]) == (name in signed) for name, job in jobs.items())
    pipeline = write(repository, "gitlab")
    check_schema("gitlab-ci", pipeline)
    sign_in = "\n".join(pipeline[".batchform"]["before_script"]).replace("/tmp/", f"{tmp_path}/")
    audience = {"GOOGLE_ID_TOKEN": "e.y.J", "GOOGLE_AUDIENCE": "//iam.googleapis.com/projects/1/x"}
    assert machine.script(sign_in, audience) == 0, machine.log
    told = json.loads((tmp_path / "google.json").read_text())
    assert told["type"] == "external_account" and told["audience"] == audience["GOOGLE_AUDIENCE"]
    assert (tmp_path / "google-id-token").read_text() == "e.y.J"


def test_an_audit_finds_nothing(repository: Path) -> None:
    """zizmor: unpinned actions, expressions in scripts, permissions that are too wide, credentials left behind, …"""
    write(repository, "github")
    zizmor = Path(sys.executable).with_name("zizmor")
    done = subprocess.run(
        [zizmor, "--offline", "--no-progress", "--quiet", "--format", "json", "--persona", "regular", ".github"],
        cwd=repository, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert json.loads(done.stdout) == []
    assert done.returncode == 0


def test_forks_get_no_secret_and_no_token_that_writes(repository: Path) -> None:
    workflow = write(repository, "github")
    assert "pull_request_target" not in workflow["on"]
    assert workflow["permissions"] == {}
    validate = workflow["jobs"]["validate"]
    assert validate["permissions"] == {"contents": "read"}
    assert "${{" not in json.dumps(validate)
    for name, job in workflow["jobs"].items():
        assert job["timeout-minutes"] <= 120
        assert ("pull_request'" in job["if"]) == (name in ("validate", "plan"))
        keys = [s for s in job["steps"] if "secrets.GEMINI_API_KEY" in json.dumps(s)]
        assert len(keys) == (1 if name in ("apply", "sync") else 0), name
    assert "head.repo.full_name == github.repository" in workflow["jobs"]["plan"]["if"]
    assert workflow["jobs"]["apply"]["concurrency"]["queue"] == "max"
    assert all(
        re.search(r"@[0-9a-f]{40}$", s["uses"]) for j in workflow["jobs"].values() for s in j["steps"] if "uses" in s
    )


def test_a_file_that_is_another_is_shown_and_left(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(repository, "github")
    capsys.readouterr()
    assert run(["ci", "github"]) == 0
    assert "is up to date" in capsys.readouterr().out
    file = repository / ".github/workflows/batchform.yml"
    mine = file.read_text().replace("timeout-minutes: 25", "timeout-minutes: 5")
    file.write_text(mine)
    assert run(["ci", "github"]) == 64
    told = capsys.readouterr()
    assert "-    timeout-minutes: 5\n+    timeout-minutes: 25\n" in told.out and "--force" in told.err
    assert file.read_text() == mine
    assert run(["ci", "github", "--force"]) == 0
    assert file.read_text() != mine
    assert run(["ci", "github", "--out", "-", "--branch", "trunk"]) == 0
    assert "branches: [trunk]" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("ledger", "options", "told"),
    [
        (".batchform", [], "in the checkout, which each job cleans"),
        (".batchform", ["--runs-on", "mine"], "in the checkout, which each job cleans"),
        ("/srv/ledger", [], "on a runner that is thrown away"),
        ("${ENV:BATCHFORM_LEDGER}", ["--branch", "a'b"], "cannot stand in a workflow"),
    ],
)
def test_what_would_not_work_is_refused(
    repository: Path, capsys: pytest.CaptureFixture[str], ledger: str, options: list[str], told: str
) -> None:
    file = repository / "llm/batchform.yaml"
    file.write_text(file.read_text().replace("${ENV:BATCHFORM_LEDGER}", ledger) + "\nallow_paths: [/srv]\n")
    assert run(["ci", "github", *options]) == 64
    assert told in capsys.readouterr().err
    assert not (repository / ".github").exists()


def test_variables_are_secrets_or_not_by_what_they_are_for(repository: Path) -> None:
    file = repository / "llm/batchform.yaml"
    file.write_text(file.read_text() + "\ndatabases: {shop: {url: \"${ENV:SHOP_DB}\"}}\nenvironments: "
                    "{prod: {google_cloud: {project: \"${ENV:CLOUD}\"}}, dev: {ledger: \"${ENV:DEV}\"}}\n")  # fmt: skip
    assert run(["ci", "github", "--env", "prod"]) == 0
    workflow = read_yaml(repository / ".github/workflows/batchform-prod.yml")
    assert workflow["env"] == {"BATCHFORM_ENV": "prod"}
    assert workflow["jobs"]["plan"]["env"] == {
        "BATCHFORM_LEDGER": "${{ vars.BATCHFORM_LEDGER }}",
        "SHOP_DB": "${{ secrets.SHOP_DB }}",
        "CLOUD": "${{ vars.CLOUD }}",
    }

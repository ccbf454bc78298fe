"""A runner: executes the `run:` steps of a workflow with bash, with the variables that GitHub and GitLab set."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema_rs
from forge_server import GITHUB_TOKEN, GITLAB_TOKEN

from batchform.cli import run

_PROGRAMS = {
    # What is installed is on this machine already: that the requirement is one, and ours, is looked at.
    "python": f'#!/bin/bash\n[[ "$1 $2 $3" == "-m pip install" ]] || exec {sys.executable} "$@"\n'
    'echo "${@: -1}" >> "$INSTALLED"\n',
}


class Runner:
    """One machine. program: stands for batchform; url: of the forge's API; env: what every job is given beside the
    runner's own."""

    def __init__(self, folder: Path, repository: Path, program: Path, url: str, env: dict[str, str]) -> None:
        self.repository = repository
        self.folder = folder
        self.temp = folder / "temp"
        programs = folder / "programs"
        for made in (self.temp, programs):
            made.mkdir(parents=True)
        for name, text in _PROGRAMS.items():
            (programs / name).write_text(text, encoding="utf-8")
            (programs / name).chmod(0o755)
        (programs / "batchform").symlink_to(program)
        self.installed = folder / "installed"
        self.log = ""
        self._url = url
        self._env = {
            "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
            "HOME": os.environ.get("HOME", "/"),
            "SSL_CERT_FILE": os.environ.get("SSL_CERT_FILE", ""),
            "LANG": "C.UTF-8",
            "CI": "true",
            "INSTALLED": str(self.installed),
            **env,
        }

    def commit(self) -> str:
        return subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=self.repository, check=True, capture_output=True, text=True
        ).stdout.strip()

    def script(self, script: str, env: dict[str, str], folder: str = ".") -> int:
        """Run one script as `shell: bash` does; what it prints is `log`."""
        done = subprocess.run(
            ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", script],
            cwd=self.repository / folder,
            env={**self._env, **env},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=100,
            check=False,
        )
        self.log = done.stdout
        return done.returncode

    # --- GitHub

    def github(self, workflow: dict[str, Any], job: str, contexts: dict[str, str], event: dict[str, Any]) -> list[int]:
        """Exit codes of the steps of a job. A step after a failed one runs only with `!cancelled()`."""
        told = self.folder / "event.json"
        told.write_text(json.dumps(event), encoding="utf-8")
        summary = self.folder / "summary.md"
        env = {
            "GITHUB_ACTIONS": "true",
            "GITHUB_API_URL": self._url,
            "GITHUB_SERVER_URL": "https://github.example",
            "GITHUB_REPOSITORY": "acme/support",
            "GITHUB_EVENT_PATH": str(told),
            "GITHUB_SHA": self.commit(),
            "GITHUB_REF": "refs/heads/main",
            "GITHUB_RUN_ID": "99",
            "GITHUB_STEP_SUMMARY": str(summary),
            "RUNNER_TEMP": str(self.temp),
            **_evaluated(workflow.get("env", {}), contexts),
            **_evaluated(workflow["jobs"][job].get("env", {}), contexts),
        }
        folder = workflow["defaults"]["run"].get("working-directory", ".")
        codes: list[int] = []
        logs = []
        for step in workflow["jobs"][job]["steps"]:
            if "run" not in step:
                continue
            assert "${{" not in step["run"], "what others write must reach a script through its environment"
            if any(codes) and "cancelled" not in str(step.get("if", "")):
                continue
            codes.append(self.script(step["run"], env | _evaluated(step.get("env", {}), contexts), folder))
            logs.append(self.log)
        self.log = "\n".join(logs)
        return codes

    # --- GitLab

    def gitlab(self, pipeline: dict[str, Any], job: str, env: dict[str, str]) -> int:
        """Exit code of a job: its scripts are one, as GitLab's runner joins them."""
        base = pipeline[pipeline[job]["extends"]]
        variables = pipeline[job].get("variables", base.get("variables", {}))
        lines = [*pipeline[job].get("before_script", base["before_script"]), *pipeline[job]["script"]]
        given = {
            "GITLAB_CI": "true",
            "CI_API_V4_URL": f"{self._url}/gitlab",
            "CI_PROJECT_ID": "42",
            "CI_COMMIT_SHA": self.commit(),
            "CI_COMMIT_BRANCH": "main",
            "GITLAB_TOKEN": GITLAB_TOKEN,
            **variables,
        }
        return self.script("\n".join(lines), given | env)


def _evaluated(values: dict[str, Any], contexts: dict[str, str]) -> dict[str, str]:
    """An `env:` with its expressions replaced; one that is not set is empty, as on a runner."""
    known = {"github.token": GITHUB_TOKEN, **contexts}
    return {k: re.sub(r"\$\{\{ (.+?) \}\}", lambda m: known.get(m[1], ""), str(v)) for k, v in values.items()}


def schema_of(name: str) -> dict[str, Any]:
    text = (files("check_jsonschema") / "builtin_schemas" / "vendor" / f"{name}.json").read_text(encoding="utf-8")
    found: dict[str, Any] = json.loads(text)
    return found


def check_schema(name: str, document: Any) -> None:
    problems = [e.message for e in jsonschema_rs.validator_for(schema_of(name)).iter_errors(document)]
    assert problems == []


def make_repository(root: Path) -> Path:
    """A git repository with a project in `llm`, below its top."""
    assert run(["init", str(root / "llm")]) == 0
    command = "git init -qb main && git add . && git -c user.name=a -c user.email=a@b commit -qm one"
    subprocess.run(command, shell=True, cwd=root, check=True)
    return root

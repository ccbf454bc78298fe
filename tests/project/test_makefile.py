"""What the documents promise of `make` and of CI is there, and make hands on what a user sets."""

import os
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOR_USERS = ["validate", "plan", "show", "apply", "sync", "status"]
FOR_HANDS = ["demo", "test", "check", "prove", "bench"]


def dry_run(*arguments: str) -> str:
    """What make would run, given that everything is installed."""
    variables = ("MAKEFLAGS", "MAKELEVEL", "SPEC", "ENV", "PLAN", "ARGS", "VENV")
    environment = {k: v for k, v in os.environ.items() if k not in variables}
    command = ["make", "--dry-run", "--always-make", "--no-print-directory", "-C", str(ROOT), *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return done.stdout


@pytest.mark.parametrize("target", FOR_USERS + FOR_HANDS)
def test_readme_names_every_target(target: str) -> None:
    assert f"make {target}" in (ROOT / "README.md").read_text(encoding="utf-8")
    assert re.search(rf"^{target}:.*## ", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)


@pytest.mark.parametrize(
    ("arguments", "command"),
    [
        (["validate"], "batchform validate"),
        (["plan", "SPEC=classify", "ENV=prod"], "batchform plan --env prod --select classify"),
        (["plan", "PLAN=plan", "ARGS=--allow max_usd"], "batchform plan --out plan --allow max_usd"),
        (["show", "PLAN=plan"], "batchform show plan"),
        (["apply"], "batchform apply"),
        (["apply", "PLAN=plan", "ARGS=--yes"], "batchform apply --yes plan"),
        (["apply", "SPEC=classify"], "batchform apply --select classify"),
        (["sync", "ENV=prod"], "batchform sync --env prod"),
        (["status"], "batchform status"),
    ],
)
def test_variables_reach_the_command(arguments: list[str], command: str) -> None:
    last = dry_run(*arguments).strip().splitlines()[-1]
    assert " ".join(last.split()) == f".venv/bin/{command}"


def test_show_without_a_plan_says_what_to_do() -> None:
    done = subprocess.run(
        ["make", "--dry-run", "-C", str(ROOT), "show", "PLAN="], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "make show PLAN=dir" in done.stderr


def test_check_is_lint_format_types_contracts_and_tests() -> None:
    recipe = dry_run("check")
    for tool in ("ruff check", "ruff format --check", "mypy", "lint-imports", "-m pytest"):
        assert tool in recipe, tool


def test_ci_runs_what_hands_run() -> None:
    script = ROOT / ".ci/run"
    text = script.read_text(encoding="utf-8")
    assert os.access(script, os.X_OK)
    assert "set -euo pipefail" in text
    assert re.fullmatch(r"make (--jobs=2 )?check\b.*", text.rstrip().splitlines()[-1])  # pytest's closing line is last
    assert "make demo" in text


def test_no_installer_names_a_registry() -> None:
    for name in ("Makefile", ".ci/run", "pyproject.toml"):
        text = (ROOT / name).read_text(encoding="utf-8")
        assert not re.search(r"--(extra-)?index-url|--find-links|files\.pythonhosted", text), name

"""`--select` by the ledger and by git, and how loudly a plan says that it is not the whole."""

from __future__ import annotations

import os
import subprocess
from typing import Any

import pytest
import yaml
from tests_e2e_kit import SPEC, Workspace


def other(workspace: Workspace, **changes: Any) -> None:
    spec = {
        **SPEC, "name": "other", "tags": ["nightly"], "prompt": {"user": "other.j2"},
        "destination": {"type": "jsonl", "path": "results/other.jsonl"}, **changes,
    }  # fmt: skip
    workspace.write("specs/other.yaml", yaml.safe_dump(spec))


def planned(workspace: Workspace, *patterns: str) -> list[str]:
    found = workspace.run("plan", "--json", *(f"--select={p}" for p in patterns))
    assert found.code == 0, found.err
    return [s["name"] for s in found.json["specs"]]


def test_modified_is_what_was_not_applied_as_it_is(applied: Workspace) -> None:
    assert planned(applied, "state:modified") == []
    quiet = applied.ok("plan", "-s", "triage")
    assert "PARTIAL" not in quiet.out
    applied.write("templates/part.j2", "{{ body }}")
    applied.write("templates/other.j2", "{% include 'part.j2' %}")
    other(applied)
    assert planned(applied, "state:new") == planned(applied, "state:modified") == ["other"]
    nothing = applied.ok("plan", "-s", "state:modified", "-s", "tag:nightly")
    loud = "PARTIAL PLAN: only other. The project's other specs are not in it."
    assert nothing.out.count(loud) == 2
    markdown = applied.ok("plan", "-s", "other", "--format", "markdown").out
    assert markdown.count("PARTIAL PLAN: only other") == 2
    applied.apply("-s", "other")
    assert planned(applied, "state:modified") == []
    applied.spec(destination={"type": "csv", "path": "results/triage.csv"})
    other(applied, generation_config={"temperature": 1})
    assert planned(applied, "state:modified") == ["other", "triage"]
    other(applied, generation_config={"temperature": 1}, idempotency={"key": ["id"], "on_prompt_change": "ask"})
    applied.apply("-s", "other", "--on-change", "other=keep")
    assert planned(applied, "state:modified") == ["triage"]
    assert "PARTIAL PLAN" in applied.ok("plan", "-s", "state:new").out
    wrong = applied.run("plan", "-s", "state:gone")
    assert (wrong.code, "there is no state 'gone'" in wrong.err) == (64, True)


@pytest.fixture
def repository(workspace: Workspace) -> Workspace:
    """Two specs, committed on main, and a branch from there."""
    workspace.write("templates/part.j2", "{{ body }}")
    workspace.write("templates/other.j2", "{% include 'part.j2' %}")
    workspace.write("schemas/label.json", '{"type": "object"}')
    workspace.write("data/more.csv", "id,tenant,title,body\nT-1,acme,t,b\n")
    other(workspace, source={"type": "csv", "path": "data/m*.csv"}, output={"schema": "schemas/label.json"})
    for arguments in (("init", "-q", "-b", "main"), ("add", "."), ("commit", "-qm", "first"), ("checkout", "-qb", "b")):
        git(workspace, *arguments)
    return workspace


def git(workspace: Workspace, *arguments: str) -> None:
    who = ("-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false")
    env = {k: v for k, v in os.environ.items() if not k.startswith("GIT_")}
    subprocess.run(["git", *who, *arguments], cwd=workspace.root, check=True, env=env, capture_output=True)


def test_changed_since_follows_the_files_that_a_spec_uses(repository: Workspace) -> None:
    since = "changed-since:main"
    assert planned(repository, since) == []
    for name, text, names in (
        ("templates/part.j2", "{{ body }}!", ["other"]),
        ("schemas/label.json", '{"type": "object", "title": "t"}', ["other"]),
        ("data/new.csv", "id\n", []),
        ("data/mine.csv", "id,tenant,title,body\nT-2,acme,t,b\n", ["other"]),
        ("data/tickets.csv", "id,tenant,title,body\nT-1,acme,t,b\n", ["triage"]),
        ("templates/triage.j2", "Title: {{ title }}", ["triage"]),
        ("specs/other.yaml", None, ["other"]),
        ("batchform.yaml", None, ["other", "triage"]),
    ):
        before = (repository.root / name).read_bytes() if (repository.root / name).exists() else None
        repository.write(name, text if text is not None else b"# a word\n" + (before or b""))
        assert planned(repository, since) == names, name
        if before is None:
            (repository.root / name).unlink()
        else:
            repository.write(name, before)
    repository.write("templates/triage.j2", "Title: {{ title }}")
    git(repository, "commit", "-qam", "second")
    assert planned(repository, since) == ["triage"]
    assert planned(repository, "changed-since:HEAD") == []
    git(repository, "config", "core.fsmonitor", "touch ran; false")
    assert planned(repository, since, "other") == ["other", "triage"]
    assert not (repository.root / "ran").exists()
    for ref in ("nowhere", "--output=ran", "", "main^{tree}"):
        refused = repository.run("plan", "-s", f"changed-since:{ref}")
        assert refused.code == 64, ref
    assert not (repository.root / "ran").exists()

"""The commands as methods: same outcomes, typed values, nothing printed, any number of projects and threads."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import msgspec
import pytest

import batchform
from batchform import BatchformError, Project
from batchform.errors import InvalidProject, LimitExceeded, RowsFailed, StalePlan, UsageError

PROJECT = """
version: 1
project: api
backends: {local: {type: emulator, job_seconds: 0, poll: 50ms}}
defaults: {backend: local, model: gemini-3.5-flash-lite}
environments:
  tight: {ledger: .batchform/tight, limits: {max_rows: 1}}
"""
SPEC = """
name: ask
source: {type: csv, path: data/rows.csv}
prompt: {user: {text: "What is {{ word }}?"}}
destination: {type: jsonl, path: results/ask.jsonl}
idempotency: {key: [id]}
"""


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("GEMINI_API_KEY", "GOOGLE_API_KEY", "GOOGLE_GEMINI_BASE_URL", "BATCHFORM_ENV"):
        monkeypatch.delenv(name, raising=False)
    return made(tmp_path / "project")


def made(root: Path, *words: str) -> Path:
    for folder in ("specs", "data"):
        (root / folder).mkdir(parents=True)
    (root / "batchform.yaml").write_text(PROJECT)
    (root / "specs/ask.yaml").write_text(SPEC)
    words = words or ("tea", "rain", "salt")
    (root / "data/rows.csv").write_text("id,word\n" + "".join(f"{i},{w}\n" for i, w in enumerate(words)))
    return root


def test_a_project_from_the_first_plan_to_the_last_row(root: Path, capfd: pytest.CaptureFixture[str]) -> None:
    project, heard = Project(root / "specs"), list[str]()
    assert (project.root, repr(project)) == (root, f"Project({str(root)!r})")
    checked = project.validate()
    assert (checked.specs, checked.warnings, dict(checked.unchecked)) == (("ask",), (), {})

    plan = project.plan("ask")
    assert (plan.rows_to_send, plan.ok, plan.has_changes, plan.partial) == (3, True, True, False)
    ask = plan.spec("ask")
    assert (dict(ask.actions), dict(ask.reasons), ask.jobs, ask.source_rows) == ({"run": 3}, {"new_key": 3}, 1, 3)
    assert 0 < ask.cost.low <= ask.cost.expected <= ask.cost.high and plan.cost == ask.cost
    assert plan.to_dict()["digest"] == plan.digest and plan.to_markdown() == plan._repr_markdown_()
    assert "3 rows to send" in repr(plan)
    with pytest.raises(AttributeError):
        plan.digest = ""  # type: ignore[misc]
    with pytest.raises(KeyError):
        plan.spec("other")
    with pytest.raises(UsageError, match="not saved"):
        project.apply(plan)
    with pytest.raises(UsageError, match="no answers yet"):
        project.results("ask")

    saved = project.plan(out=root.parent / "bundle")
    assert saved.saved == str(root.parent / "bundle") and saved.spec("ask").rows_to_send == 3
    outcome = project.apply(saved, progress=heard.append)
    assert (outcome.exit_code, outcome.done, outcome.error, len(outcome.created)) == (0, True, None, 1)
    assert outcome.plan is not None and outcome.plan.rows_to_send == 3
    became = outcome.spec("ask")
    assert (became.answered, dict(became.failures)) == (3, {}) and became.delivered is not None
    assert became.delivered.rows == 3 and outcome.usd > 0
    assert any("submitted" in line for line in heard) and not any("\n" in line for line in heard)
    with pytest.raises(StalePlan):
        project.apply(saved)

    status = project.status(settled=True)
    assert dict(status.specs[0].rows) == {"answered": 3} and len(status.jobs) == 1
    results = project.results("ask")
    assert (results.count(), results.columns[0]) == (3, "id")
    rows = list(results)
    assert [r["id"] for r in rows] == ["0", "1", "2"] and all(set(r) == set(results.columns) for r in rows)
    assert results.to_arrow().to_pylist() == rows
    assert [b.num_rows for b in results.batches(2)] == [2, 1]
    assert [r["id"] for r in project.results("ask", keys=["1"])] == ["1"]

    again = project.apply()
    assert (again.created, again.plan and again.plan.has_changes, project.sync().created) == ((), False, ())
    assert capfd.readouterr() == ("", "")


def test_what_is_wrong_is_raised_as_the_error_that_the_command_tells(root: Path) -> None:
    with pytest.raises(UsageError, match=r"no batchform.yaml"):
        Project(root.parent)
    held = Project(root, env="tight").plan()
    assert not held.ok and [v.name for v in held.verdicts if not v.ok] == ["max_rows"] and "held" in repr(held)
    with pytest.raises(LimitExceeded, match="nothing was sent"):
        Project(root, env="tight").apply()
    for call in (Project(root, env="tight").apply, Project(root, env="tight").plan):
        with pytest.raises(UsageError, match="needs a reason"):
            call(allow="max_rows", reason=" ")
    assert Project(root, env="tight").apply(allow="max_rows", reason="asked for").plan.ok  # type: ignore[union-attr]
    with pytest.raises(UsageError):
        Project(root, env="other").plan()
    with pytest.raises(UsageError, match="at_most"):
        Project(root).sync(at_most=3)
    (root / "specs/ask.yaml").write_text(SPEC.replace("path: data/rows.csv", "pat: x"))
    with pytest.raises(InvalidProject) as found:
        Project(root).validate()
    assert [d.place.line for d in found.value.diagnostics] and isinstance(found.value, BatchformError)


def test_edits_and_approvals_are_decided_as_on_the_command_line(root: Path) -> None:
    project = Project(root)
    project.apply()
    (root / "specs/ask.yaml").write_text(SPEC.replace("What is", "Say what is"))
    assert project.plan().rows_to_send == 3
    assert project.plan(on_change={"ask": "keep"}).rows_to_send == 0
    with pytest.raises(UsageError, match="maybe"):
        project.plan(on_change={"ask": "maybe"})
    shown = project.plan(on_change={"ask": "canary:1"}, out=root.parent / "shown")
    digest = shown.to_dict()["envelope"]["digest"]
    with pytest.raises(UsageError, match="no digest of an approval"):
        project.apply(approved="nobody")
    with pytest.raises(UsageError, match="belong to planning"):
        project.apply(approved=digest, select="ask")
    with pytest.raises(UsageError, match="approver"):
        project.apply(approver="ada")
    (root / "approvals").mkdir()
    (root / "approvals/one.json").write_text((root.parent / "shown/plan.json").read_text())
    outcome = project.apply(approved=digest, approver="ada")
    assert outcome.plan is not None and outcome.plan.rows_to_send == 1 and outcome.spec("ask").answered == 1
    with pytest.raises(StalePlan, match="outside what was approved"):
        (root / "data/rows.csv").write_text("id,word\n" + "".join(f"{i},{i}\n" for i in range(9)))
        project.apply(approved=root.parent / "shown")
    assert project.apply(on_change={"ask": "keep"}, check=False).plan.rows_to_send == 9  # type: ignore[union-attr]


def test_failed_rows_are_an_error_or_a_figure(root: Path) -> None:
    short = "generation_config: {max_output_tokens: 1}\nretry: {max_attempts: 1}\n"
    (root / "specs/ask.yaml").write_text(SPEC + short)
    outcome = Project(root).apply(check=False)
    assert isinstance(outcome.error, RowsFailed) and outcome.exit_code == 6
    assert dict(outcome.spec("ask").failures) == {"truncated": 3} and outcome.spec("ask").answered == 0
    with pytest.raises(KeyError):
        outcome.spec("other")
    fresh = Project(made(root.parent / "other"))
    (fresh.root / "specs/ask.yaml").write_text(SPEC + short)
    with pytest.raises(RowsFailed):
        fresh.apply()


def test_a_running_event_loop_other_threads_and_several_projects_do_not_matter(root: Path, tmp_path: Path) -> None:
    project, other = Project(root), Project(made(tmp_path / "other", "fog"))

    async def notebook() -> tuple[int, Any]:
        here = project.apply(detach=True)  # blocks the loop, as a cell does
        assert here.created
        return await asyncio.gather(asyncio.to_thread(project.sync, wait=True), asyncio.to_thread(other.apply))

    before = threading.active_count()
    mine, theirs = asyncio.run(notebook())
    assert (mine.spec("ask").answered, theirs.spec("ask").answered) == (3, 1)
    assert threading.active_count() <= before + 1, "something was left running"
    assert (project.results("ask").count(), other.results("ask").count()) == (3, 1)
    reading = iter(other.results("ask"))  # left open while the other is read
    assert next(reading)["id"] == "0" and len(list(project.results("ask"))) == 3
    with contextlib.closing(reading):  # type: ignore[type-var]
        assert list(reading) == []
    assert not list(root.glob(".batchform/tmp-*")) and not list(other.root.glob(".batchform/tmp-*"))


def test_values_are_frozen_and_can_be_written_as_json(root: Path) -> None:
    status = Project(root).status()
    assert msgspec.json.encode(status)
    for kind in (batchform.Plan, batchform.PlannedSpec, batchform.Outcome, batchform.SpecOutcome, batchform.Validation):
        assert kind.__struct_config__.frozen


def test_importing_batchform_imports_nothing_and_knows_its_names() -> None:
    code = (
        "import sys; before = set(sys.modules); import batchform; "
        "new = set(sys.modules) - before; "
        "own = {m for m in sys.modules if m.startswith('batchform.')}; "
        "assert not own, own; "
        "heavy = new & {'pydantic', 'duckdb', 'msgspec', 'jinja2', 'yaml', 'rich', 'pyarrow', 'google', 'click'}; "
        "assert not heavy, heavy; assert 'Project' in dir(batchform); "
        "from batchform import Project; "
        "assert not {'duckdb', 'pyarrow', 'google.genai', 'rich', 'click'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    assert all(getattr(batchform, name) for name in batchform.__all__)
    with pytest.raises(AttributeError, match="nothing"):
        _ = batchform.nothing

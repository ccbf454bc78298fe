"""docs/python.md runs as it is written, and so do the plain functions of the orchestrators' examples."""

from __future__ import annotations

import ast
import contextlib
import csv
import importlib.util
import inspect
import re
import shutil
import sys
from pathlib import Path
from types import ModuleType

import pytest

from batchform import BatchformError, Project

ROOT = Path(__file__).resolve().parents[2]
PROJECT = ("batchform.yaml", "specs", "templates", "schemas", "data")
OUTER = {"airflow": ("batchform_dag", "batchform_tasks"), "dagster": ("definitions", "batchform_ops")}


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The demo project, with few rows."""
    for name in ("GEMINI_API_KEY", "GOOGLE_API_KEY", "GOOGLE_GEMINI_BASE_URL", "BATCHFORM_ENV"):
        monkeypatch.delenv(name, raising=False)
    for name in PROJECT:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copyfile
        copy(ROOT / name, tmp_path / name)
    for spec in (tmp_path / "specs").glob("*.yaml"):
        text = spec.read_text(encoding="utf-8")
        spec.write_text(text.replace("path: data/packages.csv", "path: data/few.csv"))
    with (tmp_path / "data/packages.csv").open(newline="") as full, (tmp_path / "data/few.csv").open("w") as few:
        csv.writer(few).writerows(row for row, _ in zip(csv.reader(full), range(13), strict=False))
    return tmp_path


def imported(name: str, kind: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "examples" / kind / f"{name}.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_document_runs_from_top_to_bottom(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = (ROOT / "docs/python.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(blocks) >= 5
    names: dict[str, object] = {}
    with contextlib.chdir(root):
        for block in blocks:
            exec(compile(block, "docs/python.md", "exec"), names)
    told = capsys.readouterr().out
    assert "delivered" in told and "error" not in told and names["outcome"].done  # type: ignore[attr-defined]
    methods = {m for m in vars(Project) if not m.startswith("_")} - {"root"}
    assert methods == set(re.findall(r"^\| `(\w+)\(", text, re.MULTILINE)), "the table is not of all methods"


def test_airflow_tasks_plan_submit_once_and_look_until_all_is_there(root: Path) -> None:
    tasks = imported("batchform_tasks", "airflow")
    plan = tasks.plan(str(root), None, "classify")
    assert plan["rows"] > 0 and plan["usd"] > 0
    assert len(tasks.submit(str(root), None, "classify")) == 1
    assert tasks.submit(str(root), None, "classify") == [], "a retry of the task sends what was sent"
    while not tasks.step(str(root), None):
        pass
    assert tasks.count_answers(str(root), None, "classify") == plan["rows"]
    assert (tasks.plan(str(root), None, "classify")["rows"], tasks.submit(str(root), None, "classify")) == (0, [])
    file = root / "batchform.yaml"
    file.write_text(re.sub(r"max_rows: [\d_,]+", "max_rows: 1", file.read_text(encoding="utf-8")))
    with pytest.raises(BatchformError, match="nothing will be sent"):
        tasks.plan(str(root), None)


def test_a_dagster_asset_is_made_goes_on_and_is_checked(root: Path) -> None:
    ops, said = imported("batchform_ops", "dagster"), list[str]()
    outcome = ops.materialize(str(root), None, "classify", at_most=60, said=said.append)
    assert outcome.done and said
    shown = ops.metadata(str(root), None, "classify", outcome)
    assert shown["answers"] == shown["rows"]["answered"] > 0 and shown["usd_so_far"] == shown["usd_of_this_run"] > 0
    assert ops.check_valid(str(root), None, "classify", 0.98)[0]
    assert ops.materialize(str(root), None, "classify", at_most=60, said=said.append).created == ()
    assert not ops.check_valid(str(root), None, "classify", 1.1)[0]


@pytest.mark.parametrize("kind", OUTER)
def test_the_outer_module_names_only_functions_that_are_there(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    outer, inner = OUTER[kind]
    monkeypatch.setitem(sys.modules, inner, module := imported(inner, kind))
    tree = ast.parse((ROOT / "examples" / kind / f"{outer}.py").read_text(encoding="utf-8"))
    [alias] = [a.asname for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names if a.name == inner]
    calls = [
        node for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
        and isinstance(node.func.value, ast.Name) and node.func.value.id == alias
    ]  # fmt: skip
    assert calls
    imported_later = [n for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) and n.module == "__future__"]
    assert kind != "dagster" or not imported_later, "Dagster refuses a context whose annotation is text"
    for call in calls:
        assert isinstance(call.func, ast.Attribute)
        function = getattr(module, call.func.attr)
        inspect.signature(function).bind(*call.args, **{k.arg: k.value for k in call.keywords if k.arg})

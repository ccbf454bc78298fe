"""Every field of a spec, changed: those that are seen on the wire send exactly the affected rows, all others none.

A field that `mutation_table.py` does not name fails, and so does one that is marked otherwise than it behaves: a field
marked `wire` can cause rows to be sent, no other one may.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import sqlite3
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import duckdb
import pytest
from google.auth.credentials import AnonymousCredentials
from google.cloud import bigquery
from mutation_table import (
    BACKENDS,
    DATABASES,
    DAY,
    PROJECT_CASES,
    ROWS,
    SCHEMA,
    SPEC_CASES,
    SPECS,
    TABLE_ROWS,
    TEMPLATES,
    Case,
    write_specs,
)
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from tests_e2e_kit import PROJECT, Workspace

from batchform.emulator import EmulatorServer
from batchform.spec.model import Project, Spec

DECLARED = {"backends": BACKENDS, "databases": DATABASES}
TABLES = {Spec: SPEC_CASES, Project: PROJECT_CASES}

# --- the models, walked ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Leaf:
    """A field that holds a value, or a container of fields; marked: whether it is said to be seen on the wire."""

    path: str
    marked: bool
    container: str = ""


def walk(model: type[BaseModel], at: str = "") -> Iterator[Leaf]:
    """Every field of a model, through lists, mappings and unions. `a.Model.b` tells the members of a union apart."""
    hints = get_type_hints(model, include_extras=True)
    for name, info in model.model_fields.items():
        path = f"{at}{info.alias or name}"
        kinds = [k for k in _kinds(hints[name]) if k is not type(None)]
        models = [k for k in kinds if isinstance(k, type) and issubclass(k, BaseModel)]
        if len(models) < len(kinds) and not _only_one_value(hints[name]):
            yield Leaf(path, _marked(info))
        elif models:
            yield Leaf(path, _marked(info), container=path + ".")
        for each in models:
            yield from walk(each, f"{path}." if kinds == [each] else f"{path}.{each.__name__}.")


def _kinds(hint: Any) -> list[Any]:
    origin, inner = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return _kinds(inner[0])
    if origin in (Union, UnionType, list):
        return [kind for each in inner for kind in _kinds(each)]
    if origin is dict and inner[1] is not Any:
        return _kinds(inner[1])
    return [hint]


def _only_one_value(hint: Any) -> bool:
    return get_origin(hint) is Literal and len(get_args(hint)) == 1


def _marked(info: FieldInfo) -> bool:
    return isinstance(info.json_schema_extra, dict) and bool(info.json_schema_extra.get("wire"))


@pytest.mark.parametrize("model", TABLES, ids=lambda m: m.__name__)
def test_the_table_names_every_field(model: type[BaseModel]) -> None:
    fields = {leaf.path for leaf in walk(model) if not leaf.container}
    assert set(TABLES[model]) == fields


@pytest.mark.parametrize("model", TABLES, ids=lambda m: m.__name__)
def test_fields_are_marked_as_they_behave(model: type[BaseModel]) -> None:
    leaves = list(walk(model))
    sends = {path: any(case.sends for case in cases) for path, cases in TABLES[model].items()}
    behaving = {
        leaf.path: any(s for path, s in sends.items() if path.startswith(leaf.container))
        if leaf.container
        else sends[leaf.path]
        for leaf in leaves
    }
    assert {leaf.path: leaf.marked for leaf in leaves} == behaving


# --- the changes, made ----------------------------------------------------------------------------------------------


WHOLE = ("user", "system", "local")
"""Mappings that take the place of the earlier one, in place of being laid over it."""


def laid_over(base: Mapping[str, Any], change: Mapping[str, Any]) -> dict[str, Any]:
    result = dict(base)
    for name, value in change.items():
        if value is None:
            result.pop(name, None)
        elif isinstance(value, Mapping) and isinstance(result.get(name), Mapping) and name not in WHOLE:
            result[name] = laid_over(result[name], value)
        else:
            result[name] = value
    return result


CASES = {repr(case): (path, case) for table in TABLES.values() for path, cases in table.items() for case in cases}
"""Each change once, though several fields may be changed together: what sends nothing then sends nothing alone."""


@pytest.mark.parametrize("case", [pytest.param(case, id=f"{path}-{case.sends}") for path, case in CASES.values()])
def test_a_change_sends_exactly_the_affected_rows(project: Workspace, case: Case) -> None:
    for name, text in case.files.items():
        project.write(name, text)
    environment = case.project.get("environments")
    project.write("batchform.yaml", json.dumps(laid_over(laid_over(PROJECT, DECLARED), case.project)))
    write_specs(project, {case.on: laid_over(SPECS[case.on], case.change)})
    name = case.change.get("name", case.on)
    found = project.run("plan", "--json", "--select", name, *(["--env", "prod"] if environment else []))
    assert found.code == 0, found.err
    plan = found.json["specs"][0]
    assert (plan["name"], plan["rows_to_send"]) == (name, case.sends), plan["actions"]


@pytest.fixture(scope="module")
def warehouse(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """BigQuery with the tables of the project, whose first ticket was another one before two o'clock."""
    clock = Hours()
    with EmulatorServer(tmp_path_factory.mktemp("google"), clock=clock) as server:
        options = {"api_endpoint": server.url}
        with contextlib.closing(
            bigquery.Client(project="acme", credentials=AnonymousCredentials(), client_options=options)
        ) as client:
            client.create_dataset("rows")
            rows = "('T-1', 'open', 'uno'), ('T-2', 'open', 'two'), ('T-3', 'closed', 'three')"
            for statement in (
                "CREATE TABLE rows.tickets (id STRING, status STRING, body STRING)",
                f"INSERT INTO rows.tickets VALUES {rows}",
            ):
                client.query(statement).result()
            clock.hour = 2
            for statement in (
                "UPDATE rows.tickets SET body = 'one' WHERE id = 'T-1'",
                "CREATE TABLE rows.copied AS SELECT * FROM rows.tickets",
                "CREATE TABLE rows.edited AS SELECT id, status, UPPER(body) AS body FROM rows.tickets WHERE id = 'T-2'",
            ):
                client.query(statement).result()
            clock.hour = 3
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("BIGQUERY_EMULATOR_HOST", server.url)
            patch.setenv("GOOGLE_CLOUD_PROJECT", "acme")
            yield


class Hours:
    """A clock that shows an hour of yesterday, and goes on from there."""

    hour = 0

    def now(self) -> datetime:
        midnight = datetime.combine(DAY, datetime.min.time(), tzinfo=UTC)
        return midnight + timedelta(hours=self.hour, seconds=time.monotonic() % 1000)


@pytest.fixture(scope="module")
def many_specs(tmp_path_factory: pytest.TempPathFactory, warehouse: None) -> Iterator[Path]:
    """The project above, applied once."""
    assert warehouse is None
    root = tmp_path_factory.mktemp("mutation") / "project"
    workspace = Workspace(root, lambda: ("", ""))
    workspace.project(**DECLARED)
    (root / "specs/triage.yaml").unlink()
    for name, text in {**ROWS, **TEMPLATES, "schemas/label.json": json.dumps(SCHEMA)}.items():
        workspace.write(name, text)
    for name, rows in (("tickets", TABLE_ROWS), ("edited", [*TABLE_ROWS[:3], ("T-3", "open", "3")])):
        _sqlite(root / f"data/{name}.db", rows)
        with duckdb.connect(str(root / f"data/{name}.duckdb")) as con:
            con.execute("CREATE TABLE tickets (id VARCHAR, status VARCHAR, body VARCHAR)")
            con.executemany("INSERT INTO tickets VALUES (?, ?, ?)", rows)
    shutil.copy(root / "data/tickets.db", root / "data/copy.db")
    write_specs(workspace, SPECS)
    with contextlib.chdir(root), pytest.MonkeyPatch.context() as patch:
        patch.setenv("NOTHING", "")
        workspace.ok("apply", "--yes", "--json")
    yield root


def _sqlite(path: Path, rows: list[tuple[str, str, str]]) -> None:
    with contextlib.closing(sqlite3.connect(path)) as con:
        for table in ("tickets", "copied"):
            con.execute(f"CREATE TABLE {table} (id TEXT, status TEXT, body TEXT)")
            con.executemany(f"INSERT INTO {table} VALUES (?, ?, ?)", rows)
        con.execute("CREATE TABLE edited AS SELECT id, status, upper(body) AS body FROM tickets")
        con.commit()


@pytest.fixture
def project(many_specs: Path, workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """A copy of the applied project, where commands are run."""
    workspace.become_copy_of(many_specs)
    monkeypatch.chdir(workspace.root)
    monkeypatch.setenv("NOTHING", "")
    return workspace

"""The URL of a database and its password: from the environment, and nowhere else. What is missing is said."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from pydantic import SecretStr
from shop_kit import Shop
from sqlalchemy import exc
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from batchform.adapters.sql_database import SqlDatabase
from batchform.cli import run
from batchform.errors import BatchformError, SourceError
from batchform.spec.model_sql import Database
from postgres_kit import PASSWORD

PROJECT = {
    "version": 1, "project": "tests", "backends": {"local": {"type": "emulator", "job_seconds": 0, "poll": "10ms"}},
    "defaults": {"backend": "local", "model": "gemini-3.5-flash-lite"},
    "databases": {"shop": {"url": "${ENV:SHOP_DB}"}},
}  # fmt: skip
SPEC = """name: triage
source:
  type: sql
  database: shop
  table: tickets
prompt: {user: {text: "{{ body }}"}}
destination:
  type: sql
  database: shop
  table: answers
idempotency: {key: [id]}
"""


def database(url: str, root: Path = Path()) -> SqlDatabase:
    return SqlDatabase("shop", SecretStr(url), root=root, error=SourceError)


def refusal(url: str, root: Path = Path()) -> BatchformError:
    with pytest.raises(SourceError) as caught, database(url, root).reading():
        pass
    return caught.value


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shop: Shop) -> Iterator[Path]:
    root = tmp_path / "project"
    (root / "specs").mkdir(parents=True)
    (root / "batchform.yaml").write_text(json.dumps(PROJECT))
    (root / "specs/triage.yaml").write_text(SPEC)
    shop.run("CREATE TABLE tickets (id integer PRIMARY KEY, body text, note text)")
    shop.run("INSERT INTO tickets SELECT i, 'text ' || i, 'n' FROM generate_series(1, 5) i")
    monkeypatch.chdir(root)
    monkeypatch.setenv("SHOP_DB", shop.url)
    yield root


def test_a_spec_goes_from_table_to_table_and_says_no_secret(
    project: Path, shop: Shop, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    said = ""
    codes = []
    for command in ("validate", "plan --out saved", "show saved", "apply saved --yes", "plan --json", "status --json",
                    "ledger verify --deep", "results triage", "explain triage 1"):  # fmt: skip
        codes.append((command, run(command.split())))
        captured = capsys.readouterr()
        said += captured.out + captured.err
    assert [code for _, code in codes] == [0] * len(codes), said
    assert shop.run("SELECT id, text IS NOT NULL FROM answers ORDER BY id") == [(i, True) for i in range(1, 6)]
    shop.run("UPDATE tickets SET note = 'not read'", "UPDATE tickets SET body = 'other' WHERE id = 3")
    assert (
        run(["rerun", "triage", "--where", "note = 'not read' AND id = 4"]) == 0
    )  # though the prompt does not read it
    assert run(["plan", "--out", "later"]) == 0
    shop.run("UPDATE tickets SET body = 'yet another' WHERE id = 5")
    assert run(["apply", "later", "--yes"]) == 4
    assert run(["apply", "--yes", "--json"]) == 0
    shop.run("DROP TABLE tickets")
    assert run(["plan"]) == 1
    monkeypatch.setenv("SHOP_DB", shop.url.replace("host=/", "host=/nowhere/"))
    assert run(["plan"]) == 1
    captured = capsys.readouterr()
    said += captured.out + captured.err
    assert "specs/triage.yaml:5" in said and "shop has no table 'tickets'" in said
    assert "Database shop cannot be reached" in said and "the source of triage changed" in said
    kept = "".join(p.read_bytes().decode("latin-1") for p in project.rglob("*") if p.is_file())
    for secret in (PASSWORD, "s3cr3t%2Fp%40ss", "s3cr3t"):
        assert secret not in said and secret not in kept
    assert shop.run("SELECT count(*) FROM answers") == [(5,)]


@pytest.mark.parametrize(
    "url",
    [
        "hunter2", "postgresql://app:hun@ter2/x@[::1", "postgresql://app:pw@host:hunter2/db", "nosuch+driver://app:hunter2@db/x",
        "oracle://app:hunter2@db/x", "postgresql+asyncpg://app:hunter2@db/x", "postgresql://app:hunter2@/x?host=/nowhere",
        "postgresql://app@/x?host=/nowhere&password=hunter2", "sqlite://", "sqlite:///hunter2/../nowhere.db",
        "postgresql://app:hunter2@/x?host=/nowhere&nonsense=1", "sqlite+aiosqlite:///x.db", "postgresql://app:hunter2@127.0.0.1:1/x",
    ],
)  # fmt: skip
def test_no_message_has_the_password(url: str, tmp_path: Path) -> None:
    said = refusal(url, tmp_path).render()
    assert "shop" in said
    assert "hunter2" not in said.replace("hunter2/../nowhere.db", "") and "\n\n" not in said and "Traceback" not in said
    assert "hunter2" not in repr(Database(url=SecretStr(url)))


@pytest.mark.parametrize(
    ("url", "sentence", "hint"),
    [
        ("oracle+oracledb://a:b@c/d", "oracle needs the Python package oracledb, which is not installed", "'oracledb'"),
        ("mysql://a:b@c/d", "mysql needs the Python package MySQLdb, which is not installed", "'mysqlclient'"),
        ("snowflake://a:b@c/d", "SQLAlchemy knows no database 'snowflake'", "install the package"),
        ("no url", "the value is no URL that SQLAlchemy can read", "postgresql://user:password@host"),
        ("sqlite:///nowhere.db", "there is no file nowhere.db", ""),
        ("sqlite://", "the URL names no file", "sqlite:///folder/file.db"),
    ],
)
def test_what_is_missing_is_said_with_the_way_out(url: str, sentence: str, hint: str) -> None:
    error = refusal(url)
    assert sentence in error.message and hint in error.hint


def test_without_the_extra_the_way_out_is_named(project: Path) -> None:
    script = (
        "import sys; sys.modules['sqlalchemy'] = None\n"
        "from batchform.cli import run\nsys.exit(run(['plan']))"
    )  # fmt: skip
    done = subprocess.run([sys.executable, "-c", script], cwd=project, capture_output=True, text=True, env=os.environ)
    assert done.returncode == 1
    assert "SQLAlchemy is not installed" in done.stderr and "pip install 'batchform[sql]'" in done.stderr


def test_nothing_of_it_is_imported_for_other_specs(tmp_path: Path) -> None:
    (tmp_path / "specs").mkdir()
    (tmp_path / "rows.csv").write_text("id,body\n1,a\n")
    (tmp_path / "batchform.yaml").write_text(json.dumps({**PROJECT, "databases": {}}))
    local = SPEC.replace("type: sql\n  database: shop\n  table: tickets", "type: csv\n  path: rows.csv")
    local = local.replace("type: sql\n  database: shop\n  table: answers", "type: jsonl\n  path: out.jsonl")
    (tmp_path / "specs/triage.yaml").write_text(local)
    script = (
        "import sys\nfrom batchform.cli import run\ncode = run(['plan'])\n"
        "sys.exit(code or sum(name.startswith(('sqlalchemy', 'psycopg')) for name in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def classes(kind: type[BaseException]) -> Iterator[type[BaseException]]:
    yield kind
    for each in kind.__subclasses__():
        yield from classes(each)


def test_no_error_of_sqlalchemy_is_left_as_it_is() -> None:
    found = set(classes(SQLAlchemyError))
    assert len(found) > 30 and exc.OperationalError in found
    for kind in found:
        error = kind.__new__(kind)
        Exception.__init__(error, "it said hunter2\nDETAIL: a row")
        if isinstance(error, DBAPIError):
            error.orig = sqlite3.OperationalError("it said hunter2\nand more")
        with pytest.raises(SourceError) as caught, database("postgresql://app:hunter2@db/x").refusing("source.table"):
            raise error
        assert caught.value.message.startswith("source.table: it said …"), kind
        assert "\n" not in caught.value.message


def test_sqlite_is_relative_to_the_project_and_read_only(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "a b?.db")) as db:
        db.execute("CREATE TABLE t (x)")
        db.commit()
    with database("sqlite:///a b?.db".replace("?", "%3F"), tmp_path).refusing("x"):
        pass
    (tmp_path / "a b?.db").rename(tmp_path / "shop.db")
    with database("sqlite:///shop.db", tmp_path).reading() as con:
        assert con.exec_driver_sql("SELECT count(*) FROM t").scalar_one() == 0
        with pytest.raises(exc.OperationalError, match="readonly"):
            con.exec_driver_sql("INSERT INTO t VALUES (1)")

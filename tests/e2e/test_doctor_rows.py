"""`batchform doctor`: where rows come from and answers go, on this machine and in databases."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import duckdb
import pytest
from tests_e2e_kit import Workspace

from postgres_kit import PASSWORD, PostgresServer

Found = dict[str, Any]
TICKETS = "CREATE TABLE tickets (id text PRIMARY KEY, title text, body text)"


def examined(workspace: Workspace, *arguments: str) -> list[Found]:
    before, billed = workspace.snapshot(), workspace.billed()
    told = workspace.run("doctor", "--json", *arguments)
    found: list[Found] = told.json["findings"]
    assert told.code == (1 if any(f["status"] == "failure" for f in found) else 0)
    assert workspace.snapshot() == before and workspace.billed() == billed
    return found


def the(findings: list[Found], check: str) -> Found:
    [found] = [f for f in findings if f["check"] == check]
    return found


def failures(workspace: Workspace, *arguments: str) -> list[Found]:
    return [f for f in examined(workspace, *arguments) if f["status"] == "failure"]


# --- files on this machine


def test_files_are_there(workspace: Workspace) -> None:
    source = the(examined(workspace), "source")
    assert (source["subject"], source["status"]) == ("spec triage", "ok")
    size = (workspace.root / "data/tickets.csv").stat().st_size
    assert source["message"] == f"data/tickets.csv ({size} bytes): may be read."


def test_files_that_are_missing(workspace: Workspace) -> None:
    workspace.spec(source={"type": "csv", "path": "data/ticket*.tsv"})
    [failed] = failures(workspace)
    assert failed["check"] == "source" and "data/ticket*.tsv" in failed["message"]


def test_a_folder_in_the_place_of_a_file(workspace: Workspace) -> None:
    (workspace.root / "data/sub").mkdir()
    workspace.spec(source={"type": "jsonl", "path": ["data/sub"]})
    assert the(failures(workspace), "source")["message"] == "source.path 'data/sub' is a folder."


def test_whole_files_as_rows(workspace: Workspace) -> None:
    workspace.write("docs/a.txt", "one")
    workspace.write("docs/b.txt", "two")
    workspace.write("templates/triage.j2", "{{ text }}")
    workspace.spec(source={"type": "files", "path": "docs/*.txt"}, idempotency={"key": ["path"]})
    assert the(examined(workspace), "source")["message"] == "2 files, docs/*.txt (6 bytes): may be read."


@pytest.mark.parametrize("kind", ["sqlite", "duckdb"])
def test_database_files(workspace: Workspace, kind: str) -> None:
    source = {"type": kind, "path": "data/shop.db", "table": "tickets"}
    workspace.spec(source=source)
    assert "data/shop.db" in the(failures(workspace), "source")["message"]
    made: Any = sqlite3.connect if kind == "sqlite" else duckdb.connect
    with closing(made(str(workspace.root / "data/shop.db"))) as con:
        con.execute(TICKETS)
    assert "data/shop.db, table tickets" in the(examined(workspace), "source")["message"]
    workspace.spec(source={**source, "table": "ticket"})
    failed = the(failures(workspace), "source")
    assert "no table 'ticket'" in failed["message"] and "tickets" in failed["hint"]
    query = {"type": kind, "path": "data/shop.db", "query": "SELECT * FROM tickets WHERE title <> ''"}
    workspace.spec(source=query)
    assert the(examined(workspace), "source")["status"] == "ok"
    workspace.spec(source={**query, "query": "DELETE FROM tickets"})
    assert the(failures(workspace), "source")["message"].startswith("source.query")


def test_a_query_over_a_column_that_is_not_there(workspace: Workspace) -> None:
    with closing(sqlite3.connect(workspace.root / "data/shop.db")) as con:
        con.execute(TICKETS)
    workspace.spec(source={"type": "sqlite", "path": "data/shop.db", "query": "SELECT colour FROM tickets"})
    assert "no such column: colour" in the(failures(workspace), "source")["message"]


def test_a_destination_below_a_file(workspace: Workspace) -> None:
    workspace.write("out", "a file")
    workspace.spec(destination={"type": "parquet", "path": "out/answers.parquet"})
    assert the(failures(workspace), "destination")["message"].endswith("/out is a file, not a folder.")


# --- databases by URL


def in_shop(workspace: Workspace, url: str, monkeypatch: pytest.MonkeyPatch, **source: str) -> None:
    monkeypatch.setenv("SHOP_DB", url)
    workspace.project(databases={"shop": {"url": "${ENV:SHOP_DB}"}})
    workspace.spec(
        source={"type": "sql", "database": "shop", **(source or {"table": "tickets"})},
        destination={"type": "sql", "database": "shop", "table": "answers"},
    )


def test_a_url_that_is_not_set(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    in_shop(workspace, "", monkeypatch)
    monkeypatch.delenv("SHOP_DB")
    told = workspace.run("doctor")
    assert told.code == 1 and "SHOP_DB is not set" in told.err and "export SHOP_DB=…" in told.err


def test_a_driver_that_is_not_installed(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    in_shop(workspace, "oracle://app:s3cret@db.example.com/shop", monkeypatch)
    found = examined(workspace)
    driver = the(found, "driver")
    assert (driver["subject"], driver["status"], driver["fix"]) == (
        "database shop",
        "failure",
        "pip install 'oracledb'",
    )
    assert the(found, "source")["status"] == the(found, "destination")["status"] == "unknown"
    assert "s3cret" not in str(found)


def test_a_server_that_is_not_there(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    in_shop(workspace, "postgresql://app:s3cret@127.0.0.1:9/shop", monkeypatch)
    found = examined(workspace)
    assert the(found, "driver")["status"] == "ok" and "shop at 127.0.0.1:9 as app" in the(found, "driver")["message"]
    assert "Connection refused" in the(found, "connect")["message"] and "s3cret" not in str(found)


def test_a_file_that_a_delivery_will_make(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    in_shop(workspace, "sqlite:///data/shop.db", monkeypatch)
    assert the(failures(workspace), "connect")["message"].endswith("there is no file data/shop.db.")
    workspace.spec(destination={"type": "sql", "database": "shop", "table": "answers"})
    found = examined(workspace)
    assert the(found, "connect")["status"] == "unknown" and the(found, "destination")["status"] == "ok"
    with closing(sqlite3.connect(workspace.root / "data/shop.db")) as con:
        con.execute(TICKETS)
    in_shop(workspace, "sqlite:///data/shop.db", monkeypatch)
    assert the(examined(workspace), "source")["message"] == (
        "shop, table tickets: 3 columns that this spec reads: may be read."
    )
    ordered = "SELECT id, title, body FROM tickets ORDER BY id"
    in_shop(workspace, "sqlite:///data/shop.db", monkeypatch, query=ordered)
    assert the(examined(workspace), "source")["status"] == "ok"


@pytest.fixture
def clerk(postgres: PostgresServer) -> Iterator[tuple[str, Any]]:
    """URL of a user without rights in a database, and a connection of its owner."""
    with postgres.database() as name:
        with postgres.connect(name) as owner:
            owner.execute(TICKETS)
            owner.execute("CREATE ROLE clerk LOGIN PASSWORD 'cl3rk'")
            try:
                yield (
                    postgres.url(name).replace(
                        f"app:{PASSWORD.replace('/', '%2F').replace('@', '%40')}", "clerk:cl3rk"
                    ),
                    owner,
                )
            finally:
                owner.execute("DROP OWNED BY clerk")
                owner.execute("DROP ROLE clerk")
        owner.close()


def test_rights_in_postgresql(workspace: Workspace, clerk: tuple[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Each failure has the grant that mends it: run by the owner, one after the other, until all is well."""
    url, owner = clerk
    in_shop(workspace, url, monkeypatch)
    seen = []
    while failed := failures(workspace):
        for finding in failed:
            assert finding["fix"].startswith("GRANT "), finding
            owner.execute(finding["fix"])
            seen.append(finding["fix"])
        assert len(seen) < 9, seen
    assert seen == ["GRANT SELECT ON tickets TO clerk;", 'GRANT CREATE ON SCHEMA "public" TO "clerk";']
    found = examined(workspace)
    assert "It answers: postgresql" in the(found, "connect")["message"] and "cl3rk" not in str(found)


def test_rights_on_a_table_that_batchform_made(
    workspace: Workspace, clerk: tuple[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also SELECT, which an upsert and the count after it need: it once showed only when all was paid for."""
    url, owner = clerk
    owner.execute("GRANT SELECT ON tickets TO clerk")
    owner.execute("GRANT CREATE ON SCHEMA public TO clerk")
    owner.execute("INSERT INTO tickets VALUES ('a', 'b', 'c')")
    in_shop(workspace, url, monkeypatch)
    workspace.apply()
    for table in ("answers", "_batchform_tables"):
        owner.execute(f"ALTER TABLE {table} OWNER TO app")
    owner.execute("GRANT INSERT, UPDATE, DELETE ON answers TO clerk")
    assert the(failures(workspace), "destination")["fix"] == (
        "GRANT SELECT, INSERT, DELETE ON _batchform_tables TO clerk;"
    )
    owner.execute("GRANT SELECT, INSERT, DELETE ON _batchform_tables TO clerk")
    failed = the(failures(workspace), "destination")
    assert failed["message"].endswith("the user has no SELECT on answers.")
    owner.execute(failed["fix"])
    assert failures(workspace) == []


def test_a_password_that_is_wrong(
    workspace: Workspace, postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_shop(workspace, postgres.url("postgres", password="wr0ng"), monkeypatch)
    [failed] = failures(workspace)
    assert failed["check"] == "connect" and "password" in failed["message"] and "wr0ng" not in str(failed)


# --- what a plan needs


def test_a_plan_needs_no_right_to_write(
    workspace: Workspace, clerk: tuple[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An identity that plans pull requests: SELECT on what it reads is all, and `plan` then runs."""
    url, owner = clerk
    in_shop(workspace, url, monkeypatch)
    [failed] = failures(workspace, "--for", "plan")
    assert failed["fix"] == "GRANT SELECT ON tickets TO clerk;"
    owner.execute(failed["fix"])
    assert failures(workspace, "--for", "plan") == []
    owner.execute("INSERT INTO tickets VALUES ('a', 'b', 'c')")
    planned = workspace.run("plan")
    assert planned.code == 0, planned.err
    assert "apply will refuse: table answers of shop cannot be written" in " ".join(planned.out.split())
    assert the(failures(workspace), "destination")["fix"].startswith("GRANT CREATE")


def test_a_plan_needs_no_service(workspace: Workspace) -> None:
    """Neither key nor credentials, bucket or role of the jobs; models are judged by the table."""
    workspace.project(
        backends={
            "gemini": {"type": "gemini"},
            "vertex": {
                "type": "vertex",
                "project": "acme-support",
                "location": "us-central1",
                "staging": "gs://acme-b",
            },
        },
        defaults={"backend": "gemini"},
    )
    assert the(failures(workspace), "key")["subject"] == "backend gemini"
    for backend in ("gemini", "vertex"):
        workspace.spec(backend=backend)
        found = examined(workspace, "--for", "plan")
        assert {f["check"]: f["status"] for f in found if f["subject"] == f"backend {backend}"} == {"model": "ok"}
        assert {f["status"] for f in found if f["check"] != "used"} == {"ok"}
        assert workspace.run("plan").code == 0
    workspace.spec(model="gemini-9-nano")
    assert the(failures(workspace, "--for", "plan"), "model")["status"] == "failure"


def test_a_plan_of_a_ledger_that_it_may_only_read(applied: Workspace) -> None:
    found = examined(applied, "--for", "plan")
    assert "writable" not in {f["check"] for f in found}
    assert the(found, "destination")["message"] == "results/triage.jsonl: there, and may be seen."

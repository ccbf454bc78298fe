"""Ledgers of every released format: a later version reads them, sends nothing for them, and stamps them anew."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
import tarfile
from pathlib import Path
from typing import Any

import duckdb
import pytest

from batchform.canon import FINGERPRINT_VERSION, file_digest
from batchform.cli import run
from batchform.ledger.records import FORMAT_VERSION

RELEASED = Path(__file__).parent / "released"
FIXTURES = sorted(RELEASED.glob("*.tar.gz"))


def told(*arguments: str) -> Any:
    """What a command prints as JSON."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        assert run([*arguments]) == 0, arguments
    return json.loads(out.getvalue() or "null")


@pytest.fixture(params=FIXTURES, ids=lambda p: p.name.partition(".")[0])
def project(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    with tarfile.open(request.param) as archive:
        archive.extractall(tmp_path, filter="data")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_present_format_has_its_fixture() -> None:
    """Who raises a version makes the next one: `make ledger-fixture`."""
    assert RELEASED / f"format-{FORMAT_VERSION}-fingerprint-{FINGERPRINT_VERSION}.tar.gz" in FIXTURES
    versions = [tuple(int(part) for part in p.name.partition(".")[0].split("-")[1::2]) for p in FIXTURES]
    assert {v for v, _ in versions} == set(range(1, FORMAT_VERSION + 1))
    assert {v for _, v in versions} == set(range(1, FINGERPRINT_VERSION + 1))


def test_an_upgrade_sends_nothing(project: Path) -> None:
    plan = told("plan", "--json")
    assert plan["rows_to_send"] == 0
    assert {s["name"]: {a: n for a, n in s["actions"].items() if n} for s in plan["specs"]} == {
        "labels": {"keep": 3},
        "support": {"keep": 4},
    }
    told("ledger", "verify", "--json")
    assert told("jobs", "list", "--json")
    applied = told("apply", "--yes", "--json")
    assert applied["created"] == []
    assert not (project / ".batchform/emulator/emulator.sqlite").exists()


def test_earlier_fingerprints_are_stamped_anew_for_nothing(project: Path) -> None:
    """As a later version finds them: every row says that its fingerprint is of another version."""
    older(project)
    plan = told("plan", "--json")
    assert plan["rows_to_send"] == 0
    assert told("apply", "--yes", "--json")["created"] == []
    assert run(["ledger", "compact", "--quiet"]) == 0
    head = json.loads((project / ".batchform/head.json").read_text())
    with duckdb.connect() as con:
        for name in (s["name"] for s in head["segments"] if s["kind"] == "rows"):
            path = project / ".batchform" / name
            found = con.execute(f"SELECT DISTINCT fp_version FROM '{path}' WHERE status = 'answered'").fetchall()
            assert found == [(FINGERPRINT_VERSION,)]
    assert {s["rows_to_send"] for s in told("plan", "--json")["specs"]} == {0}


def older(project: Path) -> None:
    """Rewrite the row segments with another version of fingerprints; shards of the head as if they had been so."""
    ledger = project / ".batchform"
    head = json.loads((ledger / "head.json").read_text())
    shutil.rmtree(ledger / "heads")
    with duckdb.connect() as con:
        for segment in head["segments"]:
            if segment["kind"] != "rows":
                continue
            path, new = ledger / segment["name"], ledger / "new.parquet"
            con.execute(
                f"COPY (SELECT * REPLACE (0::UTINYINT AS fp_version) FROM '{path}') TO '{new}' (FORMAT parquet)"
            )
            new.replace(path)
            segment |= {"sha256": file_digest(path), "bytes": path.stat().st_size}
    (ledger / "head.json").write_text(json.dumps(head))

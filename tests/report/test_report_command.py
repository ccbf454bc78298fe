"""`report` over a ledger that was really made: its figures, whose row text is on it, where it cannot be written."""

from __future__ import annotations

import datetime as dt
import json
import re
from pathlib import Path

import pytest

from batchform import Project
from batchform.cli import run
from batchform.cli.reporting import OTHERS, _spend
from batchform.cli.wiring import SystemClock
from batchform.ledger.records import Collected, ControlView, Intent, JobRecord, Spent

PROJECT = """
version: 1
project: reported
backends: {local: {type: emulator, job_seconds: 0, poll: 50ms}}
defaults: {backend: local, model: gemini-3.5-flash-lite}
limits: {max_usd: 5}
environments: {empty: {ledger: .batchform/empty}}
"""
SPEC = """
name: NAME
source: {type: csv, path: data/rows.csv}
prompt: {user: {text: "NAME asks: {{ word }}"}}
destination: {type: jsonl, path: results/NAME.jsonl}
idempotency: {key: [id]}
"""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("reported")
    for folder in ("specs", "data"):
        (root / folder).mkdir()
    (root / "batchform.yaml").write_text(PROJECT)
    (root / "specs/open.yaml").write_text(SPEC.replace("NAME", "open") + "preview: public\n")
    (root / "specs/shut.yaml").write_text(SPEC.replace("NAME", "shut"))
    short = "generation_config: {max_output_tokens: 1}\nretry: {max_attempts: 1}\n"
    (root / "specs/torn.yaml").write_text(SPEC.replace("NAME", "torn") + short)
    words = ["saffron", "<b>nutmeg</b>", "clove"]
    (root / "data/rows.csv").write_text("id,word\n" + "".join(f"k{i},{w}\n" for i, w in enumerate(words)))
    with pytest.MonkeyPatch.context() as patch:
        for name in ("GEMINI_API_KEY", "GOOGLE_API_KEY", "GOOGLE_GEMINI_BASE_URL", "BATCHFORM_ENV"):
            patch.delenv(name, raising=False)
        Project(root).apply(check=False)
    return root


def reported(root: Path, *more: str) -> str:
    assert run(["report", "-C", str(root), "--out", str(root / "page"), "--quiet", *more]) == 0
    return (root / "page/index.html").read_text(encoding="utf-8")


def test_figures_are_those_of_the_ledger_and_text_is_only_of_public_specs(root: Path) -> None:
    text = reported(root)
    data = json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)[1])  # type: ignore[index]
    assert {(r["spec"], r["state"], r["rows"]) for r in data["rows"]} == {
        ("open", "answered", 3), ("shut", "answered", 3), ("torn", "failed", 3),
    }  # fmt: skip
    assert data["failures"] == [{"spec": "torn", "kind": "truncated", "rows": 3}]
    assert len(data["jobs"]) == len(data["took"]) == 3 and (data["limit"], data["period"]) == (5, "day")
    spent = {line.name: line.usd for line in Project(root).status().specs}
    assert sum(s["usd"] for s in data["spend"]) == pytest.approx(sum(spent.values()))
    assert "open asks: saffron" in text and "&lt;b&gt;nutmeg&lt;/b&gt;" in text and "<b>" not in text
    assert not re.search(r"shut asks|torn asks", text) and "2 specs keep row text private" in text
    assert len(list((root / "page").iterdir())) == 1
    less = reported(root, "--select", "shut", "--samples", "0")
    assert "saffron" not in less and "torn" not in less and "1 spec keeps row text private" in less


def test_a_page_of_somebody_else_is_left(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "site/index.html"
    page.parent.mkdir()
    for foreign in ("<!doctype html><title>our site</title>", "", "\xff"):
        page.write_bytes(foreign.encode("latin-1"))
        assert run(["report", "-C", str(root), "--out", str(page.parent)]) == 64
        told = capsys.readouterr().err
        assert "site/index.html is no report of batchform" in told and "--out report" in told
        assert page.read_bytes() == foreign.encode("latin-1") and len(list(page.parent.iterdir())) == 1
    page.unlink()
    page.mkdir()
    assert run(["report", "-C", str(root), "--out", str(page.parent)]) == 64
    page.rmdir()
    for _ in range(2):
        assert run(["report", "-C", str(root), "--out", str(page.parent), "--quiet"]) == 0
    assert "batchform report</title>" in page.read_text(encoding="utf-8")


def test_an_empty_ledger_and_python_make_the_page_too(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "No job was created yet" in reported(root, "--env", "empty")
    assert run(["report", "-C", str(root), "--out", str(root / "page"), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told == {"report": str(root / "page/index.html"), "bytes": (root / "page/index.html").stat().st_size}
    made = Project(root).report(root / "other/deep", select="open", samples=1)
    assert made == root / "other/deep/index.html" and "open asks" in made.read_text(encoding="utf-8")


def test_a_place_that_is_no_folder_is_refused(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for place in (str(root / "batchform.yaml"), "gs://bucket/report"):
        assert run(["report", "-C", str(root), "--out", place]) == 64
        assert "is no folder on this machine" in capsys.readouterr().err


def job(tag: str, spec: str, day: dt.date, usd: float) -> JobRecord:
    at = f"{day}T12:00:00Z"
    intent = Intent(
        at=at, tag=tag, spec=spec, backend="b", fingerprint="", realm="google", model="m", shard_digest="", rows=1,
        requests=1, bytes=1, input_name=None, deadline=at,
    )  # fmt: skip
    ended = Collected(at=at, tag=tag, archive="a", answers="b", rows={"answered": 1}, usd=usd)
    return JobRecord(intent=intent, status="collected", collected=ended)


@pytest.mark.parametrize(("days", "period"), [(1, "day"), (92, "day"), (93, "week"), (640, "week"), (700, "month")])
def test_bars_stay_few_and_spend_is_never_lost(days: int, period: str) -> None:
    end = SystemClock().now().date()
    jobs = [job(f"t{i}", f"s{i % 12}", end - dt.timedelta(days=i), 1.0 + i % 12) for i in range(days)]
    tried = Spent(at=f"{end}T01:00:00Z", spec="tried", realm="google", model="m", requests=1, usd=50.0)
    view = ControlView(jobs={j.tag: j for j in jobs}, spent=[(1, tried)])
    found, bars = _spend(view, None)
    assert found == period
    assert sum(b.usd for b in bars) == pytest.approx(sum(1.0 + i % 12 for i in range(days)) + 50)
    assert len({b.day for b in bars}) <= 93 and len({b.spec for b in bars}) <= 8
    assert (OTHERS in {b.spec for b in bars}) is (days > 8)
    assert [(b.spec, b.usd) for b in _spend(view, {"tried"})[1]] == [("tried", 50.0)]

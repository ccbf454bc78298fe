"""Jobs that were cut short and are gone on with, end to end over real sockets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import duckdb
import httpx2
import msgspec
import pytest
import yaml
from tests_e2e_kit import Workspace

from batchform.adapters.local_blobs import LocalBlobs
from batchform.adapters.storage.client import StorageClient
from batchform.adapters.vertex_wire import table_name
from batchform.canon import wire_key
from batchform.cli.wiring import SystemClock
from batchform.emulator import EmulatorServer
from batchform.ledger.store import Ledger
from batchform.plan.resume import read_results
from batchform.spec.model import GoogleCloud
from batchform.spec.remote import address

VERTEX: dict[str, Any] = {
    "type": "emulator", "cloud": "vertex", "job_seconds": 0, "poll": "10ms", "resume": "auto",
}  # fmt: skip
LONG = "a long text that is worth more than its answer " * 40


def cut(share: float, state: str = "EXPIRED", **changes: Any) -> dict[str, Any]:
    """The next job ends like this."""
    do = {"type": "ends", "state": state, "share": share, "seconds": 0}
    return {"call": "vertex.batches.create", "do": do, **changes}


class Project:
    """A workspace of ten rows with long texts, on Vertex AI."""

    def __init__(self, workspace: Workspace, **backend: Any) -> None:
        self.workspace, self.backend = workspace, backend
        workspace.spec(generation_config={"temperature": 0})
        self.rows()

    def rows(self, count: int = 10, **first: str) -> None:
        rows = [self.workspace.row(i, body=f"{LONG} {i}") for i in range(1, count + 1)]
        rows[-1] |= first
        self.workspace.rows(rows)

    def faults(self, *entries: dict[str, Any]) -> None:
        self.workspace.write("faults.yaml", yaml.safe_dump({"faults": list(entries)}))
        self.workspace.project(backends={"local": {**VERTEX, **self.backend, "faults": "faults.yaml"}})

    def cut_short(self, share: float) -> None:
        """Apply, and let the job end early."""
        self.faults(cut(share))
        assert self.workspace.run("apply", "--yes").code == 6

    def answered(self) -> set[str]:
        return {row["id"] for row in self.workspace.delivered()}

    def all_answered_once(self) -> None:
        ws = self.workspace
        assert len(ws.billed()) == 10 == len(set(ws.billed())) == len(self.answered())
        assert ws.actions() == {"keep": 10}

    def recorded(self) -> list[dict[str, Any]]:
        """What the ledger has of each job, the oldest first."""
        ledger = Ledger.open(LocalBlobs(self.workspace.root / ".batchform"), clock=SystemClock(), who="tests")
        return [msgspec.to_builtins(record) for record in ledger.control().jobs.values()]


@pytest.fixture
def project(workspace: Workspace) -> Project:
    return Project(workspace)


@pytest.mark.parametrize(
    ("via", "state"),
    [
        ("storage", "EXPIRED"),
        ("storage", "CANCELLED"),
        ("storage", "PARTIALLY_SUCCEEDED"),
        ("bigquery", "EXPIRED"),
        ("bigquery", "FAILED"),
    ],
)
def test_a_job_that_was_cut_short_is_gone_on_with(workspace: Workspace, via: str, state: str) -> None:
    ws, project = workspace, Project(workspace, via=via)
    project.faults(cut(0.3, state))
    assert ws.run("apply", "--yes", "--json").code == 6
    assert len(ws.billed()) == 3
    plan = ws.plan()
    assert {a: n for a, n in plan["actions"].items() if n} == {"rerun": 7, "keep": 3}
    [shard] = plan["shards"]
    [job] = ws.ok("jobs", "list", "--json").json
    assert shard["rows"] == 7 and shard["resumes"] == {"tag": job["tag"], "job": job["job"], "results": 10}
    text = ws.ok("plan").out
    assert f"resume job {job['tag']}: 7 of 10 rows" in text
    assert ws.apply().json["rows"]["triage"] == {"answered": 7}
    assert len(ws.billed()) == 10 == len(set(ws.billed())) == len(ws.delivered())
    assert ws.actions() == {"keep": 10}
    first, second = project.recorded()
    assert (second["intent"]["resumes"], second["intent"]["results"]) == (first["intent"]["tag"], 10)
    assert "resumes" not in first["intent"] and second["collected"].get("anomalies", {}) == {}
    estimated = [record["intent"]["est_input_tokens"] for record in (first, second)]
    assert estimated[1] < 0.75 * estimated[0], "a budget holds back what runs, and no more"
    for spent in ("prompt_tokens", "usd"):
        assert 2.2 < second["collected"][spent] / first["collected"][spent] < 2.5


def test_it_is_off_unless_asked_for_and_where_it_moves_more_bytes(workspace: Workspace) -> None:
    project = Project(workspace, resume="never")
    project.cut_short(0.3)
    assert [shard["resumes"] for shard in workspace.plan()["shards"]] == [None]
    project.backend["resume"] = "auto"
    project.faults()
    assert workspace.plan()["shards"][0]["resumes"] is not None
    project.faults(cut(5 / 7))
    assert workspace.run("apply", "--yes").code == 6
    plan = workspace.plan()
    assert [(shard["rows"], shard["resumes"]) for shard in plan["shards"]] == [(2, None)]
    assert any("its 8 answers are more to read again" in note for note in plan["notes"])


def test_sync_goes_on_with_a_job_and_so_twice_in_a_row(project: Project) -> None:
    ws = project.workspace
    project.cut_short(0.1)
    project.faults(cut(0.2))
    assert ws.run("sync", "--wait").code == 0
    first, second, third = project.recorded()
    assert (second["intent"]["resumes"], third["intent"]["resumes"]) == (
        first["intent"]["tag"],
        second["intent"]["tag"],
    )
    answered = [record["collected"]["rows"]["answered"] for record in (first, second, third)]
    assert answered[0] == 1 and 0 < answered[1] < 9 and sum(answered) == 10
    assert all(not record["collected"].get("anomalies") for record in (first, second, third))
    project.all_answered_once()


def test_rows_that_changed_in_between_are_not_run_as_they_were(project: Project) -> None:
    """One edited row is enough: the service would run it as it was."""
    ws = project.workspace
    project.cut_short(0.3)
    project.rows(title="edited")
    project.faults()
    plan = ws.plan()
    assert [(shard["rows"], shard["resumes"]) for shard in plan["shards"]] == [(7, None)]
    assert any("of its 7 rows without an answer 1 would not be sent as they were" in note for note in plan["notes"])
    ws.apply()
    assert len(ws.billed()) == 10 == len(set(ws.billed()))
    assert any("edited" in row["text"] for row in ws.delivered())


def test_rows_that_are_not_asked_for_any_more_are_not_run(project: Project) -> None:
    ws = project.workspace
    project.cut_short(0.3)
    project.rows(9)
    project.faults()
    assert [(shard["rows"], shard["resumes"]) for shard in ws.plan()["shards"]] == [(6, None)]
    ws.apply()
    assert len(ws.billed()) == 9 == len(set(ws.billed()))


@pytest.mark.parametrize("harm", ["deleted", "edited"])
def test_results_that_are_not_what_was_collected_are_not_gone_on_with(workspace: Workspace, harm: str) -> None:
    project = Project(workspace)
    project.cut_short(0.3)
    project.faults()
    with EmulatorServer(workspace.root / ".batchform/emulator") as server:
        client = StorageClient(GoogleCloud(), endpoint=server.url)
        [found] = client.list(address("gs://batchform-staging/results/"))
        if harm == "deleted":
            client.delete(found.at)
        else:
            content, generation = client.read(found.at)
            client.write(found.at, content.replace(b'"response":{}', b'"response":[]'), match=generation)
        client.close()
    assert workspace.plan()["shards"][0]["resumes"] is not None, "a plan asks no service"
    done = workspace.ok("apply", "--yes")
    assert "cannot be resumed" in done.out + done.err
    assert "resumes" not in project.recorded()[1]["intent"]
    project.all_answered_once()


def test_a_table_that_is_not_what_was_collected_is_not_gone_on_with(workspace: Workspace) -> None:
    project = Project(workspace, via="bigquery")
    project.cut_short(0.3)
    project.faults()
    [record] = project.recorded()
    name = table_name("bf_out", record["intent"]["tag"])
    with EmulatorServer(workspace.root / ".batchform/emulator") as server:
        httpx2.delete(f"{server.url}/bigquery/v2/projects/emulated-project/datasets/batchform_staging/tables/{name}")
    done = workspace.ok("apply", "--yes")
    assert "cannot be resumed" in done.out + done.err
    project.all_answered_once()


def test_rows_that_the_results_of_a_resume_lack_are_sent_once_more(project: Project) -> None:
    """And answers that it does not hand on are in the archive."""
    ws = project.workspace
    project.cut_short(0.3)
    keys = {wire_key(f"T-{i}"): i for i in range(1, 11)}
    answered = [key for key, i in keys.items() if f"T-{i}" in project.answered()]
    unanswered = [key for key in keys if key not in answered]
    project.faults(
        {"call": "vertex.batches.create", "do": {"type": "rows_missing", "keys": [answered[0], unanswered[0]]}}
    )
    done = ws.run("apply", "--yes")
    assert done.code == 6 and "not among its results" in done.out + done.err
    [_, second] = project.recorded()
    assert second["collected"]["rows"] == {"answered": 6, "missing": 1}
    assert second["collected"]["anomalies"] == {"not_handed_on": 1}
    project.faults()
    assert [(shard["rows"], shard["resumes"]) for shard in ws.plan()["shards"]] == [(1, None)]
    ws.apply()
    assert len(ws.delivered()) == 10 and len(ws.billed()) == 11, "the missing answer was lost by the service"


def test_answers_that_come_back_otherwise_are_told_counted_and_end_it(project: Project) -> None:
    ws = project.workspace
    project.cut_short(0.3)
    before = {row["id"]: row["text"] for row in ws.delivered()}
    again = [wire_key(key) for key in sorted(project.answered())[:2]]
    project.faults({"call": "vertex.batches.create", "do": {"type": "rows_doubled", "keys": again, "differ": True}})
    done = ws.ok("apply", "--yes")
    assert "the service ran them again" in done.out + done.err
    first, second = project.recorded()
    assert second["collected"]["anomalies"]["run_again"] == 2 and second["collected"]["rows"] == {"answered": 7}
    assert second["collected"]["prompt_tokens"] == pytest.approx(first["collected"]["prompt_tokens"] * 9 / 3, rel=0.02)
    after = {row["id"]: row["text"] for row in ws.delivered()}
    assert len(after) == 10 and before.items() <= after.items(), "the first answers stay"
    assert ws.ok("ledger", "verify").code == 0
    project.rows(20)
    project.faults(cut(0.2))
    assert ws.run("apply", "--yes").code == 6
    plan = ws.plan()
    assert [shard["resumes"] for shard in plan["shards"]] == [None]
    assert any("no job is resumed" in note for note in plan["notes"])


def test_lost_answers_of_a_resumed_job_are_made_again_without_what_it_handed_on(workspace: Workspace) -> None:
    ws, project = workspace, Project(workspace, via="bigquery")
    project.cut_short(0.3)
    project.faults()
    ws.apply()
    [path] = (ws.root / ".batchform/answers").glob(f"{project.recorded()[1]['intent']['tag']}.*")
    path.unlink()
    ws.ok("sync")
    assert duckdb.sql(f"SELECT count(*) FROM '{path}'").fetchall() == [(7,)]
    assert ws.actions() == {"keep": 10} and ws.ok("ledger", "verify").code == 0


def test_results_in_several_files_are_one_input(workspace: Workspace) -> None:
    project = Project(workspace)
    project.rows(1_010)
    project.cut_short(0.2)
    project.faults()
    workspace.apply()
    first, second = project.recorded()
    assert second["intent"]["results"] == 1_010 and second["intent"]["resumes"] == first["intent"]["tag"]
    assert len(workspace.billed()) == 1_010 == len(set(workspace.billed()))


def test_a_saved_plan_says_what_is_resumed_and_no_hand_changes_it(workspace: Workspace) -> None:
    project = Project(workspace)
    project.cut_short(0.3)
    project.faults()
    workspace.ok("plan", "--out", "saved")
    assert "resume job" in (workspace.root / "saved/plan.md").read_text(encoding="utf-8")
    path = workspace.root / "saved/bundle.json"
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace('"resumes": {', '"resumes": null, "_": {'), encoding="utf-8")
    refused = workspace.run("apply", "saved", "--yes")
    assert refused.code == 4 and len(workspace.billed()) == 3
    path.write_text(text, encoding="utf-8")
    workspace.ok("apply", "saved", "--yes")
    project.all_answered_once()


@pytest.mark.parametrize(
    ("lines", "why"),
    [
        (['{"status":"","response":{}}'], "do not say whose they are"),
        (['{"key":"7","status":"","response":{}}'], "do not say whose they are"),
        (["no line"], "do not say whose they are"),
        ([f'{{"key":"{wire_key("a")}","response":{{}}}}'] * 2, "several results"),
        ([f'{{"key":"{wire_key("a")}","response":{r}}}' for r in ("{}", '{"candidates":[]}')], "several results"),
    ],
)
def test_odd_results_are_not_gone_on_with(tmp_path: Path, lines: list[str], why: str) -> None:
    path = tmp_path / "results.jsonl"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    found = read_results(path)
    assert isinstance(found, str) and why in found

"""Jobs that were cut short and are gone on with, end to end over real sockets."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
import yaml
from tests_e2e_kit import Workspace

from batchform.adapters.local_blobs import LocalBlobs
from batchform.cli.wiring import SystemClock
from batchform.ledger.store import Ledger

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

    def recorded(self) -> list[dict[str, Any]]:
        """What the ledger has of each job, the oldest first."""
        ledger = Ledger.open(LocalBlobs(self.workspace.root / ".batchform"), clock=SystemClock(), who="tests")
        return [msgspec.to_builtins(record) for record in ledger.control().jobs.values()]


@pytest.fixture(params=["storage", "bigquery"])
def project(request: pytest.FixtureRequest, workspace: Workspace) -> Project:
    return Project(workspace, via=request.param)


@pytest.mark.parametrize("state", ["EXPIRED", "CANCELLED", "FAILED", "PARTIALLY_SUCCEEDED"])
def test_a_job_that_was_cut_short_is_gone_on_with(project: Project, state: str) -> None:
    ws = project.workspace
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

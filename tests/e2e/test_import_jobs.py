"""Jobs that somebody made by hand with google-genai answer rows: read through the backend, paid for once."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from google import genai
from google.oauth2.credentials import Credentials
from tests_e2e_kit import Workspace

from batchform.adapters import gemini_wire as wire
from batchform.adapters.vertex import VertexBackend
from batchform.emulator import EmulatorServer
from batchform.spec.backends import EmulatorBackend
from batchform.spec.model import GoogleCloud

MODEL = "gemini-3.5-flash-lite"


@contextmanager
def by_hand(url: str, **more: Any) -> Iterator[genai.Client]:
    client = genai.Client(api_key="emulator", http_options={"base_url": url, "api_version": "v1beta"}, **more)
    try:
        yield client
    finally:
        client.close()


@pytest.fixture
def service(workspace: Workspace) -> Iterator[str]:
    """The URL of an emulator that is there before batchform is."""
    with EmulatorServer(workspace.root / ".batchform/emulator", job_seconds=0) as server:
        serves(workspace, server.url)
        yield server.url


def serves(workspace: Workspace, url: str, **backend: Any) -> None:
    workspace.project(backends={"local": {"type": "emulator", "url": url, "poll": "10ms", **backend}})


def request(workspace: Workspace, number: int) -> dict[str, Any]:
    found: dict[str, Any] = workspace.ok("render", "triage", "--key", f"T-{number}", "--json").json
    asked = dict(found["request"])
    config = asked["generationConfig"]
    return {
        "contents": [{"role": "user", "parts": asked["contents"][0]["parts"]}],
        "generation_config": {"max_output_tokens": config["maxOutputTokens"], "temperature": 0.0},
    }


def sent_by_hand(client: genai.Client, file: Path, model: str = MODEL) -> Any:
    uploaded = client.files.upload(file=file, config={"mime_type": "application/jsonl"})
    return client.batches.create(model=model, src=uploaded.name or "", config={"display_name": "mine"})


def write_input(workspace: Workspace, name: str, *numbers: int) -> Path:
    lines = [json.dumps({"key": f"row-{n}", "request": request(workspace, n)}) for n in numbers]
    return workspace.write(name, "\n".join(lines) + "\n")


def test_a_job_made_by_hand_answers_rows(workspace: Workspace, service: str) -> None:
    asked = write_input(workspace, "old/input.jsonl", 1, 2, 3)
    write_input(workspace, "old/other.jsonl", 3, 2, 1)
    with by_hand(service) as client:
        job = sent_by_hand(client, asked)
        client.batches.get(name=job.name)
    assert len(workspace.billed()) == 3

    workspace.spec(**{"import": [{"job": job.name}]})
    refused = workspace.run("plan")
    assert (refused.code, "does not give inputs back" in refused.err) == (1, True), refused.err
    assert "specs/triage.yaml:" in refused.err
    workspace.spec(**{"import": [{"job": job.name, "requests": "old/other.jsonl"}]})
    assert f"`requests` is not what {job.name} was sent" in workspace.run("plan").words

    workspace.spec(**{"import": [{"job": [job.name], "requests": "old/*.jsonl"}]})
    before = workspace.snapshot()
    plan = workspace.ok("plan", "--json", "--out", "saved").json
    [one] = plan["imports"]
    assert (one["source"], one["rows"], one["lines"], one["answers"]) == (job.name, 3, 3, 3)
    assert f"import {job.name} → triage: 3 rows are answered by it" in workspace.ok("show", "saved").words
    assert workspace.snapshot() == before  # planning only reads
    workspace.ok("apply", "saved", "--yes")
    assert (len(workspace.billed()), workspace.actions()) == (6, {"keep": 6})
    assert job.name in workspace.ok("explain", "triage", "T-1").out
    assert {r["job"] for r in workspace.ok("jobs", "list", "--json").json if r["tag"].startswith("import-")} == {
        job.name
    }
    assert workspace.run("ledger", "verify").code == 0
    serves(workspace, "http://127.0.0.1:9")  # nobody is asked again
    shutil.rmtree(workspace.root / ".batchform/cache")
    assert "imports" not in workspace.ok("plan", "--json").json


def test_requests_within_the_create_call(workspace: Workspace, service: str) -> None:
    """Told by their metadata, whatever it is called: a place in a list tells nothing."""
    write_input(workspace, "old/input.jsonl", 1)
    second = {"metadata": {"ticket": "two", "by": "hand"}, "request": request(workspace, 2)}
    with (workspace.root / "old/input.jsonl").open("a") as out:
        out.write(json.dumps(second))
    config = {"temperature": 0.0, "max_output_tokens": 64}
    told = ({"key": "row-1"}, {"by": "hand", "ticket": "two"}, None)
    texts = [request(workspace, n)["contents"][0]["parts"][0]["text"] for n in (1, 2, 3)]
    asked: list[Any] = [
        {"contents": [{"role": "user", "parts": [{"text": text}]}], "config": config, **({"metadata": m} if m else {})}
        for text, m in zip(texts, told, strict=True)
    ]
    with by_hand(service) as client:
        job = client.batches.create(model=MODEL, src=asked)
    workspace.spec(**{"import": [{"job": job.name, "requests": "old/input.jsonl"}]})
    [one] = workspace.ok("plan", "--json").json["imports"]
    assert (one["rows"], one["lines"], one["skipped"]) == (2, 3, {"neither a request nor a key": 1})
    assert one["notes"] == ["whether `requests` is what it was sent, the service does not tell"]
    workspace.rows([workspace.row(1), workspace.row(2)])
    workspace.apply()
    assert (len(workspace.billed()), len(workspace.delivered())) == (3, 2)


def test_jobs_that_answer_nothing(workspace: Workspace) -> None:
    with EmulatorServer(workspace.root / ".batchform/emulator", job_seconds=60) as server:
        serves(workspace, server.url)
        asked = write_input(workspace, "old/input.jsonl", 1, 2)
        with by_hand(server.url) as client:
            other, job, late = (sent_by_hand(client, asked, m) for m in ("gemini-3.5-flash", MODEL, MODEL))

            def refusal(name: str = job.name) -> str:
                workspace.spec(**{"import": [{"job": name, "requests": "old/input.jsonl"}]})
                found = workspace.run("plan")
                assert found.code == 1, found.out
                return found.err

            assert f"{job.name} is PENDING" in refusal()
            assert "would be paid for twice" in refusal()
            assert "does not find job batches/none" in refusal("batches/none")
            assert "is a job of Vertex AI" in refusal("projects/p/locations/l/batchPredictionJobs/1")
            server.advance(61)
            client.batches.get(name=job.name)
            workspace.spec(**{"import": [{"job": other.name, "requests": "old/input.jsonl"}]})
            plan = workspace.ok("plan", "--json").json
            assert plan["imports"][0]["notes"] == [
                "it is a job of gemini-3.5-flash, and the spec asks gemini-3.5-flash-lite"
            ]
            assert plan["specs"][0]["actions"]["run"] == 6
            workspace.spec(**{"import": [{"job": late.name, "requests": "old/input.jsonl"}]})
            server.set_faults([{"call": "files.download", "do": {"type": "rows_missing", "rows": [1]}}])
            short, whole = (workspace.ok("plan", "--json").json["imports"][0] for _ in range(2))
            assert short["notes"] == ["1 of its 2 results are there, others may still come"]
            assert (short["rows"], whole["rows"], "notes" in whole) == (1, 2, False)  # it was not kept
            server.advance(7 * 7 * 24 * 3600)  # longer than results are kept
            assert f"the results of {job.name} are no longer at the service" in refusal()
            gone = sent_by_hand(client, asked)
            client.batches.cancel(name=gone.name)
            workspace.spec(**{"import": [{"job": gone.name, "requests": "old/input.jsonl"}]})
            assert "0 rows are answered by it; the job ended CANCELLED without results" in workspace.ok("plan").words
            workspace.ok("apply", "--yes", "--detach")
            [own] = workspace.ok("jobs", "list", "--json").json
            assert f"{own['job']} is the job {own['tag']} of this ledger" in refusal(own["job"])


@pytest.mark.parametrize("via", ["storage", "bigquery"])
def test_a_job_of_vertex_ai(workspace: Workspace, via: str) -> None:
    """It repeats its requests; and is found where its name says, wherever jobs are sent to by now."""
    options = {"cloud": "vertex", "via": via}
    with EmulatorServer(workspace.root / ".batchform/emulator", job_seconds=0) as server:
        server.provide("us-central1", bucket="batchform-staging")
        server.provide("europe-west4", bucket="there", dataset="emulated-project.there")
        now = {"location": "europe-west4", "staging": "gs://there", "dataset": "there"}
        serves(workspace, server.url, **now, **options)
        asked = write_input(workspace, "old/input.jsonl", 1, 2)
        config = EmulatorBackend(type="emulator", url=server.url, **options)
        there = VertexBackend(config, cloud=GoogleCloud(), env={}, realm="emulator", base_url=server.url)
        src = there.stage(asked, digest="sha256:00", tag="mine", mode="file").name or ""
        there.close()
        client = genai.Client(
            vertexai=True, project="emulated-project", location="us-central1",
            credentials=Credentials(token="x"), http_options={"base_url": server.url},
        )  # fmt: skip
        dest = src.replace("bf_in", "out") if via == "bigquery" else "gs://batchform-staging/mine"
        job = client.batches.create(model=MODEL, src=src, config={"dest": dest})
        client.close()
        workspace.spec(**{"import": [{"job": job.name}]})
        workspace.rows([workspace.row(1), workspace.row(2)])
        [one] = workspace.ok("plan", "--json", "--out", "saved").json["imports"]
        assert (one["rows"], one["lines"], "notes" in one) == (2, 2, False)
        workspace.ok("apply", "saved", "--yes")
        assert (len(workspace.billed()), len(workspace.delivered())) == (2, 2)


def test_requests_that_the_service_shows() -> None:
    """It is not documented whether an inline job does; where it does, no file is needed."""
    shown = {"request": {"contents": []}, "metadata": {"key": "a"}}
    answered = {"response": {"candidates": []}, "metadata": {"key": "a"}}
    meta = {
        "inputConfig": {"requests": {"requests": [shown]}},
        "output": {"inlinedResponses": {"inlinedResponses": [answered]}},
    }
    found = wire.inline_lines({"name": "batches/1", "metadata": meta})
    assert [[json.loads(line) for line in lines] for lines in found] == [[answered], [shown]]
    assert wire.sha256_of({"sha256Hash": "no"}) == wire.sha256_of(None) == ""

"""`batchform doctor` against the emulator: what is missing, misplaced or refused is a sentence with a command."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest
from google.auth.credentials import AnonymousCredentials
from google.cloud import bigquery
from tests_e2e_kit import Result, Workspace

from batchform.cli.app import _COMMANDS
from batchform.emulator import EmulatorServer
from bucket_kit import Bucket

Found = dict[str, Any]


@pytest.fixture(scope="module")
def google(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmulatorServer]:
    with EmulatorServer(tmp_path_factory.mktemp("google")) as server:
        server.provide("us-central1", bucket="acme-batch", dataset="acme-support.batches")
        server.provide("europe-west4", bucket="acme-europe", dataset="acme-support.europe")
        yield server


@pytest.fixture
def cloud(google: EmulatorServer, workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """A project on Vertex AI whose three services are one emulator."""
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", google.url)
    monkeypatch.setenv("BIGQUERY_EMULATOR_HOST", google.url)
    return workspace


def vertex(workspace: Workspace, url: str, *, of_project: dict[str, Any] | None = None, **changes: Any) -> None:
    backend = {"type": "vertex", "base_url": url, "project": "acme-support", "location": "us-central1", **changes}
    workspace.project(backends={"vertex": backend}, defaults={"backend": "vertex"}, **(of_project or {}))


def gemini(workspace: Workspace, url: str, **changes: Any) -> None:
    workspace.project(
        backends={"gemini": {"type": "gemini", "base_url": url, **changes}}, defaults={"backend": "gemini"}
    )


def examined(workspace: Workspace, *arguments: str) -> tuple[int, list[Found]]:
    found = workspace.run("doctor", "--json", *arguments)
    assert found.err == "" and found.json["ok"] is (found.code == 0), found.err
    return found.code, found.json["findings"]


def failures(workspace: Workspace, *arguments: str) -> list[Found]:
    code, findings = examined(workspace, *arguments)
    failed = [f for f in findings if f["status"] == "failure"]
    assert code == (1 if failed else 0)
    return failed


def the(findings: list[Found], check: str) -> Found:
    [found] = [f for f in findings if f["check"] == check]
    return found


# --- the Gemini API -------------------------------------------------------------------------------------------------


def test_a_project_on_the_emulator_is_well(workspace: Workspace) -> None:
    before = workspace.snapshot()
    code, findings = examined(workspace)
    assert code == 0 and {f["status"] for f in findings} == {"ok"}
    assert {f["subject"] for f in findings} == {"ledger", "backend local", "spec triage"}
    assert workspace.snapshot() == before and workspace.billed() == []


def test_a_good_key(workspace: Workspace, google: EmulatorServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GEMINI_API_KEY", "AIzaSomethingSecret123")
    gemini(workspace, google.url)
    told = workspace.ok("doctor", "--json")
    findings = told.json["findings"]
    assert the(findings, "key")["message"] == "A key was found in GEMINI_API_KEY."
    assert the(findings, "access")["status"] == the(findings, "model-service")["status"] == "ok"
    assert the(findings, "clock")["status"] == "ok"
    assert "AIzaSomething" not in told.out


def test_a_key_that_the_service_refuses(
    workspace: Workspace, google: EmulatorServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GOOGLE_API_KEY", "invalid")
    gemini(workspace, google.url)
    code, findings = examined(workspace)
    assert code == 1 and "API key not valid" in the(findings, "access")["message"]
    assert "aistudio.google.com" in the(findings, "access")["hint"]
    assert the(findings, "model-service")["status"] == "unknown", "nothing is concluded from silence"


def test_no_key_and_two_keys(workspace: Workspace, google: EmulatorServer, monkeypatch: pytest.MonkeyPatch) -> None:
    gemini(workspace, google.url)
    [failed] = failures(workspace)
    assert failed["check"] == "key" and failed["fix"] == "export GEMINI_API_KEY=YOUR-KEY"
    monkeypatch.setenv("GOOGLE_API_KEY", "one")
    monkeypatch.setenv("GEMINI_API_KEY", "two")
    code, findings = examined(workspace)
    assert (code, the(findings, "key")["status"]) == (0, "warning")
    assert the(findings, "key")["fix"] == "unset GEMINI_API_KEY"


def test_an_emulator_in_the_place_of_google(
    workspace: Workspace, google: EmulatorServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GEMINI_API_KEY", "key")
    gemini(workspace, google.url, realm="google")
    assert "synthetic answers never count as Google's" in the(failures(workspace), "access")["message"]


def test_a_service_that_is_not_there(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GEMINI_API_KEY", "key")
    monkeypatch.setattr("batchform.cli.wiring.SystemClock.sleep", lambda *_: None)
    gemini(workspace, "http://127.0.0.1:9")
    [failed] = failures(workspace)
    assert failed["check"] == "access" and "base_url" in failed["hint"]
    _, findings = examined(workspace)
    assert the(findings, "clock")["status"] == the(findings, "model-service")["status"] == "unknown"


@pytest.mark.parametrize(
    ("seconds", "status", "words"),
    [(0, "ok", "agrees"), (-90, "warning", "s ahead of"), (3600, "failure", "s behind")],
)
def test_clocks_are_compared(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, seconds: int, status: str, words: str
) -> None:
    """A server that says only what time it is."""
    from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
    from threading import Thread

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = b'{"operations": [], "supportedGenerationMethods": ["batchGenerateContent"]}'
            self.send_response_only(200)
            self.send_header("Date", format_datetime(datetime.now(UTC) + timedelta(seconds=seconds), usegmt=True))
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    monkeypatch.setenv("GEMINI_API_KEY", "key")
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        gemini(workspace, f"http://127.0.0.1:{server.server_address[1]}")
        _, findings = examined(workspace)
        server.shutdown()
        thread.join()
    clock = the(findings, "clock")
    assert clock["status"] == status and words in clock["message"]
    assert clock["fix"] == ("" if status == "ok" else "sudo timedatectl set-ntp true")


def test_a_model_that_has_ended_or_is_unknown(workspace: Workspace) -> None:
    workspace.spec(model="gemini-9-nano")
    assert "gemini-9-nano is not known" in the(failures(workspace), "model")["message"]


def test_a_backend_that_nobody_uses_is_looked_at_when_asked(workspace: Workspace) -> None:
    workspace.project(
        backends={"local": {"type": "emulator", "job_seconds": 0}, "gemini": {"type": "gemini"}},
        defaults={"backend": "local"},
    )
    code, findings = examined(workspace)
    assert (code, the(findings, "used")["status"]) == (0, "unknown")
    assert the(failures(workspace, "--all"), "key")["subject"] == "backend gemini"


# --- the ledger and destinations ------------------------------------------------------------------------------------


def test_a_ledger_that_cannot_be_written(workspace: Workspace) -> None:
    workspace.write("state", "no folder")
    workspace.project(ledger="state")
    failed = failures(workspace)
    assert the(failed, "writable")["message"].endswith("/state is no folder.")


def test_a_ledger_with_a_file_gone(applied: Workspace) -> None:
    next((applied.root / ".batchform/segments").glob("rows-*")).unlink()
    assert the(failures(applied), "whole")["fix"] == "batchform ledger verify"


def test_a_ledger_whose_head_is_damaged(applied: Workspace) -> None:
    applied.write(".batchform/head.json", "{")
    code, findings = examined(applied)
    assert code == 1 and the(findings, "whole")["status"] == "failure"
    assert the(findings, "quota")["status"] == "unknown"


def test_a_destination_that_cannot_be_written(workspace: Workspace) -> None:
    workspace.write("results", "no folder")
    assert the(failures(workspace), "destination")["subject"] == "spec triage"


# --- Google Cloud ---------------------------------------------------------------------------------------------------


def test_vertex_through_cloud_storage(cloud: Workspace, google: EmulatorServer) -> None:
    vertex(cloud, google.url, staging="gs://acme-batch/staging")
    code, findings = examined(cloud)
    assert code == 0
    assert the(findings, "bucket")["message"].endswith("where jobs of us-central1 can use it.")
    assert the(findings, "bucket-rights")["status"] == the(findings, "access")["status"] == "ok"
    assert the(findings, "project")["status"] == "unknown", "an emulator has no roles"


def test_a_bucket_that_is_missing(cloud: Workspace, google: EmulatorServer) -> None:
    vertex(cloud, google.url, staging="gs://acme-nowhere/staging")
    [failed] = failures(cloud)
    assert failed["message"] == "There is no bucket gs://acme-nowhere."
    assert failed["fix"] == (
        "gcloud storage buckets create gs://acme-nowhere --project=acme-support --location=us-central1 "
        "--uniform-bucket-level-access --soft-delete-duration=0"
    )


def test_one_command_makes_a_bucket_that_much_lies_in(cloud: Workspace, google: EmulatorServer) -> None:
    """Inputs and results, ledger, rows and answers: the command is that of the jobs, which knows the region."""
    vertex(cloud, google.url, staging="gs://acme-nowhere/staging", of_project={"ledger": "gs://acme-nowhere/ledger"})
    cloud.spec(
        source={"type": "csv", "path": "gs://acme-nowhere/data/*.csv"},
        destination={"type": "jsonl", "path": "gs://acme-nowhere/out/triage.jsonl"},
    )
    absent = [f for f in failures(cloud) if f["message"] == "There is no bucket gs://acme-nowhere."]
    assert len(absent) == 5 and absent[1]["subject"] == "backend vertex"
    [fix] = [f["fix"] for f in absent if f["fix"]]
    assert fix == absent[1]["fix"] and "--location=us-central1" in fix
    assert {f["hint"] for f in absent[2:]} == {"The command that makes it stands above."}


def test_a_plan_reads_raw_results_that_stay(cloud: Workspace, google: EmulatorServer) -> None:
    vertex(cloud, google.url, staging="gs://acme-batch/staging", raw_results="bucket")
    code, findings = examined(cloud, "--for", "plan")
    rights = the(findings, "bucket-rights")
    assert code == 0 and rights["message"] == "Objects at gs://acme-batch/staging may be read."
    refused = {"type": "error", "status": 403, "message": "no"}
    google.set_faults([{"call": "storage.buckets.permissions", "times": "all", "do": refused}])
    try:
        [failed] = failures(cloud, "--for", "plan")
    finally:
        google.set_faults(())
    assert failed["subject"] == "backend vertex" and failed["fix"].endswith("--role=roles/storage.objectViewer")
    vertex(cloud, google.url, staging="gs://acme-batch/staging")
    _, findings = examined(cloud, "--for", "plan")
    assert not [f for f in findings if f["check"].startswith("bucket")], "a plan reads nothing there"


def test_a_bucket_in_another_region(cloud: Workspace, google: EmulatorServer) -> None:
    vertex(cloud, google.url, staging="gs://acme-europe/staging")
    [failed] = failures(cloud)
    assert failed["check"] == "bucket-region" and "EUROPE-WEST4" in failed["message"]
    assert "gs://acme-europe-us-central1" in failed["fix"] and "--location=us-central1" in failed["fix"]


def test_vertex_through_bigquery(cloud: Workspace, google: EmulatorServer) -> None:
    vertex(cloud, google.url, via="bigquery", dataset="batches")
    code, findings = examined(cloud)
    assert code == 0 and the(findings, "bigquery-jobs")["status"] == "ok"
    assert "acme-support.batches is there, in us-central1" in the(findings, "dataset")["message"]


def test_a_dataset_that_is_missing_or_in_another_region(cloud: Workspace, google: EmulatorServer) -> None:
    vertex(cloud, google.url, via="bigquery", dataset="nowhere")
    assert the(failures(cloud), "dataset")["fix"] == "bq mk --dataset --location=us-central1 acme-support:nowhere"
    vertex(cloud, google.url, via="bigquery", dataset="europe")
    failed = the(failures(cloud), "dataset-region")
    assert failed["fix"] == "bq mk --dataset --location=us-central1 acme-support:europe_us_central1"


def test_rights_that_are_missing(cloud: Workspace, google: EmulatorServer) -> None:
    refused = {"type": "error", "status": 403, "message": "no"}
    google.set_faults([{"call": "storage.buckets.permissions", "times": "all", "do": refused}])
    vertex(cloud, google.url, staging="gs://acme-batch/staging")
    try:
        [failed] = failures(cloud)
    finally:
        google.set_faults(())
    assert failed["check"] == "bucket-rights" and failed["fix"].startswith(
        "gcloud storage buckets add-iam-policy-binding gs://acme-batch --member="
    )


def test_a_service_that_refuses_the_credentials(cloud: Workspace, google: EmulatorServer) -> None:
    said = "Vertex AI API has not been used in project acme-support before or it is disabled."
    refused = {"type": "error", "status": 403, "message": said}
    google.set_faults([{"call": "vertex.batches.list", "times": "all", "do": refused}])
    vertex(cloud, google.url, staging="gs://acme-batch/staging")
    try:
        [failed] = failures(cloud)
    finally:
        google.set_faults(())
    assert failed["check"] == "access" and said in failed["message"]
    assert failed["fix"] == "gcloud services enable aiplatform.googleapis.com --project=acme-support"


def test_credentials_that_are_missing_are_told_once(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    """Service, bucket and project were once all failures of their own, with the same sentence and the same command."""
    monkeypatch.delenv("GOOGLE_APPLICATION_CREDENTIALS", raising=False)
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(workspace.root / "nothing"))
    monkeypatch.setattr("google.auth.compute_engine._metadata._NO_GCE_CHECK", True)
    backend = {"type": "vertex", "project": "acme-support", "location": "us-central1", "staging": "gs://acme-batch/s"}
    workspace.project(backends={"vertex": backend}, defaults={"backend": "vertex"})
    [failed] = failures(workspace)
    assert (failed["check"], failed["fix"]) == ("credentials", "gcloud auth application-default login")
    _, findings = examined(workspace)
    unknown = {f["check"] for f in findings if f["status"] == "unknown"}
    assert unknown == {"project", "access"} and the(findings, "model")["status"] == "ok"


def test_a_project_in_a_bucket(workspace: Workspace, bucket: Bucket) -> None:
    workspace.project(ledger=bucket.uri("ledger"))
    workspace.spec(
        source={"type": "csv", "path": bucket.uri("data/*.csv")},
        destination={"type": "jsonl", "path": bucket.uri("out/triage.jsonl")},
    )
    [failed] = failures(workspace)
    assert failed["subject"] == "spec triage" and "No object matches" in failed["message"]
    bucket.put("data/a.csv", b"id,title,body\n1,a,b\n")
    code, findings = examined(workspace)
    assert code == 0, findings
    subjects = {f["subject"] for f in findings}
    assert {bucket.uri(name) for name in ("ledger", "data/", "out/")} <= subjects
    assert bucket.names() == ["data/a.csv"], "nothing is written"


def test_rows_and_answers_in_bigquery(cloud: Workspace, google: EmulatorServer) -> None:
    cloud.project(google_cloud={"project": "acme-support"})
    cloud.spec(
        source={"type": "bigquery", "table": "acme-support.batches.tickets"},
        destination={"type": "bigquery", "table": "acme-support.nowhere.answers"},
    )
    failed = failures(cloud)
    assert the(failed, "source")["status"] == "failure"
    assert the(failed, "dataset")["fix"] == "bq mk --dataset acme-support:nowhere"
    options = {"api_endpoint": google.url}
    made = bigquery.Client(project="acme-support", credentials=AnonymousCredentials(), client_options=options)
    with closing(made) as client:
        client.query("CREATE OR REPLACE TABLE batches.tickets (id STRING, title STRING, body STRING)").result()
    cloud.spec(
        source={"type": "bigquery", "table": "acme-support.batches.tickets"},
        destination={"type": "bigquery", "table": "acme-support.batches.answers"},
    )
    code, findings = examined(cloud)
    assert code == 0, findings
    assert "may be read" in the(findings, "table")["message"]
    assert the(findings, "table-rights")["status"] == "unknown", "the table is made by the first delivery"


# --- what people see ------------------------------------------------------------------------------------------------


def narrow(workspace: Workspace, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> Result:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("NO_COLOR", "1")
    return workspace.run("doctor", *arguments)


def test_text_fits_a_narrow_terminal(cloud: Workspace, google: EmulatorServer, monkeypatch: pytest.MonkeyPatch) -> None:
    vertex(cloud, google.url, staging="gs://acme-nowhere/staging")
    told = narrow(cloud, monkeypatch)
    assert told.code == 1 and "\x1b" not in told.out and told.err == ""
    assert max(map(len, told.out.splitlines())) <= 80
    assert told.out.splitlines()[-1].startswith("1 failure, ")
    block = told.out.partition("gcloud storage")[2].partition("\n  ?")[0].partition("\n\n")[0]
    joined = " ".join(("gcloud storage" + block).replace("\\\n", " ").split())
    [failed] = failures(cloud)
    assert joined.startswith(failed["fix"]), "it can be pasted"


def test_quiet_shows_only_what_is_wrong(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    assert narrow(workspace, monkeypatch, "--quiet").out.splitlines()[-1].startswith("0 failures, 0 warnings")
    workspace.write("results", "no folder")
    told = narrow(workspace, monkeypatch, "-q").out
    assert "✗ failure  destination" in told and "✓" not in told


def test_json_is_one_object_as_documented(workspace: Workspace) -> None:
    told = json.loads(workspace.ok("doctor", "--json").out)
    assert set(told) == {"ok", "environment", "findings"}
    assert all(set(f) == {"subject", "check", "status", "message", "hint", "fix"} for f in told["findings"])


def test_every_command_has_its_roles() -> None:
    """The table of docs/google-cloud.md names each command."""
    page = (Path(__file__).resolve().parents[2] / "docs/google-cloud.md").read_text(encoding="utf-8")
    section = page.partition("## Who needs which role")[2].partition("\n## ")[0]
    first = " ".join(line.split("|")[1] for line in section.splitlines() if line.startswith("| `") or "| other" in line)
    assert [name for name in _COMMANDS if not re.search(rf"`{name}\b", first)] == []


# --- whatever the services answer -----------------------------------------------------------------------------------

_ANSWERS = [
    *({"type": "error", "status": status} for status in (400, 401, 403, 404, 429, 500)),
    {"type": "error", "status": 503, "body": "html"},
    {"type": "error", "status": 503, "body": "empty"},
]
_CALLS = {
    "storage": [
        "vertex.batches.list",
        "vertex.models.count_tokens",
        "storage.buckets.get",
        "storage.buckets.permissions",
    ],
    "bigquery": ["bigquery.datasets.get", "bigquery.jobs.insert", "bigquery.jobs.query"],
}


@pytest.mark.parametrize("answer", _ANSWERS, ids=lambda a: f"{a['status']}-{a.get('body', 'json')}")
@pytest.mark.parametrize("via", _CALLS)
def test_no_answer_is_a_traceback(
    cloud: Workspace, google: EmulatorServer, monkeypatch: pytest.MonkeyPatch, via: str, answer: dict[str, Any]
) -> None:
    """BATCHFORM_DEBUG is set: what is not mapped would be raised. Nobody waits for long: `query` of BigQuery's
    client goes on for ten minutes by itself."""
    monkeypatch.setattr("batchform.adapters.doctor_places.PATIENCE", 0.01)
    monkeypatch.setattr("batchform.cli.wiring.SystemClock.sleep", lambda *_: None)
    vertex(cloud, google.url, via=via, staging="gs://acme-batch/staging", dataset="batches")
    google.set_faults([{"call": call, "times": "all", "do": answer} for call in _CALLS[via]])
    try:
        code, findings = examined(cloud)
    finally:
        google.set_faults(())
    wrong = {f["status"] for f in findings if f["status"] != "ok"}
    assert wrong and (code == 1) is ("failure" in wrong)
    assert all(f["message"] and "\n" not in f["message"] + f["fix"] for f in findings)


def test_one_command_makes_the_bucket_of_a_ledger(project: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    with EmulatorServer(project.root / "emulated") as server:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", server.url)
        project.project(ledger="gs://acme-nowhere/ledger")
        findings = project.run("doctor", "--json").json["findings"]
    told = [f for f in findings if f["message"] == "There is no bucket gs://acme-nowhere."]
    assert [f["subject"] for f in told] == ["ledger", "gs://acme-nowhere/ledger"]
    assert [bool(f["fix"]) for f in told] == [False, True], "the one that says where and whose it is to be"

"""The Vertex backend through Google's unmodified clients: against the emulator, and against bad servers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from raw_server import RawServer, Reply, Request
from vertex_kit import LOCATION, MODEL, PROJECT, STAGING, emulated, pointed_at, shard

from batchform import canon
from batchform.adapters.vertex import VertexBackend
from batchform.adapters.vertex_wire import Place, labels, remote_job, suits, suits_tables, table_name
from batchform.emulator import EmulatorServer
from batchform.errors import AuthError, BackendError, NotCreated, NotFound, OutcomeUnknown
from batchform.ports import RemoteJob, Staged
from batchform.run.context import PASSING
from batchform.spec.backends import EmulatorBackend
from batchform.spec.model import GoogleCloud

UPLOAD = "storage.objects.insert"
BOTH = pytest.mark.parametrize("via", ["storage", "bigquery"])


@pytest.fixture
def emulator(tmp_path: Path) -> Iterator[EmulatorServer]:
    with EmulatorServer(tmp_path / "emulator", job_seconds=0.0) as server:
        yield server


@pytest.fixture
def backend(emulator: EmulatorServer) -> Iterator[VertexBackend]:
    with emulated(emulator) as opened:
        yield opened


def created(backend: VertexBackend, folder: Path, *prompts: str, tag: str = "bf-t-1") -> RemoteJob:
    path, digest = shard(folder, *(prompts or ("hello",)))
    ready = backend.stage(path, digest=digest, tag=tag, mode="file")
    return backend.get(backend.create(model=MODEL, tag=tag, staged=ready))


def results(backend: VertexBackend, job: RemoteJob, folder: Path) -> list[dict[str, Any]]:
    size = backend.download(job, folder / "out.jsonl")
    assert size == (folder / "out.jsonl").stat().st_size
    return [json.loads(line) for line in (folder / "out.jsonl").read_bytes().splitlines()]


# --- the whole way, on the emulator ------------------------------------------------------------------------------


@BOTH
def test_a_shard_goes_in_and_its_results_come_out(emulator: EmulatorServer, tmp_path: Path, via: str) -> None:
    with emulated(emulator, via=via) as backend:
        backend.check_model(MODEL)
        path, digest = shard(tmp_path, "hello", "grüße 👋", 'third \\ " \u2028')
        ready = backend.stage(path, digest=digest, tag="bf-t-1", mode="file")
        assert ready.name is not None and ready.name.startswith({"storage": STAGING, "bigquery": "bq://"}[via])
        name = backend.create(model=MODEL, tag="bf-t-1", staged=ready, labels={"spec": "Triage", "plan": "0ab"})
        assert name.startswith(f"projects/{PROJECT}/locations/{LOCATION}/batchPredictionJobs/")
        job = backend.get(name)
        assert (job.tag, job.state, job.model, job.input_name) == ("bf-t-1", "SUCCEEDED", MODEL, ready.name)
        assert job.terminal and job.counts["succeeded"] == 3 and job.created_at is not None
        assert [j.name for j in backend.list_jobs()] == [name]
        found = results(backend, job, tmp_path)
        assert {r["key"] for r in found} == {canon.wire_key(f"row-{i}") for i in range(3)}
        assert all(r["status"] == "" and r["response"]["candidates"] for r in found)
        assert any("grüße 👋" in json.dumps(r["response"], ensure_ascii=False) for r in found)
        assert len(emulator.bill()) == 3
        backend.delete_input(ready.name)
        backend.delete_input(ready.name)


@BOTH
def test_the_same_digest_is_staged_once(emulator: EmulatorServer, tmp_path: Path, via: str) -> None:
    with emulated(emulator, via=via) as backend:
        path, digest = shard(tmp_path, "hello")
        first = backend.stage(path, digest=digest, tag="a", mode="file")
        assert backend.stage(path, digest=digest, tag="a", mode="file") == first
        path.write_bytes(path.read_bytes() * 2)
        assert backend.stage(path, digest="sha256:" + "b" * 64, tag="a", mode="file").name != first.name


def test_what_lies_under_an_inputs_name_is_never_taken_for_it(backend: VertexBackend, tmp_path: Path) -> None:
    path, digest = shard(tmp_path, "hello")
    first = backend.stage(path, digest=digest, tag="a", mode="file")
    path.write_bytes(path.read_bytes().replace(b"hello", b"jello"))
    second = backend.stage(path, digest=digest, tag="a", mode="file")
    assert first.name is not None and second.name == first.name.removesuffix(".jsonl") + "-2.jsonl"


@pytest.mark.parametrize("do", [{"type": "drop", "when": "after"}, {"type": "error", "status": 503}, {"type": "drop"}])
def test_an_upload_whose_answer_is_lost_is_our_own(
    backend: VertexBackend, emulator: EmulatorServer, tmp_path: Path, do: dict[str, Any]
) -> None:
    """The client sends it again, and is told that there is such an object: it is compared, and it is ours."""
    path, digest = shard(tmp_path, "hello")
    emulator.set_faults([{"call": UPLOAD, "do": do}])
    first = backend.stage(path, digest=digest, tag="a", mode="file")
    assert len(emulator.fired()) == 1
    emulator.set_faults(())
    assert backend.stage(path, digest=digest, tag="a", mode="file") == first
    assert first.name is not None and first.name.count("-") == STAGING.count("-") + 1


def test_an_upload_that_is_refused_says_what_to_do(
    backend: VertexBackend, emulator: EmulatorServer, tmp_path: Path
) -> None:
    path, digest = shard(tmp_path, "hello")
    emulator.set_faults([{"call": UPLOAD, "times": "all", "do": {"type": "error", "status": 403}}])
    with pytest.raises(BackendError, match="Uploading the input of a") as caught:
        backend.stage(path, digest=digest, tag="a", mode="file")
    assert caught.value.status == 403 and caught.value.hint


@BOTH
def test_each_job_has_results_of_its_own(emulator: EmulatorServer, tmp_path: Path, via: str) -> None:
    with emulated(emulator, via=via) as backend:
        jobs = [created(backend, tmp_path, "hello", tag=f"bf-t-{i}") for i in range(2)]
        assert len({j.results for j in jobs}) == 2
        assert [len(results(backend, j, tmp_path)) for j in jobs] == [1, 1]


def test_labels_and_tag_reach_the_service(tmp_path: Path) -> None:
    seen: list[Request] = []

    def answer(request: Request) -> Reply:
        seen.append(request)
        return Reply(200, json.dumps({"name": "projects/p/locations/l/batchPredictionJobs/1"}).encode())

    with RawServer(answer) as server, pointed_at(server.url, labels={"team": "support"}) as backend:
        staged = Staged(path=tmp_path / "x", name="gs://acme-batch/staging/inputs/x.jsonl")
        own = {"project": "Acme Support", "spec": "triage", "plan": "0ab"}
        assert backend.create(model=MODEL, tag="bf-t-1", staged=staged, labels=own).endswith("/1")
    [request] = seen
    body = json.loads(request.body)
    assert request.path == f"/v1beta1/projects/{PROJECT}/locations/{LOCATION}/batchPredictionJobs"
    assert body["displayName"] == "bf-t-1" and body["model"] == f"publishers/google/models/{MODEL}"
    assert body["labels"] == {
        "team": "support", "batchform_project": "acme-support", "batchform_spec": "triage", "batchform_plan": "0ab",
    }  # fmt: skip
    assert body["inputConfig"]["gcsSource"]["uris"] == [staged.name]
    assert body["outputConfig"]["gcsDestination"]["outputUriPrefix"] == f"{STAGING}/results/bf-t-1"


def test_a_job_of_another_place_is_reached_there(emulator: EmulatorServer, tmp_path: Path) -> None:
    with emulated(emulator, location="europe-west4") as there:
        job = created(there, tmp_path)
    with emulated(emulator) as here:
        assert list(here.list_jobs()) == []
        moved = here.at(there.place)
        assert (moved.place, moved.fingerprint) == (there.place, there.fingerprint) != (here.place, here.fingerprint)
        assert [j.name for j in moved.list_jobs()] == [job.name] and moved.get(job.name).state == "SUCCEEDED"
        moved.delete(job.name)
        assert here.at(here.place) is here and here.at("") is here and here.at("elsewhere") is here


def test_jobs_of_other_tools_are_not_listed(backend: VertexBackend, tmp_path: Path) -> None:
    mine = created(backend, tmp_path)
    created(backend, tmp_path, tag="nightly")
    assert [j.name for j in backend.list_jobs()] == [mine.name]


def test_an_unknown_model_is_refused_before_anything_is_sent(backend: VertexBackend, tmp_path: Path) -> None:
    with pytest.raises(BackendError, match=r"does not know model 'gemini-9'.*us-central1"):
        backend.check_model("gemini-9")
    with pytest.raises(BackendError, match="not a model id"):
        backend.check_model("models/x y")
    with pytest.raises(NotCreated, match="not a model id"):
        backend.create(model="a/b", tag="bf-1", staged=Staged(path=tmp_path, name="gs://acme-batch/x"))
    with pytest.raises(NotCreated, match="404"):
        backend.create(model="gemini-9", tag="bf-1", staged=Staged(path=tmp_path, name="gs://acme-batch/x"))


def test_inline_input_is_refused(backend: VertexBackend, tmp_path: Path) -> None:
    path, digest = shard(tmp_path, "hello")
    with pytest.raises(BackendError, match="inline"):
        backend.stage(path, digest=digest, tag="a", mode="inline")


@BOTH
def test_a_staging_area_of_another_region_is_refused(emulator: EmulatorServer, tmp_path: Path, via: str) -> None:
    path, digest = shard(tmp_path, "hello")
    with (
        emulated(emulator, via=via),
        emulated(emulator, via=via, location="europe-west4") as backend,
        pytest.raises(BackendError, match=r"(?i)lies in us-central1.*europe-west4"),
    ):
        backend.stage(path, digest=digest, tag="a", mode="file")


def test_a_missing_bucket_is_told(emulator: EmulatorServer, tmp_path: Path) -> None:
    path, digest = shard(tmp_path, "hello")
    with (
        emulated(emulator, staging="gs://nowhere-at-all/x") as backend,
        pytest.raises(BackendError, match="nowhere-at-all"),
    ):
        backend.stage(path, digest=digest, tag="a", mode="file")


@BOTH
def test_results_that_are_gone_are_not_found(emulator: EmulatorServer, tmp_path: Path, via: str) -> None:
    with emulated(emulator, via=via) as backend:
        job = created(backend, tmp_path)
        assert job.results is not None
        gone = RemoteJob(name=job.name, tag=job.tag, state="SUCCEEDED", results=job.results + "x")
        with pytest.raises(NotFound):
            backend.download(gone, tmp_path / "out.jsonl")
        with pytest.raises(NotFound):
            backend.download(RemoteJob(name=job.name, tag=job.tag, state="FAILED"), tmp_path / "out.jsonl")


def test_a_failed_job_without_result_files_has_no_results(backend: VertexBackend, tmp_path: Path) -> None:
    failed = RemoteJob(name="j", tag="t", state="FAILED", results=f"{STAGING}/results/none/prediction-model-1")
    assert backend.download(failed, tmp_path / "out.jsonl") == 0 == (tmp_path / "out.jsonl").stat().st_size


def test_every_result_file_is_read_and_nothing_else(
    backend: VertexBackend, emulator: EmulatorServer, tmp_path: Path
) -> None:
    from batchform.adapters.storage.client import StorageClient
    from batchform.spec.model import GoogleCloud
    from batchform.spec.remote import address

    folder = address(f"{STAGING}/results/t/prediction-model-1/")
    client = StorageClient(GoogleCloud(), endpoint=emulator.url)
    client.write(folder.below("predictions_00001.jsonl"), b'{"key":"a"}', match=0)
    client.write(folder.below("predictions_00002.jsonl"), b'{"key":"b"}\n', match=0)
    client.write(folder.below("errors_00001.jsonl"), b'{"key":"c"}\n', match=0)
    client.write(address(f"{STAGING}/results/t/prediction-model-2/predictions.jsonl"), b'{"key":"d"}\n', match=0)
    client.close()
    job = RemoteJob(name="j", tag="t", state="SUCCEEDED", results=str(folder).rstrip("/"))
    assert [r["key"] for r in results(backend, job, tmp_path)] == ["a", "b"]


def test_one_request_is_answered_at_once(backend: VertexBackend) -> None:
    request = canon.canonical_json({"contents": [{"role": "user", "parts": [{"text": "hello"}]}]})
    assert backend.generate(MODEL, request)["candidates"]


def test_a_job_is_cancelled_and_deleted(tmp_path: Path) -> None:
    with EmulatorServer(tmp_path / "emulator", job_seconds=600.0) as server, emulated(server) as backend:
        job = created(backend, tmp_path)
        backend.cancel(job.name)
        assert backend.get(job.name).state in ("CANCELLED", "CANCELLING")


def test_a_job_that_ended_is_deleted(backend: VertexBackend, tmp_path: Path) -> None:
    job = created(backend, tmp_path)
    backend.delete(job.name)
    with pytest.raises(NotFound):
        backend.get(job.name)


# --- what a create call may come to --------------------------------------------------------------------------------


def attempt(handler: Any, tmp_path: Path, **settings: Any) -> int:
    """Create at a server of our own; returns how many requests came. Raises what create raises."""
    count = 0

    def answer(request: Request) -> Reply:
        nonlocal count
        count += 1
        reply: Reply = handler(request)
        return reply

    with RawServer(answer) as server, pointed_at(server.url, timeout=1.0, **settings) as backend:
        try:
            backend.create(model=MODEL, tag="bf-t", staged=Staged(path=tmp_path, name="gs://acme-batch/x"))
        finally:
            assert count <= 1
    return count


@pytest.mark.parametrize("status", [400, 401, 403, 404, 429])
def test_a_refusal_is_surely_not_created(tmp_path: Path, status: int) -> None:
    body = json.dumps({"error": {"code": status, "message": "no", "status": "NO"}}).encode()
    with pytest.raises(NotCreated) as caught:
        attempt(lambda _: Reply(status, body), tmp_path)
    assert caught.value.status == status and caught.value.hint


@pytest.mark.parametrize("status", [408, 409, 500, 502, 503, 504])
def test_everything_else_may_have_made_a_job(tmp_path: Path, status: int) -> None:
    with pytest.raises(OutcomeUnknown):
        attempt(lambda _: Reply(status, b"<html>"), tmp_path)


@pytest.mark.parametrize("body", [b"", b"not json", b"[]", b"{}", b'{"name": ""}'])
def test_a_yes_without_a_job_may_have_made_one(tmp_path: Path, body: bytes) -> None:
    with pytest.raises(OutcomeUnknown):
        attempt(lambda _: Reply(200, body), tmp_path)


def test_a_server_that_is_not_there_made_nothing(tmp_path: Path) -> None:
    with pointed_at("http://127.0.0.1:9") as backend, pytest.raises(NotCreated):
        backend.create(model=MODEL, tag="bf-t", staged=Staged(path=tmp_path, name="gs://acme-batch/x"))


def test_a_call_whose_time_has_passed_is_not_sent(tmp_path: Path) -> None:
    with RawServer(lambda _: Reply(500, b"")) as server, pointed_at(server.url) as backend:
        late = datetime.now(UTC) - timedelta(seconds=1)
        with pytest.raises(NotCreated, match="could not be sent before"):
            backend.create(model=MODEL, tag="t", staged=Staged(path=tmp_path, name="gs://a-b/x"), before=late)
        assert server.seen == []


def test_an_emulator_is_no_google(emulator: EmulatorServer, tmp_path: Path) -> None:
    with pointed_at(emulator.url, realm="google") as backend, pytest.raises(NotCreated, match="emulator"):
        backend.create(model=MODEL, tag="t", staged=Staged(path=tmp_path, name="gs://acme-batch/x"))
    assert emulator.bill() == []


def test_one_strange_job_does_not_hide_the_others() -> None:
    odd: list[Any] = [{"name": "x", "error": {"details": [{"a": 1}], "message": "m"}}, 7, {"displayName": "bf-2"}]

    def answer(request: Request) -> Reply:
        last = "pageToken" in request.path
        page = {"batchPredictionJobs": odd[2:]} if last else {"batchPredictionJobs": odd[:2], "nextPageToken": "n"}
        return Reply(200, json.dumps(page).encode())

    with RawServer(answer) as server, pointed_at(server.url) as backend:
        assert [(j.name, j.tag) for j in backend.list_jobs()] == [("x", ""), ("", "bf-2")]


# --- credentials -------------------------------------------------------------------------------------------------


def test_an_api_key_is_sent_and_never_shown(tmp_path: Path) -> None:
    seen: list[Request] = []

    def answer(request: Request) -> Reply:
        seen.append(request)
        return Reply(403, json.dumps({"error": {"code": 403, "message": "key sesame1 refused"}}).encode())

    with RawServer(answer) as server, pointed_at(server.url, api_key_env="K", env={"K": "sesame1"}) as backend:
        with pytest.raises(NotCreated) as refused:
            backend.create(model=MODEL, tag="t", staged=Staged(path=tmp_path, name="gs://acme-batch/x"))
        with pytest.raises(AuthError) as denied:
            backend.get("projects/p/locations/l/batchPredictionJobs/1")
    for request in seen:
        sent = {name.lower(): value for name, value in request.headers.items()}
        assert sent["x-goog-api-key"] == "sesame1" and "authorization" not in sent
    assert "sesame1" not in f"{refused.value} {denied.value} {backend!r}"
    with pytest.raises(AuthError, match="K is not set"), pointed_at("http://127.0.0.1:9", api_key_env="K"):
        pass


def test_missing_credentials_are_told_and_nothing_is_sent(tmp_path: Path) -> None:
    missing = str(tmp_path / "none.json")
    with RawServer(lambda _: Reply(500, b"")) as server, pointed_at(server.url, credentials=missing) as backend:
        with pytest.raises(NotCreated, match=r"none\.json"):
            backend.create(model=MODEL, tag="t", staged=Staged(path=tmp_path, name="gs://acme-batch/x"))
        with pytest.raises(AuthError, match=r"none\.json"):
            backend.get("projects/p/locations/l/batchPredictionJobs/1")
        assert server.seen == []


# --- shapes ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("location", "host"),
    [
        ("us-central1", "us-central1-aiplatform.googleapis.com"),
        ("global", "aiplatform.googleapis.com"),
        ("eu", "aiplatform.eu.rep.googleapis.com"),
    ],
)
def test_endpoints(location: str, host: str) -> None:
    assert Place("p", location).endpoint == f"https://{host}"


@pytest.mark.parametrize(
    ("where", "location", "fits"),
    [
        ("US-CENTRAL1", "us-central1", True),
        ("US", "us-central1", True),
        ("EU", "us-central1", False),
        ("EU", "europe-west4", True),
        ("EUR4", "europe-west4", True),
        ("EUR4", "europe-west1", False),
        ("EUR4", "eu", True),
        ("NAM4", "us", True),
        ("NAM4", "eu", False),
        ("ASIA1", "asia-northeast1", True),
        ("ASIA1", "us", False),
        ("ASIA", "asia-northeast1", True),
        ("ASIA", "us-central1", False),
        ("EUROPE-WEST4", "eu", True),
        ("US-EAST1", "us-central1", False),
        ("ASIA-EAST1", "global", True),
    ],
)
def test_where_a_job_can_read(where: str, location: str, fits: bool) -> None:
    assert suits(where, location) is fits


@pytest.mark.parametrize(
    ("where", "location", "fits"),
    [
        ("US-CENTRAL1", "us-central1", True),
        ("US", "us-central1", False),
        ("EU", "europe-west4", False),
        ("US-EAST1", "us-central1", False),
        ("US", "us", True),
        ("US-EAST1", "us", True),
        ("EU", "us", False),
        ("EUROPE-WEST4", "EU", True),
        ("ASIA-EAST1", "global", True),
        ("US", "global", True),
    ],
)
def test_where_a_job_can_use_tables(where: str, location: str, fits: bool) -> None:
    assert suits_tables(where, location) is fits


@pytest.mark.parametrize(("location", "where"), [("us-central1", "US"), ("europe-west4", "EU"), ("eu", "US")])
def test_a_dataset_elsewhere_is_refused_before_anything_is_sent(
    emulator: EmulatorServer, tmp_path: Path, location: str, where: str
) -> None:
    dataset = f"elsewhere_{location.replace('-', '_')}"
    emulator.provide(where, dataset=f"{PROJECT}.{dataset}")
    with emulated(emulator, via="bigquery", location=location, dataset=dataset) as backend:
        lines = tmp_path / "shard.jsonl"
        lines.write_text('{"key":"k","request":{"contents":[]}}\n')
        with pytest.raises(BackendError, match=rf"lies in {where}, where jobs of {location} cannot read it") as caught:
            backend.stage(lines, digest="sha256:00", tag="bf-1", mode="file")
        assert f"one in {location}" in caught.value.hint and caught.value.status not in PASSING
        assert not [j for j in backend.list_jobs() if j.tag == "bf-1"]


@pytest.mark.parametrize("location", ["us-central1", "europe-west4", "eu", "global"])
def test_an_emulator_gets_its_dataset_where_jobs_may_use_it(
    emulator: EmulatorServer, tmp_path: Path, location: str
) -> None:
    """At a server of its own nobody makes one beforehand, and BigQuery would put it into the US."""
    config = EmulatorBackend(
        type="emulator", cloud="vertex", project=PROJECT, location=location, via="bigquery", url=emulator.url,
        dataset=f"made_for_{location.replace('-', '_')}",
    )  # fmt: skip
    with closing(VertexBackend(config, cloud=GoogleCloud(), env={}, realm="emulator")) as backend:
        path, digest = shard(tmp_path, "hello")
        staged = backend.stage(path, digest=digest, tag="bf-made", mode="file")
        job = backend.create(model=MODEL, tag="bf-made", staged=staged)
        assert (backend.get(job).state, backend.get(job).error) == ("SUCCEEDED", "")


@pytest.mark.parametrize(("location", "where"), [("us-central1", "EU"), ("eu", "US"), ("us-west1", "NAM4")])
def test_a_bucket_elsewhere_is_refused_before_anything_is_sent(
    emulator: EmulatorServer, tmp_path: Path, location: str, where: str
) -> None:
    bucket = f"elsewhere-{location}"
    emulator.provide(where, bucket=bucket)
    with emulated(emulator, location=location, staging=f"gs://{bucket}/staging") as backend:
        lines = tmp_path / "shard.jsonl"
        lines.write_text('{"key":"k","request":{"contents":[]}}\n')
        with pytest.raises(BackendError, match=rf"lies in {where}, where jobs of {location} cannot read it") as caught:
            backend.stage(lines, digest="sha256:00", tag="bf-1", mode="file")
    assert caught.value.status not in PASSING, "nothing that waits could mend is tried again"


def test_jobs_of_any_shape_are_read() -> None:
    full = {
        "name": "projects/p/locations/l/batchPredictionJobs/1",
        "displayName": "bf-1",
        "model": "publishers/google/models/gemini-3.5-flash",
        "state": "JOB_STATE_PARTIALLY_SUCCEEDED",
        "createTime": "2026-11-20T00:00:00.123456789Z",
        "completionStats": {"successfulCount": "9", "failedCount": "1", "incompleteCount": "-1"},
        "outputInfo": {"bigqueryOutputDataset": "bq://p.d", "bigqueryOutputTable": "predictions_1"},
        "inputConfig": {"bigquerySource": {"inputUri": "bq://p.d.t"}},
        "error": {"code": 3, "message": "Failed to import data"},
        "partialFailures": [{"code": 8, "message": "quota"}, {"code": 8}],
    }
    job = remote_job(full)
    assert job.terminal and job.counts == {"succeeded": 9, "failed": 1}
    assert (job.model, job.input_name, job.results) == ("gemini-3.5-flash", "bq://p.d.t", "bq://p.d.predictions_1")
    assert job.error == "Failed to import data (code 3); quota (code 8) …"
    whole = {"successfulCount": "9", "failedCount": "1", "incompleteCount": "0"}
    assert remote_job({"completionStats": whole}).counts["total"] == 10
    for name in full:
        for odd in (None, [], {}, 7, "x", [{}]):
            assert remote_job({**full, name: odd}).state


def test_names_that_are_made_fit() -> None:
    assert labels({}, {"spec": "Süß & Säure" * 9})["batchform_spec"].startswith("s---")
    assert len(labels({}, {"spec": "x" * 99})["batchform_spec"]) == 63
    assert table_name("bf_out", "bf-a-b") != table_name("bf_out", "bf-a_b")


# --- loads into tables -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("call", ["bigquery.jobs.upload", "bigquery.jobs.upload.bytes"])
@pytest.mark.parametrize(
    "do", [{"type": "drop", "when": "after"}, {"type": "error", "status": 503, "when": "after"}, {"type": "drop"}]
)
def test_a_load_whose_answer_is_lost_is_one_load(
    emulator: EmulatorServer, tmp_path: Path, call: str, do: dict[str, Any]
) -> None:
    with emulated(emulator, via="bigquery") as backend:
        path, digest = shard(tmp_path, "one", "two", "three")
        emulator.set_faults([{"call": call, "do": do}])
        try:
            first = backend.stage(path, digest=digest, tag="a", mode="file")
        except BackendError as error:  # what the client gives up on, run/submit.py begins anew
            assert error.status in (0, 500, 503) and error.hint
            first = backend.stage(path, digest=digest, tag="a", mode="file")
        assert len(emulator.fired()) == 1
        emulator.set_faults(())
        name = backend.create(model=MODEL, tag="bf-t-1", staged=first)
        assert backend.get(name).counts["succeeded"] == 3


def test_an_input_can_be_loaded_as_often_as_it_is_sent(emulator: EmulatorServer, tmp_path: Path) -> None:
    """The service refuses the job, its input is deleted, and some day it is not refused. An id of a load is taken for
    good."""
    with emulated(emulator, via="bigquery") as backend:
        path, digest = shard(tmp_path, "one", "two")
        for attempt in range(1, 13):
            staged = backend.stage(path, digest=digest, tag=f"bf-t-a{attempt}", mode="file")
            assert staged.name is not None
            backend.delete_input(staged.name)


def test_loads_that_failed_do_not_stand_in_the_way_of_the_next(emulator: EmulatorServer, tmp_path: Path) -> None:
    """Somebody's table has the name of an input; once it is gone, all is well."""
    with emulated(emulator, via="bigquery") as backend:
        path, digest = shard(tmp_path, "one", "two")
        first = backend.stage(path, digest=digest, tag="bf-t-a1", mode="file")
        assert first.name is not None
        backend.delete_input(first.name)
        table, client = first.name.removeprefix("bq://"), backend._tables._client
        client.query(f"CREATE TABLE `{table}` AS SELECT 1 AS other").result()
        for _ in range(2):
            with pytest.raises(BackendError, match="does not hold its 2 rows"):
                backend.stage(path, digest=digest, tag="bf-t-a1", mode="file")
        client.delete_table(table)
        assert backend.stage(path, digest=digest, tag="bf-t-a1", mode="file").name == first.name

"""The Gemini backend through the unmodified google-genai client: against the emulator, and against bad servers."""

from __future__ import annotations

import json
import socket
import traceback
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from raw_server import RawServer, Reply, Request

from batchform import canon
from batchform.adapters.gemini import GeminiBackend
from batchform.emulator import EmulatorServer
from batchform.errors import AuthError, BackendError, NotCreated, NotFound, OutcomeUnknown
from batchform.ports import RemoteJob, Staged
from batchform.spec.model import EmulatorBackend
from batchform.spec.model import GeminiBackend as GeminiConfig

MODEL = "gemini-3.5-flash-lite"
KEY = "AIza-very-secret"
ENV = {"GEMINI_API_KEY": KEY}


@contextmanager
def backend_at(
    url: str, *, realm: str = "emulator", naps: list[float] | None = None, **settings: Any
) -> Iterator[GeminiBackend]:
    config = GeminiConfig(type="gemini", base_url=url, **settings)
    sleep = (lambda s: naps.append(s)) if naps is not None else (lambda _: None)
    with closing(GeminiBackend(config, env=ENV, realm=realm, sleep=sleep)) as backend:
        yield backend


@contextmanager
def faulty(handler: Callable[[Request], Reply], **settings: Any) -> Iterator[tuple[RawServer, GeminiBackend]]:
    with RawServer(handler) as server, backend_at(server.url, **settings) as backend:
        yield server, backend


@pytest.fixture
def emulator(tmp_path: Path) -> Iterator[EmulatorServer]:
    with EmulatorServer(tmp_path / "emulator", job_seconds=0.0) as server:
        yield server


@pytest.fixture
def backend(emulator: EmulatorServer) -> Iterator[GeminiBackend]:
    with backend_at(emulator.url) as opened:
        yield opened


def shard(tmp_path: Path, *prompts: str) -> tuple[Path, str]:
    lines = [
        canon.canonical_json(
            {
                "key": canon.wire_key(f"row-{i}"),
                "request": {
                    "contents": [{"role": "user", "parts": [{"text": prompt}]}],
                    "generationConfig": {"temperature": 0.25},
                },
            }
        )
        for i, prompt in enumerate(prompts)
    ]
    path = tmp_path / "shard.jsonl"
    path.write_bytes(b"".join(line + b"\n" for line in lines))
    return path, canon.file_digest(path)


def staged(tmp_path: Path, name: str | None = "files/bf-1") -> Staged:
    path, _ = shard(tmp_path, "hello")
    return Staged(path=path, name=name)


# --- the whole way, on the emulator ------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["file", "inline"])
def test_a_shard_goes_in_and_its_results_come_out(
    backend: GeminiBackend, tmp_path: Path, emulator: EmulatorServer, mode: str
) -> None:
    path, digest = shard(tmp_path, "hello", "grüße 👋", "third")
    backend.check_model(MODEL)
    ready = backend.stage(path, digest=digest, tag="bf-t-1", mode=mode)
    name = backend.create(model=MODEL, tag="bf-t-1", staged=ready)
    job = backend.get(name)
    assert (job.tag, job.state, job.model, job.input_name) == ("bf-t-1", "SUCCEEDED", MODEL, ready.name)
    assert job.terminal and job.counts["total"] == 3 and job.created_at is not None
    assert [j.name for j in backend.list_jobs()] == [name]
    size = backend.download(job, tmp_path / "out.jsonl")
    assert size == (tmp_path / "out.jsonl").stat().st_size
    results = [json.loads(line) for line in (tmp_path / "out.jsonl").read_bytes().splitlines()]
    assert {r["key"] for r in results} == {canon.wire_key(f"row-{i}") for i in range(3)}
    assert all(r["response"]["candidates"] for r in results)
    assert len(emulator.bill()) == 3


def test_the_same_digest_is_uploaded_once(backend: GeminiBackend, tmp_path: Path) -> None:
    path, digest = shard(tmp_path, "hello")
    first = backend.stage(path, digest=digest, tag="a", mode="file")
    second = backend.stage(path, digest=digest, tag="a", mode="file")
    assert first.name == second.name and first.expires_at == second.expires_at
    assert first.name is not None and len(first.name.removeprefix("files/")) <= 40


def test_an_input_that_would_expire_too_soon_is_uploaded_again(emulator: EmulatorServer, tmp_path: Path) -> None:
    path, digest = shard(tmp_path, "hello")
    config = GeminiConfig(type="gemini", base_url=emulator.url)
    later = lambda: datetime.now(UTC) + timedelta(hours=2)  # noqa: E731
    with (
        closing(GeminiBackend(config, env=ENV, realm="emulator")) as now,
        closing(GeminiBackend(config, env=ENV, realm="emulator", now=later)) as then,
    ):
        first = now.stage(path, digest=digest, tag="a", mode="file")
        second = then.stage(path, digest=digest, tag="a", mode="file")
    assert second.name == f"{first.name}-2"


def test_other_bytes_under_a_taken_name_get_another_name(backend: GeminiBackend, tmp_path: Path) -> None:
    path, digest = shard(tmp_path, "hello")
    first = backend.stage(path, digest=digest, tag="a", mode="file")
    other, _ = shard(tmp_path, "something else")
    assert backend.stage(other, digest=digest, tag="a", mode="file").name != first.name


def test_inputs_and_jobs_are_deleted(backend: GeminiBackend, tmp_path: Path) -> None:
    path, digest = shard(tmp_path, "hello")
    ready = backend.stage(path, digest=digest, tag="a", mode="file")
    assert ready.name is not None
    job = backend.create(model=MODEL, tag="a", staged=ready)
    backend.get(job)
    backend.delete_input(ready.name)
    backend.delete_input(ready.name)
    backend.delete(job)
    with pytest.raises(NotFound):
        backend.get(job)


def test_a_running_job_is_cancelled(tmp_path: Path) -> None:
    path, digest = shard(tmp_path, "hello")
    with EmulatorServer(tmp_path / "emulator", job_seconds=3600) as server, backend_at(server.url) as backend:
        job = backend.create(model=MODEL, tag="a", staged=backend.stage(path, digest=digest, tag="a", mode="file"))
        backend.cancel(job)
        assert backend.get(job).state == "CANCELLED"


def test_generate_returns_the_raw_response(backend: GeminiBackend) -> None:
    request = canon.canonical_json({"contents": [{"role": "user", "parts": [{"text": "hello"}]}]})
    answer = backend.generate(MODEL, request)
    assert answer["candidates"][0]["finishReason"] == "STOP" and "usageMetadata" in answer


def test_an_unknown_model_is_named(backend: GeminiBackend) -> None:
    with pytest.raises(BackendError, match="gemini-9-mega"):
        backend.check_model("gemini-9-mega")
    with pytest.raises(BackendError, match="not a model id"):
        backend.check_model("../secrets")


def test_the_emulators_answers_never_count_as_googles(emulator: EmulatorServer, tmp_path: Path) -> None:
    with backend_at(emulator.url, realm="google") as backend:
        with pytest.raises(BackendError, match="never count as Google's"):
            backend.check_model(MODEL)
        with pytest.raises(NotCreated, match="never count as Google's"):
            backend.create(model=MODEL, tag="a", staged=staged(tmp_path, None))


# --- what goes over the wire -------------------------------------------------------------------------------------


def test_inline_requests_arrive_exactly_as_they_are(tmp_path: Path) -> None:
    request = {
        "contents": [{"role": "user", "parts": [{"text": "grüße 👋 \u0000", "thoughtSignature": "__sAPj4"}]}],
        "systemInstruction": {"parts": [{"text": "be brief"}]},
        "generationConfig": {
            "temperature": 0.1,
            "responseSchema": {"type": "OBJECT", "properties": {}},
            "seed": 2**53 + 1,
        },
        "safetySettings": [],
        "unknownToTheSdk": {"deep": [None, True, 1e-7]},
    }
    path = tmp_path / "shard.jsonl"
    path.write_bytes(canon.canonical_json({"key": "k1", "request": request}) + b"\n")
    with faulty(lambda _: Reply(body={"name": "batches/1"})) as (server, backend):
        assert backend.create(model=f"models/{MODEL}", tag="bf-1", staged=Staged(path, None)) == "batches/1"
    assert server.seen[0].path == f"/v1/models/{MODEL}:batchGenerateContent"
    assert server.seen[0].json() == {
        "batch": {
            "displayName": "bf-1",
            "inputConfig": {"requests": {"requests": [{"request": request, "metadata": {"key": "k1"}}]}},
        }
    }


def test_generate_sends_the_exact_request() -> None:
    request = {
        "contents": [{"role": "user", "parts": [{"text": "x"}]}],
        "generationConfig": {"thinkingConfig": {"thinkingBudget": 0}},
    }
    with faulty(lambda _: Reply(body={"candidates": [], "newField": 1})) as (server, backend):
        assert backend.generate(MODEL, canon.canonical_json(request)) == {"candidates": [], "newField": 1}
    assert server.seen[0].json() == request


def test_the_mime_type_falls_back() -> None:
    def handler(request: Request) -> Reply:
        if request.path.startswith("/upload/"):
            return Reply(
                400, {"error": {"code": 400, "message": "Unsupported MIME type: jsonl", "status": "INVALID_ARGUMENT"}}
            )
        return Reply(403, {"error": {"code": 403, "message": "no such file", "status": "PERMISSION_DENIED"}})

    with faulty(handler) as (server, backend), pytest.raises(BackendError, match="MIME"):
        backend.stage(Path(__file__), digest=canon.digest(b"x"), tag="a", mode="file")
    starts = [r.json()["file"]["mime_type"] for r in server.seen if r.path.startswith("/upload/")]
    assert starts == ["jsonl", "application/jsonl"]


# --- create: surely not, or maybe --------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [400, 401, 403, 404, 429])
def test_refusals_surely_made_no_job(tmp_path: Path, status: int) -> None:
    body = {"error": {"code": status, "message": "no", "status": "X"}}
    with faulty(lambda _: Reply(status, body)) as (server, backend), pytest.raises(NotCreated) as caught:
        backend.create(model=MODEL, tag="a", staged=staged(tmp_path))
    assert caught.value.status == status and len(server.seen) == 1


@pytest.mark.parametrize("status", [408, 409, 418, 500, 502, 503, 504])
def test_other_statuses_may_have_made_a_job_and_are_not_repeated(tmp_path: Path, status: int) -> None:
    body = {"error": {"code": status, "message": "no", "status": "X"}}
    with faulty(lambda _: Reply(status, body)) as (server, backend), pytest.raises(OutcomeUnknown):
        backend.create(model=MODEL, tag="a", staged=staged(tmp_path))
    assert len(server.seen) == 1


@pytest.mark.parametrize(
    "reply",
    [
        Reply(drop=True),
        Reply(body={}),
        Reply(body=b""),
        Reply(body=b"<html>hello</html>"),
        Reply(body=b'{"name": "batches/1"', length=500),
        Reply(body={"name": "batches/1", "metadata": {"state": 7, "createTime": "yesterday"}}),
    ],
    ids=["dropped", "empty object", "empty", "html", "cut", "odd shape"],
)
def test_odd_answers_to_create_may_have_made_a_job(tmp_path: Path, reply: Reply) -> None:
    with faulty(lambda _: reply) as (server, backend), pytest.raises(OutcomeUnknown):
        backend.create(model=MODEL, tag="a", staged=staged(tmp_path))
    assert len(server.seen) == 1


def test_a_create_that_never_answers_is_unknown(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with backend_at(url, timeout=0.2) as backend, pytest.raises(OutcomeUnknown):
            backend.create(model=MODEL, tag="a", staged=staged(tmp_path))


def test_a_refused_connection_and_a_name_that_does_not_resolve_surely_made_no_job(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        free = taken.getsockname()[1]
    for url in (f"http://127.0.0.1:{free}", "http://batchform.invalid"):
        with backend_at(url, timeout=2) as backend, pytest.raises(NotCreated):
            backend.create(model=MODEL, tag="a", staged=staged(tmp_path))


@pytest.mark.parametrize(
    ("headers", "details", "expected"),
    [
        ({"Retry-After": "12"}, [], 12.0),
        ({}, [{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "7s"}], 7.0),
        ({}, [{"@type": "x", "retryDelay": "1.5s"}], 1.5),
        ({"Retry-After": "soon"}, [], None),
        ({}, "odd", None),
    ],
)
def test_how_long_the_service_asks_to_wait(
    tmp_path: Path, headers: dict[str, str], details: Any, expected: float | None
) -> None:
    body = {"error": {"code": 429, "message": "quota", "status": "RESOURCE_EXHAUSTED", "details": details}}
    with faulty(lambda _: Reply(429, body, headers)) as (_, backend), pytest.raises(NotCreated) as caught:
        backend.create(model=MODEL, tag="a", staged=staged(tmp_path))
    assert caught.value.retry_after == expected


# --- reads -------------------------------------------------------------------------------------------------------


def test_reads_are_retried_and_wait_as_long_as_asked() -> None:
    replies = iter(
        [Reply(drop=True), Reply(503, {}), Reply(429, {}, {"Retry-After": "9"}), Reply(body={"name": "batches/1"})]
    )
    naps: list[float] = []
    with faulty(lambda _: next(replies), naps=naps) as (_, backend):
        assert backend.get("batches/1").name == "batches/1"
    assert len(naps) == 3 and naps[2] == 9.0


def test_what_the_sdk_drops_or_refuses_is_read_from_the_wire() -> None:
    operation = {
        "name": "batches/1",
        "done": True,
        "error": {"code": 13, "message": "it broke", "details": [{"@type": "x", "odd": {"object": 1}}]},
        "metadata": {
            "displayName": "bf-1",
            "state": "BATCH_STATE_FAILED",
            "createTime": "2026-11-20T00:00:00.123456789Z",
            "inputConfig": {"fileName": "files/abc"},
            "batchStats": {"requestCount": "10", "failedRequestCount": "2", "pendingRequestCount": "-1"},
        },
    }
    with faulty(lambda _: Reply(body=operation)) as (_, backend):
        job = backend.get("batches/1")
    assert job == RemoteJob(
        name="batches/1",
        tag="bf-1",
        state="FAILED",
        created_at=datetime(2026, 11, 20, 0, 0, 0, 123456, tzinfo=UTC),
        counts={"total": 10, "failed": 2},
        input_name="files/abc",
        error="it broke (code 13)",
    )


@pytest.mark.parametrize(
    ("metadata", "extra", "state"),
    [
        ({"state": "JOB_STATE_PARTIALLY_SUCCEEDED"}, {}, "PARTIALLY_SUCCEEDED"),
        ({"state": "BATCH_STATE_DREAMING"}, {}, "DREAMING"),
        ({}, {"done": True, "error": {"code": 1}}, "FAILED"),
        ({}, {"done": True}, "SUCCEEDED"),
        ({}, {}, "UNSPECIFIED"),
    ],
)
def test_states(metadata: dict[str, Any], extra: dict[str, Any], state: str) -> None:
    with faulty(lambda _: Reply(body={"name": "batches/1", "metadata": metadata, **extra})) as (_, backend):
        assert backend.get("batches/1").state == state


def test_pages_are_followed_by_hand() -> None:
    pages = {
        "": {"operations": [{"name": "batches/3"}, {"name": "batches/2"}], "nextPageToken": "a"},
        "a": {"nextPageToken": "b"},
        "b": {"operations": [{"name": "batches/1"}]},
    }

    def handler(request: Request) -> Reply:
        return Reply(body=pages[request.path.partition("pageToken=")[2].partition("&")[0]])

    with faulty(handler) as (_, backend):
        assert [j.name for j in backend.list_jobs()] == ["batches/3", "batches/2", "batches/1"]


def test_a_list_that_goes_in_circles_is_an_error() -> None:
    with (
        faulty(lambda _: Reply(body={"nextPageToken": "a"})) as (_, backend),
        pytest.raises(BackendError, match="twice"),
    ):
        list(backend.list_jobs())


def test_a_short_download_is_read_again(tmp_path: Path) -> None:
    replies = iter([Reply(body=b'{"key":', length=100), Reply(body=b'{"key":"a"}\n')])
    job = RemoteJob(name="batches/1", tag="a", state="SUCCEEDED", results="files/batch-1")
    with faulty(lambda _: next(replies)) as (server, backend):
        assert backend.download(job, tmp_path / "out") == 12
    assert (tmp_path / "out").read_bytes() == b'{"key":"a"}\n'
    assert server.seen[0].path == "/v1/files/batch-1:download?alt=media"


@pytest.mark.parametrize("status", [403, 404])
def test_results_that_are_gone_are_not_found(tmp_path: Path, status: int) -> None:
    job = RemoteJob(name="batches/1", tag="a", state="SUCCEEDED", results="files/batch-1")
    with faulty(lambda _: Reply(status, {})) as (_, backend), pytest.raises(NotFound):
        backend.download(job, tmp_path / "out")


def test_a_missing_job_is_not_found_but_a_forbidden_one_is_not() -> None:
    with faulty(lambda _: Reply(404, {})) as (_, backend), pytest.raises(NotFound):
        backend.get("batches/1")
    with faulty(lambda _: Reply(403, {})) as (_, backend), pytest.raises(AuthError):
        backend.get("batches/1")


def test_inline_results_become_lines(tmp_path: Path) -> None:
    items = [
        {"metadata": {"key": "k2"}, "response": {"candidates": []}},
        {"metadata": {"key": "k1"}, "error": {"code": 13}},
        {"response": {}},
    ]
    operation = {
        "name": "batches/1",
        "metadata": {"state": "BATCH_STATE_SUCCEEDED"},
        "response": {"inlinedResponses": {"inlinedResponses": items}},
    }
    with faulty(lambda _: Reply(body=operation)) as (_, backend):
        job = backend.get("batches/1")
        backend.download(job, tmp_path / "out")
    assert [json.loads(line) for line in (tmp_path / "out").read_bytes().splitlines()] == [
        {"key": "k2", "response": {"candidates": []}},
        {"key": "k1", "error": {"code": 13}},
        {"response": {}},
    ]


# --- keys --------------------------------------------------------------------------------------------------------


def test_a_missing_key_says_where_it_was_looked_for() -> None:
    config = GeminiConfig(type="gemini")
    with pytest.raises(AuthError, match="neither GOOGLE_API_KEY nor GEMINI_API_KEY is set"):
        GeminiBackend(config, env={"GEMINI_API_KEY": " "}, realm="google")
    with pytest.raises(AuthError, match="MY_KEY is not set"):
        GeminiBackend(GeminiConfig(type="gemini", api_key_env="MY_KEY"), env=ENV, realm="google")


def test_a_key_that_cannot_be_one_is_refused_without_showing_it() -> None:
    with pytest.raises(AuthError, match="The API key in GEMINI_API_KEY holds characters") as caught:
        GeminiBackend(GeminiConfig(type="gemini"), env={"GEMINI_API_KEY": "caf\xe9-key"}, realm="google")
    assert "caf" not in caught.value.render()


def test_the_emulators_name_is_no_secret() -> None:
    body = {"error": {"code": 500, "message": "The emulator says no.", "status": "INTERNAL"}}
    with (
        RawServer(lambda _: Reply(500, body)) as server,
        closing(
            GeminiBackend(
                EmulatorBackend(type="emulator", url=server.url), env={}, realm="emulator", sleep=lambda _: None
            )
        ) as backend,
        pytest.raises(BackendError, match="The emulator says no"),
    ):
        backend.check_model(MODEL)


def test_google_api_key_comes_first() -> None:
    both = {"GOOGLE_API_KEY": "one", "GEMINI_API_KEY": "two"}
    config = GeminiConfig(type="gemini")
    first = GeminiBackend(config, env=both, realm="google").fingerprint
    assert first == GeminiBackend(config, env={"GEMINI_API_KEY": "one"}, realm="google").fingerprint
    assert first != GeminiBackend(config, env={"GEMINI_API_KEY": "two"}, realm="google").fingerprint


def test_the_embedded_emulator_is_the_same_on_every_port() -> None:
    config = EmulatorBackend(type="emulator")
    prints = {
        GeminiBackend(config, env={}, realm="emulator", base_url=f"http://127.0.0.1:{p}").fingerprint for p in (1, 2)
    }
    assert len(prints) == 1


@pytest.mark.parametrize("status", [400, 401, 403])
def test_a_refused_key_is_an_auth_error_and_is_never_shown(status: int) -> None:
    details = [{"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "API_KEY_INVALID"}]
    body = {"error": {"code": status, "message": f"API key not valid: {KEY}", "status": "X", "details": details}}
    with faulty(lambda _: Reply(status, body)) as (server, backend):
        with pytest.raises(AuthError) as caught:
            backend.check_model(MODEL)
        assert server.seen[0].headers["x-goog-api-key"] == KEY
        shown = "".join(
            [str(caught.value), caught.value.render(), repr(caught.value), repr(backend), backend.fingerprint]
        )
        shown += "".join(traceback.format_exception(caught.value))
    assert KEY not in shown


def test_the_key_stays_at_its_host() -> None:
    with RawServer(lambda _: Reply(body={"name": "batches/1"})) as other:
        elsewhere = other.url.replace("127.0.0.1", "localhost")
        with faulty(lambda r: Reply(302, headers={"Location": f"{elsewhere}{r.path}"})) as (server, backend):
            backend.get("batches/1")
        assert "x-goog-api-key" in server.seen[0].headers and "x-goog-api-key" not in other.seen[0].headers


# --- the moment of a create call ---------------------------------------------------------------------------------


def test_a_create_call_that_would_leave_too_late_is_not_sent(tmp_path: Path) -> None:
    """The time is asked when the connection stands: a slow look-up or handshake, or a sleeping machine, count."""
    begun = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
    clock = iter([begun + timedelta(minutes=6)])
    path, _ = shard(tmp_path, "hello")
    with RawServer(lambda _: Reply(body={"name": "batches/1"})) as server:
        config = GeminiConfig(type="gemini", base_url=server.url)
        with closing(GeminiBackend(config, env=ENV, realm="emulator", now=lambda: next(clock))) as backend:
            with pytest.raises(NotCreated, match="could not be sent before"):
                backend.create(
                    model=MODEL, tag="t", staged=Staged(path, "files/x"), before=begun + timedelta(minutes=5)
                )
            assert server.seen == []
            assert backend.create(model=MODEL, tag="t", staged=Staged(path, "files/x")) == "batches/1"
            assert len(server.seen) == 1


def test_a_create_call_in_time_is_sent_once(tmp_path: Path) -> None:
    path, _ = shard(tmp_path, "hello")
    with faulty(lambda _: Reply(body={"name": "batches/1"})) as (server, backend):
        before = datetime.now(UTC) + timedelta(minutes=5)
        assert backend.create(model=MODEL, tag="t", staged=Staged(path, None), before=before) == "batches/1"
        assert len(server.seen) == 1


@pytest.mark.parametrize(("torn", "calls"), [(1, 2), (9, 3)])
def test_results_that_end_within_a_line_are_fetched_again(tmp_path: Path, torn: int, calls: int) -> None:
    """Cut on the way, the next answer is whole. Torn at the service, what there is counts."""
    whole = b'{"key":"a","response":{}}\n{"key":"b","response":{}}'
    seen: list[str] = []

    def answer(request: Request) -> Reply:
        seen.append(request.path)
        return Reply(body=whole[:-7] if len(seen) <= torn else whole)

    job = RemoteJob(name="batches/1", tag="t", state="SUCCEEDED", results="files/batch-1")
    with faulty(answer) as (_, backend):
        backend.download(job, tmp_path / "results")
    assert len(seen) == calls
    assert (tmp_path / "results").read_bytes() == (whole if torn == 1 else whole[:-7])

"""Scripted faults of calls: what a client meets, and what the service did."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx2
import pytest
from emulator_kit import MODEL, StillClock
from google import genai
from google.genai import errors

from batchform.emulator import EmulatorServer, faults

ROOT = Path(__file__).resolve().parents[2]

REFUSED = (httpx2.RemoteProtocolError, httpx2.ReadError)


def create(client: genai.Client, tag: str = "tag") -> Any:
    source = [{"contents": "hello", "metadata": {"key": "k"}}]
    return client.batches.create(model=MODEL, src=source, config={"display_name": tag})


def jobs(raw: httpx2.Client) -> list[str]:
    return [job["metadata"]["displayName"] for job in raw.get("/v1/batches").json().get("operations", [])]


@pytest.mark.parametrize("when", ["before", "after"])
def test_an_error_before_or_after_the_effect(
    server: EmulatorServer, client: genai.Client, raw: httpx2.Client, when: str
) -> None:
    for status in (400, 401, 403, 404, 408, 409, 429, 499, 500, 501, 502, 503, 504):
        server.set_faults([{"call": "batches.create", "do": {"type": "error", "status": status, "when": when}}])
        with pytest.raises(errors.APIError) as refused:
            create(client, f"tag-{status}")
        assert refused.value.code == status
        assert refused.value.status
        assert (f"tag-{status}" in jobs(raw)) == (when == "after")
        create(client, "second")
        assert jobs(raw)[0] == "second"


def test_a_quota_error_says_when_to_come_back(server: EmulatorServer, client: genai.Client) -> None:
    server.set_faults(
        [
            {"call": "batches.create", "do": {"type": "error", "status": 429, "retry_after": 7}},
            {"call": "batches.create", "do": {"type": "error", "status": 429, "retry_info": "2.5s"}},
        ]
    )
    with pytest.raises(errors.APIError) as first:
        create(client)
    assert first.value.response.headers["retry-after"] == "7"
    with pytest.raises(errors.APIError) as second:
        create(client)
    assert second.value.details["error"]["details"] == [
        {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "2.5s"}
    ]
    assert "retry-after" not in second.value.response.headers


@pytest.mark.parametrize("how", ["close", "reset"])
@pytest.mark.parametrize(("when", "made"), [("before", 0), ("after", 1), ("body", 1)])
def test_a_connection_drops_before_the_effect_after_it_or_in_the_answer(
    server: EmulatorServer, client: genai.Client, raw: httpx2.Client, when: str, how: str, made: int
) -> None:
    server.set_faults([{"call": "batches.create", "do": {"type": "drop", "when": when, "how": how}}])
    with pytest.raises(REFUSED):
        create(client)
    assert len(jobs(raw)) == made
    assert [fired.type for fired in server.fired()] == ["drop"]


def test_every_fault_counts_its_own_calls(server: EmulatorServer, raw: httpx2.Client) -> None:
    server.set_faults(
        [
            {"call": "models.*", "nth": 2, "every": 2, "times": 2, "do": {"type": "error", "status": 500}},
            {"call": "models.get", "nth": 3, "do": {"type": "error", "status": 404}},
        ]
    )
    assert [raw.get(f"/v1/models/{MODEL}").status_code for _ in range(7)] == [200, 500, 404, 500, 200, 200, 200]
    assert [(fired.fault, fired.seen) for fired in server.fired()] == [(0, 2), (1, 3), (0, 4)]
    first, second = server.faults()
    assert (first["seen"], first["fired"]) == (7, 2)
    assert (second["seen"], second["fired"]) == (7, 1)


def test_a_fault_can_be_meant_for_one_job(server: EmulatorServer, client: genai.Client) -> None:
    server.set_faults([{"call": "batches.*", "match": {"tag": "b-*"}, "times": "all", "do": "drop"}])
    job = create(client, "a-1")
    with pytest.raises(REFUSED):
        create(client, "b-1")
    assert client.batches.get(name=job.name).display_name == "a-1"


def test_counters_go_on_after_a_restart_with_the_same_schedule(state_dir: Path) -> None:
    second = [{"call": "models.list", "nth": 2, "do": {"type": "error", "status": 500}}]

    def statuses(schedule: Any, calls: int) -> list[int]:
        headers = {"x-goog-api-key": "a-key"}
        with (
            EmulatorServer(state_dir, clock=StillClock(), faults=schedule) as server,
            httpx2.Client(base_url=server.url, headers=headers) as http,
        ):
            return [http.get("/v1/models").status_code for _ in range(calls)]

    assert statuses(second, 1) == [200]
    assert statuses(second, 2) == [500, 200]
    assert statuses([*second, *second], 3) == [200, 500, 500], "one call has room for one error"
    assert statuses(None, 1) == [200]
    assert statuses(second, 2) == [200, 500]
    assert statuses((), 2) == [200, 200]


def test_the_schedule_is_set_and_read_over_http(server: EmulatorServer, raw: httpx2.Client) -> None:
    set_to = raw.put("/emulator/faults", content="faults:\n- {call: models.list, do: drop}\n")
    assert set_to.json() == {
        "faults": [{"call": "models.list", "do": {"type": "drop"}, "seen": 0, "fired": 0}],
        "fired": [],
    }
    with pytest.raises(REFUSED):
        raw.get("/v1/models")
    (fired,) = raw.get("/emulator/faults").json()["fired"]
    assert fired == {
        "fault": 0, "call": "models.list", "type": "drop", "seen": 1, "about": "", "at": "2026-11-21T12:00:00.000000Z"
    }  # fmt: skip
    wrong = raw.put("/emulator/faults", json={"faults": [{"call": "models.lst", "do": {"type": "drop"}}]})
    assert wrong.status_code == 400
    assert "Did you mean `models.list`?" in wrong.json()["error"]["message"]
    assert len(server.faults()) == 1


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("[]", "the top of the file must be a mapping"),
        ("faults: 3", "`faults` must be a list"),
        ("faults:\n- {call: batches.crate, do: drop}", "2:10: error: there is no call `batches.crate`"),
        ("faults:\n- {call: batches.get, do: {type: eror}}", "Did you mean `error`?"),
        ("faults:\n- {call: batches.get, do: drop, nht: 2}", "Did you mean `nth`?"),
        ("faults:\n- {call: batches.get, do: {type: drop, how: badly}}", "cannot be `badly`"),
        ("faults:\n- {call: batches.get, do: hide}", "`hide` does nothing to `batches.get`"),
        ("faults:\n- {call: batches.get, do: hide}", "[BF902 wrong-call]"),
        ("faults:\n- {call: emulator.clock, do: drop}", "there is no call `emulator.clock`"),
        ("faults:\n- {call: emulator.clock, do: drop}", "[BF901 unknown-call]"),
        ("faults:\n- {call: batches.get}", "`do` is missing"),
        ("faults:\n- {call: batches.get, do: drop, nth: 0}", "must be at least 1"),
    ],
)
def test_a_wrong_schedule_is_refused_with_its_place(tmp_path: Path, text: str, complaint: str) -> None:
    file = tmp_path / "faults.yaml"
    file.write_text(text)
    with pytest.raises(faults.InvalidSchedule) as refused:
        faults.load(file)
    assert complaint in refused.value.render()
    assert refused.value.render().endswith("1 error in the fault schedule.")
    assert "faults.yaml:" in refused.value.render()


def test_a_schedule_is_read_the_same_from_a_file_from_text_and_from_values(tmp_path: Path) -> None:
    file = tmp_path / "faults.yaml"
    file.write_text("faults:\n- {call: batches.*, match: {tag: a-*}, nth: 2, do: {type: error, retry_info: 1m}}\n")
    values = [
        {"call": "batches.*", "match": {"tag": "a-*"}, "nth": 2, "do": {"type": "error", "retry_info": "1m"}},
    ]
    schedules = [faults.load(source) for source in (file, file.read_text(), values, {"faults": values})]
    assert all(schedule == schedules[0] for schedule in schedules)
    assert faults.load(faults.as_json(schedules[0])) == schedules[0]


def test_the_documented_schedule_is_read_and_every_kind_is_documented() -> None:
    page = (ROOT / "docs/emulator.md").read_text()
    (schedule,) = re.findall(r"```yaml\n# faults.yaml\n(.*?)```", page, re.DOTALL)
    assert len(faults.load(schedule).faults) == 7
    for kind in faults.KINDS:
        (row,) = re.findall(rf"^\| `({re.escape(kind.examples[0])})` \|", page, re.MULTILINE)
        assert faults.load(f"faults:\n- {{call: '*', do: {row}}}").faults[0].do.word == faults.type_of(kind)
        assert all(field.description for name, field in kind.model_fields.items() if name != "type")


def test_every_example_of_the_catalogue_can_be_scheduled() -> None:
    samples = faults.catalogue()
    assert {sample.do["type"] for sample in samples} == set(faults.names())
    assert {sample.call for sample in samples} == set(faults.CALLS)
    assert len({sample.name for sample in samples}) == len(samples)
    faults.load([sample.fault(nth=2, times="all") for sample in samples])


def test_serve_takes_a_schedule(tmp_path: Path) -> None:
    schedule = tmp_path / "faults.yaml"
    schedule.write_text("faults:\n- {call: models.list, do: {type: error, status: 502, body: html}}\n")
    command = [sys.executable, "-m", "batchform", "emulator", "serve", "--port", "0", "--faults", str(schedule)]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            said = [process.stdout.readline() for _ in range(3)]
            assert "1 fault" in said[0]
            url = said[1].split("listens on ")[1].split(";")[0]
            answer = httpx2.get(f"{url}/v1/models", headers={"x-goog-api-key": "a-key"})
            assert (answer.status_code, answer.text[:9]) == (502, "<!DOCTYPE")
        finally:
            process.send_signal(signal.SIGINT)
    schedule.write_text("faults:\n- {call: models.lst, do: drop}\n")
    refused = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert refused.returncode == 1
    assert "faults.yaml:2:10: error: there is no call `models.lst`" in refused.stderr


def test_a_project_takes_a_schedule_for_its_emulator(tmp_path: Path) -> None:
    files = {
        "batchform.yaml": "version: 1\nproject: p\nspecs: [s.yaml]\nbackends:\n"
        "  local: {type: emulator, job_seconds: 0, poll: 10ms, faults: faults.yaml}\n",
        "s.yaml": "name: s\nmodel: gemini-3.5-flash\nsource: {type: csv, path: rows.csv}\n"
        'prompt: {user: {text: "say {{ id }}"}}\nidempotency: {key: [id]}\n'
        "destination: {type: jsonl, path: out.jsonl}\n",
        "rows.csv": "id\na\nb\n",
        "faults.yaml": "faults:\n- {call: batches.create, do: {type: drop, when: after}}\n",
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    apply = [sys.executable, "-m", "batchform", "apply", "--yes"]
    subprocess.run(apply, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert len((tmp_path / "out.jsonl").read_text().splitlines()) == 2
    with EmulatorServer(tmp_path / ".batchform/emulator") as server:
        assert [fired.type for fired in server.fired()] == ["drop"]
        assert server.bill_summary().requests == 2

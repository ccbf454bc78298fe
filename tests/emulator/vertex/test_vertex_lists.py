"""Lists of jobs: pages, filters, and jobs that do not show yet."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx2
import pytest
from emulated_vertex_kit import PARENT, Bench, keyed
from emulator_kit import JOB_SECONDS
from google import genai
from google.genai import errors
from hypothesis import given
from hypothesis import strategies as st

from batchform.emulator.refusal import Refusal
from batchform.emulator.vertex import filters

LIST = f"/v1beta1/{PARENT}/batchPredictionJobs"


def test_jobs_are_listed_newest_first_in_pages(bench: Bench) -> None:
    made = [bench.create(keyed({"k": "hi"}), name=f"job-{i}").name for i in range(5)]
    listed = list(bench.client.batches.list(config={"page_size": 2}))
    assert [job.name for job in listed] == made[::-1]
    first = bench.client.batches.list(config={"page_size": 2})
    bench.create(name="new")
    second = bench.client.batches.list(config={"page_size": 2, "page_token": first.config["page_token"]})
    assert [job.name for job in (*first.page, *second.page)] == made[:0:-1], "a job made meanwhile shifts nothing"


def test_an_empty_list_is_an_empty_object(bench: Bench, wire: httpx2.Client) -> None:
    assert bench.client.batches.list().page == []
    assert wire.get(LIST).json() == {}
    assert wire.get(LIST, params={"pageToken": "x"}).status_code == 400
    assert wire.get(LIST, params={"pageSize": "x"}).status_code == 400


def test_lists_are_filtered_before_they_are_paged(bench: Bench) -> None:
    old = bench.create(keyed({"k": "hi"}), name="nightly-1", labels={"team": "a", "spec": "triage"})
    bench.server.advance(JOB_SECONDS)
    new = bench.create(name="nightly-2", labels={"team": "b"})
    other = bench.create(name='odd "name"')

    def found(text: str) -> list[str]:
        listed = bench.client.batches.list(config={"filter": text, "page_size": 1})
        return [job.name for job in listed]

    assert found('display_name="nightly-1"') == [old.name]
    assert found('displayName="nightly-1" OR display_name="nightly-2"') == [new.name, old.name]
    assert found('display_name:"nightly-*" AND state="JOB_STATE_SUCCEEDED"') == [old.name]
    assert found('state!="JOB_STATE_SUCCEEDED" display_name:nightly') == [new.name]
    assert found('NOT display_name:"nightly-*"') == [other.name]
    assert found('display_name="odd \\"name\\""') == [other.name]
    assert found("labels.team=a") == [old.name]
    assert found("labels.team:*") == [new.name, old.name]
    assert found("labels:spec") == [old.name]
    assert found('labels.team="b" AND (state="JOB_STATE_PENDING" OR state="JOB_STATE_FAILED")') == [new.name]
    assert found('create_time>"2026-11-21T12:00:00Z"') == [other.name, new.name]
    assert found('create_time<="2026-11-21T12:00:00Z"') == [old.name]
    assert found('display_name="none"') == []


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("priority=1", "'priority' is not a field"),
        ('state>"A"', "'state' supports =, != only"),
        ('display_name="a" AND', "the name of a field is missing"),
        ("display_name=", "a value is missing"),
        ("display_name", "a comparison is missing"),
        ('(state="A"', "a closing parenthesis is missing"),
        ('state="A")', "')' is not expected"),
        ("create_time>yesterday", "is not a time in RFC 3339"),
        ('display_name="a', "cannot be read at character 14"),
        ("labels.a<b", "labels cannot be compared by '<'"),
    ],
)
def test_a_wrong_filter_is_refused(text: str, complaint: str) -> None:
    with pytest.raises(Refusal) as e:
        filters.parse(text)
    assert e.value.status == 400 and complaint in e.value.message


def test_a_wrong_filter_is_a_400(bench: Bench) -> None:
    with pytest.raises(errors.ClientError, match="Invalid filter") as e:
        bench.client.batches.list(config={"filter": "priority=1"})
    assert e.value.code == 400


@given(st.text(max_size=12), st.text(max_size=12))
def test_any_name_can_be_asked_for(name: str, other: str) -> None:
    quoted = name.replace("\\", "\\\\").replace('"', '\\"')
    test = filters.parse(f'display_name="{quoted}"')
    assert test({"displayName": name})
    assert test({"displayName": other}) == (name == other)


@given(st.text(alphabet="ab=!:<>()\"' ANDORT._*", max_size=20))
def test_any_text_is_a_filter_or_refused(text: str) -> None:
    try:
        test = filters.parse(text)
    except Refusal as e:
        assert e.status == 400
        return
    job: dict[str, Any] = {"displayName": "a", "state": "b", "createTime": "2026-11-21T12:00:00Z"}
    assert test(job) in (True, False)


def test_a_job_may_be_in_no_list_for_a_while(bench: Bench) -> None:
    bench.server.set_faults([{"call": "vertex.batches.create", "do": {"type": "list_lag", "seconds": 30, "get": True}}])
    job = bench.create(keyed({"k": "hi"}))
    assert list(bench.client.batches.list()) == []
    with pytest.raises(errors.ClientError) as e:
        bench.client.batches.get(name=job.name)
    assert e.value.code == 404
    assert bench.ended(job, 30).name == job.name
    assert [found.name for found in bench.client.batches.list()] == [job.name]


def test_gemini_and_vertex_jobs_do_not_mix(
    bench: Bench, connect: Callable[..., genai.Client], raw: httpx2.Client
) -> None:
    vertex = bench.create(keyed({"k": "hi"}))
    gemini = connect(bench.server.url)
    made = gemini.batches.create(model="gemini-3.5-flash", src=[{"contents": "hi", "metadata": {"key": "g"}}])
    assert [job.name for job in gemini.batches.list()] == [made.name]
    assert [job.name for job in bench.client.batches.list()] == [vertex.name]
    assert raw.get(f"/v1/batches/{vertex.name.rpartition('/')[2]}").status_code == 404
    bench.server.advance(JOB_SECONDS)
    assert {charge.job for charge in bench.server.bill()} == {vertex.name, made.name}

"""The importer: a table is made of all lines, and what no table can hold fails the whole job after a fine create."""

from __future__ import annotations

import json
from typing import Any

import httpx2
import pytest
from emulated_vertex_kit import LOCATION, PARENT, Bench, keyed, text_of
from emulator_kit import JOB_SECONDS, request_of
from google.genai import errors
from hypothesis import given
from hypothesis import strategies as st

from batchform.emulator.vertex import inputs, places
from batchform.emulator.vertex.columns import Columns, ImportFault, filled, without_nulls

GOOD = {"key": "k", "request": request_of("hi")}


def with_request(**fields: Any) -> dict[str, Any]:
    return {"key": "other", "request": {**request_of("hi"), **fields}}


def schema(**fields: Any) -> dict[str, Any]:
    return with_request(generationConfig={"responseMimeType": "application/json", **fields})


def deep(levels: int) -> dict[str, Any]:
    made: dict[str, Any] = {"type": "STRING"}
    for _ in range(levels):
        made = {"type": "ARRAY", "items": made}
    return made


WRONG = {
    "no json": (b'{"key": "k", "request": ', "JSON parsing error"),
    "an empty line": (b"", "the line is empty"),
    "an array": (b"[1]", "the line is not an object"),
    "no request": ({"key": "k"}, "request: a line needs this field"),
    "the request is text": ({"key": "k", "request": "hi"}, "request: a line needs this field"),
    "an empty tool": (with_request(tools=[{"googleSearch": {}}]), "request.tools.googleSearch: an empty object"),
    "empty properties": (
        schema(responseSchema={"type": "OBJECT", "properties": {}}),
        "responseSchema.properties: an empty object",
    ),
    "empty args": (
        {
            "request": {
                "contents": [{"role": "model", "parts": [{"functionCall": {"name": "f", "args": {}}}]}],
            }
        },
        "functionCall.args: an empty object",
    ),
    "$defs": (schema(responseJsonSchema={"$defs": {"a": {"type": "string"}}}), 'Invalid field name "$defs"'),
    "$ref": (schema(responseJsonSchema={"$ref": "#"}), 'Invalid field name "$ref"'),
    "a space in a name": (
        schema(responseSchema={"type": "OBJECT", "properties": {"the name": {"type": "STRING"}}}),
        'Invalid field name "the name"',
    ),
    "a digit first": (
        schema(responseSchema={"type": "OBJECT", "properties": {"1st": {"type": "STRING"}}}),
        'Invalid field name "1st"',
    ),
    "two cases": (
        schema(responseSchema={"type": "OBJECT", "properties": {"a": {"type": "STRING"}, "A": {"type": "STRING"}}}),
        'Duplicate (case-insensitive) field names: "a" and "A"',
    ),
    "too deep": (schema(responseSchema=deep(20)), "nested more than 15 levels"),
    "null": (with_request(systemInstruction=None), "request.systemInstruction: null is not allowed"),
    "an array in an array": (schema(responseJsonSchema={"enum": [["a"]]}), "an array inside an array"),
    "another type than before": (
        {"key": "x", "request": {"contents": [{"role": 7, "parts": [{"text": "x"}]}]}},
        "request.contents.role: STRING in one line and INTEGER in another",
    ),
    "a list where there was none": (
        {"key": "x", "request": {"contents": {"role": "user"}}},
        "request.contents: an array in one line and no array in another",
    ),
    "a key of another type": ({"key": True, "request": request_of("hi")}, "key: STRING in one line and BOOLEAN"),
    "an empty object beside": ({"key": "x", "more": {}, "request": request_of("hi")}, "more: an empty object"),
}


def test_one_wrong_line_fails_the_whole_job(bench: Bench) -> None:
    jobs = {}
    for what, (line, _) in WRONG.items():
        wrong = line if isinstance(line, bytes) else json.dumps(line).encode()
        jobs[what] = bench.create(json.dumps(GOOD).encode() + b"\n" + wrong + b"\n")
        assert jobs[what].state == "JOB_STATE_PENDING", what
    bench.server.advance(JOB_SECONDS)
    for what, (_, complaint) in WRONG.items():
        done = bench.client.batches.get(name=jobs[what].name)
        assert (done.state, done.error.code) == ("JOB_STATE_FAILED", 3), what
        assert done.error.message.startswith("Failed to import data. "), what
        assert "gs://acme/in/rows.jsonl, line 2: " in done.error.message and complaint in done.error.message, what
    assert bench.server.bill() == []


def test_one_type_in_two_forms_fails_even_where_the_schemas_are_right(bench: Bench) -> None:
    first = schema(responseJsonSchema={"type": "object", "properties": {"a": {"type": "string"}}})
    second = schema(responseJsonSchema={"type": "object", "properties": {"a": {"type": ["string", "null"]}}})
    assert "a.type: an array in one line and no array in another" in bench.failure([first, second])[1]
    first = schema(responseJsonSchema={"type": "object", "additionalProperties": False})
    second = schema(responseJsonSchema={"type": "object", "additionalProperties": {"type": "string"}})
    assert "additionalProperties: BOOLEAN in one line and RECORD in another" in bench.failure([first, second])[1]


def test_what_a_request_may_not_say_fails_its_row_alone(bench: Bench) -> None:
    lines = [
        GOOD,
        {"key": "field", "request": {**request_of("x"), "temperature": 1}},
        {"key": "role", "request": {"contents": [{"parts": [{"text": "x"}]}]}},
        {"key": "cache", "request": {**request_of("x"), "cachedContent": "projects/p/locations/l/cachedContents/1"}},
        {"key": "range", "request": request_of("x", temperature=7)},
        {"key": "image", "request": request_of("x", imageConfig={"imageSize": "2K"})},
        {"key": "rag", "request": {**request_of("x"), "tools": [{"retrieval": {"disableAttribution": True}}]}},
    ]
    by_key = {line["key"]: line for line in bench.run(lines)}
    assert by_key["k"]["status"] == ""
    said = {"field": "Unknown name", "role": "use a valid role", "cache": "caching", "range": "outside the range"}
    said |= {"image": "Image size 2K is not supported", "rag": "Retrieval is not supported"}
    for key, part in said.items():
        status = by_key[key]["status"]
        assert status.startswith('Bad Request: {"error":{"code":400,') and part in status
        assert by_key[key]["response"] == {}
    assert [charge.key for charge in bench.server.bill()] == ["k"]


def test_a_request_comes_back_with_the_fields_of_all_requests_as_null(bench: Bench) -> None:
    bench.put(b"pixels", "gs://acme/cat.png")
    image = {"fileData": {"fileUri": "gs://acme/cat.png", "mimeType": "image/png"}}
    lines = [
        {"key": "a", "request": {"contents": [{"role": "user", "parts": [{"text": "what is it?"}, image]}]}},
        {"key": "b", "request": request_of("hi", temperature=0)},
    ]
    by_key = {line["key"]: line["request"] for line in bench.run(lines)}
    parts = by_key["a"]["contents"][0]["parts"]
    assert parts == [{"text": "what is it?", "fileData": None}, {"text": None, **image}]
    assert by_key["a"]["generationConfig"] is None
    assert by_key["b"]["contents"][0]["parts"] == [{"text": "hi", "fileData": None}]
    assert without_nulls(by_key["a"]) == lines[0]["request"]


def test_fields_beside_the_request_come_back_coerced_and_emptied(bench: Bench) -> None:
    beside = [
        {"key": "000000", "f": "1.50", "yes": "true", "mixed": "7", "n": 7, "list": [1, 2], "object": {"a": 1}},
        {"key": "000007", "f": "2", "yes": "False", "mixed": "seven", "n": 8, "list": [3], "object": {"a": 2}},
    ]
    lines = bench.run([{**tags, "request": request_of(f"say {i}")} for i, tags in enumerate(beside)])
    by_key = {line["key"]: line for line in lines}
    assert set(by_key) == {0, 7}, "keys that all look like numbers are numbers"
    seen = {name: by_key[7][name] for name in ("f", "yes", "mixed", "n", "list", "object")}
    assert seen == {"f": 2.0, "yes": False, "mixed": "seven", "n": 8, "list": [], "object": {}}


def test_a_key_with_a_letter_stays(bench: Bench) -> None:
    lines = bench.run(keyed({"k000": "a", "000": "b"}))
    assert {line["key"] for line in lines} == {"k000", "000"}


def test_lines_without_a_key_and_twice_the_same_are_answered(bench: Bench) -> None:
    lines = bench.run([{"request": request_of("one")}, *keyed({"k": "two"}), *keyed({"k": "three"})])
    assert sorted(str(line.get("key")) for line in lines) == ["None", "k", "k"]


def test_snake_and_camel_are_both_taken_and_make_two_columns(bench: Bench) -> None:
    config = {"max_output_tokens": 5}
    lines = bench.run(
        [
            {"key": "a", "request": {**request_of("hi"), "generation_config": config}},
            {"key": "b", "request": request_of("hi", maxOutputTokens=5)},
        ]
    )
    assert {line["status"] for line in lines} == {""}
    assert {tuple(line["request"]) for line in lines} == {("contents", "generation_config", "generationConfig")}
    assert len({charge.digest for charge in bench.server.bill()}) == 1


def test_several_uris_and_wildcards(bench: Bench) -> None:
    for name in ("in/a-1.jsonl", "in/a-2.jsonl", "in/b.jsonl", "in/c.txt"):
        bench.put(keyed({name: f"say {name}"}), f"gs://acme/{name}")
    lines = bench.results(bench.ended(bench.create(src=["gs://acme/in/a-*.jsonl", "gs://acme/in/b.jsonl"])))
    assert {line["key"] for line in lines} == {"in/a-1.jsonl", "in/a-2.jsonl", "in/b.jsonl"}


def test_a_missing_input_fails_the_job_not_the_call(bench: Bench) -> None:
    assert bench.failure(src="gs://acme/none.jsonl") == (3, "Failed to import data. Not found: gs://acme/none.jsonl")
    assert bench.failure(src="gs://acme/none-*.jsonl")[0] == 3
    code, message = bench.failure(src="gs://elsewhere/in.jsonl")
    assert (code, "The bucket gs://elsewhere does not exist" in message) == (9, True)
    code, message = bench.failure(keyed({"k": "hi"}), dest="gs://elsewhere/out")
    assert (code, "The bucket gs://elsewhere does not exist" in message) == (9, True)
    assert bench.failure(b"")[1] == "Failed to import data. The input has no requests."


def test_a_failed_job_says_where_its_results_would_be_and_that_it_counted_nothing(bench: Bench) -> None:
    done = bench.ended(bench.create(b"{"))
    assert done.output_info.gcs_output_directory.startswith("gs://acme/out/prediction-model-")
    assert bench.files(done) == {}
    assert done.completion_stats.incomplete_count == -1


def test_the_bucket_must_suit_the_jobs_location(bench: Bench) -> None:
    bench.objects.create_bucket("far", location="EUROPE-WEST4")
    bench.put(keyed({"k": "hi"}), "gs://far/in.jsonl")
    code, message = bench.failure(src="gs://far/in.jsonl")
    assert (code, message) == (9, f"The bucket gs://far is in europe-west4; a job in {LOCATION} cannot use it.")
    assert bench.failure(keyed({"k": "hi"}), dest="gs://far/out")[0] == 9


@pytest.mark.parametrize(
    ("place", "location", "fits"),
    [
        ("US-CENTRAL1", "us-central1", True),
        ("US", "us-central1", True),
        ("NAM4", "us-central1", True),
        ("EU", "europe-west4", True),
        ("europe-west4", "eu", True),
        ("EUROPE-WEST4", "global", True),
        ("US", "us", True),
        ("NAM4", "us-west1", False),
        ("EU", "us-central1", False),
        ("US", "europe-west4", False),
        ("US-EAST1", "us-central1", False),
        ("US-EAST1", "eu", False),
    ],
)
def test_a_place_suits_a_job_that_is_there_or_in_it(place: str, location: str, fits: bool) -> None:
    assert places.suits(place, location) == fits


@pytest.mark.parametrize(
    ("place", "location", "fits"),
    [
        ("US-CENTRAL1", "us-central1", True),
        ("US", "us-central1", False),
        ("EU", "europe-west4", False),
        ("EU", "eu", True),
        ("europe-west4", "eu", True),
        ("US", "eu", False),
        ("asia-east1", "global", True),
        ("US", "global", True),
    ],
)
def test_a_dataset_suits_a_job_of_its_own_region(place: str, location: str, fits: bool) -> None:
    assert places.suits_tables(place, location) == fits


def test_the_limits_of_one_job(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    line = json.dumps({"request": request_of("hi")}).encode() + b"\n"
    monkeypatch.setattr(inputs, "MAX_BYTES", 3 * len(line) - 1)
    assert "more than" in bench.failure(line * 3)[1]
    monkeypatch.setattr(inputs, "MAX_BYTES", 1_000_000_000)
    monkeypatch.setattr(inputs, "MAX_REQUESTS", 2)
    assert "more than 2 requests" in bench.failure(line * 3)[1]
    assert len(bench.run(line * 2)) == 2


def test_the_limits_are_the_documented_ones() -> None:
    assert (inputs.MAX_REQUESTS, inputs.MAX_BYTES) == (200_000, 1_000_000_000)


def test_a_line_may_come_in_many_pieces_and_without_an_end(bench: Bench) -> None:
    text = "long " * 200_000
    body = b"".join(json.dumps(line).encode() + b"\n" for line in keyed({"a": text, "b": "short"}))
    lines = {line["key"]: text_of(line) for line in bench.run(body.rstrip(b"\n"))}
    assert lines["b"] == "Emulated answer to: short"
    assert lines["a"].startswith("Emulated answer to: long long")


REFUSED: list[tuple[dict[str, Any], int, str]] = [
    ({"displayName": ""}, 400, "Required field is not set: displayName"),
    ({"displayName": "x" * 129}, 400, "more than 128 characters"),
    ({"model": ""}, 400, "Required field is not set: model"),
    ({"model": "models/gemini-3.5-flash"}, 400, "Invalid model resource name"),
    ({"model": "publishers/google/models/gemini-none"}, 404, "was not found"),
    ({"model": "publishers/google/models/gemini-4-argon"}, 400, "does not support"),
    ({"labels": {"Team": "x"}}, 400, "Invalid label Team=x"),
    ({"labels": {"team": "a b"}}, 400, "Invalid label team=a b"),
    ({"labels": {f"k{i}": "" for i in range(65)}}, 400, "at most 64 labels"),
    ({"serviceAccount": "x@y"}, 400, "serviceAccount is not supported"),
    ({"encryptionSpec": {"kmsKeyName": "k"}}, 400, "encryptionSpec is not supported"),
    ({"priority": 1}, 400, 'Unknown name "priority"'),
    ({"inputConfig": {}}, 400, "set one of gcsSource and bigquerySource"),
    ({"inputConfig": {"instancesFormat": "csv", "gcsSource": {"uris": ["gs://acme/x"]}}}, 400, "needs 'jsonl'"),
    ({"inputConfig": {"gcsSource": {"uris": ["gs://acme/x"]}}}, 400, "needs 'jsonl'"),
    ({"inputConfig": {"instancesFormat": "jsonl", "gcsSource": {}}}, 400, "gcsSource.uris"),
    ({"inputConfig": {"instancesFormat": "jsonl", "gcsSource": {"uris": ["https://x/y"]}}}, 400, "Invalid Cloud"),
    (
        {"inputConfig": {"instancesFormat": "bigquery", "bigquerySource": {"inputUri": "bq://p.d"}}},
        400,
        "Invalid BigQuery table",
    ),
    ({"outputConfig": {}}, 400, "set one of gcsDestination and bigqueryDestination"),
    (
        {"outputConfig": {"predictionsFormat": "jsonl", "gcsDestination": {"outputUriPrefix": "out"}}},
        400,
        "Invalid Cloud Storage URI",
    ),
]


def test_the_form_of_a_create_call_is_checked_at_once(bench: Bench, wire: httpx2.Client) -> None:
    body = {
        "displayName": "tag",
        "model": "publishers/google/models/gemini-3.5-flash",
        "inputConfig": {"instancesFormat": "jsonl", "gcsSource": {"uris": [bench.put([GOOD])]}},
        "outputConfig": {"predictionsFormat": "jsonl", "gcsDestination": {"outputUriPrefix": "gs://acme/out"}},
    }
    for change, status, message in REFUSED:
        answer = wire.post(f"/v1beta1/{PARENT}/batchPredictionJobs", json={**body, **change})
        assert answer.status_code == status and message in answer.json()["error"]["message"], answer.json()
    assert list(bench.client.batches.list()) == []


def test_a_source_without_a_destination_is_refused_as_google_does_when_its_client_names_none(bench: Bench) -> None:
    with pytest.raises(errors.ClientError, match="outputConfig"):
        bench.client.batches.create(model="gemini-3.5-flash", src="gs://acme/in/")


_scalars = st.one_of(st.text(max_size=3), st.integers(-9, 9), st.booleans())
_objects = st.recursive(
    st.dictionaries(st.sampled_from("abc"), _scalars, min_size=1, max_size=3),
    lambda inner: st.dictionaries(
        st.sampled_from("abc"), st.one_of(_scalars, inner, st.lists(inner, max_size=2)), min_size=1, max_size=2
    ),
    max_leaves=4,
)


@given(st.lists(_objects, min_size=1, max_size=3))
def test_what_is_filled_with_nulls_can_be_told_from_them(rows: list[dict[str, Any]]) -> None:
    columns = Columns()
    try:
        for row in rows:
            columns.add(row)
    except ImportFault:
        return
    for row in rows:
        whole = filled(row, columns.root)
        assert without_nulls(whole) == row
        assert set(whole) == {name for other in rows for name in other}

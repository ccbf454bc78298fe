"""docs/backends.md says what each backend takes. Every cell of its table is tried, and so is every figure."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from google import genai
from google.genai import types
from google.oauth2.credentials import Credentials
from test_service_limits import BACKENDS, SPEC, complaints

from batchform.plan.features import ONLY
from batchform.plan.registry import Registry

TEXT = (Path(__file__).resolve().parents[2] / "docs" / "backends.md").read_text(encoding="utf-8")
OBJECT = {"type": "object", "properties": {"a": {"type": "string"}}}
REFERRING = {"type": "object", "properties": {"a": {"$ref": "#/$defs/A"}}, "$defs": {"A": {"type": "string"}}}
IMAGE = {"model": "gemini-3.1-flash-image"}


def config(**values: Any) -> dict[str, Any]:
    return {"generation_config": values}


def tools(*values: dict[str, Any]) -> dict[str, Any]:
    return {"request": {"tools": list(values)}}


FUNCTIONS = [{"function_declarations": [{"name": "f", "description": "does"}]}]
SAFETY = {"category": "HARM_CATEGORY_HARASSMENT", "threshold": "BLOCK_NONE"}
SAYING: dict[str, list[dict[str, Any]]] = {
    "system instruction, several turns": [
        {
            "prompt": {
                "system": {"text": "Be brief."},
                "messages": [
                    {"role": "user", "content": {"text": "Hello."}},
                    {"role": "model", "content": {"text": "Hello."}},
                    {"role": "user", "content": {"text": "{{ body }}"}},
                ],
            }
        }
    ],
    "sampling, length, stop sequences": [
        config(temperature=0.5, top_p=0.9, seed=7, max_output_tokens=64, stop_sequences=["END"])
    ],
    "`response_schema`": [config(response_schema=OBJECT)],
    "`response_json_schema`": [config(response_json_schema=OBJECT)],
    "`$defs` and `$ref` in a schema": [config(response_json_schema=REFERRING)],
    "a dialect of the schema (`schema_dialect`)": [
        {**config(response_schema=OBJECT), "schema_dialect": dialect}
        for dialect in ("json_schema", "inlined", "openapi")
    ],
    "settings that rows give (`{expr: …}`)": [config(temperature={"expr": "0.5 if body else 1"})],
    "service tiers (`serviceTier`)": [{"request": {"serviceTier": "flex"}}],
    "thinking": [config(thinking_config={"thinking_level": "LOW"})],
    "`safety_settings`": [{"safety_settings": [SAFETY]}],
    "`safety_settings` with a `method`": [{"safety_settings": [{**SAFETY, "method": "SEVERITY"}]}],
    "functions that the model may call": [tools({"functionDeclarations": [{"name": "f", "description": "does"}]})],
    "`tools: [google_search]`": [{"tools": ["google_search"]}],
    "functions by `tools` and `tool_config`": [
        {"tools": FUNCTIONS, "tool_config": {"function_calling_config": {"mode": "any"}}}
    ],
    "`labels` of requests": [{"labels": {"team": "support"}}],
    "Google Search, as `{googleSearch: {}}`": [tools({"googleSearch": {}})],
    "Google Search with `excludeDomains`": [tools({"googleSearch": {"excludeDomains": ["example.com"]}})],
    "code execution, URL context": [tools({"codeExecution": {}}), tools({"urlContext": {}})],
    "retrieval (RAG)": [tools({"retrieval": {"vertexRagStore": {"ragCorpora": ["x"]}}})],
    "explicit cache (`cachedContent`)": [{"request": {"cachedContent": "cachedContents/x"}}],
    "what all rows share, cached (`cache:`)": [
        {"prompt": {**SPEC["prompt"], "system": {"text": "Be brief."}}, "cache": {}},
        {"prompt": {**SPEC["prompt"], "attachments": ["manual.pdf"]}, "cache": {"attachments": ["manual.pdf"]}},
    ],
    "images as answers, 1K": [{**IMAGE, **config(response_modalities=["IMAGE"], image_config={"image_size": "1K"})}],
    "images as answers, 2K and 4K": [
        {**IMAGE, **config(response_modalities=["IMAGE"], image_config={"image_size": size})} for size in ("2K", "4K")
    ],
    "audio timestamps": [config(audio_timestamp=True)],
    "`submit: inline`": [{"submit": "inline"}],
    "tuned models": [{"model": "tunedModels/mine"}, {"model": "projects/p/locations/l/models/1"}],
    "embeddings (`task: embed`)": [
        {"task": "embed", "model": "gemini-embedding-001"},
        {"task": "embed", "model": "gemini-embedding-001", "embed": {"task_type": "CLUSTERING", "dimensions": 256}},
    ],
    "embeddings by a spec with a prompt for text": [{"model": "gemini-embedding-001"}],
    "images as files (`task: image`)": [{"task": "image", **IMAGE, "image": {"size": "1K"}}],
    "rows that are another spec's answers (`source: {type: spec}`)": [
        {"source": {"type": "spec", "name": "upstream"}, "prompt": {"user": {"text": "{{ text }}"}}}
    ],
    "another attempt with more tokens or another model (`retry: {on: …}`)": [
        {
            **config(max_output_tokens=4096),
            "retry": {
                "on": {"truncated": {"max_output_tokens": "x2"}, "invalid_output": {"model": "gemini-3.5-flash"}}
            },
        }
    ],
    "files with the prompt (`attachments`), of the project": [
        {"prompt": {**SPEC["prompt"], "attachments": ["media/{{ id }}.png"]}},
        {"prompt": {**SPEC["prompt"], "attachments": [{"pattern": "media/*.png", "inline_up_to": "1k"}]}},
    ],
    "PDFs in parts (`split_pages`)": [
        {"prompt": {**SPEC["prompt"], "attachments": [{"path": "media/{{ id }}.pdf", "split_pages": 50}]}},
    ],
    "files at `gs://` or `https://`": [
        {"prompt": {**SPEC["prompt"], "attachments": ["gs://b/{{ id }}.png"]}},
        {"prompt": {**SPEC["prompt"], "attachments": [{"path": "https://example.com/a.png"}]}},
    ],
    "rows and answers in files, buckets, BigQuery, databases": [
        {"source": {"type": "csv", "path": "gs://acme-batch/*.csv"}},
        {"source": {"type": "bigquery", "table": "acme-support.a.b"}},
        {"destination": {"type": "bigquery", "table": "acme-support.a.c"}},
        {"destination": {"type": "parquet", "path": "gs://acme-batch/out/"}},
    ],
    "labels of jobs (`labels:` of the backend)": [{}],
    "going on with a job that was cut short (`resume: auto` of the backend)": [{}],
    "raw results that stay in the bucket (`raw_results: bucket` of the backend)": [{}],
}
"""What a spec says to have each feature, in one or more ways."""

COLUMNS: dict[str, tuple[str, dict[str, Any]]] = {
    "Gemini API, file": ("gemini", {}),
    "Gemini API, inline": ("gemini", {"submit": "inline"}),
    "Vertex AI, Cloud Storage": ("storage", {}),
    "Vertex AI, BigQuery": ("bigquery", {}),
    "emulator": ("emulator", {}),
}


def table(heading: str) -> list[dict[str, str]]:
    """The rows of the table below a heading, by column."""
    section = TEXT.partition(f"## {heading}\n")[2].partition("\n## ")[0]
    lines = [line.strip("|").split("|") for line in section.splitlines() if line.startswith("|")]
    names = [name.strip() for name in lines[0]]
    return [dict(zip(names, (cell.strip() for cell in line), strict=True)) for line in lines[2:]]


ROWS = table("What each takes")


def refused(tmp_path: Path, feature: str, backend: dict[str, Any], more: dict[str, Any]) -> bool:
    """Whether every way to say it is refused; all or none must be."""
    if feature.startswith("labels"):
        backend = {**backend, "labels": {"team": "x"}}
    if feature.startswith("rows that are"):
        other = {**SPEC, "name": "upstream", "destination": {"type": "jsonl", "path": "results/upstream.jsonl"}}
        (tmp_path / "specs").mkdir(exist_ok=True)
        (tmp_path / "specs/upstream.yaml").write_text(json.dumps(other))
    if feature.startswith("going on"):
        backend = {**backend, "resume": "auto"}
    if feature.startswith("raw results"):
        backend = {**backend, "raw_results": "bucket"}
    found = [complaints(tmp_path, backend, **{**more, **said}) for said in SAYING[feature]]
    assert all(d.hint for told in found for d in told if d.rule != "model-embeds"), found
    assert len({bool(told) for told in found}) == 1, (feature, found)
    return bool(found[0])


def test_every_feature_has_a_row_and_every_row_a_test() -> None:
    assert [row["feature"] for row in ROWS] == list(SAYING)
    assert set(ROWS[0]) == {"feature", *COLUMNS}


@pytest.mark.parametrize("row", ROWS, ids=[row["feature"] for row in ROWS])
def test_each_cell(tmp_path: Path, row: dict[str, str]) -> None:
    feature = row["feature"]
    for column, (backend, more) in COLUMNS.items():
        told = "no" if refused(tmp_path, feature, BACKENDS[backend], more) else "yes"
        assert row[column] == told, (feature, column)


@pytest.mark.parametrize("row", ROWS, ids=[row["feature"] for row in ROWS])
def test_the_emulator_is_vertex_where_it_is_told_to(tmp_path: Path, row: dict[str, str]) -> None:
    if row["feature"].startswith("labels"):
        return
    for column, via in (("Vertex AI, Cloud Storage", "storage"), ("Vertex AI, BigQuery", "bigquery")):
        backend = {"type": "emulator", "cloud": "vertex", "via": via}
        assert row[column] == ("no" if refused(tmp_path, row["feature"], backend, {}) else "yes"), via


def test_the_figures() -> None:
    """Of the table of limits, against the data."""
    registry = Registry.load()
    gemini, vertex = registry.service, registry.on("vertex").service
    rows = {row["limit"]: (row["Gemini API"], row["Vertex AI"]) for row in table("What each holds")}

    def said(value: int | None) -> str:
        return "not stated" if value is None else f"{value:,}" if value else "none"

    fields = {
        "requests in a job": "max_rows",
        "bytes of a job's input": "max_input_bytes",
        "bytes of an inline create call": "max_inline_bytes",
        "jobs at once": "max_jobs",
    }
    for limit, field in fields.items():
        assert rows[limit] == (said(getattr(gemini, field)), said(getattr(vertex, field))), limit
    assert rows["bytes of all inputs at once"] == (said(gemini.max_storage_bytes), "none")
    assert rows["hours until a job ends by itself"][0] == str(gemini.job_expires_hours)
    assert rows["hours until a job ends by itself"][1].startswith(f"{vertex.job_expires_hours} ")
    assert rows["hours that an uploaded input is kept"][0] == str(gemini.input_kept_hours)
    assert rows["days that results are kept"][0] == str(gemini.results_kept_days)
    assert rows["levels of a line"][1].startswith(f"{registry.vertex_refuses.max_nesting},")
    assert rows["sizes of images"][1] == " ".join(registry.vertex_refuses.image_sizes)


# --- the client tells the two apart as we do


def asked(path: str) -> dict[str, Any]:
    """A config of the client that says what stands at a path of a request."""
    values: dict[str, Any] = {
        "retrieval": {},
        "enterpriseWebSearch": {},
        "parallelAiSearch": {},
        "exaAiSearch": {"api_key": "x"},
        "excludeDomains": ["example.com"],
        "blockingConfidence": "BLOCK_LOW_AND_ABOVE",
        "groundingTypes": {},
        "streamFunctionCallArguments": True,
        "method": "SEVERITY",
        "modelArmorConfig": {},
        "routingConfig": {"manual_mode": {"model_name": "m"}},
        "modelSelectionConfig": {"feature_selection_preference": "BALANCED"},
        "audioTimestamp": True,
        "personGeneration": "ALLOW_ALL",
        "prominentPeople": "PROMINENT_PEOPLE_UNSPECIFIED",
        "outputMimeType": "image/png",
        "outputCompressionQuality": 1,
        "imageOutputOptions": {"mime_type": "image/png"},
        "fileSearch": {"file_search_store_names": ["fileSearchStores/x"]},
        "includeServerSideToolInvocations": True,
        "enableEnhancedCivicAnswers": True,
        "store": True,
    }
    names = path.removeprefix("generationConfig.").split(".")
    built: Any = values[names[-1].removesuffix("[]")]
    for name in reversed(names):
        snake = re.sub(r"([A-Z])", lambda m: "_" + m[1].lower(), name.removesuffix("[]"))
        built = {snake: [built] if name.endswith("[]") else built}
    if names[0] == "safetySettings[]":
        built["safety_settings"][0] |= SAFETY
    return dict(built)


@pytest.mark.parametrize(("cloud", "path"), [(cloud, path) for cloud in ONLY for path in ONLY[cloud]])
def test_the_client_refuses_it_on_the_other_api_only(cloud: str, path: str) -> None:
    """Nothing listens at the address: what the client takes ends there."""
    options = types.HttpOptions(base_url="http://127.0.0.1:9", retry_options=types.HttpRetryOptions(attempts=1))
    here: Any = {"vertexai": True, "project": "p", "location": "l", "credentials": Credentials(token="t")}  # type: ignore[no-untyped-call]
    clients = {"vertex": here, "gemini": {"vertexai": False, "api_key": "k"}}
    for name, arguments in clients.items():
        with genai.Client(**arguments, http_options=options) as client, pytest.raises(Exception) as caught:
            client.models.generate_content(
                model="gemini-3.5-flash", contents="x", config=types.GenerateContentConfig(**asked(path))
            )
        refused_here = isinstance(caught.value, ValueError) and "only supported in" in str(caught.value)
        assert refused_here == (name != cloud), (name, repr(caught.value))


def test_the_place_is_where_the_spec_says_it(tmp_path: Path) -> None:
    [found] = complaints(tmp_path, BACKENDS["gemini"], **config(audio_timestamp=True))
    line = (tmp_path / "specs/triage.yaml").read_text().splitlines()[found.place.line - 1]
    assert "audio_timestamp" in line or "generation_config" in line
    assert json.dumps(found.message) and found.rule == "gemini-refuses"

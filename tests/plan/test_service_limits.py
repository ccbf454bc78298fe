"""Each limit of the services, at the limit and one over. The figures are those of the package's data file."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from batchform.errors import Diagnostic, InvalidProject
from batchform.plan.build import backend_limits, check_models
from batchform.plan.draft import _too_much_at_once
from batchform.plan.model import ZERO, Shard
from batchform.plan.registry import Registry
from batchform.plan.row_rules import row_rules
from batchform.plan.shard import _LINE_OVERHEAD, DraftShard, ShardCutter
from batchform.spec.load import load_project
from batchform.spec.resolved import ResolvedSpec
from batchform.spec.service_limits import DATA

NOW = dt.datetime(2026, 11, 21, tzinfo=dt.UTC)
STORED = {"type": "vertex", "project": "acme-support", "location": "us-central1", "staging": "gs://acme-batch/staging"}
BACKENDS: dict[str, dict[str, Any]] = {
    "gemini": {"type": "gemini"},
    "storage": STORED,
    "bigquery": {**STORED, "via": "bigquery", "dataset": "batches"},
    "emulator": {"type": "emulator"},
    "emulated vertex": {"type": "emulator", "cloud": "vertex"},
}
SPEC: dict[str, Any] = {
    "name": "triage",
    "source": {"type": "csv", "path": "data/*.csv"},
    "prompt": {"user": {"text": "{{ body }}"}},
    "model": "gemini-3.5-flash-lite",
    "destination": {"type": "jsonl", "path": "results/x.jsonl"},
    "idempotency": {"key": ["id"]},
}


def loaded(tmp_path: Path, backend: dict[str, Any], *, prices: str = "", **spec: Any) -> ResolvedSpec:
    """The spec of a project, checked as `validate` checks it. Raises InvalidProject."""
    (tmp_path / "specs").mkdir(exist_ok=True)
    project = {"version": 1, "project": "x", "backends": {"b": backend}, **({"prices": prices} if prices else {})}
    (tmp_path / "batchform.yaml").write_text(json.dumps(project, indent=1))
    (tmp_path / "specs" / "triage.yaml").write_text(json.dumps({**SPEC, **spec}, indent=1))
    found = load_project(tmp_path / "batchform.yaml", environment=None, env={})
    check_models(found.specs, Registry.load(), NOW)
    return found.specs[0]


def complaints(tmp_path: Path, backend: dict[str, Any], **more: Any) -> list[Diagnostic]:
    try:
        loaded(tmp_path, backend, **more)
    except InvalidProject as error:
        return list(error.diagnostics)
    return []


def cut(spec: ResolvedSpec, sizes: list[int], *, registry: Registry | None = None) -> list[DraftShard]:
    """The shards of rows whose lines have these many bytes. Raises InvalidProject where a row fits into none."""
    limits = backend_limits(spec.backend, submit=spec.spec.submit, registry=registry or Registry.load())
    rules = row_rules(spec, registry or Registry.load(), largest=limits.largest, most=None)
    cutter = ShardCutter(
        spec,
        limits=limits,
        folder=None,
        relative="",
        realm="google",
        fp_columns="",
        attempts_of=lambda _: 0,
        refuse=rules.too_large,
        mark="",
        at=NOW,
    )
    texts = {size: b"x" * (size - _LINE_OVERHEAD) for size in set(sizes)}
    for i, size in enumerate(sizes):
        cutter.add(f"row-{i}", f"{i:032x}", "", texts[size], b"f", 1)
    cutter.close_shard()
    if found := rules.complaints():
        raise InvalidProject(found)
    return cutter.shards


def test_every_limit_has_a_source_and_a_date() -> None:
    told = json.loads((DATA / "models.json").read_bytes())
    for name in ("service", "vertex", "vertex_refuses"):
        fields = set(told[name]) - {"sources"}
        assert set(told[name]["sources"]) == fields, name
        assert all(told["sources"][source]["url"].startswith("https://") for source in told[name]["sources"].values())
        assert all(told["sources"][source]["dated"] for source in told[name]["sources"].values())


# --- what a job holds


def test_200_000_requests_on_vertex(tmp_path: Path) -> None:
    most = Registry.load().vertex.max_rows
    spec = loaded(tmp_path, {**STORED, "max_rows_per_job": most})
    assert [s.rows for s in cut(spec, [60] * (most + 1))] == [200_000, 1]


@pytest.mark.parametrize(
    ("name", "most"),
    [("gemini", 300_000), ("emulator", 300_000), ("storage", 7), ("bigquery", 7), ("emulated vertex", 7)],
)
def test_requests_of_a_job(tmp_path: Path, name: str, most: int) -> None:
    """Vertex AI takes 7 here; of the Gemini API no number is stated, and the setting is all there is."""
    registry = Registry.load()
    registry = replace(registry, vertex=replace(registry.vertex, max_rows=7))
    setting = {} if name in ("storage", "bigquery") else {"max_rows_per_job": 300_000}
    spec = loaded(tmp_path, {**BACKENDS[name], **setting})
    assert backend_limits(spec.backend, submit="file", registry=registry).max_rows_per_job == most
    if most == 7:
        assert [s.rows for s in cut(spec, [60] * 7, registry=registry)] == [7]
        assert [s.rows for s in cut(spec, [60] * 8, registry=registry)] == [7, 1]


@pytest.mark.parametrize(
    ("name", "most"),
    [
        ("gemini", 2_000_000_000),
        ("emulator", 2_000_000_000),
        ("storage", 1_000_000_000),
        ("bigquery", 1_000_000_000),
        ("emulated vertex", 1_000_000_000),
    ],
)
def test_bytes_of_a_job(tmp_path: Path, name: str, most: int) -> None:
    spec = loaded(tmp_path, {**BACKENDS[name], "max_bytes_per_job": most})
    lines = [1_000_000] * (most // 1_000_000)
    assert [s.bytes for s in cut(spec, lines)] == [most]
    assert [s.bytes for s in cut(spec, [*lines[:-1], 1_000_001])] == [most - 1_000_000, 1_000_001]
    if name.startswith("emula"):  # a setting above the service's limit does not hold there either
        spec = loaded(tmp_path, {**BACKENDS[name], "max_bytes_per_job": 2 * most})
        assert [s.bytes for s in cut(spec, lines * 2)] == [most, most]


def test_bytes_of_an_inline_job(tmp_path: Path) -> None:
    """20 MB are of the whole call, whose text the client may escape threefold."""
    spec = loaded(tmp_path, BACKENDS["gemini"], submit="inline")
    assert [s.bytes for s in cut(spec, [1_000_000] * 6)] == [6_000_000]
    assert [s.bytes for s in cut(spec, [1_000_000] * 7)] == [6_000_000, 1_000_000]


@pytest.mark.parametrize("name", ["gemini", "storage", "bigquery"])
def test_a_request_that_no_job_takes(tmp_path: Path, name: str) -> None:
    """It once became a job of its own, which the service refuses."""
    registry = Registry.load()
    registry = replace(
        registry,
        service=replace(registry.service, max_input_bytes=5_000),
        vertex=replace(registry.vertex, max_input_bytes=5_000),
    )
    spec = loaded(tmp_path, BACKENDS[name])
    assert [s.bytes for s in cut(spec, [5_000, 5_000], registry=registry)] == [5_000, 5_000]
    with pytest.raises(InvalidProject) as caught:
        cut(spec, [5_000, 5_001, 5_002], registry=registry)
    (complaint,) = caught.value.diagnostics
    assert complaint.rule == "row-too-large"
    assert complaint.message == (
        "2 rows (`row-1`, `row-2`) would not fit into the input of one job, which holds 5,000 bytes; "
        "the first has 5,001 bytes"
    )
    assert complaint.hint and str(complaint.place).startswith("specs/triage.yaml:")


def test_a_request_that_no_inline_call_takes(tmp_path: Path) -> None:
    spec = loaded(tmp_path, BACKENDS["gemini"], submit="inline")
    assert len(cut(spec, [6_000_000])) == 1
    with pytest.raises(InvalidProject) as caught:
        cut(spec, [6_000_001])
    assert "a create call with its requests inline, which holds 6,000,000 bytes; the first has 6,000,001 bytes" in (
        caught.value.diagnostics[0].message
    )
    small = loaded(tmp_path, {"type": "gemini", "max_bytes_per_job": 1_000})
    assert len(cut(small, [2_000])) == 1, "one's own setting sends a longer request alone"


# --- what settings may say


@pytest.mark.parametrize(
    ("name", "field", "most"),
    [
        ("gemini", "max_bytes_per_job", 2_000_000_000),
        ("gemini", "max_jobs_in_flight", 100),
        ("storage", "max_rows_per_job", 200_000),
        ("storage", "max_bytes_per_job", 1_000_000_000),
        ("bigquery", "max_rows_per_job", 200_000),
        ("bigquery", "max_bytes_per_job", 1_000_000_000),
    ],
)
def test_settings_above_the_service(tmp_path: Path, name: str, field: str, most: int) -> None:
    assert complaints(tmp_path, {**BACKENDS[name], field: most}) == []
    [found] = complaints(tmp_path, {**BACKENDS[name], field: most + 1})
    assert found.rule == "wrong-value" and f"{most:,}" in found.message and found.place.line > 3 and found.hint
    assert complaints(tmp_path, {**BACKENDS["emulator"], field: most + 1}) == []


def test_a_limit_that_google_has_moved(tmp_path: Path) -> None:
    """The file that `prices:` names says so: for settings and for shards alike."""
    (tmp_path / "own.yaml").write_text("service: {max_jobs: 150}\nvertex: {max_rows: 250000}\n")
    assert complaints(tmp_path, {"type": "gemini", "max_jobs_in_flight": 150}, prices="own.yaml") == []
    assert complaints(tmp_path, {"type": "gemini", "max_jobs_in_flight": 151}, prices="own.yaml")
    assert complaints(tmp_path, {**STORED, "max_rows_per_job": 250_000}, prices="own.yaml") == []
    assert complaints(tmp_path, {**STORED, "max_rows_per_job": 250_001}, prices="own.yaml")
    from batchform.plan.override import lay_over

    registry = lay_over(Registry.load(), tmp_path / "own.yaml", "own.yaml")
    spec = loaded(tmp_path, {**STORED, "max_rows_per_job": 250_000}, prices="own.yaml")
    assert backend_limits(spec.backend, submit="file", registry=registry).max_rows_per_job == 250_000
    (tmp_path / "own.yaml").write_text("service: {max_jobs: many}\n")
    assert complaints(tmp_path, {"type": "gemini", "max_jobs_in_flight": 101}, prices="own.yaml")


# --- time, storage, features


@pytest.mark.parametrize(("cloud", "hours"), [("gemini", 48), ("vertex", 96)])
def test_a_model_must_live_as_long_as_a_job(cloud: str, hours: int) -> None:
    """48 h on the Gemini API; 72 h in the queue and 24 h at work on Vertex AI."""
    registry = Registry.load()
    end = dt.date(2027, 1, 20)
    info = replace(registry.models["gemini-3.5-flash"], shutdown=end, vertex_shutdown=end)
    registry = replace(registry, models={"m": info}).on(cloud)
    last = dt.datetime(2027, 1, 20, tzinfo=dt.UTC) - dt.timedelta(hours=hours)
    rules = [
        [f.rule for f in registry.check("m", now=now, realm="google") if f.severity == "error"]
        for now in (last - dt.timedelta(seconds=1), last)
    ]
    assert rules == [[], ["model-shutting-down"]]


def test_20_gb_of_inputs_at_once(tmp_path: Path) -> None:
    spec = loaded(tmp_path, {"type": "gemini", "max_jobs_in_flight": 10, "max_bytes_per_job": 2_000_000_000})
    service = Registry.load().service
    shards = [Shard(i, "t", "d", 1, 1, 2_000_000_000, 0, ZERO, "file", "", "") for i in range(11)]
    assert list(_too_much_at_once(shards, spec, service)) == [], "the eleventh waits"
    wider = loaded(tmp_path, {"type": "gemini", "max_jobs_in_flight": 11, "max_bytes_per_job": 2_000_000_000})
    [note] = _too_much_at_once(shards, wider, service)
    assert "22,000,000,000 bytes, and the service keeps 20,000,000,000" in note
    on_vertex = Registry.load().on("vertex").service
    assert list(_too_much_at_once(shards, wider, on_vertex)) == [], "a bucket holds what it is paid for"


def test_output_tokens_of_a_model(tmp_path: Path) -> None:
    most = Registry.load().models["gemini-3.5-flash-lite"].max_output_tokens
    assert most
    for backend in (BACKENDS["gemini"], STORED):
        assert complaints(tmp_path, backend, generation_config={"max_output_tokens": most}) == []
        [found] = complaints(tmp_path, backend, generation_config={"max_output_tokens": most + 1})
        assert f"above the {most:,}" in found.message


def test_levels_of_a_line(tmp_path: Path) -> None:
    """Those that the importer of Vertex AI takes; of a table no line is loaded."""

    def nested(levels: int) -> dict[str, Any]:
        value: Any = 1
        for _ in range(levels):
            value = {"a": value}
        return {"labels": value}

    assert complaints(tmp_path, STORED, request=nested(12)) == []
    assert all("the importer takes 15 levels" in d.message for d in complaints(tmp_path, STORED, request=nested(13)))
    assert complaints(tmp_path, STORED, request=nested(13))
    assert complaints(tmp_path, BACKENDS["bigquery"], request=nested(13)) == []


@pytest.mark.parametrize("size", ["1K", "2K", "4K"])
def test_images(tmp_path: Path, size: str) -> None:
    image = {"model": "gemini-3.1-flash-image", "generation_config": {"image_config": {"image_size": size}}}
    assert complaints(tmp_path, BACKENDS["gemini"], **image) == []
    for name in ("storage", "bigquery", "emulated vertex"):
        found = complaints(tmp_path, BACKENDS[name], **image)
        assert ["1K images only" in d.message for d in found] == ([] if size == "1K" else [True])


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ("projects/acme/locations/us-central1/models/1", "is not a model id"),
        ("projects/acme/locations/us-central1/endpoints/1", "is not a model id"),
        ("endpoints/1", "is not a model id"),
        ("tunedModels/mine", "is not known"),
        ("models/gemini-3.5-flash-lite", ""),
        ("publishers/google/models/gemini-3.5-flash-lite", ""),
    ],
)
def test_models_by_other_names(tmp_path: Path, model: str, words: str) -> None:
    """The client would send `models/x` as it is, and turn an endpoint into something else; tuned models of Gemini 3 are
    in no batch."""
    for backend in (STORED, BACKENDS["bigquery"]):
        assert [words in d.message and bool(d.hint) for d in complaints(tmp_path, backend, model=model)] == (
            [True] if words else []
        )

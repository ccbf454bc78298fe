"""What docs/backends.md says that a backend takes runs there: each `yes` is sent and answered, on its emulator."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from test_backend_features import ROWS, SAYING
from test_service_limits import SPEC

from batchform.cli import run

ELSEWHERE = {
    "rows and answers in files, buckets, BigQuery, databases": "tests/conformance, tests/e2e/test_bigquery_through.py",
    "labels of jobs (`labels:` of the backend)": "tests/backends/test_vertex_backend.py",
    "going on with a job that was cut short (`resume: auto` of the backend)": "tests/e2e/test_vertex_resume_jobs.py",
    "files with the prompt (`attachments`), of the project": "tests/e2e/test_attachments.py",
    "files at `gs://` or `https://`": "tests/e2e/test_attachments.py, tests/e2e/test_fetched.py",
    "PDFs in parts (`split_pages`)": "tests/e2e/test_split_pages.py, tests/examples/test_examples.py",
    "explicit cache (`cachedContent`)": "a cache has to be there first",
    "what all rows share, cached (`cache:`)": "tests/examples/test_examples.py, tests/prove/test_kept_caches.py",
    "embeddings (`task: embed`)": "tests/e2e/test_embed.py",
    "images as files (`task: image`)": "tests/examples/test_examples.py",
    "rows that are another spec's answers (`source: {type: spec}`)": "tests/examples/test_examples.py",
    "a dialect of the schema (`schema_dialect`)": "tests/examples/test_examples.py",
    "settings that rows give (`{expr: …}`)": "tests/examples/test_examples.py",
    "raw results that stay in the bucket (`raw_results: bucket` of the backend)": "tests/e2e/test_raw_results_stay.py",
    "another attempt with more tokens or another model (`retry: {on: …}`)": "tests/e2e/test_retry_ladder.py",
}
"""Features that need more than a spec and a row, and what runs them."""

SENT = {
    "system instruction, several turns": ["systemInstruction", '"role":"model"'],
    "sampling, length, stop sequences": ["topP", "stopSequences", '"seed":7'],
    "`response_schema`": ['Schema":{'],
    "`response_json_schema`": ['Schema":{'],
    "`$defs` and `$ref` in a schema": ['Schema":{'],
    "thinking": ["thinkingLevel"],
    "`safety_settings`": ["HARM_CATEGORY_HARASSMENT"],
    "`safety_settings` with a `method`": ["SEVERITY"],
    "functions that the model may call": ["functionDeclarations"],
    "`tools: [google_search]`": ["googleSearch"],
    "functions by `tools` and `tool_config`": ["functionDeclarations", '"mode":"ANY"'],
    "`labels` of requests": ['"labels":{"team":"support"}'],
    "Google Search, as `{googleSearch: {}}`": ["googleSearch"],
    "Google Search with `excludeDomains`": ["excludeDomains"],
    "code execution, URL context": [],
    "images as answers, 1K": ["IMAGE", '"imageSize":"1K"'],
    "images as answers, 2K and 4K": ['"imageSize":"'],
    "audio timestamps": ["audioTimestamp"],
    "`submit: inline`": [],
}
"""What the request has of each, in the bytes that were sent."""

TOGETHER = {
    "system instruction, several turns",
    "sampling, length, stop sequences",
    "thinking",
    "`safety_settings`",
    "functions that the model may call",
}
"""Features that one request has all of, so that fewer are run."""

COLUMNS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "Gemini API, file": ({"cloud": "gemini"}, {"submit": "file"}),
    "Gemini API, inline": ({"cloud": "gemini"}, {"submit": "inline"}),
    "Vertex AI, Cloud Storage": ({"cloud": "vertex"}, {}),
    "Vertex AI, BigQuery": ({"cloud": "vertex", "via": "bigquery"}, {}),
}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    for folder in ("specs", "data"):
        (tmp_path / folder).mkdir()
    (tmp_path / "data/rows.csv").write_text("id,body\n1,Hello\n")
    monkeypatch.chdir(tmp_path)
    yield tmp_path


def taken(column: str) -> list[str]:
    """Features of which a column says yes, and that a spec alone can have."""
    return [r["feature"] for r in ROWS if r[column] == "yes" and r["feature"] not in ELSEWHERE]


def specs_of(column: str) -> list[tuple[list[str], dict[str, Any]]]:
    """What specs say, and which features each has."""
    together: dict[str, Any] = {}
    alone: list[tuple[list[str], dict[str, Any]]] = []
    for feature in taken(column):
        for said in SAYING[feature]:
            if feature not in TOGETHER:
                alone.append(([feature], said))
                continue
            for name, value in said.items():
                together[name] = {**together.get(name, {}), **value} if isinstance(value, dict) else value
    return [([f for f in taken(column) if f in TOGETHER], together), *alone]


def lines_sent(root: Path) -> dict[str, bytes]:
    """The lines of each spec's job, by the spec's name."""
    found = {}
    for path in sorted((root / ".batchform/archive").glob("*.input.jsonl.zst")):
        with pa.CompressedInputStream(str(path), "zstd") as lines:
            found[path.name.removeprefix("bf-").partition("-")[0]] = lines.read()
    return found


def test_every_feature_is_run_here_or_elsewhere() -> None:
    """A new row of the table says here what its request holds, or which test runs it."""
    assert {row["feature"] for row in ROWS if "yes" in row.values()} <= {*SENT, *ELSEWHERE}


@pytest.mark.timeout(300)
@pytest.mark.parametrize("column", COLUMNS)
def test_what_a_backend_takes_is_sent_and_answered(
    project: Path, column: str, capsys: pytest.CaptureFixture[str]
) -> None:
    backend, more = COLUMNS[column]
    emulator = {"type": "emulator", "job_seconds": 0, "poll": "10ms", **backend}
    (project / "batchform.yaml").write_text(json.dumps({"version": 1, "project": "x", "backends": {"b": emulator}}))
    features: dict[str, list[str]] = {}
    for number, (named, said) in enumerate(specs_of(column)):
        features[name := f"f{number}"] = named
        spec = {**SPEC, "destination": {"type": "jsonl", "path": f"results/{name}.jsonl"}, **more, **said}
        (project / f"specs/{name}.yaml").write_text(json.dumps({**spec, "name": name}))
    assert len(features) > 5
    assert run(("apply", "--yes", "--json")) == 0, capsys.readouterr()
    outcome = json.loads(capsys.readouterr().out)
    assert outcome["rows"] == {name: {"answered": 1} for name in features}
    for name, line in lines_sent(project).items():
        assert all(part.encode() in line for feature in features[name] for part in SENT[feature]), (name, line)
    assert len(lines_sent(project)) == len(features)
    delivered = {name: json.loads((project / f"results/{name}.jsonl").read_bytes()) for name in features}
    assert all(row["finish_reason"] == "STOP" for row in delivered.values())

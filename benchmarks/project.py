"""The project that is measured: one spec over the benchmark's rows, on the emulator."""

from __future__ import annotations

import json
import subprocess
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CACHE = ROOT / "benchmarks" / ".cache"

_PROJECT = """\
version: 1
project: benchmark
backends:
  emulator: {{type: emulator, job_seconds: 0, poll: 100ms{url}}}
defaults: {{backend: emulator, model: gemini-3.5-flash-lite}}
allow_paths: [{rows}]
"""
_SPEC = """\
name: triage
source: {{type: {kind}, path: {path}}}
prompt: {{system: triage.system.j2, user: triage.j2}}
generation_config:
  temperature: 0
  max_output_tokens: 256
  response_schema: schemas/triage.json
destination: {{type: parquet, path: results/triage.parquet}}
idempotency: {{key: [ticket_id]}}
"""
_TEMPLATE = """\
Triage this ticket of {{ customer }}.

Subject: {{ subject }}

{{ body }}
{% if notes %}

Notes of the agent: {{ notes }}
{% endif %}

Number: {{ ticket_id }}
"""
_SYSTEM = "You triage support tickets. Answer with the fields of the schema and nothing else.\n"
_SCHEMA = {
    "type": "object",
    "properties": {
        "category": {"type": "string", "enum": ["billing", "delivery", "technical", "account", "other"]},
        "urgency": {"type": "integer", "minimum": 1, "maximum": 5},
        "summary": {"type": "string"},
    },
    "required": ["category", "urgency", "summary"],
}


def write_project(folder: Path, rows: Path, *, emulator_url: str = "") -> None:
    """A project in `folder` whose spec reads `rows` (a .csv or .parquet file)."""
    url = f", url: {emulator_url}" if emulator_url else ""
    files = {
        "batchform.yaml": _PROJECT.format(rows=rows.parent, url=url),
        "specs/triage.yaml": _SPEC.format(kind=rows.suffix[1:], path=rows),
        "templates/triage.j2": _TEMPLATE,
        "templates/triage.system.j2": _SYSTEM,
        "schemas/triage.json": json.dumps(_SCHEMA, indent=2),
    }
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def code_version() -> str:
    """The version and the tree of src/, so that state of other code is not measured by mistake."""
    command = ["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD:src"]
    tree = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip() or "untracked"
    return f"{version('batchform')}-{tree}"

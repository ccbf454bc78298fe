"""The projects that are measured: one spec over the benchmark's rows, or many small ones, on the emulator."""

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
  emulator: {{type: emulator, job_seconds: 0, poll: {poll}, timeout: 120s, settle: 60s{more}}}
defaults: {{backend: emulator, model: gemini-3.5-flash-lite}}
allow_paths: [{rows}]
"""
_SPEC = """\
name: {name}
source: {source}
prompt: {{system: triage.system.j2, user: triage.j2}}
generation_config:
  temperature: 0
  max_output_tokens: 256
  response_schema: schemas/triage.json
destination: {destination}
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


def write_project(
    folder: Path,
    rows: Path,
    *,
    emulator_url: str = "",
    rows_per_job: int | None = None,
    jobs: int | None = None,
    poll: str = "100ms",
    schema: str = "validated",
) -> None:
    """A project in `folder` whose spec reads `rows` (a .csv, .parquet, .jsonl or .sqlite file).

    rows_per_job, jobs: limits of the backend on rows of a job and on jobs in flight; schema: "validated", or "none" for
    answers that are text.
    """
    more = f", url: {emulator_url}" if emulator_url else ""
    more += f", max_rows_per_job: {rows_per_job}" if rows_per_job else ""
    more += f", max_jobs_in_flight: {jobs}" if jobs else ""
    spec = spec_text("triage", rows)
    if schema == "none":
        spec = spec.replace("  response_schema: schemas/triage.json\n", "")
    _write(folder, _PROJECT.format(rows=rows.parent, poll=poll, more=more), {"specs/triage.yaml": spec})


def write_many(folder: Path, parts: list[Path]) -> None:
    """A project of one small spec for each of the files."""
    specs = {f"specs/s{n:04d}.yaml": spec_text(f"s{n:04d}", part) for n, part in enumerate(parts)}
    _write(folder, _PROJECT.format(rows=parts[0].parent, poll="100ms", more=""), specs)


def spec_text(name: str, rows: Path, destination: str = "") -> str:
    """A spec over `rows`. destination: as flow YAML; "" for Parquet in results/."""
    table = ", table: tickets" if rows.suffix == ".sqlite" else ""
    source = f"{{type: {rows.suffix[1:]}, path: {rows}{table}}}"
    to = destination or f"{{type: parquet, path: results/{name}.parquet}}"
    return _SPEC.format(name=name, source=source, destination=to)


def deliver_to(folder: Path, destination: str) -> None:
    """Change the destination of a project's spec."""
    spec = folder / "specs/triage.yaml"
    lines = spec.read_text(encoding="utf-8").splitlines()
    changed = [f"destination: {destination}" if line.startswith("destination:") else line for line in lines]
    spec.write_text("\n".join(changed) + "\n", encoding="utf-8")


def edit_template(folder: Path) -> None:
    """Edit the template in a way that leaves every prompt as it is."""
    template = folder / "templates/triage.j2"
    template.write_text("{# Says what it said. #}" + template.read_text(encoding="utf-8"), encoding="utf-8")


def _write(folder: Path, project: str, specs: dict[str, str]) -> None:
    files = {
        "batchform.yaml": project,
        "templates/triage.j2": _TEMPLATE,
        "templates/triage.system.j2": _SYSTEM,
        "schemas/triage.json": json.dumps(_SCHEMA, indent=2),
        **specs,
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

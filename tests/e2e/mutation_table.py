"""A project in which every field has something to change, and a table of changes to each, with the rows that it sends.

`test_mutation.py` makes the changes, and holds the table against the models.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from attached_kit import pdf
from tests_e2e_kit import Workspace

from batchform.canon import digest_of, short

DAY = datetime.now(UTC).date() - timedelta(days=1)
"""In whose first hours the tables of the warehouse were written: BigQuery keeps them as they were for seven days."""

# --- a project in which every field has something to change ---------------------------------------------------------

ROWS = {
    "data/tickets.csv": (
        "id,tenant,status,title,body\n"
        'T-1,acme,open,seven,007\nT-2,acme,open,café,plain\nT-3,acme,open,"\'three\'","a, b"\n'
        "T-4,acme,open,four,4\nT-5,acme,closed,five,5\nT-6,acme,closed,six,6\n"
    ),
    "data/more.csv": "id,tenant,status,title,body\nT-7,acme,open,seven,7\n",
    "data/odd.csv": "a;,b\nT-1;,one\nT-2;x,two\nT-3;,'three'\nT-4;,\"four\"\n",
    "data/scans.csv": "id,file,other\nT-1,pages/a.txt,pages/b.txt\nT-2,pages/b.txt,pages/b.txt\n"
    "T-3,media/long.pdf,media/long.pdf\n",
    "media/long.pdf": pdf(pages=3).decode(),
    "pages/a.txt": "Alpha",
    "pages/b.txt": "Café",
    "pages/c.md": "Gamma",
}
TEMPLATES = {
    "templates/triage.j2": "{{ title }}: {{ body }}",
    "templates/again.j2": "{% set t = title %}{{ t }}: {{ body }}",
    "templates/other.j2": "{{ title }}: {{ body }}{{ '!' if id == 'T-4' }}",
    "templates/system.j2": "Sort tickets.",
}
TABLE_ROWS = [("T-1", "open", "one"), ("T-2", "open", "two"), ("T-2", "open", "too"), ("T-3", "closed", "three")]
SCHEMA = {"type": "object", "properties": {"label": {"type": "string"}}, "required": ["label"]}

FUNCTIONS = [{"function_declarations": [{"name": "close"}]}]

COMMON: dict[str, Any] = {"model": "gemini-3.5-flash-lite", "idempotency": {"key": ["id"]}}
SPECS: dict[str, dict[str, Any]] = {
    "triage": {
        **COMMON,
        "source": {"type": "csv", "path": "data/tickets.csv", "where": "status = 'open'"},
        "prompt": {"system": "system.j2", "user": "triage.j2"},
        "generation_config": {"temperature": 0, "max_output_tokens": 64},
        "safety_settings": [
            {"category": "HARM_CATEGORY_HARASSMENT", "threshold": "BLOCK_NONE"},
            {"category": "HARM_CATEGORY_HATE_SPEECH", "threshold": "OFF"},
        ],
        "request": {"generationConfig": {"seed": 7}},
        "destination": {"type": "jsonl", "path": "results/triage.jsonl"},
    },
    "odd": {
        **COMMON,
        "source": {
            "type": "csv",
            "path": "data/odd.csv",
            "query": "SELECT regexp_extract(a, 'T-[0-9]') AS id, ltrim(b, ',') AS body FROM source AS t(a, b)",
        },
        "prompt": {"user": {"text": "{{ body }}"}},
        "destination": {"type": "csv", "path": "results/odd.csv"},
    },
    "table": {
        **COMMON,
        "source": {"type": "sqlite", "path": "data/tickets.db", "table": "tickets", "where": "status = 'open'"},
        "idempotency": {"key": ["id"], "duplicates": "first"},
        "prompt": {"user": {"text": "{{ body }}"}},
        "destination": {"type": "sqlite", "path": "results/table.db", "table": "answers"},
    },
    "shop": {
        **COMMON,
        "source": {"type": "sql", "database": "shop", "table": "tickets", "where": "status = 'open'"},
        "idempotency": {"key": ["id"], "duplicates": "first"},
        "prompt": {"user": {"text": "{{ body }}"}},
        "destination": {"type": "sql", "database": "out", "table": "answers"},
    },
    "shared": {
        **COMMON,
        "source": {"type": "csv", "path": "data/tickets.csv", "where": "status = 'open'"},
        "prompt": {"system": {"text": "Sort tickets. " * 1500}, "user": "triage.j2", "attachments": ["pages/a.txt"]},
        "destination": {"type": "jsonl", "path": "results/shared.jsonl"},
    },
    "scans": {
        **COMMON,
        "source": {"type": "csv", "path": "data/scans.csv"},
        "prompt": {"user": {"text": "Read this."}, "attachments": ["{{ file }}"]},
        "destination": {"type": "jsonl", "path": "results/scans.jsonl"},
    },
    "pages": {
        **COMMON,
        "source": {"type": "files", "path": "pages/*.txt"},
        "idempotency": {"key": ["name"]},
        "prompt": {"user": {"text": "{{ text }}"}},
        "destination": {"type": "parquet", "path": "results/pages.parquet"},
    },
    "chat": {
        **COMMON,
        "source": {"type": "csv", "path": "data/tickets.csv", "where": "status = 'open'"},
        "prompt": {
            "messages": [
                {"role": "user", "content": {"text": "Hello"}},
                {"role": "model", "content": "system.j2"},
                {"role": "user", "content": {"text": "{{ title }}: {{ body }}"}},
            ]
        },
        "destination": {"type": "jsonl", "path": "results/chat.jsonl"},
    },
}
SPECS["vectors"] = {
    "idempotency": {"key": ["id"]},
    "task": "embed",
    "model": "gemini-embedding-001",
    "source": {"type": "csv", "path": "data/tickets.csv", "where": "status = 'open'"},
    "prompt": {"user": {"text": "{{ body }}"}},
    "embed": {"task_type": "RETRIEVAL_DOCUMENT", "dimensions": 128, "title": {"text": "{{ title }}"}},
    "destination": {"type": "parquet", "path": "results/vectors.parquet"},
}
SPECS["pictures"] = {
    "idempotency": {"key": ["id"]},
    "task": "image",
    "model": "gemini-3.1-flash-image",
    "source": {"type": "csv", "path": "data/tickets.csv", "where": "status = 'open'"},
    "prompt": {"user": {"text": "{{ body }}"}},
    "image": {"aspect_ratio": "16:9", "size": "1K"},
    "destination": {"type": "jsonl", "path": "results/pictures.jsonl"},
}
DATABASES = {name: {"url": f"sqlite:///data/{name}.db${{ENV:NOTHING}}"} for name in ("tickets", "copy", "edited")}
DATABASES |= {"shop": DATABASES["tickets"], "out": {"url": "sqlite:///results/shop.db${ENV:NOTHING}"}}
SPECS["warehouse"] = {
    **COMMON,
    "source": {"type": "bigquery", "table": "acme.rows.tickets", "where": "status = 'open'"},
    "prompt": {"user": {"text": "{{ body }}"}},
    "destination": {"type": "bigquery", "table": "acme.rows.answers"},
}
SPECS["follow"] = {
    **COMMON,
    "source": {"type": "spec", "name": "chat", "where": "id <> 'T-1'"},
    "prompt": {"user": {"text": "{{ text }} of {{ row | length }}"}},
    "destination": {"type": "jsonl", "path": "results/follow.jsonl"},
}
BACKENDS = {"local": {"type": "emulator", "job_seconds": 0, "poll": "10ms"}}


def write_specs(workspace: Workspace, specs: Mapping[str, Any]) -> None:
    for name, spec in specs.items():
        workspace.write(f"specs/{name}.yaml", json.dumps({"name": name, **spec}))


# --- the tables: field → changes and how many rows each sends -------------------------------------------------------


@dataclass(frozen=True)
class Case:
    """A change laid over a spec (`on`) and over batchform.yaml, None removes; and how many rows it sends."""

    sends: int
    change: Mapping[str, Any] = field(default_factory=dict)
    on: str = "triage"
    project: Mapping[str, Any] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)


GOOGLE = {"type": "gemini"}
GATEWAY = {"type": "gemini", "base_url": "http://127.0.0.1:9"}
VERTEX = {"type": "vertex", "project": "acme-support", "location": "us-central1", "staging": "gs://acme-batch/staging"}
VERTEX_HERE = {**VERTEX, "base_url": "http://127.0.0.1:9"}
JSONL = """{"id": "T-1", "title": "seven", "body": %s, "status": "open"}
{"id": "T-4", "title": "four", "body": "4", "status": "open"}
"""


NOTHING = "sha256:" + hashlib.sha256().hexdigest()
KEPT = f".batchform/cache/jobs/{short(digest_of('job', ['batches/none', 'local', 'emulator']), 32)}"
READ_JOB = {
    f"{KEPT}/job.json": json.dumps(
        {
            **dict.fromkeys(("model", "error", "sent", "fingerprint", "place"), ""),
            "name": "batches/none",
            "state": "FAILED",
            "results": NOTHING,
            "requests": NOTHING,
        }
    ),
    **{f"{KEPT}/{name}.jsonl": "" for name in ("results", "requests")},
}
"""A job that ended without results, as a plan keeps what it has read of it."""


def source(sends: int, on: str = "triage", files: Mapping[str, str] | None = None, **change: Any) -> Case:
    return Case(sends, {"source": change}, on, files=files or {})


def prompt(sends: int, on: str = "triage", **change: Any) -> Case:
    return Case(sends, {"prompt": change}, on)


def embed(sends: int, **change: Any) -> Case:
    return Case(sends, {"embed": change}, "vectors")


def turns(sends: int, *messages: tuple[str, Any], user: Any = None) -> Case:
    return prompt(sends, "chat", messages=[{"role": r, "content": c} for r, c in messages], user=user)


def destination(on: str = "triage", **change: Any) -> list[Case]:
    return [Case(0, {"destination": change}, on)]


def free(**change: Any) -> list[Case]:
    return [Case(0, change)]


def attached(sends: int, **change: Any) -> Case:
    given = change if {"pattern", "column"} & change.keys() else {"path": "{{ file }}", **change}
    return prompt(sends, "scans", attachments=[given])


HELLO, SORT, ASK = ("user", {"text": "Hello"}), ("model", "system.j2"), ("user", {"text": "{{ title }}: {{ body }}"})

SHOT = '{"user": "Hello", "model": "Sort tickets."}\n'


def shots(sends: int, text: str = SHOT, path: str = "data/shots.jsonl", **change: Any) -> Case:
    """The conversation of `chat`, its first turns from a file."""
    asked = {"messages": None, "user": ASK[1], "examples": {"path": path, **change}}
    return Case(sends, {"prompt": asked}, "chat", files={path: text})


LIMITS = {
    "max_usd": 0, "max_usd_per_plan": 0, "max_usd_per_month": 0, "max_usd_total": 0, "max_usd_basis": "high",
    "max_rows": 1, "max_changed_percent": 0, "changed_floor": 0, "max_shrink_percent": 0,
    "allowed_models": ["gemini-*"], "required_labels": ["team"], "min_model_days": 1,
}  # fmt: skip
CHANGES = {
    "model": "gemini-3.5-flash", "max_output_tokens": 99, "temperature": 1, "seed": 1, "thinking_level": "low",
    "thinking_budget": 0,
}  # fmt: skip
"""Of the retry ladder."""


def on_truncated(**change: Any) -> dict[str, Any]:
    return {"retry": {"on": {"truncated": change}}}


FLATTENED = {"destination": {"flatten": True}, "output": {"schema": SCHEMA}}

SPEC_CASES: dict[str, list[Case]] = {
    "name": [Case(4, {"name": "renamed"})],
    "description": free(description="What it is for."),
    "tags": free(tags=["nightly"]),
    "source.FileSource.type": [
        source(0, type="jsonl", path="data/t.jsonl", files={"data/t.jsonl": JSONL % '"007"'}),
        source(1, type="jsonl", path="data/t.jsonl", files={"data/t.jsonl": JSONL % "7"}),
    ],
    "source.FileSource.path": [
        source(0, path="data/copy.csv", files={"data/copy.csv": ROWS["data/tickets.csv"]}),
        source(0, path=["data/t*s.csv"]),
        source(1, path=["data/tickets.csv", "data/more.csv"]),
    ],
    "source.FileSource.where": [
        source(0, where="(status = 'open') AND id LIKE 'T-%'"),
        source(0, where="status = 'open' AND id <> 'T-1'"),
        source(1, where="status = 'open' OR id = 'T-5'"),
        source(2, where=None),
    ],
    "source.FileSource.query": [
        source(0, "odd", query="SELECT ltrim(b, ',') AS body, regexp_extract(a, 'T-.') AS id FROM source AS t(a, b)"),
        source(1, "odd", query="SELECT regexp_extract(a, 'T-.') AS id, ltrim(b, ',t') AS body FROM source AS t(a, b)"),
    ],
    "source.FileSource.encoding": [source(0, encoding="utf8"), source(1, encoding="latin-1")],
    "source.FileSource.delimiter": [source(0, "odd", delimiter=","), source(2, "odd", delimiter=";")],
    "source.FileSource.quote": [
        source(0, "odd", quote='"'), source(1, "odd", quote=""), source(2, "odd", quote="'"),
    ],
    "source.DatabaseSource.type": [
        source(0, "table", type="duckdb", path="data/tickets.duckdb"),
        source(1, "table", type="duckdb", path="data/edited.duckdb"),
    ],
    "source.DatabaseSource.path": [source(0, "table", path="data/copy.db"), source(1, "table", path="data/edited.db")],
    "source.DatabaseSource.table": [source(0, "table", table="copied"), source(2, "table", table="edited")],
    "source.DatabaseSource.where": [source(0, "table", where="status LIKE 'open'"), source(1, "table", where=None)],
    "source.DatabaseSource.query": [
        source(0, "table", table=None, where=None, query="SELECT body, id FROM tickets WHERE status = 'open'"),
        source(1, "table", table=None, where=None, query="SELECT id, rtrim(body, 'e') AS body FROM tickets LIMIT 2"),
    ],
    "source.SqlSource.database": [source(0, "shop", database="copy"), source(1, "shop", database="edited")],
    "source.SqlSource.table": [source(0, "shop", table="copied"), source(2, "shop", table="edited")],
    "source.SqlSource.where": [source(0, "shop", where="status LIKE 'open'"), source(1, "shop", where=None)],
    "source.SqlSource.query": [
        source(0, "shop", table=None, where=None, query="SELECT body, id FROM tickets WHERE status = 'open'"),
        source(1, "shop", table=None, where=None, query="SELECT id, rtrim(body, 'e') AS body FROM tickets LIMIT 2"),
    ],
    "source.BigQuerySource.table": [
        source(0, "warehouse", table="acme.rows.copied"), source(1, "warehouse", table="acme.rows.edited"),
    ],
    "source.BigQuerySource.where": [
        source(0, "warehouse", where="status LIKE 'open'"), source(1, "warehouse", where=None),
    ],
    "source.BigQuerySource.query": [
        source(0, "warehouse", table=None, where=None, query="SELECT body, id FROM acme.rows.copied WHERE id <> 'T-3'"),
        source(1, "warehouse", table=None, where=None, query="SELECT id, body FROM acme.rows.edited WHERE id = 'T-2'"),
    ],
    "source.BigQuerySource.as_of": [
        source(0, "warehouse", as_of=f"{DAY}T02:30:00Z"), source(1, "warehouse", as_of=f"{DAY}T01:30:00+01:00"),
    ],
    "source.BigQuerySource.project": [source(0, "warehouse", project="elsewhere")],
    "source.BigQuerySource.location": [source(0, "warehouse", location="us")],
    "source.BigQuerySource.max_bytes_billed": [source(0, "warehouse", max_bytes_billed="1G")],
    "source.BigQuerySource.read": [source(0, "warehouse", read="rest")],
    "source.BigQuerySource.cache": [source(0, "warehouse", cache=False)],
    "source.BigQuerySource.timeout": [source(0, "warehouse", timeout="5m")],
    "source.FilesSource.path": [
        source(0, "pages", path=["pages/b.txt", "pages/a.txt"]), source(1, "pages", path="pages/*"),
    ],
    "source.FilesSource.where": [
        source(0, "pages", path="pages/*", where="name <> 'c.md'"),
        source(1, "pages", path="pages/*", where="size > 0"),
    ],
    "source.FilesSource.query": [
        source(0, "pages", query="SELECT text, name FROM source"),
        source(2, "pages", query="SELECT name, upper(text) AS text FROM source"),
    ],
    "source.FilesSource.encoding": [source(0, "pages", encoding="utf8"), source(1, "pages", encoding="latin-1")],
    "source.SpecSource.name": [source(1, "follow", name="table")],
    "source.SpecSource.where": [
        source(0, "follow", where="status = 'answered' AND id <> 'T-1'"), source(1, "follow", where=None),
    ],
    "source.SpecSource.query": [
        source(0, "follow", query="SELECT text, id FROM source"),
        source(3, "follow", query="SELECT id, upper(text) AS text FROM source"),
    ],
    "source.SpecSource.with_source": [
        source(0, "follow", with_source=True),
        Case(3, {"source": {"with_source": True}, "prompt": {"user": {"text": "{{ text }}: {{ title }}"}}}, "follow"),
    ],
    "prompt.system": [
        prompt(0, system={"text": "Sort tickets."}), prompt(4, system="triage.j2"), prompt(4, system=None),
    ],
    "prompt.system.InlineText.text": [
        prompt(4, system={"text": "Sort them."}), prompt(0, system={"text": "Sort {{ 'tickets' }}."}),
    ],
    "prompt.user": [prompt(0, user="again.j2"), prompt(1, user="other.j2")],
    "prompt.user.InlineText.text": [
        prompt(0, user={"text": "{{ title }}: {{ body }}"}),
        prompt(2, user={"text": "{{ title }}: {{ body }}{{ '?' if id in ('T-1', 'T-2', 'T-6') }}"}),
    ],
    "prompt.messages.role": [turns(4, HELLO, ("user", "system.j2"), ASK)],
    "prompt.messages.content": [turns(0, HELLO, ("model", {"text": "Sort tickets."}), ASK), turns(4, HELLO, ASK)],
    "prompt.messages.content.InlineText.text": [
        turns(0, HELLO, SORT, user=ASK[1]),
        turns(0, HELLO, SORT, ("user", {"text": "{% set t = title %}{{ t }}: {{ body }}"})),
        turns(1, HELLO, SORT, ("user", {"text": "{{ title }}: {{ body|replace('plain', 'fancy') }}"})),
    ],
    "prompt.attachments": [
        prompt(0, "scans", attachments=["{{ row.file }}"]),
        prompt(3, "scans", attachments=["{{ file }}", "pages/c.md"]),
    ],
    "prompt.attachments.Attachment.path": [attached(0, path="{{ file | trim }}"), attached(1, path="{{ other }}")],
    "prompt.attachments.Attachment.pattern": [attached(0, pattern="{{ file }}"), attached(3, pattern="pages/*.txt")],
    "prompt.attachments.Attachment.column": [attached(0, column="file"), attached(1, column="other")],
    "prompt.attachments.Attachment.mime_type": [
        attached(1, mime_type="text/plain"), attached(3, mime_type="text/markdown"),
    ],
    "prompt.attachments.Attachment.optional": [attached(0, optional=True)],
    "prompt.attachments.Attachment.position": [attached(0, position="before"), attached(3, position="after")],
    "prompt.attachments.Attachment.split_pages": [attached(0, split_pages=5), attached(2, split_pages=2)],
    "prompt.attachments.Attachment.inline_up_to": [attached(0, inline_up_to=1)],
    "prompt.examples.path": [shots(0), shots(0, path="data/more.jsonl"), shots(4, SHOT + SHOT)],
    "prompt.examples.user": [shots(0, user={"text": "Hello"}), shots(4, user="system.j2")],
    "prompt.examples.user.InlineText.text": [
        shots(0, user={"text": "{{ user | trim }}"}), shots(4, user={"text": "{{ user }}!"}),
    ],
    "prompt.examples.model": [shots(0, model="system.j2"), shots(4, model={"text": "Sort them."})],
    "prompt.examples.model.InlineText.text": [
        shots(0, model={"text": "{{ row.model }}"}), shots(4, model={"text": "{{ model | upper }}"}),
    ],
    "model": [Case(0, {"model": "models/gemini-3.5-flash-lite"}), Case(4, {"model": "gemini-3.5-flash"})],
    "generation_config": [
        Case(0, {"generation_config": {"max_output_tokens": None, "maxOutputTokens": 64.0, "temperature": 0.0}}),
        Case(4, {"generation_config": {"temperature": 0.5}}),
        Case(0, {"generation_config": {"temperature": {"expr": "0 * (id | length)"}}}),
        Case(1, {"generation_config": {"temperature": {"expr": "1 if id == 'T-2' else 0"}}}),
        Case(4, {"generation_config": {"response_schema": "schemas/label.json"}}),
    ],
    "schema_dialect": [
        Case(4, {"generation_config": {"response_schema": "schemas/label.json"}, "schema_dialect": "openapi"}),
    ],
    "task": [Case(4, {"task": "generate", "embed": None, "model": "gemini-3.5-flash-lite"}, "vectors")],
    "cache.system": [Case(0, {"cache": {"system": True}}, "shared")],
    "cache.attachments": [Case(0, {"cache": {"attachments": ["pages/a.txt"]}}, "shared")],
    "cache.ttl": [Case(0, {"cache": {"ttl": "7d"}}, "shared")],
    "embed.task_type": [embed(0, task_type="RETRIEVAL_DOCUMENT"), embed(4, task_type="CLUSTERING", title=None)],
    "embed.dimensions": [embed(0, dimensions=128), embed(4, dimensions=256), embed(4, dimensions=None)],
    "embed.title": [embed(0, title={"text": "{{ title }}"}), embed(4, title=None), embed(4, title="system.j2")],
    "embed.title.InlineText.text": [
        embed(0, title={"text": "{% set t = title %}{{ t }}"}),
        embed(1, title={"text": "{{ title | replace('four', '4') }}"}),
    ],
    "image.aspect_ratio": [Case(0, {"image": {"aspect_ratio": "16:9"}}, "pictures"),
                           Case(4, {"image": {"aspect_ratio": "1:1"}}, "pictures")],
    "image.size": [Case(4, {"image": {"size": "2K"}}, "pictures"), Case(4, {"image": {"size": None}}, "pictures")],
    "image.folder": [Case(0, {"image": {"folder": "results/elsewhere"}}, "pictures")],
    "safety_settings": [
        Case(0, {"safety_settings": [
            {"threshold": "off", "category": "HATE_SPEECH"}, {"category": "HARASSMENT", "threshold": "NONE"},
        ]}),
        Case(0, {"safety_settings": {"hate_speech": False, "harassment": "none"}}),
        Case(4, {"safety_settings": []}),
    ],
    "tools": [Case(0, {"tools": []}), Case(4, {"tools": ["url_context"]}), Case(4, {"tools": FUNCTIONS})],
    "tool_config": [
        Case(0, {"tool_config": {}}),
        Case(4, {"tools": FUNCTIONS, "tool_config": {"function_calling_config": {"mode": "any"}}}),
    ],
    "labels": [Case(0, {"labels": {}}), Case(4, {"labels": {"team": "support"}})],
    "request": [
        Case(0, {"request": {"generationConfig": None, "generation_config": {"seed": 7.0}}}),
        Case(0, {"request": None, "generation_config": {"seed": 7}}),
        Case(4, {"request": {"generationConfig": {"seed": 8}}}),
    ],
    "output.format": free(output={"format": "json"}),
    "output.extract": free(output={"format": "json", "extract": False}),
    "output.schema": free(output={"schema": SCHEMA}),
    "destination.FileDestination.type": destination(type="csv"),
    "destination.FileDestination.path": destination(path="results/parts/"),
    "destination.FileDestination.columns": destination(columns={"ticket": "id", "said": "text"}),
    "destination.FileDestination.flatten": [Case(0, FLATTENED)],
    "destination.FileDestination.prune": destination(prune=True),
    "destination.DatabaseDestination.type": destination("table", type="duckdb", path="results/table.duckdb"),
    "destination.DatabaseDestination.path": destination("table", path="results/other.db"),
    "destination.DatabaseDestination.table": destination("table", table="others"),
    "destination.DatabaseDestination.columns": destination("table", columns={"said": "text", "id": "id"}),
    "destination.DatabaseDestination.flatten": [Case(0, FLATTENED, "table")],
    "destination.DatabaseDestination.prune": destination("table", prune=True),
    "destination.SqlDestination.database": destination("shop", database="copy"),
    "destination.SqlDestination.table": destination("shop", table="others"),
    "destination.SqlDestination.columns": destination("shop", columns={"said": "text", "id": "id"}),
    "destination.SqlDestination.flatten": [Case(0, FLATTENED, "shop")],
    "destination.SqlDestination.prune": destination("shop", prune=True),
    "destination.BigQueryDestination.table": destination("warehouse", table="acme.rows.others"),
    "destination.BigQueryDestination.columns": destination("warehouse", columns={"said": "text", "id": "id"}),
    "destination.BigQueryDestination.flatten": [Case(0, FLATTENED, "warehouse")],
    "destination.BigQueryDestination.prune": destination("warehouse", prune=True),
    "destination.BigQueryDestination.metadata": destination("warehouse", metadata=False),
    "destination.BigQueryDestination.shared": destination("warehouse", shared=True),
    "destination.BigQueryDestination.partition_by": destination("warehouse", partition_by="answered_at"),
    "destination.BigQueryDestination.partition": destination("warehouse", partition="month"),
    "destination.BigQueryDestination.cluster_by": destination("warehouse", cluster_by=["id"]),
    "destination.BigQueryDestination.project": destination("warehouse", project="elsewhere"),
    "destination.BigQueryDestination.location": destination("warehouse", location="US"),
    "destination.BigQueryDestination.max_bytes_billed": destination("warehouse", max_bytes_billed="10G"),
    "destination.BigQueryDestination.timeout": destination("warehouse", timeout="5m"),
    "idempotency.key": [
        Case(0, {"idempotency": {"key": "{{ id }}"}}), Case(4, {"idempotency": {"key": ["tenant", "id"]}}),
    ],
    "idempotency.duplicates": [Case(1, {"idempotency": {"duplicates": "last"}}, "table")],
    "idempotency.on_prompt_change": free(idempotency={"on_prompt_change": "keep"}),
    "idempotency.on_prompt_change.Canary.canary": free(idempotency={"on_prompt_change": {"canary": 2}}),
    "idempotency.on_row_change": free(idempotency={"on_row_change": "keep"}),
    "idempotency.reuse_identical": free(idempotency={"reuse_identical": True}),
    "import.results": free(**{"import": [{"results": "data/more.csv"}]}),
    "import.job": [Case(0, {"import": [{"job": "batches/none"}]}, files=READ_JOB)],
    "import.requests": free(**{"import": [{"results": "data/more.csv", "requests": "data/more.csv"}]}),
    "moved.from": free(moved={"from": "earlier"}),
    "moved.key": free(moved={"key": ["title"]}),
    "rollout.rows": free(rollout=[{"rows": 2}, {"percent": 100}]),
    "rollout.percent": free(rollout=[{"percent": 25}, {"percent": 100}]),
    "rollout.manual": free(rollout=[{"rows": 2}, {"percent": 100, "manual": True}]),
    **{
        f"rollout.require.{name}": free(rollout=[{"rows": 2, "require": {name: 0.5}}, {"percent": 100}])
        for name in ("answered", "valid", "max_usd_per_row")
    },
    "retry.max_attempts": free(retry={"max_attempts": 20}),
    "retry.on": free(retry={"on": ["blocked", "empty"]}),
    **{f"retry.on.Change.{name}": free(**on_truncated(**{name: value})) for name, value in CHANGES.items()},
    **{f"limits.{name}": free(limits=LIMITS) for name in LIMITS},
    "backend": [
        Case(0, {"backend": "other"}, project={"backends": {"other": GATEWAY}}),
        Case(4, {"backend": "other"}, project={"backends": {"other": GOOGLE}}),
    ],
    "submit": [Case(0, {"submit": "inline"}), Case(0, {"submit": "auto"})],
    "preview": free(preview="public"),
    "ignore.rule": free(ignore=[{"rule": "BF406", "reason": "known"}]),
    "ignore.reason": free(ignore=[{"rule": "BF504", "reason": "known for long"}]),
    "tolerate_failed": free(tolerate_failed=0.5),
}  # fmt: skip


def backend(sends: int, base: Mapping[str, Any] | None = None, **change: Any) -> Case:
    return Case(sends, project={"backends": {"local": {**(base or BACKENDS["local"]), **change}}})


PACE: dict[str, Any] = {
    "settle": "1h", "poll": "1m", "timeout": 5, "cleanup": False, "max_rows_per_job": 1, "max_bytes_per_job": "1k",
    "max_jobs_in_flight": 1, "max_enqueued_tokens": "1k",
}  # fmt: skip

EMULATED: dict[str, Any] = {
    "project": "acme-support", "location": "global", "staging": "gs://acme-batch/staging", "via": "bigquery",
    "dataset": "batches", "resume": "auto",
}  # fmt: skip
PLACES: dict[str, Any] = {
    **EMULATED, "credentials": "sa.json", "api_key_env": "MY_KEY", "labels": {"team": "support"},
    "api_version": "v1",
}  # fmt: skip

RAW: dict[str, Any] = {"via": "storage", "raw_results": "bucket"}

PRICES = "prices: {gemini-3.5-flash-lite: {batch_input: 9, batch_output: 9}}"

PROJECT_CASES: dict[str, list[Case]] = {
    "project": [Case(0, project={"project": "renamed"})],
    "specs": [Case(0, project={"specs": ["specs/*.yaml"]})],
    "ledger": [Case(4, project={"ledger": "elsewhere"})],
    **{f"backends.EmulatorBackend.{name}": [backend(0, **PACE)] for name in PACE},
    **{f"backends.GeminiBackend.{name}": [backend(0, GATEWAY, **PACE)] for name in PACE},
    "backends.EmulatorBackend.url": [backend(0, url="http://127.0.0.1:9")],
    "backends.EmulatorBackend.job_seconds": [backend(0, job_seconds=60)],
    "backends.EmulatorBackend.faults": [backend(0, faults="faults.yaml")],
    **{f"backends.VertexBackend.{name}": [backend(0, VERTEX_HERE, **PACE)] for name in PACE},
    **{f"backends.EmulatorBackend.{name}": [backend(0, cloud="vertex", **EMULATED)] for name in EMULATED},
    "backends.EmulatorBackend.raw_results": [backend(0, cloud="vertex", **EMULATED | RAW)],
    "backends.VertexBackend.raw_results": [backend(0, VERTEX_HERE, **PLACES | RAW)],
    "backends.EmulatorBackend.cloud": [backend(0, cloud="vertex")],
    **{f"backends.VertexBackend.{name}": [backend(0, VERTEX_HERE, **PLACES)] for name in PLACES},
    "backends.VertexBackend.base_url": [backend(0, VERTEX, base_url="http://localhost:1"), backend(4, VERTEX)],
    "backends.VertexBackend.realm": [backend(4, VERTEX_HERE, realm="google"), backend(0, VERTEX, realm="emulator")],
    "backends.VertexBackend.impersonate": [backend(0, VERTEX_HERE, impersonate="runner@acme.iam.gserviceaccount.com")],
    "backends.GeminiBackend.base_url": [backend(0, GOOGLE, base_url="http://localhost:1"), backend(4, GOOGLE)],
    "backends.GeminiBackend.api_key_env": [backend(0, GATEWAY, api_key_env="MY_KEY")],
    "backends.GeminiBackend.api_version": [backend(0, GATEWAY, api_version="v1beta")],
    "backends.GeminiBackend.realm": [backend(4, GATEWAY, realm="google"), backend(0, GOOGLE, realm="emulator")],
    "databases.url": [
        Case(0, on="shop", project={"databases": {"shop": DATABASES["copy"]}}),
        Case(1, on="shop", project={"databases": {"shop": DATABASES["edited"]}}),
    ],
    "defaults.backend": [
        Case(0, project={"backends": {"other": GATEWAY}, "defaults": {"backend": "other"}}),
        Case(4, project={"backends": {"other": GOOGLE}, "defaults": {"backend": "other"}}),
    ],
    "defaults.model": [
        Case(0, project={"defaults": {"model": "gemini-3.5-flash"}}),
        Case(0, {"model": None}, project={"defaults": {"model": "gemini-3.5-flash-lite"}}),
        Case(4, {"model": None}, project={"defaults": {"model": "gemini-3.5-flash"}}),
    ],
    **{f"limits.{name}": [Case(0, project={"limits": LIMITS})] for name in LIMITS},
    **{f"defaults.limits.{name}": [Case(0, project={"defaults": {"limits": LIMITS}})] for name in LIMITS},
    "defaults.retry.max_attempts": [Case(0, project={"defaults": {"retry": {"max_attempts": 1}}})],
    **{
        f"defaults.retry.on.Change.{name}": [Case(0, project={"defaults": on_truncated(**{name: value})})]
        for name, value in CHANGES.items()
    },
    "defaults.retry.on": [Case(0, project={"defaults": {"retry": {"on": ["empty"]}}})],
    **{f"approval.{name}": [Case(0, project={"approval": {name: 5}})] for name in ("valid", "percent", "rows")},
    "allow_hosts": [Case(0, project={"allow_hosts": ["files.example.com"]})],
    "allow_paths": [Case(0, project={"allow_paths": ["/tmp"]})],
    "allow_imports": [Case(0, project={"allow_imports": ["acme.schemas"]})],
    **{
        f"google_cloud.{name}": [Case(0, project={"google_cloud": {name: "other"}})]
        for name in ("project", "credentials", "impersonate")
    },
    "reuse_from": [Case(0, project={"reuse_from": ["default"]})],
    "removed.spec": [Case(0, project={"removed": [{"spec": "gone", "reason": "replaced"}]})],
    "removed.reason": [Case(0, project={"removed": [{"spec": "gone", "reason": "not wanted"}]})],
    "prices": [Case(0, project={"prices": "prices.yaml"}, files={"prices.yaml": PRICES})],
}  # fmt: skip
IN_ENVIRONMENTS = ("ledger", "backends", "databases", "defaults", "limits", "google_cloud", "reuse_from")
PROJECT_CASES |= {
    f"environments.{path}": [
        Case(c.sends, c.change, c.on, {"environments": {"prod": c.project}}, c.files) for c in cases
    ]
    for path, cases in PROJECT_CASES.items()
    if path.partition(".")[0] in IN_ENVIRONMENTS
}

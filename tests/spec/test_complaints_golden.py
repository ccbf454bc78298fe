"""What a user reads when a file is wrong: every message in full, in complaints.golden.

`python tests/spec/test_complaints_golden.py` writes the file again; read the difference before committing it.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from spec_kit import PROJECT, Folder

from batchform.errors import InvalidProject

GOLDEN = Path(__file__).parent / "complaints.golden"

BOMB = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{chr(98 + i)}: &{chr(98 + i)} [{','.join(['*' + chr(97 + i)] * 9)}]\n" for i in range(9)
)
ENV = {"N": "s3cret", "M": "4.5", "BACKEND": "s3cret"}

# label → lines added to the small spec, with the fields they replace
SPECS: dict[str, str] = {
    "unknown field": "modle: x",
    "unknown field deeper": "source: {type: csv, pth: a, path: data/x.csv}",
    "unknown type": "source: {type: cvs, path: a}",
    "no type": "source: {path: a}",
    "missing field": "destination: {type: jsonl}",
    "field without value": "destination:",
    "number for a template": "prompt: {user: 5}",
    "inline text misspelt": "prompt: {user: {txt: a}}",
    "unknown role": "prompt: {messages: [{role: assistant, content: triage.j2}]}",
    "last turn is the model's": "prompt: {messages: [{role: model, content: triage.j2}]}",
    "nothing asked": "prompt: {system: triage.j2}",
    "number for a key": "idempotency: {key: 5}",
    "number in a key": "idempotency: {key: [id, 1]}",
    "unquoted Jinja": "idempotency: {key: {{ id }}}",
    "key without column": "idempotency: {key: id}",
    "key names nothing": "idempotency: {key: []}",
    "key names a column twice": "idempotency: {key: [id, id]}",
    "bad name": "name: Triage Tickets",
    "boolean for a number": "retry: {max_attempts: true, on: [intern]}",
    "too many attempts": "retry: {max_attempts: 30}",
    "text for a list": "tags: nightly",
    "duplicate tag": "tags: [nightly, nightly]",
    "YAML boolean": "description: no",
    "duplicate key": "model: a\nmodel: b",
    "NaN": "tolerate_failed: .nan",
    "unknown backend": "backend: gemni",
    "environment in a spec": "description: ${ENV:HOME}",
    "bad model": "model: ../x?y",
    "empty text": "source: {type: csv, path: data/x.csv, where: ' '}",
    "template not found": "prompt: {user: triag.j2, system: templates/triage.j2}",
    "template outside": "prompt: {user: ../x.j2, system: /etc/passwd}",
    "template syntax": "prompt:\n  user:\n    text: |\n      one\n      {% if x %}",
    "unknown filter": "prompt: {user: {text: '{{ x | tojsn }}'}}",
    "generation config": (
        "generation_config:\n  temprature: 1\n  top_k: many\n  topK: 3\n"
        "  thinking_config: {thinking_level: low, thinking_budget: 5}\n"
        "  candidate_count: 2\n  stop_sequences: x\n  response_modalities: [text, smell]\n  temperature: 3"
    ),
    "safety settings": "safety_settings: [{category: hate_speech}, {categry: x, threshold: none}]",
    "raw request": "request: {model: x, a: null, generation_config: {candidate_count: 3, topK: 1, top_k: 2}}",
    "two schemas": (
        "generation_config: {response_schema: {type: object}}\n"
        "request: {generationConfig: {responseSchema: {type: OBJECT}}}"
    ),
    "schema of another dialect": (
        "generation_config:\n  response_schema:\n    type: OBJECT\n    properties:\n"
        "      a: {type: string, pattern: x, nullable: true}\n    required: [b]"
    ),
    "schema not valid": "generation_config: {response_schema: {type: object, properties: [a]}}",
    "schema not found": "generation_config: {response_schema: schemas/triage.json}",
    "schema outside": "generation_config: {response_schema: ../triage.json}",
    "schema elsewhere": 'generation_config: {response_schema: {$ref: "https://example.com/x"}}',
    "schema without end": (
        'generation_config:\n  response_schema:\n    $ref: "#/$defs/node"\n    $defs:\n      node:\n'
        '        type: object\n        required: [next]\n        properties: {next: {$ref: "#/$defs/node"}}'
    ),
    "schema for text": "output: {format: text, schema: {type: object}}",
    "schema and MIME type": "generation_config: {response_mime_type: text/plain, response_schema: {type: object}}",
    "destination is source": "destination: {type: csv, path: data/tickets.csv}",
    "destination folder is source": (
        "source: {type: jsonl, path: 'data/**/*.jsonl'}\ndestination: {type: jsonl, path: data/out/}"
    ),
    "destination in ledger": "destination: {type: csv, path: .batchform/x.csv}",
    "paths outside": "source: {type: csv, path: ../x/*.csv}\ndestination: {type: csv, path: /etc/x.csv}",
    "remote path": "source: {type: csv, path: s3://bucket/x.csv}",
    "no bucket": "source: {type: csv, path: 'gs://My{}Bucket/x.csv'}\ndestination: {type: csv, path: gs://bucket/a//b}",
    "answers become rows in a bucket": "source: {type: csv, path: gs://bucket/**/*.csv}\n"
    "destination: {type: csv, path: gs://bucket/out/}",
    "database in a bucket": "source: {type: sqlite, path: gs://bucket/a.db, table: t}",
    "query and where of a database": "source: {type: sqlite, path: a.db, query: SELECT 1, where: b}",
    "neither table nor query": "source: {type: duckdb, path: a.db}",
    "database that is not declared": (
        "source: {type: sql, database: shop, table: t}\ndestination: {type: sql, database: shp, table: answers}"
    ),
    "SQL source without table": "source: {type: sql, database: shop}",
    "SQL destination is source": (
        "source: {type: sql, database: shop, table: tickets}\ndestination: {type: sql, database: shop, table: Tickets}"
    ),
    "encoding of parquet": "source: {type: parquet, path: a.parquet, encoding: utf-8}",
    "unknown encoding": "source: {type: csv, path: a.csv, encoding: utf-88}",
    "unknown output column": "destination: {type: csv, path: a.csv, columns: {x: foo.bar}}",
}

# label → the whole of a spec's file
FILES: dict[str, str | bytes] = {
    "tab": "name: a\n\tsource: b",
    "flow not closed": "name: [a\nsource: b",
    "reserved character": "name: @x",
    "two documents": "name: x\n---\nname: y",
    "empty file": "# nothing\n",
    "list at the top": "- a",
    "NUL": "name: a\ndescription: \0x",
    "escape sequence": "name: a\ndescription: \x1b[31mred",
    "Latin-1": "name: a\ndescription: caf\u00e9".encode("latin-1"),
    "byte order mark": b"\xef\xbb\xbfname: a",
    "UTF-16": "name: a".encode("utf-16"),
    "nested too deeply": "a: " + "[" * 5000,
    "alias bomb": BOMB,
    "alias of itself": "a: &a [*a]",
    "tag": "name: !!python/object/apply:os.system [ls]",
    "too large": b"#" * 1_000_001,
}

# label → the whole of batchform.yaml
PROJECTS: dict[str, str] = {
    "other version": "version: 2\nproject: x",
    "backend settings": PROJECT + "environments: {x: {backends: {g: {type: gemini, settle: abc, api_key: s3cret}}}}",
    "variable not set": PROJECT + "ledger: ${ENV:NOT_SET}",
    "reference malformed": PROJECT + "ledger: '${ENV: N}'",
    "reference in a name": PROJECT + "environments: {'${ENV:N}': {}}",
    "values from the environment": PROJECT
    + "limits: {max_rows: '${ENV:N}', max_usd: '${ENV:M}', changed_floor: '${ENV:N}'}",
    "default from the environment": PROJECT.replace("backend: local", "backend: '${ENV:BACKEND}'"),
    "URL in the file": PROJECT + "databases: {shop: {url: 'sqlite:///shop.db'}}",
    "password in the file": PROJECT + "databases: {shop: {url: 'postgresql://app:hunter2@db/shop'}}",
    "password in another environment": PROJECT
    + "environments: {prod: {databases: {shop: {url: 'postgresql://app:hunter2@${ENV:N}/shop'}}}}",
    "secret in a query": PROJECT + "databases: {shop: {url: 'postgresql://${ENV:N}/shop?password=hunter2'}}",
    "password in a field that is not there": PROJECT
    + "databases: {shop: {ulr: 'postgresql://app:hunter2@db/shop', url: 5}}",
    "no model": "version: 1\nproject: x",
    "unknown default backend": PROJECT.replace("backend: local", "backend: lokal"),
    "specs not there": PROJECT + "specs: [foo/, 'sp*/*.yml', ../x, specs/, specs/]",
    "no specs": PROJECT + "specs: []",
    "ledger outside": PROJECT + "ledger: ../elsewhere",
}


def _spoil_spec(text: str) -> Callable[[Folder], object]:
    replaced = " ".join(line.partition(":")[0] for line in text.splitlines() if not line.startswith(" "))
    return lambda folder: folder.spec(text, without=replaced)


def _spoil_everything(folder: Folder) -> None:
    folder.write("batchform.yaml", PROJECT.replace("project:", "projct:"))
    folder.write("templates/triage.j2", "Ticket: {{ subject")
    folder.spec("tag: a\ngeneration_config: {top_q: 1}")
    folder.write("specs/a.yaml", "name: [")


CASES: dict[str, Callable[[Folder], object]] = {
    **{label: _spoil_spec(text) for label, text in SPECS.items()},
    **{label: (lambda f, t=text: f.write("specs/triage.yaml", t)) for label, text in FILES.items()},
    **{label: (lambda f, t=text: f.write("batchform.yaml", t)) for label, text in PROJECTS.items()},
    "errors in all files": _spoil_everything,
}


def _golden() -> dict[str, str]:
    sections = GOLDEN.read_text(encoding="utf-8").split("\n=== ")[1:]
    return {label: text.rstrip("\n") for label, _, text in (s.partition("\n") for s in sections)}


@pytest.mark.parametrize("label", CASES)
def test_complaint(folder: Folder, label: str) -> None:
    CASES[label](folder)
    said = folder.complaint(env=ENV)
    assert said == _golden()[label]
    assert "s3cret" not in said
    assert "Traceback" not in said
    assert "pydantic" not in said


def test_golden_has_no_other_sections() -> None:
    assert list(_golden()) == list(CASES)


def _write() -> None:
    parts = ["What a user reads. Written by test_complaints_golden.py."]
    for label, spoil in CASES.items():
        with tempfile.TemporaryDirectory() as place:
            folder = Folder(Path(place))
            spoil(folder)
            try:
                folder.load(env=ENV)
            except InvalidProject as error:
                parts.append(f"=== {label}\n{error.render()}")
            else:
                sys.exit(f"{label}: nothing was wrong")
    GOLDEN.write_text("\n".join(parts) + "\n", encoding="utf-8")


if __name__ == "__main__":
    _write()

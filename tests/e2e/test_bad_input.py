"""Whatever can be written wrongly, through `validate`, `plan` and `apply`: one clear error, and nothing touched."""

from __future__ import annotations

import json
import shutil
from typing import Any

import pytest
import yaml
from bad_input_kit import Break, both, check, refused, spec, spec_text, template, write
from tests_e2e_kit import SPEC, Workspace

TEXT = yaml.safe_dump(SPEC)
LABELS = {"type": "object", "properties": {"label": {"type": "string"}}, "required": ["label"]}


def schema(text: str | dict[str, Any]) -> Break:
    def write_both(w: Workspace) -> None:
        w.write("schemas/s.json", text if isinstance(text, str) else json.dumps(text))
        w.spec(generation_config={"response_schema": "s.json"})

    return write_both


def link(name: str, target: str) -> Break:
    def make(w: Workspace) -> None:
        (w.root / name).unlink(missing_ok=True)
        (w.root / name).symlink_to(target)

    return make


INVALID: dict[str, tuple[Break, tuple[str, ...]]] = {
    "template-syntax": (template("one\n{% if title %}\n{{ body }"), ("templates/triage.j2:3", "unexpected '}'")),
    "template-unclosed": (template("one\n{% if title %}\n{{ body }}"), ("templates/triage.j2:", "endif")),
    "template-tag": (template("\n{% nope %}"), ("templates/triage.j2:2", "nope")),
    "template-filter": (template("\n\n{{ title|nope }}"), ("templates/triage.j2:3", "no filter `nope`")),
    "template-missing": (spec(prompt={"user": "nope.j2"}), ("specs/triage.yaml:13:9", "nope.j2", "triage.j2")),
    "template-above": (
        both(write("secret.j2", "x"), spec(prompt={"user": "../secret.j2"})),
        ("specs/triage.yaml:13:9", "../secret.j2", "never leave"),
    ),
    "template-absolute": (spec(prompt={"user": "/etc/passwd"}), ("specs/triage.yaml:13:9", "/etc/passwd")),
    "template-link": (
        both(link("templates/link.j2", "/etc/passwd"), spec(prompt={"user": "link.j2"})),
        ("specs/triage.yaml:13:9", "leaves templates/"),
    ),
    "include-above": (template("x\n{% include '../data/tickets.csv' %}"), ("templates/triage.j2:2", "never leave")),
    "import-above": (template("{% from '/etc/passwd' import x %}"), ("templates/triage.j2:1", "/etc/passwd")),
    "include-computed": (template("{% include title %}"), ("templates/triage.j2:1", "written out")),
    "include-loop": (template("{{ title }}{% include 'triage.j2' %}"), ("templates/triage.j2:1", "includes itself")),
    "template-not-utf8": (template(b"one\ncaf\xe9 {{ title }}"), ("templates/triage.j2:2:4", "0xe9", "UTF-8")),
    "template-nul": (template(b"a\0{{ title }}"), ("templates/triage.j2:1:2", "NUL")),
    "template-bom": (template(b"\xef\xbb\xbf{{ title }}"), ("templates/triage.j2:1:1", "byte order mark")),
    "schema-not-json": (schema('{"type":\n "properties": }'), ("schemas/s.json:2:", "JSON")),
    "schema-invalid": (schema({"type": "objekt"}), ("schemas/s.json:1:", "objekt", "$.type")),
    "schema-unsupported": (schema({**LABELS, "not": {}}), ("schemas/s.json:1:", "does not support `not`")),
    "schema-elsewhere": (schema({"$ref": "http://x/y"}), ("schemas/s.json:1:", "http://x/y")),
    "schema-unknown-name": (schema({**LABELS, "required": ["lable"]}), ("schemas/s.json:1:", "Did you mean `label`")),
    "schema-list": (schema("[1]"), ("schemas/s.json:1:1", "one JSON object")),
    "schema-nan": (schema('{"minimum": NaN}'), ("schemas/s.json", "NaN")),
    "schema-twice": (schema('{"type": "object", "type": "string"}'), ("schemas/s.json", "`type` is given twice")),
    "schema-deep": (schema('{"items":' * 3000 + "{}" + "}" * 3000), ("schemas/s.json", "deeply")),
    "schema-missing": (
        spec(generation_config={"response_schema": "nope.json"}), ("specs/triage.yaml:5:20", "no schema `nope.json`"),
    ),
    "schema-above": (
        spec(generation_config={"response_schema": "../batchform.yaml"}), ("specs/triage.yaml:5:20", "schemas/"),
    ),
    "output-schema": (spec(output={"schema": {"type": "objekt"}}), ("specs/triage.yaml:", "objekt")),
    "unknown-field": (spec_text(TEXT + "promt: x\n"), ("specs/triage.yaml:17:1", "`promt`", "mean `prompt`")),
    "unknown-inner-field": (
        spec_text(TEXT.replace("  path: data", "  pth: data")),
        ("specs/triage.yaml:15:3", "mean `path`", "`path` is missing"),
    ),
    "unknown-config-field": (spec(generation_config={"temprature": 1}), ("specs/triage.yaml:5:3", "temperature")),
    "duplicate-key": (spec_text(TEXT + "name: again\n"), ("specs/triage.yaml:17:1", "given twice", "line 11")),
    "tab": (spec_text(TEXT.replace("  key:", "\tkey:")), ("specs/triage.yaml:8:1", "a tab", "spaces")),
    "wrong-types": (
        spec_text(TEXT.replace("temperature: 0", "temperature: hot") + "tags: 5\nlimits: {max_usd: many}\n"),
        ("specs/triage.yaml:6:16", "`temperature` must be a number", "specs/triage.yaml:17:7", "`tags` must be a list",
         "specs/triage.yaml:18:19", "`limits.max_usd` must be a number", "3 errors"),
    ),
    "not-a-mapping": (spec_text("- 1\n- 2\n"), ("specs/triage.yaml:1:1", "mapping")),
    "empty-spec": (spec_text(""), ("specs/triage.yaml:1:1", "empty")),
    "two-documents": (spec_text(TEXT + "---\n" + TEXT), ("specs/triage.yaml:17:1", "one spec per file")),
    "python-tag": (
        spec_text(TEXT + "description: !!python/object/apply:os.system [ls]\n"), ("specs/triage.yaml:17:14", "tag"),
    ),
    "deep-yaml": (spec_text(TEXT + "description: " + "[" * 9000 + "]" * 9000), ("specs/triage.yaml", "deeply")),
    "spec-not-utf8": (spec_text(TEXT.encode() + b"# \xff\n"), ("specs/triage.yaml:17:3", "0xff", "UTF-8")),
    "spec-nul": (spec_text(TEXT.encode() + b"# \0\n"), ("specs/triage.yaml:17:3", "NUL")),
    "spec-bom": (spec_text(b"\xef\xbb\xbf" + TEXT.encode()), ("specs/triage.yaml:1:1", "byte order mark")),
    "spec-utf16": (spec_text(TEXT.encode("utf-16")), ("specs/triage.yaml:1:1", "UTF-16")),
    "no-specs": (lambda w: (w.root / "specs/triage.yaml").unlink(), ("batchform.yaml", "`specs/` has no spec files")),
    "no-specs-folder": (lambda w: shutil.rmtree(w.root / "specs"), ("batchform.yaml", "no file or folder `specs/`")),
    "project-yaml": (write("batchform.yaml", "version: 1\nproject: [x\n"), ("batchform.yaml:3:1", "bad YAML")),
    "project-version": (lambda w: w.project(version=2), ("batchform.yaml:9:10", "`version` cannot be `2`")),
    "variable-not-set": (
        lambda w: w.project(ledger="${ENV:NOT_SET}"), ("batchform.yaml:8:9", "NOT_SET is not set"),
    ),
    "no-such-backend": (spec(backend="vertex"), ("specs/triage.yaml:1:10", "no backend `vertex`", "local")),
    "source-outside": (
        spec(source={"type": "csv", "path": "/etc/passwd"}), ("specs/triage.yaml:15:9", "outside", "allow_paths"),
    ),
    "source-remote": (spec(source={"type": "csv", "path": "s3://b/x"}), ("specs/triage.yaml:15:9", "neither a local")),
    "unknown-encoding": (spec(source={**SPEC["source"], "encoding": "utf-9"}), ("specs/triage.yaml:15:13", "utf-9")),
    "unknown-model": (spec(model="gemini-3.5-flesh"), ("specs/triage.yaml:10:8", "not known", "gemini-3.5-flash")),
    "model-without-batch": (spec(model="gemini-4-argon"), ("specs/triage.yaml:10:8", "takes no batches")),
    "model-that-embeds": (spec(model="gemini-embedding-001"), ("specs/triage.yaml:10:8", "embeddings")),
    "model-shut-down": (
        both(lambda w: w.project(backends={"local": {"type": "gemini"}}), spec(model="gemini-2.0-flash")),
        ("specs/triage.yaml:10:8", "was shut down on 2026-06-01"),
    ),
    "not-a-model": (spec(model="gpt 4!"), ("specs/triage.yaml:10:8", "not a model id")),
    "destination-outside": (
        spec(destination={"type": "jsonl", "path": "/etc/x.jsonl"}), ("specs/triage.yaml:2:9", "outside the project"),
    ),
    "destination-in-ledger": (
        spec(destination={"type": "jsonl", "path": ".batchform/x"}), ("specs/triage.yaml:2:9", "inside the ledger"),
    ),
    "destination-is-source": (
        spec(destination={"type": "csv", "path": "data/tickets.csv"}),
        ("specs/triage.yaml:2:9", "files that the source reads"),
    ),
    "destination-column": (
        spec(destination={**SPEC["destination"], "columns": {"a": "nope"}}), ("specs/triage.yaml:3:", "`nope`"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", INVALID)
def test_invalid_files(project: Workspace, name: str) -> None:
    breaking, says = INVALID[name]
    breaking(project)
    check(project, *says, valid=False)


def test_complaints_of_all_files_come_together(project: Workspace) -> None:
    project.write("specs/other.yaml", TEXT.replace("triage", "other").replace("idempotency", "idempotencyy"))
    project.write("templates/triage.j2", "{% if %}")
    check(
        project, "specs/other.yaml:1:1: error: `idempotency` is missing", "specs/other.yaml:7:1",
        "templates/triage.j2:1", "4 errors in the project's files", valid=False,
    )  # fmt: skip


def test_no_project(project: Workspace) -> None:
    (project.root / "batchform.yaml").unlink()
    check(project, "no batchform.yaml in", "-C DIR", "batchform init", valid=False, code=64)


def test_names_that_do_not_exist(project: Workspace) -> None:
    before = project.snapshot()
    refused(project.run("plan", "--env", "prod"), "no environment 'prod'", code=64)
    refused(project.run("apply", "--yes", "--select", "triag"), "triag", "triage", code=64)
    refused(project.run("plan", "--allow", "max_row", "--reason", "known"), "Did you mean max_rows", code=64)
    assert project.snapshot() == before

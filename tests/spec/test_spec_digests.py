"""Which digest moves when which part of a spec is changed, and which changes move none."""

from __future__ import annotations

import pytest
from spec_kit import SPEC, Folder

from batchform.spec.resolved import ResolvedSpec

FULL = """\
name: triage
description: one
tags: [a]
model: gemini-x
source: {type: csv, path: data/tickets.csv, where: a = 1}
prompt:
  system: {text: Be brief.}
  messages:
    - {role: user, content: {text: hello}}
    - {role: model, content: {text: hi}}
  user: triage.j2
generation_config: {temperature: 1, response_schema: {type: object, properties: {a: {type: string}}}}
safety_settings: [{category: harassment, threshold: block_none}]
request: {labels: {a: b}}
output: {schema: {type: object}}
destination: {type: jsonl, path: results/triage.jsonl}
idempotency: {key: [id]}
retry: {max_attempts: 2, on: [internal, missing]}
limits: {max_usd: 1}
"""
DIGESTS = ("prompt_digest", "config_digest", "schema_digest", "parse_digest", "spec_digest")


def loaded(folder: Folder, text: str) -> ResolvedSpec:
    folder.write("specs/triage.yaml", text)
    return folder.load().specs[0]


def moved(folder: Folder, before: str, after: str) -> set[str]:
    old, new = loaded(folder, before), loaded(folder, after)
    return {name.removesuffix("_digest") for name in DIGESTS if getattr(old, name) != getattr(new, name)}


@pytest.mark.parametrize(
    ("old", "new", "digests"),
    [
        ("description: one", "description: two  # more", set()),
        ("tags: [a]", "tags: [b, c]", set()),
        ("model: gemini-x", "model: models/gemini-x", set()),
        ("model: gemini-x", "preview: public\nmodel: gemini-x", set()),
        ("on: [internal, missing]", "on: [missing, internal]", set()),
        ("{temperature: 1, ", "{topP: null, ", {"config", "spec"}),
        ("{temperature: 1, ", "{topP: null, temperature: 1.0, ", set()),
        ("{type: object, properties", "{$comment: x, type: object, properties", set()),
        ("{type: jsonl, path", "{flatten: false, type: jsonl, path", set()),
        ("idempotency: {key: [id]}", "idempotency: {key: [id], on_row_change: rerun, duplicates: error}", set()),
        ("model: gemini-x", "model: gemini-y", {"spec"}),
        ("Be brief.", "Be very brief.", {"prompt", "spec"}),
        ("text: hello", "text: hallo", {"prompt", "spec"}),
        ("user: triage.j2", "user: {text: 'Ticket: {{ body }}'}", {"prompt", "spec"}),
        ("temperature: 1", "temperature: 0.5", {"config", "spec"}),
        ("threshold: block_none", "threshold: 'off'", {"config", "spec"}),
        ("labels: {a: b}", "labels: {a: c}", {"config", "spec"}),
        ("{a: {type: string}}", "{a: {type: number}}", {"schema", "spec"}),
        ("output: {schema: {type: object}}", "output: {schema: {minProperties: 1}}", {"parse", "spec"}),
        ("output: {schema: {type: object}}", "", {"parse", "spec"}),
        ("where: a = 1", "where: a = 2", {"spec"}),
        ("results/triage.jsonl", "results/other.jsonl", {"spec"}),
        ("key: [id]", "key: [id, a]", {"spec"}),
        ("max_attempts: 2", "max_attempts: 3", {"spec"}),
        ("max_usd: 1", "max_usd: 2", {"spec"}),
        ("model: gemini-x", "model: gemini-x\nbackend: gemini", {"spec"}),
    ],
)
def test_what_moves(folder: Folder, old: str, new: str, digests: set[str]) -> None:
    assert old in FULL
    assert moved(folder, FULL, FULL.replace(old, new, 1)) == digests


def test_order_of_yaml_moves_nothing(folder: Folder) -> None:
    blocks, block = [], ""
    for line in FULL.splitlines(keepends=True):
        if not line.startswith(" ") and block:
            blocks.append(block)
            block = ""
        block += line
    assert moved(folder, FULL, "".join(reversed([*blocks, block]))) == set()


def test_user_and_a_single_message_are_one_prompt(folder: Folder) -> None:
    as_message = SPEC.replace("{user: triage.j2}", "{messages: [{role: user, content: triage.j2}]}")
    assert loaded(folder, SPEC).prompt_digest == loaded(folder, as_message).prompt_digest


def test_an_included_template_moves_the_prompt(folder: Folder) -> None:
    folder.write("templates/triage.j2", "{% include 'rules.j2' %}{{ subject }}")
    folder.write("templates/rules.j2", "rules")
    before = loaded(folder, SPEC)
    folder.write("templates/rules.j2", "other rules")
    assert loaded(folder, SPEC).prompt_digest != before.prompt_digest


def test_turns_end_with_user(folder: Folder) -> None:
    spec = loaded(folder, FULL)
    assert [t.role for t in spec.turns] == ["user", "model", "user"]
    assert spec.system is not None
    assert spec.system.render({}) == "Be brief."


def test_key_expression(folder: Folder) -> None:
    spec = loaded(folder, SPEC.replace("[id]", '"{{ tenant }}/{{ id }}"'))
    assert spec.key_columns == ()
    assert spec.key_template is not None
    assert spec.key_template.columns == {"tenant", "id"}
    assert spec.key_template.render({"tenant": "t", "id": 7}) == "t/7"

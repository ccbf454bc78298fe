"""Column expressions: what parses, how it is typed, what is refused in which words; columns and digest of a spec."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from batchform.errors import DestinationError, InvalidProject
from batchform.spec.delivery import check_columns, destination_digest, output_columns, reads_row
from batchform.spec.expressions import (
    Expression,
    ExpressionError,
    Field,
    InResponse,
    Key,
    KeyColumn,
    Rendered,
    RowColumn,
    parse,
    split,
)
from batchform.spec.load import load_project
from batchform.spec.resolved import ResolvedSpec

SCHEMA: dict[str, Any] = {
    "type": "object",
    "$defs": {
        "person": {"type": "object", "properties": {"name": {"type": "string"}, "boss": {"$ref": "#/$defs/person"}}}
    },
    "properties": {
        "category": {"type": "string", "enum": ["a", "b"]},
        "score": {"type": "number"},
        "count": {"type": ["integer", "null"]},
        "urgent": {"anyOf": [{"type": "boolean"}, {"type": "null"}]},
        "items": {"type": "array", "items": {"type": "object", "properties": {"name": {"type": "string"}}}},
        "who": {"$ref": "#/$defs/person"},
        "extra": {"type": "object", "additionalProperties": {"type": "integer"}},
        "odd name": {"type": "string"},
    },
}
Make = Callable[..., ResolvedSpec]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """A resolved spec; `output` is validated against and never sent, so any JSON Schema goes."""

    def made(
        destination: dict[str, Any] | None = None,
        *,
        key: Any = ("id",),
        output: dict[str, Any] | None = None,
        source: str = "data/t.csv",
    ) -> ResolvedSpec:
        (tmp_path / "specs").mkdir(exist_ok=True)
        (tmp_path / "data").mkdir(exist_ok=True)
        (tmp_path / "data" / "t.csv").write_text("id\n")
        (tmp_path / "batchform.yaml").write_text("version: 1\nproject: p\nbackends: {local: {type: emulator}}\n")
        to = {"type": "jsonl", "path": "out.jsonl", **(destination or {})}
        spec = {
            "name": "triage",
            "source": {"type": "csv", "path": source},
            "prompt": {"user": {"text": "x"}},
            "model": "gemini-3.5-flash-lite",
            "destination": {name: value for name, value in to.items() if value is not None},
            "idempotency": {"key": list(key) if isinstance(key, tuple) else key},
            "backend": "local",
            "output": output if output is not None else {"format": "json", "schema": SCHEMA},
        }
        (tmp_path / "specs" / "triage.yaml").write_text(json.dumps(spec))
        return load_project(tmp_path / "batchform.yaml", environment=None, env={}).specs[0]

    return made


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("key", Key()),
        ("id", KeyColumn("id")),
        ("key.id", KeyColumn("id")),
        ("row.id", KeyColumn("id")),
        ("Odd Key", KeyColumn("Odd Key")),
        ("row.subject", RowColumn("subject")),
        ('row["a b"]', RowColumn("a b")),
        (" text ", Field("text")),
        ("response", Field("response")),
        ("cost_usd", Field("cost_usd")),
        ("usage.candidates_token_count", Field("output_tokens")),
        ("usage.total_token_count", Field("total_tokens")),
        ("response.category", InResponse(("category",), "VARCHAR")),
        ("response.score", InResponse(("score",), "DOUBLE")),
        ("response.count", InResponse(("count",), "BIGINT")),
        ("response.urgent", InResponse(("urgent",), "BOOLEAN")),
        ("response.items", InResponse(("items",), "JSON")),
        ("response.items[0]", InResponse(("items", 0), "JSON")),
        ("response.items[0].name", InResponse(("items", 0, "name"), "VARCHAR")),
        ("response.who.boss.boss.name", InResponse(("who", "boss", "boss", "name"), "VARCHAR")),
        ("response.extra.anything", InResponse(("extra", "anything"), "BIGINT")),
        ('response["odd name"]', InResponse(("odd name",), "VARCHAR")),
        ("response['odd name']", InResponse(("odd name",), "VARCHAR")),
        ("{{ key }}-{{ response.score }}", Rendered("{{ key }}-{{ response.score }}", frozenset({"key", "response"}))),
        ("{{ range(3) | join }}", Rendered("{{ range(3) | join }}", frozenset())),
    ],
)
def test_what_parses(make: Make, text: str, expected: Expression) -> None:
    assert parse(text, make(key=("id", "Odd Key"))) == expected


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("respons.category", "nothing is called `respons` (did you mean `response`?); a column of the source is `row."),
        ("subject", "nothing is called `subject`; a column of the source is `row.subject`"),
        ("response.categry", "`response` has no `categry` in the output schema (did you mean `category`?); it has cat"),
        ("response.items.name", "`response.items` is an array in the output schema: it has no `name`"),
        ("response.who[0]", "`response.who` is an object in the output schema, not an array"),
        ("response.items[0].nam", "`response.items[0]` has no `nam`"),
        ("response.category.x", "`response.category` is a string in the output schema: it has no `x`"),
        ("usage.total_tokens", "`usage` has no `total_tokens`"),
        ("usage.promptTokenCount", "(did you mean `prompt_token_count`?)"),
        ("usage", "after `usage.` comes one of prompt_token_count"),
        ("row", "after `row.` comes a column's name"),
        ("row.a.b", "the rest needs Jinja in {{ }}"),
        ("row[0]", "after `row.` comes a column's name"),
        ("key.nope", "`key` has no `nope`; there are id"),
        ("text.x", "`text` has no parts"),
        ("response.", "cannot read '.' after 'response'"),
        ("response.items[-1]", "cannot read '[-1]' after 'response.items'"),
        ("response..x", "cannot read '..x'"),
        ("upper(text)", "cannot read '(text)' after 'upper'"),
        ("", "it must begin with a name"),
        ("'x'", "it must begin with a name"),
        ('response["\\q"]', "is not a JSON string"),
        ("{{ respons.x }}", "nothing is called `respons` (did you mean `response`?)"),
        ("{{ response.x ", "the Jinja does not parse"),
        ("{{ x | nope }}", "the Jinja does not parse: No filter named 'nope'."),
        ("{% include 'a.j2' %}", "a column cannot include or import a template"),
    ],
)
def test_what_is_refused(make: Make, text: str, complaint: str) -> None:
    with pytest.raises(ExpressionError, match=re.escape(complaint)):
        parse(text, make())


def test_free_text_has_no_response(make: Make) -> None:
    spec = make(output={"format": "text"})
    for text in ("response", "response.x", "{{ response }}"):
        with pytest.raises(ExpressionError, match="free text, so there is no `response`: use `text`"):
            parse(text, spec)


def test_without_a_schema_everything_is_text(make: Make) -> None:
    assert parse("response.a[0].b", make(output={"format": "json"})) == InResponse(("a", 0, "b"), "VARCHAR")


STEPS = st.lists(st.integers(0, 99) | st.text(st.characters(exclude_categories=("Cs",)), min_size=1), max_size=5)


@given(STEPS)
def test_any_path_can_be_written_and_read_back(steps: list[str | int]) -> None:
    written = "response" + "".join(f"[{s}]" if isinstance(s, int) else f"[{json.dumps(s)}]" for s in steps)
    assert split(written) == ("response", tuple(steps))


@given(st.lists(st.from_regex(r"[A-Za-z_][A-Za-z0-9_-]*", fullmatch=True), max_size=5))
def test_dots_and_brackets_mean_the_same(names: list[str]) -> None:
    dotted = ".".join(["response", *names])
    assert split(dotted) == split("response" + "".join(f"['{n}']" for n in names)) == ("response", tuple(names))


@given(st.text(max_size=30))
def test_anything_else_is_refused_in_words(text: str) -> None:
    try:
        root, _ = split(text)
    except ExpressionError as error:
        assert str(error)
    else:
        assert text.strip().startswith(root)


# --- the columns of a spec ---------------------------------------------------------------------------------------


def names(spec: ResolvedSpec) -> list[str]:
    return [c.name for c in output_columns(spec)]


def test_the_key_is_written_unless_the_mapping_has_it(make: Make) -> None:
    assert names(make({"columns": {"label": "text"}})) == ["id", "label"]
    assert names(make({"columns": {"label": "text", "k": "key"}})) == ["label", "k"]
    assert names(make({"columns": {"id": "id", "label": "text"}})) == ["id", "label"]
    assert names(make({"columns": {"b": "b"}}, key=("a", "b"))) == ["a", "b"]
    assert names(make({"columns": {"x": "text"}}, key="{{ a }}")) == ["key", "x"]


@pytest.mark.parametrize(
    ("destination", "complaint"),
    [
        ({"columns": {}}, "destination.columns names no column"),
        ({"columns": {"id": "text"}}, "the key's own column `id` is written too"),
        ({"columns": {"a": "text", "A": "text"}}, "destination.columns.A is there twice"),
        ({"columns": {" ": "text"}}, "a column without a name"),
        ({"columns": {"a": "nope"}}, "destination.columns.a: 'nope': nothing is called `nope`"),
        ({"columns": {"a": "text"}, "flatten": True}, "flatten has no effect beside destination.columns"),
    ],
)
def test_bad_columns_are_refused_when_the_project_is_loaded(
    make: Make, destination: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(InvalidProject) as caught:
        make(destination)
    assert complaint in caught.value.render()


BIGQUERY = {"type": "bigquery", "table": "p.d.t", "path": None}


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("a.b", "has '.', which BigQuery takes in no name"),
        ("price ($)", "has '(', which"),
        ("tab\there", r"has '\t', which"),
        ("_PARTITIONTIME", "begins with _PARTITION, which BigQuery keeps for itself"),
        ("_Table_x", "begins with _Table_"),
        ("n" * 301, "has 301 characters, and BigQuery takes 300"),
    ],
)
def test_names_that_bigquery_does_not_take_are_refused_before_anything_is_sent(
    make: Make, name: str, said: str
) -> None:
    with pytest.raises(InvalidProject) as caught:
        make({**BIGQUERY, "columns": {name: "text"}})
    assert said in caught.value.render()
    schema = {"type": "object", "properties": {name: {"type": "string"}}}
    with pytest.raises(InvalidProject) as caught:
        make({**BIGQUERY, "flatten": True}, output={"format": "json", "schema": schema})
    assert said in caught.value.render()
    assert name in names(make({"columns": {name: "text"}})), "a file takes any name"


def test_names_that_bigquery_takes(make: Make) -> None:
    odd = ["Größe", "with space", "a-b", "100%", "x" * 300, "1st", "_part", "a<b|c#d"]
    assert set(odd) < set(names(make({**BIGQUERY, "columns": dict.fromkeys(odd, "text")})))


def test_flatten_needs_properties(make: Make) -> None:
    for output in ({"format": "text"}, {"format": "json"}, {"format": "json", "schema": {"type": "array"}}):
        with pytest.raises(InvalidProject) as caught:
            make({"flatten": True}, output=output)
        assert "destination.flatten needs" in caught.value.render()


def test_all_complaints_at_once(make: Make) -> None:
    with pytest.raises(InvalidProject) as caught:
        make({"columns": {"a": "nope", "b": "response.nope"}})
    assert caught.value.message.startswith("2 errors")


def test_flattened_names_give_way(make: Make) -> None:
    schema = {"type": "object", "properties": {"ID": {"type": "string"}, "text": {"type": "string"}, "a": {}, "A": {}}}
    spec = make({"flatten": True}, output={"format": "json", "schema": schema})
    assert names(spec)[:5] == ["id", "response_ID", "response_text", "a", "response_A"]
    assert names(spec)[5:7] == ["text", "finish_reason"]
    assert check_columns(spec) == []


def test_reads_row(make: Make) -> None:
    assert reads_row(output_columns(make({"columns": {"a": "row.x"}})))
    assert reads_row(output_columns(make({"columns": {"a": "{{ row.x }}"}})))
    assert not reads_row(output_columns(make({"columns": {"a": "row.id", "b": "{{ key }}"}})))


def test_the_digest_follows_what_is_delivered_and_nothing_else(make: Make) -> None:
    base = destination_digest(make())
    same = [
        make({"path": "./out.jsonl"}),
        make({"prune": True}),
        make(source="data/*.csv"),
        make(output={"format": "json", "schema": {**SCHEMA, "description": "other words"}}),
    ]
    assert {destination_digest(s) for s in same} == {base}
    other = [
        make({"type": "csv"}),
        make({"path": "out2.jsonl"}),
        make({"path": "out.jsonl/"}),
        make({"flatten": True}),
        make({"columns": {"a": "text"}}),
        make({"columns": {"b": "text"}}),
        make({"columns": {"a": "{{ text }}"}}),
        make({"columns": {"a": "response.score"}}),
        make({"columns": {"a": "response.count"}}),
        make({"type": "sqlite", "table": "a"}),
        make({"type": "sqlite", "table": "b"}),
        make(key=("id", "x")),
        make(output={"format": "text"}),
    ]
    assert len({base, *(destination_digest(s) for s in other)}) == len(other) + 1


def test_a_changed_type_changes_the_digest(make: Make) -> None:
    typed = [
        make({"columns": {"a": "response.x"}}, output={"format": "json", "schema": {"properties": {"x": {"type": t}}}})
        for t in ("string", "integer")
    ]
    assert destination_digest(typed[0]) != destination_digest(typed[1])


def test_output_columns_of_a_bad_spec_raise(make: Make) -> None:
    spec = make()
    bad = spec.spec.model_copy(
        update={"destination": spec.spec.destination.model_copy(update={"columns": {"a": "no"}})}
    )
    with pytest.raises(DestinationError, match="nothing is called `no`"):
        output_columns(replace(spec, spec=bad))

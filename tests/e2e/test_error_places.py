"""Errors that show up when rows are read say where in the user's files to look."""

from __future__ import annotations

from typing import Any

import duckdb
import pytest
from tests_e2e_kit import Workspace

SPEC = """\
name: triage
source:
  type: csv
  path: data/tickets.csv
prompt: {user: triage.j2}
model: gemini-3.5-flash-lite
destination:
  type: jsonl
  path: results/triage.jsonl
idempotency:
  key: [id]
"""


def _refusal(workspace: Workspace, spec: str = SPEC) -> list[str]:
    workspace.write("specs/triage.yaml", spec)
    result = workspace.run("plan")
    assert result.code == 1, result.out
    return result.err.removeprefix("error: ").splitlines()


def test_a_missing_key_column(workspace: Workspace) -> None:
    assert _refusal(workspace, SPEC.replace("[id]", "[idd]")) == [
        "specs/triage.yaml:11:8: the source of triage has no column `idd`",
        "  11 |   key: [idd]",
        "              ^",
        "  Did you mean `id`? Its columns: id, tenant, title, body.",
    ]


def test_a_missing_column_of_a_template(workspace: Workspace) -> None:
    workspace.write("templates/triage.j2", "Read this:\n  {{ bdy }}\n{{ titel }}")
    assert _refusal(workspace) == [
        "templates/triage.j2:2:6: the source of triage has no column `bdy`, `titel` (read at templates/triage.j2:3:4)",
        "  2 |   {{ bdy }}",
        "           ^",
        "  Did you mean `body`? Its columns: id, tenant, title, body.",
    ]


def test_a_missing_column_of_inline_text(workspace: Workspace) -> None:
    said = _refusal(workspace, SPEC.replace("{user: triage.j2}", '{user: {text: "{{ nope }}"}}'))
    assert said[0].startswith("specs/triage.yaml:5:23: ")


@pytest.mark.parametrize(
    ("line", "place"),
    [
        ("  where: nope = 1", "specs/triage.yaml:5:10: source.where: "),
        ("  where: (id", "specs/triage.yaml:5:10: source.where is not valid SQL"),
        ("  query: SELECT nope FROM source", "specs/triage.yaml:5:10: source.query: "),
    ],
)
def test_a_field_of_the_source(workspace: Workspace, line: str, place: str) -> None:
    said = _refusal(workspace, SPEC.replace("tickets.csv", f"tickets.csv\n{line}"))
    assert said[0].startswith(place)
    assert said[1] == f"  5 | {line}"


def test_a_source_that_is_not_there_or_empty(workspace: Workspace) -> None:
    assert _refusal(workspace, SPEC.replace("tickets", "tockets"))[0].startswith("specs/triage.yaml:4:9: ")
    workspace.write("data/tickets.csv", "id,title,body\n")
    assert _refusal(workspace)[0].startswith("specs/triage.yaml:4:9: the source of triage has no rows")


def test_all_bad_keys_are_told_together(workspace: Workspace) -> None:
    rows = ["1,a", "1,b", ",c", '"",d', "2,e", "1,f", "2,g", *[f",x{i}" for i in range(6)]]
    workspace.write("templates/triage.j2", "{{ title }}")
    workspace.write("data/tickets.csv", "\n".join(["id,title", *rows]))
    named = [f"data/tickets.csv:{n}" for n in (4, 9, 10, 11, 12)]
    said = _refusal(workspace)
    assert said[0] == (
        f"specs/triage.yaml:11:8: of 13 rows of triage, 7 have no key (NULL): {', '.join(named)} and 2 more; "
        "1 has an empty key: data/tickets.csv:5; 3 repeat a key: "
        "'1' at data/tickets.csv:2, data/tickets.csv:3, data/tickets.csv:7, "
        "'2' at data/tickets.csv:6, data/tickets.csv:8"
    )
    assert "source.where" in said[-1]
    assert "idempotency.duplicates" in said[-1]


@pytest.mark.parametrize(
    ("file", "place"),
    [
        ("specs/triage.yaml", "specs/triage.yaml:6:8: error: model gemini-nope is not known"),
        ("batchform.yaml", "batchform.yaml:4:20: error: model gemini-nope is not known"),
    ],
)
def test_a_model(workspace: Workspace, file: str, place: str) -> None:
    spec = SPEC.replace("gemini-3.5-flash-lite", "gemini-nope")
    if file == "batchform.yaml":
        spec = spec.replace("model: gemini-nope\n", "")
        backend = "local: {type: emulator}"
        defaults = "{backend: local, model: gemini-nope}"
        workspace.write(file, f"version: 1\nproject: p\nbackends: {{{backend}}}\ndefaults: {defaults}\n")
        place = place.replace("4:20", f"4:{len('defaults: {backend: local, model: ') + 1}")
    assert _refusal(workspace, spec)[0].removeprefix("error: ").startswith(place)


def test_each_output_column_at_its_own_key(workspace: Workspace) -> None:
    columns: dict[str, Any] = {"a": "nope", "b": "text", "c": "response.x.nope."}
    lines = "".join(f"    {name}: {text}\n" for name, text in columns.items())
    said = _refusal(workspace, SPEC.replace("idempotency", f"  columns:\n{lines}idempotency"))
    assert [line.partition(" ")[0] for line in said if " output-columns]" in line] == [
        "specs/triage.yaml:11:8:",
        "specs/triage.yaml:13:8:",
    ]


@pytest.mark.parametrize(
    ("column", "expression", "found"),
    [
        ("id2", "row.nope", True),
        ("id2", 'row["no pe"]', True),
        ("id2", "'{{ row.nope }}!'", True),
        ("id2", "\"{{ row['nope'] | upper }}\"", True),
        ("id2", "\"{{ row.nope | default('') }}\"", False),
        ("id2", '"{{ row.nope is defined }}"', False),
        ("id2", "\"{{ row.get('nope') }}\"", False),
        ("id2", "row.title", False),
    ],
)
def test_a_missing_column_of_the_destination(workspace: Workspace, column: str, expression: str, found: bool) -> None:
    """Before anything is paid for."""
    text = SPEC.replace("results/triage.jsonl", f"results/triage.jsonl\n  columns:\n    {column}: {expression}")
    workspace.write("specs/triage.yaml", text)
    result = workspace.run("apply", "--yes")
    assert (result.code, workspace.billed() == []) == ((1, True) if found else (0, False)), result.err
    if found:
        name = "no pe" if "no pe" in expression else "nope"
        place = f"specs/triage.yaml:11:{5 + len(column) + 2}"
        said = f"{place}: the source of triage has no column `{name}` (read by destination.columns.{column})"
        assert said in result.err


@pytest.mark.parametrize("key", ["[score]", "[id, score]", "'{{ id }}/{{ score }}'"])
def test_a_key_that_is_not_a_finite_number(workspace: Workspace, key: str) -> None:
    source = workspace.root / "data/t.parquet"
    values = "(0, 0.5::DOUBLE), (1, 'nan'::DOUBLE), (2, '-inf'::DOUBLE), (3, '+inf'::DOUBLE)"
    with duckdb.connect() as con:
        con.execute(
            f"COPY (SELECT id, score, 't' AS title, 'b' AS body FROM (VALUES {values}) t(id, score)) "
            f"TO '{source}' (FORMAT parquet)"
        )
    spec = SPEC.replace("type: csv\n  path: data/tickets.csv", "type: parquet\n  path: data/t.parquet")
    said = _refusal(workspace, spec.replace("[id]", key))
    assert "of 4 rows of triage, 3 have a key that is not a finite number: " in said[0]
    assert "data/t.parquet" in said[0]

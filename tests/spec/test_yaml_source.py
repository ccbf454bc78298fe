"""Strict YAML: values as PyYAML gives them, keys as text, and every node's place."""

from __future__ import annotations

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from batchform.spec.yaml_source import Document, parse_yaml

SCALARS = st.none() | st.booleans() | st.integers(-(10**18), 10**18) | st.floats(allow_nan=False, allow_infinity=False)
TEXTS = st.text(st.characters(codec="utf-8", exclude_categories=("Cs", "Cc")), max_size=12)
VALUES = st.recursive(
    SCALARS | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=12,
)


def parsed(text: str) -> Document:
    document, problems = parse_yaml(text, "a.yaml")
    assert problems == []
    assert document is not None
    return document


@given(st.dictionaries(TEXTS, VALUES, max_size=4))
def test_reads_what_pyyaml_writes(value: dict[str, object]) -> None:
    assert parsed(yaml.safe_dump(value, allow_unicode=True)).value == value


@given(st.dictionaries(TEXTS, VALUES, min_size=1, max_size=4))
def test_every_node_has_a_place(value: dict[str, object]) -> None:
    document = parsed(yaml.safe_dump(value, allow_unicode=True))

    def visit(node: object, path: tuple[str | int, ...]) -> None:
        assert document.values[path].line >= 1
        children = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
        for step, child in children:
            visit(child, (*path, step))

    visit(document.value, ())


@given(st.text(max_size=60))
def test_any_text_is_a_document_or_a_complaint(text: str) -> None:
    document, problems = parse_yaml(text, "a.yaml")
    assert document is not None or problems


PIECES = st.sampled_from(
    ["a", "b", "é", "😀", "1", "on", ": ", ":", "- ", "? ", ", ", "[", "]", "{", "}", "# x", "|\n ", ">-\n ", "'", '"',
     "&a ", "*a", "<<: ", "!x ", "---", "...", "%", "\\u0041", "\n", "\n", "\n  ", "  ", "\t", "\x85"]
)  # fmt: skip


@given(st.lists(PIECES, max_size=24).map("".join))
def test_with_libyaml_and_without_it_a_text_is_the_same_document(text: str) -> None:
    quick, _ = parse_yaml(text, "a.yaml")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(yaml, "__with_libyaml__", False)
        plain, _ = parse_yaml(text, "a.yaml")
    assert plain is None or quick == plain  # libyaml takes some that PyYAML does not, such as a tab before a comment


def test_what_is_nested_deeply_ends_no_process() -> None:
    for opening in ("[", "{a: ", "- "):
        assert parse_yaml(opening * 20_000, "a.yaml")[0] is None


def test_keys_are_text_and_booleans_are_yaml_1_1() -> None:
    document = parsed("on: yes\n1: 2\nno: off\n2024-01-01: 2024-01-01\ndelimiter: =\n")
    assert document.value == {"on": True, "1": 2, "no": False, "2024-01-01": "2024-01-01", "delimiter": "="}


def test_merge_keys_give_way_to_own_keys() -> None:
    document = parsed("base: &b {x: 1, y: 2}\nmore: &m {<<: *b, z: 3}\nown:\n  <<: [*m]\n  y: 5\n")
    assert document.get("own") == {"y": 5, "z": 3, "x": 1}


def test_places_of_keys_and_values() -> None:
    document = parsed("a:\n  b: [1, {c: x}]\n")
    assert str(document.place("a", "b", on_key=True)) == "a.yaml:2:3"
    assert str(document.place("a", "b")) == "a.yaml:2:6"
    assert str(document.place("a", "b", 1, "c")) == "a.yaml:2:14"
    assert str(document.place("a", "nothing", "here")) == "a.yaml:2:3"


def test_all_complaints_of_a_file_come_together() -> None:
    _, problems = parse_yaml("a: 1\na: 2\nb: .inf\n? [x]\n: y\nc: !x 1\n", "a.yaml")
    assert [(p.rule, p.place.line) for p in problems] == [
        ("duplicate-key", 2),
        ("bad-number", 3),
        ("bad-key", 4),
        ("yaml-tag", 6),
    ]


def test_a_number_with_too_many_digits() -> None:
    _, problems = parse_yaml(f"a: {'9' * 5000}\n", "a.yaml")
    assert [p.rule for p in problems] == ["bad-number"]


def test_a_lone_surrogate() -> None:
    _, problems = parse_yaml('a: "\\ud800"\n', "a.yaml")
    assert [p.rule for p in problems] == ["bad-text"]

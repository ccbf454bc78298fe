"""What differs in every run never gets into a prompt, however an expression makes text of it."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchform.errors import Place
from batchform.spec.templates import CompiledTemplate, TemplateSet, explain_render_error

INDIRECT = [
    "{{ text ~ text.lower }}",
    "{{ '%s'|format(text.upper) }}",
    "{{ '%r' % text.upper }}",
    "{{ '{}'.format(text.upper) }}",
    "{{ [text.upper, 1] }}",
    "{{ (text.upper, 1) }}",
    "{{ [text|map('upper')]|join(',') }}",
    "{{ (text|map('upper'))|string }}",
    "{{ {'a': text.upper}|pprint }}",
    "{{ {'a': text.upper} }}",
    "{{ {'a': text.upper}|xmlattr }}",
    "{{ {'a': [row.keys]}|string|e }}",
    "{{ text.upper|string|urlencode }}",
    "{{ text.upper|string|wordwrap(20) }}",
    "{{ [cycler('a')] }}",
    "{{ [joiner(', ')]|join }}",
    "{{ [namespace(f=text.upper)] }}",
    "{% set f %}{{ text ~ text.lower }}{% endset %}{{ f }}",
    "{% macro m(x) %}{{ [x] }}{% endmacro %}{{ m(text.upper) }}",
    "{% for x in [text.upper] %}{{ loop.index ~ x }}{% endfor %}",
    "{% filter upper|lower %}{{ text ~ text.lower }}{% endfilter %}",
    "{{ ''.upper ~ 'constant' }}",
    "{{ [range(3)|map('string')] }}",
]
DIRECT = [
    ("{{ self }}", "`self` cannot be printed"),
    ("{{ namespace(a=1) }}", "`namespace` cannot be printed"),
    ("{% set n = namespace(a=text) %}{{ n }}", "`namespace` cannot be printed"),
    ("{% macro m() %}x{% endmacro %}{{ m }}", "the macro `m` cannot be printed"),
    ("{% macro m() %}{{ caller }}{% endmacro %}{% call m() %}x{% endcall %}", "the macro `caller` cannot be printed"),
    ("{{ text.upper }}", "a builtin_function_or_method cannot be printed"),
    ("{{ text|map('upper') }}", "a generator cannot be printed"),
]
OBJECT = "<function f at 0x7f12ab34cd56>"


def compiled(tmp_path: Any, text: str) -> CompiledTemplate:
    return TemplateSet(tmp_path).inline(text, place=Place("specs/a.yaml", 3, 9), exact_lines=True)


def failure(template: CompiledTemplate, values: dict[str, Any]) -> str:
    with pytest.raises(TypeError) as caught:
        template.render(values)
    return explain_render_error(template, caught.value, "k1").render()


@pytest.mark.parametrize("text", INDIRECT)
def test_an_object_cannot_be_made_text_of(tmp_path: Any, text: str) -> None:
    told = failure(compiled(tmp_path, text), {"text": "Hello"})
    assert told.startswith(("<inline>: ", "specs/a.yaml"))
    assert "row with key 'k1'" in told
    assert "it prints a function or a generator, as " in told
    assert "call it with parentheses, or use `| list`" in told


@pytest.mark.parametrize(("text", "expected"), DIRECT)
def test_what_is_no_value_cannot_be_printed(tmp_path: Any, text: str, expected: str) -> None:
    assert expected in failure(compiled(tmp_path, text), {"text": "Hello"})


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("{{ text }}", {"text": OBJECT}),
        ("{{ text|e }} {{ [text] }} {{ text|urlencode }} {{ text|lower }}", {"text": OBJECT.replace("ab", "AB")}),
        ("{{ data }} {{ data.a[0].b }}", {"data": {"a": [{"b": f"Traceback: {OBJECT}"}]}}),
        ("{{ data }}", {"data": {OBJECT: 1}}),
        ("{{ row }}", {"text": OBJECT}),
        ("<frame at 0x{{ '%x' % pc }}>", {"pc": 0x7F12AB34CD56}),
        ("<frame at 0x{{ '%x' % pc[0] }}>", {"pc": [0x7F12AB34CD56]}),
        ("<frame at 0x{{ pc }}>", {"pc": "7f12ab34cd56"}),
        (f"What is {OBJECT} in {{{{ text }}}}?", {"text": "Python"}),
        ("{{ text }} at 0x{{ text }}", {"text": "7f12ab34cd56>"}),
    ],
)
def test_such_text_in_the_data_or_the_template_is_fine(tmp_path: Any, text: str, values: dict[str, Any]) -> None:
    assert "0x" in compiled(tmp_path, text).render(values)


def test_data_does_not_excuse_another_address(tmp_path: Any) -> None:
    assert "it prints a function" in failure(compiled(tmp_path, "{{ text }}{{ [text.upper] }}"), {"text": OBJECT})


@given(
    st.recursive(
        st.text() | st.integers() | st.none() | st.integers(1 << 20, 1 << 47).map(lambda n: f"<f at {n:#x}>"),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
        max_leaves=8,
    )
)
def test_data_always_renders_as_itself(tmp_path_factory: Any, value: Any) -> None:
    template = compiled(tmp_path_factory.getbasetemp(), "{{ value }}|{{ [value] }}")
    assert template.render({"value": value}) == f"{value}|{[value]}"


def test_differences_of_keys_keep_their_order(tmp_path: Any) -> None:
    text = "{{ (row.keys() - ['id'])|join(',') }} {{ row.keys() - ['id'] }} {{ 5 - 3 }}"
    names = ("id", "title", "body", "author", "language")
    assert compiled(tmp_path, text).render(dict.fromkeys(names, 1)) == (
        "title,body,author,language ['title', 'body', 'author', 'language'] 2"
    )


def test_no_expression_renders_differently_in_two_processes(tmp_path: Any) -> None:
    program = f"""
from pathlib import Path
from batchform.errors import Place
from batchform.spec.templates import TemplateSet
for text in {[*INDIRECT, *(text for text, _ in DIRECT), "{{ row.keys() - ['x'] }}"]!r}:
    template = TemplateSet(Path({str(tmp_path)!r})).inline(text, place=Place("a", 1, 1))
    try:
        print(template.render({{"text": "Hello", "b": 1, "c": 2, "d": 3}}))
    except TypeError:
        print("refused")
"""
    runs = {
        subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
        for _ in range(3)
    }
    assert len(runs) == 1

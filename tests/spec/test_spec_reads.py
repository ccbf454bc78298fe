"""Static analysis of what a template reads: rendering with only these columns is rendering with all."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchform.errors import InvalidProject, Place
from batchform.spec.templates import CompiledTemplate, TemplateSet
from examples_kit import examples

VALUES: dict[str, Any] = {
    "a": "A",
    "b": [{"x": 1, "a": 2}, {"x": 3, "a": 4}],
    "c": {"x": "cx", "keys": "ck"},
    "d": 5,
    "e": "E",
    "range": "column called range",
    "loop": "column called loop",
    "caller": "column called caller",
    "items": "column called items",
}


def compiled(text: str, **files: str) -> CompiledTemplate:
    with tempfile.TemporaryDirectory() as place:
        for name, content in files.items():
            (Path(place) / f"{name}.j2").write_text(content, encoding="utf-8")
        return TemplateSet(Path(place)).inline(text, place=Place("a.yaml", 1, 1))


@pytest.mark.parametrize(
    ("text", "columns"),
    [
        ("nothing", set()),
        ("{{ a }}{{ b.c }}{{ d['e'] }}{{ f(g) | default(h) }}", {"a", "b", "d", "f", "g", "h"}),
        ("{{ row.a }}{{ row['b c'] }}", {"a", "b c"}),
        ("{{ row }}", None),
        ("{{ row[a] }}", None),
        ("{{ row | tojson }}", None),
        ("{{ row.get('a') }}", None),
        ("{{ row.items() }}", None),
        ("{% for k in row %}{{ k }}{% endfor %}", None),
        ("{% set r = row %}{{ r.a }}", None),
        ("{% for row in rows %}{{ row.x }}{% endfor %}", {"rows"}),
        ("{% for row in rows %}{{ row.x }}{% endfor %}{{ row.y }}", None),
        ("{% set x = 1 %}{{ x }}", set()),
        ("{% if c %}{% set x = 1 %}{% endif %}{{ x }}", {"c", "x"}),
        ("{{ x }}{% set x = 1 %}", {"x"}),
        ("{% for i in xs %}{{ i }}{{ loop.index }}{% endfor %}{{ i }}", {"xs", "i"}),
        ("{% for k, (v, w) in xs if k %}{{ v }}{{ w }}{% else %}{{ e }}{% endfor %}", {"xs", "e"}),
        ("{% with x = a, y = b %}{{ x }}{{ y }}{% endwith %}", {"a", "b"}),
        ("{% macro m(p, q=r) %}{{ p }}{{ q }}{{ s }}{{ varargs }}{{ kwargs }}{% endmacro %}{{ m(1) }}", {"r", "s"}),
        ("{% macro m() %}{{ caller(1) }}{% endmacro %}{% call(u) m() %}{{ u }}{{ v }}{% endcall %}", {"v"}),
        ("{{ caller }}{{ loop }}", {"caller", "loop"}),
        ("{% block x %}{{ a }}{{ self.y() }}{% endblock %}{% block y %}{{ b }}{% endblock %}", {"a", "b"}),
        ("{% set a = 1 %}{% block x %}{{ a }}{% endblock %}", None),
        ("{{ range(3) | list }}{{ dict(a=b) }}{{ namespace(x=1).x }}", {"b"}),
        ("{% set n = namespace(x=a) %}{% set n.x = b %}{{ n.x }}", {"a", "b"}),
        ("{{ a is defined }}{{ b | default('') }}", {"a", "b"}),
        ("{% filter upper %}{{ a }}{% endfilter %}", {"a"}),
        ("{% set x %}{{ a }}{% endset %}{{ x }}", {"a"}),
        ("{% include 'part.j2' %}", {"pa", "pb"}),
        ("{% include 'part.j2' without context %}", set()),
        ("{% set pa = 1 %}{% include 'part.j2' %}", {"pb"}),
        ("{% for pa in xs %}{% include 'part.j2' %}{% endfor %}", {"xs", "pb"}),
        ("{% for x in xs %}{% set pa = x %}{% endfor %}{% include 'part.j2' %}", None),
        ("{% for x in xs %}{% set pa = x %}{% include 'part.j2' %}{% endfor %}", {"xs", "pb"}),
        ("{% if c %}{% set pa = 1 %}{% endif %}{% include 'part.j2' %}", None),
        ("{% set pa %}{% include 'part.j2' %}{% endset %}", None),
        ("{% include 'part.j2' %}{% set pa = 1 %}", None),
        ("{% macro m(pa) %}{% include 'part.j2' %}{% endmacro %}{{ m(1) }}", {"pb"}),
        ("{% with pa = a, pb = b %}{% include 'part.j2' %}{% endwith %}", {"a", "b"}),
        ("{% import 'macros.j2' as m %}{{ m.f(a) }}", {"a"}),
        ("{% import 'macros.j2' as m with context %}{{ m.f(a) }}", {"a", "free"}),
        ("{% from 'macros.j2' import f as g with context %}{{ g(a) }}{{ f }}", {"a", "free", "f"}),
        ("{% extends 'base.j2' %}{% block main %}{{ a }}{% endblock %}", {"a", "title", "default_main"}),
        ("{% extends 'base.j2' %}{% set title = b %}", {"b", "default_main"}),
        ("{% extends 'base.j2' %}{% set default_main = b %}", {"b", "title"}),
    ],
)
def test_columns(text: str, columns: set[str] | None) -> None:
    template = compiled(
        text,
        part="{{ pa }}{{ pb }}",
        macros="{% macro f(x) %}{{ x }}{{ free }}{% endmacro %}",
        base="{{ title }}{% block main %}{{ default_main }}{% endblock %}",
    )
    assert template.columns == (None if columns is None else frozenset(columns))


# --- the law, over templates made at random ----------------------------------------------------------------------

NAMES = st.sampled_from(["a", "b", "c", "d", "e", "x", "y", "range", "caller", "items"])
EXPRESSIONS = st.recursive(
    st.one_of(
        NAMES,
        NAMES,
        st.sampled_from(["loop", "row.a", "row['b']", "row.e", "c.x", "c.keys", "1", "'t'", "range(2)", "self"]),
        st.sampled_from(["loop", "row.keys", "row.items", "row[a]", "row"]),
    ),
    lambda inner: st.one_of(
        st.tuples(inner, inner).map(lambda p: f"({p[0]} ~ {p[1]})"),
        inner.map(lambda e: f"({e} | default('none'))"),
        inner.map(lambda e: f"({e} is defined)"),
        inner.map(lambda e: f"({e} | string | length)"),
        st.tuples(inner, inner).map(lambda p: f"({p[0]} if {p[1]} is defined else 0)"),
        inner.map(lambda e: f"[{e}]"),
    ),
    max_leaves=4,
)
REFERENCES = st.sampled_from(
    [
        "{% include 'one.j2' %}",
        "{% include 'one.j2' without context %}",
        "{% include ['none.j2', 'two.j2'] %}",
        "{% import 'two.j2' as x with context %}{{ x }}",
        "{% from 'two.j2' import m as y with context %}{{ y is defined }}",
        "{% import 'one.j2' as y %}{{ y }}",
    ]
)


def _statements(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.one_of(
        st.tuples(NAMES, EXPRESSIONS).map(lambda p: f"{{% set {p[0]} = {p[1]} %}}"),
        st.tuples(NAMES, inner).map(lambda p: f"{{% set {p[0]} %}}{p[1]}{{% endset %}}"),
        st.tuples(NAMES, inner).map(lambda p: f"{{% for {p[0]} in b %}}{p[1]}{{% endfor %}}"),
        st.tuples(EXPRESSIONS, inner, inner).map(lambda p: f"{{% if {p[0]} %}}{p[1]}{{% else %}}{p[2]}{{% endif %}}"),
        st.tuples(NAMES, EXPRESSIONS, inner).map(lambda p: f"{{% with {p[0]} = {p[1]} %}}{p[2]}{{% endwith %}}"),
        st.tuples(NAMES, EXPRESSIONS, inner).map(
            lambda p: f"{{% macro m({p[0]}={p[1]}) %}}{p[2]}{{% endmacro %}}{{{{ m() }}}}"
        ),
        st.tuples(inner, inner).map("".join),
    )


BODIES = st.recursive(EXPRESSIONS.map(lambda e: f"[{{{{ {e} }}}}]"), _statements, max_leaves=5)
WITH_REFERENCES = st.recursive(EXPRESSIONS.map(lambda e: f"[{{{{ {e} }}}}]") | REFERENCES, _statements, max_leaves=5)
BLOCKS = st.tuples(BODIES, BODIES, BODIES, BODIES).map(
    lambda p: f"{p[0]}{{% block p %}}{p[1]}{{% endblock %}}{p[2]}{{% block q %}}{p[3]}{{% endblock %}}"
)
MAINS = st.one_of(
    WITH_REFERENCES,
    st.tuples(WITH_REFERENCES, WITH_REFERENCES).map(
        lambda p: f"{{% extends 'base.j2' %}}{p[0]}{{% block p %}}{{{{ super() }}}}{p[1]}{{% endblock %}}"
    ),
    BLOCKS,
)


def outcome(template: CompiledTemplate, values: dict[str, Any]) -> str:
    try:
        return template.render(values)
    except Exception as exc:  # noqa: BLE001
        return f"{type(exc).__name__}: {exc}"


@settings(max_examples=examples(150), deadline=None)
@given(main=MAINS, one=BODIES, two=BODIES, base=BLOCKS)
def test_rendering_with_the_columns_read_is_rendering_with_all(main: str, one: str, two: str, base: str) -> None:
    try:
        template = compiled(main, one=one, two=two, base=base)
    except InvalidProject:
        return
    if template.columns is None:
        return
    fewer = {name: value for name, value in VALUES.items() if name in template.columns}
    assert outcome(template, fewer) == outcome(template, VALUES)

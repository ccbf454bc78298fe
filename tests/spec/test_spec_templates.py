"""Templates: the sandbox, the closure, errors with places, and what a row may look like."""

from __future__ import annotations

import datetime as dt
import decimal
import uuid
from pathlib import Path
from typing import Any

import pytest

from batchform.errors import InvalidProject, Place
from batchform.spec.templates import CompiledTemplate, TemplateSet, explain_render_error, simple_parts

WHEN = dt.datetime(2026, 1, 2, 3, 4, 5, tzinfo=dt.UTC)


class Templates:
    """A template folder."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.root.mkdir()

    def write(self, **files: str) -> Templates:
        for name, text in files.items():
            (self.root / f"{name}.j2").write_text(text, encoding="utf-8")
        return self

    def file(self, name: str) -> CompiledTemplate:
        return TemplateSet(self.root).file(f"{name}.j2")

    def inline(self, text: str) -> CompiledTemplate:
        return TemplateSet(self.root).inline(text, place=Place("specs/a.yaml", 3, 9), exact_lines=True)

    def refusal(self, name: str) -> str:
        with pytest.raises(InvalidProject) as caught:
            TemplateSet(self.root).file(name, place=Place("specs/a.yaml", 3, 9))
        return caught.value.render()

    def failure(self, text: str, values: dict[str, Any]) -> str:
        template = self.inline(text)
        try:
            template.render(values)
        except Exception as exc:  # noqa: BLE001
            return explain_render_error(template, exc, "k1").render()
        pytest.fail("it rendered")


@pytest.fixture
def templates(tmp_path: Path) -> Templates:
    return Templates(tmp_path / "templates")


# --- rendering ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "values", "out"),
    [
        ("{{ a }}\n", {"a": "x"}, "x"),
        ("{{ a }}", {"a": None}, "None"),
        ("{{ a }} {{ row.a }} {{ row['b c'] }}", {"a": 1, "b c": 2.5}, "1 1 2.5"),
        ("{{ row | tojson }}", {"b": 1, "a": "<é>"}, '{"a":"<é>","b":1}'),
        ("{{ a | tojson }}", {"a": {"d": WHEN, "n": decimal.Decimal("1.50"), "f": 2.0}}, None),
        ("{{ a | tojson(indent=2) }}", {"a": {"b": [1]}}, '{\n  "b": [\n    1\n  ]\n}'),
        ("{{ a | date }} {{ a | date('%d.%m.%y') }} {{ a | isoformat }}", {"a": WHEN}, None),
        ("{{ a | date('%H:%M') }}", {"a": "2026-01-02T03:04:05"}, "03:04"),
        ("{{ a | date }}", {"a": dt.date(987, 1, 2)}, "0987-01-02"),
        ("{{ a | truncate(5) }}", {"a": "abcdefghijklmnop"}, "ab..."),
        ("{{ a }}", {"a": uuid.UUID(int=1)}, "00000000-0000-0000-0000-000000000001"),
        ("{{ a | upper }}{{ a.upper() }}", {"a": "x<y"}, "X<YX<Y"),
        ("{% for i in range(3) %}{{ i }}{% if i == 1 %}{% break %}{% endif %}{% endfor %}", {}, "01"),
        ("{{ row.items }} {{ row.keys }}", {"items": 1, "keys": 2}, "1 2"),
        ("{% for k, v in row.items() %}{{ k }}={{ v }};{% endfor %}", {"a": 1, "b": 2}, "a=1;b=2;"),
        ("{{ range(2) | list }} {{ row.range }}", {"range": 7}, "[0, 1] 7"),
        ("{{ row }}", {"row": 1}, "{'row': 1}"),
        ("{{ row.row }}", {"row": 1}, "1"),
        ("{% autoescape true %}{{ a }}{% endautoescape %}{{ a }}", {"a": "<"}, "&lt;<"),
        ("a\r\nb", {}, "a\nb"),
        ("{{ a.year }} {{ a.strftime('%Y') }}", {"a": WHEN}, "2026 2026"),
    ],
)
def test_render(templates: Templates, text: str, values: dict[str, Any], out: str | None) -> None:
    expected = {
        "{{ a | tojson }}": '{"d":"2026-01-02T03:04:05Z","f":2,"n":1.50}',
        "{{ a | date }} {{ a | date('%d.%m.%y') }} {{ a | isoformat }}": f"2026-01-02 02.01.26 {WHEN.isoformat()}",
    }.get(text, out)
    template = templates.inline(text)
    assert template.render(values) == expected
    assert template.render(values) == expected


def test_constant_templates_render_once(templates: Templates) -> None:
    template = templates.inline("Be {{ 'brief' }}.")
    assert template.constant
    assert template.columns == frozenset()
    assert template.render({}) == template.render({"a": 1}) == "Be brief."


def test_rendering_never_touches_the_disk(templates: Templates) -> None:
    template = templates.write(a="{% include 'b.j2' %}", b="one").file("a")
    templates.write(b="two")
    (templates.root / "a.j2").unlink()
    assert template.render({}) == "one"


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("{{ tenant }}/{{ id }}", [("column", "tenant"), ("text", "/"), ("column", "id")]),
        ("{{ row.id }}-{{ 'x' }}", [("column", "id"), ("text", "-"), ("text", "x")]),
        ("{{ id | lower }}", None),
        ("{{ id }}{% if id %}x{% endif %}", None),
        ("{{ id + 1 }}", None),
        ("{{ row }}", None),
        ("{{ range }}", None),
        ("{{ self }}", None),
    ],
)
def test_simple_parts(templates: Templates, text: str, parts: list[tuple[str, str]] | None) -> None:
    assert simple_parts(templates.inline(text)) == parts


# --- sandbox -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "{{ ''.__class__.__mro__ }}",
        "{{ ''['__class__'] }}",
        "{{ a | attr('__class__') }}",
        "{{ '{0.__class__}'.format(a) }}",
        "{{ '{a.__class__}'.format_map({'a': a}) }}",
        "{{ self.__init__.__globals__ }}",
        "{{ self._TemplateReference__context }}",
        "{{ range.__init__ }}",
        "{{ cycler.__init__.__globals__.os }}",
        "{% for x in [] %}{% else %}{{ loop.__class__ }}{% endfor %}{{ joiner.__init__.__globals__ }}",
        "{{ when.now() }}",
        "{{ when.today() }}",
        "{{ when.utcnow() }}",
        "{{ when.fromtimestamp(0) }}",
        "{{ when.astimezone() }}",
        "{{ when.timestamp() }}",
        "{{ when.tzinfo }}",
        "{{ day.today() }}",
        "{{ items.append(1) }}",
        "{% do row.update({'a': 1}) %}",
        "{{ row.pop('a') }}",
        "{{ 'a' * 100000000 }}",
        "{{ [1] * 100000000 }}",
        "{{ (9 ** 9) ** (9 ** 9) }}",
        "{{ range(1000000) | list }}",
        "{{ a.upper }}",
        "{{ items | map('upper') }}",
        "{{ cycler }}",
        "{{ range }}",
        "{{ [a.upper] | tojson }}",
        "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
        "{{ when | date('%s') }}",
        "{{ when | date('%c') }}",
        "{{ nothing | tojson }}",
        "{{ nothing | date }}",
        "{{ none | date }}",
        "{{ 'yesterday' | isoformat }}",
        "{{ (1 / 0) }}",
        "{{ items | tojson }}" + "{{ [1.0e400] | tojson }}",
    ],
)
def test_sandbox_refuses(templates: Templates, text: str) -> None:
    values = {"a": "x", "when": WHEN, "day": WHEN.date(), "items": ["b"]}
    said = templates.failure(text, values)
    assert said.startswith("specs/a.yaml:4: the template cannot be rendered for the row with key 'k1': ")
    assert values["items"] == ["b"]
    assert "0x" not in said


@pytest.mark.parametrize(
    "text", ["{{ lipsum() }}", "{{ now() }}", "{{ open('/etc/passwd') }}", "{{ os }}", "{{ env }}"]
)
def test_nothing_but_the_row_is_there(templates: Templates, text: str) -> None:
    assert "is undefined" in templates.failure(text, {"a": 1})


def test_there_is_no_random_filter(templates: Templates) -> None:
    with pytest.raises(InvalidProject) as caught:
        templates.inline("{{ [1, 2] | random }}")
    assert "there is no filter `random`" in caught.value.render()


# --- roots -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["../secret.j2", "/etc/passwd", "a/../../secret.j2", "a\\b.j2", " a.j2", "a\0.j2", ""])
def test_names_that_leave_the_folder(templates: Templates, name: str) -> None:
    (templates.root.parent / "secret.j2").write_text("secret")
    assert " template-outside]" in templates.refusal(name)


def test_links_that_leave_the_folder(templates: Templates) -> None:
    secret = templates.root.parent / "secret.j2"
    secret.write_text("secret")
    (templates.root / "link.j2").symlink_to(secret)
    (templates.root / "up").symlink_to(templates.root.parent)
    assert "link that leaves templates/" in templates.refusal("link.j2")
    assert "link that leaves templates/" in templates.refusal("up/secret.j2")
    templates.write(a="x\n{% include 'link.j2' %}")
    said = templates.refusal("a.j2")
    assert said.startswith("templates/a.j2:2: error: `link.j2` is a link that leaves templates/")


def test_links_within_the_folder_are_fine(templates: Templates) -> None:
    templates.write(a="x")
    (templates.root / "b.j2").symlink_to(templates.root / "a.j2")
    assert templates.file("b").render({}) == "x"


def test_a_link_to_itself_and_a_folder_and_a_pipe(templates: Templates) -> None:
    import os

    (templates.root / "loop.j2").symlink_to(templates.root / "loop.j2")
    (templates.root / "dir.j2").mkdir()
    os.mkfifo(templates.root / "pipe.j2")
    for name in ("loop.j2", "dir.j2", "pipe.j2"):
        assert " template-not-found]" in templates.refusal(name)


def test_bytes_that_are_not_text(templates: Templates) -> None:
    (templates.root / "latin.j2").write_bytes(b"a\nb \xe9")
    (templates.root / "nul.j2").write_bytes(b"a\0")
    assert templates.refusal("latin.j2").startswith("templates/latin.j2:2:3: error: byte 0xe9 is not UTF-8")
    assert templates.refusal("nul.j2").startswith("templates/nul.j2:1:2: error: NUL")


def test_environment_reference(templates: Templates) -> None:
    templates.write(a="x\n${ENV:HOME}", b="{{ '$' }}{ENV:HOME}")
    assert templates.refusal("a.j2").startswith("templates/a.j2:2: error: ${ENV:…} works only in batchform.yaml")
    assert templates.file("b").render({}) == "${ENV:HOME}"


# --- closure -----------------------------------------------------------------------------------------------------


def test_the_digest_covers_everything_that_is_used(templates: Templates) -> None:
    templates.write(
        a="{% extends 'base.j2' %}{% block x %}{% include 'part.j2' %}{% endblock %}",
        base="{% from 'macros.j2' import m %}{% block x %}{% endblock %}{{ m() }}",
        part="part",
        macros="{% macro m() %}m{% endmacro %}",
        other="other",
    )
    first = templates.file("a").digest
    assert templates.write(other="changed").file("a").digest == first
    for name in ("part", "macros", "base"):
        before = templates.file("a").digest
        text = (templates.root / f"{name}.j2").read_text()
        templates.write(**{name: text + "{# more #}"})
        assert templates.file("a").digest != before
    assert templates.file("a").render({}) == "partm"


def test_a_file_and_the_same_text_inline_have_one_digest(templates: Templates) -> None:
    templates.write(a="{{ x }}")
    assert templates.file("a").digest == templates.inline("{{ x }}").digest


def test_what_may_be_missing_changes_the_digest_when_it_comes(templates: Templates) -> None:
    templates.write(a="{% include 'b.j2' ignore missing %}{% include ['c.j2', 'd.j2'] %}", d="d")
    first = templates.file("a")
    assert first.render({}) == "d"
    templates.write(c="c")
    assert templates.file("a").digest != first.digest
    assert templates.file("a").render({}) == "c"


def test_what_was_missing_stays_missing_while_rows_are_rendered(templates: Templates) -> None:
    template = templates.write(a="{% include ['b.j2', 'c.j2'] %}", c="c").file("a")
    templates.write(b="b")
    assert template.render({}) == "c"
    assert template.columns == frozenset()


@pytest.mark.parametrize(
    "text",
    [
        "{% include name %}",
        "{% include 'a' ~ b %}",
        "{% extends x if y else z %}",
        "{% from a import b %}",
        "{% import 1 as x %}",
    ],
)
def test_names_must_be_written_out(templates: Templates, text: str) -> None:
    templates.write(a=f"\n{text}")
    said = templates.refusal("a.j2")
    assert said.startswith("templates/a.j2:2: error: the name of an included template must be written out")


def test_cycles(templates: Templates) -> None:
    templates.write(a="{% include 'b.j2' %}", b="\n{% import 'a.j2' as a %}", c="{% extends 'c.j2' %}")
    assert templates.refusal("a.j2").startswith("templates/b.j2:2: error: `b.j2` includes itself through `a.j2`")
    assert templates.refusal("c.j2").startswith("templates/c.j2:1: error: `c.j2` includes itself through `c.j2`")


def test_errors_in_what_is_included_stand_there(templates: Templates) -> None:
    templates.write(a="{% include 'b.j2' %}", b="one\ntwo {{ x | nope }}", c="{% include 'nothing.j2' %}")
    assert templates.refusal("a.j2").startswith("templates/b.j2:2: error: there is no filter `nope`")
    assert templates.refusal("c.j2").startswith("templates/c.j2:1: error: there is no template `nothing.j2`")


@pytest.mark.parametrize(
    "text", ["{{ " + "(" * 500 + "1" + ")" * 500 + " }}", "{{ 1" + "+1" * 5000 + " }}", "{% if 1 %}" * 300]
)
def test_templates_that_no_parser_can_hold(templates: Templates, text: str) -> None:
    templates.write(a=text)
    assert " template-syntax]" in templates.refusal("a.j2")


@pytest.mark.parametrize(
    "module",
    [
        "{% set n = namespace(x=0) %}{% macro m() %}{% set n.x = n.x + 1 %}{{ n.x }}{% endmacro %}",
        "{% set g = ['1'] | map('upper') %}{% macro m() %}{{ g | join }}{% endmacro %}",
        "{% set c = cycler('1', '2') %}{% macro m() %}{{ c.next() }}{% endmacro %}",
        "{% from 'deep.j2' import d %}{% macro m() %}{{ d() }}{% endmacro %}",
    ],
)
def test_a_row_knows_nothing_of_the_rows_before_it(templates: Templates, module: str) -> None:
    templates.write(deep="{% set c = cycler('1', '2') %}{% macro d() %}{{ c.next() }}{% endmacro %}")
    template = templates.write(a="{% from 'm.j2' import m %}{{ a }}{{ m() }}", m=module).file("a")
    assert [template.render({"a": i}) for i in range(3)] == ["01", "11", "21"]


# --- errors of rows ----------------------------------------------------------------------------------------------


def test_an_undefined_column_names_line_key_and_nearest_column(templates: Templates) -> None:
    templates.write(a="one\n{% include 'b.j2' %}", b="\n\n{{ subjct }}")
    template = templates.file("a")
    with pytest.raises(Exception, match="undefined") as caught:
        template.render({"subject": "s", "body": "b"})
    error = explain_render_error(template, caught.value, "t-1")
    assert error.render() == (
        "templates/b.j2:3: the template cannot be rendered for the row with key 't-1': `subjct` is undefined\n"
        "  3 | {{ subjct }}\n"
        "  Did you mean `subject`? Columns: subject, body."
    )


def test_a_missing_field_of_row(templates: Templates) -> None:
    said = templates.failure("{{ row.subjct }}", {"subject": 1})
    assert said.splitlines()[1:] == ["  4 | {{ row.subjct }}", "  Did you mean `subject`? Columns: subject."]


def test_messages_do_not_break_lines_or_show_escapes(templates: Templates) -> None:
    template = templates.inline("{{ 1 + a }}")
    with pytest.raises(TypeError) as caught:
        template.render({"a": "y"})
    text = explain_render_error(template, caught.value, "k\x1b[31m\n1").render()
    assert "\x1b" not in text
    assert text.splitlines()[1:] == ["  4 | {{ 1 + a }}"]


def test_inline_text_in_quotes_is_placed_at_its_start(templates: Templates) -> None:
    template = TemplateSet(templates.root).inline("a\n{{ b }}", place=Place("specs/a.yaml", 3, 9))
    with pytest.raises(Exception, match="undefined") as caught:
        template.render({})
    assert str(explain_render_error(template, caught.value, "k").place) == "specs/a.yaml:3:9"


def test_where_a_column_is_read(templates: Templates) -> None:
    templates.write(a="{{ x }}\n{% include 'b.j2' %}\n{{ row['z'] }}", b="\n  {{ row.y }} {{ x }}")
    template = templates.file("a")
    found = {column: template.where(column) for column in ("x", "y", "z", "w")}
    assert {column: str(place) for column, place in found.items()} == {
        "x": "templates/a.j2:1:4",
        "y": "templates/b.j2:2:10",
        "z": "templates/a.j2:3:9",
        "w": "templates/a.j2",
    }
    assert found["y"].text == "  {{ row.y }} {{ x }}"
    assert str(templates.inline("one\n{{ x }}").where("x")) == "specs/a.yaml:5"

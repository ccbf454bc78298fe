"""The sandbox that templates run in: no clock, no chance, no files but the template folder, nothing that differs
between two runs or two machines."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterable, Iterator, Mapping, Set
from typing import Any, Final

import msgspec
from jinja2 import BaseLoader, StrictUndefined, Template, Undefined
from jinja2.exceptions import SecurityError
from jinja2.nodes import EvalContext
from jinja2.runtime import Context, Macro, TemplateReference
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace, missing

from batchform.canon import normalise

MAX_TEXT: Final = 10_000_000
"""Longest text or list that one multiplication in a template may make."""

_PLAIN = frozenset((str, int, float, bool, type(None), list, dict, tuple, dt.date, dt.datetime, dt.time))
_DATE_ATTRIBUTES = frozenset(
    {
        *("year", "month", "day", "hour", "minute", "second", "microsecond", "fold", "date", "time", "replace", "week"),
        *("isoformat", "strftime", "weekday", "isoweekday", "isocalendar", "toordinal", "utcoffset"),
        *("days", "seconds", "microseconds", "total_seconds"),
    }
)
_DIRECTIVES = frozenset("YymdHIMSfjpaAbBuGVz%")
# As Python shows an object without a text of its own; also escaped for HTML or an address, or broken by `wordwrap`.
_OBJECT = re.compile(r"at(?:\s|%20)0x([0-9a-f]{6,})(?:>|&gt;|%3E)")
_DIGITS = re.compile(r"[0-9a-f]{6,}")
_OPENING = re.compile(r"<|&lt;|%3C")
_JSON = msgspec.json.Encoder(order="sorted", decimal_format="number")


class Row(dict[str, Any]):
    """`row` in a template: the row's columns. A column wins over a method of the same name."""

    __slots__ = ()


class RowContext(Context):
    """Variables of one row. The environment's own functions win over columns of the same name, so that what a template
    reads can be known without the rows; such a column is still there as `row.name`."""

    def resolve_or_missing(self, key: str) -> Any:
        if key in self.vars:
            return self.vars[key]
        if key in GLOBALS:
            return GLOBALS[key]
        return self.parent.get(key, missing)


class FlatContext(RowContext):
    """Variables of one row for a template that stands alone and uses none of the environment's functions."""

    def __init__(self, values: Mapping[str, Any], eval_ctx: EvalContext) -> None:
        # Context.__init__ is left out on purpose: it costs as much as rendering a short prompt
        self.parent = values  # type: ignore[assignment]
        self.vars = {}
        self.environment = eval_ctx.environment
        self.eval_ctx = eval_ctx
        self.exported_vars = set()
        self.name = None
        self.globals_keys = set()
        self.blocks = {}

    def resolve_or_missing(self, key: str) -> Any:
        return self.parent.get(key, missing)


class TemplateEnvironment(ImmutableSandboxedEnvironment):
    """Jinja as batchform's templates have it."""

    intercepted_binops = frozenset(("*", "**", "-"))
    context_class = RowContext

    def __init__(self, loader: BaseLoader) -> None:
        self._ready: dict[str, Template] = {}
        super().__init__(
            loader=loader,
            undefined=StrictUndefined,
            autoescape=False,
            auto_reload=False,
            cache_size=-1,
            keep_trailing_newline=False,
            finalize=printable,
            extensions=("jinja2.ext.do", "jinja2.ext.loopcontrols"),
        )
        self.globals.pop("lipsum")
        self.filters.pop("random")
        self.filters.update(tojson=to_json, date=format_date, isoformat=iso_format)

    def get_template(self, name: Any, parent: str | None = None, globals: Any = None) -> Template:  # noqa: A002
        """A template of the folder, compiled once: an include in a row's template comes here for every row."""
        found = self._ready.get(name)
        if found is None:
            found = self._ready[name] = super().get_template(name, parent, globals)
        return found

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        kind = obj if isinstance(obj, type) else type(obj)
        if issubclass(kind, (dt.date, dt.time, dt.timedelta, dt.tzinfo)) and attr not in _DATE_ATTRIBUTES:
            return False  # now(), today(), astimezone() … read the clock or the machine's time zone
        return bool(super().is_safe_attribute(obj, attr, value))

    def getattr(self, obj: Any, attribute: str) -> Any:
        if type(obj) is Row and attribute in obj:
            return obj[attribute]
        return super().getattr(obj, attribute)

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        if operator == "**":
            if isinstance(left, int) and isinstance(right, int) and left.bit_length() * abs(right) > 10_000:
                raise SecurityError("the power is too large")
        elif operator == "-":
            if isinstance(left, Set):  # dict.keys() - other: a set, whose order differs between two runs
                found = left - right
                return [item for item in left if item in found]
        else:
            for text, times in ((left, right), (right, left)):
                if (
                    isinstance(times, int)
                    and isinstance(text, (str, bytes, list, tuple))
                    and len(text) * times > MAX_TEXT
                ):
                    raise SecurityError(f"a multiplication makes more than {MAX_TEXT:,} characters or items")
        return super().call_binop(context, operator, left, right)


def printable(value: Any) -> Any:
    """What `{{ value }}` may print. Functions and generators print as memory addresses, which differ in every run."""
    if type(value) in _PLAIN or isinstance(value, Undefined):
        return value
    if isinstance(value, Iterator):
        raise TypeError("a generator cannot be printed; end the expression with `| list` or `| join(', ')`")
    if isinstance(value, (Namespace, TemplateReference)):
        name = "namespace" if isinstance(value, Namespace) else "self"
        raise TypeError(f"`{name}` cannot be printed; name what is wanted of it, such as {name}.x")
    if isinstance(value, Macro):
        raise TypeError(
            f"the macro `{value.name or 'caller'}` cannot be printed; are the parentheses of a call missing?"
        )
    if callable(value) or re.match(r"<.* at 0x[0-9a-f]+>$", str(value)):
        raise TypeError(f"a {type(value).__name__} cannot be printed; are the parentheses of a call missing?")
    return value


def without_addresses(text: str, values: Mapping[str, Any], written: Iterable[str]) -> str:
    """`text`. Raises TypeError if it shows a function or another object by its address, which differs in every run.

    `printable` sees what `{{ }}` prints, not what a filter or an operator made text of before. values: of the row,
    which may hold such text, or the number, themselves; written: the template's own texts. Texts without "0x" pass.
    """
    held: set[str] | None = None
    for match in _OBJECT.finditer(text):
        if held is None:
            held = {digits for leaf in _leaves([values, *written]) for digits in _DIGITS.findall(leaf.casefold())}
        if match[1] in held:
            continue
        before = text[max(0, match.start() - 80) : match.start()]
        start = max((found.start() for found in _OPENING.finditer(before)), default=len(before))
        raise TypeError(
            f"it prints a function or a generator, as {before[start:] + match[0]}; "
            "call it with parentheses, or use `| list`"
        )
    return text


def _leaves(value: Any) -> Iterator[str]:
    """The texts within a value; of an integer its hexadecimal digits."""
    if isinstance(value, (list, tuple)):
        for item in value:
            yield from _leaves(item)
    elif isinstance(value, Mapping):
        yield from _leaves([*value.keys(), *value.values()])
    else:
        yield f"{value:x}" if isinstance(value, int) else str(value)


def to_json(value: Any, indent: int | None = None) -> str:
    """Plain canonical JSON: sorted keys, nothing escaped for HTML, non-ASCII kept, dates in ISO form."""
    encoded = _JSON.encode(normalise(_checked(value)))
    return (msgspec.json.format(encoded, indent=indent) if indent is not None else encoded).decode()


def _checked(value: Any) -> Any:
    if isinstance(value, Undefined):
        str(value)  # raises, naming the variable
    if isinstance(value, Mapping):
        return {k if isinstance(k, str) else str(k): _checked(v) for k, v in value.items()}
    if isinstance(value, (list, tuple, Iterator)):
        return [_checked(v) for v in value]
    if callable(value):
        raise TypeError(f"a {type(value).__name__} has no JSON form")
    return value


def format_date(value: Any, fmt: str = "%Y-%m-%d") -> str:
    """A date, or ISO text, in a form made of strftime directives that mean the same on every machine."""
    for directive in re.findall(r"%(.?)", fmt):
        if directive not in _DIRECTIVES:
            raise ValueError(
                f"date() does not know %{directive}; it knows {' '.join('%' + d for d in sorted(_DIRECTIVES))}"
            )
    when = _date(value, "date")
    return when.strftime(fmt.replace("%Y", f"{when.year:04d}"))


def iso_format(value: Any) -> str:
    """A date or time, or ISO text, in ISO 8601."""
    return _date(value, "isoformat").isoformat()


def _date(value: Any, name: str) -> dt.date:
    if isinstance(value, dt.date):
        return value
    if isinstance(value, Undefined):
        str(value)
    if isinstance(value, str):
        text = value.strip()
        try:
            return dt.date.fromisoformat(text) if len(text) <= 10 else dt.datetime.fromisoformat(text)
        except ValueError:
            raise ValueError(f"{name}() needs a date in ISO form, such as 2026-01-31") from None
    raise TypeError(f"{name}() needs a date or ISO text, not {'NULL' if value is None else type(value).__name__}")


GLOBALS: Final[Mapping[str, Any]] = dict(TemplateEnvironment(BaseLoader()).globals)
"""The functions every template has: range, dict, namespace, cycler, joiner."""

"""The filter of batchPredictionJobs.list: AIP-160, as far as the service documents it for jobs."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime
from fnmatch import fnmatchcase
from typing import Any, Final

from batchform.emulator.refusal import Refusal

Job = dict[str, Any]
"""A job as the API shows it."""
Test = Callable[[Job], bool]

_TOKEN: Final = re.compile(
    r"\s*(?:(?P<text>\"(?:[^\"\\]|\\.)*\"|'(?:[^'\\]|\\.)*')|(?P<op>!=|<=|>=|[=<>:])|(?P<mark>[()])"
    r"|(?P<word>[^\s()=<>!:\"']+))"
)
_FIELDS: Final = {
    "display_name": ("displayName", ("=", "!=", ":")),
    "displayName": ("displayName", ("=", "!=", ":")),
    "model_display_name": ("modelDisplayName", ("=", "!=")),
    "modelDisplayName": ("modelDisplayName", ("=", "!=")),
    "state": ("state", ("=", "!=")),
    "create_time": ("createTime", ("=", "!=", "<", "<=", ">", ">=")),
    "createTime": ("createTime", ("=", "!=", "<", "<=", ">", ">=")),
}


def parse(text: str) -> Test:
    """What a filter means; "" means every job. Raises Refusal 400 for what the service does not document."""
    if not text.strip():
        return lambda job: True  # noqa: ARG005  (every job)
    reader = _Reader(_tokens(text), text)
    test = reader.either()
    reader.end()
    return test


def _wrong(text: str, why: str) -> Refusal:
    return Refusal(400, f"Invalid filter '{text}': {why}")


def _tokens(text: str) -> list[tuple[str, str]]:
    found, position, end = [], 0, len(text.rstrip())
    while position < end:
        token = _TOKEN.match(text, position)
        if token is None:
            raise _wrong(text, f"cannot be read at character {position + 1}.")
        found.append((str(token.lastgroup), token[str(token.lastgroup)]))
        position = token.end()
    return found


class _Reader:
    def __init__(self, tokens: list[tuple[str, str]], text: str) -> None:
        self._tokens, self._text, self._at = tokens, text, 0

    def either(self) -> Test:
        tests = [self._all()]
        while self._takes("OR"):
            tests.append(self._all())
        return lambda job: any(test(job) for test in tests)

    def end(self) -> None:
        if self._at < len(self._tokens):
            raise _wrong(self._text, f"'{self._tokens[self._at][1]}' is not expected.")

    def _all(self) -> Test:
        tests = [self._one()]
        while self._takes("AND") or self._more():
            tests.append(self._one())
        return lambda job: all(test(job) for test in tests)

    def _more(self) -> bool:
        """Whether another term follows; a space between two means AND."""
        kind, value = self._peek()
        return (kind == "word" and value != "OR") or (kind, value) == ("mark", "(")

    def _one(self) -> Test:
        if self._takes("NOT") or self._takes("-"):
            test = self._one()
            return lambda job: not test(job)
        if self._takes("("):
            test = self.either()
            if not self._takes(")"):
                raise _wrong(self._text, "a closing parenthesis is missing.")
            return test
        return self._comparison()

    def _comparison(self) -> Test:
        name = self._next("word", "the name of a field")
        if name == "labels" and self._peek() == ("op", ":"):
            self._at += 1
            return _labelled(self._value(), ":", "*")
        operator = self._next("op", "a comparison")
        if name.startswith("labels."):
            if operator not in ("=", "!=", ":"):
                raise _wrong(self._text, f"labels cannot be compared by '{operator}'.")
            return _labelled(name.removeprefix("labels."), operator, self._value())
        field, operators = _FIELDS.get(name, ("", ()))
        if not field:
            raise _wrong(self._text, f"'{name}' is not a field that jobs can be filtered by.")
        if operator not in operators:
            raise _wrong(self._text, f"'{name}' supports {', '.join(operators)} only.")
        value = self._value()
        return _timed(operator, value, self._text) if field == "createTime" else _texts(field, operator, value)

    def _value(self) -> str:
        kind, value = self._peek()
        if kind not in ("text", "word"):
            raise _wrong(self._text, "a value is missing.")
        self._at += 1
        return re.sub(r"\\(.)", r"\1", value[1:-1]) if kind == "text" else value

    def _next(self, wanted: str, what: str) -> str:
        kind, value = self._peek()
        if kind != wanted:
            raise _wrong(self._text, f"{what} is missing.")
        self._at += 1
        return value

    def _takes(self, word: str) -> bool:
        kind, value = self._peek()
        if kind in ("word", "mark") and value == word:
            self._at += 1
            return True
        return False

    def _peek(self) -> tuple[str, str]:
        return self._tokens[self._at] if self._at < len(self._tokens) else ("", "")


def _texts(field: str, operator: str, value: str) -> Test:
    if operator == ":":
        glob = re.sub(r"[\[?]", lambda m: f"[{m[0]}]", value)
        return lambda job: fnmatchcase(job.get(field, ""), glob if "*" in glob else f"*{glob}*")
    return lambda job: (job.get(field, "") == value) == (operator == "=")


def _labelled(key: str, operator: str, value: str) -> Test:
    if operator == ":" and value == "*":
        return lambda job: key in job.get("labels", {})
    return lambda job: (job.get("labels", {}).get(key) == value) == (operator != "!=")


def _timed(operator: str, value: str, text: str) -> Test:
    try:
        wanted = datetime.fromisoformat(value)
        if wanted.tzinfo is None:
            raise ValueError(value)
    except ValueError as e:
        raise _wrong(text, f"'{value}' is not a time in RFC 3339 format.") from e
    compare: dict[str, Callable[[datetime], bool]] = {
        "=": lambda t: t == wanted,
        "!=": lambda t: t != wanted,
        "<": lambda t: t < wanted,
        "<=": lambda t: t <= wanted,
        ">": lambda t: t > wanted,
        ">=": lambda t: t >= wanted,
    }
    return lambda job: compare[operator](datetime.fromisoformat(job["createTime"]))

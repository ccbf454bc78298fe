"""The catalogue of rules: what each complaint is about, under a code that stays.

The texts are data (`data/rules.toml`), read when somebody asks for them; a code alone costs one look at the file.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, Final

from msgspec import Struct, convert

_FILE: Final = Path(__file__).resolve().parent / "data" / "rules.toml"
_ENTRY: Final = re.compile(r'^\[(BF\d{3})\]\nname = "([a-z0-9-]+)"\n((?:.+\n)*)', re.MULTILINE)

Example = str | dict[str, str]
"""Fields of the spec of a small project, or the texts of several of its files by path."""


class Rule(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One rule. why: what would happen otherwise; bad, good: an example that breaks it, and its mended form, where text
    can show it; severity: "error", "warning", or "error or warning" where circumstances decide; ignorable: whether a
    spec may say that it knows better."""

    code: str
    name: str
    title: str
    why: str
    fix: str
    severity: str = "error"
    ignorable: bool = False
    bad: Example | None = None
    good: Example | None = None

    @property
    def may_be_ignored(self) -> bool:
        """Whether `ignore:` in a spec works on it: on warnings, and on errors that the service may have outgrown."""
        return self.ignorable or self.severity == "warning"


def code_of(name: str) -> str:
    """`BF101` of `unknown-field`."""
    return _codes()[name]


@cache
def catalogue() -> Mapping[str, Rule]:
    """All rules by code, in order of codes."""
    import tomllib

    raw: dict[str, dict[str, Any]] = tomllib.loads(_FILE.read_text())
    return {code: convert({"code": code, **fields}, Rule) for code, fields in raw.items()}


def may_be_ignored(code: str) -> bool | None:
    """Whether `ignore:` in a spec works on a rule; None where there is no such rule."""
    found = _entries().get(code)
    return None if found is None else found[1]


@cache
def _codes() -> Mapping[str, str]:
    return {name: code for code, (name, _) in _entries().items()}


@cache
def _entries() -> Mapping[str, tuple[str, bool]]:
    """Code → name, and whether it may be ignored. Found by lines, since a plan needs no more, and parsing all texts
    costs a tenth of its start; a test holds it against the catalogue."""
    marks = ('severity = "warning"', "ignorable = true")
    return {
        code: (name, any(mark in fields.split("\n") for mark in marks))
        for code, name, fields in _ENTRY.findall(_FILE.read_text())
    }

"""Rules on what single rows would send. Every request that a plan would send passes here, so rows are looked at in
batches: one expression over all of them finds those that deserve a closer look."""

from __future__ import annotations

import re
from typing import Final

import msgspec

from batchform.errors import Diagnostic
from batchform.plan.registry import ModelInfo
from batchform.spec.resolved import ResolvedSpec
from batchform.spec.secrets import MARKS, secret_in
from batchform.spec.wording import counted, dotted, shown
from batchform.spec.yaml_source import leaves

_NAMED: Final = 5
_BATCH_ROWS: Final = 1024
_BATCH_BYTES: Final = 4 << 20
_HOME: Final = re.compile(
    r"(?i)(?:/home/|/users/|\b[a-z]:\\+users\\+)(?!(?:user|username|runner|shared|you)\b)[a-z][\w.-]*"
)
_SUSPECT: Final = rf"{MARKS}|/home/|/Users/|/users/|\\Users\\|\\users\\"
_EXPECTED_BYTES: Final = 4
_MOST_BYTES: Final = 8
"""Bytes of a token: of ordinary text, and more than any text has. What is longer than the second is surely too long."""


class _Found(msgspec.Struct):
    first: str  # what is to be said of the first row
    rows: int = 0
    keys: list[str] = msgspec.field(default_factory=list)


class EnoughRows(Exception):
    """As many rows were looked at as were asked for."""


class RowRules:
    """Looks at the requests of one spec; complains at the end, once for each rule. info: what is known of its model;
    most: rows to look at, None for all."""

    def __init__(self, spec: ResolvedSpec, info: ModelInfo | None, *, most: int | None = None) -> None:
        self._spec = spec
        self._left = most
        self._most_tokens = info.max_input_tokens if info else None
        self._long = (self._most_tokens or 1 << 60) * _EXPECTED_BYTES
        self._found: dict[str, _Found] = {}
        self._keys: list[str] = []
        self._requests: list[bytes] = []
        self._bytes = 0

    def look(self, key: str, request: bytes) -> None:
        """Judge one canonical request, now or with the next ones. Raises EnoughRows."""
        if self._left is not None:
            if not self._left:
                raise EnoughRows
            self._left -= 1
        self._keys.append(key)
        self._requests.append(request)
        self._bytes += len(request)
        if self._bytes >= _BATCH_BYTES or len(self._keys) >= _BATCH_ROWS:
            self._judge_batch()

    def complaints(self) -> list[Diagnostic]:
        """One for each rule that was broken, with how many rows broke it and the first of them."""
        self._judge_batch()
        return [self._complaint(rule, found) for rule, found in sorted(self._found.items())]

    def _judge_batch(self) -> None:
        if not self._keys:
            return
        import pyarrow as pa  # never where there is nothing to send: a plan without changes must start at once
        import pyarrow.compute as pc

        requests = pa.array(self._requests, pa.binary())
        long = pc.greater(pc.binary_length(requests), self._long)
        closer = pc.or_(pc.match_substring_regex(requests, _SUSPECT), long)
        for index in pc.indices_nonzero(closer).to_pylist():
            self._judge(self._keys[index], self._requests[index])
        self._keys, self._requests, self._bytes = [], [], 0

    def _judge(self, key: str, request: bytes) -> None:
        for at, text in leaves(msgspec.json.decode(request)):
            if not isinstance(text, str):
                continue
            path = f"$.{dotted(at)}"
            if kind := secret_in(text):
                self._note("secret-in-row", key, f"{kind} at {path}")
            if _HOME.search(text):
                self._note("personal-path", key, path)
        if len(request) > self._long:
            surely = len(request) > self._long // _EXPECTED_BYTES * _MOST_BYTES
            self._note("prompt-too-long" if surely else "prompt-long", key, f"{len(request):,} bytes")

    def _note(self, rule: str, key: str, words: str) -> None:
        found = self._found.setdefault(rule, _Found(words))
        if key in found.keys[-1:]:
            return  # the same row, at another place
        found.rows += 1
        if len(found.keys) < _NAMED:
            found.keys.append(key)

    def _complaint(self, rule: str, found: _Found) -> Diagnostic:
        keys = ", ".join(f"`{shown(key, 60)}`" for key in found.keys)
        rows = f"{counted(found.rows, 'row')} ({keys}{', …' if found.rows > len(found.keys) else ''})"
        most = f"the {self._most_tokens or 0:,} tokens that {self._spec.model} takes; the first has {found.first}"
        message, hint, severity = {
            "secret-in-row": (
                f"{rows} would send what looks like {found.first}",
                "Leave the column out of the prompt, or the rows with source.where; revoke what was exposed.",
                "error",
            ),
            "personal-path": (
                f"{rows} would send a path of somebody's home folder, at {found.first}",
                "It tells the model nothing: send the file's name, or its text.",
                "warning",
            ),
            "prompt-too-long": (f"{rows} would send more than {most}", _CUT, "error"),
            "prompt-long": (f"{rows} may send more than {most}", _CUT, "warning"),
        }[rule]
        return Diagnostic(rule, message, self._spec.at("prompt"), hint=hint, severity=severity)


_CUT: Final = "Cut the text in the template, `{{ text | truncate(100000) }}`, or split the rows."

"""What is in store for a job, when faults made it so: how it ends, what of it runs, who sees it, what its rows get."""

from __future__ import annotations

import math
import sqlite3
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Final

import msgspec
from msgspec.structs import replace

from batchform.emulator.answers import Outcome
from batchform.emulator.refusal import Refusal

NEVER: Final = 1e15  # a job's end that nobody lives to see


class RowFate(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """What some rows get in place of their answer. keys: globs; rows: line numbers from 1; neither: every row.

    offsets: where those lines start in the input, worked out when the job is made.
    """

    rows: tuple[int, ...] = ()
    keys: tuple[str, ...] = ()
    offsets: tuple[int, ...] = ()
    error: int = 0  # HTTP status
    message: str = ""
    details: bool = False
    finish: str = ""
    text: str = "keep"  # or none, half, thought
    block: str = ""

    def is_for(self, key: str | None, offset: int) -> bool:
        chosen = offset in self.offsets or any(fnmatchcase(key or "", glob) for glob in self.keys)
        return chosen or not (self.rows or self.keys)

    def applied(self, outcome: Outcome) -> Outcome:
        """The outcome of a row that has this fate. An error is not charged, everything else is."""
        if self.error:
            message = self.message or f"The fault schedule asked for this error ({self.error})."
            detail = {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "SCRIPTED", "metadata": {"n": "1"}}
            return Outcome(None, Refusal(self.error, message, details=[detail] if self.details else None), 0, 0)
        if outcome.response is None:
            return outcome
        if self.block:
            return _blocked(outcome, self.block)
        return replace(outcome, response=self._finished(outcome.response))

    def _finished(self, response: dict[str, Any]) -> dict[str, Any]:
        candidates = [
            {**c, "finishReason": self.finish, "content": _spoken(c["content"], self.text)}
            for c in response.get("candidates", ())
        ]
        return {**response, "candidates": candidates}


class Fate(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """state: the last one; share: of the rows of each 500 that run; seconds: until then, None for the emulator's own.

    code, message: the job's error; list_lag, get_lag: seconds for which nobody sees it; listed_at, got_at: until when.
    results: what faults do to results when they are written, as in a schedule (Vertex AI only).
    """

    state: str = "SUCCEEDED"
    share: float = 1.0
    seconds: float | None = None
    code: int = 0
    message: str = ""
    list_lag: float = 0.0
    get_lag: float = 0.0
    listed_at: float = 0.0
    got_at: float = 0.0
    rows: tuple[RowFate, ...] = ()
    results: tuple[dict[str, Any], ...] = ()

    @classmethod
    def of(cls, job: sqlite3.Row) -> Fate:
        return msgspec.json.decode(job["fate"], type=cls) if job["fate"] else ORDINARY

    def begun(self, now: float, path: Path) -> Fate:
        """The fate of a job that is made now. path: its input."""
        rows = tuple(msgspec.structs.replace(r, offsets=_offsets(path, r.rows)) if r.rows else r for r in self.rows)
        return msgspec.structs.replace(self, listed_at=now + self.list_lag, got_at=now + self.get_lag, rows=rows)

    def stored(self) -> str | None:
        """As the state keeps it; nothing for an ordinary job."""
        return None if self == ORDINARY else msgspec.json.encode(self).decode()

    def running(self, lines: int) -> int:
        """How many of a block's lines run."""
        return math.ceil(self.share * lines)

    def of_row(self, key: str | None, offset: int = -1) -> RowFate | None:
        return next((row for row in self.rows if row.is_for(key, offset)), None)

    @property
    def has_results(self) -> bool:
        """Whether there are results once it has ended; they may be empty."""
        return self.share > 0 or self.state == "SUCCEEDED"


ORDINARY: Final = Fate()


def _offsets(path: Path, numbers: tuple[int, ...]) -> tuple[int, ...]:
    """Where lines with these numbers start; blank lines do not count."""
    found, number, position = [], 0, 0
    with path.open("rb") as f:
        for line in f:
            if line.strip():
                number += 1
                if number in numbers:
                    found.append(position)
            position += len(line)
    return tuple(found)


def _blocked(outcome: Outcome, reason: str) -> Outcome:
    """The response of a prompt that was refused: it has no candidates."""
    response = dict(outcome.response or {})
    response.pop("candidates", None)
    usage = {k: v for k, v in response["usageMetadata"].items() if not k.startswith(("candidates", "thoughts"))}
    usage["totalTokenCount"] = usage["promptTokenCount"]
    response = {"promptFeedback": {"blockReason": reason}, **response, "usageMetadata": usage}
    return replace(outcome, response=response, output_tokens=0)


def _spoken(content: dict[str, Any], text: str) -> dict[str, Any]:
    """A candidate's content, with so much of its text."""
    if text == "keep" or "parts" not in content:
        return content
    if text == "thought":
        return {**content, "parts": [{"text": "The emulator does not think.", "thought": True}]}
    if text == "none":
        return {name: value for name, value in content.items() if name != "parts"}
    parts = [{**p, "text": p["text"][: len(p["text"]) // 2]} if "text" in p else p for p in content["parts"]]
    return {**content, "parts": parts}

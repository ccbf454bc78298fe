"""A row of a job: how its line is read, and how its result is written. One form per API; the engine knows neither."""

from __future__ import annotations

from typing import Any, Protocol

import msgspec

from batchform.emulator import strict
from batchform.emulator.answers import Outcome
from batchform.emulator.models import Model
from batchform.emulator.refusal import RPC_CODES, Refusal

_encode = msgspec.json.Encoder().encode


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One line of a job's input. request: normalised; tags: what comes back beside the result.

    wrong: why it cannot run; kept: its result from an earlier job, which is handed on and costs nothing.
    """

    key: str | None
    request: dict[str, Any]
    tags: dict[str, Any]
    wrong: Refusal | None = None
    kept: bytes | None = None


class Form(Protocol):
    """How lines of a job are read and written; results end with a line end."""

    def read(self, line: bytes) -> Row: ...

    def line(self, row: Row, outcome: Outcome) -> bytes: ...

    def left(self, line: bytes) -> bytes:
        """What comes back of a line that did not run."""
        ...

    def stranger(self, row: Row) -> Row:
        """The same row under a key that nobody sent."""
        ...


def line_kind(model: Model, *, file: bool) -> str:
    """The message that a line of a job is."""
    if model.embeds:
        return "EmbedFileLine" if file else "EmbedInlineItem"
    return "FileLine" if file else "InlineItem"


class GeminiForm:
    """Lines of the Gemini Developer API, in a file or inline."""

    def __init__(self, kind: str) -> None:
        self._kind = kind

    def read(self, line: bytes) -> Row:
        value = strict.read(self._kind, line)
        tags: dict[str, Any] = {name: value[name] for name in ("key", "metadata") if name in value}
        key = value.get("key") or value.get("metadata", {}).get("key")
        return Row(key=key, request=value["request"], tags=tags)

    def line(self, row: Row, outcome: Outcome) -> bytes:
        if outcome.error is None:
            return _encode({"response": outcome.response, **row.tags}) + b"\n"
        error: dict[str, Any] = {"code": RPC_CODES[outcome.error.status], "message": outcome.error.message}
        if outcome.error.details:
            error["details"] = outcome.error.details
        return _encode({"error": error, **row.tags}) + b"\n"

    def left(self, line: bytes) -> bytes:  # noqa: ARG002  (nothing comes back of it)
        return b""

    def stranger(self, row: Row) -> Row:
        foreign = f"unknown-{row.key}"
        tags = {"metadata": {"key": foreign}} if "metadata" in row.tags else {"key": foreign}
        return msgspec.structs.replace(row, key=foreign, tags=tags)

"""Lines of Vertex AI: as a job keeps its input, as its requests run, and as its results are written."""

from __future__ import annotations

import sqlite3
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any, Final

import msgspec
from msgspec import Struct

from batchform.emulator import models, rules, strict
from batchform.emulator.answers import Outcome
from batchform.emulator.fate import Fate
from batchform.emulator.models import Model
from batchform.emulator.refusal import Refusal
from batchform.emulator.rows import Row
from batchform.emulator.vertex.columns import filled, tag, without_nulls
from batchform.emulator.vertex.plan import Plan

OUTPUTS: Final = ("status", "processed_time", "response")
"""What a result has more than its line: a line that has any of them is a result of an earlier job."""

_encode = msgspec.json.Encoder().encode


class Line(Struct, frozen=True, kw_only=True, omit_defaults=True, rename={"tags": "t", "request": "r", "prior": "p"}):
    """A line of a job's own copy of its input. request: an object, or what a table's column held; prior: OUTPUTS."""

    tags: dict[str, Any]
    request: Any = None
    prior: dict[str, Any] | None = None


_lines = msgspec.json.Decoder(Line)


def encode_line(line: Line) -> bytes:
    """As the copy has it."""
    return _encode(line) + b"\n"


def read_request(raw: bytes, model: Model) -> dict[str, Any]:
    """A normalised request, checked. Raises Refusal 400."""
    try:
        request = strict.read("VertexEmbedRequest" if model.embeds else "VertexRequest", raw)
    except strict.Misfit as e:
        raise e.refusal() from e
    check(request, model)
    return request


def check(request: dict[str, Any], model: Model) -> None:
    """Raise Refusal for what Vertex AI refuses: each content needs a role, a batch takes no explicit cache."""
    for content in request.get("contents", ()):
        if content.get("role") not in ("user", "model", "function"):
            raise Refusal(400, "Please use a valid role: user, model.")
    if "cachedContent" in request:
        raise Refusal(400, "Explicit context caching is not supported here.")
    rules.check(request, model, vertex=True)


def check_batch(request: dict[str, Any]) -> None:
    """Raise Refusal for what only batches refuse: retrieval (RAG), and images larger than 1K."""
    if any("retrieval" in tool for tool in request.get("tools", ())):
        raise Refusal(400, "Retrieval is not supported in batches.")
    size = request.get("generationConfig", {}).get("imageConfig", {}).get("imageSize", "1K")
    if size != "1K":
        raise Refusal(400, f"Image size {size} is not supported in batches: use 1K.")


class VertexForm:
    """How lines of one job are read and written."""

    def __init__(self, job: sqlite3.Row) -> None:
        self._plan = Plan.of(job)
        self._model = models.MODELS[job["model"]]
        self._leaves = Fate.of(job).state != "SUCCEEDED"
        self._time = datetime.fromtimestamp(job["ends_at"], UTC).isoformat(timespec="milliseconds")

    def read(self, line: bytes) -> Row:
        kept = _lines.decode(line)
        key = kept.tags.get("key")
        row = Row(key=None if key is None else str(key), request={}, tags={"tags": self._tags(kept), "line": kept})
        if kept.prior and not kept.prior["status"] and _is_full(kept.prior["response"]):
            shown = {**kept.tags, **_in_order(kept.prior, kept.request)}
            return msgspec.structs.replace(row, kept=_encode(shown) + b"\n")
        try:
            return msgspec.structs.replace(row, request=self._request(kept))
        except Refusal as e:
            return msgspec.structs.replace(row, wrong=e)

    def line(self, row: Row, outcome: Outcome) -> bytes:
        status, response = "", outcome.response
        if outcome.error is not None:
            reason = HTTPStatus(outcome.error.status).phrase if outcome.error.status != 499 else "Client Closed Request"
            status, response = f"{reason}: {_encode(outcome.error.body()).decode()}", {}
        return self._shown(row.tags["tags"], row.tags["line"], status, response)

    def left(self, line: bytes) -> bytes:
        """A line that did not run comes back without a response, so that a later job can go on with it."""
        kept = _lines.decode(line)
        if kept.prior and not kept.prior["status"] and _is_full(kept.prior["response"]):
            return _encode({**kept.tags, **_in_order(kept.prior, kept.request)}) + b"\n"
        return self._shown(self._tags(kept), kept, "", {}) if self._leaves else b""

    def stranger(self, row: Row) -> Row:
        tags = {**row.tags["tags"], "key": f"unknown-{row.key}"}
        return msgspec.structs.replace(row, key=tags["key"], tags={**row.tags, "tags": tags})

    def _shown(self, tags: dict[str, Any], line: Line, status: str, response: Any) -> bytes:
        request = line.request if line.prior else filled(line.request, self._plan.request)
        prior = {"status": status, "processed_time": self._time, "response": response}
        return _encode({**tags, **_in_order(prior, request)}) + b"\n"

    def _tags(self, line: Line) -> dict[str, Any]:
        if line.prior or self._plan.table_input:
            return line.tags
        return {name: tag(value, self._plan.looks.get(name, "")) for name, value in line.tags.items()}

    def _request(self, line: Line) -> dict[str, Any]:
        """What runs. A table's column holds text; what an earlier job has written, nulls that it had put in."""
        value = without_nulls(line.request) if line.prior else line.request
        raw = value.encode() if isinstance(value, str) else _encode(value)
        request = read_request(raw, self._model)
        check_batch(request)
        return request


def _is_full(response: Any) -> bool:
    return bool(response) and response not in ("{}", "null")


def _in_order(prior: dict[str, Any], request: Any) -> dict[str, Any]:
    return {
        "status": prior["status"] or "",
        "processed_time": prior["processed_time"],
        "request": request,
        "response": prior["response"],
    }

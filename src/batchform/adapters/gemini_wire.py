"""Shapes of the Gemini batch API on the wire: pure functions over plain JSON, without a vendor library."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import msgspec

from batchform.ports import RemoteJob, ServedModel

BATCH_METHOD: Final = "batchGenerateContent"
EMBED_METHOD: Final = "asyncBatchEmbedContent"
_STATE_PREFIXES: Final = ("BATCH_STATE_", "JOB_STATE_")
SHA256_BYTES: Final = 32
_COUNTS: Final = {
    "requestCount": "total",
    "successfulRequestCount": "succeeded",
    "failedRequestCount": "failed",
    "pendingRequestCount": "pending",
}


def remote_job(operation: dict[str, Any]) -> RemoteJob:
    """A job from the raw Operation. Never raises, whatever the service put into it."""
    meta = mapping(operation.get("metadata"))
    output = _output(operation)
    file = output.get("responsesFile")
    inline = "inlinedResponses" in output
    name = str(operation.get("name") or meta.get("name") or "")
    return RemoteJob(
        name=name,
        tag=str(meta.get("displayName") or ""),
        state=_state(operation, meta),
        model=str(meta.get("model") or "").removeprefix("models/"),
        created_at=parse_time(meta.get("createTime")),
        ended_at=parse_time(meta.get("endTime")),
        counts=_counts(mapping(meta.get("batchStats"))),
        input_name=str(mapping(meta.get("inputConfig")).get("fileName") or "") or None,
        results=str(file) if file else name if inline else None,
        inline_results=inline and not file,
        error=error_words(operation.get("error")) or error_words(meta.get("error")),
    )


def served_model(raw: dict[str, Any]) -> ServedModel:
    """A model from the raw list."""
    found = methods(raw)
    limits = [raw.get(name) for name in ("inputTokenLimit", "outputTokenLimit")]
    thinking = raw.get("thinking")
    return ServedModel(
        id=str(raw.get("name", "")).removeprefix("models/"),
        batch=BATCH_METHOD in found or EMBED_METHOD in found,
        max_input_tokens=limits[0] if isinstance(limits[0], int) else None,
        max_output_tokens=limits[1] if isinstance(limits[1], int) else None,
        embeds=(EMBED_METHOD in found or "embedContent" in found) and "generateContent" not in found if found else None,
        thinking=thinking if isinstance(thinking, bool) else None,
    )


def methods(raw: dict[str, Any]) -> list[str]:
    """What may be called on a model, as the service says under one name or the other."""
    found = raw.get("supportedGenerationMethods") or raw.get("supportedActions")
    return [str(m) for m in found] if isinstance(found, list) else []


def inline_body(lines: Iterable[bytes]) -> dict[str, Any]:
    """The create call's body for lines `{"key", "request"}`: each request as it is, its key as metadata."""
    requests = []
    for line in lines:
        row = msgspec.json.decode(line)
        requests.append({"request": row["request"], "metadata": {"key": row["key"]}})
    return {"batch": {"inputConfig": {"requests": {"requests": requests}}}}


def inline_result_lines(operation: dict[str, Any]) -> Iterator[bytes]:
    """The inline results of an Operation as JSON lines of file mode: `key` with `response` or `error`."""
    results = mapping(_output(operation).get("inlinedResponses")).get("inlinedResponses")
    for item in results if isinstance(results, list) else []:
        result = dict(mapping(item))
        metadata = mapping(result.pop("metadata", None))
        line = {"key": metadata["key"], **result} if "key" in metadata else result
        yield msgspec.json.encode(line) + b"\n"


def inline_lines(operation: dict[str, Any]) -> tuple[Iterator[bytes], Iterator[bytes]]:
    """Results of an inline job, and the requests that it shows, if it does: items as they are, as JSON lines."""
    config = mapping(mapping(operation.get("metadata")).get("inputConfig"))
    answered = mapping(_output(operation).get("inlinedResponses")).get("inlinedResponses")
    return _items(answered), _items(mapping(config.get("requests")).get("requests"))


def _items(found: Any) -> Iterator[bytes]:
    return (msgspec.json.encode(item) + b"\n" for item in (found if isinstance(found, list) else []))


def sha256_of(file: dict[str, Any] | None) -> str:
    """A File's `sha256Hash` as hex: it is base64 of that text, or of the bytes; "" if it is neither."""
    stated = str((file or {}).get("sha256Hash") or "")
    try:
        decoded = base64.b64decode(stated, altchars=b"-_" if "-" in stated or "_" in stated else None, validate=True)
        found = decoded.hex() if len(decoded) == SHA256_BYTES else bytes.fromhex(decoded.decode("ascii")).hex()
    except ValueError:
        return ""
    return found if len(found) == 2 * SHA256_BYTES else ""


def ends_whole(path: Path) -> bool:
    """Whether a file of JSON lines ends with a whole line: a line feed, or a last line that is JSON. Empty is whole."""
    with path.open("rb") as f:
        size = f.seek(0, 2)
        f.seek(max(0, size - 1))
        if f.read(1) in (b"", b"\n"):
            return True
        tail, at = b"", size
        while at and b"\n" not in tail:
            at = max(0, at - (1 << 16))
            f.seek(at)
            tail = f.read(size - at)
    try:
        msgspec.json.decode(tail.rpartition(b"\n")[2])
    except (msgspec.DecodeError, UnicodeDecodeError):
        return False
    return True


def sha256_matches(stated: str, hex_digest: str) -> bool:
    """Whether a File's `sha256Hash` is this digest: base64 of its hex text, or of its bytes."""
    try:
        decoded = base64.b64decode(stated, altchars=b"-_" if "-" in stated or "_" in stated else None, validate=True)
    except (binascii.Error, ValueError):
        return False
    return decoded in (hex_digest.encode(), bytes.fromhex(hex_digest))


def parse_time(value: Any) -> datetime | None:
    """An RFC 3339 time, its nanoseconds cut to microseconds; None if it is none."""
    if not isinstance(value, str):
        return None
    head, dot, rest = value.partition(".")
    digits = rest[: len(rest) - len(rest.lstrip("0123456789"))]
    text = head + dot + digits[:6] + rest[len(digits) :] if dot else value
    try:
        parsed = datetime.fromisoformat(text)
    except ValueError:
        return None
    return parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)


def _output(operation: dict[str, Any]) -> dict[str, Any]:
    """Where the results are: `metadata.output` or `response`, whichever says so."""
    for place in (mapping(operation.get("metadata")).get("output"), operation.get("response")):
        output = mapping(place)
        if "responsesFile" in output or "inlinedResponses" in output:
            return output
    return {}


def _state(operation: dict[str, Any], meta: dict[str, Any]) -> str:
    state = str(meta.get("state") or "")
    for prefix in _STATE_PREFIXES:
        state = state.removeprefix(prefix)
    if state and state != "UNSPECIFIED":
        return state
    if operation.get("done") is True:
        return "FAILED" if operation.get("error") else "SUCCEEDED"
    return state or "UNSPECIFIED"


def _counts(stats: dict[str, Any]) -> dict[str, int]:
    """Counts are strings on the wire; what is no number is left out."""
    return {ours: int(stats[theirs]) for theirs, ours in _COUNTS.items() if str(stats.get(theirs, "")).isdecimal()}


def error_words(error: Any) -> str:
    """A google.rpc.Status in words, whatever its shape."""
    if not error:
        return ""
    if not isinstance(error, dict):
        return str(error)
    code, message = error.get("code"), str(error.get("message") or "").strip()
    return f"{message or error} (code {code})" if code is not None else message or str(error)


def mapping(value: Any) -> dict[str, Any]:
    """The value if it is a JSON object, else an empty one."""
    return value if isinstance(value, dict) else {}

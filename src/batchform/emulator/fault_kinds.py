"""What a fault can do to any call: fail it, drop it, slow it, spoil its answer. See docs/emulator.md.

Every kind is a model of its fields. `calls` names the routes it works on, `examples` are written as in a schedule: they
stand in the documentation, and `faults.catalogue` hands them out for tests that try all kinds everywhere.
"""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Any, ClassVar, Final, Literal

from pydantic import Field

from batchform.emulator.refusal import STATUS_WORDS
from batchform.spec.fields import Duration, Strict

VERTEX: Final = "vertex."
API_CALLS: Final = ("files.*", "batches.*", "models.*")
EVERY_CALL: Final = (*API_CALLS, "caches.*", "storage.*", "bigquery.*")
_BYTES: Final = ("files.upload.bytes", "storage.uploads.bytes")
HTML: Final = b"<!DOCTYPE html>\n<html><title>Error</title><body><h1>That is an error.</h1></body></html>\n"

Share = Field(0.5, ge=0, le=1, description="Share that is kept.")


class Kind(Strict):
    """Base of all kinds. calls: globs of routes; examples: in YAML's flow style, for Vertex AI where they differ."""

    calls: ClassVar[tuple[str, ...]] = API_CALLS
    examples: ClassVar[tuple[str, ...]] = ()
    vertex_examples: ClassVar[tuple[str, ...]] = ()

    @classmethod
    def works_on(cls, call: str) -> bool:
        """Whether it can happen to a call. Those of Vertex AI have the Gemini API's names, after `vertex.`."""
        return any(fnmatchcase(call.removeprefix(VERTEX), glob) for glob in cls.calls)

    @property
    def word(self) -> str:
        """The `type` that stands for this kind in a schedule."""
        return str(self.model_dump()["type"])

    @property
    def instead(self) -> bool:
        """Whether the call is answered without its effect."""
        return False

    @property
    def final(self) -> bool:
        """Whether nothing else can happen to the answer."""
        return False

    @property
    def delays(self) -> bool:
        """Whether all that it does is to wait before the call, so that others have room beside it."""
        return False


class EntryKind(Kind):
    """A kind that changes a job or file as an answer shows it, alone or in a list."""

    def change(self, entry: dict[str, Any]) -> bool:
        """Change it in place. False when there was nothing to change."""
        raise NotImplementedError


class _Placed(Kind):
    """A kind that takes the answer's place, before or after the effect."""

    when: Literal["before", "after"] = Field(
        "before", description="Before the effect, so that there is none, or after."
    )

    @property
    def instead(self) -> bool:
        return self.when == "before"

    @property
    def final(self) -> bool:
        return True


class Error(_Placed):
    """The call is answered with this error, in Google's shape, before its effect or after it."""

    type: Literal["error"]
    status: Literal[400, 401, 403, 404, 408, 409, 429, 499, 500, 501, 502, 503, 504] = Field(
        503, description="HTTP status."
    )
    message: str = Field("", description="Text of the error.")
    reason: str = Field(
        "", description="BigQuery's word for it, by which its clients repeat a call: rateLimitExceeded."
    )
    body: Literal["json", "html", "empty"] = Field("json", description="html: as a proxy answers.")
    retry_after: int | None = Field(None, ge=0, description="Seconds in a Retry-After header.")
    retry_info: Duration | None = Field(None, description="Seconds in a RetryInfo detail.")

    calls: ClassVar[tuple[str, ...]] = EVERY_CALL
    examples: ClassVar[tuple[str, ...]] = (
        *(f"{{type: error, status: {status}}}" for status in (400, 401, 403, 404, 408, 409, 429, 500, 502, 503, 504)),
        *(f"{{type: error, status: {status}, when: after}}" for status in (408, 409, 429, 500, 502, 503, 504)),
        "{type: error, status: 429, retry_info: 2s}",
        "{type: error, status: 429, retry_after: 2}",
        "{type: error, status: 502, body: html}",
        "{type: error, status: 502, body: html, when: after}",
        "{type: error, status: 503, body: empty}",
        "{type: error, status: 400, reason: rateLimitExceeded}",
    )

    def google_body(self) -> dict[str, Any]:
        """The error as Google writes it."""
        message = self.message or f"The fault schedule answers this call with {self.status}."
        word = STATUS_WORDS.get(self.status, "UNKNOWN")
        error: dict[str, Any] = {"code": self.status, "message": message, "status": word}
        if self.reason:
            error["errors"] = [{"message": message, "domain": "global", "reason": self.reason}]
        if self.retry_info is not None:
            delay = f"{self.retry_info:.9f}".rstrip("0").rstrip(".") + "s"
            error["details"] = [{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": delay}]
        return {"error": error}


class Nonsense(_Placed):
    """The call is answered with 200 and a body that is none of the API's."""

    type: Literal["nonsense"]
    body: Literal["empty", "html", "text", "list", "null", "object"] = Field("empty", description="What comes.")

    examples: ClassVar[tuple[str, ...]] = (
        "{type: nonsense, body: empty}",
        "{type: nonsense, body: html, when: after}",
        "{type: nonsense, body: text, when: after}",
        "{type: nonsense, body: list, when: after}",
        "{type: nonsense, body: 'null', when: after}",
        "{type: nonsense, body: object, when: after}",
    )

    def content(self) -> tuple[bytes, str]:
        """Body and media type."""
        if self.body == "html":
            return HTML, "text/html; charset=UTF-8"
        body = {"empty": b"", "text": b"upstream says hi", "list": b"[1, 2]", "null": b"null"}
        body["object"] = b'{"hello": "world"}'
        return body[self.body], "application/json; charset=UTF-8"


class Drop(Kind):
    """The connection is closed: before the effect, after it, or in the middle of the answer's body."""

    type: Literal["drop"]
    when: Literal["before", "after", "body"] = Field("before", description="How far the call gets.")
    how: Literal["close", "reset"] = Field("close", description="An orderly end (FIN) or a reset (RST).")
    keep: float = Field(0.5, ge=0, le=1, description="Share of the body that is sent, with `when: body`.")

    calls: ClassVar[tuple[str, ...]] = EVERY_CALL
    examples: ClassVar[tuple[str, ...]] = (
        "{type: drop}",
        "{type: drop, how: reset}",
        "{type: drop, when: after}",
        "{type: drop, when: after, how: reset}",
        "{type: drop, when: body}",
        "{type: drop, when: body, keep: 0}",
        "{type: drop, when: body, how: reset}",
    )

    @property
    def instead(self) -> bool:
        return self.when == "before"

    @property
    def final(self) -> bool:
        return True


class Cut(Kind):
    """The answer ends early, and its length says that it is whole."""

    type: Literal["cut"]
    keep: float = Share

    calls: ClassVar[tuple[str, ...]] = (*API_CALLS, "storage.objects.download")
    examples: ClassVar[tuple[str, ...]] = ("{type: cut}", "{type: cut, keep: 0.99}")

    @property
    def final(self) -> bool:
        return True


class Slow(Kind):
    """The call takes longer, in seconds of the real clock: before its effect, before its answer, or piece by piece."""

    type: Literal["slow"]
    seconds: Duration = Field(description="How much longer.")
    when: Literal["before", "after", "body"] = Field("before", description="body: the answer comes in ten pieces.")

    calls: ClassVar[tuple[str, ...]] = EVERY_CALL
    examples: ClassVar[tuple[str, ...]] = (
        "{type: slow, seconds: 0.1}",
        "{type: slow, seconds: 0.1, when: after}",
        "{type: slow, seconds: 0.1, when: body}",
    )

    @property
    def delays(self) -> bool:
        return self.when == "before"


class ClockSkew(Kind):
    """The service's clock is so many seconds ahead (or behind): the Date header, and each time in the answer."""

    type: Literal["clock_skew"]
    seconds: float = Field(description="How far ahead; negative is behind.")

    examples: ClassVar[tuple[str, ...]] = ("{type: clock_skew, seconds: 7200}", "{type: clock_skew, seconds: -7200}")


class Ignored(Kind):
    """The call is answered as if it had been done, and is not: a cancelled job goes on, a deleted one stays."""

    type: Literal["ignored"]

    calls: ClassVar[tuple[str, ...]] = ("batches.cancel", "batches.delete", "files.delete")
    examples: ClassVar[tuple[str, ...]] = ("{type: ignored}",)

    @property
    def instead(self) -> bool:
        return True


class ShortChunk(Kind):
    """Of the bytes of this upload call only a share arrives; a client that asks (`query`) is told so."""

    type: Literal["short_chunk"]
    keep: float = Share
    then: Literal["error", "drop"] = Field("error", description="The answer: 503 without upload headers, or none.")

    calls: ClassVar[tuple[str, ...]] = _BYTES
    examples: ClassVar[tuple[str, ...]] = (
        "{type: short_chunk}",
        "{type: short_chunk, keep: 0}",
        "{type: short_chunk, then: drop}",
    )

    @property
    def final(self) -> bool:
        return True


class LostUpload(Kind):
    """The service forgets the upload and its bytes: 404, for this call and all later ones."""

    type: Literal["lost_upload"]

    calls: ClassVar[tuple[str, ...]] = _BYTES
    examples: ClassVar[tuple[str, ...]] = ("{type: lost_upload}",)


class NoUploadHeaders(Kind):
    """The answer lacks its X-Goog-Upload-… headers: no URL for the bytes, or no word of how far the upload got."""

    type: Literal["no_upload_headers"]

    calls: ClassVar[tuple[str, ...]] = ("files.upload.*",)
    examples: ClassVar[tuple[str, ...]] = ("{type: no_upload_headers}",)


class DamagedUpload(Kind):
    """The bytes are stored with one of them changed. The digest of the file says so."""

    type: Literal["damaged_upload"]

    calls: ClassVar[tuple[str, ...]] = _BYTES
    examples: ClassVar[tuple[str, ...]] = ("{type: damaged_upload}",)


class FileState(EntryKind):
    """The file is shown in another state."""

    type: Literal["file_state"]
    state: str = Field("PROCESSING", description="PROCESSING, FAILED, or a word that nobody knows.")

    calls: ClassVar[tuple[str, ...]] = ("files.get", "files.list", "files.upload.bytes")
    examples: ClassVar[tuple[str, ...]] = ("{type: file_state, state: PROCESSING}", "{type: file_state, state: FAILED}")

    def change(self, file: dict[str, Any]) -> bool:
        file["state"] = self.state
        return True


CALL_KINDS: Final = (
    Error, Nonsense, Drop, Cut, Slow, ClockSkew, Ignored, ShortChunk, LostUpload, NoUploadHeaders, DamagedUpload,
    FileState,
)  # fmt: skip

"""How the emulator says no: Google's error body, as an exception that the app turns into an answer."""

from __future__ import annotations

from typing import Any, Final

STATUS_WORDS: Final = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    408: "DEADLINE_EXCEEDED",
    409: "ALREADY_EXISTS",
    429: "RESOURCE_EXHAUSTED",
    499: "CANCELLED",
    500: "INTERNAL",
    501: "UNIMPLEMENTED",
    502: "UNAVAILABLE",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}

RPC_CODES: Final = {
    400: 3,
    401: 16,
    403: 7,
    404: 5,
    409: 6,
    429: 8,
    499: 1,
    500: 13,
    501: 12,
    503: 14,
    504: 4,
}
"""HTTP status → google.rpc.Code, which is what a row's `error` carries."""


class Refusal(Exception):
    """An answer other than 200. `status`: one of STATUS_WORDS; details: google.rpc messages as JSON.

    word: where the status has several, such as FAILED_PRECONDITION beside INVALID_ARGUMENT.
    """

    def __init__(
        self, status: int, message: str, *, details: list[dict[str, Any]] | None = None, word: str | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.details = details
        self.word = word

    def body(self) -> dict[str, Any]:
        """`{"error": {code, message, status, details?}}`."""
        error: dict[str, Any] = {
            "code": self.status,
            "message": self.message,
            "status": self.word or STATUS_WORDS.get(self.status, "UNKNOWN"),
        }
        if self.details:
            error["details"] = self.details
        return {"error": error}


def bad_field(description: str, field: str = "") -> Refusal:
    """400 as proto-JSON parsing says it, with its BadRequest detail."""
    violation = {"field": field, "description": description} if field else {"description": description}
    detail = {"@type": "type.googleapis.com/google.rpc.BadRequest", "fieldViolations": [violation]}
    return Refusal(400, description, details=[detail])


def file_forbidden(file_id: str) -> Refusal:
    """What the service says of a file that is missing, expired or someone else's: 403, never 404."""
    return Refusal(403, f"You do not have permission to access the File {file_id} or it may not exist.")

"""How BigQuery says no: its error body names a reason, by which clients decide whether to try again."""

from __future__ import annotations

from typing import Any, Final

from batchform.emulator.refusal import Refusal

REASONS: Final = {
    400: "invalid",
    403: "accessDenied",
    404: "notFound",
    409: "duplicate",
    412: "conditionNotMet",
    500: "internalError",
    501: "notImplemented",
    503: "backendError",
}


class Declined(Refusal):
    """A refusal with a reason: `invalid`, `invalidQuery`, `notFound`, `duplicate`, `conditionNotMet`, …

    Nothing here is ever 500 or 503 by mistake: clients would repeat the call for ten minutes.
    """

    def __init__(self, status: int, message: str, *, reason: str = "") -> None:
        super().__init__(status, message)
        self.reason = reason or REASONS.get(status, "invalid")

    def body(self) -> dict[str, Any]:
        """`{"error": {code, message, errors: [{message, domain, reason}], status}}`."""
        body = super().body()
        body["error"]["errors"] = [{"message": self.message, "domain": "global", "reason": self.reason}]
        return body

    def result(self) -> dict[str, Any]:
        """As a job carries it."""
        return {"reason": self.reason, "message": self.message}


def invalid(message: str) -> Declined:
    """400 for a request that makes no sense."""
    return Declined(400, message)


def invalid_query(message: str) -> Declined:
    """400 for SQL."""
    return Declined(400, message, reason="invalidQuery")


def not_supported(what: str) -> Declined:
    """501 for what BigQuery has and the emulator has not."""
    return Declined(501, f"The emulator's BigQuery does not support {what}.")


def of_error(error: dict[str, Any]) -> Declined:
    """The refusal that a failed job's error stands for."""
    status = {reason: status for status, reason in REASONS.items()}.get(error["reason"], 400)
    return Declined(status, error["message"], reason=error["reason"])


def unforeseen(error: Exception) -> Declined:
    """400 for what went wrong in the emulator itself. Clients would repeat a 500 for ten minutes."""
    return Declined(400, f"The emulator's BigQuery failed: {type(error).__name__}: {error}")

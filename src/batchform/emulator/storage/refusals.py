"""How Cloud Storage says no."""

from __future__ import annotations

from typing import Any

from batchform.emulator.refusal import Refusal


class StorageRefusal(Refusal):
    """An error of Cloud Storage. reason: its word in JSON (`conditionNotMet`); code: its word in XML."""

    def __init__(self, status: int, message: str, *, reason: str, code: str) -> None:
        super().__init__(status, message)
        self.reason, self.code = reason, code

    def body(self) -> dict[str, Any]:
        """`{"error": {code, message, errors: [{message, domain, reason}]}}`."""
        detail = {"message": self.message, "domain": "global", "reason": self.reason}
        return {"error": {"code": self.status, "message": self.message, "errors": [detail]}}


def no_bucket(bucket: str) -> StorageRefusal:
    return StorageRefusal(404, f"There is no such bucket: {bucket}.", reason="notFound", code="NoSuchBucket")


def no_object(bucket: str, name: str, generation: int | None = None) -> StorageRefusal:
    which = f"{bucket}/{name}" + (f"#{generation}" if generation else "")
    return StorageRefusal(404, f"No such object: {which}", reason="notFound", code="NoSuchKey")


def no_upload() -> StorageRefusal:
    return StorageRefusal(404, "There is no such upload; it may have expired.", reason="notFound", code="NoSuchUpload")


def condition_not_met(which: str) -> StorageRefusal:
    message = f"At least one of the pre-conditions you specified did not hold: {which}."
    return StorageRefusal(412, message, reason="conditionNotMet", code="PreconditionFailed")


def not_modified() -> StorageRefusal:
    return StorageRefusal(304, "Not modified.", reason="notModified", code="NotModified")


def invalid(message: str, *, code: str = "InvalidArgument") -> StorageRefusal:
    return StorageRefusal(400, message, reason="invalid", code=code)


def conflict(message: str, *, code: str) -> StorageRefusal:
    return StorageRefusal(409, message, reason="conflict", code=code)


def no_range(size: int) -> StorageRefusal:
    message = f"The requested range cannot be satisfied: the object has {size} bytes."
    return StorageRefusal(416, message, reason="requestedRangeNotSatisfiable", code="InvalidRange")


def too_often(bucket: str, name: str) -> StorageRefusal:
    message = (
        f"The object {bucket}/{name} exceeded the rate limit for object mutation operations (create, update, and "
        "delete). Please reduce your request rate. See https://cloud.google.com/storage/docs/gcs429."
    )
    return StorageRefusal(429, message, reason="rateLimitExceeded", code="SlowDown")


def unserved(message: str) -> StorageRefusal:
    return StorageRefusal(501, message, reason="notImplemented", code="NotImplemented")

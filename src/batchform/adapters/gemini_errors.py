"""The one place where exceptions of google-genai and httpx2 become ours.

Two questions are answered here: what happened (`translate`), and, for a create call, whether a job may exist
(`create_outcome`). No message ever holds the API key.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import httpx2
from google.genai import errors as genai_errors
from msgspec import Struct

from batchform.errors import AuthError, BackendError, NotCreated, NotFound, OutcomeUnknown

VENDOR_ERRORS: tuple[type[Exception], ...] = (
    genai_errors.APIError,
    genai_errors.ContinuationInterruptedError,
    httpx2.HTTPError,
    httpx2.InvalidURL,
    httpx2.StreamError,
    httpx2.CookieConflict,
    ValueError,  # the SDK's own checks, pydantic and JSON errors
    KeyError,  # files.upload without an upload URL in the answer
    AttributeError,  # answers of a shape that the SDK does not expect
    TypeError,
)
"""Bases of everything that the vendor's libraries raise. A test enumerates their classes against it."""

NEVER_SENT: tuple[type[Exception], ...] = (
    httpx2.ConnectError,  # refused, DNS, TLS
    httpx2.ConnectTimeout,
    httpx2.PoolTimeout,
    httpx2.ProxyError,
    httpx2.UnsupportedProtocol,
    httpx2.InvalidURL,
)
"""Transport errors after which the request surely did not reach the service."""

SURELY_REFUSED = frozenset({400, 401, 403, 404, 429})
"""HTTP statuses of a create call after which there surely is no job."""

RETRYABLE_STATUS = frozenset({408, 429, 500, 502, 503, 504})

AGAIN = "Run again in a while: it goes on where it stopped."
"""What to do about a service that fails."""


class Redactor(Struct, frozen=True):
    """Takes the API key out of whatever is shown to people."""

    secret: str

    def __call__(self, text: str) -> str:
        return text.replace(self.secret, "[API key]") if self.secret else text

    def __repr__(self) -> str:
        return "Redactor()"


@contextmanager
def vendor_errors(doing: str, redact: Redactor) -> Iterator[None]:
    """Run vendor calls; whatever they raise comes out as a BackendError that starts with `doing`."""
    try:
        yield
    except VENDOR_ERRORS as error:
        raise translate(error, doing, redact) from None


def translate(error: Exception, doing: str, redact: Redactor) -> BackendError:
    """What happened, as one of ours: AuthError, NotFound or BackendError."""
    message = redact(f"{doing}: {describe(error)}")
    if not isinstance(error, genai_errors.APIError):
        hint = "Check the network and `base_url`, then run again." if isinstance(error, NEVER_SENT) else AGAIN
        return BackendError(message, hint=hint)
    status, retry_after = error.code or 0, retry_delay(error)
    if _is_auth(error):
        return AuthError(message, hint="Check the API key and what it may do.", status=status)
    if status == 404:
        return NotFound(message, hint=_way_out(status), status=status)
    return BackendError(message, hint=_way_out(status), status=status, retry_after=retry_after)


def create_outcome(error: Exception, doing: str, redact: Redactor) -> NotCreated | OutcomeUnknown:
    """Whether a failed create call may have made a job. In doubt it may have."""
    message = redact(f"{doing}: {describe(error)}")
    if isinstance(error, NEVER_SENT):
        return NotCreated(message, hint="Check the network and `base_url`, then run again.")
    if isinstance(error, genai_errors.APIError) and error.code in SURELY_REFUSED:
        hint = "Check the API key and what it may do." if _is_auth(error) else _way_out(error.code)
        return NotCreated(message, hint=hint, status=error.code, retry_after=retry_delay(error))
    status = error.code or 0 if isinstance(error, genai_errors.APIError) else 0
    return OutcomeUnknown(
        message, hint="The job is looked up by its name before anything is sent again.", status=status
    )


def _way_out(status: int) -> str:
    """What to do about a refusal: later it may pass, or what was sent has to change."""
    if status in RETRYABLE_STATUS or status >= 500:
        return AGAIN
    return "Change what the service complains of, then run again: it goes on where it stopped."


def describe(error: Exception) -> str:
    """The error in words, without the SDK's dump of the whole answer."""
    if isinstance(error, genai_errors.APIError):
        text = str(error.message or "").strip() or "no message"
        return f"HTTP {error.code} {error.status or ''}".strip() + f": {text[:2000]}"
    text = str(error).strip().partition("\n")[0]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def retry_delay(error: genai_errors.APIError) -> float | None:
    """Seconds that the service asks to wait: the Retry-After header, else RetryInfo in the details."""
    headers: Mapping[str, str] = getattr(error.response, "headers", None) or {}
    stated = headers.get("retry-after", "").strip()
    if stated:
        return _seconds(stated)
    for detail in _details(error):
        match = re.fullmatch(r"(\d+(?:\.\d+)?)s", str(detail.get("retryDelay", "")))
        if match:
            return float(match[1])
    return None


def _seconds(stated: str) -> float | None:
    if re.fullmatch(r"\d+(\.\d+)?", stated):
        return float(stated)
    try:
        return max(0.0, (parsedate_to_datetime(stated) - datetime.now(UTC)).total_seconds())
    except (TypeError, ValueError):
        return None


def _details(error: genai_errors.APIError) -> list[dict[str, Any]]:
    """The `error.details` objects of an answer, whatever its shape."""
    body = error.details if isinstance(error.details, dict) else {}
    inner = body.get("error", body)
    details = inner.get("details") if isinstance(inner, dict) else None
    return [d for d in details if isinstance(d, dict)] if isinstance(details, list) else []


def _is_auth(error: genai_errors.APIError) -> bool:
    """401, 403, and the 400 with which the service answers a malformed key."""
    if error.code in (401, 403):
        return True
    reasons = {str(d.get("reason", "")) for d in _details(error)}
    return error.code == 400 and ("API_KEY_INVALID" in reasons or "API key not valid" in str(error.message))

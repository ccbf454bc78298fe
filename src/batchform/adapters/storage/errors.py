"""The one place where exceptions of google-cloud-storage, and of the libraries below it, become ours."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import requests
import urllib3
from google.api_core import exceptions as api
from google.auth import exceptions as auth
from google.cloud.storage import exceptions as storage

from batchform.adapters.google_credentials import refused
from batchform.errors import BatchformError
from batchform.spec.model import GoogleCloud
from batchform.spec.remote import Address

VENDOR_ERRORS: Final[tuple[type[Exception], ...]] = (
    api.GoogleAPIError,
    auth.GoogleAuthError,
    storage.InvalidResponse,
    storage.DataCorruption,
    storage.InvalidPathError,
    requests.RequestException,
    urllib3.exceptions.HTTPError,
    ConnectionError,  # a connection that breaks while a body is read
    ValueError,  # a body that is no JSON; a proxy that cannot be used
    KeyError,  # answers of a shape that the client does not expect
    AttributeError,
    TypeError,
)
"""Bases of everything that the vendor's libraries raise. A test enumerates their classes against it."""

_AGAIN: Final = "Run again in a while: it goes on where it stopped."


class StorageError(BatchformError):
    """Cloud Storage refused, failed or did not answer. `status` is the HTTP status, 0 if there was none."""

    def __init__(self, message: str, *, hint: str = "", status: int = 0) -> None:
        super().__init__(message, hint=hint)
        self.status = status


class ObjectMissing(StorageError):
    """There is no such object, or not in this generation."""


class PreconditionLost(StorageError):
    """The object is not as it was expected to be: another writer was first, or this very write was already done."""


@contextmanager
def vendor_errors(doing: str, at: Address, settings: GoogleCloud) -> Iterator[None]:
    """Run vendor calls; whatever they raise comes out as a StorageError or AuthError. doing: "read", "write", "list" or
    "delete"."""
    try:
        yield
    except VENDOR_ERRORS as error:
        raise translate(error, doing, at, settings) from None


def translate(error: Exception, doing: str, at: Address, settings: GoogleCloud) -> BatchformError:
    """What happened, in our words."""
    if isinstance(error, api.RetryError) and isinstance(error.cause, Exception):
        error = error.cause
    if isinstance(error, auth.GoogleAuthError) and not isinstance(error, auth.TransportError):
        return refused(error, settings)
    status = _status(error)
    past = {"write": "written", "read": "read", "list": "listed", "delete": "deleted"}[doing]
    message = f"{at} cannot be {past}: {describe(error)}"
    if status == 404:
        return _missing(error, message, at)
    if status == 412:
        return PreconditionLost(message, hint="Another writer was first. Run the command again.", status=status)
    return StorageError(message, hint=_way_out(status, doing, at, error), status=status)


def describe(error: Exception) -> str:
    """The error in words, without addresses of requests and without the library's own dump."""
    if isinstance(error, api.GoogleAPICallError | storage.InvalidResponse) and (status := _status(error)):
        return f"HTTP {status}: {_sentence(_said(error))}"
    if isinstance(error, storage.DataCorruption):
        return "what arrived has another checksum than what was stored."
    if isinstance(error, requests.Timeout):
        return "the service did not answer in time."
    if refused_connection(error):
        return "there is no connection to the service."
    return f"{type(error).__name__}: {_sentence(str(error))}"


def _said(error: Exception) -> str:
    """The message in the body of the answer; without one, whatever the library made of it."""
    try:
        return str(error.response.json()["error"]["message"])  # type: ignore[attr-defined]
    except (AttributeError, KeyError, TypeError, ValueError):
        said = str(getattr(error, "message", "") or (error.args[0] if error.args else ""))
        return re.sub(r"^\w+ https?://\S+: ", "", said)


def refused_connection(error: BaseException) -> bool:
    """Whether nothing listens there, or the name of the host is unknown: waiting for long will not help."""
    text = str(error)
    return any(words in text for words in ("NewConnectionError", "NameResolutionError", "Connection refused"))


def _missing(error: Exception, message: str, at: Address) -> StorageError:
    said = str(error).lower()
    if "bucket" in said and "no such object" not in said:
        hint = f"Check the name, or make it: gcloud storage buckets create gs://{at.bucket}"
        return StorageError(f"There is no bucket gs://{at.bucket}.", hint=hint, status=404)
    return ObjectMissing(message, hint="It was deleted, or replaced, in the meantime. Run again.", status=404)


def _way_out(status: int, doing: str, at: Address, error: Exception) -> str:
    if status == 401:
        return "Log in again: gcloud auth application-default login"
    if status == 403:
        role = "objectUser" if doing in ("write", "delete") else "objectViewer"
        return (
            f"Grant it: gcloud storage buckets add-iam-policy-binding gs://{at.bucket} --member=MEMBER "
            f"--role=roles/storage.{role}"
        )
    if status in (408, 429) or status >= 500:
        return _AGAIN
    if status:
        return "Change what the service complains of, then run again."
    if refused_connection(error):
        return "Check the network, and STORAGE_EMULATOR_HOST if it is set, then run again."
    return _AGAIN


def _status(error: Exception) -> int:
    if isinstance(error, api.GoogleAPICallError):
        return int(error.code or 0)
    return int(getattr(getattr(error, "response", None), "status_code", 0) or 0)


def _sentence(text: str) -> str:
    lines = text.strip().splitlines()
    return (lines[0][:500].rstrip(". ") if lines else "no message") + "."

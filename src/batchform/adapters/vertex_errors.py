"""The one place where errors on the way to Vertex AI become ours: those of google-genai and httpx2 as for the Gemini
API, those of google.auth beside them, and those of the two staging areas."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from google.auth import exceptions as auth

from batchform.adapters import gemini_errors
from batchform.adapters.gemini_errors import AGAIN, Redactor
from batchform.adapters.google_credentials import refused
from batchform.errors import AuthError, BackendError, BatchformError, NotCreated, NotFound, OutcomeUnknown, StalePlan
from batchform.spec.model import GoogleCloud

VENDOR_ERRORS: tuple[type[Exception], ...] = (*gemini_errors.VENDOR_ERRORS, auth.GoogleAuthError)
"""Bases of everything that the vendor's libraries raise. A test enumerates their classes against it."""

_ACCESS = (
    "Grant roles/aiplatform.user in the project, and enable the API: gcloud services enable aiplatform.googleapis.com"
)


@contextmanager
def vendor_errors(doing: str, redact: Redactor, settings: GoogleCloud) -> Iterator[None]:
    """Run vendor calls; whatever they raise comes out as a BackendError that starts with `doing`."""
    try:
        yield
    except VENDOR_ERRORS as error:
        raise translate(error, doing, redact, settings) from None


def translate(error: Exception, doing: str, redact: Redactor, settings: GoogleCloud) -> BackendError:
    """What happened, as one of ours: AuthError, NotFound or BackendError."""
    if isinstance(error, auth.TransportError):
        return BackendError(redact(f"{doing}: Google's sign-in could not be reached: {_line(error)}"), hint=AGAIN)
    if isinstance(error, auth.GoogleAuthError):
        no = refused(error, settings)
        return AuthError(redact(f"{doing}: {no.message}"), hint=no.hint)
    found = gemini_errors.translate(error, doing, redact)
    if isinstance(found, AuthError):
        return AuthError(found.message, hint=_ACCESS, status=found.status)
    return found


def create_outcome(
    error: Exception, doing: str, redact: Redactor, settings: GoogleCloud
) -> NotCreated | OutcomeUnknown:
    """Whether a failed create call may have made a job. A token is fetched before anything is sent."""
    if isinstance(error, auth.GoogleAuthError):
        found = translate(error, doing, redact, settings)
        return NotCreated(found.message, hint=found.hint)
    outcome = gemini_errors.create_outcome(error, doing, redact)
    if isinstance(outcome, NotCreated) and outcome.status in (401, 403):
        return NotCreated(outcome.message, hint=_ACCESS, status=outcome.status)
    return outcome


@contextmanager
def staging_errors(doing: str) -> Iterator[None]:
    """Run calls of Cloud Storage through its own adapter; what they raise comes out as a BackendError."""
    from batchform.adapters.storage.errors import ObjectMissing, StorageError

    try:
        yield
    except (BackendError, StalePlan):
        raise
    except ObjectMissing as error:
        raise NotFound(f"{doing}: {error.message}", hint=error.hint, status=404) from None
    except StorageError as error:
        raise BackendError(f"{doing}: {error.message}", hint=error.hint, status=error.status) from None
    except BatchformError as error:
        raise BackendError(f"{doing}: {error.message}", hint=error.hint) from None


def _line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__

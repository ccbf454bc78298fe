"""Credentials of Google Cloud, for every adapter that needs them: found once, in one order, with one set of errors.

A file named in batchform.yaml, else Application Default Credentials (which know workload identity, the metadata server
and `gcloud auth application-default login`); either may act as a service account.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Final

from msgspec import Struct

from batchform.errors import AuthError

if TYPE_CHECKING:
    from google.auth.credentials import Credentials

    from batchform.spec.model import GoogleCloud

SCOPE: Final = "https://www.googleapis.com/auth/cloud-platform"

_LOGIN: Final = (
    "Log in with `gcloud auth application-default login`, set GOOGLE_APPLICATION_CREDENTIALS to a credentials file, or "
    "name one as `google_cloud: {credentials: …}` in batchform.yaml."
)


class Found(Struct, frozen=True):
    """credentials: ready to be given to a client; project: that of the settings, else of the credentials, if known;
    described: which they are, for people, without a secret."""

    credentials: Credentials
    project: str | None
    described: str


def find_credentials(settings: GoogleCloud) -> Found:
    """The credentials that the settings ask for. The machine's metadata server may be asked. Raises AuthError."""
    import google.auth
    from google.auth import exceptions, impersonated_credentials

    try:
        if settings.credentials:
            with warnings.catch_warnings():  # untrusted files: the owner named this one
                warnings.simplefilter("ignore", DeprecationWarning)
                found, project = google.auth.load_credentials_from_file(settings.credentials, scopes=[SCOPE])
            described = f"the file {settings.credentials}"
        else:
            found, project = google.auth.default(scopes=[SCOPE])
            described = "Application Default Credentials"
        if settings.impersonate:
            found = impersonated_credentials.Credentials(
                source_credentials=found, target_principal=settings.impersonate, target_scopes=[SCOPE]
            )
            described += f" acting as {settings.impersonate}"
    except (exceptions.GoogleAuthError, OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise refused(error, settings) from error
    return Found(found, settings.project or project, described)


def refused(error: Exception, settings: GoogleCloud) -> AuthError:
    """What google.auth said, as an error for people: credentials that are missing, unreadable, expired or refused."""
    from google.auth import exceptions

    said = _first_line(error)
    if settings.credentials:
        sentence = f"The credentials file {settings.credentials} cannot be used: {said}."
        hint = "Check the path and the file, or remove `credentials` to use Application Default Credentials."
    elif isinstance(error, exceptions.DefaultCredentialsError):
        sentence, hint = "No credentials for Google Cloud were found.", _LOGIN
    else:
        sentence, hint = f"Google Cloud did not take the credentials: {said}.", _LOGIN
    if settings.impersonate and isinstance(error, exceptions.RefreshError):
        sentence = f"The credentials may not act as {settings.impersonate}: {said}."
        hint = "Grant whoever runs batchform roles/iam.serviceAccountTokenCreator on that service account."
    return AuthError(sentence, hint=hint)


def _first_line(error: Exception) -> str:
    """The first line of what it says. google.auth puts the token endpoint's answer behind, as a second argument."""
    said = str(error.args[0]) if error.args else str(error)
    lines = said.strip().splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__

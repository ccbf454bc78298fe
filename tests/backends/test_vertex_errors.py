"""Every exception class on the way to Vertex AI is mapped, and in doubt a create may have made a job."""

from __future__ import annotations

import httpx2
import pytest
from google.auth import exceptions as auth
from google.genai import errors as genai_errors
from test_gemini_errors import an, vendor_classes

from batchform.adapters.gemini_errors import NEVER_SENT, Redactor
from batchform.adapters.vertex_errors import VENDOR_ERRORS, create_outcome, staging_errors, vendor_errors
from batchform.adapters.vertex_tables import _errors as table_errors
from batchform.errors import AuthError, BackendError, NotCreated, NotFound, OutcomeUnknown
from batchform.spec.model import GoogleCloud

REDACT, CLOUD = Redactor("sesame"), GoogleCloud()
AUTH = sorted(
    (c for c in vars(auth).values() if isinstance(c, type) and issubclass(c, Exception)), key=lambda c: c.__name__
)
CLASSES = [*vendor_classes(), *AUTH]


def made(cls: type[Exception]) -> Exception:
    return cls("sesame") if cls in AUTH else an(cls)


def test_there_are_many() -> None:
    assert len(AUTH) > 10


@pytest.mark.parametrize("cls", CLASSES, ids=lambda c: c.__name__)
def test_no_vendor_exception_is_unmapped(cls: type[Exception]) -> None:
    assert issubclass(cls, VENDOR_ERRORS)
    with pytest.raises(BackendError, match="Doing this") as caught, vendor_errors("Doing this", REDACT, CLOUD):
        raise made(cls)
    assert "sesame" not in str(caught.value) and caught.value.hint
    assert type(caught.value).__module__ == "batchform.errors"


@pytest.mark.parametrize("cls", CLASSES, ids=lambda c: c.__name__)
def test_in_doubt_a_create_may_have_made_a_job(cls: type[Exception]) -> None:
    """A token is fetched before the call is sent, so what fails there made nothing."""
    outcome = create_outcome(made(cls), "Creating", REDACT, CLOUD)
    assert type(outcome) is (NotCreated if issubclass(cls, (*NEVER_SENT, auth.GoogleAuthError)) else OutcomeUnknown)
    assert "sesame" not in str(outcome) and outcome.hint


@pytest.mark.parametrize("status", [401, 403])
def test_a_lack_of_permission_names_the_role(status: int) -> None:
    error = genai_errors.APIError(status, {"error": {"code": status, "message": "no", "status": "NO"}})
    assert "roles/aiplatform.user" in create_outcome(error, "Creating", REDACT, CLOUD).hint


def test_what_cloud_storage_says_is_said_as_the_backends() -> None:
    from batchform.adapters.storage.errors import ObjectMissing, StorageError

    with pytest.raises(NotFound, match="Doing: gone"), staging_errors("Doing"):
        raise ObjectMissing("gone", status=404)
    with pytest.raises(BackendError) as caught, staging_errors("Doing"):
        raise StorageError("busy", hint="wait", status=503)
    assert (caught.value.status, caught.value.hint) == (503, "wait")


def test_a_refused_load_names_its_status_and_not_the_address_of_its_upload() -> None:
    """That address lets anybody who reads it go on with the upload."""
    from google.api_core.exceptions import Forbidden

    url = "https://bigquery.googleapis.com/upload/bigquery/v2/projects/p/jobs?uploadType=resumable&upload_id=secret"
    with pytest.raises(AuthError) as caught, table_errors("Doing"):
        raise Forbidden(f"PUT {url}: no dataset for you")
    assert caught.value.message == "Doing: HTTP 403: no dataset for you."


def test_what_bigquery_says_is_said_as_the_backends() -> None:
    from google.api_core import exceptions as api
    from google.cloud.bigquery.exceptions import BigQueryError

    for error, kind, status in [
        (api.NotFound("no table"), NotFound, 404),
        (api.Forbidden("no"), BackendError, 403),
        (api.ServiceUnavailable("busy"), BackendError, 503),
        (BigQueryError("odd"), BackendError, 0),
        (auth.RefreshError("ended"), BackendError, 0),
    ]:
        with pytest.raises(kind) as caught, table_errors("Doing"):
            raise error
        assert isinstance(caught.value, BackendError) and caught.value.status == status
        assert str(caught.value).startswith("Doing")


def test_a_connection_that_breaks_is_mapped_by_both() -> None:
    with pytest.raises(BackendError), vendor_errors("Doing", REDACT, CLOUD):
        raise httpx2.ReadError("x")

"""Every error of the libraries under BigQuery has a meaning, and becomes one sentence with a way out."""

from __future__ import annotations

import concurrent.futures
import inspect

import google.api_core.exceptions as api
import google.auth.exceptions as auth
import google.cloud.bigquery.exceptions as bigquery
import google.resumable_media.common as media
import pytest
import requests.exceptions

from batchform.adapters.bigquery_client import meaning, telling, vendor_errors
from batchform.errors import AuthError, DestinationError, SourceError


def _made(kind: type[BaseException]) -> BaseException:
    if issubclass(kind, api.RetryError):
        return kind("deadline", api.ServiceUnavailable("try again"))
    if issubclass(kind, requests.exceptions.JSONDecodeError):
        return kind("no JSON", "<html>", 0)
    if issubclass(kind, media.InvalidResponse):
        return kind(None, "broken")
    return kind("it went wrong\nwith details")


def _all_of(module: object) -> list[type[BaseException]]:
    found = [c for _, c in inspect.getmembers(module, inspect.isclass) if issubclass(c, Exception)]
    found = [c for c in found if not issubclass(c, NotImplementedError)]  # a call that the library does not have
    return [c for c in found if c.__module__ == getattr(module, "__name__", "") and not issubclass(c, Warning)]


KINDS = [k for m in (api, auth, bigquery, media, requests.exceptions) for k in _all_of(m)]


def test_there_are_many() -> None:
    assert len(KINDS) > 60


@pytest.mark.parametrize("kind", KINDS, ids=lambda k: f"{k.__module__}.{k.__name__}")
def test_every_vendor_error_is_mapped(kind: type[BaseException]) -> None:
    assert issubclass(kind, vendor_errors()), f"{kind} is not among vendor_errors()"
    found = meaning(_made(kind))
    assert found.said and "\n" not in found.said and found.hint


def test_a_wait_that_ended_is_mapped() -> None:
    assert "in time" in meaning(concurrent.futures.TimeoutError()).said


@pytest.mark.parametrize(
    ("reason", "error", "hint"),
    [
        ("bytesBilledLimitExceeded", api.BadRequest, "Raise max_bytes_billed"),
        ("accessNotConfigured", api.Forbidden, "gcloud services enable"),
        ("accessDenied", api.Forbidden, "Grant the role"),
        ("resourcesExceeded", api.BadRequest, "ORDER BY"),
        ("quotaExceeded", api.Forbidden, "quota"),
        ("invalidQuery", api.BadRequest, "GoogleSQL"),
    ],
)
def test_reasons_have_their_own_way_out(reason: str, error: type[api.GoogleAPICallError], hint: str) -> None:
    message = (
        "403 POST https://bigquery.googleapis.com/bigquery/v2/projects/p/jobs?prettyPrint=false: No, said BigQuery."
    )
    with (
        pytest.raises(SourceError) as caught,
        telling(SourceError, "source.table"),
    ):
        raise error(message, errors=[{"reason": reason, "message": "No."}])
    assert caught.value.message == "source.table: No, said BigQuery."
    assert hint in caught.value.hint


def test_a_table_in_another_region_is_told_so() -> None:
    with pytest.raises(DestinationError) as caught, telling(DestinationError, "p.d.t"):
        raise api.NotFound("Not found: Dataset p:d was not found in location US")
    assert "set `location`" in caught.value.hint and "bq show" in caught.value.hint


def test_missing_credentials_become_an_error_of_the_source() -> None:
    with (
        pytest.raises(SourceError, match=r"source\.table: No credentials") as caught,
        telling(SourceError, "source.table"),
    ):
        raise AuthError("No credentials.", hint="Log in.")
    assert caught.value.hint == "Log in."


def test_our_own_errors_pass() -> None:
    with pytest.raises(SourceError, match="ours"), telling(DestinationError, "p.d.t"):
        raise SourceError("ours")

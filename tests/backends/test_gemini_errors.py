"""Every exception class of the vendor's libraries is mapped, and in doubt a create may have made a job."""

from __future__ import annotations

from typing import Any

import httpx2
import pytest
from google.genai import errors as genai_errors

from batchform.adapters.gemini_errors import (
    NEVER_SENT,
    VENDOR_ERRORS,
    Redactor,
    create_outcome,
    translate,
    vendor_errors,
)
from batchform.errors import BackendError, NotCreated, OutcomeUnknown

REDACT = Redactor("sesame")


def vendor_classes() -> list[type[Exception]]:
    found: set[type[Exception]] = set()
    for module in (httpx2, genai_errors):
        for value in vars(module).values():
            if isinstance(value, type) and issubclass(value, Exception) and not issubclass(value, Warning):
                found.add(value)
    return sorted(found, key=lambda c: c.__name__)


def an(cls: type[Exception]) -> Exception:
    """An instance, as the library would raise it."""
    if issubclass(cls, genai_errors.APIError):
        return cls(503, {"error": {"code": 503, "message": "sesame", "status": "UNAVAILABLE"}})
    arguments: list[tuple[tuple[Any, ...], dict[str, Any]]] = [
        (("sesame",), {}),
        ((), {}),
        (("sesame",), {"request": httpx2.Request("GET", "http://x"), "response": httpx2.Response(500)}),
    ]
    for args, kwargs in arguments:
        try:
            return cls(*args, **kwargs)
        except TypeError:
            continue
    instance = cls.__new__(cls)
    Exception.__init__(instance, "sesame")
    return instance


def test_there_are_many() -> None:
    assert len(vendor_classes()) > 25


@pytest.mark.parametrize("cls", vendor_classes(), ids=lambda c: c.__name__)
def test_no_vendor_exception_is_unmapped(cls: type[Exception]) -> None:
    assert issubclass(cls, VENDOR_ERRORS)
    with pytest.raises(BackendError, match="Doing this") as caught, vendor_errors("Doing this", REDACT):
        raise an(cls)
    assert "sesame" not in str(caught.value) and type(caught.value).__module__ == "batchform.errors"


@pytest.mark.parametrize("cls", vendor_classes(), ids=lambda c: c.__name__)
def test_in_doubt_a_create_may_have_made_a_job(cls: type[Exception]) -> None:
    outcome = create_outcome(an(cls), "Creating", REDACT)
    assert type(outcome) is (NotCreated if issubclass(cls, NEVER_SENT) else OutcomeUnknown)
    assert "sesame" not in str(outcome)


def test_answers_of_any_shape_are_translated() -> None:
    for body in (
        {},
        [],
        "text",
        {"error": "text"},
        {"error": {"details": "x"}},
        [{"error": {"message": 5}}],
        {"error": None},
    ):
        try:
            error: Exception = genai_errors.ClientError(400, body)
        except AttributeError:
            continue  # the SDK itself cannot make this one
        assert "HTTP 400" in str(translate(error, "Doing", REDACT))


@pytest.mark.parametrize("status", [400, 401, 403, 404, 408, 409, 429, 499, 500, 502, 503, 504])
def test_every_refusal_says_what_to_do(status: int) -> None:
    error = genai_errors.APIError(status, {"error": {"code": status, "message": "no", "status": "NO"}})
    assert translate(error, "Doing", REDACT).hint and create_outcome(error, "Creating", REDACT).hint

"""Credentials of Google Cloud: where they come from, and what is said when there are none."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from google.auth import exceptions

from batchform.adapters.google_credentials import find_credentials, refused
from batchform.errors import AuthError
from batchform.spec.model import GoogleCloud


@pytest.fixture
def key_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A service account's key as Google hands it out, with a key that opens nothing; nothing else is to be found."""
    monkeypatch.delenv("GOOGLE_APPLICATION_CREDENTIALS", raising=False)
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path / "gcloud"))
    monkeypatch.setenv("NO_GCE_CHECK", "true")
    private = rsa.generate_private_key(public_exponent=65537, key_size=1024).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path = tmp_path / "key.json"
    path.write_text(
        json.dumps(
            {
                "type": "service_account",
                "project_id": "of-the-key",
                "private_key_id": "1",
                "private_key": private.decode(),
                "client_email": "runner@of-the-key.iam.gserviceaccount.com",
                "token_uri": "http://127.0.0.1:9/token",
            }
        )
    )
    return path


def test_a_file_is_used_and_its_project_is_known(key_file: Path) -> None:
    found = find_credentials(GoogleCloud(credentials=str(key_file)))
    assert (found.project, found.described) == ("of-the-key", f"the file {key_file}")
    assert found.credentials.service_account_email == "runner@of-the-key.iam.gserviceaccount.com"  # type: ignore[attr-defined]


def test_application_default_credentials_come_next(key_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(key_file))
    found = find_credentials(GoogleCloud(project="billed"))
    assert (found.project, found.described) == ("billed", "Application Default Credentials")


def test_either_may_act_as_a_service_account(key_file: Path) -> None:
    found = find_credentials(GoogleCloud(credentials=str(key_file), impersonate="other@x.iam.gserviceaccount.com"))
    assert found.described == f"the file {key_file} acting as other@x.iam.gserviceaccount.com"
    assert found.credentials.service_account_email == "other@x.iam.gserviceaccount.com"  # type: ignore[attr-defined]


def test_no_credentials_at_all(key_file: Path) -> None:
    key_file.unlink()
    with pytest.raises(AuthError, match="No credentials for Google Cloud were found") as caught:
        find_credentials(GoogleCloud())
    assert "gcloud auth application-default login" in caught.value.hint


@pytest.mark.parametrize("content", [None, "", "{}", '{"type": "service_account"}', '{"type": "strange"}', "[1]"])
def test_a_file_that_is_none(key_file: Path, content: str | None) -> None:
    if content is None:
        key_file.unlink()
    else:
        key_file.write_text(content)
    with pytest.raises(AuthError, match=r"credentials file .*key\.json cannot be used: ") as caught:
        find_credentials(GoogleCloud(credentials=str(key_file)))
    assert "\n" not in caught.value.message


def test_who_may_not_act_as_another_is_told_the_role() -> None:
    error = exceptions.RefreshError("Permission denied\nmore", {"error": "secret"})  # type: ignore[no-untyped-call]
    told = refused(error, GoogleCloud(impersonate="other@x"))
    assert told.message == "The credentials may not act as other@x: Permission denied."
    assert "roles/iam.serviceAccountTokenCreator" in told.hint
    assert "did not take" in refused(error, GoogleCloud()).message

"""Tokens: a service account's file, and acting as another account, with Google's own library over real sockets."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from raw_server import RawServer, Reply, Request
from vertex_kit import MODEL, pointed_at

from batchform.errors import AuthError, NotCreated
from batchform.ports import Staged

JOB = "projects/acme-support/locations/us-central1/batchPredictionJobs/1"


def account(folder: Path, token_uri: str) -> str:
    """The file of a service account whose tokens come from `token_uri`."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path = folder / "account.json"
    path.write_text(
        json.dumps(
            {
                "type": "service_account",
                "project_id": "other-project",
                "private_key_id": "1",
                "private_key": key.decode(),
                "client_email": "runner@acme-support.iam.gserviceaccount.com",
                "token_uri": token_uri,
            }
        )
    )
    return str(path)


class Google:
    """A token endpoint and Vertex AI in one server. Tokens are t1, t2, … and last `seconds`."""

    def __init__(self, *, seconds: int = 3600, token_status: int = 200) -> None:
        self.tokens, self.seconds, self.token_status = 0, seconds, token_status
        self.used: list[str] = []

    def __call__(self, request: Request) -> Reply:
        if request.path == "/token":
            self.tokens += 1
            refusal = {"error": "invalid_grant", "error_description": "Account is disabled"}
            granted = {"access_token": f"t{self.tokens}", "expires_in": self.seconds, "token_type": "Bearer"}
            return Reply(self.token_status, granted if self.token_status == 200 else refusal)
        self.used.append(request.headers.get("authorization", ""))
        return Reply(200, {"name": JOB, "state": "JOB_STATE_PENDING", "displayName": "bf-1"})


def test_a_service_account_is_used_for_writes_and_reads_alike(tmp_path: Path) -> None:
    google = Google()
    with RawServer(google) as server:
        file = account(tmp_path, f"{server.url}/token")
        with pointed_at(server.url, credentials=file) as backend:
            staged = Staged(path=tmp_path, name="gs://acme-batch/x.jsonl")
            assert backend.create(model=MODEL, tag="bf-1", staged=staged) == JOB
            assert backend.get(JOB).tag == "bf-1" and backend.get(JOB).state == "PENDING"
    assert google.tokens == 1 and google.used == ["Bearer t1"] * 3


def test_a_token_that_ended_is_renewed(tmp_path: Path) -> None:
    """One second is within the margin in which google.auth calls a token stale."""
    google = Google(seconds=1)
    with (
        RawServer(google) as server,
        pointed_at(server.url, credentials=account(tmp_path, f"{server.url}/token")) as backend,
    ):
        backend.get(JOB)
        backend.get(JOB)
    assert google.tokens == 2 and google.used == ["Bearer t1", "Bearer t2"]


def test_a_token_that_is_refused_made_no_job(tmp_path: Path) -> None:
    google = Google(token_status=400)
    with (
        RawServer(google) as server,
        pointed_at(server.url, credentials=account(tmp_path, f"{server.url}/token")) as backend,
    ):
        with pytest.raises(NotCreated, match="disabled"):
            backend.create(model=MODEL, tag="bf-1", staged=Staged(path=tmp_path, name="gs://acme-batch/x.jsonl"))
        with pytest.raises(AuthError, match="disabled"):
            backend.get(JOB)
    assert google.used == []


def test_a_real_token_never_goes_to_another_host(tmp_path: Path) -> None:
    """A service that redirects elsewhere does not get the token there."""
    elsewhere: list[Request] = []

    def other(request: Request) -> Reply:
        elsewhere.append(request)
        return Reply(200, {"name": JOB})

    google = Google()
    with RawServer(other) as stranger:

        def redirect(request: Request) -> Reply:
            if request.path == "/token":
                return google(request)
            there = stranger.url.replace("127.0.0.1", "localhost")
            return Reply(307, b"", {"Location": there + request.path})

        with (
            RawServer(redirect) as server,
            pointed_at(server.url, credentials=account(tmp_path, f"{server.url}/token")) as backend,
        ):
            backend.get(JOB)
    assert len(elsewhere) == 1 and "authorization" not in elsewhere[0].headers

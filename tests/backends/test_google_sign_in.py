"""Every way to sign in to Google Cloud, by Google's own library, unchanged, on real sockets: which credentials `doctor`
names, whose token reaches the services, and that nothing secret is told."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest
from google.auth.compute_engine import _metadata
from google_hosts_kit import GoogleHosts
from raw_server import RawServer, Reply, Request
from test_vertex_credentials import account
from vertex_kit import pointed_at

from batchform.adapters.doctor_cloud import CloudProject
from batchform.errors import AuthError
from batchform.run.doctor import Finding, Subject
from batchform.spec.model import GoogleCloud

RUNNER = "runner@acme-support.iam.gserviceaccount.com"
OTHER = "batchform@acme-support.iam.gserviceaccount.com"
HOSTS = [
    "oauth2.googleapis.com",
    "iamcredentials.googleapis.com",
    "sts.googleapis.com",
    "serviceusage.googleapis.com",
    "cloudresourcemanager.googleapis.com",
]
SECRETS = ("t-user", "t-account", "t-federated", "t-acting", "t-machine", "s3cret")


class Google:
    """Sign-in and the two services that `doctor` asks. users: tokens that came to those services, as they were."""

    def __init__(self) -> None:
        self.users: list[str] = []
        self.acted_as: list[str] = []
        self.refuse = ""  # a host that says 403

    def __call__(self, host: str, request: Request) -> Reply:
        token = request.headers.get("authorization", "").removeprefix("Bearer ")
        if host == self.refuse:
            return Reply(403, {"error": {"code": 403, "message": "iam.serviceAccounts.getAccessToken denied"}})
        if host == "oauth2.googleapis.com":
            kind = parse_qs(request.body.decode())["grant_type"][0]
            token = "t-user" if kind == "refresh_token" else "t-account"
            return Reply(200, {"access_token": token, "expires_in": 3600})
        if host == "sts.googleapis.com":
            assert parse_qs(request.body.decode())["subject_token"] == ["subject-s3cret"]
            said = {"issued_token_type": "urn:ietf:params:oauth:token-type:access_token", "token_type": "Bearer"}
            return Reply(200, {"access_token": "t-federated", "expires_in": 3600, **said})
        if request.path.endswith("/allowedLocations"):  # which the library asks by itself
            return Reply(200, {"locations": [], "encodedLocations": "0x0"})
        if host == "iamcredentials.googleapis.com":
            self.acted_as.append(f"{token} as {request.path.split('/')[-1].partition(':')[0]}")
            return Reply(200, {"accessToken": "t-acting", "expireTime": "2099-01-01T00:00:00Z"})
        self.users.append(token)
        if request.path.endswith(":testIamPermissions"):
            return Reply(200, request.json())
        if "/services/" in request.path:
            return Reply(200, {"state": "ENABLED", "parent": "projects/123"})
        return Reply(200, {"projectNumber": "123"})


@pytest.fixture
def google(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Google]:
    for name in ("GOOGLE_APPLICATION_CREDENTIALS", "GOOGLE_CLOUD_PROJECT", "HTTP_PROXY", "http_proxy", "https_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path / "gcloud"))
    monkeypatch.setattr(_metadata, "_NO_GCE_CHECK", True)  # NO_GCE_CHECK=true, which is read at import
    gcloud = tmp_path / "bin/gcloud"  # whom the library asks for a project; one of this machine would take its time
    gcloud.parent.mkdir()
    gcloud.write_text("#!/bin/sh\nexit 1\n")
    gcloud.chmod(0o755)
    monkeypatch.setenv("PATH", f"{gcloud.parent}:{os.environ['PATH']}")
    made = Google()
    with GoogleHosts(tmp_path, made, hosts=HOSTS) as hosts:
        for name, value in hosts.env.items():
            monkeypatch.setenv(name, value)
        yield made


def written(path: Path, value: dict[str, Any]) -> str:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(value))
    return str(path)


def login(folder: Path) -> str:
    """What `gcloud auth application-default login` leaves behind."""
    told = {"type": "authorized_user", "client_id": "id", "client_secret": "client-s3cret"}
    return written(folder / "gcloud/application_default_credentials.json", {**told, "refresh_token": "refresh-s3cret"})


def federated(folder: Path, *, acting: bool = False) -> str:
    """What `gcloud iam workload-identity-pools create-cred-config` writes."""
    (folder / "subject").write_text("subject-s3cret")
    told = {
        "type": "external_account",
        "audience": "//iam.googleapis.com/projects/123/locations/global/workloadIdentityPools/ci/providers/github",
        "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
        "token_url": "https://sts.googleapis.com/v1/token",
        "credential_source": {"file": str(folder / "subject")},
    }
    if acting:
        there = f"https://iamcredentials.googleapis.com/v1/projects/-/serviceAccounts/{OTHER}:generateAccessToken"
        told["service_account_impersonation_url"] = there
    return written(folder / "federated.json", told)


def looked_at(settings: GoogleCloud, *, project: str | None = "acme-support") -> tuple[Finding, CloudProject]:
    """What doctor says of the credentials, after it has asked the services too."""
    cloud = CloudProject(settings, project=project, emulated=False)
    with closing(cloud):
        about = Subject("google_cloud")
        first, *rest = cloud.check_credentials(about)
        rest += cloud.check_project(about, ["aiplatform.googleapis.com"], ["roles/aiplatform.user"])
    said = repr([first, *rest])
    assert not any(secret in said for secret in SECRETS) and "PRIVATE KEY" not in said
    assert {f.status for f in rest} <= {"ok", "unknown"}
    return first, cloud


def test_a_users_login(google: Google, tmp_path: Path) -> None:
    login(tmp_path)
    found, cloud = looked_at(GoogleCloud())
    assert found.message == "Application Default Credentials: a user's login; Google takes them."
    assert set(google.users) == {"t-user"} and cloud.member == "user:$(gcloud config get account)"


@pytest.mark.parametrize("how", ["named", "variable"])
def test_the_file_of_a_service_account(
    google: Google, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    file = account(tmp_path, "https://oauth2.googleapis.com/token")
    if how == "variable":
        monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", file)
    found, cloud = looked_at(GoogleCloud(credentials=file if how == "named" else None))
    where = f"The file {file}" if how == "named" else "Application Default Credentials"
    assert found.message == f"{where}: a service account, {RUNNER}; Google takes them."
    assert set(google.users) == {"t-account"} and cloud.member == f"serviceAccount:{RUNNER}"
    settings = GoogleCloud(credentials=file)
    assert looked_at(settings, project=None)[1].project == "other-project", "that of the file, where none is told"


def test_acting_as_a_service_account(google: Google, tmp_path: Path) -> None:
    login(tmp_path)
    found, cloud = looked_at(GoogleCloud(impersonate=OTHER))
    assert f"acting as {OTHER}: a service account that is acted as, {OTHER}; Google takes them" in found.message
    assert google.acted_as == [f"t-user as {OTHER}"] and set(google.users) == {"t-acting"}
    assert cloud.member == f"serviceAccount:{OTHER}", "roles are granted to whom it acts as"


def test_a_login_that_may_not_act_as_it(google: Google, tmp_path: Path) -> None:
    login(tmp_path)
    google.refuse = "iamcredentials.googleapis.com"
    found, _ = looked_at(GoogleCloud(impersonate=OTHER))
    assert found.status == "failure" and f"may not act as {OTHER}" in found.message
    assert found.fix == (
        f"gcloud iam service-accounts add-iam-policy-binding {OTHER} "
        "--member=user:$(gcloud config get account) --role=roles/iam.serviceAccountTokenCreator"
    )
    assert google.users == []


@pytest.mark.parametrize("acting", [False, True])
def test_a_workload_identity(google: Google, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, acting: bool) -> None:
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", federated(tmp_path, acting=acting))
    found, cloud = looked_at(GoogleCloud())
    assert found.message.startswith("Application Default Credentials: a workload identity")
    assert found.status == "ok" and set(google.users) == {"t-acting" if acting else "t-federated"}
    assert google.acted_as == ([f"t-federated as {OTHER}"] if acting else [])
    assert cloud.member == (f"serviceAccount:{OTHER}" if acting else "MEMBER")


def test_a_workload_identity_whose_token_is_gone(
    google: Google, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", federated(tmp_path))
    (tmp_path / "subject").unlink()
    found, _ = looked_at(GoogleCloud())
    assert found.status == "failure" and str(tmp_path / "subject") in found.message and google.users == []


def test_the_machines_own_account(google: Google, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the metadata server, as on Compute Engine, Cloud Run and GKE."""

    def metadata(request: Request) -> Reply:
        flavour = {"Metadata-Flavor": "Google", "Content-Type": "application/json"}
        path = request.path.partition("?")[0]
        if path.endswith("/token"):
            return Reply(200, {"access_token": "t-machine", "expires_in": 3600, "token_type": "Bearer"}, flavour)
        if path.endswith("/project/project-id"):
            return Reply(200, b"acme-support", {**flavour, "Content-Type": "text/plain"})
        if path.endswith("/universe-domain"):
            return Reply(404, b"", flavour)
        known = {"email": RUNNER, "scopes": ["https://www.googleapis.com/auth/cloud-platform"], "aliases": ["default"]}
        return Reply(200, known, flavour)

    with RawServer(metadata) as server:
        place = server.url.removeprefix("http://")
        monkeypatch.setenv("GCE_METADATA_IP", place)
        # What the library reads when it is imported.
        monkeypatch.setattr(_metadata, "_NO_GCE_CHECK", False)
        monkeypatch.setattr(_metadata, "_GCE_METADATA_HOST", place)
        found, cloud = looked_at(GoogleCloud(), project=None)
    assert found.message == (
        f"Application Default Credentials: the service account of this machine, {RUNNER}; Google takes them."
    )
    assert (cloud.project, cloud.member) == ("acme-support", f"serviceAccount:{RUNNER}")
    assert set(google.users) == {"t-machine"}


def test_an_api_key_in_place_of_credentials() -> None:
    """The key goes in its header, alone; what is told has its variable's name only."""
    seen: list[Request] = []

    def service(request: Request) -> Reply:
        seen.append(request)
        return Reply(200, {"name": "projects/p/locations/l/batchPredictionJobs/1", "state": "JOB_STATE_PENDING"})

    with RawServer(service) as server:
        key = {"VERTEX_KEY": "AIza-s3cret"}
        with pointed_at(server.url, realm="google", env=key, api_key_env="VERTEX_KEY") as backend:
            backend.get("projects/acme-support/locations/us-central1/batchPredictionJobs/1")
            assert "s3cret" not in repr(backend)
        without = pointed_at(server.url, realm="google", env={}, api_key_env="VERTEX_KEY")
        with pytest.raises(AuthError, match="VERTEX_KEY is not set"), without:
            pass
    assert [r.headers.get("x-goog-api-key") for r in seen] == ["AIza-s3cret"]
    assert all("authorization" not in r.headers and "s3cret" not in r.path for r in seen)


@pytest.mark.parametrize("kind", ["login", "workload identity"])
def test_a_backend_uses_what_is_found(google: Google, tmp_path: Path, kind: str) -> None:
    """The same credentials reach Vertex AI."""
    file = login(tmp_path) if kind == "login" else federated(tmp_path)

    def service(request: Request) -> Reply:
        google.users.append(request.headers.get("authorization", ""))
        return Reply(200, {"name": "projects/p/locations/l/batchPredictionJobs/1", "state": "JOB_STATE_PENDING"})

    with RawServer(service) as server, pointed_at(server.url, realm="google", credentials=file) as backend:
        backend.get("projects/acme-support/locations/us-central1/batchPredictionJobs/1")
    assert google.users[-1] == ("Bearer t-user" if kind == "login" else "Bearer t-federated")

"""What `doctor` asks a project of Google Cloud, with Google's own library over real sockets."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from google.auth.credentials import AnonymousCredentials
from google.oauth2 import credentials as oauth2
from raw_server import RawServer, Reply, Request
from test_vertex_credentials import account

from batchform.adapters.doctor_cloud import BIGQUERY, VERTEX, CloudProject, member_of
from batchform.adapters.doctor_places import Buckets, BucketUse, Datasets
from batchform.errors import BatchformError
from batchform.run.doctor import Finding, Subject
from batchform.spec.model import GoogleCloud
from batchform.spec.remote import address

ABOUT = Subject("backend vertex")
RUNNER = "serviceAccount:runner@acme-support.iam.gserviceaccount.com"
AGENT = "service-123@gcp-sa-aiplatform.iam.gserviceaccount.com"
APIS = ["aiplatform.googleapis.com"]
ROLES = ["roles/aiplatform.user", "roles/bigquery.jobUser"]


class Google:
    """Tokens, Service Usage, Resource Manager and Cloud Storage of one project. `replies` has other answers, by what a
    path ends with."""

    def __init__(self) -> None:
        self.held = [*VERTEX, *BIGQUERY]
        self.state = "ENABLED"
        self.bindings: list[dict[str, Any]] = []
        self.owner = "123"
        self.replies: dict[str, Reply] = {}

    def __call__(self, request: Request) -> Reply:
        path = request.path.partition("?")[0]
        for end, reply in self.replies.items():
            if path.endswith(end):
                return reply
        if path == "/token":
            return Reply(200, {"access_token": "secret-token", "expires_in": 3600, "token_type": "Bearer"})
        if path.startswith("/v1/projects/acme-support/services/"):
            return Reply(200, {"parent": "projects/123", "state": self.state})
        if path == "/v1/projects/acme-support":
            return Reply(200, {"projectId": "acme-support", "projectNumber": "123"})
        if path.endswith(":testIamPermissions"):
            return Reply(200, {"permissions": [p for p in request.json()["permissions"] if p in self.held]})
        if path.endswith((":getIamPolicy", "/iam")):
            return Reply(200, {"version": 1, "bindings": self.bindings})
        if path == "/storage/v1/b/acme-batch":
            return Reply(200, {"name": "acme-batch", "location": "US-CENTRAL1", "projectNumber": self.owner})
        if "/datasets/" in path:
            reference = {"projectId": "other-project", "datasetId": "batches"}
            access = [{"role": "WRITER", "userByEmail": AGENT}] if self.bindings else []
            return Reply(200, {"datasetReference": reference, "location": "us-central1", "access": access})
        return Reply(404, {"error": {"code": 404, "message": f"no such path: {path}"}})


@contextmanager
def project(folder: Path, google_: Google, **settings: Any) -> Iterator[tuple[CloudProject, RawServer]]:
    with RawServer(google_) as server:
        found = GoogleCloud(credentials=account(folder, f"{server.url}/token"), **settings)
        cloud = CloudProject(
            found, project="acme-support", emulated=False, service_usage=server.url, resource_manager=server.url
        )
        with closing(cloud):
            yield cloud, server


def looked_at(folder: Path, google_: Google) -> list[Finding]:
    with project(folder, google_) as (cloud, server):
        found = [*cloud.check_credentials(ABOUT), *cloud.check_project(ABOUT, APIS, ROLES)]
        found += [cloud.check_agent(ABOUT)] if cloud.answers else []
        assert all(r.method == "GET" or r.path.partition(":")[2] or r.path == "/token" for r in server.seen)
    assert "secret-token" not in repr(found) and "PRIVATE KEY" not in repr(found)
    return found


def by(found: list[Finding], check: str) -> Finding:
    return next(f for f in found if f.check == check)


def test_a_project_that_is_well(tmp_path: Path) -> None:
    google_ = Google()
    google_.bindings = [{"role": "roles/aiplatform.serviceAgent", "members": [f"serviceAccount:{AGENT}"]}]
    found = looked_at(tmp_path, google_)
    assert {f.status for f in found} == {"ok"} and len(found) == 5
    said = by(found, "credentials").message
    assert "a service account, runner@acme-support.iam.gserviceaccount.com; Google takes them" in said
    assert "account.json" in said


def test_an_api_that_is_off_and_roles_that_are_missing(tmp_path: Path) -> None:
    google_ = Google()
    google_.state, google_.held = "DISABLED", [VERTEX[1]]
    found = looked_at(tmp_path, google_)
    assert by(found, "api").fix == "gcloud services enable aiplatform.googleapis.com --project=acme-support"
    vertex, bigquery = (f for f in found if f.check == "roles")
    assert vertex.status == bigquery.status == "failure" and VERTEX[0] in vertex.message
    assert VERTEX[1] not in vertex.message
    assert vertex.fix == (
        f"gcloud projects add-iam-policy-binding acme-support --member={RUNNER} --role=roles/aiplatform.user "
        "--condition=None"
    )


@pytest.mark.parametrize(
    "reply",
    [
        Reply(403, {"error": {"code": 403, "message": "Permission denied\nmore"}}),
        Reply(500, b"<html>"),
        Reply(200, b"no JSON"),
        Reply(200, []),
        Reply(drop=True),
    ],
    ids=["refused", "html", "text", "list", "dropped"],
)
def test_what_cannot_be_asked_is_unknown(tmp_path: Path, reply: Reply) -> None:
    google_ = Google()
    google_.replies = {"googleapis.com": reply, ":testIamPermissions": reply, ":getIamPolicy": reply}
    found = looked_at(tmp_path, google_)
    states = {f.check: f.status for f in found}
    if reply.body == []:  # a yes that says nothing: no permission is held, no state is told
        assert (states["api"], states["roles"], states["service-agent"]) == ("unknown", "failure", "warning")
    else:
        assert (states["api"], states["roles"], states["service-agent"]) == ("unknown", "unknown", "unknown")
        assert by(found, "roles").fix.endswith("--role=roles/aiplatform.user --condition=None")
    assert all("\n" not in f.message for f in found)


def test_credentials_that_google_refuses(tmp_path: Path) -> None:
    google_ = Google()
    google_.replies = {"/token": Reply(400, {"error": "invalid_grant", "error_description": "Account is disabled"})}
    refused, unasked = looked_at(tmp_path, google_)
    assert refused.status == "failure" and "account.json cannot be used" in refused.message
    assert unasked.status == "unknown"


def test_a_sign_in_that_cannot_be_reached(tmp_path: Path) -> None:
    settings = GoogleCloud(credentials=account(tmp_path, "http://127.0.0.1:9/token"))
    with closing(CloudProject(settings, project="acme-support", emulated=False)) as cloud:
        [found] = cloud.check_credentials(ABOUT)
    assert found.status == "unknown" and "sign-in could not be reached" in found.message


def test_no_credentials_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GOOGLE_APPLICATION_CREDENTIALS", raising=False)
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path))
    monkeypatch.setenv("NO_GCE_CHECK", "true")
    with closing(CloudProject(GoogleCloud(), project=None, emulated=False)) as cloud:
        [found] = cloud.check_credentials(ABOUT)
    assert (found.status, found.fix) == ("failure", "gcloud auth application-default login")


def test_who_is_granted_a_role() -> None:
    """As gcloud writes it; who a federated identity is, its credentials do not say."""
    login: Any = oauth2.Credentials
    assert member_of(login(token="t")) == "user:$(gcloud config get account)"
    assert member_of(login(token="t", account="ada@acme.com")) == "user:ada@acme.com"
    anonymous: Any = AnonymousCredentials
    assert member_of(anonymous()) == "MEMBER"


@pytest.mark.parametrize(
    ("hint", "left", "fix"),
    [
        (
            "Log in again: gcloud auth application-default login",
            "Log in again:",
            "gcloud auth application-default login",
        ),
        ("Log in with `gcloud auth login`, or not.", "Log in with `gcloud auth login`, or not.", "gcloud auth login"),
        (
            "Grant it: gcloud x gs://b --member=MEMBER --role=r",
            "Grant it:",
            f"gcloud x gs://b --member={RUNNER} --role=r",
        ),
        ("Make it: bq --location=EU mk --dataset p:d", "Make it:", "bq --location=EU mk --dataset p:d"),
        ("See: bq show PROJECT:DATASET says which.", "See: bq show PROJECT:DATASET says which.", ""),
        ("Check the name.", "Check the name.", ""),
    ],
)
def test_the_command_in_a_hint_is_the_fix(hint: str, left: str, fix: str) -> None:
    found = ABOUT.error("bucket", BatchformError("no", hint=hint), member=RUNNER)
    assert (found.hint, found.fix) == (left, fix)


@pytest.mark.parametrize("granted", [True, False])
def test_the_service_agent_in_a_bucket_of_another_project(tmp_path: Path, granted: bool) -> None:
    google_ = Google()
    google_.owner = "456"
    role = {"role": "roles/storage.objectAdmin", "members": [f"serviceAccount:{AGENT}"]}
    google_.bindings = [role] if granted else []
    use = BucketUse(address("gs://acme-batch/staging"), writes=True, location="us-central1")
    with project(tmp_path, google_) as (cloud, server):
        list(cloud.check_credentials(ABOUT))
        with closing(Buckets(cloud.settings, cloud, endpoint=server.url)) as buckets:
            found = buckets.check_agent(ABOUT, use)
            google_.owner = "123"
            assert buckets.check_agent(ABOUT, use) is None, "in its own project it needs no role of the bucket"
    assert found is not None and found.status == ("ok" if granted else "failure")
    assert granted or found.fix == (
        f"gcloud storage buckets add-iam-policy-binding gs://acme-batch --member=serviceAccount:{AGENT} "
        "--role=roles/storage.objectAdmin"
    )


def test_rights_on_a_bucket_that_are_half_there(tmp_path: Path) -> None:
    """A reader: the failure names what is missing, and grants it to whoever asked."""
    google_ = Google()
    held = {"permissions": ["storage.objects.get", "storage.objects.list"]}
    items = {"items": [{"name": "staging/a", "generation": "1", "size": "1"}]}
    google_.replies = {"/b/acme-batch/iam/testPermissions": Reply(200, held), "/b/acme-batch/o": Reply(200, items)}
    google_.replies["/o/staging%2Fa/iam/testPermissions"] = Reply(200, {})
    use = BucketUse(address("gs://acme-batch/staging"), writes=True, location="us-central1")
    with project(tmp_path, google_) as (cloud, server):
        list(cloud.check_credentials(ABOUT))
        with closing(Buckets(cloud.settings, cloud, endpoint=server.url)) as buckets:
            there, rights = buckets.check(ABOUT, use)
            google_.replies["/b/acme-batch/o"] = Reply(200, {})
            _, unsure = buckets.check(ABOUT, use)
    assert there.status == "ok" and (rights.status, unsure.status) == ("failure", "warning")
    assert "storage.objects.create, storage.objects.delete" in rights.message and f"--member={RUNNER} " in rights.fix
    assert rights.fix.endswith("--role=roles/storage.objectUser")


@pytest.mark.parametrize("granted", [True, False])
def test_the_service_agent_in_a_dataset_of_another_project(tmp_path: Path, granted: bool) -> None:
    google_ = Google()
    google_.bindings = [{}] if granted else []
    with project(tmp_path, google_) as (cloud, server):
        list(cloud.check_credentials(ABOUT))
        env = {"BIGQUERY_EMULATOR_HOST": server.url}
        with closing(Datasets(cloud.settings, cloud, env=env, project="acme-support")) as datasets:
            found = list(datasets.check_dataset(ABOUT, "other-project.batches", location="us-central1"))
    assert found[0].status == "ok" and found[1].status == ("ok" if granted else "warning")
    assert granted or f'TO "serviceAccount:{AGENT}"' in found[1].fix


def test_a_reader_is_enough_for_a_plan(tmp_path: Path) -> None:
    google_ = Google()
    held = {"permissions": ["storage.objects.get", "storage.objects.list"]}
    google_.replies = {"/b/acme-batch/iam/testPermissions": Reply(200, held)}
    use = BucketUse(address("gs://acme-batch/ledger"), writes=False)
    with project(tmp_path, google_) as (cloud, server):
        list(cloud.check_credentials(ABOUT))
        with closing(Buckets(cloud.settings, cloud, endpoint=server.url)) as buckets:
            _, rights = buckets.check(ABOUT, use)
            google_.replies["/b/acme-batch/iam/testPermissions"] = Reply(200, {})
            google_.replies["/b/acme-batch/o"] = Reply(200, {})
            _, none = buckets.check(ABOUT, use)
    assert rights.status == "ok" and none.status == "failure" and none.fix.endswith("--role=roles/storage.objectViewer")


@pytest.mark.parametrize(
    ("said", "fix"),
    [
        (
            "Access Denied: User does not have bigquery.tables.getData",
            "`roles/bigquery.dataViewer` ON SCHEMA `p-acme.d`",
        ),
        ("Access Denied: User does not have bigquery.jobs.create permission", "--role=roles/bigquery.jobUser"),
    ],
)
def test_a_table_that_may_not_be_read(tmp_path: Path, said: str, fix: str) -> None:
    google_ = Google()
    denied = {"error": {"code": 403, "message": said, "errors": [{"reason": "accessDenied", "message": said}]}}
    google_.replies = {"/jobs": Reply(403, denied), "/queries": Reply(403, denied)}
    with project(tmp_path, google_) as (cloud, server):
        list(cloud.check_credentials(ABOUT))
        env = {"BIGQUERY_EMULATOR_HOST": server.url}
        with closing(Datasets(cloud.settings, cloud, env=env, project="acme-support")) as datasets:
            found = datasets.check_table_read(ABOUT, "p-acme.d.tickets")
    assert found.status == "failure" and fix in found.fix and RUNNER in found.fix


def test_a_grant_says_who_in_any_shell(tmp_path: Path) -> None:
    """Of a user's login only gcloud knows whose it is: that command once stood in single quotes, where it is text."""
    google_ = Google()
    google_.replies = {"/datasets/d": Reply(403, {"error": {"code": 403, "message": "no"}})}
    program = tmp_path / "gcloud"
    program.write_text("#!/bin/sh\necho ada@acme.com\n")
    program.chmod(0o755)
    with project(tmp_path, google_) as (cloud, server):
        list(cloud.check_credentials(ABOUT))
        cloud.member = "user:$(gcloud config get account)"
        env = {"BIGQUERY_EMULATOR_HOST": server.url}
        with closing(Datasets(cloud.settings, cloud, env=env, project="acme-support")) as datasets:
            [found] = datasets.check_dataset(ABOUT, "p-acme.d", writes=False)
    command = found.fix.replace("bq query --use_legacy_sql=false", "printf %s")
    done = subprocess.run(
        ["sh", "-c", command], capture_output=True, text=True, env={"PATH": f"{tmp_path}:/usr/bin:/bin"}
    )
    assert done.stdout == 'GRANT `roles/bigquery.dataViewer` ON SCHEMA `p-acme.d` TO "user:ada@acme.com"'

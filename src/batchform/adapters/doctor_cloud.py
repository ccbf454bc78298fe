"""Probes of a Google Cloud project: credentials, enabled APIs, permissions, the service agent of Vertex AI.

All only read. `testIamPermissions` takes no permission itself; the others may be refused: nothing is concluded then.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

import requests
from google.auth import exceptions as auth
from msgspec import Struct

from batchform.adapters.google_credentials import find_credentials, refused
from batchform.errors import AuthError
from batchform.run.doctor import Finding, Subject
from batchform.spec.model import GoogleCloud

if TYPE_CHECKING:
    from google.auth.transport.requests import AuthorizedSession

SERVICE_USAGE: Final = "https://serviceusage.googleapis.com"
RESOURCE_MANAGER: Final = "https://cloudresourcemanager.googleapis.com"

VERTEX: Final = tuple(f"aiplatform.batchPredictionJobs.{do}" for do in ("create", "get", "list", "cancel", "delete"))
BIGQUERY: Final = ("bigquery.jobs.create",)
ROLES: Final[Mapping[str, tuple[str, ...]]] = {"roles/aiplatform.user": VERTEX, "roles/bigquery.jobUser": BIGQUERY}
"""Roles on a project, and the permissions of them that batchform uses."""

AGENT_ROLE: Final = "roles/aiplatform.serviceAgent"
_SECONDS: Final = 20.0
_UNNAMED: Final = "MEMBER"
_KINDS: Final = (
    ("impersonated_credentials", "a service account that is acted as"),
    ("service_account", "a service account"),
    ("compute_engine", "the service account of this machine"),
    ("external_account_authorized_user", "a workforce identity"),
    ("identity_pool", "a workload identity"),
    ("aws", "a workload identity (AWS)"),
    ("pluggable", "a workload identity"),
    ("oauth2.credentials", "a user's login"),
)


class _Answer(Struct, frozen=True):
    """status: 0 for none; body: the JSON; said: what went wrong, for people."""

    status: int
    body: dict[str, Any]
    said: str = ""


class CloudProject:
    """One project as some credentials see it. emulated: no credentials are used, and there is nothing to ask."""

    def __init__(
        self,
        settings: GoogleCloud,
        *,
        project: str | None,
        emulated: bool,
        service_usage: str = SERVICE_USAGE,
        resource_manager: str = RESOURCE_MANAGER,
    ) -> None:
        self.settings, self._named, self.emulated = settings, project, emulated
        self._service_usage, self._resource_manager = service_usage, resource_manager
        self._session: AuthorizedSession | None = None
        self._found_project: str | None = None
        self.member = _UNNAMED

    @property
    def project(self) -> str:
        """The project's id; "" if it is not known."""
        return self._named or self._found_project or ""

    @property
    def answers(self) -> bool:
        """Whether there are credentials that Google took."""
        return self._session is not None

    def close(self) -> None:
        if self._session is not None:
            self._session.close()

    # --- credentials

    def check_credentials(self, about: Subject) -> Iterator[Finding]:
        """Which they are, whether Google takes them, and the project. Must come before the other checks."""
        if self.emulated:
            yield about.ok("credentials", "An emulator is asked, which takes no credentials.")
            return
        from google.auth.transport.requests import AuthorizedSession, Request

        try:
            found = find_credentials(self.settings)
        except AuthError as error:
            yield about.error("credentials", error)
            return
        self._found_project = found.project
        credentials: Any = found.credentials
        try:
            with requests.Session() as plain:
                if not credentials.valid:
                    credentials.refresh(Request(plain))
        except auth.TransportError as error:
            who = _described(found.described, credentials)
            message = f"{who}; Google's sign-in could not be reached: {_line(error)}."
            yield about.unknown("credentials", message, hint="Check the network.")
            return
        except (auth.GoogleAuthError, requests.RequestException) as error:
            told = refused(error, self.settings)
            yield about.error("credentials", told, fix=self._impersonation_fix())
            return
        self.member = member_of(credentials)  # only now: the metadata server says whose they are with the token
        self._session = AuthorizedSession(credentials, refresh_timeout=_SECONDS)
        unnamed = " Commands below say MEMBER for whoever that is." if self.member == _UNNAMED else ""
        yield about.ok("credentials", f"{_described(found.described, credentials)}; Google takes them.{unnamed}")
        if not self.project:
            hint = "Set `google_cloud: {project: …}` in batchform.yaml, or GOOGLE_CLOUD_PROJECT."
            yield about.failure("project", "No project is known that is asked and billed.", hint=hint)

    def _impersonation_fix(self) -> str:
        account = self.settings.impersonate
        if not account:
            return "" if self.settings.credentials else "gcloud auth application-default login"
        return (
            f"gcloud iam service-accounts add-iam-policy-binding {account} "
            "--member=user:$(gcloud config get account) --role=roles/iam.serviceAccountTokenCreator"
        )

    # --- the project

    @cached_property
    def number(self) -> str:
        """The project's number; "" if these credentials may not see it."""
        body = self._ask("GET", f"{self._resource_manager}/v1/projects/{self.project}").body
        return str(body.get("projectNumber") or "") or self._enabled("aiplatform.googleapis.com").body.get("number", "")

    def check_project(self, about: Subject, apis: Sequence[str], roles: Sequence[str]) -> Iterator[Finding]:
        """APIs enabled and permissions held, as far as the project lets itself be asked."""
        if self.emulated:
            yield about.unknown("project", "An emulator has no APIs, roles and service agents that could be looked at.")
            return
        if not self.answers or not self.project:
            yield about.unknown("project", "APIs and roles were not looked at: there are no credentials that work.")
            return
        for api in apis:
            yield self._check_api(about, api)
        for role in roles:
            yield self._check_role(about, role)

    def _check_api(self, about: Subject, api: str) -> Finding:
        answer = self._enabled(api)
        state = answer.body.get("state")
        if state == "ENABLED":
            return about.ok("api", f"{api} is enabled in {self.project}.")
        fix = f"gcloud services enable {api} --project={self.project}"
        if state == "DISABLED":
            return about.failure("api", f"{api} is not enabled in {self.project}.", fix=fix)
        message = f"Whether {api} is enabled in {self.project} could not be asked: {answer.said}."
        hint = "roles/serviceusage.serviceUsageViewer lets one see it. If it is not:"
        return about.unknown("api", message, hint=hint, fix=fix)

    def _enabled(self, api: str) -> _Answer:
        return self._ask("GET", f"{self._service_usage}/v1/projects/{self.project}/services/{api}")

    def _check_role(self, about: Subject, role: str) -> Finding:
        wanted = ROLES[role]
        url = f"{self._resource_manager}/v1/projects/{self.project}:testIamPermissions"
        answer = self._ask("POST", url, {"permissions": list(wanted)})
        fix = (
            f"gcloud projects add-iam-policy-binding {self.project} "
            f"--member={self.member} --role={role} --condition=None"
        )
        if answer.status != 200:
            message = f"Permissions in {self.project} could not be asked: {answer.said}."
            return about.unknown("roles", message, hint=f"{role} is needed; if it is missing:", fix=fix)
        held = set(answer.body.get("permissions") or ())
        missing = [name for name in wanted if name not in held]
        if missing:
            return about.failure("roles", f"The credentials lack {', '.join(missing)} in {self.project}.", fix=fix)
        return about.ok("roles", f"{', '.join(wanted)} in {self.project}: held.")

    # --- the service agent of Vertex AI

    @property
    def agent(self) -> str:
        """As whom jobs read and write; "" while the project's number is not known."""
        known = self.answers and self.number
        return f"service-{self.number}@gcp-sa-aiplatform.iam.gserviceaccount.com" if known else ""

    def check_agent(self, about: Subject) -> Finding:
        """Whether the service agent still has its role in its own project."""
        if not self.answers or not self.number:
            return about.unknown("service-agent", "The number of the project, and so its service agent, is not known.")
        url = f"{self._resource_manager}/v1/projects/{self.project}:getIamPolicy"
        answer = self._ask("POST", url, {})
        member = f"serviceAccount:{self.agent}"
        fix = (
            f"gcloud projects add-iam-policy-binding {self.project} --member={member} "
            f"--role={AGENT_ROLE} --condition=None"
        )
        if answer.status != 200:
            message = f"Roles of {self.agent}, as whom jobs read and write, could not be asked: {answer.said}."
            hint = "It has what it needs in its own project, unless somebody took it away; then:"
            return about.unknown("service-agent", message, hint=hint, fix=fix)
        roles = [b.get("role") for b in answer.body.get("bindings") or () if member in (b.get("members") or ())]
        if roles:
            return about.ok("service-agent", f"{self.agent} has {', '.join(map(str, roles))}.")
        message = f"{self.agent}, as whom jobs read and write, has no role in {self.project}."
        hint = "It is made, with its role, when Vertex AI is used for the first time. If that has been:"
        return about.warning("service-agent", message, hint=hint, fix=fix)

    # --- inside

    def _ask(self, method: str, url: str, body: Mapping[str, Any] | None = None) -> _Answer:
        """One call that only reads; whatever goes wrong is an answer too."""
        assert self._session is not None
        try:
            response = self._session.request(method, url, json=body, timeout=_SECONDS)
            told = response.json() if response.content else {}
        except (auth.GoogleAuthError, requests.RequestException) as error:
            return _Answer(0, {}, _line(error))
        except ValueError:
            return _Answer(response.status_code, {}, f"HTTP {response.status_code} without JSON")
        told = told if isinstance(told, dict) else {}
        if response.status_code == 200:
            parent = str(told.get("parent") or "").removeprefix("projects/")
            return _Answer(200, {**told, "number": parent} if parent.isdecimal() else told)
        error_ = told.get("error")
        said = str(error_.get("message") or "") if isinstance(error_, dict) else ""
        return _Answer(response.status_code, {}, f"HTTP {response.status_code}: {said.splitlines()[0]}" if said else
                       f"HTTP {response.status_code}")  # fmt: skip


def _described(where: str, credentials: Any) -> str:
    """Which credentials, of which kind, and who they are. Nothing of it is secret."""
    name = type(credentials).__module__
    kind = next((words for part, words in _KINDS if part in name), type(credentials).__name__)
    account = _account(credentials)
    return f"{where[:1].upper()}{where[1:]}: {kind}{f', {account}' if account else ''}"


def _account(credentials: Any) -> str:
    email = str(getattr(credentials, "service_account_email", "") or getattr(credentials, "account", "") or "")
    return email if "@" in email else ""


def member_of(credentials: Any) -> str:
    """Who is to be granted a role, as gcloud writes it."""
    account = _account(credentials)
    if account:
        kind = "serviceAccount" if account.endswith("gserviceaccount.com") else "user"
        return f"{kind}:{account}"
    if "oauth2.credentials" in type(credentials).__module__:
        return "user:$(gcloud config get account)"
    return _UNNAMED


def _line(error: BaseException) -> str:
    lines = str(error.args[0] if error.args else error).strip().splitlines()
    return lines[0].rstrip(".")[:300] if lines else type(error).__name__

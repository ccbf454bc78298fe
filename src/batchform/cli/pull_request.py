"""Which pull request a CI job is about, and how its comments are reached: from the variables that runners set."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from batchform.errors import UsageError

if TYPE_CHECKING:
    from batchform.adapters.forge import Forge
    from batchform.adapters.forge_issues import Issues


class Run(Struct, frozen=True):
    """The CI job. number: of the pull or merge request, None if it is about none; commit: what was planned, "" if it
    is not told; url: where the job's log is."""

    service: str  # "GitHub" or "GitLab"
    number: int | None
    commit: str
    url: str


def run_of(env: Mapping[str, str]) -> Run:
    """The job that this process runs in. Raises UsageError where there is none."""
    if env.get("GITLAB_CI"):
        number = env.get("CI_MERGE_REQUEST_IID", "")
        return Run("GitLab", int(number) if number else None, env.get("CI_COMMIT_SHA", ""), env.get("CI_JOB_URL", ""))
    if env.get("GITHUB_REPOSITORY"):
        event = _event(env)
        head = (event.get("pull_request") or {}).get("head") or {}
        return Run("GitHub", _number(event, env), str(head.get("sha") or env.get("GITHUB_SHA", "")), _run_url(env))
    raise UsageError(
        "this is no job of GitHub Actions or GitLab CI: neither GITHUB_REPOSITORY nor GITLAB_CI is set",
        hint="By hand: batchform plan --format markdown",
    )


def issues_of(run: Run, env: Mapping[str, str], *, author: str = "") -> Issues:
    """The issues of the job's repository. Raises UsageError if a variable is missing."""
    from batchform.adapters.forge_issues import GitHubIssues, GitLabIssues

    if run.service == "GitLab":
        api, project, token = _gitlab(env)
        return GitLabIssues(api, project, 0, token, sleep=time.sleep)
    api, repository, token = _github(env)
    return GitHubIssues(api, repository, 0, token, sleep=time.sleep, author=author)


def forge_of(run: Run, env: Mapping[str, str], *, author: str = "") -> Forge:
    """The comments of the job's pull request. author: login that comments are written as, "" to ask. Raises
    UsageError if a variable is missing."""
    from batchform.adapters.forge import GitHub, GitLab

    if run.number is None:
        raise UsageError(
            f"this job of {run.service} is not about a pull request",
            hint="Run it for the event pull_request (GitHub) or merge_request_event (GitLab), or say --pull-request N.",
        )
    if run.service == "GitLab":
        api, project, token = _gitlab(env)
        return GitLab(api, env.get("CI_MERGE_REQUEST_PROJECT_ID") or project, run.number, token, sleep=time.sleep)
    api, repository, token = _github(env)
    return GitHub(api, repository, run.number, token, sleep=time.sleep, author=author)


def _gitlab(env: Mapping[str, str]) -> tuple[str, str, str]:
    """Address of the API, project and token."""
    api, project = _needed(env, "CI_API_V4_URL"), _needed(env, "CI_PROJECT_ID")
    hint = "A project access token with scope `api`, as a masked variable: the token of a job may not write notes."
    return api, project, _needed(env, "GITLAB_TOKEN", hint)


def _github(env: Mapping[str, str]) -> tuple[str, str, str]:
    """Address of the API, repository and token."""
    api, repository = env.get("GITHUB_API_URL") or "https://api.github.com", _needed(env, "GITHUB_REPOSITORY")
    hint = "Give it to the step: env: {GITHUB_TOKEN: ${{ github.token }}}"
    return api, repository, env.get("GH_TOKEN") or _needed(env, "GITHUB_TOKEN", hint)


def _needed(env: Mapping[str, str], name: str, hint: str = "") -> str:
    if not env.get(name):
        raise UsageError(f"the environment variable {name} is not set", hint=hint)
    return env[name]


def _event(env: Mapping[str, str]) -> dict[str, Any]:
    """What started the run of GitHub Actions; empty if it is not told."""
    path = env.get("GITHUB_EVENT_PATH", "")
    if not path or not Path(path).is_file():
        return {}
    try:
        told = json.loads(Path(path).read_text(encoding="utf-8"))
    except ValueError as error:
        raise UsageError(f"{path} (GITHUB_EVENT_PATH) is not JSON: {error}") from None
    return told if isinstance(told, dict) else {}


def _number(event: Mapping[str, Any], env: Mapping[str, str]) -> int | None:
    for part in (event.get("pull_request"), event.get("issue"), event):
        if isinstance(part, dict) and isinstance(part.get("number"), int):
            return int(part["number"])
    found = re.fullmatch(r"refs/pull/(\d+)/(merge|head)", env.get("GITHUB_REF", ""))
    return int(found[1]) if found else None


def _run_url(env: Mapping[str, str]) -> str:
    server, repository, number = (env.get(f"GITHUB_{n}", "") for n in ("SERVER_URL", "REPOSITORY", "RUN_ID"))
    return f"{server}/{repository}/actions/runs/{number}" if server and number else ""

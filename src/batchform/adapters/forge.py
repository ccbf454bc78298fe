"""Comments of pull requests (GitHub) and merge requests (GitLab), over their REST APIs with the standard library.

One comment is kept up to date: it is found again by its first line, a hidden marker, among the comments of the same
author. Somebody else's comment with that marker is left alone: whoever wrote a comment can edit it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from http.client import HTTPException, HTTPMessage
from typing import IO, Any, Final, Protocol
from urllib.error import HTTPError, URLError
from urllib.parse import quote
from urllib.request import HTTPRedirectHandler, Request, build_opener

from msgspec import Struct

from batchform.errors import BatchformError

ATTEMPTS: Final = 4
LONGEST_WAIT: Final = 60.0
"""Seconds that are waited between two attempts at most, whatever the service says."""
TIMEOUT: Final = 30.0
_WORDS: Final = 500  # characters of what a service says of a refusal


class ForgeError(BatchformError):
    """GitHub or GitLab refused, failed or did not answer. status: of HTTP, 0 if there was none."""

    def __init__(self, message: str, *, hint: str = "", status: int = 0) -> None:
        super().__init__(message, hint=hint)
        self.status = status


class Comment(Struct, frozen=True):
    """A comment as it is now. author: login of who wrote it."""

    id: int
    author: str
    body: str


class Forge(Protocol):
    """The comments of one pull request. Every method raises ForgeError."""

    def me(self) -> str:
        """Login that comments are written as."""
        ...

    def comments(self) -> Iterator[Comment]:
        """All comments, oldest first."""
        ...

    def create(self, body: str) -> None: ...

    def update(self, comment: int, body: str) -> None: ...

    def delete(self, comment: int) -> None: ...

    def merged(self, commit: str, branch: str) -> list[int]:
        """Numbers of the pull requests that a commit merged into a branch; "" for any. One that was merged into
        another branch was reviewed for that one."""
        ...


def own_comments(forge: Forge, marker: str) -> list[Comment]:
    """Comments of the token's own author whose first line is `marker`, oldest first."""
    me = forge.me()
    mine = (c for c in forge.comments() if c.author == me and c.body.partition("\n")[0].rstrip("\r") == marker)
    return sorted(mine, key=lambda c: c.id)


def keep_one(forge: Forge, body: str) -> str:
    """Make `body` the one comment that starts with its first line. Returns "created", "updated" or "unchanged".

    A create whose answer is lost is looked for before it is tried again. Doubles that two runs have made at the same
    time are deleted, all but the oldest. Raises ForgeError.
    """
    marker = body.partition("\n")[0]
    found = own_comments(forge, marker)
    if not found:
        try:
            forge.create(body)
        except ForgeError as error:
            if error.status and error.status < 500:
                raise
            if not own_comments(forge, marker):
                forge.create(body)
        return "created"
    first, *doubles = found
    for double in doubles:
        forge.delete(double.id)
    if first.body.replace("\r\n", "\n").rstrip() == body.rstrip():
        return "unchanged"
    forge.update(first.id, body)
    return "updated"


class GitHub:
    """Comments of a pull request: `repository` is OWNER/NAME. author: login of the token's owner; default: asked for.

    The token of a workflow may not ask who it is: it writes as github-actions[bot].
    """

    needs = "the workflow's `permissions: pull-requests: write`"

    def __init__(
        self, api: str, repository: str, number: int, token: str, *, sleep: Callable[[float], None], author: str = ""
    ) -> None:
        headers = {
            "Authorization": f"Bearer {_clean(token, 'GitHub')}",
            "Accept": "application/vnd.github+json",
            "X-GitHub-Api-Version": "2022-11-28",
        }
        self._calls = _Calls(api, headers, "GitHub", self.needs, sleep)
        self._repository = f"/repos/{repository}"
        self._issues = f"/repos/{repository}/issues"
        self._number = number
        self._author = author

    def me(self) -> str:
        if self._author:
            return self._author
        try:
            return self._calls.field("/user", "login")
        except ForgeError as error:
            if error.status not in (401, 403):
                raise
            return "github-actions[bot]"

    def comments(self) -> Iterator[Comment]:
        for found in self._calls.pages(f"{self._issues}/{self._number}/comments?per_page=100"):
            yield Comment(int(found["id"]), str((found.get("user") or {}).get("login", "")), str(found["body"] or ""))

    def create(self, body: str) -> None:
        self._calls.json("POST", f"{self._issues}/{self._number}/comments", {"body": body})

    def update(self, comment: int, body: str) -> None:
        self._calls.json("PATCH", f"{self._issues}/comments/{comment}", {"body": body})

    def delete(self, comment: int) -> None:
        self._calls.json("DELETE", f"{self._issues}/comments/{comment}")

    def merged(self, commit: str, branch: str) -> list[int]:
        found = self._calls.pages(f"{self._repository}/commits/{quote(commit, safe='')}/pulls?per_page=100")
        into = [p for p in found if p.get("merged_at") and branch in ("", (p.get("base") or {}).get("ref"))]
        return [int(p["number"]) for p in _made(into, commit, "merge_commit_sha")]


class GitLab:
    """Notes of a merge request. project: its number, or its path. The token of a job may not write notes: it takes a
    project access token with the scope `api`."""

    def __init__(self, api: str, project: str, number: int, token: str, *, sleep: Callable[[float], None]) -> None:
        headers = {"PRIVATE-TOKEN": _clean(token, "GitLab")}
        self._calls = _Calls(api, headers, "GitLab", "a project access token with scope `api`", sleep)
        self._project = f"/projects/{quote(project, safe='')}"
        self._notes = f"{self._project}/merge_requests/{number}/notes"

    def me(self) -> str:
        return self._calls.field("/user", "username")

    def comments(self) -> Iterator[Comment]:
        for found in self._calls.pages(f"{self._notes}?per_page=100&sort=asc&order_by=created_at"):
            if not found.get("system"):
                yield Comment(int(found["id"]), str(found["author"]["username"]), str(found["body"]))

    def create(self, body: str) -> None:
        self._calls.json("POST", self._notes, {"body": body})

    def update(self, comment: int, body: str) -> None:
        self._calls.json("PUT", f"{self._notes}/{comment}", {"body": body})

    def delete(self, comment: int) -> None:
        self._calls.json("DELETE", f"{self._notes}/{comment}")

    def merged(self, commit: str, branch: str) -> list[int]:
        path = f"{self._project}/repository/commits/{quote(commit, safe='')}/merge_requests?per_page=100"
        found = [m for m in self._calls.pages(path) if m.get("state") == "merged"]
        into = [m for m in found if branch in ("", m.get("target_branch"))]
        return [int(m["iid"]) for m in _made(into, commit, "merge_commit_sha", "squash_commit_sha", "sha")]


class _Calls:
    """HTTP calls with retries; each refusal is a sentence. needs: what a token must be allowed, for the hint."""

    def __init__(
        self, api: str, headers: Mapping[str, str], service: str, needs: str, sleep: Callable[[float], None]
    ) -> None:
        self._api = api.rstrip("/")
        self._headers = {**headers, "User-Agent": "batchform"}
        self._service = service
        self._needs = needs
        self._sleep = sleep
        self._opener = build_opener(_Here(self._api))

    def json(self, method: str, path: str, body: object = None) -> Any:
        return self._call(method, self._api + path, body)[0]

    def field(self, path: str, name: str) -> str:
        """One text of an object."""
        told = self.json("GET", path)
        if not isinstance(told, dict) or not isinstance(told.get(name), str):
            raise self._strange(self._api + path, f"an object with `{name}`")
        return str(told[name])

    def pages(self, path: str) -> Iterator[Any]:
        """The items of all pages, along the `next` of the Link headers; never to another host, which would be told
        the token."""
        url: str | None = self._api + path
        while url:
            items, link = self._call("GET", url, None)
            if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
                raise self._strange(url, "a list of objects")
            yield from items
            following = re.search(r'<([^>]+)>;\s*rel="next"', link)
            url = following[1] if following else None
            if url and not url.startswith(self._api + "/"):
                raise ForgeError(f"{self._service} names a next page that is not at {self._api}: {url}")

    def _call(self, method: str, url: str, body: object) -> tuple[Any, str]:
        data = None if body is None else json.dumps(body).encode()
        headers = {**self._headers, **({"Content-Type": "application/json"} if data else {})}
        for attempt in range(1, ATTEMPTS + 1):
            request = Request(url, data, headers, method=method)
            try:
                with self._opener.open(request, timeout=TIMEOUT) as answer:
                    raw = answer.read()
                    return (json.loads(raw) if raw else None), answer.headers.get("Link") or ""
            except HTTPError as error:
                with error:
                    wait = _wait(error, attempt) if method != "POST" or error.code in (403, 429) else None
                    if wait is None or attempt == ATTEMPTS:
                        raise self._refused(error, method, url) from None
            except (URLError, HTTPException, OSError, ValueError) as error:
                if method == "POST" or attempt == ATTEMPTS:
                    reason = getattr(error, "reason", error)
                    raise ForgeError(f"{self._service} did not answer: {method} {url}: {reason}") from None
                wait = 2.0**attempt
            self._sleep(wait)
        raise AssertionError("unreachable")

    def _refused(self, error: HTTPError, method: str, url: str) -> ForgeError:
        try:
            told = json.loads(error.read())
            words = str(told.get("message") or told.get("error") or told)
        except (ValueError, OSError, AttributeError, HTTPException):
            words = str(error.reason)
        hint = f"The token needs {self._needs}." if error.code in (401, 403, 404) else ""
        if 300 <= error.code < 400:
            words = f"it redirects to {error.headers.get('Location') or 'nowhere'}, which is not told the token"
            hint = f"The address of {self._service}'s API is {self._api} here: correct it where it has moved."
        message = f"{self._service} answered {error.code} to {method} {url}: {words[:_WORDS]}"
        return ForgeError(message, hint=hint, status=error.code)

    def _strange(self, url: str, wanted: str) -> ForgeError:
        return ForgeError(
            f"{url} is no answer of {self._service}: {wanted} was expected", hint=f"Is {self._api} its API?"
        )


class _Here(HTTPRedirectHandler):
    """Follows redirects of a GET that stay in the API. The standard library's own would tell the token to any host."""

    def __init__(self, api: str) -> None:
        self._api = api

    def redirect_request(
        self, req: Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> Request | None:
        if req.get_method() != "GET" or not newurl.startswith(self._api + "/"):
            return None
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _clean(token: str, service: str) -> str:
    """A token without the line break that came with it. Raises ForgeError, which does not say it."""
    token = token.strip()
    if not re.fullmatch(r"[!-~]+", token):
        raise ForgeError(f"what is given as token for {service} is none: it has spaces, line breaks or other letters")
    return token


def _made(merged: list[Any], commit: str, *names: str) -> list[Any]:
    """Of several, those whose merge made that very commit, if they say so."""
    return [m for m in merged if commit in (m.get(name) for name in names)] or merged


def _wait(error: HTTPError, attempt: int) -> float | None:
    """Seconds until a refused call may be tried again; None if that would not help."""
    after = error.headers.get("Retry-After")
    limited = error.code == 429 or (error.code == 403 and (after or error.headers.get("X-RateLimit-Remaining") == "0"))
    if not limited and error.code < 500:
        return None
    return min(float(after), LONGEST_WAIT) if after and after.isdigit() else min(2.0**attempt, LONGEST_WAIT)

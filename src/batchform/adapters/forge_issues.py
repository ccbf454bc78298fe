"""The one issue about drift, on GitHub or GitLab: opened, kept up to date, closed.

It is found again as the comment is: by its first line, a hidden marker, among the open issues of the same author.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from msgspec import Struct

from batchform.adapters.forge import GitHub, GitLab


class Issue(Struct, frozen=True):
    """An open issue as it is now. number: as people write it; author: login of who wrote it."""

    number: int
    author: str
    title: str
    body: str


class Issues(Protocol):
    """The issues of a repository. Every method raises ForgeError."""

    def me(self) -> str:
        """Login that issues are written as."""
        ...

    def opened(self) -> Iterator[Issue]:
        """All open issues."""
        ...

    def open(self, title: str, body: str) -> None: ...

    def edit(self, number: int, title: str, body: str) -> None: ...

    def close(self, number: int) -> None: ...


def keep_issue(issues: Issues, marker: str, text: tuple[str, str] | None) -> str:
    """Make `text`, title and body, the one open issue with this marker as its first line; None: there is none left.

    Returns "opened", "updated", "unchanged", "closed" or "none". Raises ForgeError.
    """
    me = issues.me()
    found = [i for i in issues.opened() if i.author == me and i.body.partition("\n")[0].rstrip("\r") == marker]
    found.sort(key=lambda issue: issue.number)
    if text is None:
        for issue in found:
            issues.close(issue.number)
        return "closed" if found else "none"
    title, body = text
    if not found:
        issues.open(title, body)
        return "opened"
    first, *doubles = found
    for double in doubles:
        issues.close(double.number)
    if first.title == title and first.body.replace("\r\n", "\n").rstrip() == body.rstrip():
        return "unchanged"
    issues.edit(first.number, title, body)
    return "updated"


class GitHubIssues(GitHub):
    """Issues of a repository on GitHub."""

    needs = "the workflow's `permissions: issues: write`"

    def opened(self) -> Iterator[Issue]:
        for found in self._calls.pages(f"{self._issues}?state=open&per_page=100"):
            if "pull_request" not in found:
                author = str((found.get("user") or {}).get("login", ""))
                yield Issue(int(found["number"]), author, str(found["title"]), str(found["body"] or ""))

    def open(self, title: str, body: str) -> None:
        self._calls.json("POST", self._issues, {"title": title, "body": body})

    def edit(self, number: int, title: str, body: str) -> None:
        self._calls.json("PATCH", f"{self._issues}/{number}", {"title": title, "body": body})

    def close(self, number: int) -> None:
        self._calls.json("PATCH", f"{self._issues}/{number}", {"state": "closed", "state_reason": "completed"})


class GitLabIssues(GitLab):
    """Issues of a project on GitLab."""

    def opened(self) -> Iterator[Issue]:
        for found in self._calls.pages(f"{self._project}/issues?state=opened&scope=all&per_page=100"):
            author = str((found.get("author") or {}).get("username", ""))
            yield Issue(int(found["iid"]), author, str(found["title"]), str(found["description"] or ""))

    def open(self, title: str, body: str) -> None:
        self._calls.json("POST", f"{self._project}/issues", {"title": title, "description": body})

    def edit(self, number: int, title: str, body: str) -> None:
        self._calls.json("PUT", f"{self._project}/issues/{number}", {"title": title, "description": body})

    def close(self, number: int) -> None:
        self._calls.json("PUT", f"{self._project}/issues/{number}", {"state_event": "close"})

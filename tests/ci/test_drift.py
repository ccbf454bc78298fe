"""The one issue about drift, over real sockets against servers that behave as GitHub's and GitLab's APIs."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from forge_server import BOT, GITHUB_TOKEN, GITLAB_TOKEN, ForgeServer

from batchform.adapters.forge import ForgeError
from batchform.adapters.forge_issues import GitHubIssues, GitLabIssues, keep_issue

MARKER = "<!-- batchform:drift:acme -->"
Service = Callable[[ForgeServer], GitHubIssues | GitLabIssues]


def github(forge: ForgeServer) -> GitHubIssues:
    return GitHubIssues(forge.url, "acme/support", 0, GITHUB_TOKEN, sleep=lambda _: None)


def gitlab(forge: ForgeServer) -> GitLabIssues:
    return GitLabIssues(f"{forge.url}/gitlab", "42", 0, GITLAB_TOKEN, sleep=lambda _: None)


def file(forge: ForgeServer, number: int, author: str, body: str, **more: bool) -> None:
    forge.issues.append(
        {"number": number, "author": author, "title": f"issue {number}", "body": body, "state": "open", **more}
    )


@pytest.mark.parametrize(("service", "me"), [(github, BOT), (gitlab, "project_42_bot")])
def test_one_issue_is_opened_found_on_any_page_edited_and_closed(forge: ForgeServer, service: Service, me: str) -> None:
    for number in range(1000, 1250):
        file(forge, number, "octocat", f"{MARKER}\nI quote you {number}")
    assert keep_issue(service(forge), MARKER, None) == "none"
    assert keep_issue(service(forge), MARKER, ("10 rows", f"{MARKER}\nten")) == "opened"
    assert keep_issue(service(forge), MARKER, ("10 rows", f"{MARKER}\nten")) == "unchanged"
    assert keep_issue(service(forge), MARKER, ("9 rows", f"{MARKER}\nnine")) == "updated"
    mine = [i for i in forge.opened() if i["author"] == me]
    assert [(i["title"], i["body"]) for i in mine] == [("9 rows", f"{MARKER}\nnine")]
    file(forge, 2000, me, f"{MARKER}\r\na double of two runs")
    file(forge, 2001, me, f"somebody quotes {MARKER}")
    assert keep_issue(service(forge), MARKER, ("8 rows", f"{MARKER}\neight")) == "updated"
    assert {i["number"] for i in forge.opened() if i["author"] == me} == {mine[0]["number"], 2001}
    assert keep_issue(service(forge), MARKER, None) == "closed"
    assert [i["number"] for i in forge.opened() if i["author"] == me] == [2001]
    assert len(forge.opened()) == 251
    # What was closed is not opened again: what comes is another finding.
    assert keep_issue(service(forge), MARKER, ("1 row", f"{MARKER}\none")) == "opened"


def test_pull_requests_are_no_issues(forge: ForgeServer) -> None:
    file(forge, 5, BOT, f"{MARKER}\na pull request of the bot", pull=True)
    assert keep_issue(github(forge), MARKER, None) == "none"


def test_a_token_that_may_not_is_told_what_it_needs(forge: ForgeServer) -> None:
    forge.answers = ["pass", 403]
    with pytest.raises(ForgeError) as told:
        keep_issue(github(forge), MARKER, None)
    assert "issues: write" in told.value.hint

"""The one issue about drift, over real sockets against servers that behave as GitHub's and GitLab's APIs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from forge_server import BOT, GITHUB_TOKEN, GITLAB_TOKEN, ForgeServer

from batchform.adapters.forge import ForgeError
from batchform.adapters.forge_issues import GitHubIssues, GitLabIssues, keep_issue
from batchform.cli import run

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


def test_the_command_opens_edits_and_closes_it(
    forge: ForgeServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("GITLAB_CI", "GH_TOKEN", "BATCHFORM_ENV", "GITHUB_EVENT_PATH", "GITHUB_RUN_ID"):
        monkeypatch.delenv(name, raising=False)
    for name, value in (("REPOSITORY", "acme/support"), ("TOKEN", GITHUB_TOKEN), ("API_URL", forge.url)):
        monkeypatch.setenv(f"GITHUB_{name}", value)
    assert run(["init", str(tmp_path / "llm")]) == 0
    monkeypatch.chdir(tmp_path / "llm")
    file = tmp_path / "llm/batchform.yaml"
    text = file.read_text().replace("{type: emulator}", "{type: emulator, job_seconds: 0, poll: 10ms}")
    file.write_text(text)
    plan, prompt = tmp_path / "drift.json", tmp_path / "llm/templates/triage.j2"

    def told(code: int) -> str:
        """What is said of the plan that there is now, which ends with this exit code."""
        capsys.readouterr()
        assert run(["plan", "--json", "--detailed-exitcode"]) == code
        plan.write_text(capsys.readouterr().out)
        assert run(["ci", "drift", str(plan), "--summary", str(tmp_path / "summary")]) == 0
        return capsys.readouterr().out

    assert "10 rows to send for $" in told(2)
    assert "apply --approved" not in forge.issues[0]["body"]
    assert run(["apply", "--yes", "--quiet"]) == 0
    assert told(0) == "no drift; issue of GitHub: closed\n"
    before = prompt.read_text()
    prompt.write_text(before + "Be brief.\n")
    assert "10 rows wait for a decision\nissue of GitHub: opened" in told(2)
    file.write_text(text + "\nnonsense: 1\n")
    assert told(1).startswith("batchform: llm cannot be planned\nissue of GitHub: updated")
    file.write_text(text.replace("max_rows: 10000", "max_rows: 1"))
    prompt.write_text(before)
    rows = tmp_path / "llm/data/tickets.csv"
    rows.write_text(rows.read_text() + "A-1,a,b\nA-2,a,b\n")
    assert "held by max_rows" in told(3)
    summary = (tmp_path / "summary").read_text()
    assert [forge.issues[-1]["body"] in summary, "No drift" in summary] == [True, True]
    assert len(forge.opened()) == 1 and len(forge.issues) == 2


def test_pull_requests_are_no_issues(forge: ForgeServer) -> None:
    file(forge, 5, BOT, f"{MARKER}\na pull request of the bot", pull=True)
    assert keep_issue(github(forge), MARKER, None) == "none"


def test_a_token_that_may_not_is_told_what_it_needs(forge: ForgeServer) -> None:
    forge.answers = ["pass", 403]
    with pytest.raises(ForgeError) as told:
        keep_issue(github(forge), MARKER, None)
    assert "issues: write" in told.value.hint

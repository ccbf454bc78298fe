"""The one comment of a pull request, over real sockets against servers that behave as GitHub's and GitLab's APIs."""

from __future__ import annotations

import json
import zlib
from base64 import b64encode
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from forge_server import BOT, GITHUB_TOKEN, GITLAB_TOKEN, ForgeServer, forge_server

from batchform.adapters.forge import ForgeError, GitHub, GitLab, keep_one
from batchform.cli import run
from batchform.plan.bounds import Envelope
from batchform.view.comment import approved_in

MARKER = "<!-- batchform:plan:acme -->"


def slept(waits: list[float]) -> Callable[[float], None]:
    return waits.append


def github(forge: ForgeServer, waits: list[float] | None = None, token: str = GITHUB_TOKEN) -> GitHub:
    return GitHub(forge.url, "acme/support", 7, token, sleep=slept([] if waits is None else waits))


def gitlab(forge: ForgeServer) -> GitLab:
    return GitLab(f"{forge.url}/gitlab", "42", 7, GITLAB_TOKEN, sleep=slept([]))


@pytest.mark.parametrize(("service", "author"), [(github, BOT), (gitlab, "project_42_bot")])
def test_one_comment_is_made_found_again_on_any_page_and_edited(
    forge: ForgeServer, service: Callable[[ForgeServer], GitHub | GitLab], author: str
) -> None:
    for i in range(250):
        forge.write(f"comment {i}", "octocat")
    assert keep_one(service(forge), f"{MARKER}\nfirst\n") == "created"
    assert keep_one(service(forge), f"{MARKER}\nfirst\n") == "unchanged"
    for i in range(120):
        forge.write(f"later {i}", "octocat")
    assert keep_one(service(forge), f"{MARKER}\nsecond\n") == "updated"
    assert keep_one(service(forge), "<!-- batchform:plan:other -->\nof another project\n") == "created"
    assert forge.bodies(author) == [f"{MARKER}\nsecond\n", "<!-- batchform:plan:other -->\nof another project\n"]


def test_somebody_elses_comment_with_the_marker_is_left_alone(forge: ForgeServer) -> None:
    """Its author could edit it after the approval."""
    forge.write(f"{MARKER}\nI am the plan\n", "mallory")
    assert keep_one(github(forge), f"{MARKER}\nplan\n") == "created"
    assert forge.bodies("mallory") == [f"{MARKER}\nI am the plan\n"]
    assert forge.bodies() == [f"{MARKER}\nplan\n"]


def test_doubles_of_two_runs_become_one(forge: ForgeServer) -> None:
    forge.write(f"{MARKER}\r\none\r\n", BOT)
    forge.write(f"{MARKER}\ntwo\n", BOT)
    forge.write(f"I quote {MARKER}", BOT)
    assert keep_one(github(forge), f"{MARKER}\nthree\n") == "updated"
    assert forge.bodies() == [f"{MARKER}\nthree\n", f"I quote {MARKER}"]


def test_a_create_whose_answer_is_lost_makes_no_second_comment(forge: ForgeServer) -> None:
    forge.answers = ["pass", "pass", "lost"]  # who am I, list, create
    assert keep_one(github(forge), f"{MARKER}\nplan\n") == "created"
    assert forge.bodies() == [f"{MARKER}\nplan\n"]


def test_a_create_that_surely_failed_is_tried_again(forge: ForgeServer) -> None:
    forge.answers = ["pass", "pass", 502]
    assert keep_one(github(forge), f"{MARKER}\nplan\n") == "created"
    assert forge.bodies() == [f"{MARKER}\nplan\n"]


def test_limits_and_failures_of_the_service_are_waited_for(forge: ForgeServer) -> None:
    waits: list[float] = []
    forge.answers = [429, 503, "pass", 429]
    forge.headers = {"Retry-After": "3"}
    known = GitHub(forge.url, "acme/support", 7, GITHUB_TOKEN, sleep=slept(waits), author=BOT)
    assert keep_one(known, f"{MARKER}\nplan\n") == "created"
    assert waits == [3.0, 3.0, 3.0]
    forge.headers = {"Retry-After": "100000"}
    forge.answers = [500, 500, 500, 500]
    with pytest.raises(ForgeError, match=r"GitHub answered 500 to GET http://\S+/comments\S*: as told"):
        keep_one(known, f"{MARKER}\nplan\n")
    assert max(waits) == 60.0


def test_a_refusal_says_what_the_token_needs_and_never_the_token(forge: ForgeServer) -> None:
    with pytest.raises(ForgeError) as refused:
        keep_one(github(forge, token="ghs_wrong"), f"{MARKER}\nplan\n")
    told = refused.value.render()
    assert "401" in told and "pull-requests: write" in told and "ghs_wrong" not in told


def test_the_token_goes_to_no_other_host(forge: ForgeServer) -> None:
    forge.headers = {"Link": '<http://127.0.0.2:1/next>; rel="next"'}
    with pytest.raises(ForgeError, match="next page that is not at"):
        list(github(forge).comments())


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_redirect_is_followed_inside_of_the_api_only(forge: ForgeServer, status: int) -> None:
    """The standard library would send the token along to wherever it points."""
    heard: list[str] = []
    with forge_server() as other:
        forge.headers = {"Location": f"{other.url}/user"}
        forge.answers = [status]
        with pytest.raises(ForgeError, match=f"GitHub answered {status} to GET .* which is not told the token"):
            github(forge).me()
        forge.answers = ["pass", "pass", status]
        with pytest.raises(ForgeError, match="to POST"):
            keep_one(github(forge), "x")
        heard += other.calls
    assert heard == [] and forge.comments == []
    forge.pulls = [{"number": 7, "merged_at": "2026-01-01T00:00:00Z"}]
    forge.headers = {"Location": f"{forge.url}/repos/acme/support/commits/new/pulls"}
    forge.answers = [status]
    assert github(forge).merged("old", "") == [7]


@pytest.mark.parametrize("token", [f"{GITHUB_TOKEN}\n", f" {GITHUB_TOKEN}\r\n"])
def test_a_line_break_after_a_token_does_no_harm(forge: ForgeServer, token: str) -> None:
    assert github(forge, token=token).me() == BOT


@pytest.mark.parametrize("token", ["ghs_secret\nghs_more", "ghs_secret…", "\n"])
def test_what_can_be_no_token_is_refused_and_not_said(forge: ForgeServer, token: str) -> None:
    for made in (lambda: github(forge, token=token), lambda: GitLab(forge.url, "42", 7, token, sleep=slept([]))):
        with pytest.raises(ForgeError, match="is none") as refused:
            made()
        assert "secret" not in refused.value.render()


def test_an_answer_of_something_else_is_a_sentence(forge: ForgeServer) -> None:
    forge.pulls = {"message": "a portal"}  # type: ignore[assignment]
    with pytest.raises(ForgeError, match=r"is no answer of GitHub: a list of objects was expected"):
        github(forge).merged("abc", "main")
    with pytest.raises(ForgeError, match="an object with `username`"):
        GitLab(f"{forge.url}/gitlab/projects/42/repository/commits", "42", 7, GITLAB_TOKEN, sleep=slept([])).me()


def test_nobody_listens() -> None:
    waits: list[float] = []
    gone = GitHub("http://127.0.0.1:9", "acme/support", 7, "t", sleep=slept(waits), author=BOT)
    with pytest.raises(ForgeError, match="GitHub did not answer: GET"):
        keep_one(gone, f"{MARKER}\nplan\n")
    assert waits == [2.0, 4.0, 8.0]


# --- the command -----------------------------------------------------------------------------------------------------


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Path:
    root = tmp_path / "acme"
    assert run(["init", str(root)]) == 0
    monkeypatch.chdir(root)
    for name in ("GITLAB_CI", "GITHUB_REPOSITORY", "GITHUB_TOKEN", "GH_TOKEN", "GITLAB_TOKEN", "BATCHFORM_ENV"):
        monkeypatch.delenv(name, raising=False)
    capsys.readouterr()
    return root


def on_github(forge: ForgeServer, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    event = folder / "event.json"
    event.write_text(json.dumps({"number": 7, "pull_request": {"number": 7, "head": {"sha": "abcdef0123456789"}}}))
    for name, value in {
        "GITHUB_API_URL": forge.url,
        "GITHUB_REPOSITORY": "acme/support",
        "GITHUB_TOKEN": GITHUB_TOKEN,
        "GITHUB_EVENT_PATH": str(event),
        "GITHUB_SERVER_URL": "https://github.example",
        "GITHUB_RUN_ID": "99",
    }.items():
        monkeypatch.setenv(name, value)


def test_a_plan_is_posted_and_then_kept_up_to_date(
    forge: ForgeServer, project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    on_github(forge, project.parent, monkeypatch)
    assert run(["plan", "--out", "plan", "--quiet"]) == 0
    assert run(["ci", "comment", "plan"]) == 0
    assert "comment of GitHub #7: created" in capsys.readouterr().out
    [body] = forge.bodies()
    assert body.startswith("<!-- batchform:plan:acme -->\n### ✓ batchform: acme")
    assert "Planned at `abcdef0123` · [log](https://github.example/acme/support/actions/runs/99)" in body
    (project / "batchform.yaml").write_text((project / "batchform.yaml").read_text() + "\nnonsense: 1\n")
    assert run(["ci", "comment", "no-plan"]) == 0
    [body] = forge.bodies()
    assert body.startswith("<!-- batchform:plan:acme -->\n### ✗ batchform: no plan of acme")
    assert "Nothing is approved" in body
    assert run(["ci", "comment", "plan/plan.json", "--dry-run"]) == 0
    assert "### ✓ batchform: acme" in capsys.readouterr().out
    assert len(forge.bodies()) == 1


@pytest.mark.usefixtures("project")
def test_gitlab_too(forge: ForgeServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for name, value in {
        "GITLAB_CI": "true",
        "CI_API_V4_URL": f"{forge.url}/gitlab",
        "CI_PROJECT_ID": "42",
        "CI_MERGE_REQUEST_IID": "7",
        "CI_COMMIT_SHA": "abcdef0123456789",
        "CI_JOB_URL": "https://gitlab.example/-/jobs/1",
    }.items():
        monkeypatch.setenv(name, value)
    assert run(["plan", "--out", "plan", "--quiet"]) == 0
    assert run(["ci", "comment", "plan"]) == 64
    assert "project access token" in capsys.readouterr().err
    monkeypatch.setenv("GITLAB_TOKEN", GITLAB_TOKEN)
    assert run(["ci", "comment", "plan"]) == 0
    assert "[log](https://gitlab.example/-/jobs/1)" in forge.bodies("project_42_bot")[0]


def test_outside_of_ci_it_says_what_to_do(
    project: Path, forge: ForgeServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["ci", "comment", "plan"]) == 64
    assert "this is no job of GitHub Actions or GitLab CI" in capsys.readouterr().err
    on_github(forge, project.parent, monkeypatch)
    (project.parent / "event.json").write_text("{}")
    assert run(["ci", "comment", "plan"]) == 64
    assert "not about a pull request" in capsys.readouterr().err
    assert run(["ci", "comment", "plan", "--pull-request", "7"]) == 0
    monkeypatch.delenv("GITHUB_TOKEN")
    assert run(["ci", "comment", "plan", "--pull-request", "7"]) == 64
    assert "github.token" in capsys.readouterr().err


def test_only_what_was_approved_may_be_applied(
    forge: ForgeServer, project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    on_github(forge, project.parent, monkeypatch)
    monkeypatch.setenv("GITHUB_SHA", "abc123")
    monkeypatch.setenv("GITHUB_REF", "refs/heads/main")

    def approved(*options: str) -> tuple[int, str]:
        capsys.readouterr()
        code = run(["ci", "approved", "plan", "--out", "approved.json", *options])
        return code, "".join(capsys.readouterr())

    code, told = approved()
    assert code == 64 and "no saved plan at plan" in told
    assert run(["plan", "--out", "plan", "--quiet"]) == 0
    plan = json.loads((project / "plan/plan.json").read_text())
    digest, envelope = plan["digest"].removeprefix("sha256:"), plan["envelope"]["digest"].removeprefix("sha256:")
    code, told = approved()
    assert code == 4 and "commit abc123 was not merged from a pull request" in told
    merged = {"number": 7, "merged_at": "2026-01-01T00:00:00Z", "base": {"ref": "main"}}
    forge.pulls = [{**merged, "number": 9, "base": {"ref": "elsewhere"}}]  # a branch that nobody guards
    code, told = approved()
    assert code == 4 and "commit abc123 was not merged from a pull request into main" in told
    forge.pulls = [merged, {**merged, "number": 9}]
    code, told = approved()
    assert code == 4 and "from several pull requests (7, 9)" in told
    forge.pulls = [{**merged, "merge_commit_sha": "abc123"}, {**merged, "number": 9}, {"number": 8, "merged_at": None}]
    code, told = approved()
    assert code == 4 and "GitHub #7 has no comment with a plan of acme" in told
    forge.write(f"<!-- batchform:plan:acme -->\n<!-- batchform:digest:sha256:{digest} -->\n", "mallory")
    assert approved()[0] == 4
    assert not (project / "approved.json").exists()

    assert run(["ci", "comment", "plan", "--quiet"]) == 0
    rows = (project / "data/tickets.csv").read_text().splitlines(keepends=True)
    (project / "data/tickets.csv").write_text("".join([*rows, rows[-1].replace(rows[-1].split(",")[0], "T-999", 1)]))
    assert run(["plan", "--out", "plan", "--quiet"]) == 0  # a row came between review and merge
    moved = json.loads((project / "plan/plan.json").read_text())["digest"].removeprefix("sha256:")
    code, told = approved()
    assert code == 0 and told.startswith("approved in GitHub #7: 11 rows for $") and envelope[:12] in told
    assert json.loads((project / "approved.json").read_text())["envelope"] == plan["envelope"]

    # Only the comment that is kept up to date counts, not a double of it.
    kept = forge.comments[-1]
    forge.write(kept["body"], BOT)
    kept["body"], whole = "<!-- batchform:plan:acme -->\n### ✗ batchform: no plan of acme\n", kept["body"]
    assert approved()[0] == 4
    forge.comments.pop()
    kept["body"] = whole

    # A comment that had no room for the envelope approves that very plan.
    short = "\n".join(line for line in forge.comments[-1]["body"].splitlines() if "envelope:" not in line)
    forge.comments[-1]["body"] = short
    code, told = approved()
    assert code == 4 and f"this plan ({moved[:12]}) is not what GitHub #7 showed ({digest[:12]})" in told
    assert approved("--digest", moved[:12])[0] == 0
    assert approved("--digest", f"sha256:{moved}")[0] == 0
    assert approved("--digest", "1" * 12)[0] == 4
    assert approved("--digest", moved[:11])[0] == 64
    assert approved("--digest", "$(id)")[0] == 64

    monkeypatch.setenv("GITLAB_CI", "true")
    ours = {"PROJECT_ID": "42", "COMMIT_SHA": "abc123", "COMMIT_BRANCH": "main"}
    for name, value in {"API_V4_URL": f"{forge.url}/gitlab", **ours}.items():
        monkeypatch.setenv(f"CI_{name}", value)
    monkeypatch.setenv("GITLAB_TOKEN", GITLAB_TOKEN)
    forge.pulls = [{"iid": 7, "state": "merged", "target_branch": "elsewhere"}]
    assert "from a pull request into main" in approved()[1]
    merged = {"iid": 7, "state": "merged", "target_branch": "main"}
    forge.pulls = [{**merged, "squash_commit_sha": "abc123"}, {**merged, "iid": 8}, {**merged, "state": "opened"}]
    assert "GitLab !7 has no comment" in approved()[1]
    monkeypatch.setenv("CI_MERGE_REQUEST_IID", "7")
    assert run(["ci", "comment", "plan", "--quiet"]) == 0
    monkeypatch.delenv("CI_MERGE_REQUEST_IID")
    code, told = approved()
    assert code == 0 and told.startswith("approved in GitLab !7: 13 rows for $")


@pytest.mark.parametrize("hidden", ["envelope:!!", "envelope:AAAA", "envelope:eJyrVkrPLMnMTwEADZUC/A==", "digest:x"])
def test_a_comment_that_somebody_spoilt_approves_nothing(hidden: str) -> None:
    assert approved_in(f"text\n<!-- batchform:{hidden} -->\n")[1] is None


def test_what_is_approved_is_read_from_the_end_of_the_comment() -> None:
    body = "```\n<!-- batchform:digest:sha256:f00 -->\n```\n<!-- batchform:digest:sha256:abc -->\r\n"
    assert approved_in(body) == ("sha256:abc", None)


def test_a_row_approves_nothing_where_the_comment_had_no_room_for_an_envelope() -> None:
    """Rows of a spec with `preview: public` are in the comment, in fences; their text may be anybody's."""
    told = Envelope("sha256:e", "sha256:abc", "acme", "", "", "", "2999-01-01T00:00:00Z", (), 10**6, 1e6, partial=False)
    row = f"<!-- batchform:envelope:{b64encode(zlib.compress(msgspec.json.encode(told))).decode()} -->"
    end = "<!-- batchform:digest:sha256:abc -->\n"
    assert approved_in(f"```\n{row}\n```\n{end}") == ("sha256:abc", None)
    assert approved_in(f"{end}{row}\r\n") == ("sha256:abc", told)
    assert approved_in(f"{end}{row}\ntext\n") == ("", None)
    assert approved_in(f"<!-- batchform:digest:sha256:def -->\n{row}\n") == ("sha256:def", None)

"""`batchform ci`: workflows for GitHub Actions and GitLab CI, and the comment that they keep up to date."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from msgspec.structs import replace

from batchform.cli.options import Common, common

if TYPE_CHECKING:
    from batchform.cli.pull_request import Run
    from batchform.view.workflows import Needs

F = TypeVar("F", bound=Callable[..., Any])


@click.group("ci", short_help="Workflows for GitHub and GitLab, and the comment on a pull request.")
def ci_command() -> None:
    """Review plans in pull requests, apply what was approved, track and deliver on a schedule: docs/ci.md."""


@ci_command.command("comment", short_help="Keep the one comment of a pull request up to date.")
@click.argument("plan", metavar="PLAN")
@click.option("--pull-request", metavar="N", type=click.IntRange(1), help="Default: that of the CI job.")
@click.option("--author", default="", metavar="LOGIN", help="Login that the token writes as; default: asked for.")
@click.option("--dry-run", is_flag=True, help="Print the comment, post nothing.")
@common
def comment(common: Common, plan: str, pull_request: int | None, author: str, dry_run: bool) -> None:
    """Post the saved plan PLAN (a folder, or its plan.json) as the one comment of the pull request.

    A comment that this made before is edited, not followed by another. Where PLAN does not exist, because planning
    failed, it says so. Runs in a job of GitHub Actions (GITHUB_TOKEN) or GitLab CI (GITLAB_TOKEN).
    """
    from batchform.cli.pull_request import forge_of, run_of

    run = run_of(os.environ)
    if pull_request:
        run = replace(run, number=pull_request)
    body = _body(common, plan, run)
    if dry_run:
        click.echo(body, nl=False)
        return
    from batchform.adapters.forge import keep_one

    done = keep_one(forge_of(run, os.environ, author=author), body)
    if not common.quiet:
        click.echo(f"comment of {run.service} {'!' if run.service == 'GitLab' else '#'}{run.number}: {done}")


@ci_command.command("approved", short_help="Fetch what the merged pull request approved.")
@click.argument("plan", metavar="PLAN")
@click.option("--out", metavar="FILE", required=True, help="Where to write it, for `apply --approved FILE`.")
@click.option("--digest", default="", metavar="DIGEST", help="Of PLAN, approved by hand; default: ask the comment.")
@click.option(
    "--author", default="", metavar="LOGIN", help="Login that the comment was written as; default: asked for."
)
@common
def approved(common: Common, plan: str, out: str, digest: str, author: str) -> None:
    """Write what may be applied: the envelope in the comment of the pull request that this commit merged.

    PLAN is the plan as it is now. It is its own approval if nothing in it costs money, and if --digest names it. Exit
    code 4: nobody approved anything.
    """
    from batchform.cli.ci_approved import approved_envelope, summary_with

    envelope, words = approved_envelope(Path(plan), digest, os.environ, author=author)
    Path(out).write_text(summary_with(Path(plan), envelope), encoding="utf-8")
    if not common.quiet:
        click.echo(f"approved {words}" if words.startswith(("in ", "by ")) else words)


@ci_command.command("drift", short_help="Keep the one issue about drift up to date.")
@click.argument("plan", metavar="PLAN")
@click.option("--author", default="", metavar="LOGIN", help="Login that the token writes as; default: asked for.")
@click.option("--summary", metavar="FILE", help="Append what it says to FILE, such as $GITHUB_STEP_SUMMARY.")
@click.option("--dry-run", is_flag=True, help="Print the issue, touch nothing.")
@common
def drift(common: Common, plan: str, author: str, summary: str | None, dry_run: bool) -> None:
    """Open an issue where PLAN, a plan.json, has something to do or to decide; close it where it has not.

    An issue that this opened before is edited, not followed by another. Where PLAN is no plan, because planning failed,
    it says so. Runs in a job of GitHub Actions (GITHUB_TOKEN, issues: write) or GitLab CI (GITLAB_TOKEN).
    """
    from batchform.cli.pull_request import issues_of, run_of

    run = run_of(os.environ)
    marker, text = _drift(common, plan, run)
    said = text[1] if text else "No drift: there is nothing to do, and nothing to decide."
    if summary:
        with Path(summary).open("a", encoding="utf-8") as file:
            file.write(f"{said}\n")
    if dry_run:
        click.echo(said)
        return
    from batchform.adapters.forge_issues import keep_issue

    done = keep_issue(issues_of(run, os.environ, author=author), marker, text)
    if not common.quiet:
        head = f"{text[0]}\n" if text else "no drift; "
        click.echo(f"{head}issue of {run.service}: {done}")


def _drift(common: Common, plan: str, run: Run) -> tuple[str, tuple[str, str] | None]:
    """The marker of the issue, and what it says."""
    from batchform.cli.planning import kept_plan
    from batchform.errors import StalePlan, UsageError
    from batchform.view.drift import drift_issue, drift_marker, no_plan_issue

    try:
        found = kept_plan(Path(plan))
    except (StalePlan, UsageError):
        project, environment = _project(common), common.environment or ""
        return drift_marker(project, environment), no_plan_issue(project, environment, url=run.url)
    return drift_marker(found.project, found.environment), drift_issue(found)


def _body(common: Common, plan: str, run: Run) -> str:
    from batchform.cli.planning import kept_plan
    from batchform.view.comment import no_plan_comment, plan_comment

    path = Path(plan)
    if path.exists():
        return plan_comment(kept_plan(path), commit=run.commit, url=run.url)
    return no_plan_comment(_project(common), common.environment or "", commit=run.commit, url=run.url)


def _project(common: Common) -> str:
    """The project's name, also when its files are wrong: that is why there is no plan."""
    import re

    from batchform.spec.load import find_project

    text = find_project(Path(common.directory)).read_text(encoding="utf-8", errors="replace")
    found = re.search(r"^project:[ \t]*['\"]?([^\s'\"#]+)", text, re.MULTILINE)
    return found[1] if found else "project"


# --- workflows -------------------------------------------------------------------------------------------------------


def _writing(function: F) -> F:
    """Options of commands that write a workflow."""
    for option in (
        click.option("--out", metavar="FILE", help="Where to write it; `-` prints it."),
        click.option("--branch", default="main", show_default=True, metavar="NAME", help="What is applied."),
        click.option("--runs-on", default="", metavar="LABELS", help="Runners of your own, by comma."),
        click.option("--install", default="", metavar="REQUIREMENT", help="What pip installs; default: this version."),
        click.option("--force", is_flag=True, help="Replace a file that is another."),
    ):
        function = option(function)
    return function


@ci_command.command("github", short_help="Write a workflow for GitHub Actions.")
@_writing
@common
def github(common: Common, out: str | None, branch: str, runs_on: str, install: str, force: bool) -> int:
    """Write .github/workflows/batchform.yml: validate and plan on pull requests, apply on merge, sync and drift.

    With --env it is of that environment, and the file's name has it.
    """
    name = f"batchform-{common.environment}.yml" if common.environment else "batchform.yml"
    return _write(common, "github", out or f".github/workflows/{name}", branch, runs_on, install, force=force)


@ci_command.command("gitlab", short_help="Write a pipeline for GitLab CI.")
@_writing
@common
def gitlab(common: Common, out: str | None, branch: str, runs_on: str, install: str, force: bool) -> int:
    """Write .gitlab-ci.yml: validate and plan on merge requests, apply on merge, sync and drift on schedules.

    Where there is one already, write another file with --out, and name it under `include:`.
    """
    return _write(common, "gitlab", out or ".gitlab-ci.yml", branch, runs_on, install, force=force)


def _write(common: Common, service: str, out: str, branch: str, runs_on: str, install: str, *, force: bool) -> int:
    """Write a workflow; where another file stands, show the difference and leave it, unless forced."""
    from difflib import unified_diff

    from batchform.cli.ci_needs import needs_of, repository_of
    from batchform.errors import UsageError, relative_to
    from batchform.spec.load import find_project
    from batchform.view.workflows import github_workflow, gitlab_pipeline

    labels = [label.strip() for label in runs_on.split(",") if label.strip()]
    needs = needs_of(common, branch=branch, runs_on=labels, requirement=install)
    text = (github_workflow if service == "github" else gitlab_pipeline)(needs)
    if out == "-":
        click.echo(text, nl=False)
        return 0
    top = repository_of(find_project(Path(common.directory)).parent)
    path = Path(out) if Path(out).is_absolute() else top / out
    shown = relative_to(path, Path.cwd())
    before = path.read_text(encoding="utf-8") if path.exists() else None
    if before == text:
        click.echo(f"{shown} is up to date")
        return 0
    if before is not None:
        lines = unified_diff(before.splitlines(keepends=True), text.splitlines(keepends=True), shown, "new")
        click.echo("".join(lines), nl=False)
        if not force:
            raise UsageError(f"{shown} is another file; it was left as it is", hint="Replace it with --force.")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    click.echo(f"wrote {shown}")
    for line in _set_up(needs, service):
        click.echo(line)
    return 0


def _set_up(needs: Needs, service: str) -> Iterator[str]:
    """What a person has to set up once."""
    apply = needs.environment or "batchform"
    if service == "github":
        yield f"  environments of the repository: {apply} (with required reviewers), {apply}-sync (without)"
    else:
        yield f"  the protected environment {apply}; schedules with BATCHFORM=sync and BATCHFORM=drift"
        yield "  secret GITLAB_TOKEN: a project access token with the scope `api`"
    for variable in needs.variables:
        yield f"  {'secret' if variable.secret else 'variable'} {variable.name}"
    if needs.google:
        names = "GOOGLE_WORKLOAD_IDENTITY_PROVIDER, GOOGLE_PLANNER, GOOGLE_SUBMITTER"
        yield f"  variables {names if service == 'github' else 'GOOGLE_AUDIENCE'}: docs/ci.md"

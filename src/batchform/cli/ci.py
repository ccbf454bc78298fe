"""`batchform ci`: workflows for GitHub Actions and GitLab CI, and the comment that they keep up to date."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click
from msgspec.structs import replace

from batchform.cli.options import Common, common

if TYPE_CHECKING:
    from batchform.cli.pull_request import Run


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

"""What is posted on a pull request: a plan with where it comes from, or that none could be made."""

from __future__ import annotations

import re

from batchform.plan.model import Plan
from batchform.view.markdown import MAX_CHARS, code, marker, plain, plan_markdown

COMMIT = 10
"""Characters of a commit's name that are shown."""


def plan_comment(plan: Plan, *, commit: str, url: str) -> str:
    """The plan as Markdown, and which commit and run made it. At most MAX_CHARS characters."""
    footer = f"{_footer('Planned', commit, url)}<!-- batchform:digest:{plan.digest} -->\n"
    return plan_markdown(plan, max_chars=MAX_CHARS - len(footer)) + footer


def no_plan_comment(project: str, environment: str, *, commit: str, url: str) -> str:
    """That no plan could be made, in place of one of an earlier commit, which would mislead."""
    where = f" in {plain(environment)}" if environment else ""
    head = f"{marker(project, environment)}\n### ✗ batchform: no plan of {plain(project)}{where}\n\n"
    why = f"[The log]({url}) says why" if url else "The log of the run says why"
    return f"{head}{why}. Nothing is approved, and nothing will be sent.\n{_footer('Tried', commit, url)}"


def _footer(verb: str, commit: str, url: str) -> str:
    words = [f"{verb} at {code(commit[:COMMIT])}"] if commit else []
    words += [f"[log]({url})"] if url else []
    return f"\n<sub>{' · '.join(words)}</sub>\n" if words else ""


def digest_in(body: str) -> str:
    """Digest of the plan that a comment shows; "" if it shows none. The last one: what stands above may be a row's."""
    found = re.findall(r"^<!-- batchform:digest:([a-z0-9:]+) -->\r?$", body, re.MULTILINE)
    return str(found[-1]) if found else ""

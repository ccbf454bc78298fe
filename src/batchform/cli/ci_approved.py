"""What people approved: the envelope in the comment of the pull request that was merged, or a digest given by hand."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

from msgspec.structs import replace

from batchform.canon import short
from batchform.errors import StalePlan, UsageError

if TYPE_CHECKING:
    from batchform.cli.pull_request import Run
    from batchform.plan.bounds import Envelope
    from batchform.plan.model import Plan

_BY_HAND: Final = "Look at the plan above, and if it is right run the workflow by hand with its digest."
_SHORTEST: Final = 12
"""Hex digits of a digest that a person must give at least: as many as are shown."""


def approved_envelope(path: Path, digest: str, env: Mapping[str, str], *, author: str) -> tuple[Envelope, str]:
    """What may be applied, and in words who approved it. path: of the plan as it is now. Raises StalePlan if nobody
    approved anything, or if the digest is another's."""
    from batchform.cli.planning import kept_plan
    from batchform.cli.pull_request import run_of

    if not path.exists():
        raise UsageError(f"there is no saved plan at {path}", hint="Make one with: batchform plan --out DIR")
    plan = kept_plan(path)
    if plan.envelope is None:
        raise UsageError(f"{path} holds nothing that could be approved", hint="Plan with `batchform plan --out DIR`.")
    if plan.rows_to_send == 0 and plan.rows_after == 0:
        return plan.envelope, "nothing in this plan costs money"
    if digest:
        _check(plan, digest, "what was approved by hand")
        return plan.envelope, f"by its digest: {_words(plan.envelope)}"
    run = run_of(env)
    number = _merged(run, env)
    where = f"{run.service} {'!' if run.service == 'GitLab' else '#'}{number}"
    shown, envelope = _shown(plan, replace(run, number=number), env, where, author)
    if envelope is None:
        _check(plan, shown, f"what {where} showed")
        envelope = plan.envelope
    return envelope, f"in {where}: {_words(envelope)}"


def summary_with(path: Path, envelope: Envelope) -> str:
    """The plan's summary as JSON with another envelope: what `apply --approved` takes."""
    import json

    from batchform.cli.planning import kept_plan
    from batchform.view.json import plan_json

    return json.dumps(plan_json(replace(kept_plan(path), envelope=envelope)), ensure_ascii=False, indent=2) + "\n"


def _words(envelope: Envelope) -> str:
    from batchform.spec.wording import counted, money

    return f"{counted(envelope.rows, 'row')} for {money(envelope.usd)} at most, {short(envelope.digest)}"


def _check(plan: Plan, digest: str, what: str) -> None:
    wanted = digest.strip().rpartition(":")[2]
    if len(wanted) < _SHORTEST or not re.fullmatch(r"[0-9a-f]+", wanted):
        raise UsageError(f"{digest!r} is no digest of a plan", hint=f"It has {_SHORTEST} hex digits or more.")
    if not plan.digest.rpartition(":")[2].startswith(wanted):
        raise StalePlan(
            f"this plan ({short(plan.digest)}) is not {what} ({wanted[:_SHORTEST]}): rows, ledger or files moved since",
            hint=f"Look at it, and if it is right run the workflow by hand with the digest {short(plan.digest)}.",
        )


def _merged(run: Run, env: Mapping[str, str]) -> int:
    """Number of the pull request that this commit merged."""
    from batchform.cli.pull_request import forge_of

    commit = env.get("CI_COMMIT_SHA" if run.service == "GitLab" else "GITHUB_SHA", "")
    ref = env.get("GITHUB_REF", "")
    branch = ref.removeprefix("refs/heads/") if ref.startswith("refs/heads/") else ""
    branch = env.get("CI_COMMIT_BRANCH", "") if run.service == "GitLab" else branch
    found = forge_of(replace(run, number=0), env).merged(commit, branch) if commit else []
    if not found:
        into = f" into {branch}" if branch else ""
        raise StalePlan(
            f"commit {commit[:10] or '?'} was not merged from a pull request{into}, so nobody approved what it would "
            "send",
            hint=_BY_HAND,
        )
    if len(found) > 1:
        numbers = ", ".join(map(str, sorted(found)))
        raise StalePlan(
            f"commit {commit[:10]} was merged from several pull requests ({numbers}): which of them approved it?",
            hint=_BY_HAND,
        )
    return found[0]


def _shown(plan: Plan, run: Run, env: Mapping[str, str], where: str, author: str) -> tuple[str, Envelope | None]:
    """Digest and envelope in the comment of a pull request."""
    from batchform.adapters.forge import own_comments
    from batchform.cli.pull_request import forge_of
    from batchform.view.comment import approved_in
    from batchform.view.markdown import marker

    own = own_comments(forge_of(run, env, author=author), marker(plan.project, plan.environment))
    digest, envelope = approved_in(own[0].body) if own else ("", None)  # the first is the one that is kept up to date
    if digest:
        return digest, envelope
    raise StalePlan(
        f"{where} has no comment with a plan of {plan.project}, so nobody approved what this would send", hint=_BY_HAND
    )

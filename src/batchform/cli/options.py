"""Options that many commands share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import wraps
from typing import TYPE_CHECKING, Any, TypeVar

import click
from msgspec import Struct, field

if TYPE_CHECKING:
    from batchform.plan.changes import Decision

F = TypeVar("F", bound=Callable[..., Any])


class Common(Struct, frozen=True):
    """What every command is told: where the project is, which environment, and how to speak."""

    directory: str
    environment: str | None
    as_json: bool
    quiet: bool


class Asked(Struct, frozen=True):
    """What the command line says of one plan. allow: limits that it releases, reason: why; on_change: what becomes of
    answered rows that an edit would send again, by spec; promoted: the environment whose answers are promoted."""

    allow: tuple[str, ...] = ()
    reason: str = ""
    on_change: Mapping[str, Decision] = field(default_factory=dict)
    promoted: str = ""


class Reviewed(Struct, frozen=True):
    """What somebody has approved. digest: of it, or a file that holds it; where: the file, None for those in
    `approvals/`; approver: who, if it is said."""

    digest: str
    where: str | None = None
    approver: str = ""


def common(function: F) -> F:
    """Adds -C, --env, --json and --quiet, handed over as one `common: Common` argument."""

    @click.option("-C", "--directory", default=".", metavar="DIR", help="The project's folder, or one inside it.")
    @click.option(
        "--env",
        "environment",
        envvar="BATCHFORM_ENV",
        metavar="NAME",
        help="Environment of batchform.yaml; default BATCHFORM_ENV.",
    )
    @click.option("--json", "as_json", is_flag=True, help="Machine-readable output.")
    @click.option("-q", "--quiet", is_flag=True, help="Only results and errors.")
    @wraps(function)
    def wrapper(*args: Any, directory: str, environment: str | None, as_json: bool, quiet: bool, **kwargs: Any) -> Any:
        settings = Common(directory, environment or None, as_json, quiet)
        return function(*args, common=settings, **kwargs)

    return wrapper  # type: ignore[return-value]


def selection(function: F) -> F:
    """Adds --select, repeatable: spec names, globs, tag:NAME, state:modified, changed-since:GITREF."""
    return click.option(
        "-s", "--select", "select", multiple=True, metavar="SPEC",
        help="Only these specs: a name, a glob, tag:NAME, state:modified, changed-since:GITREF. Repeat, or use commas.",
    )(function)  # fmt: skip


def changes(function: F) -> F:
    """Adds --on-change, repeatable: what becomes of answered rows that an edit of their spec would send again."""
    return click.option(
        "--on-change",
        multiple=True,
        metavar="SPEC=WAY",
        help="What becomes of answered rows after an edit of SPEC: rerun, keep or canary:N. Recorded by apply.",
    )(function)


def counting(function: F) -> F:
    """Adds --count, with or without a number: how many requests of each spec the service counts; 0 without it."""
    from batchform.plan.sample_sizes import MIN_COUNTED, MOST_COUNTED, USUALLY_COUNTED

    return click.option(
        "--count",
        type=click.IntRange(MIN_COUNTED, MOST_COUNTED),
        is_flag=False,
        flag_value=USUALLY_COUNTED,
        callback=lambda _context, _option, value: value or 0,
        metavar="[ROWS]",
        help=f"Let the service count tokens of up to ROWS requests of each spec (default {USUALLY_COUNTED}). Free.",
    )(function)


def allowances(function: F) -> F:
    """Adds --allow, repeatable, which releases one named limit for this plan, and --reason, which must say why."""

    @click.option("--allow", multiple=True, metavar="LIMIT", help="Release one limit this once, such as max_usd.")
    @click.option("--reason", default="", metavar="TEXT", help="Why limits are released. Recorded with them.")
    @wraps(function)
    def wrapper(*args: Any, allow: tuple[str, ...], reason: str, **kwargs: Any) -> Any:
        if allow and not reason.strip():
            from batchform.errors import UsageError

            names = " ".join(f"--allow {name}" for name in allow)
            hint = f'It is recorded in the ledger, for whoever asks later: {names} --reason "…"'
            raise UsageError("--allow releases a limit, and needs a reason", hint=hint)
        return function(*args, allow=allow, reason=reason.strip(), **kwargs)

    return wrapper  # type: ignore[return-value]

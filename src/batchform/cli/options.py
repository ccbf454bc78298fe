"""Options that many commands share."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

import click
from msgspec import Struct

F = TypeVar("F", bound=Callable[..., Any])


class Common(Struct, frozen=True):
    """What every command is told: where the project is, which environment, and how to speak."""

    directory: str
    environment: str | None
    as_json: bool
    quiet: bool


def common(function: F) -> F:
    """Adds -C, --env, --json and --quiet, handed over as one `common: Common` argument."""

    @click.option("-C", "--directory", default=".", metavar="DIR", help="The project's folder, or one inside it.")
    @click.option("--env", "environment", envvar="BATCHFORM_ENV", metavar="NAME", help="Environment of batchform.yaml.")
    @click.option("--json", "as_json", is_flag=True, help="Machine-readable output.")
    @click.option("-q", "--quiet", is_flag=True, help="Only results and errors.")
    @wraps(function)
    def wrapper(*args: Any, directory: str, environment: str | None, as_json: bool, quiet: bool, **kwargs: Any) -> Any:
        settings = Common(directory, environment or None, as_json, quiet)
        return function(*args, common=settings, **kwargs)

    return wrapper  # type: ignore[return-value]


def selection(function: F) -> F:
    """Adds --select, repeatable: spec names, globs, tag:NAME."""
    return click.option(
        "-s", "--select", "select", multiple=True, metavar="SPEC",
        help="Only these specs: a name, a glob, or tag:NAME. Repeat, or separate with commas.",
    )(function)  # fmt: skip


def allowances(function: F) -> F:
    """Adds --allow, repeatable: releases one named limit for this plan."""
    return click.option(
        "--allow",
        multiple=True,
        metavar="LIMIT",
        help="Release one limit for this plan, such as max_usd. Recorded.",
    )(function)

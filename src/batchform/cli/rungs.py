"""Rungs of the retry ladder, for commands that show or try single rows: `--after truncated`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import click

if TYPE_CHECKING:
    from batchform.cli.wiring import Session
    from batchform.rows.attached import AttachedFile
    from batchform.spec.resolved import ResolvedSpec

    Rows = list[tuple[str, bytes, list[AttachedFile]]]

after: Final = click.option(
    "--after", "failures", multiple=True, metavar="CLASS",
    help="As `retry.on` changes rows that failed so, such as truncated; repeat it for each failure.",
)  # fmt: skip


def climbed_rows(
    session: Session, spec: ResolvedSpec, rows: Rows, failures: Sequence[str]
) -> tuple[ResolvedSpec, Rows]:
    """The rows as they are sent after these failures, and the spec with the model of that. Raises UsageError for a
    class that the ladder does not change."""
    if not failures:
        return spec, rows
    from msgspec.structs import replace

    from batchform.cli.places import registry_of
    from batchform.errors import UsageError
    from batchform.plan.ladder import climber_of

    climber = climber_of(spec, registry_of(session, spec.backend_name))
    for name in failures:
        if climber is None or name not in spec.retry.changes:
            known = ", ".join(spec.retry.changes)
            raise UsageError(
                f"`retry.on` of {spec.name} changes nothing after {name!r}",
                hint=f"It changes what failed as: {known}." if known else "It has no ladder: see docs/specs.md#retry.",
            )
    assert climber is not None
    model, made = spec.model, []
    for key, request, files in rows:
        climbed = climber.climb(request, Counter(failures))
        model = climbed.rung.model if climbed else model
        made.append((key, climbed.request if climbed else request, files))
    return replace(spec, model=model), made

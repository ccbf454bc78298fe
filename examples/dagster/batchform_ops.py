"""What the asset does, as plain functions: they need batchform and no Dagster."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from batchform import Outcome, Project


def materialize(
    folder: str, environment: str | None, spec: str, *, at_most: float, said: Callable[[str], object]
) -> Outcome:
    """Send what a spec's rows lack, or go on with what was sent before, and wait for the answers for so many seconds.

    Raises StillRunning when that is over, LimitExceeded when a limit holds rows, RowsFailed when too many failed.
    """
    project = Project(folder, env=environment)
    project.apply(select=spec, detach=True, progress=said)
    return project.sync(spec, wait=True, at_most=at_most, progress=said)


def metadata(folder: str, environment: str | None, spec: str, outcome: Outcome) -> dict[str, Any]:
    """What the catalogue shows beside the asset."""
    project = Project(folder, env=environment)
    results = project.results(spec)
    state = project.status(spec).specs[0]
    return {
        "answers": results.count(),
        "columns": list(results.columns),
        "usd_of_this_run": outcome.usd,
        "usd_so_far": state.usd,
        "rows": dict(state.rows),
        "delivered_to": state.location,
    }


def check_valid(folder: str, environment: str | None, spec: str, least: float) -> tuple[bool, dict[str, Any]]:
    """Whether at least this share of the rows is answered, and the figures."""
    rows = Project(folder, env=environment).status(spec).specs[0].rows
    total = sum(n for state, n in rows.items() if state not in ("absent", "gone"))
    share = rows.get("answered", 0) / total if total else 1.0
    return share >= least, {"answered": rows.get("answered", 0), "rows": total, "share": round(share, 4)}

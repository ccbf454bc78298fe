"""What the DAG's tasks do, as plain functions: they need batchform and no Airflow. Folders and environments are theirs.

Each takes and returns what Airflow passes between tasks: text, numbers, lists and mappings of those.
"""

from __future__ import annotations

import logging
from typing import Any

from batchform import BatchformError, Project
from batchform.errors import RowsFailed

log = logging.getLogger(__name__)


def plan(folder: str, environment: str | None, select: str = "") -> dict[str, Any]:
    """What would be sent, in the task's log and as figures. A limit that holds rows fails the task: nothing is sent."""
    plan = Project(folder, env=environment).plan(select)
    log.info("%s", plan.to_markdown())
    held = [f"{v.scope}: {v.message}" for v in plan.verdicts if not v.ok]
    if held:
        raise BatchformError(f"nothing will be sent: {'; '.join(held)}")
    return {"digest": plan.digest, "rows": plan.rows_to_send, "usd": plan.cost.expected}


def submit(folder: str, environment: str | None, select: str = "") -> list[str]:
    """Create the jobs and return their tags. A retry of the task plans anew, and so sends only what was not sent."""
    outcome = Project(folder, env=environment).apply(select=select, detach=True, progress=log.info)
    return [*outcome.created, *outcome.adopted]


def step(folder: str, environment: str | None) -> bool:
    """One look at the jobs: collect, retry and deliver what is there. Whether nothing is left to wait for."""
    try:
        return Project(folder, env=environment).sync(progress=log.info).done
    except RowsFailed as error:  # the other rows are delivered; the next plan shows these
        log.warning("%s", error)
        return False


def count_answers(folder: str, environment: str | None, spec: str) -> int:
    """How many rows of a spec are answered."""
    return Project(folder, env=environment).results(spec).count()

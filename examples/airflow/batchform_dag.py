"""A DAG that plans, submits, and looks every five minutes until all is delivered. Apache Airflow 3, TaskFlow."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import batchform_tasks as tasks
from airflow.sdk import dag, task

FOLDER = "/opt/airflow/projects/support"
ENVIRONMENT = "prod"


@dag(schedule="@daily", start_date=datetime(2026, 1, 1), catchup=False, max_active_runs=1)
def support_tickets() -> None:
    @task
    def plan() -> dict[str, Any]:
        return tasks.plan(FOLDER, ENVIRONMENT)

    @task(retries=2)
    def submit() -> list[str]:
        return tasks.submit(FOLDER, ENVIRONMENT)

    @task.sensor(poke_interval=300, timeout=2 * 86_400, mode="reschedule")
    def delivered() -> bool:
        return tasks.step(FOLDER, ENVIRONMENT)

    @task
    def answered() -> int:
        return tasks.count_answers(FOLDER, ENVIRONMENT, "triage")

    plan() >> submit() >> delivered() >> answered()


support_tickets()

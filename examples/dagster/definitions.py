"""An asset of a spec's answers, with a check. `dagster dev -f definitions.py` shows it. Tried with 1.13.

Annotations are evaluated here: Dagster looks for the class of `context`.
"""

import batchform_ops as ops
import dagster as dg

FOLDER = "/opt/dagster/projects/support"
ENVIRONMENT = "prod"


@dg.asset(retry_policy=dg.RetryPolicy(max_retries=20, delay=600), pool="batchform-support")
def triage(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
    """Answers of the spec `triage`. A retry sends nothing twice: it goes on with the jobs that are there."""
    outcome = ops.materialize(FOLDER, ENVIRONMENT, "triage", at_most=3_600, said=context.log.info)
    return dg.MaterializeResult(metadata=ops.metadata(FOLDER, ENVIRONMENT, "triage", outcome))


@dg.asset_check(asset=triage)
def most_rows_are_answered() -> dg.AssetCheckResult:
    passed, figures = ops.check_valid(FOLDER, ENVIRONMENT, "triage", least=0.98)
    return dg.AssetCheckResult(passed=passed, metadata=figures)


definitions = dg.Definitions(
    assets=[triage],
    asset_checks=[most_rows_are_answered],
    schedules=[dg.ScheduleDefinition("nightly", target=[triage], cron_schedule="0 3 * * *")],
)

"""Complaints about a spec's tables in BigQuery that need no look at them."""

from __future__ import annotations

from collections.abc import Iterator

from batchform.errors import Diagnostic
from batchform.spec.bigquery import BigQueryDestination, BigQuerySource
from batchform.spec.model import Spec
from batchform.spec.wording import shown
from batchform.spec.yaml_source import Document

_MOST_CLUSTERED = 4


def bigquery_identity(spec: str, to: BigQueryDestination) -> str:
    """Equal for two specs that would write over each other's answers: tables that are not shared have one owner."""
    return f"bigquery\0{_name(to.table)}\0{spec if to.shared else ''}"


def lint_bigquery(document: Document, spec: Spec) -> Iterator[Diagnostic]:
    source, to = spec.source, spec.destination
    for part, name in ((source, "source"), (to, "destination")):
        table = getattr(part, "table", None) if isinstance(part, (BigQuerySource, BigQueryDestination)) else None
        if table and not 2 <= len([p for p in _name(table).split(".") if p]) <= 4:
            message, hint = f"`{shown(table)}` is no table's name", "Write project.dataset.table."
            yield document.diagnostic("wrong-value", message, (name, "table"), hint=hint)
    if not isinstance(to, BigQueryDestination):
        return
    if isinstance(source, BigQuerySource) and source.table and _name(source.table) == _name(to.table):
        message = f"the destination `{shown(to.table)}` is the table that the source reads"
        hint = "Answers must not become rows: write them elsewhere."
        yield document.diagnostic("destination-is-source", message, ("destination", "table"), hint=hint)
    if len(to.cluster_by) > _MOST_CLUSTERED:
        message = f"`cluster_by` names {len(to.cluster_by)} columns, and BigQuery takes four"
        yield document.diagnostic("wrong-value", message, ("destination", "cluster_by"), on_key=True)
    if to.prune and to.shared and not to.metadata:
        message = "`prune` in a shared table needs `metadata`, which tells whose a row is"
        yield document.diagnostic("conflicting-fields", message, ("destination", "prune"), on_key=True)


def _name(table: str) -> str:
    return table.strip().strip("`").replace(":", ".").casefold()

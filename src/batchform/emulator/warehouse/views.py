"""Views: what columns their SQL gives."""

from __future__ import annotations

from typing import Any

from batchform.emulator.warehouse import ddl, translate
from batchform.emulator.warehouse.catalog import TableRef
from batchform.emulator.warehouse.declined import not_supported
from batchform.emulator.warehouse.fields import Schema
from batchform.emulator.warehouse.query import Query, Run
from batchform.emulator.warehouse.relations import Relations
from batchform.emulator.warehouse.warehouse import Warehouse


def schema_of(warehouse: Warehouse, ref: TableRef, view: dict[str, Any]) -> Schema:
    """Raises Declined when its SQL cannot run."""
    if view.get("useLegacySql"):
        raise not_supported("views in legacy SQL")
    home = warehouse.dataset(ref.project, ref.dataset)
    sql = str(view.get("query") or "")
    run = Run(warehouse, ref.project, home.location, Query(sql), lambda _: lambda _: None)
    query = translate.parse_view(sql)
    with warehouse.engine.cursor() as cursor, warehouse.engine.declining():
        return ddl.view_schema(run, query, Relations(run.context, run.workspace.read, cursor), cursor)

"""INFORMATION_SCHEMA: TABLES, COLUMNS and SCHEMATA as SQL over what the catalog says."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from sqlglot import exp

from batchform.emulator.warehouse import catalog
from batchform.emulator.warehouse.declined import Declined, invalid
from batchform.emulator.warehouse.fields import text

if TYPE_CHECKING:
    from batchform.emulator.warehouse.relations import Context

_COLUMNS: Final = {
    "TABLES": {
        "table_catalog": "VARCHAR",
        "table_schema": "VARCHAR",
        "table_name": "VARCHAR",
        "table_type": "VARCHAR",
        "is_insertable_into": "VARCHAR",
        "is_typed": "VARCHAR",
        "creation_time": "TIMESTAMPTZ",
    },
    "COLUMNS": {
        "table_catalog": "VARCHAR",
        "table_schema": "VARCHAR",
        "table_name": "VARCHAR",
        "column_name": "VARCHAR",
        "ordinal_position": "BIGINT",
        "is_nullable": "VARCHAR",
        "data_type": "VARCHAR",
        "is_partitioning_column": "VARCHAR",
        "clustering_ordinal_position": "BIGINT",
    },
    "SCHEMATA": {
        "catalog_name": "VARCHAR",
        "schema_name": "VARCHAR",
        "creation_time": "TIMESTAMPTZ",
        "location": "VARCHAR",
    },
}


def information(context: Context, table: exp.Table) -> str:
    """SQL for one of its views. Raises Declined."""
    name = table.name.partition(".")[2].upper()
    if name not in _COLUMNS:
        raise invalid(f"The emulator's INFORMATION_SCHEMA has {', '.join(sorted(_COLUMNS))}; it has no {name}.")
    project, dataset = table.catalog or context.project, table.db or context.dataset
    with context.warehouse.catalog.reading() as db:
        if name == "SCHEMATA":
            rows = [
                (d.project, d.id, d.created, d.location)
                for d in catalog.datasets(db, table.db or project)
                if not d.id.startswith("_")
            ]
        else:
            if catalog.dataset(db, project, dataset) is None:
                raise Declined(404, f"Not found: Dataset {project}:{dataset}")
            tables = catalog.tables(db, project, dataset, context.now)
            rows = [_table(t) for t in tables] if name == "TABLES" else [r for t in tables for r in _columns(db, t)]
    columns = _COLUMNS[name]
    shown = ", ".join(f"CAST({c} AS {kind}) AS {c}" for c, kind in columns.items())
    if not rows:
        nothing = ", ".join(f"CAST(NULL AS {kind}) AS {c}" for c, kind in columns.items())
        return f"SELECT {nothing} WHERE false"
    values = ", ".join("(" + ", ".join(_literal(v) for v in row) + ")" for row in rows)
    return f"SELECT {shown} FROM (VALUES {values}) AS _v({', '.join(columns)})"


def _table(table: catalog.TableRow) -> tuple[Any, ...]:
    kind = "VIEW" if "view" in table.meta else "BASE TABLE"
    ref = table.ref
    return ref.project, ref.dataset, ref.table, kind, "YES" if kind == "BASE TABLE" else "NO", "NO", table.created


def _columns(db: Any, table: catalog.TableRow) -> list[tuple[Any, ...]]:
    version = catalog.version(db, table.key)
    ref, meta = table.ref, table.meta
    partition = (meta.get("timePartitioning") or meta.get("rangePartitioning") or {}).get("field")
    clustered = (meta.get("clustering") or {}).get("fields") or []
    return [
        (
            ref.project,
            ref.dataset,
            ref.table,
            f.name,
            i,
            "NO" if f.required else "YES",
            f.sql_type(),
            "YES" if f.name == partition else "NO",
            clustered.index(f.name) + 1 if f.name in clustered else None,
        )
        for i, f in enumerate(version.schema if version else (), start=1)
    ]


def _literal(value: Any) -> str:
    if value is None:
        return "NULL"
    if isinstance(value, float):
        return f"make_timestamptz({int(value * 1_000_000)})"
    return str(value) if isinstance(value, int) else text(value)

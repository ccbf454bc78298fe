"""What a job's configuration asks for: a query, a load, a copy or an extract."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from batchform.emulator.store import new_id
from batchform.emulator.warehouse import extracts, loads
from batchform.emulator.warehouse.catalog import Conflict, TableRef, Version
from batchform.emulator.warehouse.declined import Declined, invalid, not_supported
from batchform.emulator.warehouse.loads import KEPT, Load
from batchform.emulator.warehouse.query import Finish, Outcome, Query, Run, store
from batchform.emulator.warehouse.warehouse import Warehouse
from batchform.emulator.warehouse.workspace import Workspace


def kind_of(config: Mapping[str, Any]) -> str:
    """QUERY, LOAD, COPY or EXTRACT. Raises Declined."""
    found = [k for k in ("query", "load", "copy", "extract") if isinstance(config.get(k), dict)]
    if len(found) != 1:
        raise invalid("A job's configuration needs exactly one of query, load, copy and extract.")
    return found[0].upper()


def ref_of(value: Any, project: str) -> TableRef:
    """A tableReference of REST. Raises Declined."""
    if not isinstance(value, dict) or not value.get("datasetId") or not value.get("tableId"):
        raise invalid("Required parameter is missing: datasetId and tableId of a table.")
    return TableRef(str(value.get("projectId") or project), str(value["datasetId"]), str(value["tableId"]))


def query_of(config: Mapping[str, Any], project: str) -> Query:
    """The `query` of a configuration. Raises Declined."""
    query = config["query"]
    if query.get("useLegacySql"):
        raise not_supported("legacy SQL: set useLegacySql to false")
    if query.get("tableDefinitions"):
        raise not_supported("external tables")
    if query.get("createSession") or any(p.get("key") == "session_id" for p in query.get("connectionProperties") or ()):
        raise not_supported("sessions")
    if not str(query.get("query") or "").strip():
        raise invalid("Required parameter is missing: query")
    given = query.get("destinationTable")
    limit = query.get("maximumBytesBilled")
    return Query(
        sql=query["query"],
        dataset=str((query.get("defaultDataset") or {}).get("datasetId") or ""),
        mode=str(query.get("parameterMode") or "NAMED"),
        parameters=list(query.get("queryParameters") or []),
        destination=ref_of(given, project) if given else None,
        write=str(query.get("writeDisposition") or "WRITE_EMPTY"),
        create=str(query.get("createDisposition") or "CREATE_IF_NEEDED"),
        dry_run=bool(config.get("dryRun")),
        limit_bytes=None if limit is None else int(limit),
        settings={k: query[k] for k in KEPT if query.get(k)},
    )


def home(warehouse: Warehouse, project: str, config: Mapping[str, Any]) -> str:
    """The location of the first dataset that a job is about; nothing when there is none, or it is not there."""
    try:
        kind = kind_of(config)
        part = config[kind.lower()]
        if kind == "EXTRACT":
            ref = ref_of(part.get("sourceTable"), project)
            return warehouse.dataset(ref.project, ref.dataset).location
        if part.get("destinationTable"):
            ref = ref_of(part["destinationTable"], project)
            return warehouse.dataset(ref.project, ref.dataset).location
        return _home_of_query(warehouse, project, query_of(config, project)) if kind == "QUERY" else ""
    except Declined:
        return ""


def _home_of_query(warehouse: Warehouse, project: str, query: Query) -> str:
    from batchform.emulator.warehouse import translate

    for statement in translate.statements(query.sql):
        for table in translate.tables_in(statement):
            ref = translate.ref_of(table, project, query.dataset)
            return warehouse.dataset(ref.project, ref.dataset).location
    return warehouse.dataset(project, query.dataset).location if query.dataset else ""


def is_script(config: Mapping[str, Any]) -> bool:
    """Whether a job commits more than once."""
    from batchform.emulator.warehouse import translate

    try:
        return "query" in config and len(translate.statements(config["query"]["query"])) > 1
    except Declined:
        return False


def dry_run(warehouse: Warehouse, project: str, location: str, config: Mapping[str, Any]) -> Outcome:
    """What a query would read. Raises Declined."""
    if kind_of(config) != "QUERY":
        return Outcome()
    return Run(warehouse, project, location, query_of(config, project), lambda _: lambda _: None).all()


def run(
    warehouse: Warehouse, project: str, location: str, config: Mapping[str, Any], upload: str, finish: Finish
) -> Outcome:
    """Do it. Raises Declined, and then nothing was done (but by the statements of a script before)."""
    kind = kind_of(config)
    if kind == "QUERY":
        return Run(warehouse, project, location, query_of(config, project), finish).all()
    if kind == "LOAD":
        return _load(warehouse, project, location, config["load"], upload, finish)
    if kind == "COPY":
        return _copy(warehouse, project, config["copy"], finish)
    return _extract(warehouse, project, config["extract"], finish)


def _load(
    warehouse: Warehouse, project: str, location: str, config: Mapping[str, Any], upload: str, finish: Finish
) -> Outcome:
    load = Load.of(config, ref_of(config.get("destinationTable"), project))
    path: Path | None = warehouse.uploads / upload if upload else None
    if path is None and not load.uris:
        raise invalid("Load configuration must specify at least one source URI")
    outcome = loads.run(warehouse, load, path, location, finish)
    if path is not None:
        path.unlink(missing_ok=True)
    return outcome


class _Copy:
    """What `store` wants to know of a copy."""

    def __init__(self, config: Mapping[str, Any], settings: dict[str, Any]) -> None:
        self.write = str(config.get("writeDisposition") or "WRITE_EMPTY")
        self.create = str(config.get("createDisposition") or "CREATE_IF_NEEDED")
        self.settings = settings


def _copy(warehouse: Warehouse, project: str, config: Mapping[str, Any], finish: Finish) -> Outcome:
    """The files of a version never change, so a copy only names them."""
    from batchform.emulator.warehouse.relations import at_decorator

    sources = [ref_of(s, project) for s in config.get("sourceTables") or [config.get("sourceTable")]]
    target = ref_of(config.get("destinationTable"), project)
    where = warehouse.dataset(target.project, target.dataset).location
    for _ in range(20):
        workspace = Workspace(warehouse)
        found = [workspace.read(*at_decorator(ref)) for ref in sources]
        for table, _version in found:
            there = warehouse.dataset(table.ref.project, table.ref.dataset).location
            if there.upper() != where.upper():
                raise invalid(f"Cannot read and write in different locations: source: {there}, destination: {where}")
            if "view" in table.meta:
                raise invalid(f"{table.ref} is a view, which cannot be copied.")
        files = [f for _, version in found for f in version.files]
        settings = {k: v for k, v in found[0][0].meta.items() if k in KEPT}
        store(workspace, _Copy(config, settings), target, found[0][1].schema, files)
        outcome = Outcome(destination=target)
        try:
            workspace.commit(finish(outcome))
        except Conflict:
            continue
        return outcome
    raise invalid(f"Table {target} is changed by others all the time.")


def _extract(warehouse: Warehouse, project: str, config: Mapping[str, Any], finish: Finish) -> Outcome:
    from batchform.emulator.warehouse.relations import at_decorator

    if config.get("sourceModel"):
        raise not_supported("extracts of models")
    ref = ref_of(config.get("sourceTable"), project)
    table, version = Workspace(warehouse).read(*at_decorator(ref))
    if "view" in table.meta:
        raise invalid(f"{ref} is not allowed for this operation because it is currently a VIEW.")
    order = extracts.of_config(config)
    said = extracts.write(warehouse, version.schema, Version(0, 0, version.schema, version.files).files, order)
    outcome = Outcome(extract=said)
    workspace = Workspace(warehouse)
    workspace.commit(finish(outcome))
    return outcome


def new_upload() -> str:
    """A name for bytes that are on their way."""
    return new_id(32)

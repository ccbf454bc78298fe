"""Datasets, tables and their rows over REST."""

from __future__ import annotations

from typing import Any, Final

import msgspec
from starlette.responses import Response

from batchform.emulator.calls import Call, Route, json_response
from batchform.emulator.store import new_id
from batchform.emulator.warehouse import catalog, changes, pages, resources, streaming, views
from batchform.emulator.warehouse.catalog import Conflict, TableRef
from batchform.emulator.warehouse.declined import Declined, invalid, not_supported
from batchform.emulator.warehouse.evolution import evolved
from batchform.emulator.warehouse.fields import Schema, read_schema
from batchform.emulator.warehouse.warehouse import Warehouse, of
from batchform.emulator.warehouse.workspace import Workspace

_READ_ONLY: Final = frozenset(
    {
        *("kind", "etag", "id", "selfLink", "tableReference", "datasetReference", "schema", "type", "location"),
        *("numBytes", "numRows", "numLongTermBytes", "numPhysicalBytes", "creationTime", "lastModifiedTime", "access"),
    }
)
_UNSUPPORTED: Final = ("externalDataConfiguration", "materializedView", "snapshotDefinition", "cloneDefinition")


def body_of(call: Call) -> dict[str, Any]:
    """The body, a JSON object. Raises Declined."""
    try:
        found = msgspec.json.decode(call.body or b"{}")
    except msgspec.DecodeError as e:
        raise invalid(f"Parse Error: {e}") from e
    if not isinstance(found, dict):
        raise invalid("Invalid JSON payload received: not an object.")
    return found


def _settings(body: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in body.items() if k not in _READ_ONLY and v is not None}


def _ref(call: Call) -> TableRef:
    return TableRef(call.args["project"], call.args["dataset"], call.args["table"])


def _paged(call: Call, entries: list[dict[str, Any]], name: str, kind: str) -> Response:
    """One page of a list that is in order of its ids."""
    wanted = pages.Wanted.of_call(call)
    first = pages.number(wanted.token or "0", "pageToken")
    last = first + min(wanted.limit or 1000, 1000)
    shown: dict[str, Any] = {"kind": kind, "totalItems": len(entries)}
    if entries[first:last]:
        shown[name] = entries[first:last]
    return json_response({**shown, "nextPageToken": str(last)} if last < len(entries) else shown)


# --- datasets ---


def insert_dataset(call: Call) -> Response:
    body, project = body_of(call), call.args["project"]
    name = str((body.get("datasetReference") or {}).get("datasetId") or "")
    if not name.replace("_", "a").isalnum():
        raise invalid(f'Invalid dataset ID "{name}". Dataset IDs must be alphanumeric (plus underscores).')
    changes.create_dataset(of(call.store), project, name, str(body.get("location") or "US"), _settings(body))
    return _show_dataset(call, name)


def _show_dataset(call: Call, name: str) -> Response:
    return json_response(resources.dataset(of(call.store).dataset(call.args["project"], name), call.base_url))


def get_dataset(call: Call) -> Response:
    return _show_dataset(call, call.args["dataset"])


def list_datasets(call: Call) -> Response:
    hidden = call.request.query_params.get("all", "").lower() == "true"
    with of(call.store).catalog.reading() as db:
        found = [d for d in catalog.datasets(db, call.args["project"]) if hidden or not d.id.startswith("_")]
    names = ("kind", "id", "datasetReference", "labels", "friendlyName", "location")
    shown = [resources.dataset(d, call.base_url) for d in found]
    return _paged(call, [{k: d[k] for k in names if k in d} for d in shown], "datasets", "bigquery#datasetList")


def update_dataset(call: Call) -> Response:
    """PATCH changes what it names (null takes it away), PUT replaces all."""
    warehouse, body, name = of(call.store), body_of(call), call.args["dataset"]
    with warehouse.catalog.writing() as db:
        row = catalog.dataset(db, call.args["project"], name)
        if row is None:
            raise Declined(404, f"Not found: Dataset {call.args['project']}:{name}")
        check_etag(call, row.etag)
        meta = _merged(call, row.meta, body)
        db.execute(
            "UPDATE datasets SET meta = ?, etag = ?, modified = ? WHERE project = ? AND id = ?",
            (msgspec.json.encode(meta).decode(), new_id(), warehouse.now(), row.project, row.id),
        )
    return _show_dataset(call, name)


def _merged(call: Call, meta: dict[str, Any], body: dict[str, Any]) -> dict[str, Any]:
    if call.request.method == "PUT":
        return _settings(body)
    changed = {**meta, **{k: v for k, v in body.items() if k not in _READ_ONLY}}
    for name in ("labels",):
        if isinstance(body.get(name), dict):
            merged = {**(meta.get(name) or {}), **body[name]}
            changed[name] = {k: v for k, v in merged.items() if v is not None}
    return {k: v for k, v in changed.items() if v is not None}


def check_etag(call: Call, etag: str) -> None:
    """Raises Declined 412 when the caller has seen an older state."""
    wanted = call.request.headers.get("if-match")
    if wanted and wanted != "*" and wanted != etag:
        raise Declined(412, "Precondition check failed.")


def delete_dataset(call: Call) -> Response:
    warehouse, project, name = of(call.store), call.args["project"], call.args["dataset"]
    warehouse.dataset(project, name)
    contents = call.request.query_params.get("deleteContents", "").lower() == "true"
    with warehouse.catalog.writing() as db:
        tables = catalog.tables(db, project, name, warehouse.now())
        if tables and not contents:
            raise Declined(400, f"Dataset {project}:{name} is still in use", reason="resourceInUse")
        for (key,) in db.execute(
            "SELECT key FROM tables WHERE project = ? AND dataset = ?", (project, name)
        ).fetchall():
            catalog.drop_table(db, key)
        db.execute("DELETE FROM datasets WHERE project = ? AND id = ?", (project, name))
    return Response(status_code=204)


# --- tables ---


def insert_table(call: Call) -> Response:
    warehouse, body = of(call.store), body_of(call)
    name = str((body.get("tableReference") or {}).get("tableId") or "")
    if not name:
        raise invalid("Required parameter is missing: tableId")
    for key in _UNSUPPORTED:
        if body.get(key):
            raise not_supported(f"tables with {key}")
    ref = TableRef(call.args["project"], call.args["dataset"], name)
    meta = _settings(body)
    schema = read_schema(body.get("schema"))
    if "view" in meta:
        schema = views.schema_of(warehouse, ref, meta["view"])
    _check_layout(meta, schema)
    changes.create(warehouse, ref, schema, meta)
    return _show_table(call, warehouse, ref)


def _check_layout(meta: dict[str, Any], schema: Schema) -> None:
    known = {f.name for f in schema}
    by = (meta.get("timePartitioning") or meta.get("rangePartitioning") or {}).get("field")
    for name in [*([by] if by else []), *((meta.get("clustering") or {}).get("fields") or [])]:
        if name not in known:
            raise invalid(f"The field specified for partitioning or clustering cannot be found in the schema: {name}")


def _show_table(call: Call, warehouse: Warehouse, ref: TableRef) -> Response:
    row = warehouse.find(ref)
    location = warehouse.dataset(ref.project, ref.dataset).location
    return json_response(resources.table(row, warehouse.version(row), location, call.base_url))


def get_table(call: Call) -> Response:
    return _show_table(call, of(call.store), _ref(call))


def table_permissions(call: Call) -> Response:
    """Everybody may do everything."""
    of(call.store).find(_ref(call))
    asked = body_of(call).get("permissions") or []
    return json_response({"permissions": asked})


def list_tables(call: Call) -> Response:
    warehouse, project, name = of(call.store), call.args["project"], call.args["dataset"]
    warehouse.dataset(project, name)
    with warehouse.catalog.reading() as db:
        found = catalog.tables(db, project, name, warehouse.now())
    return _paged(call, [resources.listed_table(t) for t in found], "tables", "bigquery#tableList")


def delete_table(call: Call) -> Response:
    warehouse = of(call.store)
    row = warehouse.find(_ref(call))
    with warehouse.catalog.writing() as db:
        catalog.drop_table(db, row.key)
    return Response(status_code=204)


def update_table(call: Call) -> Response:
    warehouse, body, ref = of(call.store), body_of(call), _ref(call)
    for _ in range(20):
        try:
            _update(call, warehouse, body, ref)
        except Conflict:
            continue
        return _show_table(call, warehouse, ref)
    raise invalid(f"Table {ref} is changed by others all the time.")


def _update(call: Call, warehouse: Warehouse, body: dict[str, Any], ref: TableRef) -> None:
    workspace = Workspace(warehouse)
    row, version = workspace.read(ref)
    check_etag(call, row.etag)
    meta = _merged(call, row.meta, body)
    schema = version.schema
    if "view" in meta and meta["view"] != row.meta.get("view"):
        schema = views.schema_of(warehouse, ref, meta["view"])
        workspace.replace(row, version, [], schema)
    elif body.get("schema"):
        schema = evolved(ref, version.schema, read_schema(body["schema"]))
    workspace.expect(row)
    workspace.set_meta(row, meta)
    if schema != version.schema and "view" not in meta:
        workspace.append(row, version, [], schema)
    workspace.commit()
    if "expirationTime" in body:
        expires = float(body["expirationTime"]) / 1000 if body["expirationTime"] else None
        with warehouse.catalog.writing() as db:
            db.execute("UPDATE tables SET expires = ? WHERE key = ?", (expires, row.key))


# --- rows ---


def list_rows(call: Call) -> Response:
    shown = pages.page(of(call.store), _ref(call), pages.Wanted.of_call(call))
    return json_response({"kind": "bigquery#tableDataList", **shown})


def insert_all(call: Call) -> Response:
    errors = streaming.insert_all(of(call.store), _ref(call), call.body)
    shown: dict[str, Any] = {"kind": "bigquery#tableDataInsertAllResponse"}
    return json_response({**shown, "insertErrors": errors} if errors else shown)


_PROJECT: Final = r"/bigquery/v2/projects/(?P<project>[^/]+)"
_DATASETS: Final = _PROJECT + r"/datasets"
_DATASET: Final = _DATASETS + r"/(?P<dataset>[^/]+)"
_TABLE: Final = _DATASET + r"/tables/(?P<table>[^/:]+)"

ROUTES: Final = tuple(
    Route(f"bigquery.{name}", method, path, handler, open_to_all=True)
    for name, method, path, handler in (
        ("datasets.insert", "POST", _DATASETS, insert_dataset),
        ("datasets.get", "GET", _DATASET, get_dataset),
        ("datasets.list", "GET", _DATASETS, list_datasets),
        ("datasets.patch", "PATCH", _DATASET, update_dataset),
        ("datasets.update", "PUT", _DATASET, update_dataset),
        ("datasets.delete", "DELETE", _DATASET, delete_dataset),
        ("tables.insert", "POST", _DATASET + "/tables", insert_table),
        ("tables.get", "GET", _TABLE, get_table),
        ("tables.list", "GET", _DATASET + "/tables", list_tables),
        ("tables.patch", "PATCH", _TABLE, update_table),
        ("tables.update", "PUT", _TABLE, update_table),
        ("tables.delete", "DELETE", _TABLE, delete_table),
        ("tables.testIamPermissions", "POST", _TABLE + ":testIamPermissions", table_permissions),
        ("tabledata.list", "GET", _TABLE + "/data", list_rows),
        ("tabledata.insertAll", "POST", _TABLE + "/insertAll", insert_all),
    )
)

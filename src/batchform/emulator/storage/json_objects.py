"""Objects in JSON: get, list, patch, delete, compose, copy, rewrite, move."""

from __future__ import annotations

from typing import Any

from starlette.responses import Response

from batchform.emulator.calls import Call, json_response
from batchform.emulator.storage import changes, listing
from batchform.emulator.storage.changes import Source
from batchform.emulator.storage.media import media
from batchform.emulator.storage.records import ANY, Attributes, Conditions
from batchform.emulator.storage.refusals import invalid
from batchform.emulator.storage.wire import answer, attributes_of, conditions, json_body, number, objects_of, resource


def _generation(call: Call, name: str = "generation") -> int | None:
    return number(call.request.query_params, name)


def get(call: Call) -> Response:
    found = objects_of(call).stat(
        call.args["bucket"], call.args["object"], generation=_generation(call), conditions=conditions(call)
    )
    return answer(found, call)


def download(call: Call) -> Response:
    return media(
        call, call.args["bucket"], call.args["object"], generation=_generation(call), conditions=conditions(call)
    )


def list_(call: Call) -> Response:
    asked = call.request.query_params
    limit = number(asked, "maxResults")
    page = listing.page(
        objects_of(call),
        call.args["bucket"],
        listing.Query(
            prefix=asked.get("prefix", ""),
            delimiter=asked.get("delimiter", ""),
            start=asked.get("startOffset", ""),
            end=asked.get("endOffset", ""),
            glob=asked.get("matchGlob", ""),
            versions=asked.get("versions") == "true",
            trailing=asked.get("includeTrailingDelimiter") == "true",
            limit=min(limit or listing.MAX_RESULTS, listing.MAX_RESULTS),
            token=asked.get("pageToken", ""),
        ),
    )
    shown: dict[str, Any] = {
        "items": [resource(info, call.base_url) for info in page.items],
        "prefixes": page.prefixes,
        "nextPageToken": page.token,
    }
    return json_response({"kind": "storage#objects", **{name: value for name, value in shown.items() if value}})


def patch(call: Call) -> Response:
    return _patch(call, replace=False)


def update(call: Call) -> Response:
    """What is not said is taken away."""
    return _patch(call, replace=True)


def _patch(call: Call, *, replace: bool) -> Response:
    source = Source(call.args["bucket"], call.args["object"], _generation(call), conditions(call))
    return answer(changes.patch(objects_of(call), source, json_body(call.body), replace=replace), call)


def delete(call: Call) -> Response:
    objects_of(call).delete(
        call.args["bucket"], call.args["object"], generation=_generation(call), conditions=conditions(call)
    )
    return Response(status_code=204)


def compose(call: Call) -> Response:
    body, bucket = json_body(call.body), call.args["bucket"]
    sources = body.get("sourceObjects")
    if not isinstance(sources, list):
        raise invalid("You must provide at least one source component.")
    destination = body.get("destination") or {}
    made = changes.compose(
        objects_of(call),
        bucket,
        call.args["object"],
        [_component(bucket, source) for source in sources],
        attributes_of(destination if isinstance(destination, dict) else {}),
        conditions=conditions(call),
    )
    return answer(made, call)


def _component(bucket: str, source: Any) -> Source:
    """A source of a composed object, as JSON names it."""
    if not isinstance(source, dict) or not isinstance(source.get("name"), str):
        raise invalid("Each source component must have a name.")
    texts = {"generation": str(source.get("generation") or "")}
    wanted = source.get("objectPreconditions") or {}
    if isinstance(wanted, dict) and wanted.get("ifGenerationMatch") is not None:
        texts["ifGenerationMatch"] = str(wanted["ifGenerationMatch"])
    match = number(texts, "ifGenerationMatch")
    return Source(bucket, source["name"], number(texts, "generation"), ANY if match is None else Conditions(match))


def copy(call: Call) -> Response:
    return answer(_copied(call), call)


def rewrite(call: Call) -> Response:
    """Copies at once, however large: a second call is never needed."""
    made = _copied(call)
    size = str(made.size)
    shown = {"kind": "storage#rewriteResponse", "totalBytesRewritten": size, "objectSize": size, "done": True}
    return json_response({**shown, "resource": resource(made, call.base_url)})


def _copied(call: Call) -> Any:
    body = json_body(call.body)
    said: Attributes | None = attributes_of(body) if body else None
    return changes.copy(
        objects_of(call),
        _source(call),
        call.args["to_bucket"],
        call.args["to_object"],
        None if said == Attributes() else said,
        conditions=conditions(call),
    )


def move(call: Call) -> Response:
    return answer(
        changes.move(objects_of(call), _source(call), call.args["to_object"], conditions=conditions(call)), call
    )


def _source(call: Call) -> Source:
    args = call.args
    return Source(args["bucket"], args["object"], _generation(call, "sourceGeneration"), conditions(call, "Source"))

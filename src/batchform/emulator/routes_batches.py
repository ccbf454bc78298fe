"""Batches: create by file or inline, get, list, cancel, delete."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any, Final

import msgspec
from starlette.responses import Response

from batchform.emulator import files, jobs, models
from batchform.emulator.calls import Call, Route, json_response, json_stream
from batchform.emulator.refusal import Refusal, bad_field
from batchform.emulator.store import link_or_copy


def create(call: Call) -> Response:
    model = models.find(call.args["model"], method=call.args["method"])
    batch = call.message("CreateEmbedBatch" if model.embeds else "CreateBatch").get("batch", {})
    source = batch.get("inputConfig", {})
    if ("fileName" in source) == ("requests" in source):
        raise bad_field("* BatchGenerateContentRequest.batch.input_config: set one of file_name and requests")
    job = jobs.create(
        call.store,
        call.account,
        model,
        batch,
        write_input=lambda path: _write_input(call, source, path),
        seconds=call.emulator.job_seconds,
        fate=call.fate,
    )
    return json_response(msgspec.Raw(b"".join(jobs.operation(call.store, job))))


def _write_input(call: Call, source: dict[str, Any], path: Path) -> None:
    if "fileName" in source:
        row = files.find(call.store, call.account, source["fileName"].removeprefix("files/"))
        if row["source"] != "UPLOADED":
            raise Refusal(400, f"The File {row['id']} was not uploaded.")
        link_or_copy(call.store.files / row["path"], path)
    else:
        items = source["requests"].get("requests", [])
        path.write_bytes(b"".join(msgspec.json.encode(item) + b"\n" for item in items))


def get(call: Call) -> Response:
    return json_stream(jobs.operation(call.store, jobs.find(call.store, call.account, call.args["id"])))


def list_(call: Call) -> Response:
    size, token = call.paging(default=100)
    rows, following = jobs.page(call.store, call.account, size=size, token=token)
    shown: dict[str, Any] = {"operations": msgspec.Raw(b"[]")} if rows else {}
    if following:
        shown["nextPageToken"] = following
    head, found, tail = msgspec.json.encode(shown).partition(b"[]")

    def pieces() -> Iterator[bytes]:
        yield head
        if found:
            yield b"["
            for i, row in enumerate(rows):
                yield from chain((b",",) if i else (), jobs.operation(call.store, row))
            yield b"]" + tail

    return json_stream(pieces())


def cancel(call: Call) -> Response:
    jobs.cancel(call.store, call.account, call.args["id"])
    return json_response({})


def delete(call: Call) -> Response:
    jobs.delete(call.store, call.account, call.args["id"])
    return json_response({})


_CREATE: Final = rf"/V/models/(?P<model>[^/:]+):(?P<method>{models.BATCH}|{models.EMBED_BATCH})"
_ID: Final = r"/V/batches/(?P<id>[^/:]+)"

ROUTES: Final = (
    Route(
        "batches.create",
        "POST",
        rf"/V/models/(?P<model>[^/:]+):(?P<method>{models.BATCH}|{models.EMBED_BATCH})",
        create,
    ),
    Route("batches.get", "GET", _ID, get),
    Route("batches.list", "GET", r"/V/batches", list_),
    Route("batches.cancel", "POST", rf"{_ID}:cancel", cancel),
    Route("batches.delete", "DELETE", _ID, delete),
)

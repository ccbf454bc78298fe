"""What a call of Vertex AI is about, for faults that are meant for some of them only. See `fault_subject`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from batchform.emulator.calls import Call
from batchform.emulator.refusal import Refusal
from batchform.emulator.vertex import jobs


def of(call: Call) -> Mapping[str, str | None]:
    """Tag, job, file (the first URI of its input), model and state of the job, as far as there are such."""
    if call.name == "vertex.batches.create":
        try:
            body = msgspec.json.decode(call.body)
            return of_entry(body) if isinstance(body, dict) else {}
        except (msgspec.DecodeError, AttributeError):
            return {}  # not what the API takes: it will be refused
    if "id" in call.args:
        name = f"{call.account}/batchPredictionJobs/{call.args['id']}"
        try:
            return of_entry(jobs.resource(jobs.find(call.store, call.account, call.args["id"]), call.store.now()))
        except Refusal:
            return {"job": name}
    return {"model": call.args["model"]} if "model" in call.args else {}


def of_entry(entry: Mapping[str, Any]) -> Mapping[str, str | None]:
    """The same of a job as the API shows it."""
    source = entry.get("inputConfig") or {}
    uris = (source.get("gcsSource") or {}).get("uris") or [None]
    return {
        "tag": entry.get("displayName"),
        "job": entry.get("name"),
        "file": uris[0] or (source.get("bigquerySource") or {}).get("inputUri"),
        "model": str(entry.get("model", "")).rpartition("/")[2],
        "state": str(entry.get("state", "")).removeprefix("JOB_STATE_"),
    }

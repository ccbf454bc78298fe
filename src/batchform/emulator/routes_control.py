"""What only an emulator has: its clock, its bill and its faults."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Final

import msgspec
from msgspec import to_builtins
from starlette.responses import Response, StreamingResponse

from batchform.emulator import bill, execute
from batchform.emulator.calls import Call, Route, json_response
from batchform.emulator.clock import rfc3339
from batchform.emulator.refusal import Refusal, bad_field
from batchform.errors import InvalidProject


class _Advance(msgspec.Struct, forbid_unknown_fields=True):
    advance: float


def clock(call: Call) -> Response:
    return json_response({"now": rfc3339(call.store.now()), "offset_seconds": call.store.offset()})


def advance(call: Call) -> Response:
    try:
        seconds = msgspec.json.decode(call.body, type=_Advance).advance
    except msgspec.DecodeError as e:
        raise bad_field(f'Send {{"advance": seconds}}: {e}.') from e
    if not 0 <= seconds < math.inf:
        raise bad_field("Time only moves forward: 'advance' must be 0 or more seconds.", "advance")
    call.store.advance(seconds)
    return clock(call)


def show_bill(call: Call) -> Response:
    """JSON lines of charges; with `?summary=1` their counts. Everything that is due is run first."""
    execute.settle(call.store, execute.due_jobs(call.store), seconds=math.inf)
    if call.request.query_params.get("summary") in ("1", "true"):
        return json_response(to_builtins(bill.summary(call.store)))
    return StreamingResponse(_lines(call), media_type="application/jsonl")


def _lines(call: Call) -> Iterator[bytes]:
    for charge in bill.charges(call.store):
        yield msgspec.json.encode(charge) + b"\n"


def show_faults(call: Call) -> Response:
    """The schedule with its counts, and what happened."""
    gate = call.emulator.faults
    return json_response({"faults": gate.report(), "fired": [to_builtins(fired) for fired in gate.fired()]})


def set_faults(call: Call) -> Response:
    """Replace the schedule by the one in the body, YAML or JSON."""
    try:
        call.emulator.faults.install(call.body)
    except InvalidProject as e:
        raise bad_field(e.render()) from e
    return show_faults(call)


def bigquery(call: Call) -> Response:
    """Where the Storage Read API answers, which this starts."""
    try:
        from batchform.emulator.warehouse import read_api, warehouse
    except ImportError as e:
        message = (
            f"The Storage Read API needs a package that is not installed ({e}): pip install 'batchform[emulator]'."
        )
        raise Refusal(501, message) from e
    return json_response({"storage_read": read_api.of(warehouse.of(call.store)).address})


ROUTES: Final = (
    Route("emulator.bigquery", "GET", r"/emulator/bigquery", bigquery, open_to_all=True),
    Route("emulator.clock", "GET", r"/emulator/clock", clock, open_to_all=True),
    Route("emulator.advance", "POST", r"/emulator/clock", advance, open_to_all=True),
    Route("emulator.bill", "GET", r"/emulator/bill", show_bill, open_to_all=True),
    Route("emulator.faults", "GET", r"/emulator/faults", show_faults, open_to_all=True),
    Route("emulator.set_faults", "PUT", r"/emulator/faults", set_faults, open_to_all=True),
)

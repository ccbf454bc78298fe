"""Carries faults out: before a call, in its place, in its answer, on its connection."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, TypeVar

from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from batchform.emulator import fault_uploads
from batchform.emulator.calls import Call, drain, json_response
from batchform.emulator.clock import http_date, rfc3339, seconds_of
from batchform.emulator.fault_answer import Answer, Dropped, Whole
from batchform.emulator.fault_changes import change, prepared
from batchform.emulator.fault_gate import Due, FaultGate
from batchform.emulator.fault_kinds import HTML, ClockSkew, Cut, Drop, Error, Kind, Nonsense, ShortChunk, Slow
from batchform.emulator.refusal import Refusal

K = TypeVar("K", bound=Kind)
Run = Callable[[Call], Awaitable[Response]]

_TIME: Final = re.compile(rb'(?P<name>"\w+Time":")(?P<time>\d{4}-[0-9T:.-]+Z)"')

_UNAVAILABLE: Final = Error(type="error")
_GONE: Final = Drop(type="drop")


async def carry_out(gate: FaultGate, due: Sequence[Due], call: Call, run: Run) -> Response:
    """The answer to a call that these faults happen to."""
    await asyncio.sleep(sum(slow.seconds for slow in _of(due, Slow) if slow.when == "before"))
    instead = next((d.fault.do for d in due if d.fault.do.instead), None)
    if instead is not None:
        if isinstance(instead, Drop):
            return Dropped(instead)
        await drain(call.request)
        return _answer_of(instead)
    answer = await _effect(gate, due, call, run)
    await run_in_threadpool(change, gate, due, call, answer)
    skew = sum(skew.seconds for skew in _of(due, ClockSkew))
    if skew:
        _skew(answer, skew)
    answer.headers.append((b"date", http_date(call.store.now() + skew).encode()))
    await asyncio.sleep(sum(slow.seconds for slow in _of(due, Slow) if slow.when == "after"))
    return _ending(due, answer)


async def _effect(gate: FaultGate, due: Sequence[Due], call: Call, run: Run) -> Answer:
    """Let the call happen, as far as faults allow."""
    try:
        call = await fault_uploads.before(due, call)
        call = await run_in_threadpool(prepared, gate, due, call)
        response = await run(call)
    except Refusal as e:
        await drain(call.request)
        response = json_response(e.body(), status=e.status)
    answer = await Answer.of(response, call.request.scope)
    fault_uploads.after(due, answer)
    return answer


def _ending(due: Sequence[Due], answer: Answer) -> Response:
    """How the answer gets to the client, if it does."""
    last = next((d.fault.do for d in due if d.fault.do.final), None)
    if isinstance(last, Drop):
        return Dropped(last, answer if last.when == "body" else None)
    if isinstance(last, Cut):
        answer.write(answer.body[: int(len(answer.body) * last.keep)])
    elif isinstance(last, ShortChunk):
        return _answer_of(_UNAVAILABLE) if last.then == "error" else Dropped(_GONE)
    elif isinstance(last, (Error, Nonsense)):
        return _answer_of(last)
    return Whole(answer, sum(slow.seconds for slow in _of(due, Slow) if slow.when == "body"))


def _answer_of(kind: Kind) -> Response:
    """The answer that takes the place of the true one."""
    if isinstance(kind, Nonsense):
        body, media_type = kind.content()
        return Response(body, 200, None, media_type)
    if not isinstance(kind, Error):
        return json_response({})  # ignored: the answer of a call that was done
    headers = {} if kind.retry_after is None else {"retry-after": str(kind.retry_after)}
    if kind.body == "json":
        return json_response(kind.google_body(), headers=headers, status=kind.status)
    return Response(HTML if kind.body == "html" else b"", kind.status, headers, "text/html; charset=UTF-8")


def _skew(answer: Answer, seconds: float) -> None:
    """Every time in the answer, as a clock shows it that is so far ahead."""

    def later(found: re.Match[bytes]) -> bytes:
        return found["name"] + rfc3339(seconds_of(found["time"].decode()) + seconds).encode() + b'"'

    if (answer.header(b"content-type") or b"").startswith(b"application/json;"):
        answer.write(_TIME.sub(later, answer.body))


def _of(due: Sequence[Due], kind: type[K]) -> list[K]:
    return [d.fault.do for d in due if isinstance(d.fault.do, kind)]

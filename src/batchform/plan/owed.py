"""Whether a request is owed an answer, by what is recorded of its row."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final

from batchform.plan import diff as first

HELD: Final = frozenset({first.NEW, first.CHANGED, first.REQUESTED})
"""Classes of rows that a stage of a rollout may hold. The others were sent as they are, and are sent again."""


def of_request(fp: bytes, found: Sequence[str] | None) -> tuple[str, str] | None:
    """The two words recorded for this request among `HEX word word` entries; None if there are none."""
    wanted = fp.hex().upper()
    for entry in found or ():
        hexed, one, other = entry.split(" ")
        if hexed == wanted:
            return one, other
    return None


def owed(fp: bytes, state: dict[str, Any]) -> bool:
    """Whether this request is owed a new answer, even if it was answered before: a person asked for it, or it failed
    last time, or was to be sent again for such a reason and found no room."""
    if state["class"] == first.REQUESTED:
        return True
    own = own_answer_owed(fp, state)
    if state["class"] == first.PENDING:
        return own
    # What a job that was given up on answered since saves a row that failed in its second job.
    failed = state["status"] == "failed" and state["request_fp"] == fp
    return failed and (own or of_request(fp, state["past"]) is None)


def own_answer_owed(fp: bytes, state: dict[str, Any]) -> bool:
    """Whether it is owed an answer of its own, which no answer to an identical request is: a person asked for this row,
    or will not have the answer that it has."""
    return state["class"] == first.REQUESTED or bool(state["rerun"]) or state["request_fp"] == state["answer_fp"] == fp


def judge_pending(fp: bytes, state: dict[str, Any]) -> None:
    """A queued row that would send another request by now is a changed one."""
    if state["class"] == first.PENDING and state["request_fp"] != fp:
        state["class"] = first.CHANGED


def waits(state: Mapping[str, Any], tags: Collection[str]) -> bool:
    """Whether a row that is to be sent needs a place: it was neither sent with the edit, nor is queued to be, which its
    state would say of these very components."""
    same = all(state[f"{c}_same"] for c in ("prompt", "model", "config", "schema", "realm"))
    return state["class"] in HELD and not (same and (state["tag"] in tags or state["status"] == "pending"))

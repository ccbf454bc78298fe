"""Why a candidate would be sent, in one word for people."""

from __future__ import annotations

from typing import Any

from batchform.plan import diff as first
from batchform.plan.model import Reason


def changed_components(state: dict[str, Any]) -> tuple[str, ...]:
    """Components of the request that differ from those recorded."""
    if not state["known"]:
        return ()
    return tuple(c for c in ("prompt", "model", "config", "schema", "row") if state[f"{c}_same"] is False)


def reason_of(state: dict[str, Any]) -> Reason:
    """The first component that differs explains the row; it never decides anything."""
    if state["class"] == first.REQUESTED:
        return Reason.REQUESTED
    if state["class"] in (first.RETRY, first.FOR_APPLY, first.SAVED):
        return Reason.PREVIOUS_EXPIRED if state["failure"] == "expired" else Reason.PREVIOUS_FAILED
    if not state["known"] or (state["class"] == first.PENDING and not state["answered"]):
        return Reason.NEW_KEY
    table: tuple[tuple[str, Reason], ...] = (
        ("realm", Reason.REALM_CHANGED),
        ("model", Reason.MODEL_CHANGED),
        ("prompt", Reason.PROMPT_CHANGED),
        ("schema", Reason.SCHEMA_CHANGED),
        ("config", Reason.GENERATION_CONFIG_CHANGED),
        ("row", Reason.ROW_CHANGED),
    )
    for component, reason in table:
        if state[f"{component}_same"] is False:
            return reason
    return Reason.PREVIOUS_FAILED if state["failure"] else Reason.NEW_KEY

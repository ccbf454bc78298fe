"""The answers of a row's parts, gathered into one: see `rows.pages`.

Texts are joined, token counts and costs summed. What is JSON becomes a list of what each part says, in the order of the
pages: how the answers of two parts make one is nothing that anybody but the user knows.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from batchform.rows.pages import FIRST, LAST
from batchform.spec.expressions import DETAILS, FIELDS, PARTS_FIELD

_SUMS: Final = ("prompt_tokens", "output_tokens", "thought_tokens", "cached_tokens", "total_tokens", "cost_usd")
_ORDER: Final = f"ORDER BY {FIRST} NULLS FIRST"
_BETWEEN: Final = "chr(10) || chr(10)"


def gathered(answers: str, details: Iterable[str], *, provenance: bool) -> str:
    """SELECT of one answer for each key, with PARTS_FIELD. answers: FROM-able, a row a part, with FIRST and LAST."""
    items = [f"{_one(name)} AS {name}" for name in (*FIELDS, *details)]
    items += [f"{_PARTS} AS {PARTS_FIELD}"]
    if provenance:
        items += [f"{_several('bf_plan')} AS bf_plan", f"string_agg(bf_request, ' ' {_ORDER}) AS bf_request"]
    return (
        f"SELECT key, CAST(left(sha256(key), 32) AS UUID) AS key_hash, max(bf_serial) AS bf_serial, {', '.join(items)} "
        f"FROM {answers} GROUP BY key"
    )


def _one(name: str) -> str:
    """SQL of what all parts have of a field."""
    if name in _SUMS:
        return f"CAST(sum({name}) AS {FIELDS[name]})"
    if name == "response" or DETAILS.get(name) == "JSON":
        listed = f"'[' || string_agg(coalesce({name}, 'null'), ',' {_ORDER}) || ']'"
        return f"CASE WHEN count({name}) > 0 THEN {listed} END"
    if name in ("text", "thoughts"):
        return f"string_agg({name}, {_BETWEEN} {_ORDER})"
    if name == "answered_at":
        return "max(answered_at)"
    if name == "finish_reason":
        return f"coalesce(arg_min({name}, coalesce({FIRST}, 0)) FILTER ({name} <> 'STOP'), max({name}))"
    return _several(name)


def _several(name: str) -> str:
    return f"string_agg(DISTINCT {name}, ', ' ORDER BY {name})"


_PARTS: Final = (
    f"CAST(to_json(list(struct_pack(first_page := {FIRST}, last_page := {LAST}, finish_reason := finish_reason, "
    "prompt_tokens := prompt_tokens, output_tokens := output_tokens, cost_usd := cost_usd, "
    f"text := CASE WHEN response IS NULL THEN text END) {_ORDER})) AS VARCHAR)"
)

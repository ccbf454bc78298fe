"""What tools cost beside tokens: said in a plan, and in none of its figures, since the model decides what searches."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from batchform.spec.wording import money

SEARCH_FREE: Final = 5_000
"""Grounded prompts of Gemini 3 in a month that cost nothing beside their tokens, by the pricing page of 2026-11-21."""
SEARCH_PER_THOUSAND: Final = 14.0
"""US dollars per 1,000 grounded prompts above those. Batches do not halve it."""


def tool_notes(model: str, request: Mapping[str, Any], *, requests: int) -> Iterator[str]:
    """Sentences on tools that are billed by themselves. request: what all rows share; requests: those that are sent."""
    tools = request.get("tools")
    searches = isinstance(tools, list) and any(isinstance(t, Mapping) and "googleSearch" in t for t in tools)
    if not searches or not requests:
        return
    if model.removeprefix("models/").startswith("gemini-3"):
        most = money(requests * SEARCH_PER_THOUSAND / 1000)
        yield (
            f"google_search is billed beside tokens, up to {most} here, which is not in the cost: "
            f"${SEARCH_PER_THOUSAND:g} per 1,000 prompts that search, {SEARCH_FREE:,} a month free"
        )
    else:
        yield "google_search is billed beside tokens, which is not in the cost"

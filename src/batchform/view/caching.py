"""What a plan says of the context cache of a spec, in figures and words."""

from __future__ import annotations

from typing import Any

from batchform.plan.model import Cached, Range, SpecPlan
from batchform.spec.wording import money
from batchform.view.text import count, tokens


def cache_costs(cache: Cached) -> float:
    """US dollars of making and keeping it."""
    return cache.made + cache.storage.expected


def cache_words(cache: Cached) -> str:
    """`tokens of 1,000 rows are cached: saves $0.60, costs $0.13 (kept about 24 h); without it $0.91`."""
    kept = f"kept about {cache.hours.expected:,.3g} h" if not cache.kept else f"kept {cache.hours.expected:,.3g} h"
    price = "" if cache.storage_known else ", whose price is not known"
    return (
        f"tokens of {count(cache.rows)} rows are cached: saves {money(cache.saved)}, costs {money(cache_costs(cache))} "
        f"({kept}{price}); without it {money(cache.without.expected)}"
    )


def cache_line(spec: SpecPlan) -> str:
    """The same as one sentence; empty without a cache."""
    return f"{tokens(spec.cache.tokens)} {cache_words(spec.cache)}" if spec.cache else ""


def cache_json(cache: Cached) -> dict[str, Any]:
    """The cache in the contract of `plan --json`."""
    return {
        "tokens": cache.tokens,
        "rows": cache.rows,
        "hours": _range(cache.hours),
        "saved_usd": cache.saved,
        "made_usd": cache.made,
        "storage_usd": _range(cache.storage),
        "without_usd": _range(cache.without),
        "kept": cache.kept,
    }


def _range(figures: Range) -> dict[str, float]:
    return {"low": figures.low, "expected": figures.expected, "high": figures.high}

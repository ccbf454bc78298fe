"""How many examples a law is tried with."""

from __future__ import annotations

from hypothesis import settings


def examples(many: int) -> int:
    """A fifth in `make test`, which tries the same ones each time; all in `make explore`, which tries new ones."""
    return max(20, many // 5) if settings.default.derandomize else many

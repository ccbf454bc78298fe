"""How many requests of a spec are counted: numbers that the command line names before anything else is imported."""

from __future__ import annotations

from typing import Final

MOST_COUNTED: Final = 10_000
USUALLY_COUNTED: Final = 200
MIN_COUNTED: Final = 20
"""Of more requests than these, fewer counted ones say too little."""

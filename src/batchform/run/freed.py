"""Freed memory goes back to the system between the stages of a run: the peak is then that of the largest stage."""

from __future__ import annotations

import ctypes
import sys
from functools import cache
from typing import Any


def give_back() -> None:
    """Return what Python, DuckDB and Arrow no longer use: each of them would keep it for itself. Takes milliseconds."""
    arrow = sys.modules.get("pyarrow")
    if arrow is not None:
        arrow.default_memory_pool().release_unused()
    if (trim := _trim()) is not None:
        trim(0)


@cache
def _trim() -> Any:
    """The C library's `malloc_trim`; None where it has none."""
    return getattr(ctypes.CDLL(None), "malloc_trim", None)

"""Google's clients of Cloud Storage and BigQuery wait between two tries of a call: here, in a time of their own."""

from __future__ import annotations

import time
from collections.abc import Callable
from random import Random
from types import SimpleNamespace

from pytest import MonkeyPatch

_WAIT = (
    "google.api_core.retry.retry_base.time",
    "google.api_core.retry.retry_unary.time",
    "google.resumable_media.requests._request_helpers.time",
)
_CHANCE = ("google.api_core.retry.retry_base.random", "google.resumable_media._helpers.random")


def patience_in(patch: MonkeyPatch, seconds: Callable[[], float], sleep: Callable[[float], None]) -> None:
    """Let them sleep with `sleep`, read their deadlines from `seconds`, and wait as long each time."""
    timing = SimpleNamespace(**{**vars(time), "sleep": sleep, "monotonic": seconds})
    for name in _WAIT:
        patch.setattr(name, timing)
    for name in _CHANCE:
        patch.setattr(name, Random(7))

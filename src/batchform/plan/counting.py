"""Input tokens counted by the service, of all requests or of a sample of them. Pure: what counts is handed in.

The rule: of the rows with the lowest hashes of their keys, as many as were asked for are counted. They are the same
whenever it is planned, so what was counted is remembered; and hashes know nothing of the rows, so the sample is a fair
one. All requests are then taken for as many tokens per byte as these have.
"""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Callable, Sequence
from typing import Final

from msgspec import Struct

from batchform.plan.rendered import Counted, Rendered
from batchform.plan.sample_sizes import MIN_COUNTED
from batchform.spec.resolved import ResolvedSpec
from batchform.spec.wording import counted

_SAMPLE_BYTES: Final = 32 << 20
_NORMAL_95: Final = 1.96


class Told(Struct, frozen=True):
    """What the service said. tokens: of each request, None where it was not counted; why: what kept it from counting,
    in words, "" if nothing did."""

    tokens: tuple[int | None, ...]
    why: str = ""


Counter = Callable[[ResolvedSpec, Sequence[bytes]], Told]
"""(spec, canonical requests) → their input tokens. Raises nothing that a service can cause."""


class Counting(Struct, frozen=True):
    """What is asked for with `--count`. most: requests of each spec."""

    most: int
    counter: Counter


class Sample:
    """Keeps the requests of the rows with the lowest key hashes while all go by. most: how many are kept; of long ones
    fewer, so that they take little memory."""

    def __init__(self, most: int) -> None:
        self.seen = 0
        self._most = most
        self._size = 0
        self._heap: list[tuple[int, bytes]] = []  # by hash, negated: the highest comes first

    def look(self, key: str, request: bytes) -> None:
        """One row that is to be sent."""
        self.seen += 1
        rank = -int.from_bytes(hashlib.sha256(key.encode()).digest()[:16])
        if len(self._heap) >= self._most and rank < self._heap[0][0]:
            return
        heapq.heappush(self._heap, (rank, request))
        self._size += len(request)
        while len(self._heap) > self._most or (self._size > _SAMPLE_BYTES and len(self._heap) > 2):
            self._most = min(self._most, len(self._heap) - 1)
            self._size -= len(heapq.heappop(self._heap)[1])

    @property
    def requests(self) -> list[bytes]:
        """What was kept, lowest hash first: any beginning of it is a sample, too."""
        return [request for _, request in sorted(self._heap, reverse=True)]


def count_tokens(spec: ResolvedSpec, sample: Sample | None, rendered: Rendered, counting: Counting | None) -> None:
    """Have the sample counted where that is asked for, and note what came of it."""
    if sample is None or counting is None or not sample.seen:
        return
    rendered.counted, note = _counted(spec, sample, counting.counter)
    if note:
        rendered.notes.append(note)


def _counted(spec: ResolvedSpec, sample: Sample, counter: Counter) -> tuple[Counted | None, str]:
    """What the service counted, None if that says too little; and what is to be told of it, "" if nothing."""
    requests = sample.requests
    told = counter(spec, requests)
    known = [(tokens, len(r)) for tokens, r in zip(told.tokens, requests, strict=True) if tokens is not None]
    if len(known) < min(MIN_COUNTED, len(requests)):
        return None, f"tokens are not counted, but estimated: {told.why}"
    found = Counted(
        len(known),
        sample.seen,
        sum(tokens for tokens, _ in known),
        sum(size for _, size in known),
        _spread(known, sample.seen),
    )
    left = len(requests) - len(known)
    return found, f"tokens of {counted(left, 'request')} were not counted: {told.why}" if left else ""


def _spread(known: Sequence[tuple[int, int]], of: int) -> float:
    """Half of the interval in which the tokens of all lie at 95 %, as a share of them: of a ratio, without those that
    were counted."""
    n, tokens, size = len(known), sum(t for t, _ in known), sum(b for _, b in known)
    if n == of or n < 2 or not tokens:
        return 0.0
    ratio = tokens / size
    variance = sum((t - ratio * b) ** 2 for t, b in known) / (n - 1)
    error = ((1 - n / of) * variance / n) ** 0.5
    return float(_NORMAL_95 * error / (tokens / n))

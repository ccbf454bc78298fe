"""Having the service count the tokens of requests: a few at once, in bounded time, and each request once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any, Final

import msgspec

from batchform.canon import RequestHasher
from batchform.errors import BackendError, BatchformError
from batchform.plan.counting import Told
from batchform.ports import Backend, Clock, TokenCounts
from batchform.spec.realm import cloud_of, realm_of
from batchform.spec.resolved import ResolvedSpec
from batchform.spec.wording import counted

AT_ONCE: Final = 4
"""Four calls of a tenth of a second each stay below the 3,000 a minute that the service takes."""
AT_MOST: Final = timedelta(minutes=2)
_REFUSED: Final = 400


def count_requests(
    spec: ResolvedSpec,
    requests: Sequence[bytes],
    *,
    backend: Callable[[], Backend],
    known: TokenCounts,
    clock: Clock,
) -> Told:
    """The tokens of canonical requests of one spec. backend: opened when something has to be asked.

    Counting ends early when the service, or the way to it, fails; what one request is refused for is no reason to.
    """
    service = cloud_of(spec.backend)
    fingerprint = RequestHasher(model=spec.model, realm=realm_of(spec.backend)).fingerprint
    prints = [fingerprint(request) for request in requests]
    found = known.find(service, prints, now=clock.now())
    left = {p: request for p, request in zip(prints, requests, strict=True) if p not in found}
    if not left:
        return Told(tuple(found[p] for p in prints))
    asking = _Asking(spec, clock)
    try:
        new = asking.ask(backend(), left)
    except BatchformError as error:  # no key, no such service: nothing was asked
        return Told(tuple(found.get(p) for p in prints), error.message.rstrip("."))
    if new:
        known.keep(service, new, now=clock.now())
    found |= new
    return Told(tuple(found.get(p) for p in prints), asking.why)


class _Asking:
    """One round of questions. why: what kept it from counting, in words."""

    def __init__(self, spec: ResolvedSpec, clock: Clock) -> None:
        self._spec = spec
        self._clock = clock
        self._until = clock.now() + AT_MOST
        self._stopped = ""
        self._refused: list[str] = []

    @property
    def why(self) -> str:
        if not self._refused:
            return self._stopped
        words = f"{counted(len(self._refused), 'request')} refused, {self._refused[0]}"
        return f"{self._stopped}; {words}" if self._stopped else words

    def ask(self, backend: Backend, requests: dict[bytes, bytes]) -> dict[bytes, int]:
        def one(request: bytes) -> int | None:
            return self._one(backend, request)

        first, *others = requests.values()
        tokens = [one(first)]  # alone: it opens what the others share, and says whether the service answers at all
        with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="count") as pool:
            tokens += pool.map(one, others)
        return {p: n for p, n in zip(requests, tokens, strict=True) if n is not None}

    def _one(self, backend: Backend, request: bytes) -> int | None:
        if self._stopped:
            return None
        if self._clock.now() >= self._until:
            self._stopped = f"counting took more than {AT_MOST.seconds // 60} minutes"
            return None
        sent = without_files(request)
        if sent is None:
            self._refused.append("they hold nothing but files")
            return None
        try:
            return backend.count_tokens(self._spec.model, sent, task=self._spec.task)
        except BackendError as error:
            if error.status == _REFUSED:
                self._refused.append(error.message.rstrip("."))
            else:
                self._stopped = error.message.rstrip(".")
            return None


def without_files(request: bytes) -> bytes | None:
    """The request without the files that it names by content, which the service does not have before it is sent; None
    if nothing is left."""
    if b'"fileUri":"sha256:' not in request and b'"fileUri":"crc32c:' not in request:
        return request
    body = msgspec.json.decode(request)
    contents = [{**c, "parts": [p for p in c["parts"] if not _is_file(p)]} for c in body.get("contents", ())]
    body["contents"] = [c for c in contents if c["parts"]]
    return msgspec.json.encode(body) if body["contents"] else None


def _is_file(part: dict[str, Any]) -> bool:
    return str(part.get("fileData", {}).get("fileUri", "")).startswith(("sha256:", "crc32c:"))

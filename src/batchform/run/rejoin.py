"""Result lines that came without a key, given back to their rows: by the request that they repeat.

The service may leave out the key, and normalises the request that it repeats: adds nulls and empty parts, orders names
otherwise, writes 0 as 0.0. So both sides are compared without what such a rewriting changes. Rows of one and the same
request each get one of the answers to it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from typing import Any, Final

import msgspec

from batchform.canon import canonical_json
from batchform.rows.attached import by_content

_DIGEST_BYTES: Final = 16
Own = Callable[[dict[str, Any]], dict[str, Any]]
_EMPTY: Final[tuple[Any, ...]] = (None, {}, [])


class Rejoiner:
    """Keys of a job's rows by what they asked. lines: of the job's input; taken: keys that results came with; own: of a
    request, what tells its row from others: all of it, unless a cache held what they share.

    Memory is bounded by the rows of one job: some 100 bytes each.
    """

    def __init__(self, lines: Iterable[bytes], taken: Iterable[str], *, own: Own | None = None) -> None:
        has_result = set(taken)
        self._own = own or _all
        self._waiting: dict[bytes, list[str]] = {}
        self._served: dict[bytes, str] = {}
        for line in lines:
            row = msgspec.json.decode(line)
            digest = request_digest(self._own(row["request"]))
            if row["key"] in has_result:
                self._served.setdefault(digest, row["key"])
            else:
                self._waiting.setdefault(digest, []).append(row["key"])
        for keys in self._waiting.values():
            keys.reverse()  # so that the first row is served first

    def key(self, request: Any) -> str | None:
        """The key of a row that asked this and has no result yet. When all have one: of a row that has, since this is a
        repetition. None if no row asked this."""
        digest = request_digest(self._own(request))
        waiting = self._waiting.get(digest)
        if not waiting:
            return self._served.get(digest)
        key = waiting.pop()
        self._served.setdefault(digest, key)
        return key


def _all(request: dict[str, Any]) -> dict[str, Any]:
    return request


def request_digest(request: Any) -> bytes:
    """Equal for two writings of one request."""
    return hashlib.sha256(canonical_json(_bare(request))).digest()[:_DIGEST_BYTES]


def _bare(value: Any) -> Any:
    """Without nulls and without what is empty, at any depth: absent, null and empty are one to the service."""
    if isinstance(value, dict):
        value = by_content(value)
        inner = {name: _bare(v) for name, v in value.items()}
        return {name: v for name, v in inner.items() if v not in _EMPTY}
    if isinstance(value, list):
        return [_bare(v) for v in value]
    return value

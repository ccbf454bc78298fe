"""Canonical JSON and tagged digests. The only place where bytes are hashed.

Canonical JSON: UTF-8, keys sorted by code point, no white space, no needless escapes, integral floats written as
integers (so that `temperature: 0` and `temperature: 0.0` are one request), no NaN or infinity.
"""

from __future__ import annotations

import hashlib
import math
from pathlib import Path
from typing import Any, Final

import msgspec

FINGERPRINT_VERSION: Final = 1
"""Version of the request fingerprint. A new version must recompute old ones; it is never a reason to pay."""

_ENCODER = msgspec.json.Encoder(order="sorted")
_MAX_EXACT_INTEGER = 2**53


def normalise(value: Any) -> Any:
    """A copy of a JSON value with integral floats as integers. Raises ValueError for NaN and infinity."""
    if isinstance(value, dict):
        return {str(k): normalise(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [normalise(v) for v in value]
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"{value} has no JSON form")
        if value.is_integer() and abs(value) < _MAX_EXACT_INTEGER:
            return int(value)
    return value


def canonical_json(value: Any) -> bytes:
    """The canonical bytes of a JSON value."""
    return sorted_json(normalise(value))


def sorted_json(value: Any) -> bytes:
    """The canonical bytes of a JSON value that is normal already (see `normalise`); saves walking through it."""
    return _ENCODER.encode(value)


def json_string(text: str) -> bytes:
    """One JSON string, as canonical JSON writes it. Raises ValueError on a lone surrogate."""
    return _ENCODER.encode(text)


def digest(data: bytes) -> str:
    """`sha256:<64 hex>` of some bytes."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


def digest_of(kind: str, value: Any) -> str:
    """Digest of a JSON value, tagged with what it is, so that equal JSON of different kinds never collides."""
    return digest(kind.encode() + b"\x00" + canonical_json(value))


def file_digest(path: Path) -> str:
    """Digest of a file's bytes, read in pieces."""
    with path.open("rb") as f:
        return "sha256:" + hashlib.file_digest(f, "sha256").hexdigest()


def short(full: str, length: int = 12) -> str:
    """The first hex digits of a tagged digest, for people and names."""
    return full.rpartition(":")[2][:length]


def key_hash(key: str) -> bytes:
    """16 bytes that stand for a row's key in joins. SQL twin: `CAST(left(sha256(key), 32) AS UUID)`."""
    return hashlib.sha256(key.encode()).digest()[:16]


def wire_key(key: str) -> str:
    """The `key` of a row's JSONL line: a letter and 32 hex digits of its key hash.

    It starts with a letter, since importers turn numeric-looking keys into numbers.
    """
    return "k" + key_hash(key).hex()


class RequestHasher:
    """Request fingerprints: 32 bytes of SHA-256 over (version, model, realm, canonical request).

    Model and realm are hashed once; `fingerprint` copies that state for each row.
    """

    def __init__(self, *, model: str, realm: str) -> None:
        head = canonical_json({"v": FINGERPRINT_VERSION, "model": model, "realm": realm})
        self._state = hashlib.sha256(head + b"\x00")

    def fingerprint(self, canonical_request: bytes) -> bytes:
        state = self._state.copy()
        state.update(canonical_request)
        return state.digest()


class ShardHasher:
    """Running digest of the lines of a shard."""

    def __init__(self) -> None:
        self._state = hashlib.sha256()

    def update(self, data: bytes) -> None:
        self._state.update(data)

    def digest(self) -> str:
        return "sha256:" + self._state.hexdigest()

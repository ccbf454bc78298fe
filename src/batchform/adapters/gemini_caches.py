"""Context caches of the Gemini API, through Google's client with its retries off.

The service says 403 of a cache that has ended, as it does of one that is somebody else's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from typing import Any, Final

from batchform.errors import AuthError, NotFound
from batchform.ports import KeptContext

BETA: Final = "v1beta"
_GONE: Final = (403, 404)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class GeminiCaches:
    """client: the SDK's; version: of the API. Where that does not serve caches, the beta does."""

    def __init__(
        self, *, client: Callable[[], Any], errors: Callable[[str], AbstractContextManager[None]], version: str
    ) -> None:
        self._client, self._errors, self._version = client, errors, version

    def find(self) -> Iterator[KeptContext]:
        try:
            found = self._listed()
        except NotFound:
            if self._version == BETA:
                raise
            self._version = BETA
            found = self._listed()
        yield from found

    def _listed(self) -> list[KeptContext]:
        with self._errors("Listing context caches"):
            pager = self._client().caches.list(config={"page_size": 100, "http_options": self._options()})
            return [_kept(raw) for raw in pager]

    def make(self, *, model: str, title: str, content: Mapping[str, Any], seconds: float) -> KeptContext:
        config = {
            "display_name": title,
            "ttl": _duration(seconds),
            "http_options": {**self._options(), "extra_body": dict(content)},
        }
        with self._errors(f"Making the context cache {title}"):
            return _kept(self._client().caches.create(model=model, config=config))

    def prolong(self, name: str, *, seconds: float) -> KeptContext:
        try:
            return self._prolonged(name, seconds)
        except AuthError as error:
            raise _missing(error) from None
        except NotFound:
            if self._version == BETA:
                raise
        stated, self._version = self._version, BETA  # a run may prolong one before it has asked for any other
        try:
            return self._prolonged(name, seconds)
        except (AuthError, NotFound) as error:
            self._version = stated
            raise _missing(error) from None

    def _prolonged(self, name: str, seconds: float) -> KeptContext:
        with self._errors(f"Prolonging {name}"):
            config = {"ttl": _duration(seconds), "http_options": self._options()}
            return _kept(self._client().caches.update(name=name, config=config))

    def drop(self, name: str) -> None:
        try:
            with self._errors(f"Dropping {name}"):
                self._client().caches.delete(name=name, config={"http_options": self._options()})
        except (AuthError, NotFound) as error:
            if error.status not in _GONE:
                raise

    def _options(self) -> dict[str, Any]:
        return {"api_version": self._version, "retry_options": {"attempts": 1}}


def _missing(error: AuthError | NotFound) -> Exception:
    return NotFound(error.message, status=error.status) if error.status in _GONE else error


def _duration(seconds: float) -> str:
    return f"{round(seconds)}s"


def _kept(raw: Any) -> KeptContext:
    usage = getattr(raw, "usage_metadata", None)
    return KeptContext(
        name=str(raw.name),
        title=str(raw.display_name or ""),
        model=str(raw.model or "").removeprefix("models/"),
        tokens=int(getattr(usage, "total_token_count", None) or 0),
        created_at=raw.create_time or _EPOCH,
        expires_at=raw.expire_time or _EPOCH,
    )

"""Contexts that a service keeps, so that many requests can name them in place of repeating them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any, Protocol

from msgspec import Struct


class KeptContext(Struct, frozen=True):
    """A context as the service shows it. name: by which requests name it; title: the one that its maker gave it; model:
    the only one that reads it, without prefix; tokens: that it holds, 0 if the service does not say."""

    name: str
    title: str
    model: str
    tokens: int
    created_at: datetime
    expires_at: datetime


class Caches(Protocol):
    """Contexts of one credential. Making one twice makes two: look for its title first. Calls raise BackendError."""

    def find(self) -> Iterator[KeptContext]:
        """All that live, page by page."""
        ...

    def make(self, *, model: str, title: str, content: Mapping[str, Any], seconds: float) -> KeptContext:
        """A new one, made with one call. content: systemInstruction, tools, toolConfig and contents, as in a request;
        seconds: that it lives."""
        ...

    def prolong(self, name: str, *, seconds: float) -> KeptContext:
        """Let it live so many seconds from now. Raises NotFound when it has ended."""
        ...

    def drop(self, name: str) -> None:
        """End it; one that has ended is fine."""
        ...

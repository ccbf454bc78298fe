"""The ledger's storage."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    pass


@runtime_checkable
class Blobs(Protocol):
    """Named immutable objects plus one swappable head. Names are relative, with `/`.

    spacing: seconds that must be between two swaps of the head, 0 where they may come as fast as one likes.
    """

    spacing: float

    def read(self, name: str) -> bytes:
        """The bytes of an object. Raises FileNotFoundError."""
        ...

    def write_new(self, name: str, content: bytes | Path) -> None:
        """Durably create an immutable object (fsynced before return). Content may be a file to move or copy in.

        Writing the same bytes under the same name again is a no-op; other bytes raise FileExistsError.
        """
        ...

    def local(self, name: str) -> Path:
        """A local path with the object's bytes (the file itself, or a read cache). Raises FileNotFoundError."""
        ...

    def has(self, name: str) -> bool:
        """Whether there is an object of this name."""
        ...

    def list(self, prefix: str) -> list[str]:
        """Names under a prefix, sorted."""
        ...

    def delete(self, name: str) -> None:
        """Remove an object; absent is fine."""
        ...

    def head(self) -> tuple[bytes, str] | None:
        """The head's bytes and version token, or None if there is none yet."""
        ...

    def swap_head(self, content: bytes, expect: str | None) -> str:
        """Replace the head if its version is still `expect` (None: there must be none). Returns the new version.

        Raises LedgerMoved when another writer was first. Durable before return.
        """
        ...

    def describe(self) -> str:
        """The place, as the user wrote it."""
        ...

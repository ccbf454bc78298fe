"""Where answers go."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from msgspec import Struct

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection


class Delivery(Struct, frozen=True):
    """What one delivery is asked to write.

    relation: FROM-able SQL in the same connection, with exactly the output columns, one row per key, ordered by key;
    changed: the same columns, only the rows whose answer is new since the last delivery to this very destination
    (equal to `relation` on the first delivery and on a redelivery); key_columns: names that identify a row;
    name: stable, unique name of this delivery (spec, ledger serial, digest): writing it twice is writing it once;
    spec: the spec's name; full: whether `changed` is everything (first delivery, changed destination or mapping);
    previous: names of the parts that hold what was delivered before; a full delivery replaces them; stamps: theirs;
    owner: spec and ledger, the part of `name` before its first dot: what else has it is left from a killed delivery.
    """

    spec: str
    name: str
    relation: str
    changed: str
    key_columns: tuple[str, ...]
    full: bool
    previous: tuple[str, ...] = ()
    owner: str = ""
    stamps: tuple[str, ...] = ()


class Delivered(Struct, frozen=True):
    """What a delivery wrote: number of rows written and where, as the user would name it; parts: names of all parts
    that hold the answers now, earlier ones included; empty unless the destination takes parts; stamps: for each
    of them, or for the whole, what tells `exists` that nobody has written there since; empty where nothing does."""

    rows: int
    location: str
    parts: tuple[str, ...] = ()
    stamps: tuple[str, ...] = ()


@runtime_checkable
class Destination(Protocol):
    """Where answers go. A delivery is atomic: readers see the old or the new, never half."""

    def exists(self, parts: Sequence[str] = (), *, stamps: Sequence[str] = (), following: str = "") -> bool:
        """Whether what was delivered before is still there, with all of its parts if it has any.

        stamps: as `deliver` gave them: then it must also be as it was written, with no part of ours that is none of
        these. following: `name` of the delivery that would be next, whose unrecorded part may be there.
        """
        ...

    def check(self, columns: Sequence[str] | None = None) -> None:
        """Raise DestinationError if a delivery could not succeed (unwritable folder, foreign table). Writes nothing.

        columns: names of the output columns, where nothing says that what is already there is ours: a file with other
        columns, or of another format, is then refused. None: it was delivered, so it is ours whatever it holds.
        """
        ...

    def deliver(self, con: DuckDBPyConnection, delivery: Delivery) -> Delivered:
        """Write the delivery. Raises DestinationError and leaves the destination as it was."""
        ...


class ImageStore(Protocol):
    """Where image files of answers go, under names of batchform's own."""

    def holds(self, name: str, size: int) -> bool:
        """Whether a file is there, with so many bytes."""
        ...

    def put(self, name: str, content: bytes) -> None:
        """Write a file, whole or not at all. Raises DestinationError."""
        ...

    def note(self, names: Sequence[str]) -> None:
        """Note which files there shall be: a destination whose files are gone is not as it was delivered."""
        ...


@runtime_checkable
class HoldsImages(Protocol):
    """A destination with a place for image files."""

    @property
    def images(self) -> ImageStore: ...

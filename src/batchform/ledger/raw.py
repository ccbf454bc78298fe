"""Raw results of a job, wherever they are: archived beside the segments, or where the service wrote them.

What stays there is stood for by `archive/TAG.stored.json`: the files with their generations, sizes and checksums. They
are read range by range when they are needed, so that neither memory nor disk grows with them.
"""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final

import msgspec
from msgspec import Struct

from batchform.errors import LedgerCorrupt, NotFound
from batchform.ledger.records import archive_name, reference_name, tag_of_results
from batchform.ledger.segments import RESTORE
from batchform.ledger.stored import archive_problem
from batchform.ports import StoredFile, StoredFiles

if TYPE_CHECKING:
    from batchform.ledger.store import Ledger

_VERSION: Final = 1
_BUFFER: Final = 1 << 20

StoresOf = Callable[[str], StoredFiles | None]
"""What reads the stored results of a backend, by the name of that."""


class Reference(Struct, frozen=True):
    """What `archive/TAG.stored.json` says. backend: whose credentials can read the files."""

    backend: str
    files: tuple[StoredFile, ...]
    version: int = _VERSION


class StoredResults(Struct, frozen=True):
    """Results that lie where the service wrote them."""

    files: tuple[StoredFile, ...]
    store: StoredFiles

    def problem(self) -> str:
        """What became of them, in words; "" if all files are there as they were."""
        return next((f"{file.uri} {found}" for file in self.files if (found := self.store.problem(file))), "")


Raw = Path | StoredResults
"""A file of lines, plain or gzip, or results in their place."""


def results_name(ledger: Ledger, tag: str) -> str:
    """Blob name of a job's raw results, or of what stands for them; "" if the ledger has neither."""
    return next((name for name in (archive_name(tag), reference_name(tag)) if ledger.has_blob(name)), "")


def results_missing(ledger: Ledger, tag: str) -> str:
    """Why the raw results of a job cannot be read, in words; "" if they can. Stored ones are asked for, not read."""
    name = results_name(ledger, tag)
    if not name:
        return "they are archived no longer"
    raw = _raw(ledger, name)
    return "" if isinstance(raw, Path) else raw.problem()


@contextmanager
def reading_results(ledger: Ledger, tag: str) -> Iterator[Raw]:
    """The raw results of a job. What goes wrong since they are gone or damaged becomes LedgerCorrupt."""
    name = results_name(ledger, tag) or archive_name(tag)
    raw = _raw(ledger, name)
    try:
        yield raw
    except NotFound as error:
        message = f"The results of {tag} are not what was collected: {error.message}"
        raise LedgerCorrupt(message, hint=restore(raw)) from error
    except (OSError, EOFError, zlib.error) as error:
        if isinstance(raw, Path) and (problem := archive_problem(raw)):
            raise LedgerCorrupt(
                f"{ledger.place}/{name} is damaged: {problem}.", hint=f"Restore it. {RESTORE}"
            ) from error
        raise


def results_problem(ledger: Ledger, name: str) -> str:
    """What is wrong with a blob of raw results: read to its end, or, if it stands for files elsewhere, with those."""
    if name.endswith(".gz"):
        return archive_problem(ledger.blob(name))
    if problem := reference_problem(ledger.blob(name)):
        return problem
    raw = _raw(ledger, name)
    assert isinstance(raw, StoredResults)
    return raw.problem()


def reference_problem(path: Path) -> str:
    """What is wrong with a file that stands for stored results; "" if it can be read."""
    try:
        found = msgspec.json.decode(path.read_bytes(), type=Reference)
    except (msgspec.DecodeError, OSError) as error:
        return str(error)
    return "" if found.version <= _VERSION else "a newer batchform wrote it"


def blob_problem(name: str) -> Callable[[Path], str]:
    """What tells whether a blob of raw results is whole, without a look at anything outside of the ledger."""
    return archive_problem if name.endswith(".gz") else reference_problem


def keep_reference(ledger: Ledger, tag: str, backend: str, files: Sequence[StoredFile], scratch: Path) -> None:
    """Durably record where a job's results are, in place of a copy of them."""
    written = scratch / "stored.json"
    written.write_bytes(msgspec.json.format(msgspec.json.encode(Reference(backend, tuple(files)))) + b"\n")
    ledger.put_blob(reference_name(tag), written)


def restore(raw: Raw) -> str:
    """How results that are not there any more come back."""
    if isinstance(raw, Path):
        return RESTORE
    commands = " && ".join(f"gcloud storage restore {file.uri}#{file.generation}" for file in raw.files)
    return f"Where the bucket keeps what is deleted, bring them back: {commands}"


def raw_results(ledger: Ledger, tag: str) -> Raw:
    """The raw results of a job that `results_name` knows."""
    return _raw(ledger, results_name(ledger, tag))


def _raw(ledger: Ledger, name: str) -> Raw:
    path = ledger.blob(name)
    if name.endswith(".gz"):
        return path
    if problem := reference_problem(path):
        raise LedgerCorrupt(f"{ledger.place}/{name} is damaged: {problem}.", hint=f"Restore it. {RESTORE}")
    found = msgspec.json.decode(path.read_bytes(), type=Reference)
    store = ledger.stores(found.backend) if ledger.stores else None
    if store is None:
        raise LedgerCorrupt(
            f"The results of {tag_of_results(name)} lie in Cloud Storage, and backend {found.backend!r} reads none.",
            hint="Name its Vertex AI backend so again in batchform.yaml.",
        )
    return StoredResults(found.files, store)


# --- as lines --------------------------------------------------------------------------------------------------


@contextmanager
def open_lines(raw: Raw) -> Iterator[IO[bytes]]:
    """The lines of raw results, decompressed, as a file that is read once from its beginning."""
    if isinstance(raw, StoredResults):
        with io.BufferedReader(_Ranges(raw), _BUFFER) as lines:
            yield lines
        return
    with raw.open("rb") as f:
        compressed = f.read(2) == b"\x1f\x8b"
        f.seek(0)
        if not compressed:
            yield f
            return
        with gzip.GzipFile(fileobj=f) as unpacked:
            yield unpacked  # type: ignore[misc]


class _Ranges(io.RawIOBase):
    """Files one after the other, as one."""

    def __init__(self, raw: StoredResults) -> None:
        self._pieces = (piece for file in raw.files for piece in raw.store.pieces(file))
        self._left = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        while not self._left:
            piece = next(self._pieces, None)
            if piece is None:
                return 0
            self._left = memoryview(piece)
        size = min(len(buffer), len(self._left))
        buffer[:size] = self._left[:size]
        self._left = self._left[size:]
        return size

    def close(self) -> None:
        self._pieces.close()
        super().close()

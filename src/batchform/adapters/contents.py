"""What attached files hold: digests of local files, remembered by size and time; identities of objects at gs://."""

from __future__ import annotations

import base64
import os
import sqlite3
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

from msgspec import Struct

from batchform.adapters import media
from batchform.adapters.sources.paths import confine, is_settled
from batchform.canon import file_digest
from batchform.errors import SourceError
from batchform.rows import pdf
from batchform.rows.attached import AttachedFile
from batchform.rows.pages import part_name, part_suffix, ranges
from batchform.spec.remote import HTTPS, is_remote, without_query

if TYPE_CHECKING:
    from batchform.adapters.fetched import Fetched
    from batchform.adapters.storage.client import Stat
    from batchform.spec.attachments import CompiledAttachment

INLINE_UP_TO: Final = {"gemini": 16_000, "vertex": 0}
_SAVE_EVERY: Final = 500
_SEEN: Final = 4096
_HEAD: Final = 256
_UNKNOWN: Final = "crc32c:00000000-1"


class Known(Struct, frozen=True):
    """Of a local file: its digest, about how many tokens it has, and the pages of a PDF if they could be counted."""

    digest: str
    tokens: int
    pages: int | None


class Found(Struct, frozen=True):
    """What a row names. content: a digest, or an address that is sent as it is; file: None for such an address; part:
    of a part of a PDF, what stands behind the row's key in that of the part; pages: of a whole PDF, if known."""

    content: str
    mime: str
    file: AttachedFile | None
    part: str = ""
    pages: int | None = None


class Memory:
    """Digests of local files by path, MIME type, size and time of change, in a file that may be deleted at any time."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "attachments-2.sqlite3"
        self._db: sqlite3.Connection | None = None
        self._unsaved = 0
        self._broken = False

    def _open(self) -> sqlite3.Connection | None:
        if self._db is None and not self._broken:
            try:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                self._db = sqlite3.connect(self._path, timeout=5.0)
                self._db.execute(
                    "CREATE TABLE IF NOT EXISTS files (path TEXT, mime TEXT, size INTEGER, changed INTEGER, "
                    "digest TEXT, tokens INTEGER, pages INTEGER, PRIMARY KEY (path, mime))"
                )
            except (OSError, sqlite3.Error):
                self._give_up()
        return self._db

    def find(self, path: Path, mime: str, stat: os.stat_result) -> Known | None:
        """What is known of a file, if it is as it was."""
        try:
            db = self._open()
            sql = "SELECT digest, tokens, pages FROM files WHERE path = ? AND mime = ? AND size = ? AND changed = ?"
            found = db.execute(sql, (str(path), mime, stat.st_size, stat.st_mtime_ns)).fetchone() if db else None
        except sqlite3.Error:
            self._give_up()
            return None
        return Known(*found) if found else None

    def keep(self, path: Path, mime: str, stat: os.stat_result, known: Known) -> None:
        """Remember a file, unless it was changed just now."""
        if not is_settled(stat.st_mtime_ns):
            return
        try:
            db = self._open()
            if db is None:
                return
            row = (str(path), mime, stat.st_size, stat.st_mtime_ns, known.digest, known.tokens, known.pages)
            db.execute("INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?, ?, ?, ?)", row)
            self._unsaved += 1
            if self._unsaved >= _SAVE_EVERY:
                self.save()
        except sqlite3.Error:
            self._give_up()

    def save(self) -> None:
        """Make what is new last."""
        self._unsaved = 0
        if self._db is not None:
            with suppress(sqlite3.Error):
                self._db.commit()

    def _give_up(self) -> None:
        """Without a memory files are read anew, and nothing else changes."""
        self.close()
        self._broken = True

    def close(self) -> None:
        if self._db is not None:
            self.save()
            self._db.close()
            self._db = None


class Contents:
    """Finds what rows name. cloud: "gemini" or "vertex", which takes addresses as they are; offline: what nobody has
    looked up yet holds nobody knows what; memory: None to read each file."""

    def __init__(
        self,
        *,
        root: Path,
        allow: Sequence[Path],
        cloud: str,
        fetched: Fetched,
        offline: bool,
        memory: Memory | None,
    ) -> None:
        self._root, self._allow, self._cloud, self._memory = root, allow, cloud, memory
        self._fetched, self._offline = fetched, offline
        self._seen: dict[tuple[str, str | None, int | None, int | None], tuple[Found, ...]] = {}

    def begin(self) -> None:
        """Rows are read anew: what was seen of files may no longer hold."""
        self._seen.clear()

    def of(self, text: str, one: CompiledAttachment) -> tuple[Found, ...]:
        """What a path or URI holds: one, or each part of a PDF that is asked about in parts. Raises SourceError.

        A file that many rows name is looked at once, as long as not too many others come between.
        """
        asked = (text, one.mime_type, one.inline_up_to, one.split_pages)
        found = self._seen.get(asked)
        if found is None:
            found = self._look(text, one.mime_type, one.inline_up_to, one.split_pages)
            if len(self._seen) >= _SEEN:
                self._seen.clear()
            self._seen[asked] = found
        return found

    def _look(self, text: str, stated: str | None, inline_up_to: int | None, split: int | None) -> tuple[Found, ...]:
        if not text.isprintable():
            raise SourceError(f"{without_query(text)!r} is no path and no address.")
        if text.startswith(HTTPS) or is_remote(text):
            return self._elsewhere(text, stated, inline_up_to, split)
        if "://" in text:
            raise SourceError(f"{without_query(text)!r} is neither a path nor a gs:// or https:// address.")
        local, path = self._local(self._root / text, stated, inline_up_to, split)
        return (local,) if split is None else self._split(local, path, split, inline_up_to)

    def prefetch(self, texts: Iterable[str]) -> None:
        """Bring what these addresses hold to this machine, several at once, where the service takes uploads only."""
        if self._cloud != "vertex":
            seen = {text for text, *_ in self._seen}
            self._fetched.prefetch(t for t in texts if t not in seen and (t.startswith(HTTPS) or is_remote(t)))

    def _elsewhere(
        self, text: str, stated: str | None, inline_up_to: int | None, split: int | None
    ) -> tuple[Found, ...]:
        """What lies at an address. Vertex AI reads it there; for the Gemini API, and for parts of it, it is fetched."""
        mime = media.type_of(without_query(text).removesuffix("?…"), stated)
        as_it_is = self._cloud == "vertex"
        if as_it_is and not (split and mime == media.PDF):
            return (self._at(text, mime),)
        path = self._fetched.get(text)
        if path is None:
            return (self._unknown(text, mime),)
        name = without_query(text)
        _refuse_page(path, name, mime)
        whole = self._held(path, text, name, mime, inline_up_to, split)
        if split is None:
            return (whole,)
        parts = self._split(whole, path, split, inline_up_to)
        return parts if len(parts) > 1 or not as_it_is else (self._at(text, mime),)

    def _at(self, text: str, mime: str) -> Found:
        """What Vertex AI reads at an address."""
        if text.startswith(HTTPS):
            return Found(text, mime, None)
        if self._offline:
            return self._unknown(text, mime)
        found = self._fetched.stat(text)
        media.check_size(text, mime, found.size)
        digest = object_digest(found)
        return Found(digest, mime, AttachedFile(digest, mime, found.size, text, media.guess(mime, found.size)))

    def _unknown(self, text: str, mime: str) -> Found:
        return Found(_UNKNOWN, mime, AttachedFile(_UNKNOWN, mime, 1, text, media.guess(mime, 1)))

    def _local(self, path: Path, stated: str | None, inline_up_to: int | None, split: int | None) -> tuple[Found, Path]:
        if not os.path.lexists(path):
            raise SourceError(f"There is no file {os.path.relpath(path, self._root)}.")
        file = confine(path, root=self._root, allow=self._allow)
        mime = media.type_of(file.name, stated)
        return self._held(file.path, file.name, file.name, mime, inline_up_to, split), file.path

    def _held(self, path: Path, name: str, named: str, mime: str, inline_up_to: int | None, split: int | None) -> Found:
        """What a file on this machine holds. named: what it is called where people read it."""
        try:
            stat = path.stat()
            media.check_size(named, mime, stat.st_size, split=split is not None)
            known = self._read(path, mime, stat, counted=split is not None)
            if not split:
                media.check_pages(named, known.pages)
        except OSError as error:
            raise SourceError(f"{named} cannot be read: {error.strerror}.") from error
        most = INLINE_UP_TO[self._cloud] if inline_up_to is None else inline_up_to
        found = AttachedFile(known.digest, mime, stat.st_size, name, known.tokens, stat.st_size <= most)
        return Found(known.digest, mime, found, pages=known.pages)

    def _split(self, whole: Found, path: Path, most: int, inline_up_to: int | None) -> tuple[Found, ...]:
        """The parts of a PDF with more pages than one request is to hold."""
        file = whole.file
        if whole.mime != media.PDF or file is None:
            return (whole,)
        shown = without_query(file.name)
        if whole.pages is None:
            raise SourceError(
                f"The pages of {shown} cannot be counted.",
                hint="Save it anew, without a password, or leave the row out with source.where."
                if pdf.is_there()
                else "`split_pages` needs a library: pip install 'batchform[pdf]'.",
            )
        if whole.pages <= most:
            media.check_size(shown, whole.mime, file.size)
            return (whole,)
        parts = []
        for first, last in ranges(whole.pages, most):
            digest, name = part_name(whole.content, first, last), f"{shown}, pages {first} to {last}"
            size = file.size * (last - first + 1) // whole.pages
            limit = (
                0 if self._cloud == "vertex" else INLINE_UP_TO[self._cloud] if inline_up_to is None else inline_up_to
            )
            if min(size, file.size) <= limit or file.size > media.MAX_PDF_BYTES:
                size = len(pdf.cut(path, first, last, name=shown))
            media.check_size(name, whole.mime, size)
            tokens = media.page_tokens(last - first + 1)
            part = AttachedFile(digest, whole.mime, size, file.name, tokens, size <= limit)
            parts.append(Found(digest, whole.mime, part, part_suffix(whole.content, first, last, whole.pages)))
        return tuple(parts)

    def _read(self, path: Path, mime: str, stat: os.stat_result, *, counted: bool) -> Known:
        """counted: the pages of a PDF are needed, which could not be counted while the library was missing."""
        known = self._memory.find(path, mime, stat) if self._memory else None
        if known is not None and not (counted and mime == media.PDF and known.pages is None):
            return known
        measured = media.measure(path, mime, stat.st_size)
        known = Known(file_digest(path), measured.tokens, measured.pages)
        if self._memory:
            self._memory.keep(path, mime, stat, known)
        return known


def _refuse_page(path: Path, name: str, mime: str) -> None:
    """Many servers answer with a page, and no error, to who should log in. Raises SourceError."""
    if mime.startswith("text/"):
        return
    with path.open("rb") as f:
        begins = f.read(_HEAD).lstrip().lower()
    if begins.startswith((b"<!doctype html", b"<html")):
        raise SourceError(
            f"{name} is a web page, and no {mime}.", hint="Does it ask to log in? It must be public, or signed."
        )


def object_digest(found: Stat) -> str:
    """What stands for an object's content: its checksum and its size, by the bucket's own listing."""
    return f"crc32c:{base64.b64decode(found.crc32c).hex()}-{found.size}"

"""Pages of objects: prefixes, delimiters, offsets, globs, versions."""

from __future__ import annotations

import base64
import binascii
import re
import sqlite3
from collections.abc import Iterator
from functools import lru_cache
from typing import Final

import msgspec

from batchform.emulator.storage.objects import ObjectStore
from batchform.emulator.storage.records import ObjectInfo
from batchform.emulator.storage.refusals import invalid

MAX_RESULTS: Final = 1000
_BATCH: Final = 200
_BEFORE_ALL: Final = -1
_AFTER_ALL: Final = 2**63 - 1


class Query(msgspec.Struct, frozen=True):
    """What to list. start, end: names from here, and before there; glob: `matchGlob`; limit: items and prefixes."""

    prefix: str = ""
    delimiter: str = ""
    start: str = ""
    end: str = ""
    glob: str = ""
    versions: bool = False
    trailing: bool = False
    limit: int = MAX_RESULTS
    token: str = ""


class Page(msgspec.Struct):
    """One page. token: of the next one, "" at the end."""

    items: list[ObjectInfo]
    prefixes: list[str]
    token: str


def page(objects: ObjectStore, bucket: str, query: Query) -> Page:
    """One page of a list. Raises StorageRefusal 404 for a bucket that is not there, 400 for a wrong token or glob."""
    objects.bucket(bucket)
    fits = _glob(query.glob).fullmatch if query.glob else None
    found = Page([], [], "")
    cursor = _position(query)
    with objects.store.reading() as db:
        while True:
            beyond = None
            for info in _from(db, bucket, query, cursor):
                if fits and not fits(info.name):
                    cursor = (info.name, info.generation)
                    continue
                if len(found.items) + len(found.prefixes) >= query.limit:
                    found.token = _token(cursor)
                    return found
                folder = _folder(info.name, query)
                if folder and not (query.trailing and folder == info.name):
                    found.prefixes.append(folder)
                    beyond = _after(folder)
                    break
                found.items.append(info)
                cursor = (info.name, info.generation)
            if not beyond:
                return found
            cursor = (beyond, _BEFORE_ALL)


def _from(db: sqlite3.Connection, bucket: str, query: Query, cursor: tuple[str, int]) -> Iterator[ObjectInfo]:
    """Objects behind the cursor, as many as are asked for."""
    end = min(filter(None, (query.end, _after(query.prefix) if query.prefix else "")), default="")
    where = "bucket = ? AND (name, generation) > (?, ?)"
    where += "" if query.versions else " AND deleted_at IS NULL"
    where += " AND name < ?" if end else ""
    while True:
        rows = db.execute(
            f"SELECT * FROM objects WHERE {where} ORDER BY name, generation LIMIT {_BATCH}",
            (bucket, *cursor, *([end] if end else [])),
        ).fetchall()
        yield from map(ObjectInfo.of, rows)
        if len(rows) < _BATCH:
            return
        cursor = (rows[-1]["name"], rows[-1]["generation"])


def _folder(name: str, query: Query) -> str:
    """The prefix that stands for this name in a list with a delimiter, or ""."""
    if not query.delimiter:
        return ""
    head, found, _ = name[len(query.prefix) :].partition(query.delimiter)
    return query.prefix + head + found if found else ""


def _after(prefix: str) -> str:
    """The first text behind all that begin with prefix; code points sort as their UTF-8 does. "" for none."""
    prefix = prefix.rstrip("\U0010ffff")
    if not prefix:
        return ""
    following = ord(prefix[-1]) + 1
    return prefix[:-1] + chr(0xE000 if following == 0xD800 else following)


def _position(query: Query) -> tuple[str, int]:
    start = (max(query.prefix, query.start), _BEFORE_ALL)
    if not query.token:
        return start
    try:
        name, generation = msgspec.json.decode(base64.urlsafe_b64decode(query.token), type=tuple[str, int])
    except (binascii.Error, msgspec.DecodeError, ValueError) as e:
        raise invalid("Invalid page token.") from e
    return max(start, (name, generation))


def _token(cursor: tuple[str, int]) -> str:
    return base64.urlsafe_b64encode(msgspec.json.encode(cursor)).decode()


def start_after(name: str, folded: str = "") -> str:
    """The token of a page that begins behind a name; folded: a delimiter: behind all of a prefix that ends in it."""
    if folded and name.endswith(folded):
        return _token((_after(name) or name, _BEFORE_ALL))
    return _token((name, _AFTER_ALL))


@lru_cache(64)
def _glob(glob: str) -> re.Pattern[str]:
    """`*` and `?` stop at slashes, `**` does not; `[a-z]`, `[!a]`, `{a,b}`."""
    pieces, depth = [], 0
    for token in re.findall(r"\*\*|\[!?\]?[^\]]*\]|\\.|.", glob, re.DOTALL):
        if token == "{":
            depth += 1
        pieces.append(_piece(token, inside=depth > 0))
        if token == "}" and depth:
            depth -= 1
    try:
        return re.compile("".join(pieces), re.DOTALL)
    except re.error as e:
        raise invalid(f"Invalid matchGlob {glob!r}: {e}.") from e


def _piece(token: str, *, inside: bool) -> str:
    if len(token) > 1 and token[0] == "[":
        negated = token[1] == "!"
        return f"[{'^/' if negated else ''}{token[1 + negated : -1].replace(chr(92), chr(92) * 2)}]"
    known = {"**": ".*", "*": "[^/]*", "?": "[^/]"}
    if inside:
        known |= {"{": "(?:", ",": "|", "}": ")"}
    return known.get(token) or re.escape(token.removeprefix("\\") if len(token) > 1 else token)

"""cachedContents: made, shown, prolonged and dropped, and put in the place of their names when a request runs.

A request that names a cache is on the bill as the one that it stands for, so that the same question is the same request
whatever the cache is called.
"""

from __future__ import annotations

import datetime as dt
import re
import secrets
import sqlite3
from collections.abc import Sequence
from typing import Any, Final

import msgspec
from msgspec import Struct

from batchform.emulator import answers, attached, rules
from batchform.emulator.clock import rfc3339
from batchform.emulator.models import Model
from batchform.emulator.refusal import Refusal, bad_field
from batchform.emulator.store import Store

DEFAULT_SECONDS: Final = 3600.0
MOVED: Final = ("systemInstruction", "tools", "toolConfig")
"""What a cache holds beside contents, and a request that names one must not repeat."""

_DURATION: Final = re.compile(r"(\d{1,10}(?:\.\d{1,9})?)s")
_LEAST_TOKENS: Final = (("gemini-2.5-", 2048), ("gemini-", 4096))


class CacheStorage(Struct, frozen=True):
    """What one cache costs beside the requests that use it: tokens once when it is made, and by the hour."""

    name: str
    model: str
    tokens: int
    hours: float


def create(store: Store, account: str, asked: dict[str, Any], model: Model) -> sqlite3.Row:
    """A new cache. asked: a normalised CachedContent."""
    content: dict[str, Any] = {name: asked[name] for name in ("contents", *MOVED) if name in asked}
    rules.check({**content, "contents": content.get("contents") or [_PLACEHOLDER]}, model)
    now = store.now()
    # It holds what files hold, and not their names: it outlives them.
    content = attached.Reader(store, account, at=now).by_content(content)
    tokens = answers.count_tokens({"contents": [], **content})
    least = next(n for start, n in _LEAST_TOKENS if model.id.startswith(start))
    if tokens < least:
        raise Refusal(400, f"Cached content is too small. total_token_count={tokens}, min_total_token_count={least}")
    cache_id = secrets.token_hex(8)
    values = (account, cache_id, model.id, asked.get("displayName"), msgspec.json.encode(content).decode(), tokens)
    with store.writing() as db:
        db.execute(
            "INSERT INTO caches VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, NULL)",
            (*values, now, now, _expiry(asked, now, default=DEFAULT_SECONDS)),
        )
    return find(store, account, cache_id)


def find(store: Store, account: str, cache_id: str, *, at: float | None = None) -> sqlite3.Row:
    """A cache that lives. Raises Refusal 403, as the service says it of one that has ended too."""
    when = store.now() if at is None else at
    with store.reading() as db:
        row = db.execute(
            "SELECT * FROM caches WHERE account = ? AND id = ? AND created_at <= ? AND expires_at > ?"
            " AND (dropped_at IS NULL OR dropped_at > ?)",
            (account, cache_id, when, when, when),
        ).fetchone()
    if row is None:
        raise Refusal(403, "CachedContent not found (or permission denied)")
    return row  # type: ignore[no-any-return]


def page(store: Store, account: str, *, size: int, after: int) -> tuple[list[sqlite3.Row], int | None]:
    """Living caches in the order in which they were made, and where the next page begins."""
    now = store.now()
    with store.reading() as db:
        rows = db.execute(
            "SELECT rowid, * FROM caches WHERE account = ? AND rowid > ? AND expires_at > ? AND dropped_at IS NULL"
            " ORDER BY rowid LIMIT ?",
            (account, after, now, size + 1),
        ).fetchall()
    return rows[:size], rows[size - 1]["rowid"] if len(rows) > size else None


def prolong(store: Store, account: str, cache_id: str, asked: dict[str, Any]) -> sqlite3.Row:
    """Another end for a cache; nothing else of it can be changed."""
    find(store, account, cache_id)
    other = [name for name in asked if name not in ("ttl", "expireTime", "name", "model")]
    if other:
        raise bad_field(f"Only the expiration of a CachedContent can be updated, not {other[0]}.", other[0])
    now = store.now()
    with store.writing() as db:
        db.execute(
            "UPDATE caches SET expires_at = ?, updated_at = ? WHERE account = ? AND id = ?",
            (_expiry(asked, now, default=None), now, account, cache_id),
        )
    return find(store, account, cache_id)


def drop(store: Store, account: str, cache_id: str) -> None:
    find(store, account, cache_id)
    with store.writing() as db:
        db.execute("UPDATE caches SET dropped_at = ? WHERE account = ? AND id = ?", (store.now(), account, cache_id))


def resource(row: sqlite3.Row) -> dict[str, Any]:
    """A cache as it is shown: never what it holds."""
    return {
        "name": f"cachedContents/{row['id']}",
        "model": f"models/{row['model']}",
        **({"displayName": row["display_name"]} if row["display_name"] else {}),
        "createTime": rfc3339(row["created_at"]),
        "updateTime": rfc3339(row["updated_at"]),
        "expireTime": rfc3339(row["expires_at"]),
        "usageMetadata": {"totalTokenCount": row["tokens"]},
    }


def storage(store: Store) -> list[CacheStorage]:
    """What all caches held up to now, those that have ended too."""
    now = store.now()
    with store.reading() as db:
        rows = db.execute("SELECT * FROM caches ORDER BY rowid").fetchall()
    return [
        CacheStorage(
            f"cachedContents/{row['id']}", row["model"], row["tokens"],
            (min(now, row["expires_at"], row["dropped_at"] or now) - row["created_at"]) / 3600,
        )
        for row in rows
    ]  # fmt: skip


class CacheReader:
    """Puts what caches hold in the place of their names, for requests of one account and model that run at one time."""

    def __init__(self, store: Store, account: str, model: str, *, at: float) -> None:
        self._store, self._account, self._model, self._at = store, account, model, at
        self._known: dict[str, tuple[dict[str, Any], int]] = {}

    def whole(self, request: dict[str, Any]) -> tuple[dict[str, Any], int]:
        """The request that one with a cache stands for, and how many of its tokens are cached. Raises Refusal."""
        name = request.get("cachedContent")
        if name is None:
            return request, 0
        if name not in self._known:
            row = find(self._store, self._account, str(name).removeprefix("cachedContents/"), at=self._at)
            if row["model"] != self._model:
                raise Refusal(
                    400,
                    f"Model used by GenerateContent request (models/{self._model}) and CachedContent "
                    f"(models/{row['model']}) has to be the same.",
                )
            self._known[name] = msgspec.json.decode(row["content"]), row["tokens"]
        held, tokens = self._known[name]
        rest = {field: value for field, value in request.items() if field != "cachedContent"}
        contents = _joined(held.get("contents", ()), rest.get("contents", ()))
        return {**held, **rest, "contents": contents}, tokens


def _joined(before: Sequence[dict[str, Any]], after: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Turns of a cache and of a request. Files at the end of a cache belong to the question that follows them."""
    if before and after and before[-1].get("role") == after[0].get("role"):
        files = before[-1].get("parts", [])
        if not any("text" in part for part in files):
            return [*before[:-1], {**after[0], "parts": [*files, *after[0].get("parts", [])]}, *after[1:]]
    return [*before, *after]


_PLACEHOLDER: Final = {"parts": [{"text": "."}]}


def _expiry(asked: dict[str, Any], now: float, *, default: float | None) -> float:
    """When a cache ends, by its `ttl` or `expireTime`."""
    ttl, moment = asked.get("ttl"), asked.get("expireTime")
    if ttl is not None and moment is not None:
        raise bad_field("Only one of ttl and expire_time can be set.", "ttl")
    if ttl is not None:
        found = _DURATION.fullmatch(ttl)
        if found is None or not float(found[1]):
            raise bad_field(f"Invalid value at 'cached_content.ttl': '{ttl}' is not a duration such as 3600s.", "ttl")
        return now + float(found[1])
    if moment is None:
        if default is None:
            raise bad_field("One of ttl and expire_time must be set.", "ttl")
        return now + default
    try:
        end = dt.datetime.fromisoformat(moment).timestamp()
    except ValueError as e:
        raise bad_field(f"Invalid value at 'cached_content.expire_time': '{moment}'.", "expire_time") from e
    if end <= now:
        raise bad_field("expire_time must be in the future.", "expire_time")
    return end

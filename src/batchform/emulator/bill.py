"""The bill: every request that a real service would have charged for, once."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from msgspec import Struct
from msgspec.structs import asdict

from batchform.emulator.clock import rfc3339
from batchform.emulator.store import Store

_PAGE = 2_000


class Charge(Struct, frozen=True):
    """One executed request. job: its full name, None for a synchronous call; key: of its line, None if it had none.

    digest: hex of the request's fingerprint, as `canon.RequestHasher(model=…, realm="emulator")` makes it;
    account: stands for the API key, or `projects/p/locations/l`; at: RFC 3339, by the emulator's clock.
    """

    job: str | None
    account: str
    key: str | None
    model: str
    digest: str
    prompt_tokens: int
    output_tokens: int
    at: str

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


class BillSummary(Struct, frozen=True):
    """The bill in numbers. jobs: batch jobs with at least one charge."""

    requests: int
    distinct_requests: int
    jobs: int
    prompt_tokens: int
    output_tokens: int


Entry = tuple[str | None, str, str | None, str, bytes, int, int, float]
"""job, account, key, model, digest, prompt tokens, output tokens, when."""


def charge(db: sqlite3.Connection, entries: Iterable[Entry]) -> None:
    """Add to the bill, inside the transaction that also records the execution."""
    db.executemany(
        "INSERT INTO bill (job, account, key, model, digest, prompt_tokens, output_tokens, at)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        entries,
    )


def attempts(db: sqlite3.Connection, digest: bytes) -> int:
    """How often a request has run, as far as anybody had a reason to count."""
    row = db.execute("SELECT n FROM attempts WHERE digest = ?", (digest,)).fetchone()
    return int(row[0]) if row else 0


def count_attempts(db: sqlite3.Connection, ran: Mapping[bytes, tuple[int, int]]) -> bool:
    """Note runs: digest → (attempts before, attempts now). False, and nothing noted, when others ran them meanwhile."""
    if any(attempts(db, digest) != before for digest, (before, _) in ran.items()):
        return False
    db.executemany("REPLACE INTO attempts VALUES (?, ?)", ((digest, now) for digest, (_, now) in ran.items()))
    return True


def charges(store: Store) -> Iterator[Charge]:
    """All charges in the order they were made. Memory is bounded by a page."""
    after = 0
    while True:
        with store.reading() as db:
            rows = db.execute("SELECT * FROM bill WHERE id > ? ORDER BY id LIMIT ?", (after, _PAGE)).fetchall()
        if not rows:
            return
        for row in rows:
            yield Charge(
                job=row["job"] and _name(row["account"], row["job"]),
                account=row["account"],
                key=row["key"],
                model=row["model"],
                digest=row["digest"].hex(),
                prompt_tokens=row["prompt_tokens"],
                output_tokens=row["output_tokens"],
                at=rfc3339(row["at"]),
            )
        after = rows[-1]["id"]


def _name(account: str, job: str) -> str:
    """A job's name: of Vertex AI if its account is a place there (`projects/p/locations/l`)."""
    return f"{account}/batchPredictionJobs/{job}" if account.startswith("projects/") else f"batches/{job}"


def summary(store: Store) -> BillSummary:
    """Counts over the whole bill."""
    with store.reading() as db:
        row = db.execute(
            "SELECT count(*), count(DISTINCT digest), count(DISTINCT job), coalesce(sum(prompt_tokens), 0),"
            " coalesce(sum(output_tokens), 0) FROM bill"
        ).fetchone()
    return BillSummary(*row)

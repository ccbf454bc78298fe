"""What really happened, read from the emulator's own state, and the laws that need nothing else."""

from __future__ import annotations

import gzip
import math
import re
import sqlite3
from collections import defaultdict
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import msgspec
from history_clock import START

from batchform import canon
from batchform.emulator.files import GENERATED_SECONDS
from batchform.plan.price import Rates, rates
from batchform.plan.registry import Registry
from batchform.run.classify import classify, key_of
from batchform.spec.model import Retry

MODEL: Final = "gemini-3.5-flash-lite"
MAX_ATTEMPTS: Final = 3
GOOD: Final = "answered"
_ROW: Final = re.compile(rb"\bT-(\d+) ")
_RETRIED: Final = frozenset(Retry().on)
Results = dict[str, tuple[str, str]]
"""Wire key → outcome and text."""


@dataclass(frozen=True)
class Attempt:
    """One charged request. number: of its job, counted from 1; created: when that was made; ended: when its results
    came to be; gone: when the service deletes those; outcome: GOOD or what was wrong with it, as the service showed it
    to the client; text: of the answer; usd: what a real service would have taken for it."""

    number: int
    tag: str
    key: str
    digest: str
    created: float
    ended: float
    gone: float
    outcome: str
    text: str
    usd: float


@dataclass(frozen=True)
class Job:
    """A job at the service. lines: requests in it."""

    name: str
    tag: str
    created: float
    lines: int
    cancelled: bool


class Truth:
    """The emulator's jobs and bill, and what the ledger has archived of damaged results."""

    def __init__(self, state: Path, archive: Path, on_vertex: Callable[[str], bytes]) -> None:
        """on_vertex: the results of the jobs of a tag on Vertex AI."""
        self._state, self._archive, self._on_vertex = state, archive, on_vertex
        self._results: dict[str, Results] = {}  # by job; read once, since the service deletes them in time

    def jobs(self) -> list[Job]:
        """All jobs ever made, oldest first."""
        return [
            Job(r["id"], r["display_name"], r["created_at"], r["lines"], r["cancelled_at"] is not None)
            for r in self._query("SELECT * FROM jobs ORDER BY seq")
        ]

    def archived(self) -> set[str]:
        """Tags of the jobs whose results the ledger holds."""
        return {p.name.removesuffix(".jsonl.gz") for p in self._archive.glob("*.jsonl.gz")}

    def attempts(self, damaged: Collection[str] = ()) -> list[Attempt]:
        """The bill, oldest job first. damaged: names of the jobs whose results a fault spoilt: what the client got of
        them is what the ledger archived."""
        price, found = _prices(), []
        for r in self._query("SELECT b.*, j.* FROM bill b JOIN jobs j ON b.job = j.id ORDER BY j.seq, b.id"):
            results = self._archived(r["display_name"]) if r["job"] in damaged else self._results_of(r)
            outcome, text = results.get(r["key"], ("missing", ""))
            usd = r["prompt_tokens"] * price.input + r["output_tokens"] * price.output
            gone = r["ends_at"] + GENERATED_SECONDS if r["vertex"] is None else math.inf
            found.append(
                Attempt(r["seq"], r["display_name"], r["key"], r["digest"].hex(), r["created_at"], r["ends_at"], gone,
                        outcome, text, usd)
            )  # fmt: skip
        return found

    def _results_of(self, job: sqlite3.Row) -> Results:
        """Of a row of bill and job together."""
        if job["job"] not in self._results and job["vertex"] is not None:
            results = _read(self._on_vertex(job["display_name"]))
            if not results:
                return {}
            self._results[job["job"]] = results
        if job["job"] not in self._results:
            path = self._state / "jobs" / f"{job['job']}.out.jsonl"  # of a job with inline input
            if job["input_name"] is not None:
                file = self._query("SELECT path FROM files WHERE id = ?", job["result_id"])
                path = self._state / "files" / (file[0]["path"] if file else "-")
            if not path.exists():
                return {}
            self._results[job["job"]] = _read(path.read_bytes())
        return self._results[job["job"]]

    def _archived(self, tag: str) -> Results:
        path = self._archive / f"{tag}.jsonl.gz"
        return _read(gzip.decompress(path.read_bytes())) if path.exists() else {}

    def _query(self, sql: str, *values: Any) -> list[sqlite3.Row]:
        con = sqlite3.connect(self._state / "emulator.sqlite")
        con.row_factory = sqlite3.Row
        try:
            return con.execute(sql, values).fetchall()
        finally:
            con.close()


def _read(raw: bytes) -> Results:
    """Outcome and text of each row by its key: its first answer, else what came last."""
    found: Results = {}
    for line in raw.split(b"\n"):
        try:
            said = msgspec.json.decode(line)
        except msgspec.DecodeError:
            continue
        key = key_of(said) or _asked(said)
        if key is not None and found.get(key, ("", ""))[0] != GOOD:
            text = classify(said).text or ""
            found[key] = (classify(said, decode=msgspec.json.decode if text.startswith("{") else None).cls, text)
    return found


def _asked(line: Any) -> str | None:
    """Where no key came back: whose row the request names, which Vertex AI returns."""
    request = line.get("request") if isinstance(line, dict) else None
    named = _ROW.search(msgspec.json.encode(request))
    return wire(int(named[1])) if named else None


@cache
def _prices() -> Rates:
    found = rates(MODEL, registry=Registry.load(), when=START)
    assert found is not None
    return found


def paid_twice(attempts: Sequence[Attempt], reruns: Sequence[tuple[str, int]], archived: Collection[str]) -> list[str]:
    """Requests that were charged again although nothing called for it.

    reruns: (wire key, number of jobs when a person asked); archived: tags of jobs whose results the ledger holds.

    A request may be sent again for three reasons only: a person asked since; its last attempt gave no usable answer, in
    a way that is retried, and it had attempts left; or nobody came for its results until the service deleted them.
    """
    complaints = []
    asked = _consumed(attempts, reruns)
    by_request: dict[tuple[str, str], list[Attempt]] = defaultdict(list)
    for attempt in attempts:
        by_request[attempt.key, attempt.digest].append(attempt)
    for sent in by_request.values():
        failures = 0
        for before, again in pairwise(sent):
            failures = failures + 1 if before.outcome != GOOD else 0
            late = before.tag not in archived and again.created > before.gone
            retried = before.outcome in _RETRIED and failures < MAX_ATTEMPTS
            if (again.number, again.key) in asked:
                failures = 0
            elif not retried and not late:
                complaints.append(
                    f"{again.key} {again.digest[:8]} in {again.tag}, after {before.outcome} in {before.tag}"
                )
    return complaints


def _consumed(attempts: Sequence[Attempt], reruns: Sequence[tuple[str, int]]) -> set[tuple[int, str]]:
    """(number of job, key) of the first attempt of each key after each request to send it again."""
    found = set()
    for key, jobs in reruns:
        first = next((a for a in attempts if a.key == key and a.number > jobs), None)
        if first:
            found.add((first.number, first.key))
    return found


def over_budget(attempts: Sequence[Attempt], *, day: float | None, total: float | None) -> list[str]:
    """Days whose jobs cost more than a day may, and whether all together cost more than all may, in US dollars."""
    days: dict[str, float] = defaultdict(float)
    for attempt in attempts:
        days[datetime.fromtimestamp(attempt.created, UTC).date().isoformat()] += attempt.usd
    complaints = [f"{on} took ${usd:.6f} of ${day}" for on, usd in days.items() if day is not None and usd > day]
    if total is not None and sum(days.values()) > total:
        complaints.append(f"${sum(days.values()):.6f} were taken of ${total} in all")
    return complaints


def wire(number: int) -> str:
    """The key of a row's line in a job."""
    return canon.wire_key(f"T-{number}")

"""What goes wrong at the service: faults of the emulator's own catalogue, scheduled for one command at a time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

from batchform.emulator import EmulatorServer
from batchform.emulator.fault_kinds import VERTEX
from batchform.emulator.faults import Sample, catalogue

_SLOW: Final = frozenset({"slow"})
"""Kinds that take real time, and are tried elsewhere."""

_SHOWN: Final = frozenset(
    {
        "error", "drop", "clock_skew", "ignored", "short_chunk", "lost_upload", "no_upload_headers", "damaged_upload",
        "file_state", "hide", "reorder", "repeat_entries", "repeat_page", "empty_page", "end_early", "small_pages",
        "state", "object_details", "stats", "new_fields", "list_lag", "shuffled", "rows_doubled", "unknown_rows",
        "unknown_fields", "line_ends",
    }
)  # fmt: skip
"""Kinds after which no answer may be lost and none paid for again."""

_FATES: Final = frozenset({"hang", "ends", "keeps_results", "row_error", "finish_reason", "block_reason"})
"""Kinds that decide what becomes of jobs and rows. Rows may end as failed; what was answered stays answered."""


_LOOKS: Final = (
    "batches.get", "files.download", "storage.objects.download", "storage.objects.list", "bigquery.tables.get",
    "bigquery.tabledata.list",
)  # fmt: skip
"""Calls that look at jobs and results."""
_NOT_THERE: Final = {"batches.get": (403, 404), "files.download": (403, 404)}


def _is_a_lie(sample: Sample) -> bool:
    """What no client can see through: the service denies a job that it made, or says that it made none.

    A list that leaves a job out for longer than the settle window, a look that says 404, a refusal that was none. Lists
    that lag, but less than the settle window, are tried in every second history.
    """
    do, call = sample.do, sample.call.removeprefix(VERTEX)
    if call == "batches.list":
        hidden = do["type"] == "without" and {"displayName", "inputConfig", "metadata", "name"} & set(do["fields"])
        return bool(hidden) or do["type"] in ("hide", "end_early", "nonsense", "cut")
    if call == "batches.create":
        return do["type"] == "error" and do["status"] in (400, 401, 403, 404, 429) and do.get("when") == "after"
    return call in _LOOKS and do["type"] == "error" and do["status"] in _NOT_THERE.get(call, (404,))


_VERTEX: Final = ("vertex.batches.*", "vertex.models.count_tokens")
_CALLS: Final = {
    "gemini": ("files.upload.*", "files.get", "files.delete", "files.download", "batches.*", "models.get"),
    "vertex": (
        *_VERTEX, "storage.buckets.get", "storage.objects.insert", "storage.objects.list", "storage.objects.download",
        "storage.objects.delete",
    ),
    "tables": (
        *_VERTEX, "bigquery.datasets.get", "bigquery.jobs.upload*", "bigquery.jobs.get", "bigquery.tables.get",
        "bigquery.tables.delete", "bigquery.tabledata.list",
    ),
}  # fmt: skip
"""The calls that commands make."""


@cache
def _groups(cloud: str) -> list[list[Sample]]:
    """What may go wrong, by call and kind."""
    found: dict[tuple[str, str], list[Sample]] = {}
    for sample in (s for call in _CALLS[cloud] for s in catalogue(call)):
        if sample.do["type"] not in _SLOW and not _is_a_lie(sample):
            found.setdefault((sample.call, sample.do["type"]), []).append(sample)
    return list(found.values())


@dataclass(frozen=True)
class Accident:
    """A fault of one call. From the nth call on, so many times."""

    what: str
    fault: Mapping[str, Any]


@dataclass(frozen=True)
class Chance:
    """One of all that may go wrong, chosen by numbers of any size: every kind at every call is as likely."""

    group: int
    sample: int
    nth: int
    times: int

    def accident(self, cloud: str) -> Accident:
        """What it is, at the calls of a cloud."""
        groups = _groups(cloud)
        samples = groups[self.group % len(groups)]
        chosen = samples[self.sample % len(samples)]
        return Accident(chosen.name, chosen.fault(nth=self.nth, times=self.times))


class Accidents:
    """The emulator's fault schedule. lag: how long a new job is in no list, in seconds.

    fired: how often each kind happened; last: how many faults happened to the last command; damaged: jobs (without
    `batches/`) whose results a fault spoilt or hid, so that their rows may be sent again; fateful: whether a fault
    decided what became of a job or a row; spoilt: jobs on Vertex AI that wrote spoilt results, once and for all.
    """

    def __init__(self, server: EmulatorServer, cloud: str = "gemini") -> None:
        self._cloud = cloud
        self.lag = 0.0
        self.fired: Counter[str] = Counter()
        self.last = 0
        self.damaged: set[str] = set()
        self.spoilt: set[str] = set()
        self.fateful = False
        self._server = server

    def schedule(self, accidents: Sequence[Accident | Chance]) -> list[str]:
        """Let these happen from now on; says what they are."""
        chosen = [a.accident(self._cloud) if isinstance(a, Chance) else a for a in accidents]
        faults: list[Mapping[str, Any]] = [a.fault for a in chosen]
        if self.lag:
            create = "batches.create" if self._cloud == "gemini" else f"{VERTEX}batches.create"
            faults.append({"call": create, "times": "all", "do": {"type": "list_lag", "seconds": self.lag}})
        self._server.set_faults(faults)
        return [a.what for a in chosen]

    def end(self) -> None:
        """Note what happened, and let no more happen."""
        self.last = 0
        for fired in self._server.fired():
            if self.lag and fired.type == "list_lag":
                continue
            self.last += 1
            self.fired[f"{fired.call}: {fired.type}"] += 1
            self.fateful |= fired.type in _FATES
            if fired.call == f"{VERTEX}batches.create":
                self.spoilt |= self._jobs_of(fired.about)
            elif fired.type not in _SHOWN | _FATES:
                self.damaged.add(fired.about.rpartition("/")[2])
        self.schedule(())

    def _jobs_of(self, file: str) -> set[str]:
        """The jobs that have this input."""
        with self._server._store.reading() as db:
            return {row["id"] for row in db.execute("SELECT id FROM jobs WHERE input_name = ?", (file,))}

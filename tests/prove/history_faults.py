"""What goes wrong at the service: faults of the emulator's own catalogue, scheduled for one command at a time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from batchform.emulator import EmulatorServer
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


def _is_a_lie(sample: Sample) -> bool:
    """What no client can see through: the service denies a job that it made, or says that it made none.

    A list that leaves a job out for longer than the settle window, a look that says 404, a refusal that was none. Lists
    that lag, but less than the settle window, are tried in every second history.
    """
    do = sample.do
    if sample.call == "batches.list":
        hidden = do["type"] == "without" and {"displayName", "inputConfig", "metadata", "name"} & set(do["fields"])
        return bool(hidden) or do["type"] in ("hide", "end_early", "nonsense", "cut")
    if sample.call == "batches.create":
        return do["type"] == "error" and do["status"] in (400, 401, 403, 404, 429) and do.get("when") == "after"
    return sample.call in ("batches.get", "files.download") and do["type"] == "error" and do["status"] in (403, 404)


_CALLS: Final = ("files.upload.*", "files.get", "files.delete", "files.download", "batches.*", "models.get")
"""The calls that commands make."""


def _groups() -> list[list[Sample]]:
    """What may go wrong, by call and kind."""
    found: dict[tuple[str, str], list[Sample]] = {}
    for sample in (s for call in _CALLS for s in catalogue(call)):
        if sample.do["type"] not in _SLOW and not _is_a_lie(sample):
            found.setdefault((sample.call, sample.do["type"]), []).append(sample)
    return list(found.values())


_GROUPS: Final = _groups()


@dataclass(frozen=True)
class Accident:
    """A fault of one call. From the nth call on, so many times."""

    what: str
    fault: Mapping[str, Any]


def accident(group: int, sample: int, nth: int, times: int) -> Accident:
    """One of all that may go wrong, chosen by numbers of any size: every kind at every call is as likely."""
    samples = _GROUPS[group % len(_GROUPS)]
    chosen = samples[sample % len(samples)]
    return Accident(chosen.name, chosen.fault(nth=nth, times=times))


class Accidents:
    """The emulator's fault schedule. lag: how long a new job is in no list, in seconds.

    fired: how often each kind happened; last: how many faults happened to the last command; damaged: jobs (without
    `batches/`) whose results a fault spoilt or hid, so that their rows may be sent again; fateful: whether a fault
    decided what became of a job or a row.
    """

    def __init__(self, server: EmulatorServer) -> None:
        self.lag = 0.0
        self.fired: Counter[str] = Counter()
        self.last = 0
        self.damaged: set[str] = set()
        self.fateful = False
        self._server = server

    def schedule(self, accidents: Sequence[Accident]) -> None:
        """Let these happen from now on."""
        faults: list[Mapping[str, Any]] = [a.fault for a in accidents]
        if self.lag:
            faults.append({"call": "batches.create", "times": "all", "do": {"type": "list_lag", "seconds": self.lag}})
        self._server.set_faults(faults)

    def end(self) -> None:
        """Note what happened, and let no more happen."""
        self.last = 0
        for fired in self._server.fired():
            if self.lag and fired.type == "list_lag":
                continue
            self.last += 1
            self.fired[f"{fired.call}: {fired.type}"] += 1
            self.fateful |= fired.type in _FATES
            if fired.type not in _SHOWN | _FATES:
                self.damaged.add(fired.about.removeprefix("batches/"))
        self.schedule(())

"""What `doctor` finds, as values, and the checks that need the ledger and the price table only.

A check that could not be made says so: nothing is concluded from silence.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterable, Iterator
from typing import Final, Literal

from msgspec import Struct

from batchform.errors import BatchformError
from batchform.ledger.records import JobRecord
from batchform.ledger.store import Ledger
from batchform.plan.registry import Registry
from batchform.ports import Clock
from batchform.spec.backends import Backend
from batchform.spec.wording import counted

Status = Literal["ok", "warning", "failure", "unknown"]

SKEW_WARNING: Final = 60.0
"""Seconds between this clock and the service's that are worth a word: times of jobs are compared with our own."""
SKEW_FAILURE: Final = 300.0
"""Seconds after which Google refuses signed requests, and a settle window means something else than it says."""

_LONGEST: Final = 500
_QUOTED: Final = re.compile(r"`((?:gcloud|bq|GRANT) [^`]+)`")
_WHOLE: Final = re.compile(r"pip install [^`]+")
_AT_END: Final = re.compile(r": ((?:gcloud|bq) [^`]+?)\.?$")
_TO_FILL: Final = re.compile(r"\b(?:MEMBER|PROJECT|REGION)\b")


class Finding(Struct, frozen=True):
    """One thing that was looked at.

    subject: what it belongs to, such as "backend vertex"; check: a stable word, such as "bucket"; status: "unknown"
    says that it could not be looked at; message: one sentence; hint: what to do, in words; fix: the command that mends
    it, on one line, "" where there is none.
    """

    subject: str
    check: str
    status: Status
    message: str
    hint: str = ""
    fix: str = ""


class Subject(Struct, frozen=True):
    """Makes findings about one thing."""

    name: str

    def ok(self, check: str, message: str) -> Finding:
        return Finding(self.name, check, "ok", _line(message))

    def warning(self, check: str, message: str, *, hint: str = "", fix: str = "") -> Finding:
        return Finding(self.name, check, "warning", _line(message), hint, fix)

    def failure(self, check: str, message: str, *, hint: str = "", fix: str = "") -> Finding:
        return Finding(self.name, check, "failure", _line(message), hint, fix)

    def unknown(self, check: str, message: str, *, hint: str = "", fix: str = "") -> Finding:
        return Finding(self.name, check, "unknown", _line(message), hint, fix)

    def error(self, check: str, error: BatchformError, *, fix: str = "", member: str = "") -> Finding:
        """A failure that an adapter told. The command in its hint becomes the fix; member: who is to be granted it."""
        hint = error.hint.replace("MEMBER", member) if member else error.hint
        if not fix and (quoted := _QUOTED.search(hint)):
            fix, hint = quoted[1], hint.removesuffix(f" {quoted[0]}")
        elif not fix and _WHOLE.fullmatch(hint):
            fix, hint = hint, ""
        elif not fix and (ending := _AT_END.search(hint)) and not _TO_FILL.search(ending[1]):
            hint, fix = hint[: ending.start() + 1], ending[1]
        return self.failure(check, error.message, hint=hint, fix=fix)


def _line(text: str) -> str:
    """A message as one line that is not endless: services answer with whole pages at times."""
    joined = " ".join(text.split())
    return joined if len(joined) <= _LONGEST else f"{joined[:_LONGEST]}…"


def check_ledger(ledger: Ledger) -> Iterator[Finding]:
    """The head, its events, and whether every file that it names is there. The bytes of rows and answers are not read.

    Raises BatchformError when the place cannot be read.
    """
    about = Subject("ledger")
    ledger.refresh()
    head = ledger.head
    if head is None:
        yield about.ok("whole", f"{ledger.place}: nothing is recorded yet.")
        return
    there = set(ledger.blobs.list("segments/"))
    missing = [s.name for s in head.segments if s.name not in there]
    if missing:
        message = f"{ledger.place}: {counted(len(missing), 'file')} of its head are not there, such as {missing[0]}."
        yield about.failure("whole", message, hint="See what can be mended:", fix="batchform ledger verify")
        return
    jobs = ledger.control().jobs.values()
    message = (
        f"{ledger.place}: serial {head.serial}, {counted(len(head.segments), 'file')}, {counted(len(jobs), 'job')} "
        "recorded; all files are there. `batchform ledger verify` reads them."
    )
    yield about.ok("whole", message)
    waiting = [r for r in jobs if r.status == "intent"]
    if waiting:
        message = f"{counted(len(waiting), 'submission')} of unknown outcome, such as {waiting[0].tag}."
        yield about.warning("submissions", message, hint="The next sync looks for them:", fix="batchform sync")


def check_quota(
    about: Subject, jobs: Iterable[JobRecord], name: str, settings: Backend, *, fingerprint: str
) -> Iterator[Finding]:
    """Jobs and tokens at work by the ledger, against what batchform.yaml allows. fingerprint: of the backend."""
    at_work = [r.intent for r in jobs if r.open and r.intent.backend == name and r.intent.fingerprint == fingerprint]
    most, tokens = settings.max_jobs_in_flight, sum(i.est_input_tokens for i in at_work)
    message = f"{counted(len(at_work), 'job')} at work by the ledger, of {most:,} (max_jobs_in_flight)."
    if len(at_work) >= most:
        yield about.warning("quota", message, hint="More are sent when some have ended: batchform sync --wait")
    else:
        yield about.ok("quota", message)
    limit = settings.max_enqueued_tokens
    if limit is not None:
        message = f"about {tokens:,} input tokens at work by the ledger, of {limit:,} (max_enqueued_tokens)."
        kind = about.warning if tokens >= limit else about.ok
        yield kind("quota-tokens", message)


def check_model(
    about: Subject, registry: Registry, model: str, *, now: dt.datetime, realm: str, task: str
) -> Iterator[Finding]:
    """The life of a model by batchform's own table. registry: that of the cloud in question."""
    found = registry.check(model, now=now, realm=realm, task=task)
    for entry in found:
        kind = about.failure if entry.severity == "error" else about.warning
        yield kind("model", f"{entry.message[:1].upper()}{entry.message[1:]}", hint=entry.hint)
    info = registry.model(model)
    if info is not None and not found:
        until = f"until {info.shutdown}" if info.shutdown else "no end of it is announced"
        yield about.ok("model", f"{model} takes batches, {until}, by batchform's table.")


def check_clock(about: Subject, service: dt.datetime | None, clock: Clock, *, whose: str) -> Finding:
    """This machine's clock against the Date header of an answer that just came."""
    if service is None:
        return about.unknown("clock", f"{whose} says no time in its answers.")
    skew = (clock.now() - service).total_seconds()
    direction = "ahead of" if skew > 0 else "behind"
    message = f"This clock is {abs(skew):.0f} s {direction} that of {whose}."
    hint = "Let the machine keep time by NTP."
    if abs(skew) >= SKEW_FAILURE:
        return about.failure("clock", message, hint=hint, fix="sudo timedatectl set-ntp true")
    if abs(skew) >= SKEW_WARNING:
        return about.warning("clock", message, hint=hint, fix="sudo timedatectl set-ntp true")
    return about.ok("clock", f"This clock agrees with that of {whose}, within {max(abs(skew), 1):.0f} s.")

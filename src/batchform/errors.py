"""What can go wrong, as a tree. Every error is a sentence with the place, the numbers and a way out.

BatchformError                1    anything below that has no code of its own
├── UsageError               64    the command line itself
├── InvalidProject            1    one or more Diagnostics about YAML, templates, schemas
├── SourceError               1    rows cannot be read, keyed or rendered
├── DestinationError          1    answers cannot be written where the spec says
├── LimitExceeded             3    a named limit forbids; released by --allow NAME
├── StalePlan                 4    what was reviewed is not what would run
├── LedgerMoved               5    another writer won the swap, or holds the lease
├── LedgerCorrupt             1    head or segments do not hold together
├── BackendError              1    the service said no, or nothing
│   ├── NotCreated            1    a create that surely made no job
│   ├── OutcomeUnknown        8    a create that may have made a job
│   ├── UnknownJobs           8    the service has jobs that the ledger sent and does not know
│   ├── NotFound              1    the service has no such job or file (for this credential)
│   └── AuthError             1    key missing or refused
├── RowsFailed                6    finished, with failed rows above tolerance
├── StillRunning              7    the wait ended before the jobs did
├── UnknownSubmissions        8    an intent without a job is too young to be settled
└── Interrupted             130    stopped by the user; everything is recorded
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from msgspec import Struct


class Place(Struct, frozen=True, eq=False):
    """Where something stands: 1-based line and column in a file the user wrote. Zero means unknown.

    text: the line itself, as it may be shown; no part of the place's identity.
    """

    path: str
    line: int = 0
    column: int = 0
    text: str = ""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Place) and self._identity() == other._identity()

    def __hash__(self) -> int:
        return hash(self._identity())

    def _identity(self) -> tuple[str, int, int]:
        return self.path, self.line, self.column

    def __str__(self) -> str:
        if not self.line:
            return self.path
        return f"{self.path}:{self.line}:{self.column}" if self.column else f"{self.path}:{self.line}"


class RowPlace(Struct, frozen=True):
    """A part of what one row would send. key: the row's; path: JSON path within its request, `$` for all of it."""

    key: str
    path: str


class Diagnostic(Struct, frozen=True):
    """One complaint about what the user wrote.

    rule: the name of a rule of the catalogue ("unknown-field"); severity: "error" or "warning"; rows: of complaints
    about rows, the first that break the rule; row_count: how many do in all.
    """

    rule: str
    message: str
    place: Place
    hint: str = ""
    severity: str = "error"
    rows: tuple[RowPlace, ...] = ()
    row_count: int = 0

    @property
    def code(self) -> str:
        """The rule's code ("BF101"), which stays what it is."""
        from batchform.rules import code_of

        return code_of(self.rule)

    def render(self) -> str:
        """`place: severity: message [code rule]`, the line with a caret, the hint."""
        head = f"{self.place}: {self.severity}: {self.message} [{self.code} {self.rule}]"
        return _rendered(head, self.place, self.hint)


def _rendered(head: str, place: Place | None, hint: str) -> str:
    """The sentence, the line it is about with a caret under the column, the hint: each on a line of its own."""
    lines = [head]
    if place is not None and place.line and place.text:
        gutter = f"  {place.line} | "
        lines.append(gutter + place.text.rstrip("\n").expandtabs(1))
        if place.column:
            lines.append(" " * (len(gutter) + place.column - 1) + "^")
    if hint:
        lines.append(f"  {hint}")
    return "\n".join(lines)


class BatchformError(Exception):
    """Base of everything a user can cause or meet. `hint` is the next thing to do."""

    exit_code = 1

    def __init__(self, message: str, *, hint: str = "", place: Place | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.place = place

    def render(self) -> str:
        """The error as a person reads it: `place: message`, the line with a caret, then the hint."""
        head = f"{self.place}: {self.message}" if self.place else self.message
        return _rendered(head, self.place, self.hint)


class UsageError(BatchformError):
    """The command line asks for something that does not exist or does not fit."""

    exit_code = 64


class InvalidProject(BatchformError):
    """All complaints of one run about YAML, templates and schemas, in file order."""

    def __init__(self, diagnostics: Sequence[Diagnostic]) -> None:
        self.diagnostics = tuple(sorted(diagnostics, key=lambda d: (d.place.path, d.place.line, d.place.column)))
        errors = sum(1 for d in self.diagnostics if d.severity == "error")
        super().__init__(f"{errors} error{'s' if errors != 1 else ''} in the project's files")

    def render(self) -> str:
        """Errors first: what follows them does not stand in the way."""
        ordered = sorted(self.diagnostics, key=lambda d: d.severity != "error")
        return "\n".join([*(d.render() for d in ordered), f"{self.message}."])


class SourceError(BatchformError):
    """Rows cannot be read, keyed or rendered."""


class DestinationError(BatchformError):
    """Answers cannot be written where the spec says. The archive still has them."""


class LimitExceeded(BatchformError):
    """A named limit forbids the plan; each is released only by its own `--allow NAME`."""

    exit_code = 3


class StalePlan(BatchformError):
    """What was reviewed is not what would run now."""

    exit_code = 4


class LedgerMoved(BatchformError):
    """Another writer committed first, or holds the lease. Safe to run again."""

    exit_code = 5


class LedgerCorrupt(BatchformError):
    """The ledger's head and segments do not hold together, or come from a newer batchform."""


class BackendError(BatchformError):
    """The service refused, failed or did not answer. `status` is the HTTP status, 0 if there was none."""

    def __init__(self, message: str, *, hint: str = "", status: int = 0, retry_after: float | None = None) -> None:
        super().__init__(message, hint=hint)
        self.status = status
        self.retry_after = retry_after


class NotCreated(BackendError):
    """A create call that surely made no job: 400, 401, 403, 404, 429, or a refused connection."""


class OutcomeUnknown(BackendError):
    """A create call that may have made a job: never call create again before looking for its tag."""

    exit_code = 8


class UnknownJobs(BackendError):
    """The service has jobs that this ledger sent and does not know: it is an older copy of itself."""

    exit_code = 8


class NotFound(BackendError):
    """The service has no such job or file, or not for this credential."""


class AuthError(BackendError):
    """The key is missing or was refused."""


class RowsFailed(BatchformError):
    """The work is finished, and more rows failed than the spec tolerates."""

    exit_code = 6


class StillRunning(BatchformError):
    """The wait ended before the jobs did. Nothing is lost; `batchform sync` goes on."""

    exit_code = 7


class UnknownSubmissions(BatchformError):
    """A job may or may not have been created, and it is too early to tell."""

    exit_code = 8


class Interrupted(BatchformError):
    """Stopped by the user. Everything is recorded."""

    exit_code = 130


def as_json(error: BatchformError) -> dict[str, Any]:
    """An error for programs. type: its class in errors.py; diagnostics: the complaints of an InvalidProject."""
    told: dict[str, Any] = {
        "type": type(error).__name__,
        "message": error.message,
        "hint": error.hint,
        "place": str(error.place) if error.place else None,
    }
    if isinstance(error, InvalidProject):
        told["diagnostics"] = [complaint_as_json(d) for d in error.diagnostics]
    return told


def complaint_as_json(complaint: Diagnostic) -> dict[str, Any]:
    """A complaint for programs. code, rule: as in the catalogue; place: `file:line:column`; rows, row_count: only of
    complaints about rows."""
    rows = {"row_count": complaint.row_count, "rows": [{"key": r.key, "path": r.path} for r in complaint.rows]}
    return {
        "code": complaint.code,
        "rule": complaint.rule,
        "severity": complaint.severity,
        "message": complaint.message,
        "hint": complaint.hint,
        "place": str(complaint.place),
        **(rows if complaint.row_count else {}),
    }


def exit_code(error: BaseException) -> int:
    """The one place that turns what happened into a process exit code."""
    if isinstance(error, BatchformError):
        return error.exit_code
    if isinstance(error, KeyboardInterrupt):
        return Interrupted.exit_code
    return 1


_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def no_room(error: BaseException) -> bool:
    """Whether an error says that a disk, a quota or a file is full, whichever library raised it.

    DuckDB and Arrow tell it in words only, SQLite in words of its own.
    """
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno in _NO_ROOM
    text = str(error)
    return "database or disk is full" in text or any(os.strerror(code) in text for code in _NO_ROOM)


def disk_full(error: BaseException) -> BatchformError:
    """What a user is told then, with the file that could not be written when the error names it."""
    named = re.search(r'file \\?"([^"\\]+)', str(error))
    place = getattr(error, "filename", None) or (named[1] if named else "")
    return BatchformError(
        f"the disk is full{f': {place} could not be written' if place else ''}",
        hint="Free some space and run the same command again; nothing recorded was lost.",
    )


def relative_to(path: Path, root: Path) -> str:
    """The path as the user would write it: relative to the project if it lies inside, POSIX slashes."""
    try:
        return path.resolve().relative_to(root.resolve()).as_posix()
    except ValueError:
        return path.as_posix()

"""Mending what can be mended without a guess. What is replaced is kept under `damaged/`; the rest is refused, in words.

The head comes back from its newest copy if that is the only one that can be, and from nowhere else. Segments come back
from a backup if it has the very bytes that the head names. Answers that can be made again are set aside for it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from msgspec import Struct, field

from batchform.canon import file_digest
from batchform.errors import LedgerCorrupt
from batchform.ledger import heads
from batchform.ledger import segments as seg
from batchform.ledger.findings import ERROR, RESTORE_FILE, WARNING, Finding
from batchform.ledger.fold import fold
from batchform.ledger.raw import StoresOf, blob_problem
from batchform.ledger.records import ControlView, Head, Segment, tag_of_results
from batchform.ledger.store import Ledger
from batchform.ledger.stored import AGAIN, answers_problem, can_be_made_again, input_problem, parquet_problem
from batchform.ports import Blobs, Clock

FOLDER: Final = "damaged/"

_NO_HEAD: Final = (
    "Restore the newest backup of the whole folder, with nothing of the old one left beside it, then run "
    "`batchform ledger verify --deep`: it names jobs of the service that the backup does not know."
)


class Repaired(Struct):
    """done: what was put right, a sentence each; refused: what could not be without a guess."""

    done: list[str] = field(default_factory=list)
    refused: list[Finding] = field(default_factory=list)


def repair(
    blobs: Blobs, *, clock: Clock, backup: Blobs | None = None, dry_run: bool = False, stores: StoresOf | None = None
) -> Repaired:
    """Put right what is damaged. backup: a copy of the ledger, whole or not; dry_run: only say what would be done;
    stores: reads raw results that are not in the ledger.

    Raises LedgerCorrupt for a ledger that a newer batchform wrote, LedgerMoved when another writer is faster.
    """
    ledger = Ledger(blobs, clock=clock, who="repair")
    ledger.stores = stores
    return _Repair(ledger, backup, seg.timestamp(clock.now()).replace(":", ""), act=not dry_run).run()


class _Repair:
    def __init__(self, ledger: Ledger, backup: Blobs | None, when: str, *, act: bool) -> None:
        self._ledger = ledger
        self._blobs = ledger.blobs
        self._backup = backup
        self._when = when
        self._act = act
        self._report = Repaired()

    def run(self) -> Repaired:
        head = self._head()
        if head is not None:
            missing = [s for s in head.segments if not self._segment(s)]
            if not any(s.kind == "events" for s in missing):
                self._stored(head)
        return self._report

    def _refuse(self, file: str, message: str, hint: str) -> None:
        self._report.refused.append(Finding(ERROR, message, hint, file))

    def _did(self, what: str) -> None:
        self._report.done.append(what)

    # --- head ----------------------------------------------------------------------------------------------------

    def _head(self) -> Head | None:
        """The right head, put back if it was not there; None if there is none, or it cannot be known."""
        found = self._blobs.head()
        present, damage = self._present(found)
        copies = heads.copies(self._blobs)
        if present is not None:
            newer = [c for c in copies if c.serial > present.serial]
            if not newer:
                return present
            damage = f"it is at serial {present.serial}, {newer[-1].name} was written later"
        if not damage:
            return None
        chosen = self._choose(copies, present, found[0] if found else b"", damage)
        if chosen is None:
            return present
        name, content, head = chosen
        if found is not None:
            self._keep("head.json", found[0])
        if self._act:
            self._blobs.swap_head(content, found[1] if found else None)
        self._did(f"head.json is {name} again, serial {head.serial}: {damage}.")
        return head

    def _present(self, found: tuple[bytes, str] | None) -> tuple[Head | None, str]:
        """The head that is there, and what is wrong with one that is not."""
        if found is None:
            return None, "it was missing" if heads.left_without(self._blobs) else ""
        try:
            return seg.decode_head(found[0], self._blobs.describe()), ""
        except seg.FromNewer:
            raise
        except LedgerCorrupt:
            return None, "it was damaged"

    def _choose(
        self, copies: list[heads.Copy], present: Head | None, torn: bytes, damage: str
    ) -> tuple[str, bytes, Head] | None:
        """Name, bytes and content of the one head that can be the newest. None: refused."""
        newest = [c for c in copies if c.serial == copies[-1].serial] if copies else []
        readable = [(c.name, self._blobs.read(c.name), h) for c in newest if (h := heads.read(self._blobs, c))]
        if not copies and (other := self._unchanged_since_backup()):
            readable = [other]
        what = f"{self._blobs.describe()}/head.json cannot be put back ({damage}): "
        problem = ""
        if not readable:
            problem = f"{newest[0].name}, its newest copy, is damaged" if newest else "there is no copy of it"
        elif len(readable) > 1 or len(newest) > len(readable):
            named = ", ".join(c.name for c in newest)
            problem = f"of serial {newest[0].serial} there are several copies, and one alone is right: {named}"
        else:
            problem = self._contradiction(readable[0][2], present, torn)
        if problem:
            self._refuse("head.json", f"{what}{problem}.", _NO_HEAD)
            return None
        return readable[0]

    def _contradiction(self, head: Head, present: Head | None, torn: bytes) -> str:
        """Why this head cannot be the newest one, or cannot be used; "" if nothing says so."""
        if present is not None and not heads.descends(head, present):
            return f"serial {present.serial} of head.json is not in its copy's history; two ledgers were mixed"
        serial = re.search(rb'"serial":\s*(\d+)\s*,', torn)
        if present is None and serial and int(serial[1]) > head.serial:
            return f"it was at serial {int(serial[1])}, its newest copy is of serial {head.serial}"
        lineage = re.search(rb'"lineage":\s*"([^"]*)"', torn)
        if lineage and lineage[1].decode("utf-8", "replace") != head.lineage:
            return "its copy is of another ledger"
        damaged = [s.name for s in head.segments if self._problem(s) and self._from_backup(s) is None]
        if damaged:
            return f"{damaged[0]}, which its copy names, is missing or damaged"
        if unknown := self._unknown_results(head):
            return f"{unknown} holds results of a job that its copy does not know, so the copy is too old"
        return ""

    def _unchanged_since_backup(self) -> tuple[str, bytes, Head] | None:
        """The backup's head, if nothing was committed since: a commit leaves a segment, always."""
        found = self._backup.head() if self._backup else None
        if found is None or self._backup is None:
            return None
        try:
            head = seg.decode_head(found[0], self._backup.describe())
        except LedgerCorrupt:
            return None
        named = {s.name for s in head.segments} | {r.name for r in head.retired}
        if set(self._blobs.list(seg.FOLDER)) - named:
            return None
        return f"that of {self._backup.describe()}", found[0], head

    def _unknown_results(self, head: Head) -> str:
        if any(s.kind == "events" and self._problem(s) for s in head.segments):
            return ""
        tags = _control(self._blobs, head).jobs
        names = [n for n in self._blobs.list("archive/") if tag_of_results(n)]
        return next((n for n in names if tag_of_results(n) not in tags), "")

    # --- segments ------------------------------------------------------------------------------------------------

    def _segment(self, segment: Segment) -> bool:
        """Whether a segment is whole, now."""
        problem = self._problem(segment)
        if not problem:
            return True
        source = self._from_backup(segment)
        if source is None:
            where = f" {self._backup.describe()} has no such file, or another." if self._backup else ""
            self._refuse(segment.name, f"{segment.name} {problem}.{where}", RESTORE_FILE)
            return False
        self._replace(segment.name, source)
        self._did(f"{segment.name} {problem}: taken from the backup, with the digest that head.json says.")
        return self._act

    def _problem(self, segment: Segment) -> str:
        try:
            whole = file_digest(self._blobs.local(segment.name)) == segment.sha256
        except FileNotFoundError:
            return "is missing"
        return "" if whole else "is damaged"

    def _from_backup(self, segment: Segment) -> Path | None:
        path = self._in_backup(segment.name)
        return path if path is not None and file_digest(path) == segment.sha256 else None

    def _in_backup(self, name: str) -> Path | None:
        try:
            return self._backup.local(name) if self._backup else None
        except FileNotFoundError:
            return None

    # --- archives and answers ------------------------------------------------------------------------------------

    def _stored(self, head: Head) -> None:
        view = _control(self._blobs, head)
        there = {*self._blobs.list("archive/"), *self._blobs.list("answers/")}
        for name, check, needed in _named(view, there):
            problem = check(self._blobs.local(name)) if name in there else "it is missing"
            if problem:
                self._restore(name, problem, check, needed=needed)
        for name in sorted(n for n in there if n.startswith("answers/")):
            if problem := answers_problem(self._blobs.local(name)):
                self._answers(name, problem)

    def _restore(self, name: str, problem: str, check: Callable[[Path], str], *, needed: str) -> None:
        """An archive is taken from the backup if it is whole there: it is written once and never changed."""
        source = self._in_backup(name)
        if source is not None and not check(source):
            self._replace(name, source)
            self._did(f"{name}: {problem}. Taken from the backup, where it can be read to the end.")
        else:
            hint = "Name a copy of the ledger's folder that has it: `batchform ledger repair --from BACKUP`."
            severity = ERROR if needed else WARNING
            self._report.refused.append(Finding(severity, f"{name}: {problem}.{needed}", hint, name))

    def _answers(self, name: str, problem: str) -> None:
        source = self._in_backup(name)
        if can_be_made_again(self._ledger, name):
            self._set_aside(name)
            self._did(f"{name}: {problem}. Set aside: {AGAIN}")
        elif source is not None and not answers_problem(source):
            self._replace(name, source)
            self._did(f"{name}: {problem}. Taken from the backup, where every value can be read.")
        else:
            self._refuse(name, f"{name}: {problem}. Its archive cannot be read either.", RESTORE_FILE)

    # --- files ---------------------------------------------------------------------------------------------------

    def _replace(self, name: str, source: Path) -> None:
        self._set_aside(name)
        if self._act:
            self._blobs.write_new(name, source)

    def _set_aside(self, name: str) -> None:
        try:
            self._keep(name, self._blobs.local(name))
        except FileNotFoundError:
            return
        if self._act:
            self._blobs.delete(name)

    def _keep(self, name: str, content: bytes | Path) -> None:
        if self._act:
            self._blobs.write_new(f"{FOLDER}{self._when}/{name}", content)


def _control(blobs: Blobs, head: Head) -> ControlView:
    segments = sorted((s for s in head.segments if s.kind == "events"), key=lambda s: s.serial)
    return fold(pair for s in segments for pair in seg.read_events(blobs, s))


def _named(view: ControlView, there: set[str]) -> Iterator[tuple[str, Callable[[Path], str], str]]:
    """Files that cannot be made again: name, how to check it, and what is lost with it."""
    for job in view.jobs.values():
        archive = job.collected.archive if job.collected else None
        if archive:
            lost = (
                "" if job.collected and job.collected.answers in there else f" The answers of job {job.tag} are lost."
            )
            yield archive, blob_problem(archive), lost
        sent = f"archive/{job.tag}.input.jsonl.zst"
        if sent in there:
            yield sent, input_problem, ""
    for requests in view.reruns.values():
        for _, request in requests:
            yield request.chosen, parquet_problem, " The rows that a rerun was asked for are lost."

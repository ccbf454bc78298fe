"""Answers that were paid for elsewhere, in a plan: what the ledger would hold of them, and which rows they answer."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from pathlib import Path

from msgspec import Struct, field
from msgspec.structs import replace

from batchform.ledger.records import AnyEvent, Collected, ControlView, Intent, Submitted, answers_name, archive_name
from batchform.spec.resolved import ResolvedSpec
from batchform.spec.wording import counted, money

IMPORTED = "imported"
"""How a job came to be that batchform did not send."""


class Importing(Struct, frozen=True):
    """One import of a spec. source: its files, for people; lines: that they have; answers: requests that they answer;
    rows: of the plan that take one; used: answers that are taken; skipped: why lines are no answers → how many, with
    places as examples. archive, parsed: bundle-relative files that apply stores. Of a job at the service, asked: digest
    of what the spec says of it; fingerprint, place: of the backend that has it; notes: what is to be known of it."""

    spec: str
    tag: str
    source: str
    lines: int
    answers: int
    rows: int = 0
    used: int = 0
    skipped: Mapping[str, int] = field(default_factory=dict)
    examples: tuple[str, ...] = ()
    parse_digest: str = ""
    archive: str = ""
    parsed: str = ""
    asked: str = ""
    fingerprint: str = ""
    place: str = ""
    notes: tuple[str, ...] = ()
    environment: str = ""  # whose ledger has them; "" for files
    paid_usd: float = 0.0  # what the answers that are taken have cost there


class Elsewhere(Struct, frozen=True):
    """What another environment's ledger holds of a spec. notes: why not more; complete: of what a plan takes (tag → key
    hashes), writes the archives where it is asked to, and returns what the answers have cost there, by tag."""

    environment: str
    importing: tuple[Importing, ...] = ()
    notes: tuple[str, ...] = ()
    complete: Callable[..., Mapping[str, float]] | None = None


def import_events(one: Importing, spec: ResolvedSpec, realm: str, *, at: str, by: str = "") -> list[AnyEvent]:
    """A job that is over: what stands for results that batchform did not ask for. It costs nothing."""
    tag = one.tag
    return [
        Intent(
            at=at, by=by, tag=tag, spec=spec.name, backend=spec.backend_name, fingerprint=one.fingerprint, realm=realm,
            model=spec.model,
            shard_digest=one.asked, rows=one.answers, requests=one.answers, bytes=0, input_name=None, deadline=at,
            place=one.place,
        ),
        Submitted(at=at, by=by, tag=tag, job=one.source, how=IMPORTED),
        Collected(
            at=at, by=by, tag=tag, archive=archive_name(one.tag), answers=answers_name(one.tag, one.parse_digest),
        ),
    ]  # fmt: skip


def import_blobs(one: Importing, bundle: Path) -> dict[str, Path]:
    """Names in the ledger → the files of a bundle."""
    return {archive_name(one.tag): bundle / one.archive, answers_name(one.tag, one.parse_digest): bundle / one.parsed}


def imported_tags(control: ControlView, spec: str) -> tuple[str, ...]:
    """Tags of a spec's imports."""
    return tuple(j.tag for j in control.jobs.values() if j.intent.spec == spec and j.how == IMPORTED)


def with_rows(one: Importing, taken: Mapping[str, Mapping[str, int]]) -> Importing:
    """The import with what the plan takes of it. taken: tag → key hash in the archive → rows."""
    found = taken.get(one.tag, {})
    return replace(one, rows=sum(found.values()), used=len(found))


def completed(
    imports: Collection[Importing],
    elsewhere: Collection[Elsewhere],
    taken: Mapping[str, Mapping[str, int]],
    *,
    archives: bool,
) -> tuple[Importing, ...]:
    """Imports with what the plan takes of them; of other environments, those alone of which it takes any. archives:
    whether the plan will be applied."""
    paid: dict[str, float] = {}
    for one in elsewhere:
        if one.complete is not None:
            paid |= one.complete(taken, archives=archives)
    found = (replace(with_rows(one, taken), paid_usd=paid.get(one.tag, 0.0)) for one in imports)
    return tuple(one for one in found if one.rows or not one.environment)


def imports_words(imports: Collection[Importing]) -> list[str]:
    """A sentence for each import of files, and one for each spec and environment whose answers it takes."""
    words = [f"import {import_words(one)}" for one in imports if not one.environment]
    for environment, spec in dict.fromkeys((one.environment, one.spec) for one in imports if one.environment):
        own = [one for one in imports if (one.environment, one.spec) == (environment, spec)]
        rows, paid = sum(one.rows for one in own), money(sum(one.paid_usd for one in own))
        words.append(
            f"reuse {environment} → {spec}: {counted(rows, 'row')} {'is' if rows == 1 else 'are'} answered by it, for "
            f"nothing ({paid} was paid there, in {counted(len(own), 'job')})"
        )
    return words


def import_words(one: Importing) -> str:
    """`old/results.jsonl → triage: 10 rows are answered by it; 2 of 12 lines are no answers: …`."""
    rows = f"{counted(one.rows, 'row')} {'is' if one.rows == 1 else 'are'} answered by it"
    words = [f"{one.source} → {one.spec}: {rows}"]
    if idle := one.answers - one.used:
        words.append(f"{counted(idle, 'answer')} to requests that no row needs")
    if one.skipped:
        why = ", ".join(f"{count:,} {name}" for name, count in one.skipped.items())
        words.append(f"of {counted(one.lines, 'line')} not used: {why}")
    if one.examples:
        words.append(f"such as {', '.join(one.examples)}")
    words += one.notes
    return "; ".join(words)

"""`apply --approved`: a plan made anew, which goes on only inside what somebody has approved."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec.structs import replace

from batchform.cli.options import Asked
from batchform.errors import StalePlan, UsageError

if TYPE_CHECKING:
    from batchform.cli.wiring import Session
    from batchform.plan.bounds import Envelope
    from batchform.plan.model import Plan
    from batchform.spec.resolved import ResolvedSpec

FOLDER = "approvals"
_LEAST = 16
_AGAIN = "Nothing was sent. Plan again, and have what changed approved: batchform plan --out DIR"


def find_envelope(root: Path, approved: str, where: str | None) -> Envelope:
    """The envelope that `--approved` means: in the summary that it names, or the one with its digest, in `where` or in
    the project's folder `approvals`. Raises UsageError, StalePlan if the file says something else than its digest."""
    from batchform.plan.envelope import envelope_digest
    from batchform.view.summary_file import load_envelope

    named = re.fullmatch(r"(?:sha256:)?([0-9a-f]{1,64})", approved)
    if Path(approved).exists() and where is None:
        found = [(path, load_envelope(path)) for path in [_summary(Path(approved))]]
    elif named is None or len(named[1]) < _LEAST:
        raise UsageError(
            f"--approved {approved}: that is no digest of an approval, and no file",
            hint=f"The plan's summary says it, in {_LEAST} characters or more; or name a plan.json.",
        )
    else:
        places = list(_places(root, where))
        found = [
            (p, e) for p in places for e in [load_envelope(p)] if e.digest.removeprefix("sha256:").startswith(named[1])
        ]
    if not found:
        looked = where or f"{FOLDER}/"
        raise UsageError(
            f"no plan with the approval {approved} is in {looked}",
            hint="Name the summary that was reviewed: --envelope PLAN.JSON, or keep it in the project as "
            f"{FOLDER}/NAME.json.",
        )
    if len({envelope.digest for _, envelope in found}) > 1:
        raise UsageError(f"--approved {approved} means several approvals", hint="Give the whole digest.")
    path, envelope = found[0]
    if envelope_digest(envelope) != envelope.digest:
        raise StalePlan(f"{path} was changed after it was made: it is not what {approved} approved", hint=_AGAIN)
    return envelope


def _places(root: Path, where: str | None) -> Iterator[Path]:
    if where is not None:
        yield _summary(Path(where))
        return
    yield from sorted((root / FOLDER).glob("*.json"))


def _summary(path: Path) -> Path:
    """The plan.json of a folder, or the file itself. Raises UsageError."""
    from batchform.view.summary_file import SUMMARY

    found = path / SUMMARY if path.is_dir() else path
    if not found.is_file():
        raise UsageError(f"{found} is not there", hint="Make one with `batchform plan --out DIR`.")
    return found


def specs_of(session: Session, envelope: Envelope) -> tuple[ResolvedSpec, ...]:
    """The specs that were approved. Raises StalePlan if one is gone, or if others have come to a plan of all."""
    names = {s.name for s in envelope.specs}
    gone = sorted(names - {s.name for s in session.project.specs})
    new = [] if envelope.partial else [s.name for s in session.project.specs if s.name not in names]
    words = [f"spec {name} is gone" for name in gone] + [f"spec {name} was not approved" for name in new]
    if words:
        raise _outside(words)
    return tuple(s for s in session.project.specs if s.name in names)


def asked_by(envelope: Envelope) -> Asked:
    """What the plan that was approved had been asked on the command line."""
    from batchform.plan.changes import parse_changes

    said = [f"{s.name}={s.said}" for s in envelope.specs if s.said]
    return Asked(
        allow=envelope.allowed, reason=envelope.reason, on_change=parse_changes(said, [s.name for s in envelope.specs])
    )


def held_inside(session: Session, envelope: Envelope, plan: Plan, specs: Sequence[ResolvedSpec], approver: str) -> Plan:
    """The plan, to be applied under the envelope. Raises StalePlan with all that lies outside."""
    from batchform.plan.envelope import outside, parts_of
    from batchform.run.approvals import used_under

    parts = {s.name: parts_of(s) for s in specs}
    used = used_under(session.ledger.control(), envelope.digest)
    if grown := outside(envelope, plan, parts, now=session.clock.now(), used=used):
        raise _outside(grown)
    return replace(plan, envelope=envelope, under=envelope.digest, approver=approver)


def _outside(words: Sequence[str]) -> StalePlan:
    return StalePlan(f"outside what was approved: {'; '.join(words)}", hint=_AGAIN)

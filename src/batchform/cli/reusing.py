"""Ledgers of other environments, read for a plan."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from batchform.errors import LedgerCorrupt, SourceError, UsageError
from batchform.spec.remote import is_remote

if TYPE_CHECKING:
    from batchform.cli.wiring import Session
    from batchform.ledger.store import Ledger
    from batchform.plan.importing import Elsewhere
    from batchform.plan.work import ElsewhereOf
    from batchform.spec.resolved import ResolvedSpec


def elsewhere_of(session: Session, environments: tuple[str, ...]) -> ElsewhereOf | None:
    """What reads the ledgers of these environments; None where none of them has another one than this one."""
    ledgers = session.project.ledgers
    own = _place(session, session.project.config.ledger)
    names = [name for name in dict.fromkeys(environments) if _place(session, ledgers[name]) != own]
    if not names:
        return None
    opened: dict[str, Ledger] = {}

    def read(spec: ResolvedSpec, folder: Path) -> list[Elsewhere]:
        from batchform.run.elsewhere import read_elsewhere

        known = set(session.ledger.control().jobs)
        found = []
        for name in names:
            place = _place(session, ledgers[name])
            inside = is_remote(place) or Path(place).is_relative_to(session.root.resolve())
            folders = [folder] if inside else [folder, Path(place)]
            try:
                there = opened.get(name) or opened.setdefault(name, _open(session, name))
                one = read_elsewhere(
                    there, name, spec, known=known, connect=partial(session.connect, *folders), folder=folder,
                    scratch=session.scratch,
                )  # fmt: skip
            except LedgerCorrupt as error:  # not this ledger: a sync goes on, and sends nothing that may be answered
                hint = f"Mend it there, or leave {name} out of `reuse_from`. {error.hint or ''}".strip()
                raise SourceError(f"the ledger of {name} cannot be read: {error.message}", hint=hint) from error
            known |= {importing.tag for importing in one.importing}
            found.append(one)
        return found

    return read


def check_origin(session: Session, name: str) -> None:
    """Refuse an environment whose answers cannot be taken. Raises UsageError."""
    from batchform.spec.wording import suggestion

    ledgers = session.project.ledgers
    if name not in ledgers:
        hint = suggestion(name, list(ledgers), noun="Environments")
        raise UsageError(f"there is no environment {name!r} in {session.project.file.name}", hint=hint)
    if not ledgers[name]:
        hint = "Set the variable that environments." + name + ".ledger names."
        raise UsageError(f"where the ledger of {name} is waits for an environment variable that is not set", hint=hint)
    if _place(session, ledgers[name]) == _place(session, session.project.config.ledger):
        here = session.project.environment or "the file without an environment"
        raise UsageError(f"{name} and {here} have one ledger", hint="Say with --env where the answers are to go.")


def _place(session: Session, ledger: str) -> str:
    return ledger.rstrip("/") if is_remote(ledger) else str((session.root / ledger).resolve())


def _open(session: Session, name: str) -> Ledger:
    """The ledger of an environment, which is only read."""
    from batchform.adapters.local_blobs import LocalBlobs
    from batchform.ledger.store import Ledger

    place = session.project.ledgers[name]
    blobs = (
        session.copy_of_ledger(place)
        if is_remote(place)
        else LocalBlobs((session.root / place).resolve(), described=place)
    )
    ledger = Ledger.open(blobs, clock=session.clock, who=session.who)
    ledger.stores = session.stores
    return ledger

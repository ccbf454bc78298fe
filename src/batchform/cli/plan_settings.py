"""What a plan depends on besides files, rows and ledger, gathered from the session and the command line."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from batchform import __version__
from batchform.plan.bounds import Spare
from batchform.plan.sent import earlier_request
from batchform.plan.work import Settings

if TYPE_CHECKING:
    from pathlib import Path

    from batchform.cli.options import Asked
    from batchform.cli.wiring import Session
    from batchform.plan.counting import Counting
    from batchform.plan.importing import Importing
    from batchform.plan.work import ElsewhereOf, Imports
    from batchform.spec.resolved import ResolvedSpec

LEFT_OUT: Final = "not answered there: promote sends nothing"


def settings_of(
    session: Session, specs: Sequence[ResolvedSpec], asked: Asked, *, purpose: str, wave_of: str
) -> Settings:
    """The settings of a plan of these specs."""
    own = session.project.config.approval
    return Settings(
        registry=session.registry,
        now=session.clock.now(),
        batchform_version=__version__,
        allow=frozenset(asked.allow),
        on_change=asked.on_change,
        reason=asked.reason,
        spare=Spare(own.valid, own.percent, own.rows),
        purpose=purpose,
        selected=tuple(s.name for s in specs),
        partial=len(specs) < len(session.project.specs),
        before=lambda tag, key_hex: earlier_request(session.ledger, tag, key_hex),
        wave_of=wave_of,
        imports=_imports(session) if purpose == "apply" else None,
        elsewhere=_elsewhere(session, asked) if purpose != "settle" else None,
        waiting={s.name: LEFT_OUT for s in specs} if purpose == "promote" else {},
        counting=_counting(session) if session.count and purpose == "apply" else None,
    )


def _elsewhere(session: Session, asked: Asked) -> ElsewhereOf | None:
    names = (asked.promoted,) if asked.promoted else tuple(session.project.config.reuse_from)
    if not names:
        return None
    from batchform.cli.reusing import elsewhere_of

    return elsewhere_of(session, names)


def _imports(session: Session) -> Imports:
    def read(spec: ResolvedSpec, folder: Path) -> list[Importing]:
        from batchform.cli.importing import imports_of

        return imports_of(session, spec, folder)

    return read


def _counting(session: Session) -> Counting:
    """Counts by the backend of each spec, remembered beside what else is."""
    from batchform.adapters.token_counts import TokenCounts
    from batchform.plan.counting import Counting, Told
    from batchform.run.counting import count_requests

    known = TokenCounts(session.cache)

    def counter(spec: ResolvedSpec, requests: Sequence[bytes]) -> Told:
        return count_requests(
            spec, requests, backend=lambda: session.backends(spec.backend_name), known=known, clock=session.clock
        )

    return Counting(session.count, counter)

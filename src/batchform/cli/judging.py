"""What `validate` does, for the command line and for Python alike: everything that can be judged offline."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from msgspec import Struct

from batchform.spec.remote import is_remote

if TYPE_CHECKING:
    from batchform.cli.wiring import Session
    from batchform.errors import Diagnostic
    from batchform.spec.resolved import ResolvedSpec


class Judged(Struct, frozen=True):
    """A project without errors. specs: their names; warnings: about files and rows."""

    specs: tuple[str, ...]
    warnings: tuple[Diagnostic, ...]


def judge_project(session: Session, *, sample: int | None, unchecked: Callable[[str, str], None]) -> Judged:
    """Judge files, models, and rows once those are right. sample: render only so many rows of each spec; unchecked: is
    told each spec whose rows are not on this machine, and why. Raises InvalidProject with all complaints."""
    from batchform.errors import InvalidProject
    from batchform.plan.build import judge_models

    found = judge_models(session.project.specs, session.registry, session.clock.now())
    complaints = [*session.project.warnings, *found]
    if sample != 0 and not any(c.severity == "error" for c in complaints):
        complaints += _judged_rows(session, sample, unchecked)
    if any(c.severity == "error" for c in complaints):
        raise InvalidProject(complaints)
    return Judged(tuple(s.name for s in session.project.specs), tuple(complaints))


def _judged_rows(session: Session, sample: int | None, unchecked: Callable[[str, str], None]) -> list[Diagnostic]:
    """Complaints about rows, of all specs whose rows are here. With a ledger elsewhere every row counts as new."""
    from batchform.plan.judge_rows import judge_rows

    found: list[Diagnostic] = []
    session.offline = True
    for spec in session.project.specs:
        if why := _away(session, spec):
            unchecked(spec.name, why)
            continue
        (work,) = session.work([spec])
        found += judge_rows(work, session.ledger_at_hand, session.settings([spec]), most=sample)
    return found


def _away(session: Session, spec: ResolvedSpec) -> str:
    """Why the rows of a spec cannot be looked at without a network; "" when they can."""
    from batchform.adapters.sources.paths import look
    from batchform.errors import SourceError
    from batchform.spec.lint import source_paths

    if spec.upstream is not None:
        return _unanswered(session, spec.upstream)
    paths = [path for _, path in source_paths(spec.spec)]
    if not paths or any(is_remote(path) for path in paths):
        return "they are not on this machine"
    try:
        look(paths, root=session.root, allow=session.allowed)
    except SourceError as error:
        return error.message
    return ""


def _unanswered(session: Session, upstream: str) -> str:
    """Why there are no answers of a spec to be looked at as rows; "" when there are."""
    if is_remote(session.project.config.ledger):
        return f"they are answers of {upstream}, in a ledger that is not on this machine"
    return "" if upstream in session.ledger.specs() else f"{upstream}, whose answers they are, has none yet"

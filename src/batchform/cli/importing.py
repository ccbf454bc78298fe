"""Result files that specs import, read for a plan."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from batchform.errors import SourceError

if TYPE_CHECKING:
    from batchform.cli.wiring import Session
    from batchform.plan.importing import Importing
    from batchform.spec.resolved import ResolvedSpec


def imports_of(session: Session, spec: ResolvedSpec, folder: Path) -> list[Importing]:
    """What a spec's imports hold that the ledger does not have yet. folder: where archive and answers are written."""
    from batchform.run.imported import import_tag, read_import

    found: list[Importing] = []
    known = session.ledger.control().jobs
    for i, asked in enumerate(spec.spec.import_):
        results, described = _files(session, spec, asked.results, f"import.{i}.results")
        requests, _ = _files(session, spec, asked.requests, f"import.{i}.requests")
        tag = import_tag(spec, results, requests)
        if tag in known or any(tag == one.tag for one in found):
            continue
        found.append(
            read_import(spec, tag, described, results, requests, connect=lambda: session.connect(folder), folder=folder)
        )
    return found


def _files(session: Session, spec: ResolvedSpec, patterns: str | list[str] | None, at: str) -> tuple[list[Path], str]:
    """Local files, and what they are called."""
    from batchform.adapters.sources.paths import describe, expand
    from batchform.cli.places import remote_for
    from batchform.spec.model import FileSource

    if patterns is None:
        return [], ""
    there = FileSource(type="jsonl", path=patterns)
    try:
        files = expand(patterns, root=session.root, allow=session.allowed, remote=remote_for(session, there))
    except SourceError as error:
        error.place = error.place or spec.at(at)
        raise
    return [f.path for f in files], describe(files, patterns)

"""Result files and jobs that specs import, read for a plan."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import Struct
from msgspec.structs import replace

from batchform.errors import BatchformError, SourceError
from batchform.spec.lint_imports import VERTEX_JOB
from batchform.spec.realm import cloud_of, realm_of

if TYPE_CHECKING:
    from batchform.cli.wiring import Session
    from batchform.plan.importing import Importing
    from batchform.ports import Backend
    from batchform.run.foreign import ForeignJob
    from batchform.spec.resolved import ResolvedSpec


def imports_of(session: Session, spec: ResolvedSpec, folder: Path) -> list[Importing]:
    """What a spec's imports hold that the ledger does not have yet. folder: where archive and answers are written."""
    from batchform.run.imported import read_import

    found: list[Importing] = []
    known = session.ledger.control().jobs
    for i, asked in enumerate(spec.spec.import_):
        for read in _jobs(session, spec, i) if asked.jobs else [_result_files(session, spec, i)]:
            if read.tag in known or any(read.tag == one.tag for one in found):
                continue
            one = read_import(
                spec, read.tag, read.described, read.results, read.requests,
                connect=lambda: session.connect(folder), folder=folder,
            )  # fmt: skip
            found.append(read.completed(one))
    return found


class _Read(Struct, frozen=True):
    """Results on this machine. described: what they are called; job: whose they are; asked: what the spec says."""

    tag: str
    described: str
    results: list[Path]
    requests: list[Path]
    job: ForeignJob | None = None
    asked: str = ""
    notes: tuple[str, ...] = ()

    def completed(self, one: Importing) -> Importing:
        if self.job is None:
            return one
        return replace(one, asked=self.asked, fingerprint=self.job.fingerprint, place=self.job.place, notes=self.notes)


def _result_files(session: Session, spec: ResolvedSpec, i: int) -> _Read:
    from batchform.run.imported import import_tag

    asked = spec.spec.import_[i]
    results, described = _files(session, spec, asked.results, f"import.{i}.results")
    requests, _ = _files(session, spec, asked.requests, f"import.{i}.requests")
    return _Read(import_tag(spec, results, requests), described, results, requests)


def _jobs(session: Session, spec: ResolvedSpec, i: int) -> Iterator[_Read]:
    """Jobs at the service that one import names, but for those that are recorded."""
    from batchform.run.foreign import asked_of_job, is_recorded, read_job, refuse_own, results_of
    from batchform.run.imported import import_tag

    said, control = spec.spec.import_[i], session.ledger.control()
    for name in said.jobs:
        asked = asked_of_job(spec, name, said.requests)
        if is_recorded(control, spec.name, asked):
            continue
        given, _ = _files(session, spec, said.requests, f"import.{i}.requests")
        try:
            refuse_own(control, name)
            job, folder = read_job(
                partial(_backend, session, spec, name), name,
                known_as=(spec.backend_name, realm_of(spec.backend)), cache=session.cache, control=control,
            )  # fmt: skip
            results, requests, notes = results_of(job, folder, spec, given)
        except BatchformError as error:
            error.place = error.place or spec.at(f"import.{i}.job")
            raise
        notes += (job.short,) if job.short else ()
        yield _Read(import_tag(spec, results, requests, job=name), name, results, requests, job, asked, notes)


def _backend(session: Session, spec: ResolvedSpec, job: str) -> Backend:
    """The spec's backend where a job of this name can be. Raises SourceError."""
    vertex = VERTEX_JOB.fullmatch(job)
    if (vertex is not None) != (cloud_of(spec.backend) == "vertex"):
        which = "Vertex AI" if vertex else "the Gemini API"
        raise SourceError(
            f"{job} is a job of {which}, and backend {spec.backend_name} is not",
            hint="Name the results as files; or give the spec a backend that has the job.",
        )
    backend = session.backends(spec.backend_name)
    return backend.at(vertex["place"]) if vertex else backend


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

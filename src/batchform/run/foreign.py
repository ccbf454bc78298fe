"""Jobs that somebody else made, read once they have ended: their results, and what they were sent."""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec

from batchform.canon import digest_of, file_digest, short
from batchform.errors import NotFound, SourceError
from batchform.ledger.records import ControlView
from batchform.plan.importing import IMPORTED
from batchform.ports import Backend, RemoteJob
from batchform.run.parse import decode_line
from batchform.spec.resolved import ResolvedSpec
from batchform.spec.wording import counted

_SEEN: Final = "job.json"
_RESULTS: Final = "results.jsonl"
_REQUESTS: Final = "requests.jsonl"


class ForeignJob(msgspec.Struct, frozen=True):
    """An ended job of somebody else. results, requests: digests of the files beside; sent: sha256 of what it was sent,
    in hex, "" where that is not known; fingerprint, place: of the backend that has it; short: what is missing of the
    results, in words."""

    name: str
    state: str
    model: str
    error: str
    results: str
    requests: str
    sent: str
    fingerprint: str
    place: str
    short: str = ""


def asked_of_job(spec: ResolvedSpec, job: str, requests: str | list[str] | None) -> str:
    """What a spec says of a job that it imports: when that is recorded, nobody is asked again."""
    return digest_of("import-job", [job, spec.model, spec.backend_name, requests])


def is_recorded(control: ControlView, spec: str, asked: str) -> bool:
    """Whether a spec has recorded an import of these words."""
    jobs = control.jobs.values()
    return any(j.how == IMPORTED and j.intent.spec == spec and j.intent.shard_digest == asked for j in jobs)


def refuse_own(control: ControlView, name: str, tag: str = "") -> None:
    """Raises SourceError for a job that this very ledger waits for: its results come by themselves."""
    for known in control.jobs.values():
        if known.open and (known.job == name or (tag and known.tag == tag)):
            raise SourceError(
                f"{name} is the job {known.tag} of this ledger, which waits for its results",
                hint="batchform sync --wait",
            )


def read_job(
    backend: Callable[[], Backend], name: str, *, known_as: Sequence[str], cache: Path, control: ControlView
) -> tuple[ForeignJob, Path]:
    """An ended job, and the folder with its results and, where the service gives them back, its requests.

    backend: opened only for what the cache does not have; known_as: what tells the job from others of its name; cache:
    of the project. Raises SourceError for a job that is not there, still runs, or whose results are gone; BackendError.
    """
    folder = cache / "jobs" / short(digest_of("job", [name, *known_as]), 32)
    if (kept := _kept(folder)) is not None:
        return kept, folder
    service = backend()
    try:
        job = service.get(name)
    except NotFound as error:
        raise SourceError(
            f"the backend does not find job {name} ({error.message})",
            hint="A job is seen by the key or project that made it, until it is deleted: name the backend of those, "
            "or the results as files.",
        ) from None
    refuse_own(control, name, job.tag)
    if not job.terminal:
        raise SourceError(
            f"{name} is {job.state}: the rows that it is answering would be paid for twice",
            hint="Plan again when it has ended, or remove the line if none of its requests is a row's.",
        )
    own = folder.with_name(f"{folder.name}.{secrets.token_hex(4)}")
    own.mkdir(parents=True)
    try:
        results, requests = own / _RESULTS, own / _REQUESTS
        results.touch()
        requests.touch()
        if job.results is not None:
            try:
                service.download_foreign(job, results, requests=requests)
            except NotFound as error:
                raise SourceError(
                    f"the results of {name} are no longer at the service ({error.message})",
                    hint="Name copies of them under `results:`, if there are any, or remove the line.",
                ) from None
        found = ForeignJob(
            name=name, state=job.state, model=job.model, error=job.error, results=file_digest(results),
            requests=file_digest(requests), sent=service.input_digest(job) if job.results else "",
            fingerprint=service.fingerprint, place=service.place, short=_short(job, results),
        )  # fmt: skip
        if not found.short:  # else it is read anew by the next plan
            (own / _SEEN).write_bytes(msgspec.json.encode(found))
        shutil.rmtree(folder, ignore_errors=True)
        with suppress(OSError):  # another plan was faster, with the same
            own.rename(folder)
    finally:
        shutil.rmtree(own, ignore_errors=True)
    return found, folder


def _short(job: RemoteJob, results: Path) -> str:
    """What a job says that it has and its results do not hold, as they may do right after its end; "" if nothing."""
    wanted = job.counts.get("total" if job.state == "SUCCEEDED" else "succeeded", 0)
    with results.open("rb") as lines:
        there = sum(1 for line in lines if line.strip())
    return f"{there:,} of its {counted(wanted, 'result')} are there, others may still come" if there < wanted else ""


def _kept(folder: Path) -> ForeignJob | None:
    """What the cache has of a job, whole; None if it has not."""
    try:
        found = msgspec.json.decode((folder / _SEEN).read_bytes(), type=ForeignJob)
        held = (file_digest(folder / _RESULTS), file_digest(folder / _REQUESTS))
    except (OSError, msgspec.MsgspecError):
        return None
    return found if held == (found.results, found.requests) else None


def results_of(
    job: ForeignJob, folder: Path, spec: ResolvedSpec, asked: Sequence[Path]
) -> tuple[list[Path], list[Path], tuple[str, ...]]:
    """Files of a job's results and of what it was sent, and what is to be known of them.

    asked: files that the spec names as what was sent. Raises SourceError where it is not known what was sent, and where
    it was something else.
    """
    from batchform.run.imported import is_model

    results, requests = folder / _RESULTS, folder / _REQUESTS
    if not results.stat().st_size:
        why = f", {job.error}" if job.error else ""
        return [], [], (f"the job ended {job.state} without results{why}",)
    if job.model and not is_model(job.model, spec.model):
        return [], [], (f"it is a job of {job.model}, and the spec asks {spec.model}",)
    if requests.stat().st_size:
        return [results], [requests], ()
    with results.open("rb") as lines:
        first = decode_line(next(lines))
    if isinstance(first, dict) and first.get("request"):
        return [results], list(asked), ()
    if not asked:
        raise SourceError(
            f"the results of {job.name} do not repeat what it was sent, and the Gemini API does not give inputs back",
            hint="Say `requests:` which file was uploaded: lines of `key` and `request`.",
        )
    if not job.sent:
        return [results], list(asked), ("whether `requests` is what it was sent, the service does not tell",)
    same = [p for p in asked if file_digest(p).rpartition(":")[2] == job.sent]
    if not same:
        raise SourceError(
            f"`requests` is not what {job.name} was sent: {counted(len(asked), 'file')}, none with that content",
            hint="Its results tell their requests by key: name the very file that was uploaded.",
        )
    return [results], same, ()

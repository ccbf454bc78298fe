"""Raw results and parsed answers beside the segments: there, and readable to the end."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from batchform.errors import BatchformError
from batchform.ledger import segments as seg
from batchform.ledger.findings import ERROR, FROM_BACKUP, REPAIR, SYNC, WARNING, Finding
from batchform.ledger.raw import raw_results, reference_problem, restore, results_problem
from batchform.ledger.records import Collected, ControlView, JobRecord
from batchform.ledger.stored import AGAIN, answers_problem, input_problem, parquet_problem

if TYPE_CHECKING:
    from batchform.ledger.store import Ledger

_ASIDE: Final = f"`{REPAIR}` sets it aside, then {AGAIN}"
_TAKE: Final = f"`{FROM_BACKUP}` takes it from a copy of the ledger's folder."


def check_blobs(ledger: Ledger, view: ControlView) -> Iterator[Finding]:
    """What collected jobs and requested reruns name, and what was sent. Each file is read once, as a stream."""
    there = {*ledger.blobs.list("archive/"), *ledger.blobs.list("answers/")}
    for job in view.jobs.values():
        if job.collected:
            yield from _of_job(ledger, job, job.collected, there)
        sent = f"archive/{job.tag}.input.jsonl.zst"
        if sent in there and (problem := input_problem(ledger.blob(sent))):
            text = f"{sent} is damaged: {problem}. What was sent to job {job.tag} cannot be shown any more."
            yield Finding(WARNING, text, f"Nothing else is lost. {_TAKE}", sent, FROM_BACKUP)
    for keys in (name for moves in view.keys.values() for _, name in moves):
        if problem := "it is missing" if keys not in there else parquet_problem(ledger.blob(keys)):
            text = f"{keys}, which tells what keys rows had before, cannot be read: {problem}."
            yield Finding(ERROR, text, _TAKE, keys, FROM_BACKUP)
    for requests in view.reruns.values():
        for _, request in requests:
            yield from _of_rerun(ledger, request.chosen, there)


def _of_job(ledger: Ledger, job: JobRecord, collected: Collected, there: set[str]) -> Iterator[Finding]:
    archive, answers = collected.archive, collected.answers
    broken, unasked = _broken(ledger, archive) if archive in there and archive else ("", "")
    replayable = archive in there and not broken
    unread = answers_problem(ledger.blob(answers)) if answers in there and answers else ""
    readable = answers in there and not unread
    if archive and unasked:
        text = f"Whether the results of job {job.tag} are where they were is not known: {unasked}"
        yield Finding(WARNING, text, "Run it again where they can be read.", archive)
    if archive and broken and not archive.endswith(".gz"):
        yield _moved(ledger, job, archive, broken, readable=readable)
    elif archive and broken:
        lost = "Its answers are there; they cannot be parsed anew." if readable else "Its answers are lost with it."
        text = f"{archive} is damaged: {broken}. It holds the raw results of job {job.tag}. {lost}"
        yield Finding(ERROR, text, _TAKE, archive, FROM_BACKUP)
    elif archive and archive not in there and not readable:
        text = f"The answers of job {job.tag} are gone: {archive} is missing."
        yield Finding(ERROR, text, _TAKE, archive, FROM_BACKUP)
    elif archive and archive not in there:
        text = f"{archive} is missing: answers of job {job.tag} cannot be parsed anew."
        yield Finding(WARNING, text, f"Fine if its retention has ended; else {_TAKE}", archive, FROM_BACKUP)
    if answers and unread:
        way_out = (_ASIDE, f"{REPAIR} && {SYNC}") if replayable else (_TAKE, FROM_BACKUP)
        yield Finding(ERROR, f"{answers} is damaged: {unread}.", way_out[0], answers, way_out[1])
    elif answers and answers not in there and replayable:
        yield Finding(WARNING, f"{answers} is missing.", AGAIN, answers, SYNC)


def _broken(ledger: Ledger, archive: str) -> tuple[str, str]:
    """What is wrong with raw results, and why that cannot be told."""
    try:
        return results_problem(ledger, archive), ""
    except BatchformError as error:
        return "", error.message


def _moved(ledger: Ledger, job: JobRecord, archive: str, broken: str, *, readable: bool) -> Finding:
    """Results that stayed in their bucket are not what they were."""
    lost = "Its answers are there; they cannot be parsed anew." if readable else "Its answers are lost with it."
    text = f"The raw results of job {job.tag} cannot be read: {broken}. {lost}"
    if reference_problem(ledger.blob(archive)):
        return Finding(ERROR, text, _TAKE, archive, FROM_BACKUP)
    hint = restore(raw_results(ledger, job.tag))
    if readable:
        return Finding(WARNING, text, f"Fine if a rule of the bucket deletes them; else: {hint}", archive)
    return Finding(ERROR, text, hint, archive)


def _of_rerun(ledger: Ledger, name: str, there: set[str]) -> Iterator[Finding]:
    problem = parquet_problem(ledger.blob(name)) if name in there else "it is missing"
    if problem:
        text = f"{name}, the rows that a rerun was asked for, cannot be read: {problem}."
        yield Finding(ERROR, text, f"{_TAKE} {seg.RESTORE}", name, FROM_BACKUP)

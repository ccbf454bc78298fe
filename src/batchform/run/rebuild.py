"""Answers that are missing or damaged, made again from the archived results: nothing is lost, nothing is paid for.

A job's answers lie under the digest of how they were read. What the spec reads alike is made again as it was. What it
reads otherwise by now is read as it says now, and recorded, as after any change of the spec.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from batchform.ledger.raw import results_missing
from batchform.ledger.records import JobRecord, answers_name
from batchform.ledger.stored import DamagedAnswers, can_be_made_again, is_whole
from batchform.ports import Delivered
from batchform.rows.sql import literal
from batchform.run.context import RunContext
from batchform.run.reparse import answers_of, reparse
from batchform.spec.resolved import ResolvedSpec


def rebuild_answers(ctx: RunContext, specs: Sequence[ResolvedSpec]) -> None:
    """Make lost answers of these specs again, where the archive has them. Quick when nothing is lost.

    What has no archive is left to `batchform ledger verify` and to whoever needs it, who say so.
    """
    for spec in specs:
        lost, otherwise = _lost(ctx, spec)
        if otherwise:
            reparse(ctx, spec)
            lost = [r for r in (*lost, *otherwise) if not is_whole(ctx.ledger, answers_name(r.tag, spec.parse_digest))]
        if lost:
            _rebuild(ctx, spec, lost)
        for record in (*lost, *otherwise):
            ctx.progress.note(f"The answers of job {record.tag} were lost: they are made again from its results.")


def deliver_mended(ctx: RunContext, spec: ResolvedSpec) -> Delivered | None:
    """Deliver; answers that turn out to be damaged inside are set aside and made again first, if they can be."""
    mended: set[str] = set()
    while True:
        try:
            return ctx.deliver(ctx, spec)
        except DamagedAnswers as error:
            if error.name in mended or not can_be_made_again(ctx.ledger, error.name):
                raise
            mended.add(error.name)
            ctx.ledger.set_aside(error.name)
            rebuild_answers(ctx, [spec])


def _lost(ctx: RunContext, spec: ResolvedSpec) -> tuple[list[JobRecord], list[JobRecord]]:
    """Jobs whose answers are gone although their results are archived: read as the spec says, and read otherwise."""
    ledger = ctx.ledger
    lost, otherwise, elsewhere = [], [], []
    for record in ledger.control().jobs.values():
        recorded = record.collected.answers if record.collected else None
        if record.intent.spec != spec.name or recorded is None:
            continue
        current = answers_name(record.tag, spec.parse_digest)
        if is_whole(ledger, current) or results_missing(ledger, record.tag):
            continue
        if recorded == current or ledger.has_blob(current):
            lost.append(record)
        elif not is_whole(ledger, recorded):
            otherwise.append(record)
        else:
            elsewhere.append(record)
    if elsewhere:
        held = _held(ctx, spec)
        lost += [r for r in elsewhere if r.tag in held]
    return lost, otherwise


def _held(ctx: RunContext, spec: ResolvedSpec) -> set[str]:
    """Tags of jobs whose answers rows hold as the spec reads them now."""
    with closing(ctx.connect()) as con:
        rows = ctx.ledger.rows_relation(con, spec.name)
        found = con.execute(
            f"SELECT DISTINCT answer_tag FROM {rows} WHERE parse_digest = {literal(spec.parse_digest)}"
        ).fetchall()
    return {str(tag) for (tag,) in found}


def _rebuild(ctx: RunContext, spec: ResolvedSpec, lost: Sequence[JobRecord]) -> None:
    folder = Path(ctx.work_dir) / f"rebuild-{spec.name}"
    folder.mkdir(parents=True, exist_ok=True)
    try:
        for record in lost:
            with closing(ctx.connect()) as con:
                answers_of(ctx, con, spec, record.tag, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)

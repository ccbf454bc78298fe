"""Inputs that lie at a service, which keeps so many bytes of them: those of settled jobs make room for the next."""

from __future__ import annotations

from datetime import datetime, timedelta

from batchform.errors import BatchformError
from batchform.ledger.records import InputDeleted, JobRecord
from batchform.run.context import RunContext, parse_stamp
from batchform.run.row_states import waiting_rows
from batchform.run.settle import surely_none
from batchform.spec.realm import cloud_of
from batchform.spec.service_limits import laid_over


def clean_up(ctx: RunContext) -> None:
    """Delete uploaded inputs of settled jobs that no open job shares, and context caches that none names. A failure is
    told and tried by the next run."""
    jobs = ctx.ledger.control().jobs.values()
    in_use = {r.intent.input_name for r in jobs if r.open}
    gone: list[InputDeleted] = []
    for record in jobs:
        name, backend = record.intent.input_name, record.intent.backend
        if name is None or name in in_use or record.input_deleted or record.open or record.intent.resumes:
            continue  # the input of a job that was resumed is what an earlier one wrote: nothing of ours to delete
        if may_turn_up(ctx, record):
            continue
        try:
            there = ctx.backend_of(record.intent)
            if not ctx.settings(backend).cleanup or there.fingerprint != record.intent.fingerprint:
                continue
            there.delete_input(name)
        except BatchformError as error:
            ctx.progress.note(f"Input {name} of {record.tag} could not be deleted, the next run tries again: {error}")
            continue
        gone.append(InputDeleted(at=ctx.now(), by=ctx.who, tag=record.tag, input_name=name))
    if gone:
        ctx.ledger.commit(gone)
    if any(record.intent.cache is not None for record in jobs):
        from batchform.run.caches import drop_caches

        drop_caches(ctx)


def may_turn_up(ctx: RunContext, record: JobRecord) -> bool:
    """Whether a job may turn up that reads its input: it was taken for lost, and its rows are with no other job yet."""
    lost = record.status == "not_submitted" and not surely_none(record)
    return lost and waiting_rows(ctx, record.intent.spec, record.tag) > 0


def keeps_more(ctx: RunContext, backend: str, size: int) -> bool:
    """Whether a service keeps an input of so many bytes beside those that the ledger knows there."""
    limits = laid_over(ctx.project.root, ctx.project.config.prices)
    service = limits.vertex if cloud_of(ctx.settings(backend)) == "vertex" else limits.service
    if service.max_storage_bytes is None:
        return True
    since = ctx.clock.now() - timedelta(hours=limits.service.input_kept_hours)
    return _there(ctx, backend, since) + size <= service.max_storage_bytes


def _there(ctx: RunContext, backend: str, since: datetime) -> int:
    """Bytes of the inputs of this credential that were not deleted and did not expire."""
    fingerprint, sizes = ctx.backend(backend).fingerprint, dict[str, int]()
    for record in ctx.ledger.control().jobs.values():
        intent = record.intent
        same = intent.backend == backend and intent.fingerprint == fingerprint
        if same and intent.input_name and not record.input_deleted and parse_stamp(intent.at) > since:
            sizes[intent.input_name] = intent.bytes
    return sum(sizes.values())

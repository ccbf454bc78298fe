"""Whose a job is. Two ledgers may send the very same rows with the same credential: two clones of one project do.

Each job's tag holds a mark of its ledger, also when it was planned before there was a ledger. Each staged input has a
name made of the whole lineage. What neither tells is nobody's: it is not cancelled, and not adopted but by a person.
"""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

from msgspec.structs import replace

from batchform.ledger.records import Intent, bears_mark, with_mark
from batchform.plan.model import Plan, Shard
from batchform.ports import RemoteJob
from batchform.rows.sql import literal
from batchform.run.context import RunContext
from batchform.run.row_states import write_states


def is_ours(lineage: str, intent: Intent, job: RemoteJob) -> bool:
    """Whether a job was surely made for an intent of the ledger of this lineage."""
    if intent.input_name and job.input_name == intent.input_name:
        return True
    return job.tag == intent.tag and bears_mark(job.tag, lineage)


def is_anothers(lineage: str, intent: Intent, job: RemoteJob) -> bool:
    """Whether a job that has an intent's tag was surely made by another ledger."""
    named = intent.input_name and job.input_name
    return bool(named) and not is_ours(lineage, intent, job)


def mark_shards(ctx: RunContext, plan: Plan, bundle: Path) -> Plan:
    """The plan with this ledger's mark in every tag. The ledger is begun if there is none yet.

    The bundle stays as it is: row states of shards that were planned without a mark are written anew for this run.
    """
    if any(s.shards for s in plan.specs) and not ctx.ledger.lineage:
        ctx.ledger.commit([])
    lineage = ctx.ledger.lineage
    specs = [
        replace(s, shards=tuple(x if bears_mark(x.tag, lineage) else _marked(ctx, x, bundle) for x in s.shards))
        for s in plan.specs
    ]
    return replace(plan, specs=tuple(specs))


def _marked(ctx: RunContext, shard: Shard, bundle: Path) -> Shard:
    tag = with_mark(shard.tag, ctx.ledger.lineage)
    to = ctx.work_dir / f"{tag}.rows.parquet"
    with closing(ctx.connect()) as con:
        write_states(con, {"tag": literal(tag)}, f"read_parquet({literal(str(bundle / shard.rows_path))}) r", to)
    return replace(shard, tag=tag, rows_path=str(to))  # absolute: it is not of the bundle

"""What a run reports, handed on to what a person sees."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from io import StringIO

from batchform.ledger.records import Collected, JobRecord
from batchform.plan.model import Shard
from batchform.ports import Delivered, RemoteJob
from batchform.view.progress import Progress, make_progress


class RunProgress:
    """run.context.Progress over view.progress.Progress."""

    def __init__(self, shown: Progress) -> None:
        self._shown = shown

    def staged(self, spec: str, shard: Shard) -> None:
        self._shown.staged(spec, shard.index, shard.index + 1, shard.bytes)

    def submitted(self, record: JobRecord, how: str) -> None:
        self._shown.submitted(record.intent.spec, record.tag, record.job or "")
        if how == "adopted":
            self._shown.note(f"{record.tag}: the job was found by its tag and adopted")

    def state(self, record: JobRecord, remote: RemoteJob) -> None:
        done = remote.counts.get("succeeded", 0) + remote.counts.get("failed", 0)
        self._shown.state(record.tag, remote.state, done, remote.counts.get("total", record.intent.requests))

    def collected(self, record: JobRecord, collected: Collected) -> None:
        self._shown.collected(record.tag, collected.rows, collected.usd)

    def delivered(self, spec: str, delivered: Delivered) -> None:
        self._shown.delivered(spec, delivered.rows, delivered.location)

    def note(self, message: str) -> None:
        self._shown.note(message)


@contextmanager
def run_progress(*, silent: bool) -> Iterator[RunProgress]:
    """Progress on standard error, so that standard output holds results only; nowhere when silent."""
    with make_progress(StringIO() if silent else sys.stderr) as shown:
        yield RunProgress(shown)

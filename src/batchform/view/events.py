"""What a run does as JSON, one object a line, while it happens: for programs that watch (docs/ci.md has the table)."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import IO, Any, Final

from batchform import __version__
from batchform.errors import BatchformError, as_json
from batchform.ledger.records import Collected, JobRecord
from batchform.plan.model import Plan, Shard, Verdict
from batchform.ports import Delivered, RemoteJob
from batchform.run.outcome import Outcome
from batchform.spec.wording import counted, money
from batchform.view.outcome import outcome_json, outcome_lines
from batchform.view.progress import LineProgress
from batchform.view.summary import sum_line

FORMAT: Final = 1
TYPES: Final[Mapping[str, str]] = {
    "version": "always first: `format` of the stream, `batchform`'s version, the `command`",
    "spec": "of `plan`, for each spec: `spec`, `rows` to send, `usd`, rows by `actions`, limits that `held` it",
    "planned": "what will be sent: the plan's `digest`, `rows`, `usd`; of `plan` the last, with `held` and `exit_code`",
    "staged": "the input of a job is uploaded: `spec`, `tag`, `rows`",
    "submitted": "a job exists: `spec`, `tag`, `job`, and `how` (`created` or `adopted`)",
    "state": "a job was looked at, and is further: `spec`, `tag`, `state`",
    "collected": "results are archived and read: `spec`, `tag`, `rows` by class, `usd`",
    "delivered": "a destination was written: `spec`, `rows`, `location`",
    "note": "something a person should know, that stops nothing",
    "outcome": "last, unless there was none: `outcome` as `--json` prints it, `exit_code`",
    "error": "last, where the run ended before it had an outcome: `error` as `--json` prints it, `exit_code`",
}


class Events(LineProgress):
    """Each line has `type`, `at` (RFC 3339, UTC) and `message`, a sentence. Further fields may come with time."""

    def __init__(
        self, stream: IO[str], command: str, *, now: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        super().__init__(stream)
        self._now = now
        self._kind, self._fields = "note", dict[str, Any]()
        self.emit("version", f"batchform {__version__}", format=FORMAT, batchform=__version__, command=command)

    def emit(self, kind: str, message: str, **fields: Any) -> None:
        at = self._now().isoformat(timespec="milliseconds").replace("+00:00", "Z")
        self._stream.write(
            json.dumps({"type": kind, "at": at, "message": message, **fields}, ensure_ascii=False) + "\n"
        )
        self._stream.flush()

    def planned(self, plan: Plan, **fields: Any) -> None:
        usd = plan.cost.expected
        self.emit("planned", sum_line(plan), digest=plan.digest, rows=plan.rows_to_send, usd=usd, **fields)

    def whole_plan(self, plan: Plan, *, exit_code: int) -> None:
        """What `plan` tells: each spec, and the sum."""
        for spec in plan.specs:
            actions = {action.value: rows for action, rows in spec.actions.items() if rows}
            words = f"{spec.name}: {counted(spec.rows_to_send, 'row')} to send, {money(spec.cost.expected)}"
            self.emit(
                "spec",
                words,
                spec=spec.name,
                rows=spec.rows_to_send,
                usd=spec.cost.expected,
                actions=actions,
                held=_holding(spec.verdicts),
            )
        self.planned(plan, held=_holding(plan.all_verdicts), exit_code=exit_code)

    def staged(self, spec: str, shard: Shard) -> None:
        with self._typed("staged", spec=spec, tag=shard.tag, rows=shard.rows):
            super().staged(spec, shard)

    def submitted(self, record: JobRecord, how: str) -> None:
        with self._typed("submitted", spec=record.intent.spec, tag=record.tag, job=record.job, how=how):
            super().submitted(record, how)

    def state(self, record: JobRecord, remote: RemoteJob) -> None:
        with self._typed("state", spec=record.intent.spec, tag=record.tag, state=remote.state):
            super().state(record, remote)

    def collected(self, record: JobRecord, collected: Collected) -> None:
        rows = {name: n for name, n in collected.rows.items() if n}
        with self._typed("collected", spec=record.intent.spec, tag=record.tag, rows=rows, usd=collected.usd):
            super().collected(record, collected)

    def delivered(self, spec: str, delivered: Delivered) -> None:
        with self._typed("delivered", spec=spec, rows=delivered.rows, location=delivered.location):
            super().delivered(spec, delivered)

    def outcome(self, outcome: Outcome, error: BatchformError | None, *, detached: bool, held: int) -> None:
        words = [error.message] if error else list(outcome_lines(outcome, detached=detached, held=held))
        told = outcome_json(outcome, error)
        self.emit("outcome", " ".join(words) or "Done.", outcome=told, exit_code=told["exit_code"])

    def failed(self, error: BatchformError) -> None:
        self.emit("error", error.message, error=as_json(error), exit_code=error.exit_code)

    @contextmanager
    def _typed(self, kind: str, **fields: Any) -> Iterator[None]:
        self._kind, self._fields = kind, fields
        try:
            yield
        finally:
            self._kind, self._fields = "note", {}

    def _say(self, text: str) -> None:
        self.emit(self._kind, text, **self._fields)


def _holding(verdicts: Iterable[Verdict]) -> list[str]:
    """Names of limits that hold rows."""
    return list(dict.fromkeys(v.name for v in verdicts if not v.ok))

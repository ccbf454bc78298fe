"""How an apply or a sync says what it is doing: bars in a terminal, plain lines elsewhere (run.context.Progress).

Neither ever shows an API key or the text of a row: they name jobs, states, counts and money only.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from types import TracebackType
from typing import IO, TYPE_CHECKING, Self

from batchform.ledger.records import Collected, JobRecord
from batchform.plan.model import Shard
from batchform.ports import Delivered, RemoteJob
from batchform.spec.wording import counted, money
from batchform.view.text import count, safe, size

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import TaskID


class _Spoken(ABC):
    """Events as sentences; what a sentence is printed on is the subclass's."""

    @abstractmethod
    def _say(self, text: str) -> None: ...

    def note(self, message: str) -> None:
        self._say(safe(message))

    def staged(self, spec: str, shard: Shard) -> None:
        if shard.resumes:
            of = f"{count(shard.rows)} of {counted(shard.resumes.results, 'row')}"
            self._say(f"{spec}: going on with {safe(shard.resumes.tag)} as {safe(shard.tag)}, {of}")
            return
        self._say(f"{spec}: staged {safe(shard.tag)}, {counted(shard.rows, 'row')}, {size(shard.bytes)}")

    def submitted(self, record: JobRecord, how: str) -> None:
        verb = "submitted" if how == "created" else how
        self._say(
            f"{record.intent.spec}: {safe(verb)} {safe(record.tag)} as {safe(record.job or 'a job without a name')}"
        )

    def collected(self, record: JobRecord, collected: Collected) -> None:
        found = {**collected.rows, **collected.anomalies}
        words = (
            ", ".join(f"{count(n)} {safe(name).replace('_', ' ')}" for name, n in found.items() if n) or "no results"
        )
        self._say(f"{record.intent.spec}: collected {safe(record.tag)}: {words}; {money(collected.usd)}")

    def delivered(self, spec: str, delivered: Delivered) -> None:
        self._say(f"{spec}: delivered {counted(delivered.rows, 'row')} to {safe(delivered.location)}")


class LineProgress(_Spoken):
    """Plain lines, one per event; a job that was looked at is a line only when its state or its tenth moved."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream
        self._seen: dict[str, tuple[str, int]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    def state(self, record: JobRecord, remote: RemoteJob) -> None:
        done, total = _counts(remote)
        seen = (remote.state, 10 * done // total if total else 0)
        if self._seen.get(record.tag) == seen:
            return
        self._seen[record.tag] = seen
        of = f", {count(done)} of {counted(total, 'request')}" if total else ""
        self._say(f"{record.intent.spec}: {safe(record.tag)} is {safe(remote.state)}{of}")

    def _say(self, text: str) -> None:
        self._stream.write(text + "\n")
        self._stream.flush()


class BarProgress(_Spoken):
    """One bar per job while it is at work; events scroll by above the bars."""

    def __init__(self, console: Console) -> None:
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

        self._bars = Progress(
            TextColumn("{task.fields[tag]}", markup=False),
            TextColumn("{task.fields[state]}", markup=False),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[done]}", markup=False),
            TimeElapsedColumn(),
            console=console,
            transient=True,
        )
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()

    def submitted(self, record: JobRecord, how: str) -> None:
        super().submitted(record, how)
        self._task(record)

    def state(self, record: JobRecord, remote: RemoteJob) -> None:
        done, total = _counts(remote)
        if remote.terminal:
            done = total = total or 1
        of = f"{count(done)}/{count(total)}" if total and not remote.terminal else ""
        self._bars.update(self._task(record), total=total or None, completed=done, state=safe(remote.state), done=of)

    def collected(self, record: JobRecord, collected: Collected) -> None:
        if record.tag in self._tasks:
            self._bars.remove_task(self._tasks.pop(record.tag))
        super().collected(record, collected)

    def _task(self, record: JobRecord) -> TaskID:
        if record.tag not in self._tasks:
            self._tasks[record.tag] = self._bars.add_task(
                "", total=None, tag=safe(record.tag), state="submitted", done=""
            )
        return self._tasks[record.tag]

    def _say(self, text: str) -> None:
        self._bars.console.print(text, soft_wrap=True)


def make_progress(stream: IO[str]) -> LineProgress | BarProgress:
    """Bars when `stream` is a terminal that can move its cursor, plain lines elsewhere."""
    if not stream.isatty():
        return LineProgress(stream)
    from batchform.view.console import make_console

    console = make_console(file=stream)
    return LineProgress(stream) if console.is_dumb_terminal else BarProgress(console)


def _counts(remote: RemoteJob) -> tuple[int, int]:
    """Requests settled and in all; (0, 0) where the service does not count."""
    total = remote.counts.get("total", 0)
    return min(remote.counts.get("succeeded", 0) + remote.counts.get("failed", 0), total), total

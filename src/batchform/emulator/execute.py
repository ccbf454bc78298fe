"""Runs jobs: checks their lines at create, answers them when somebody looks after they are due.

Nothing runs in the background. A job advances block by block, each block recorded in one transaction that moves the
job's mark, appends its results and charges its requests; so a process may die or share the work with another at any
point, memory is bounded by a block, and nothing is charged twice.
"""

from __future__ import annotations

import sqlite3
import time
from array import array
from collections.abc import Iterator
from functools import lru_cache, partial
from pathlib import Path
from random import Random
from typing import Any, Final

from msgspec import Struct, field

from batchform import canon
from batchform.emulator import answers, attached, bill, caches, files, markers, rules, strict, vectors
from batchform.emulator.fate import Fate, RowFate
from batchform.emulator.models import MODELS, Model
from batchform.emulator.refusal import Refusal
from batchform.emulator.rows import Form, GeminiForm, line_kind
from batchform.emulator.store import Store, link_or_copy

BLOCK_LINES: Final = 500
BLOCK_BYTES: Final = 4 * 1024**2
LOOK_SECONDS: Final = 20.0  # what one call may spend on due work; clients give up after a minute
_SHOWN_ERRORS: Final = 5


class Scan(Struct):
    """What a pass over a job's lines found. offsets: where each block starts, and where the last one ends."""

    lines: int = 0
    offsets: array[int] = field(default_factory=lambda: array("Q"))


def scan(path: Path, model: Model, *, kind: str) -> Scan:
    """Check every line, each a `kind` (see `rows.line_kind`). Raises Refusal 400 with the first complaints."""
    found, wrong = Scan(), []
    position, block_lines, block_start = 0, 0, 0
    with path.open("rb") as f:
        for number, line in enumerate(f, 1):
            if not found.offsets or block_lines >= BLOCK_LINES or position - block_start >= BLOCK_BYTES:
                found.offsets.append(position)
                block_lines, block_start = 0, position
            position += len(line)
            if not line.strip():
                continue
            block_lines += 1
            found.lines += 1
            complaint = _complaint(line, number, model, kind)
            if complaint:
                wrong.append(complaint)
                if len(wrong) == _SHOWN_ERRORS:
                    break
    if wrong:
        raise Refusal(400, "\n".join(wrong))
    found.offsets.append(position)
    return found


def _complaint(line: bytes, number: int, model: Model, kind: str) -> str | None:
    try:
        row = strict.read(kind, line)
        if "request" not in row:
            return f"Error on line {number}: request is not specified"
        rules.check(row["request"], model)
    except strict.Misfit as e:
        return e.on_line(number, line)
    except Refusal as e:
        return f"Error on line {number}: {e.message}"
    return None


def settle(store: Store, due: list[str], *, seconds: float = LOOK_SECONDS) -> None:
    """Run due jobs, in order, for at most so long. What is left is done at the next look."""
    stop = time.monotonic() + seconds
    for job in due:
        while _run_block(store, job):
            if time.monotonic() > stop or store.closing.is_set():
                return


def due_jobs(store: Store) -> list[str]:
    """All jobs, deleted ones too, whose time has come and that have not wholly run."""
    with store.reading() as db:
        rows = db.execute(
            "SELECT id FROM jobs WHERE next_block < blocks AND ends_at <= ? AND (vertex IS NOT NULL"
            " OR (ends_at < created_at + ? AND coalesce(cancelled_at, ends_at) >= ends_at)) ORDER BY seq",
            (store.now(), files.UPLOADED_SECONDS),
        ).fetchall()
    return [row["id"] for row in rows]


def _run_block(store: Store, job_id: str) -> bool:
    """Run the next block of a due job. False when there is none.

    The answers are made outside the transaction, which others wait for. If others ran the block, theirs stand.
    """
    with store.reading() as db:
        job = db.execute("SELECT * FROM jobs WHERE id = ?", (job_id,)).fetchone()
    done: int = job["next_block"]
    if done >= job["blocks"]:
        return False
    if job["vertex"] is not None and done + 1 == job["blocks"]:
        return _export(store, job)
    runner = Runner(store, job=job_id, account=job["account"], model=job["model"], at=job["ends_at"])
    block = _Block(runner, Fate.of(job), _form(job))
    index = _order(len(job["offsets"]) // 8 - 1, job["lines"])[done]
    try:
        out = b"".join(block.results(*_read_block(store, job, index), index))
    except FileNotFoundError:
        return _has_moved(store, job)
    last = done + 1 == job["blocks"]
    with store.writing() as db:
        moved = db.execute(
            "UPDATE jobs SET next_block = next_block + 1, out_bytes = out_bytes + ?, succeeded = succeeded + ?,"
            " failed = failed + ? WHERE id = ? AND next_block = ?",
            (len(out), block.succeeded, block.failed, job_id, done),
        ).rowcount
        if not moved or not runner.record(db):
            db.execute("ROLLBACK TO start")
            return True
        _append(store.job_output(job_id), out, job["out_bytes"])
        if last and job["input_name"] is not None:  # inline results stay with the job
            _publish(store, db, job, job["out_bytes"] + len(out))
    if last:
        store.job_input(job_id).unlink(missing_ok=True)
        if job["input_name"] is not None:
            store.job_output(job_id).unlink(missing_ok=True)
    return not last


def _form(job: sqlite3.Row) -> Form:
    if job["vertex"] is None:
        return GeminiForm(line_kind(MODELS[job["model"]], file=job["input_name"] is not None))
    from batchform.emulator.vertex.rows import VertexForm  # most emulators never see such a job

    return VertexForm(job)


def _export(store: Store, job: sqlite3.Row) -> bool:
    """The last step of a job of Vertex AI: what its blocks wrote goes where it asked for it. Again, if need be."""
    from batchform.emulator.vertex.export import export

    try:
        export(store, job)
    except FileNotFoundError:
        return _has_moved(store, job)
    with store.writing() as db:
        db.execute("UPDATE jobs SET next_block = blocks WHERE id = ?", (job["id"],))
    store.job_input(job["id"]).unlink(missing_ok=True)
    store.job_output(job["id"]).unlink(missing_ok=True)
    return False


def _has_moved(store: Store, job: sqlite3.Row) -> bool:
    """Whether a job whose input is gone was finished by others. If not, the state is broken."""
    with store.reading() as db:
        now = db.execute("SELECT next_block FROM jobs WHERE id = ?", (job["id"],)).fetchone()[0]
    if now == job["next_block"]:
        raise Refusal(500, f"The input of job {job['id']} is missing from the emulator's state.")
    return True


def _read_block(store: Store, job: sqlite3.Row, index: int) -> tuple[bytes, int]:
    """A block's lines, and where they start."""
    offsets = array("Q", job["offsets"])
    with store.job_input(job["id"]).open("rb") as f:
        f.seek(offsets[index])
        return f.read(offsets[index + 1] - offsets[index]), offsets[index]


def _append(path: Path, data: bytes, at: int) -> None:
    """Write at the job's mark; bytes beyond it are of a block that was never committed."""
    path.touch()
    with path.open("r+b") as f:
        f.truncate(at)
        f.seek(at)
        f.write(data)


def _publish(store: Store, db: sqlite3.Connection, job: sqlite3.Row, size: int) -> None:
    """Make the results a file that can be downloaded."""
    output = store.job_output(job["id"])
    path = f"{job['id']}.results"
    sha256 = canon.file_digest(output).removeprefix("sha256:")
    (store.files / path).unlink(missing_ok=True)
    link_or_copy(output, store.files / path)  # not moved: until the commit, the block may have to be written again
    db.execute(
        "INSERT INTO files VALUES (?, ?, NULL, 'application/jsonl', ?, ?, 'GENERATED', ?, ?, ?)",
        (
            job["account"],
            job["result_id"],
            size,
            sha256,
            path,
            job["ends_at"],
            job["ends_at"] + files.GENERATED_SECONDS,
        ),
    )


@lru_cache(maxsize=8)
def _order(n: int, seed: int) -> list[int]:
    """A shuffle of range(n) that is never the identity (for n > 1), and always the same for the same seed."""
    order = list(range(n))
    Random(seed).shuffle(order)
    return order if order != sorted(order) else order[::-1]


class Runner:
    """Executes requests of one account and model, and gathers what there is to record."""

    def __init__(self, store: Store, *, job: str | None, account: str, model: str, at: float) -> None:
        self._store, self._job, self._account, self._model, self._at = store, job, account, model, at
        self._files = attached.Reader(store, account, at=at)
        self._caches = caches.CacheReader(store, account, model, at=at)
        self._hasher = canon.RequestHasher(model=model, realm="emulator")
        self._entries: list[bill.Entry] = []
        self._attempts: dict[bytes, tuple[int, int]] = {}

    def run(self, request: dict[str, Any], key: str | None, fate: RowFate | None = None) -> answers.Outcome:
        """The outcome of one normalised request; noted for the bill unless it is an error."""
        try:
            request, cached = self._caches.whole(request)
            digest = self._hasher.fingerprint(canon.sorted_json(self._files.by_content(request)))
        except Refusal as unreadable:
            return answers.Outcome(None, unreadable, 0, 0)
        attempt, model = partial(self._attempt, digest), MODELS[self._model]
        if model.embeds:
            outcome = vectors.answer(request, model=model, attempt=attempt)
        else:
            outcome = answers.answer(request, model=self._model, digest=digest, attempt=attempt)
        if cached and outcome.response is not None:
            outcome.response["usageMetadata"]["cachedContentTokenCount"] = cached
        if fate is not None:
            outcome = fate.applied(outcome)
        if outcome.error is None:
            tokens = (outcome.prompt_tokens, outcome.output_tokens)
            self._entries.append((self._job, self._account, key, self._model, digest, *tokens, self._at))
        return outcome

    def record(self, db: sqlite3.Connection) -> bool:
        """Write the bill. False when others ran the same requests meanwhile and it mattered: run again."""
        if not bill.count_attempts(db, self._attempts):
            return False
        bill.charge(db, self._entries)
        return True

    def _attempt(self, digest: bytes) -> int:
        if digest not in self._attempts:
            with self._store.reading() as db:
                before = bill.attempts(db, digest)
            self._attempts[digest] = before, before
        before, now = self._attempts[digest]
        self._attempts[digest] = before, now + 1
        return now + 1


class _Block:
    """Result lines of one block of a job, shuffled; counts as it goes."""

    def __init__(self, runner: Runner, fate: Fate, form: Form) -> None:
        self._runner, self._fate, self._form = runner, fate, form
        self.succeeded = self.failed = 0

    def results(self, data: bytes, start: int, seed: int) -> Iterator[bytes]:
        lines, position = [], start
        for line in data.split(b"\n"):
            if line.strip():
                lines.append((position, line))
            position += len(line) + 1
        running = self._fate.running(len(lines))
        for i in _order(running, seed):
            offset, line = lines[i]
            yield from self._line(line, offset)
        for _, line in lines[running:]:
            yield self._form.left(line)

    def _line(self, line: bytes, offset: int) -> Iterator[bytes]:
        row = self._form.read(line)
        if row.kept is not None:
            self.succeeded += 1
            yield row.kept
            return
        fate = self._fate.of_row(row.key, offset)
        if row.wrong is None:
            outcome = self._runner.run(row.request, row.key, fate)
        else:
            outcome = answers.Outcome(None, row.wrong, 0, 0)
        if outcome.error is not None:
            self.failed += 1
            yield self._form.line(row, outcome)
            return
        self.succeeded += 1
        shown = self._form.line(row, outcome)
        if outcome.effect != markers.MISSING:
            yield shown
        if outcome.effect == markers.DUPLICATE:
            yield shown
        if outcome.effect == markers.UNKNOWN_KEY:
            yield self._form.line(self._form.stranger(row), outcome)

"""The second level of the diff: candidates are rendered, and request fingerprints decide what is paid.

One pass over the candidates in row order. Each ends in a shard (it pays), or among the free rows: its request is the
one already answered (refresh), or was answered before, under this key or, with reuse_identical, under another (reuse).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from batchform.canon import RequestHasher
from batchform.plan import diff as first
from batchform.plan.bookkeeping import FreeRows
from batchform.plan.changes import Edited
from batchform.plan.diff import CANDIDATES, Diff, Recorded
from batchform.plan.ladder import Climbed, Climber, failures_of
from batchform.plan.model import Action, Reason
from batchform.plan.owed import judge_pending, of_request, owed, own_answer_owed, waits
from batchform.plan.reasons import changed_components, reason_of
from batchform.plan.rendered import Preview, Rendered
from batchform.plan.row_rules import RowRules
from batchform.plan.shard import ShardCutter
from batchform.plan.sharing import shared_sql
from batchform.rows.keyed import WIDE, KeyedRows, fingerprint_sql, fp_columns_text, rendered_columns, template_columns
from batchform.rows.request import RequestRenderer
from batchform.rows.stream import stream, values_sql
from batchform.spec.resolved import ResolvedSpec

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

SHARED = "bf_shared"
LEFT_TO_APPLY = "sent by apply, not by sync"
PAYING = {
    "apply": frozenset(first.RENDERED) - {first.SAVED},
    "retry": frozenset({first.RETRY, first.PENDING}),
    "settle": frozenset[str](),
    "wave": frozenset({first.NEW, first.CHANGED, first.REQUESTED}),
    "promote": frozenset[str](),
}
"""Purpose of a plan → classes of candidates that may be sent. PENDING is then a row whose request is still the one that
was queued or given back: with another it is CHANGED."""
_STATE = (
    "class", "status", "request_fp", "answer_fp", "answered", "attempt", "failure", "known", "prompt_same",
    "model_same", "config_same", "schema_same", "realm_same", "row_same", "past", "spent", "fallen",
    "tag", "rerun",
)  # fmt: skip


class CandidateRenderer:
    """Renders the candidates of one spec into a cutter and a `Rendered`."""

    def __init__(
        self,
        con: DuckDBPyConnection,
        spec: ResolvedSpec,
        rows: KeyedRows,
        recorded: Recorded,
        *,
        realm: str,
        free: FreeRows,
        paying: frozenset[str],
        rules: RowRules,
    ) -> None:
        self._con = con
        self._spec = spec
        self._recorded = recorded
        self._columns = rows.columns
        self._free_rows = free
        self._paying = paying
        self.why_left = LEFT_TO_APPLY  # why rows are held that this plan may not send
        self._names = template_columns(spec, rows.columns)
        self.fp_columns = fp_columns_text(self._names, rows.columns)
        fp_sql = fingerprint_sql(self.fp_columns, rows.columns)
        assert fp_sql is not None
        self._fp_sql = fp_sql
        self._read = rendered_columns(spec, rows.columns)
        renderer = RequestRenderer(spec, self._read, keep_empty=True)
        self.carried = renderer.carried
        self._render = renderer.render
        self._fingerprint = RequestHasher(model=spec.model, realm=realm).fingerprint
        self.out = Rendered(fixed_bytes=renderer.fixed_bytes)
        self.edited = self.out.edited = Edited(recorded.change)
        self._rollout = self.out.rollout = recorded.rollout
        self._look = rules.look
        if self.carried is not None:
            carried = self.carried
            rules.file_tokens = lambda request: sum(f.tokens for f in carried.of(request))
        self._shares = spec.spec.idempotency.reuse_identical or bool(recorded.imported)
        self.taken: dict[str, dict[str, int]] = {}  # of imports: tag → key hash there → rows
        self.taking: frozenset[str] | None = None  # classes that take answers of others; None for all
        self.climber: Climber | None = None  # where retries change what is sent
        if renderer.one_form:
            rules.of_one_form()

    def run(self, found: Diff, cutter: ShardCutter) -> Rendered:
        """Render all candidates, in row order."""
        if not found.count(*first.RENDERED):
            return self.out
        if self._shares:
            self._share()
        if self._recorded.relation is None and self._rollout is None and not self._shares:
            self._run_first(cutter)
        else:
            for row in self._stream():
                self._one(row, cutter)
        cutter.close()
        return self.out

    def _select(self, extra: str, joins: str) -> str:
        columns = values_sql(self._read, self._columns, "w")
        fp_sql = self._fp_sql.removeprefix("CAST(").removesuffix(" AS UUID)")
        return f"SELECT w.bf_key, left(sha256(w.bf_key), 32), {fp_sql}{extra}{columns} FROM {WIDE} w {joins}"

    def _candidates(self) -> tuple[str, str]:
        """JOIN and ORDER BY that pick candidates from the wide rows, in row order; all rows if none is recorded."""
        if self._recorded.relation is None:
            return "", ""
        return f"JOIN {CANDIDATES} c ON w.bf_key_hash = c.key_hash AND c.resumes IS NULL", " ORDER BY c.ordinal"

    def _run_first(self, cutter: ShardCutter) -> None:
        """Nothing is recorded: every row is new. The hot path of a first plan."""
        render, fingerprint, add, consider = self._render, self._fingerprint, cutter.add, self._consider
        look = self._look
        count = size = 0
        held = first.NEW not in self._paying
        for batch in stream(self._con, self._select("", "")):
            if held:
                count += len(batch)
                continue
            for row in batch:
                request = render(row[0], row[3:])
                look(row[0], request)
                add(row[0], row[1], row[2], request, fingerprint(request), 1)
                size += len(request)
                consider(row[0], row[1], Action.RUN, Reason.NEW_KEY, request, ())
            count += len(batch)
        if held:
            self.out.held[self.why_left] = count
            self.out.actions[Action.HELD] = count
            return
        self.out.actions[Action.RUN] = count
        self.out.reasons[Reason.NEW_KEY] = count
        self.out.request_bytes = size

    def _state_sql(self) -> str:
        """The columns of _STATE, of each candidate."""
        if self._recorded.relation is None:
            return ", ".join(["'new'", *["NULL"] * (len(_STATE) - 1)])
        return ", ".join(f"c.{name}" for name in _STATE)

    def _stream(self) -> Iterator[tuple[Any, ...]]:
        shared = "NULL AS shared"
        state = self._state_sql()
        joins, order = self._candidates()
        if self._shares:
            shared = "s.shared"
            joins += f" LEFT JOIN {SHARED} s ON w.bf_key_hash = s.key_hash"
        for batch in stream(self._con, self._select(f", {state}, {shared}", joins) + order):
            yield from batch

    def _one(self, row: tuple[Any, ...], cutter: ShardCutter | None) -> None:
        key, key_hex, row_fp = row[:3]
        state = dict(zip(_STATE, row[3 : 3 + len(_STATE)], strict=True))
        shared = row[3 + len(_STATE)]
        request = self._render(key, row[4 + len(_STATE) :])
        fp = self._fingerprint(request)
        due = owed(fp, state)
        judge_pending(fp, state)
        if not due and self._free(key, key_hex, row_fp, fp, state):
            return
        if shared is not None and not own_answer_owed(fp, state):
            self._by_another(key, key_hex, row_fp, fp, state, shared)
            return
        self._pay(key, key_hex, row_fp, request, fp, state, cutter)

    def _free(self, key: str, key_hex: str, row_fp: str, fp: bytes, state: dict[str, Any]) -> bool:
        """Whether the request needs no sending, since this row has an answer to it."""
        if state["answer_fp"] == fp:
            self.out.count(Action.KEEP, None)
            self._free_rows.add(key, key_hex, row_fp, fp)
            return True
        past = of_request(fp, state["past"])
        if past is None:
            return False
        self.out.count(Action.REUSE, self._why(state))
        tag, _, held_as = past[0].partition("@")
        self._free_rows.add(key, key_hex, row_fp, fp, (tag, held_as, past[1]))
        return True

    def _by_another(self, key: str, key_hex: str, row_fp: str, fp: bytes, state: dict[str, Any], shared: str) -> None:
        """A row whose request is another's, too: it gets that one's answer, waits for it, or is refused like it."""
        kind, _, rest = shared.partition(" ")
        if kind == "refused":
            self._hold(f"an identical request failed: {rest}")
            return
        if kind == "planned" and rest and self._rollout is not None and not self._rollout.seats(rest):
            self._hold(self._rollout.standing.held_words)
            return
        if kind == "answered" and state["class"] not in (self.taking or (state["class"],)):
            self._hold(self.why_left)
            return
        self.out.count(Action.IN_FLIGHT if kind == "in_flight" else Action.REUSE, self._why(state))
        if kind == "answered":
            tag, source_hex, parse = rest.split(" ")
            self._free_rows.add(key, key_hex, row_fp, fp, (tag, source_hex, parse))
            if tag in self._recorded.imported:
                rows = self.taken.setdefault(tag, {})
                rows[source_hex] = rows.get(source_hex, 0) + 1
        else:
            self.out.waiting += 1

    def _why(self, state: dict[str, Any]) -> Reason:
        """The reason of a row; rows of a chain change when the answers that they come of do."""
        reason = reason_of(state)
        return Reason.UPSTREAM_CHANGED if reason is Reason.ROW_CHANGED and self._spec.upstream else reason

    def _hold(self, why: str) -> None:
        self.out.count(Action.HELD, None)
        self.out.held[why] = self.out.held.get(why, 0) + 1

    def _pay(
        self,
        key: str,
        key_hex: str,
        row_fp: str,
        request: bytes,
        fp: bytes,
        state: dict[str, Any],
        cutter: ShardCutter | None,
    ) -> None:
        attempts, failure = self._spent(fp, state)
        if failure and state["class"] != first.REQUESTED and not self._may_retry(failure, attempts):
            self._hold(f"failed: {failure} (same request; retry allows no more)")
            return
        if state["class"] not in self._paying:
            staged = self._rollout is not None and self._rollout.passive and not self._rollout.lets(key_hex, state)
            self._hold(self._rollout.standing.held_words if self._rollout and staged else self.why_left)
            return
        if self._rollout is not None and self._rollout.leaves(state):
            self._hold(self.why_left)
            return
        if held := self.edited.holds(key_hex, request, state, self._why(state)):
            self._hold(held)
            return
        if self._rollout is not None and not self._rollout.lets(key_hex, state):
            self._look(key, request)
            self._hold(self._rollout.hold(request, state))
            return
        attempt = 1 if state["class"] == first.REQUESTED else attempts + 1
        self.take(key, key_hex, row_fp, request, fp, state, attempt, cutter, self._climbed(request, fp, state))

    def _climbed(self, request: bytes, fp: bytes, state: dict[str, Any]) -> Climbed | None:
        """The row's request on the rung of the retry ladder that its failures have brought it to."""
        if self.climber is None:
            return None
        archived = of_request(fp, state["fallen"])
        return self.climber.climb(request, failures_of(fp, state, archived[1] if archived else ""))

    def take(
        self,
        key: str,
        key_hex: str,
        row_fp: str,
        request: bytes,
        fp: bytes,
        state: dict[str, Any],
        attempt: int,
        cutter: ShardCutter | None,
        climbed: Climbed | None = None,
    ) -> None:
        """One row that is to be sent: counted, added to the shard at hand, considered for the preview."""
        assert cutter is not None
        reason = self._why(state)
        action = Action.RUN if reason is Reason.NEW_KEY else Action.RERUN
        self.out.count(action, reason)
        self.out.resent += bool(state["answered"])
        self._look(key, request)  # as its files ask: a rung was judged with the spec, and has a model of its own
        if climbed is None:
            self.out.request_bytes += len(request)
            cutter.add(key, key_hex, row_fp, request, fp, attempt)
        else:
            request = climbed.request
            cutter.lane(climbed.rung).add(key, key_hex, row_fp, request, fp, attempt, climbed.fingerprint)
        self._consider(key, key_hex, action, reason, request, changed_components(state), state["tag"])

    def _spent(self, fp: bytes, state: dict[str, Any]) -> tuple[int, str | None]:
        """(attempts, failure class) of this very request under this key; a row that was edited and edited back has not
        won new attempts."""
        if state["request_fp"] == fp and state["status"] in ("failed", "pending"):
            return int(state["attempt"] or 0), state["failure"] if state["status"] == "failed" else None
        spent = of_request(fp, state["spent"])
        return (int(spent[0]), spent[1]) if spent else (0, None)

    def _may_retry(self, failure: str, attempts: int) -> bool:
        retry = self._spec.retry
        return failure in first.sent_again(self._spec) and attempts < retry.max_attempts

    def _consider(
        self,
        key: str,
        key_hex: str,
        action: Action,
        reason: Reason,
        request: bytes,
        changed: tuple[str, ...],
        tag: str | None = None,
    ) -> None:
        """Keep the shortest, the longest and the row of lowest key hash for the preview."""
        out, size = self.out, len(request)
        if out.shortest is None or size < len(out.shortest.request):
            out.shortest = Preview(key, key_hex, action, reason, request, changed, tag)
        if out.longest is None or size > len(out.longest.request):
            out.longest = Preview(key, key_hex, action, reason, request, changed, tag)
        if out.chosen is None or key_hex < out.chosen.key_hex:
            out.chosen = Preview(key, key_hex, action, reason, request, changed, tag)

    def _share(self) -> None:
        """With reuse_identical: render once only for fingerprints, then let DuckDB find which rows share a request.

        Rendering twice keeps memory flat; a set of all fingerprints would not.
        """
        import pyarrow as pa

        done = 0
        joins, order = self._candidates()
        prints: list[Any] = []
        for batch in stream(self._con, self._select(f", {self._state_sql()}", joins) + order):
            fps = [self._fingerprint(self._render(row[0], row[3 + len(_STATE) :])) for row in batch]
            turns = (self._turn(fp, row) for fp, row in zip(fps, batch, strict=True))
            sent, due, placed = zip(*turns, strict=True)
            prints.append(
                pa.record_batch(
                    {
                        "ordinal": pa.array(range(done, done + len(batch)), pa.int64()),
                        "key_hash": pa.array([row[1] for row in batch]),
                        "request_fp": pa.array(fps, pa.binary()),
                        "sent": pa.array(sent, pa.bool_()),
                        "owed": pa.array(due, pa.bool_()),
                        "placed": pa.array(placed, pa.bool_()),
                    }
                )
            )
            done += len(batch)
        self._con.register("bf_prints_arrow", pa.Table.from_batches(prints))
        typed = "SELECT * REPLACE (CAST(key_hash AS UUID) AS key_hash) FROM bf_prints_arrow"
        self._con.execute(f"CREATE OR REPLACE TEMP TABLE bf_prints AS {typed}")
        self._con.unregister("bf_prints_arrow")
        self._con.execute(f"CREATE OR REPLACE TEMP TABLE {SHARED} AS {shared_sql(self._spec, self._recorded)}")

    def _turn(self, fp: bytes, row: tuple[Any, ...]) -> tuple[bool, bool, bool]:
        """Whether this plan may send a row, whether the row is owed an answer, and whether it needs no place of a
        stage."""
        state = dict(zip(_STATE, row[3 : 3 + len(_STATE)], strict=True))
        due = owed(fp, state)
        judge_pending(fp, state)
        placed = self._rollout is None or not waits(state, self._rollout.tags)
        return state["class"] in self._paying, due, placed

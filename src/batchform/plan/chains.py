"""Chains in a plan: which answers of other specs are still to come, and what the rows that they make may cost.

A row whose answer is about to change is left out of what a chain reads, and only counted: it is known after apply. A
chain that reads with `source.query` can tell nothing of its rows until all answers are there.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

from msgspec import Struct
from msgspec.structs import replace

from batchform.errors import SourceError
from batchform.plan.diff import FORGET, KEEP, LEFT, REMOVE, Diff
from batchform.plan.draft import Draft, with_later
from batchform.plan.model import Action, After, Range, SpecPlan
from batchform.plan.price import BYTES_PER_TOKEN, Estimator, History
from batchform.plan.registry import Registry
from batchform.plan.render import LEFT_TO_APPLY
from batchform.plan.rendered import Rendered
from batchform.ports import Chained, Source
from batchform.rows.keyed import KeyedRows, template_columns
from batchform.rows.request import RequestRenderer, merge
from batchform.rows.sql import literal
from batchform.spec.model import SpecSource
from batchform.spec.realm import cloud_of
from batchform.spec.resolved import ResolvedSpec
from batchform.spec.wording import counted

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

_TO_COME: Final = (
    Action.RUN, Action.RERUN, Action.REUSE, Action.REPARSE, Action.IN_FLIGHT, Action.UNKNOWN,
)  # fmt: skip
_CHANGING: Final = "changing.parquet"
_TEXT_BYTES: Final = 2_000
"""Bytes of a request whose template cannot be tried without a row."""


class Awaited(Struct, frozen=True):
    """Answers of an upstream that are still to come.

    source: what can be read now; rows: at most so many rows may come of them in this apply, 0 where its upstream is no
    part of the plan; wholly: nothing is sent before they are there; leaves: keys that seem gone may come back.
    """

    source: Source
    upstream: str = ""
    rows: int = 0
    open: int = 0
    wholly: bool = False

    @property
    def leaves(self) -> bool:
        return self.rows > 0 or self.open > 0


class _Planned(Struct, frozen=True):
    """A spec that was planned before those that read its answers. changing: Parquet of the keys whose answers will be
    others, None if there are none; wholly: nobody knows which."""

    spec: ResolvedSpec
    plan: SpecPlan
    changing: Path | None
    wholly: bool


class Chains:
    """The chains of one plan, whose specs come in order. folder: for short-lived files."""

    def __init__(self, specs: Sequence[ResolvedSpec], *, folder: Path, purpose: str) -> None:
        self._read = (
            {s.upstream for s in specs if s.upstream} & {s.name for s in specs} if purpose == "apply" else set()
        )
        self._folder, self._purpose = folder, purpose
        self._planned: dict[str, _Planned] = {}

    def reads(self, spec: ResolvedSpec) -> bool:
        """Whether another spec of the plan reads this one's answers, so that its keys must be known."""
        return spec.name in self._read

    def awaited(self, source: Source) -> Awaited:
        """What is awaited of a spec's source."""
        if not isinstance(source, Chained):
            return Awaited(source)
        upstream = self._planned.get(source.upstream)
        if upstream is None:
            open_ = source.unsettled() if self._purpose in ("apply", "wave") else 0
            return Awaited(source, source.upstream, open=open_, wholly=source.whole_only and open_ > 0)
        plan = upstream.plan
        rows = sum(plan.actions.get(a, 0) for a in _TO_COME) + (plan.after.rows if plan.after else 0)
        if not rows and upstream.changing is None:
            return Awaited(source, source.upstream)
        wholly = source.whole_only or upstream.wholly
        left = source.without([upstream.changing] if upstream.changing else [])
        rows += source.settled() if wholly else 0
        return Awaited(left, source.upstream, rows=rows, open=1, wholly=wholly)

    def add(
        self, con: DuckDBPyConnection, spec: ResolvedSpec, draft: Draft, waits: Awaited, found: Diff, *, bundle: Path
    ) -> None:
        """A spec was planned. found: with the keys that seem gone."""
        if not self.reads(spec):
            return
        plan = draft.plan
        files = [bundle / shard.rows_path for shard in plan.shards]
        files += [bundle / plan.reread] if plan.reread else []
        selected = [f"SELECT key_hash FROM read_parquet({literal(str(f))})" for f in files]
        if plan.bookkeeping:
            states = f"read_parquet({literal(str(bundle / plan.bookkeeping))})"
            selected.append(f"SELECT key_hash FROM {states} WHERE answer_serial IS NULL OR status = 'gone'")
        if waits.leaves and found.count(FORGET, REMOVE):
            selected.append(f"SELECT key_hash FROM {LEFT} WHERE class IN ('{FORGET}', '{REMOVE}')")
        changing = self._folder / f"changing-{spec.name}.parquet" if selected else None
        if changing is not None:
            con.execute(f"COPY ({' UNION '.join(selected)}) TO {literal(str(changing))} (FORMAT parquet)")
        wholly = (waits.wholly and waits.leaves) or plan.waiting > 0
        self._planned[spec.name] = _Planned(spec, plan, changing, wholly)

    def after(
        self,
        spec: ResolvedSpec,
        waits: Awaited,
        draft: Draft,
        rendered: Rendered,
        rows: KeyedRows,
        history: History | None,
        *,
        registry: Registry,
        now: dt.datetime,
    ) -> Draft:
        """The draft with what is known after apply, which limits count too."""
        if not waits.rows:
            return draft
        upstream = self._planned[waits.upstream]
        here = registry.on(cloud_of(spec.backend))
        estimator = Estimator.of(
            spec.model, registry=here, when=now, history=history, max_output_tokens=_most(spec),
            fixed_bytes=rendered.fixed_bytes,
        )  # fmt: skip
        count = waits.rows
        most = spec.limits.max_rows
        if most is not None:
            count = min(count, max(0, most - draft.figures.to_send))
        expected, high, basis = _bytes_of_one(spec, upstream, draft, rendered, rows, history, registry, now)
        texts = waits.rows if waits.wholly else count  # a group holds the answers of several rows
        likely = estimator.estimate(
            requests=count, request_bytes=round(texts * expected), largest_bytes=round(expected)
        )
        dear = estimator.estimate(requests=count, request_bytes=round(texts * high), largest_bytes=round(high))
        if most is not None and count < waits.rows:
            basis = f"max_rows {most:,}; {basis}"
        cost = Range(0.0, likely.cost.expected, max(dear.cost.high, likely.cost.high))
        after = After(waits.upstream, count, cost, basis)
        return with_later(draft, after, priced=likely.priced)

    def discard(self) -> None:
        """Remove the short-lived files."""
        for planned in self._planned.values():
            if planned.changing is not None:
                planned.changing.unlink(missing_ok=True)


def kept(found: Diff) -> Diff:
    """The diff, with keys that are gone only until answers come."""
    gone = found.count(FORGET, REMOVE)
    return replace(found, counts={**found.counts, FORGET: 0, REMOVE: 0, KEEP: found.count(KEEP) + gone})


def hold_back(rendered: Rendered, waits: Awaited) -> None:
    """Say of rows that nobody can tell yet why they are not sent; those that this apply will tell are counted apart."""
    rows = rendered.held.pop(LEFT_TO_APPLY, 0)
    if not rows:
        return
    if waits.rows:
        rendered.actions[Action.HELD] -= rows
    else:
        rendered.held[f"source.query waits for {counted(waits.open, 'answer')} of {waits.upstream}"] = rows


def chain_notes(specs: Sequence[ResolvedSpec], all_specs: Sequence[ResolvedSpec]) -> dict[str, str]:
    """Spec → what to say because a chain is planned in part."""
    chosen = {s.name for s in specs}
    notes = {}
    for spec in specs:
        if spec.upstream and spec.upstream not in chosen:
            notes[spec.name] = (
                f"only answers that {spec.upstream} already has are read: it is not selected, so what it would send "
                "is not sent, and what comes of it is in the next plan"
            )
        readers = [s.name for s in all_specs if s.upstream == spec.name and s.name not in chosen]
        if readers:
            verb = "reads" if len(readers) == 1 else "read"
            notes[spec.name] = " ".join(
                [*([f"{notes[spec.name]};"] if spec.name in notes else []),
                 f"{', '.join(readers)} {verb} these answers and not selected: its rows are in the next plan"]
            )  # fmt: skip
    return notes


def _bytes_of_one(
    spec: ResolvedSpec,
    upstream: _Planned,
    draft: Draft,
    rendered: Rendered,
    rows: KeyedRows,
    history: History | None,
    registry: Registry,
    now: dt.datetime,
) -> tuple[float, float, str]:
    """(expected, high) bytes of a request that is known after apply, and where they come from."""
    likely, most = _answer_bytes(upstream, registry, now)
    blank = _blank_bytes(spec, rows)
    if isinstance(spec.spec.source, SpecSource) and spec.spec.source.with_source and upstream.plan.rows_to_send:
        blank += upstream.plan.bytes // upstream.plan.rows_to_send
    high = blank + most
    if draft.plan.rows_to_send:
        mean, longest = rendered.request_bytes / draft.plan.rows_to_send, rendered.longest
        return mean, max(high, float(len(longest.request)) if longest else mean), "as long as its rows that are known"
    if history is not None and history.rows:
        mean = history.request_bytes / history.rows
        return mean, max(high, mean), f"as long as {counted(history.rows, 'past row')} of this spec"
    return blank + likely, high, f"answers of {upstream.spec.name} as long as it is priced for"


def _answer_bytes(upstream: _Planned, registry: Registry, now: dt.datetime) -> tuple[float, float]:
    """(expected, high) bytes of one answer of an upstream."""
    plan = upstream.plan
    if plan.requests_to_send:
        output = plan.tokens.output
        return tuple(BYTES_PER_TOKEN * n / plan.requests_to_send for n in (output.expected, output.high))  # type: ignore[return-value]
    spec = upstream.spec
    here = registry.on(cloud_of(spec.backend))
    estimator = Estimator.of(spec.model, registry=here, when=now, max_output_tokens=_most(spec))
    output = estimator.estimate(requests=1, request_bytes=0).tokens.output
    return BYTES_PER_TOKEN * output.expected, BYTES_PER_TOKEN * output.high


def _blank_bytes(spec: ResolvedSpec, rows: KeyedRows) -> int:
    """Bytes of a request of a row whose columns are empty."""
    names = template_columns(spec, rows.columns)
    with suppress(SourceError):
        return len(RequestRenderer(spec, names).render("", [""] * len(names)))
    return _TEXT_BYTES


def _most(spec: ResolvedSpec) -> int | None:
    config = merge(spec.request_base, spec.request_overlay).get("generationConfig", {})
    found = config.get("maxOutputTokens")
    return found if isinstance(found, int) else None

"""What the ledger knows, for the command line and for Python alike: a project's state, and a spec's answers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

    from batchform.cli.wiring import Session
    from batchform.ledger.records import ControlView
    from batchform.spec.resolved import ResolvedSpec
    from batchform.view.values import SpecLine, StatusView


class Answers(NamedTuple):
    """con: a connection that can read them; relation: FROM-able, with the key as `bf_order`; columns: their names."""

    con: DuckDBPyConnection
    relation: str
    columns: tuple[str, ...]


def status_of(session: Session, specs: Sequence[ResolvedSpec], everything: bool, *, whole: bool) -> StatusView:
    """whole: no spec was selected, so jobs of specs that are gone are shown too."""
    from batchform.run.approvals import approval_notes
    from batchform.run.budget import budget_lines
    from batchform.run.rollouts import rollout_notes
    from batchform.view.attention import trial_notes, unknown_notes
    from batchform.view.values import StatusView, job_line

    control = session.ledger.control()
    names = {s.name for s in specs}
    jobs = [j for j in control.jobs.values() if (whole or j.intent.spec in names) and (everything or j.open)]
    now, service = session.clock.now(), session.registry.service
    settle = {s.backend_name: s.backend.settle for s in session.project.specs}
    settle |= {name: b.settle for name, b in session.project.config.backends.items()}
    return StatusView(
        project=session.project.config.project,
        environment=session.project.environment,
        ledger=session.project.config.ledger,
        serial=session.ledger.serial,
        specs=tuple(_spec_line(session, control, s) for s in specs),
        jobs=tuple(job_line(j, now=now, service=service) for j in jobs),
        notes=(
            *unknown_notes(jobs, now=now, settle=settle),
            *trial_notes(control.spent, specs=names),
            *approval_notes(control),
            *rollout_notes(session.ledger, specs, session.connect),
        ),
        budgets=budget_lines(session.project, specs, session.ledger, session.clock),
    )


def _spec_line(session: Session, control: ControlView, spec: ResolvedSpec) -> SpecLine:
    from batchform.view.values import SpecLine, parse_time

    delivery = control.deliveries.get(spec.name)
    collected = [j for j in control.jobs.values() if j.intent.spec == spec.name and j.collected]
    rows: dict[str, int] = {}
    undelivered = 0
    if spec.name in session.ledger.specs():
        con = session.connect()
        try:
            relation = session.ledger.rows_relation(con, spec.name)
            through = delivery.through if delivery else -1
            is_late = f"answer_fp IS NOT NULL AND answer_serial > {through}"
            if spec.splits:
                from batchform.rows.pages import SETS, whole_sets

                whole_sets(con, relation)
                is_late += f" AND key_hash IN (SELECT key_hash FROM {SETS})"
            for status, count, late in con.execute(
                f"SELECT status, count(*), count(*) FILTER ({is_late}) "
                f"FROM {relation} GROUP BY status ORDER BY count(*) DESC, status"
            ).fetchall():
                rows[status] = count
                undelivered += late if status != "gone" else 0
        finally:
            con.close()
    at = parse_time(delivery.at) if delivery else None
    return SpecLine(
        name=spec.name,
        rows=rows,
        est_usd=sum(j.intent.est_usd for j in collected),
        usd=sum(j.collected.usd for j in collected if j.collected),
        undelivered=undelivered,
        location=delivery.location if delivery else "",
        delivered_age=(session.clock.now() - at).total_seconds() if at else None,
    )


@contextmanager
def answers(session: Session, spec: ResolvedSpec, keys: Sequence[str] = ()) -> Iterator[Answers]:
    """All answers of a spec, or those of some keys, as its destination would show them. Raises UsageError if it was
    never sent."""
    from batchform.errors import UsageError
    from batchform.rows.sql import literal
    from batchform.run.deliver import answers_table

    if spec.name not in session.ledger.specs():
        raise UsageError(f"{spec.name} has no answers yet", hint="batchform apply sends its rows.")
    con = session.connect()
    try:
        relation, columns = answers_table(
            con,
            session.ledger,
            spec,
            scratch=session.scratch,
            source_rows=lambda opened: session.source_rows(opened, spec),
        )
        where = f" WHERE bf_order IN ({', '.join(literal(k) for k in keys)})" if keys else ""
        yield Answers(con, f"(SELECT * FROM {relation}{where})", columns)
    finally:
        con.close()


def first_answers(
    session: Session, spec: ResolvedSpec, limit: int, keys: Sequence[str]
) -> tuple[list[tuple[Any, ...]], int, tuple[str, ...]]:
    """The first rows of `answers`, how many there are in all, and the names of the columns."""
    from batchform.errors import UsageError
    from batchform.rows.sql import identifier

    with answers(session, spec, keys) as (con, relation, columns):
        listed = ", ".join(map(identifier, columns))
        total = con.execute(f"SELECT count(*) FROM {relation}").fetchall()[0][0]
        found = con.execute(f"SELECT {listed} FROM {relation} ORDER BY bf_order LIMIT {limit}").fetchall()
        if keys and not found:
            raise UsageError(f"{spec.name} has no answer for {', '.join(map(repr, keys))}")
        return found, total, columns

"""`status`, `results`, `explain` and `render`: look, without changing anything."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from batchform.cli.options import Common, common, selection
from batchform.cli.rungs import after

if TYPE_CHECKING:
    from batchform.cli.wiring import Session
    from batchform.ledger.records import ControlView
    from batchform.spec.resolved import ResolvedSpec
    from batchform.view.values import Explanation, SpecLine, StatusView


@click.command("status", short_help="Per spec and job: rows, age, state, spend, time left.")
@selection
@click.option("--all", "everything", is_flag=True, help="Settled jobs too.")
@click.option("--check", is_flag=True, help="Exit 1 when results that nobody collected expire before long.")
@click.option(
    "--within",
    default=48.0,
    show_default=True,
    metavar="HOURS",
    type=click.FloatRange(0),
    help="What --check calls so.",
)
@common
def status_command(common: Common, select: Sequence[str], everything: bool, check: bool, within: float) -> int:
    """What the ledger knows: reads it only, asks no service. Exit code 8 while a submission is unknown."""
    import json

    import msgspec

    from batchform.cli.wiring import open_session
    from batchform.errors import UnknownSubmissions
    from batchform.view.attention import expiring

    with open_session(common) as session:
        status = _status(session, session.select(select), everything, whole=not select)
        if common.as_json:
            click.echo(json.dumps(msgspec.to_builtins(status)))
        else:
            from batchform.view.tables import print_status

            print_status(status)
        jobs = session.ledger.control().jobs.values()
        if check:
            service, now = session.registry.service, session.clock.now()
            if error := expiring(jobs, now=now, service=service, within=within):
                click.echo(f"error: {error.render()}", err=True)
                return error.exit_code
        return UnknownSubmissions.exit_code if any(j.status == "intent" for j in jobs) else 0


def _status(session: Session, specs: Sequence[ResolvedSpec], everything: bool, *, whole: bool) -> StatusView:
    """whole: no spec was selected, so jobs of specs that are gone are shown too."""
    from batchform.run.approvals import approval_notes
    from batchform.run.budget import budget_lines
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
            for status, count, late in con.execute(
                f"SELECT status, count(*), count(*) FILTER (answer_fp IS NOT NULL AND answer_serial > {through}) "
                f"FROM {relation} GROUP BY status"
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


@click.command("results", short_help="The first answers of a spec, as a table.")
@click.argument("spec")
@click.option("--rows", default=10, show_default=True, type=click.IntRange(1), help="How many rows.")
@click.option("--key", "keys", multiple=True, metavar="KEY", help="Only these rows; repeat for several.")
@common
def results_command(common: Common, spec: str, rows: int, keys: Sequence[str]) -> None:
    """Show answers of SPEC from the ledger's archive, in the columns of its destination."""
    import json

    from batchform.cli.wiring import open_session
    from batchform.view.values import ResultsTable

    with open_session(common) as session:
        resolved = session.spec(spec)
        found, total, columns = _results(session, resolved, rows, keys)
        if common.as_json:
            for row in found:
                click.echo(json.dumps(dict(zip(columns, row, strict=True)), default=str, ensure_ascii=False))
            return
        from batchform.view.tables import print_results

        delivery = session.ledger.control().deliveries.get(spec)
        print_results(ResultsTable(spec, columns, tuple(found), total, location=delivery.location if delivery else ""))


def _results(
    session: Session, spec: ResolvedSpec, limit: int, keys: Sequence[str]
) -> tuple[list[tuple[Any, ...]], int, tuple[str, ...]]:
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
        listed = ", ".join('"' + c.replace('"', '""') + '"' for c in columns)
        total = con.execute(f"SELECT count(*) FROM {relation}{where}").fetchall()[0][0]
        found = con.execute(f"SELECT {listed} FROM {relation}{where} ORDER BY bf_order LIMIT {limit}").fetchall()
        if keys and not found:
            raise UsageError(f"{spec.name} has no answer for {', '.join(map(repr, keys))}")
        return found, total, columns
    finally:
        con.close()


@click.command("explain", short_help="Why a row has its action; its request before and after.")
@click.argument("spec")
@click.argument("key")
@common
def explain_command(common: Common, spec: str, key: str) -> None:
    """Explain what the next plan would do with the row KEY of SPEC, and why."""
    import json

    import msgspec

    from batchform.cli.wiring import open_session

    with open_session(common) as session:
        explanation = _explain(session, session.spec(spec), key)
        if common.as_json:
            click.echo(json.dumps(msgspec.to_builtins(explanation), ensure_ascii=False))
            return
        from batchform.view.tables import print_explanation

        print_explanation(explanation)


def _explain(session: Session, spec: ResolvedSpec, key: str) -> Explanation:
    from batchform.plan.explain import explain_row
    from batchform.view.values import Component, Explanation

    work = session.work([spec])[0]
    found = explain_row(work, session.ledger, session.settings([spec]), key)
    return Explanation(
        spec=spec.name,
        key=key,
        symbol=found.action.symbol,
        action=found.action.value,
        reason=found.reason.value if found.reason else "",
        components=tuple(Component(n, b, a) for n, b, a in found.components),
        before=found.before,
        after=found.after,
        facts=found.facts,
        notes=found.notes,
    )


@click.command("render", short_help="The exact request of a row.")
@click.argument("spec")
@click.option(
    "--key", "keys", multiple=True, metavar="KEY", help="A row's key; repeat for several. Default: the first row."
)
@click.option("--all", "everything", is_flag=True, help="All rows, one JSON line each.")
@after
@common
def render_command(common: Common, spec: str, keys: Sequence[str], everything: bool, failures: Sequence[str]) -> None:
    """Print the exact JSON that the API would receive. One row: pretty; several, or with --json: a line each."""
    import json

    from batchform.cli.rows import with_files
    from batchform.cli.rungs import climbed_rows
    from batchform.cli.wiring import open_session

    with open_session(common) as session:
        resolved = session.spec(spec)
        rows = with_files(session, resolved, keys=keys, limit=None if everything else 1)
        found = [(key, request) for key, request, _ in climbed_rows(session, resolved, rows, failures)[1]]
        for key, request in found:
            if len(found) == 1 and not common.as_json:
                click.echo(json.dumps(json.loads(request), indent=2, ensure_ascii=False))
            else:
                click.echo('{"key":' + json.dumps(key, ensure_ascii=False) + ',"request":' + request.decode() + "}")

"""`status`, `results`, `explain` and `render`: look, without changing anything."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from batchform.cli.options import Common, common, selection
from batchform.cli.rungs import after

if TYPE_CHECKING:
    from batchform.cli.wiring import Session
    from batchform.plan.explain_groups import SpecExplanation
    from batchform.plan.work import Settings, Work
    from batchform.spec.resolved import ResolvedSpec
    from batchform.view.values import Explanation


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
    help="Hours before they expire from which --check warns.",
)
@common
def status_command(common: Common, select: Sequence[str], everything: bool, check: bool, within: float) -> int:
    """What the ledger knows: reads it only, asks no service. Exit code 8 while a submission is unknown."""
    import json

    import msgspec

    from batchform.cli.looking import status_of
    from batchform.cli.wiring import open_session
    from batchform.errors import UnknownSubmissions
    from batchform.view.attention import expiring

    with open_session(common) as session:
        status = status_of(session, session.select(select), everything, whole=not select)
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


@click.command("results", short_help="The first answers of a spec, as a table.")
@click.argument("spec")
@click.option("--rows", default=10, show_default=True, type=click.IntRange(1), help="How many rows.")
@click.option("--key", "keys", multiple=True, metavar="KEY", help="Only these rows; repeat for several.")
@common
def results_command(common: Common, spec: str, rows: int, keys: Sequence[str]) -> None:
    """Show answers of SPEC from the ledger's archive, in the columns of its destination."""
    import json

    from batchform.cli.looking import first_answers
    from batchform.cli.wiring import open_session
    from batchform.view.values import ResultsTable

    with open_session(common) as session:
        resolved = session.spec(spec)
        found, total, columns = first_answers(session, resolved, rows, keys)
        if common.as_json:
            for row in found:
                click.echo(json.dumps(dict(zip(columns, row, strict=True)), default=str, ensure_ascii=False))
            return
        from batchform.view.tables import print_results

        delivery = session.ledger.control().deliveries.get(spec)
        print_results(ResultsTable(spec, columns, tuple(found), total, location=delivery.location if delivery else ""))


@click.command("explain", short_help="Why rows have their actions; requests before and after.")
@click.argument("spec")
@click.argument("keys", nargs=-1, metavar="[KEY]...")
@click.option("--sample", metavar="N", type=click.IntRange(1), help="Explain N rows of those that an edit concerns.")
@common
def explain_command(common: Common, spec: str, keys: Sequence[str], sample: int | None) -> None:
    """Explain what the next plan would do with rows of SPEC, and why: with each KEY, or, without one, with all rows,
    group by group."""
    import json

    import msgspec

    from batchform.cli.wiring import open_session

    with open_session(common) as session:
        resolved = session.spec(spec)
        if not keys:
            groups = _groups(session, resolved, sample or 3)
            if sample is None:
                _echo_groups(common, resolved.name, groups)
                return
            keys = _chosen(groups, sample)
        elif resolved.splits:
            from batchform.cli.rows import keys_of_parts

            keys = keys_of_parts(session, resolved, keys)
        for number, key in enumerate(keys):
            explanation = _explain(session, resolved, key)
            if common.as_json:
                click.echo(json.dumps(msgspec.to_builtins(explanation), ensure_ascii=False))
                continue
            from batchform.view.tables import print_explanation

            if number:
                click.echo()
            print_explanation(explanation)


def _groups(session: Session, spec: ResolvedSpec, examples: int) -> SpecExplanation:
    from batchform.plan.explain_groups import explain_spec

    with _as_planned(session, spec) as (work, settings):
        return explain_spec(work, session.ledger, settings, examples=examples)


@contextmanager
def _as_planned(session: Session, spec: ResolvedSpec) -> Iterator[tuple[Work, Settings]]:
    """What one spec is planned with, its rows under the names and keys that a plan would see."""
    from batchform.plan.moving import moved_on
    from batchform.plan.work import Saving

    work, folder = session.work([spec]), session.scratch / "explained"
    folder.mkdir(exist_ok=True)
    settings = session.settings([spec])
    with moved_on(session.project, work, session.ledger, settings, folder=folder, save=Saving()) as (_, seen):
        yield work[0], seen


def _chosen(groups: SpecExplanation, rows: int) -> list[str]:
    """So many keys, one of each group in turn, the largest group first."""
    from itertools import chain, zip_longest

    turns = chain.from_iterable(zip_longest(*(group.keys for group in groups.groups)))
    return [key for key in turns if key is not None][:rows]


def _echo_groups(common: Common, name: str, found: SpecExplanation) -> None:
    import json

    import msgspec

    if common.as_json:
        click.echo(json.dumps({"spec": name, **msgspec.to_builtins(found)}, ensure_ascii=False))
        return
    from batchform.view.explained import print_groups

    print_groups(name, found)


def _explain(session: Session, spec: ResolvedSpec, key: str) -> Explanation:
    from batchform.plan.explain import explain_row
    from batchform.view.values import Component, Explanation

    with _as_planned(session, spec) as (work, settings):
        found = explain_row(work, session.ledger, settings, key)
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

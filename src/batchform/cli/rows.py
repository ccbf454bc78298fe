"""`rerun` and `try`: rows that a person wants sent again, or tried before a batch is paid for."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from batchform.cli.options import Common, allowances, common
from batchform.cli.rungs import after

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

    from batchform.cli.wiring import Session
    from batchform.ports import Backend
    from batchform.rows.attached import AttachedFile
    from batchform.rows.keyed import KeyedRows
    from batchform.spec.resolved import ResolvedSpec


@click.command("rerun", short_help="Ask for answered rows to be sent again; shown in the next plan.")
@click.argument("spec")
@click.option("--key", "keys", multiple=True, metavar="KEY", help="A row's key; repeat for several.")
@click.option("--where", metavar="SQL", help="Condition on the source's columns.")
@click.option("--reason", default="", metavar="TEXT", help="Why, recorded in the ledger.")
@common
def rerun_command(common: Common, spec: str, keys: Sequence[str], where: str | None, reason: str) -> None:
    """Record that rows of SPEC should be sent again. Nothing is sent: `plan` prices them, `apply` sends them."""
    from batchform.cli.wiring import open_session
    from batchform.errors import UsageError
    from batchform.ledger.records import RerunRequested

    if not keys and not where:
        raise UsageError("name the rows with --key or --where", hint='All of them: --where "true"')
    with open_session(common) as session:
        resolved = session.spec(spec)
        name, rows, in_flight = _choose(session, resolved, keys, where)
        if rows:
            event = RerunRequested(
                at=session.clock.now().isoformat(),
                by=session.who,
                spec=spec,
                chosen=name,
                rows=rows,
                keys=tuple(keys),
                where=where,
                reason=reason,
            )
            session.ledger.commit([event])
        if in_flight:
            click.echo(
                f"{in_flight:,} of these rows are in flight and left out: ask again once they are back.", err=True
            )
        if not common.quiet:
            noun = "row is" if rows == 1 else "rows are"
            click.echo(f"Recorded: {rows:,} {noun} to be sent again. Review with: batchform plan -s {spec}")


def _choose(session: Session, spec: ResolvedSpec, keys: Sequence[str], where: str | None) -> tuple[str, int, int]:
    """Settle now which rows are meant: (blob of their key hashes, how many, how many more are in flight).

    Raises UsageError for keys that are not there, SourceError for bad SQL.
    """
    import secrets

    import duckdb

    from batchform.adapters.sources.sql import check_condition
    from batchform.errors import SourceError
    from batchform.ledger.records import rerun_name
    from batchform.rows.keyed import WIDE
    from batchform.rows.pages import chosen_sql
    from batchform.rows.sql import literal

    con, _ = _opened(session, spec, whole=where is not None, attached=spec.splits)
    try:
        conditions = ["true"]
        if keys:
            conditions.append(chosen_sql(keys, spec))
            _refuse_missing(con, spec, keys)
        if where:
            check_condition(where)
            conditions.append(f"({where})")
        con.execute(
            f"CREATE TEMP TABLE bf_asked AS SELECT bf_key_hash AS key_hash FROM {WIDE} WHERE {' AND '.join(conditions)}"
        )
        in_flight = 0
        if spec.name in session.ledger.specs():
            rows = session.ledger.rows_relation(con, spec.name)
            waiting = f"SELECT key_hash FROM {rows} WHERE status = 'in_flight'"
            in_flight = con.execute(f"SELECT count(*) FROM bf_asked WHERE key_hash IN ({waiting})").fetchall()[0][0]
            con.execute(f"DELETE FROM bf_asked WHERE key_hash IN ({waiting})")
        path = session.scratch / "rerun.parquet"
        con.execute(f"COPY (SELECT key_hash FROM bf_asked ORDER BY key_hash) TO {literal(str(path))} (FORMAT parquet)")
        count = con.execute("SELECT count(*) FROM bf_asked").fetchall()[0][0]
    except duckdb.Error as exc:
        raise SourceError(f"--where {where!r}: {str(exc).splitlines()[0]}", hint="Nothing was recorded.") from exc
    finally:
        con.close()
    name = rerun_name(secrets.token_hex(6))
    if count:
        session.ledger.put_blob(name, path)
    return name, count, in_flight


def keys_of_parts(session: Session, spec: ResolvedSpec, keys: Sequence[str]) -> list[str]:
    """Keys with those of their parts in place of keys of rows whose PDF is asked about in parts."""
    from batchform.rows.keyed import WIDE
    from batchform.rows.pages import chosen_sql

    con, _ = _opened(session, spec, attached=True)
    try:
        found = []
        for key in keys:
            rows = con.execute(f"SELECT bf_key FROM {WIDE} WHERE {chosen_sql([key], spec)}").fetchall()
            found += [str(name) for (name,) in rows] or [key]
        return found
    finally:
        con.close()


def _refuse_missing(con: DuckDBPyConnection, spec: ResolvedSpec, keys: Sequence[str]) -> None:
    from batchform.errors import UsageError
    from batchform.rows.keyed import WIDE
    from batchform.rows.pages import chosen_sql, row_key

    rows = con.execute(f"SELECT bf_key FROM {WIDE} WHERE {chosen_sql(keys, spec)}").fetchall()
    found = {name for (key,) in rows for name in (key, row_key(key))}
    missing = [k for k in keys if k not in found]
    if missing:
        raise UsageError(
            f"{spec.name} has no row with key {', '.join(map(repr, missing[:5]))}", hint="Nothing was recorded."
        )


def _opened(
    session: Session, spec: ResolvedSpec, *, whole: bool = False, attached: bool = False
) -> tuple[DuckDBPyConnection, KeyedRows]:
    from batchform.rows.keyed import prepare

    con = session.connect()
    try:
        source = session.rows(spec, whole=whole) if attached else session.source(spec, whole=whole)
        return con, prepare(con, spec, source, recorded_fp_columns=())
    except BaseException:
        con.close()
        raise


@click.command("try", short_help="Send a few rows through the synchronous API, before paying for a batch.")
@click.argument("spec")
@click.option("--rows", default=3, show_default=True, type=click.IntRange(1, 100), help="How many rows, from the top.")
@click.option("--key", "keys", multiple=True, metavar="KEY", help="These rows in place of the first ones.")
@after
@allowances
@common
def try_command(
    common: Common,
    spec: str,
    rows: int,
    keys: Sequence[str],
    allow: Sequence[str],
    reason: str,
    failures: Sequence[str],
) -> int:
    """Send the exact requests of a few rows of SPEC at the synchronous price.

    Nothing is delivered, and nothing recorded but what it cost, which counts against the same budgets as jobs.
    """
    import json

    from batchform.cli.places import registry_of
    from batchform.cli.rungs import climbed_rows
    from batchform.cli.wiring import open_session
    from batchform.run.budget import TrialBudget
    from batchform.run.trial import try_rows
    from batchform.spec.realm import realm_of

    with open_session(common) as session:
        resolved = session.spec(spec)
        rendered_rows = with_files(session, resolved, keys=keys, limit=rows)
        resolved, rendered_rows = climbed_rows(session, resolved, rendered_rows, failures)
        budget = TrialBudget(session.project, resolved, session.ledger, session.clock, allow=allow, reason=reason)
        backend = session.backends(resolved.backend_name)
        requests = _sendable(session, backend, resolved, rendered_rows)
        now, failed = session.clock.now(), 0
        try:
            for outcome in try_rows(
                resolved,
                backend,
                requests,
                registry=registry_of(session, resolved.backend_name),
                now=now,
                budget=budget,
            ):
                failed += outcome.failure is not None
                if common.as_json:
                    click.echo(json.dumps(outcome.as_json(), ensure_ascii=False))
                else:
                    click.echo(outcome.describe())
            if requests and not common.as_json and not common.quiet:
                free = "; the emulator charges nothing" if realm_of(resolved.backend) == "emulator" else ""
                click.echo(f"Costs are at the synchronous price{free}.")
        finally:
            budget.record()
    return 6 if failed else 0


def _sendable(
    session: Session, backend: Backend, spec: ResolvedSpec, rows: Sequence[tuple[str, bytes, list[AttachedFile]]]
) -> list[tuple[str, bytes]]:
    """(key, request) pairs, with files where the service can read them."""
    if not spec.attachments:
        return [(key, request) for key, request, _ in rows]
    from batchform.run.attachments import with_own_files
    from batchform.view.progress import LineProgress

    return with_own_files(session.run_context(LineProgress(sys.stderr)), backend, rows)


def with_files(
    session: Session, spec: ResolvedSpec, *, keys: Sequence[str], limit: int | None
) -> list[tuple[str, bytes, list[AttachedFile]]]:
    """(key, canonical request, files that it names) of the named rows, or of the first `limit` rows."""
    from batchform.errors import UsageError
    from batchform.rows.keyed import WIDE, rendered_columns
    from batchform.rows.pages import chosen_sql, row_key
    from batchform.rows.request import RequestRenderer
    from batchform.rows.stream import stream, values_sql

    con, keyed = _opened(session, spec, attached=True)
    try:
        names = rendered_columns(spec, keyed.columns)
        columns = values_sql(names, keyed.columns, "w")
        where = f" WHERE {chosen_sql(keys, spec)}" if keys else ""
        bound = f" LIMIT {limit}" if limit and not keys else ""
        batches = stream(con, f"SELECT w.bf_key{columns} FROM {WIDE} w{where}{bound}")
        found: list[tuple[Any, ...]] = [row for batch in batches for row in batch]
        there = {name for row in found for name in (row[0], row_key(row[0]))}
        if missing := [k for k in keys if k not in there]:
            raise UsageError(f"{spec.name} has no row with key {', '.join(map(repr, missing[:5]))}")
        renderer, made = RequestRenderer(spec, names), []
        for row in found:
            request = renderer.render(row[0], row[1:])
            made.append((row[0], request, renderer.carried.of(request) if renderer.carried else []))
        return made
    finally:
        con.close()

"""`batchform jobs`: the remote jobs that the ledger knows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from batchform.cli.options import Common, common

if TYPE_CHECKING:
    from batchform.cli.wiring import Session
    from batchform.ledger.records import JobRecord
    from batchform.ports import Backend


@click.group("jobs", short_help="Remote jobs: list, show, cancel, delete.")
def jobs_command() -> None:
    """Remote jobs by their tag. Nothing here is ever done by a timer: only by these commands."""


@jobs_command.command("list")
@click.option("--open", "only_open", is_flag=True, help="Only jobs that are not settled.")
@common
def list_jobs(common: Common, only_open: bool) -> None:
    """List the jobs of this project."""
    import json
    from dataclasses import asdict

    from batchform.cli.wiring import open_session
    from batchform.view.values import job_line

    with open_session(common) as session:
        now, service = session.clock.now(), session.registry.service
        records = [j for j in session.ledger.control().jobs.values() if j.open or not only_open]
        lines = [job_line(j, now=now, service=service) for j in records]
        if common.as_json:
            click.echo(json.dumps([asdict(line) for line in lines], default=str))
            return
        from batchform.view.tables import print_jobs

        print_jobs(lines)


@jobs_command.command("show")
@click.argument("tag")
@common
def show_job(common: Common, tag: str) -> None:
    """Show one job: what the ledger recorded, and what the service says now."""
    import json
    from dataclasses import asdict

    import msgspec

    from batchform.cli.wiring import open_session
    from batchform.errors import BackendError

    with open_session(common) as session:
        record = _record(session, tag)
        shown = {"recorded": msgspec.to_builtins(record)}
        if record.job:
            try:
                shown["service"] = asdict(_backend(session, record).get(record.job))
            except BackendError as exc:
                shown["service"] = exc.message
        click.echo(json.dumps(shown, indent=2, default=str))


@jobs_command.command("cancel")
@click.argument("tag")
@common
def cancel_job(common: Common, tag: str) -> None:
    """Ask the service to cancel a job. Its state is taken over by the next sync; answers it has are collected."""
    from batchform.cli.wiring import open_session

    with open_session(common) as session:
        record = _record(session, tag, must_exist=True)
        _backend(session, record).cancel(record.job or "")
        if not common.quiet:
            click.echo(f"{tag}: asked to cancel. `batchform sync` takes over what comes of it.")


@jobs_command.command("delete")
@click.argument("tag")
@common
def delete_job(common: Common, tag: str) -> None:
    """Delete a settled job at the service. What the ledger archived stays."""
    from batchform.cli.wiring import open_session
    from batchform.errors import UsageError
    from batchform.ledger.records import JobDeleted

    with open_session(common) as session:
        record = _record(session, tag, must_exist=True)
        if record.open:
            raise UsageError(
                f"{tag} is not settled: deleting it could lose answers that are paid for",
                hint=f"Run `batchform sync` first, or `batchform jobs cancel {tag}` and then sync.",
            )
        _backend(session, record).delete(record.job or "")
        session.ledger.commit([JobDeleted(at=session.clock.now().isoformat(), by=session.who, tag=tag)])
        if not common.quiet:
            click.echo(f"{tag}: deleted at the service.")


def _backend(session: Session, record: JobRecord) -> Backend:
    """The backend of a job, refused when its credential is not the one that made the job."""
    from batchform.errors import BackendError

    backend = session.backends(record.intent.backend)
    if backend.fingerprint != record.intent.fingerprint:
        raise BackendError(
            f"{record.tag} was made with another credential or endpoint than backend {record.intent.backend} has now",
            hint="Use the credential it was made with. Nothing was changed.",
        )
    return backend


def _record(session: Session, tag: str, *, must_exist: bool = False) -> JobRecord:
    from difflib import get_close_matches

    from batchform.errors import UsageError

    jobs = session.ledger.control().jobs
    record = jobs.get(tag) or next((j for j in jobs.values() if j.job == tag), None)
    if record is None:
        near = get_close_matches(tag, jobs, n=1)
        raise UsageError(
            f"no job has the tag {tag!r}", hint=f"Did you mean {near[0]}?" if near else "batchform jobs list"
        )
    if must_exist and not record.job:
        raise UsageError(f"it is not known whether {tag} was created", hint="Run `batchform sync`: it looks for it.")
    return record

"""`batchform jobs`: the remote jobs that the ledger knows."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from batchform.cli.options import Common, common

if TYPE_CHECKING:
    from batchform.cli.wiring import Session
    from batchform.ledger.records import JobRecord
    from batchform.ports import Backend
    from batchform.run.context import RunContext


@click.group("jobs", short_help="Remote jobs: list, show, cancel, delete, settle by hand.")
def jobs_command() -> None:
    """Remote jobs by their tag. Nothing here is ever done by a timer: only by these commands.

    `adopt`, `not-submitted`, `abandon` and `disown` settle by hand what batchform cannot know. They are recorded with
    who did it.
    """


@jobs_command.command("list")
@click.option("--open", "only_open", is_flag=True, help="Only jobs that are not settled.")
@common
def list_jobs(common: Common, only_open: bool) -> None:
    """List the jobs of this project."""
    import json

    import msgspec

    from batchform.cli.wiring import open_session
    from batchform.view.values import job_line

    with open_session(common) as session:
        now, service = session.clock.now(), session.registry.service
        records = [j for j in session.ledger.control().jobs.values() if j.open or not only_open]
        lines = [job_line(j, now=now, service=service) for j in records]
        if common.as_json:
            click.echo(json.dumps(msgspec.to_builtins(lines)))
            return
        from batchform.view.tables import print_jobs

        print_jobs(lines)


@jobs_command.command("show", short_help="Show one job: as recorded, and as the service says.")
@click.argument("tag")
@common
def show_job(common: Common, tag: str) -> None:
    """Show one job: what the ledger recorded, and what the service says now."""
    import json

    import msgspec

    from batchform.cli.wiring import open_session
    from batchform.errors import BackendError
    from batchform.plan.importing import IMPORTED

    with open_session(common) as session:
        record = _record(session, tag)
        shown = {"recorded": msgspec.to_builtins(record)}
        if record.job and record.how != IMPORTED:
            try:
                shown["service"] = msgspec.structs.asdict(_backend(session, record).get(record.job))
            except BackendError as exc:
                shown["service"] = exc.message
        click.echo(json.dumps(shown, indent=2, default=str))


@jobs_command.command("cancel")
@click.argument("tag")
@common
def cancel_job(common: Common, tag: str) -> None:
    """Ask the service to cancel a job. Its state is taken over by the next sync; answers it has are collected.

    A submission of unknown outcome is looked for first.
    """
    from batchform.cli.wiring import open_session

    with open_session(common) as session:
        record = _submitted(session, common, tag)
        _backend(session, record).cancel(record.job or "")
        if not common.quiet:
            click.echo(f"{tag}: asked to cancel. `batchform sync` takes over what comes of it.")


@jobs_command.command("delete")
@click.argument("tag")
@common
def delete_job(common: Common, tag: str) -> None:
    """Delete a settled job at the service. What the ledger archived stays."""
    from batchform.cli.running import make_progress_for
    from batchform.cli.wiring import open_session
    from batchform.ledger.records import JobDeleted
    from batchform.run.by_hand import refuse_to_delete

    with open_session(common) as session:
        record = _submitted(session, common, tag)
        backend = _backend(session, record)
        with make_progress_for(common) as progress:
            refuse_to_delete(session.run_context(progress), record)
        backend.delete(record.job or "")
        session.ledger.commit([JobDeleted(at=session.clock.now().isoformat(), by=session.who, tag=record.tag)])
        if not common.quiet:
            click.echo(f"{tag}: deleted at the service.")


@jobs_command.command("adopt", short_help="Say which job came of a submission of unknown outcome.")
@click.argument("tag")
@click.argument("job")
@click.option("--unseen", is_flag=True, help="Take your word for a job that this credential does not see.")
@common
def adopt_job(common: Common, tag: str, job: str, unseen: bool) -> None:
    """Record that JOB (its name at the service) is the job of the submission TAG, whose outcome was unknown.

    The job is compared with what was sent: its name, model, input and number of requests. Works also for a submission
    that was taken for lost; its rows, unless sent again since, then wait for this job.
    """
    from batchform.run.by_hand import adopt_by_hand

    with _run_context(common) as ctx:
        adopt_by_hand(ctx, tag, job, look="trust" if unseen else "must_see")
        if not common.quiet:
            click.echo(f"{tag}: its job is {job}. `batchform sync` follows it.")


@jobs_command.command("not-submitted", short_help="Say that no job came of a submission.")
@click.argument("tag")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@common
def not_submitted_job(common: Common, tag: str, yes: bool) -> None:
    """Record that no job came of the submission TAG, before its settle window has passed or when nobody can tell.

    Its rows may be sent again. If there was a job after all, they are paid for twice. It is looked for once more first.
    """
    from batchform.run.by_hand import check_not_submitted, not_submitted_by_hand
    from batchform.spec.wording import counted

    with _run_context(common) as ctx:
        record = check_not_submitted(ctx, tag)
        rows = counted(record.intent.rows, "row")
        _confirm(f"If {tag} has a job after all, {rows} will be paid for twice. Send them again?", yes)
        not_submitted_by_hand(ctx, record)
        if not common.quiet:
            click.echo(f"{tag}: taken for not submitted. {rows} may be sent again: batchform plan")


@jobs_command.command("abandon", short_help="Give up a job that can no longer be seen.")
@click.argument("tag")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@common
def abandon_job(common: Common, tag: str, yes: bool) -> None:
    """Give up a job that can no longer be seen, because its credential is gone for good. Its rows may be sent again.

    Refused while the service shows the job. If it is seen again later, it is taken up again. Results that are archived
    already, by a run that was interrupted, are collected and not given up.
    """
    from batchform.run.by_hand import abandon, check_abandon, is_archived
    from batchform.spec.wording import counted

    with _run_context(common) as ctx:
        record = check_abandon(ctx, tag)
        rows = counted(record.intent.rows, "row")
        if not is_archived(ctx, record):
            _confirm(f"What {record.job} answered is lost, and {rows} will be paid for again. Give it up?", yes)
        collected = abandon(ctx, record)
        if common.quiet:
            return
        if collected.archive is None:
            click.echo(f"{tag}: given up. {rows} may be sent again: batchform plan")
            return
        came = ", ".join(f"{n:,} {name}" for name, n in sorted(collected.rows.items()))
        click.echo(f"{tag}: its results were archived already: they were collected and nothing was given up: {came}.")


@jobs_command.command("disown", short_help="Leave a job to itself that an older ledger sent.")
@click.argument("job")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@common
def disown_job(common: Common, job: str, yes: bool) -> None:
    """Leave JOB to itself: one that this ledger sent and does not know, since it is an older copy of itself.

    Nothing is sent while the service lists such a job. Rather put the newest copy of the ledger's folder back: the
    answers of a job that is left to itself are lost, and its rows are paid for again.
    """
    from batchform.run.strangers import disown

    with _run_context(common) as ctx:
        event = disown(ctx, job)
        _confirm(f"What {event.tag} answered is lost, and its rows will be paid for again. Leave it to itself?", yes)
        ctx.ledger.commit([event])
        if not common.quiet:
            click.echo(f"{event.job}: left to itself. Its rows may be sent again: batchform plan")


@contextmanager
def _run_context(common: Common) -> Iterator[RunContext]:
    """What a run works with; notes go to standard error."""
    from batchform.cli.running import make_progress_for
    from batchform.cli.wiring import open_session

    with open_session(common) as session, make_progress_for(common) as progress:
        yield session.run_context(progress)


def _confirm(question: str, yes: bool) -> None:
    from batchform.cli.wiring import is_terminal
    from batchform.errors import UsageError

    if yes:
        return
    if not is_terminal():
        raise UsageError(question, hint="There is no terminal to ask: add --yes. Nothing was recorded.")
    click.confirm(question, abort=True)


def _submitted(session: Session, common: Common, tag: str) -> JobRecord:
    """The record of a job that exists. One of unknown outcome is looked for. Raises UsageError if there is none."""
    from batchform.cli.running import make_progress_for
    from batchform.errors import UsageError
    from batchform.plan.importing import IMPORTED
    from batchform.run.recover import recover

    record = _record(session, tag)
    if record.status == "intent":
        with make_progress_for(common) as progress:
            recover(session.run_context(progress), tags=[record.tag])
        record = _record(session, tag)
    if record.how == IMPORTED:
        raise UsageError(
            f"{tag} was imported from {record.job}: this ledger did not send it", hint="There is nothing to do."
        )
    if not record.job:
        hint = "Run `batchform sync`: it looks for it." if record.status == "intent" else "There is nothing to do."
        raise UsageError(f"{tag} has no job that is known ({record.status.replace('_', ' ')})", hint=hint)
    return record


def _backend(session: Session, record: JobRecord) -> Backend:
    """The backend of a job. Refused when its credential did not make the job and does not see it either."""
    from batchform.errors import AuthError, BackendError, NotFound

    backend = session.backends.of(record.intent)
    if backend.fingerprint == record.intent.fingerprint:
        return backend
    try:
        backend.get(record.job or "")
    except (NotFound, AuthError):
        raise BackendError(
            f"{record.tag} was made with another credential or endpoint than backend {record.intent.backend} has now",
            hint="Use the credential it was made with. Nothing was changed.",
        ) from None
    return backend


def _record(session: Session, tag: str) -> JobRecord:
    from batchform.run.by_hand import known_job

    return known_job(session.ledger.control().jobs, tag)

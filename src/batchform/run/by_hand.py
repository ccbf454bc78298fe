"""What a person settles: which job an intent has, that it has none, or that a job is given up. Recorded as theirs."""

from __future__ import annotations

from collections.abc import Mapping

from batchform.errors import AuthError, BackendError, NotFound, UsageError
from batchform.ledger.raw import results_name
from batchform.ledger.records import Collected, JobRecord
from batchform.ports import Backend, RemoteJob
from batchform.run.collect import Finished, collect
from batchform.run.context import RunContext, described
from batchform.run.lookup import look_through
from batchform.run.recover import adopt
from batchform.run.settle import not_submitted, submitted
from batchform.run.track import given_up, lives


def adopt_by_hand(ctx: RunContext, tag: str, job: str, *, look: str = "must_see") -> None:
    """Record that `job` is the job of the intent `tag`, also of one that was taken for not submitted.

    look: "must_see" asks the service for the job and compares; "trust" takes the person's word for a job that this
    credential does not see. Raises UsageError for what is not so, BackendError when the service cannot say.
    """
    record = _open_intent(ctx, tag, late="allowed")
    owner = next((r for r in ctx.ledger.control().jobs.values() if r.job == job), None)
    if owner is not None:
        raise UsageError(f"{job} is the job of {owner.tag}", hint=f"batchform jobs show {owner.tag}")
    remote = _seen(ctx, record, job, look)
    _refuse_another(record, remote)
    backend = _backend_or_none(ctx, record)
    if backend is not None:
        done = adopt(ctx, backend, record, [remote], how="manual")
    else:
        done = submitted(ctx, record, job, how="manual")
    if not done:
        raise _overtaken(ctx, tag)


def _seen(ctx: RunContext, record: JobRecord, job: str, look: str) -> RemoteJob:
    """A job as the service shows it, or as a person says that it is."""
    name = record.intent.backend
    try:
        return ctx.backend_of(record.intent).get(job)
    except (NotFound, AuthError) as error:
        what = f"Backend {name} does not show {job} to its present credential: {error.message}"
    except UsageError as error:
        what = f"{job} cannot be looked at: {error.message}"
    if look == "trust":
        return RemoteJob(name=job, tag=record.tag, state="PENDING")
    raise BackendError(
        what,
        hint=f"Use backend {name} with the credential that made it. If you know that it is the job of this tag, add "
        "--unseen: it is then recorded without a look, and collected once a credential sees it.",
    )


def _refuse_another(record: JobRecord, remote: RemoteJob) -> None:
    """Refuse a job that cannot be the one of an intent, by all that the service says of it."""
    intent = record.intent
    reads_ours = bool(intent.input_name) and remote.input_name == intent.input_name
    if not record.tag.startswith(remote.tag) and not reads_ours:  # a service may drop, cut or alter a name
        raise UsageError(f"{remote.name} is named {remote.tag}, not {record.tag}", hint="Nothing was recorded.")
    if remote.model and remote.model != intent.model.removeprefix("models/"):
        raise UsageError(
            f"{remote.name} asks {remote.model}, and {record.tag} was for {intent.model}", hint="Nothing was recorded."
        )
    if remote.input_name and intent.input_name and remote.input_name != intent.input_name:
        raise UsageError(
            f"{remote.name} reads {remote.input_name}, and {record.tag} staged {intent.input_name}",
            hint="Nothing was recorded.",
        )
    total = remote.counts.get("total", intent.requests)
    if not intent.may_hold(total):
        raise UsageError(
            f"{remote.name} holds {total} requests, and {record.tag} has {intent.requests}",
            hint="Nothing was recorded.",
        )


def check_not_submitted(ctx: RunContext, tag: str) -> JobRecord:
    """The open intent of a tag, looked for once more: a person may be wrong. Raises UsageError if its job is listed.

    A service that cannot be asked, or shows nothing to this credential, leaves it to the person; so does a backend that
    the project has no longer.
    """
    record = _open_intent(ctx, tag, late="refused")
    try:
        found = look_through(ctx, ctx.backend_of(record.intent), [record]).found.get(tag)
    except (BackendError, UsageError) as error:
        ctx.progress.note(f"The service could not be asked for {tag}: {error.message}")
        found = None
    if found:
        raise UsageError(
            f"{tag} was submitted: the service has it as {found[0].name} ({found[0].state})",
            hint="`batchform sync` takes it over. To be rid of it, cancel it after that.",
        )
    return record


def not_submitted_by_hand(ctx: RunContext, record: JobRecord) -> None:
    """Record that no job came of an intent, on a person's word. Its rows may be sent again."""
    if not not_submitted(ctx, record, reason=f"settled by hand by {ctx.who}", how="manual"):
        raise _overtaken(ctx, record.tag)


def check_abandon(ctx: RunContext, tag: str) -> JobRecord:
    """The open job of a tag, which the service must not show. Raises UsageError if it does: it can be cancelled."""
    record = _known(ctx, tag)
    if record.status != "submitted" or record.job is None:
        raise UsageError(f"{tag} is {_stands(record)}: there is no open job to give up")
    backend = _backend_or_none(ctx, record)
    if backend is None:
        return record
    try:
        remote = backend.get(record.job)
    except (NotFound, AuthError):
        return record
    what = "`batchform sync` collects it" if remote.terminal else f"batchform jobs cancel {tag}"
    raise UsageError(f"job {record.job} of {tag} is there, in state {remote.state}", hint=f"It is not lost: {what}.")


def refuse_to_delete(ctx: RunContext, record: JobRecord) -> None:
    """Refuse to delete a job that may still bring answers: one that is open, or was given up on without results and is
    there after all. Raises UsageError, or BackendError when the service cannot say."""
    if record.open:
        raise UsageError(
            f"{record.tag} is not settled: deleting it could lose answers that are paid for",
            hint=f"Run `batchform sync` first, or `batchform jobs cancel {record.tag}` and then sync.",
        )
    if not given_up(ctx, record):
        return
    try:
        remote = ctx.backend_of(record.intent).get(record.job or "")
    except NotFound:
        return
    if lives(ctx, record):
        raise UsageError(
            f"{record.tag} was given up on, and is there after all, in state {remote.state}: deleting it would lose "
            "answers that are paid for",
            hint="Run `batchform sync`: it takes the job up again.",
        )


def _backend_or_none(ctx: RunContext, record: JobRecord) -> Backend | None:
    """The backend of a job; None if it cannot be opened, because it is gone from the project or its key is."""
    try:
        return ctx.backend_of(record.intent)
    except (AuthError, UsageError):
        return None


def is_archived(ctx: RunContext, record: JobRecord) -> bool:
    """Whether the results of an open job are in the ledger: stored by a run that ended before it could record them."""
    return bool(results_name(ctx.ledger, record.tag))


def abandon(ctx: RunContext, record: JobRecord) -> Collected:
    """Give a job up on a person's word: its rows count as expired, with this attempt charged, and are sent again as far
    as `retry` allows. If the job is seen again, it is taken up again. Results that are archived already are collected:
    then `archive` of what is returned names them, and nothing is given up."""
    collected = collect(ctx, Finished(record, None, f"Job {record.job} was given up by {ctx.who}"))
    if collected is None:
        raise _overtaken(ctx, record.tag)
    return collected


def _open_intent(ctx: RunContext, tag: str, *, late: str) -> JobRecord:
    record = _known(ctx, tag)
    if record.status == "intent" or (record.status == "not_submitted" and late == "allowed"):
        return record
    raise UsageError(f"{tag} is settled already: {_stands(record)}", hint=f"batchform jobs show {tag}")


def _known(ctx: RunContext, tag: str) -> JobRecord:
    ctx.ledger.refresh()
    return known_job(ctx.ledger.control().jobs, tag)


def known_job(jobs: Mapping[str, JobRecord], tag: str) -> JobRecord:
    """The job of a tag, or of the service's name for it. Raises UsageError with the nearest tag."""
    from difflib import get_close_matches

    record = jobs.get(tag) or next((j for j in jobs.values() if j.job == tag), None)
    if record is None:
        near = get_close_matches(tag, jobs, n=1)
        raise UsageError(
            f"no job has the tag {tag!r}", hint=f"Did you mean {near[0]}?" if near else "batchform jobs list"
        )
    return record


def _stands(record: JobRecord) -> str:
    """Where a job stands, in words."""
    if record.status == "not_submitted":
        return f"not submitted ({record.reason})"
    if record.status == "intent":
        return "of unknown outcome"
    return f"{record.status} as {record.job}"


def _overtaken(ctx: RunContext, tag: str) -> UsageError:
    ctx.ledger.refresh()
    record = ctx.ledger.control().jobs[tag]
    return UsageError(f"another run was faster: {described(record.intent)} is {_stands(record)}")

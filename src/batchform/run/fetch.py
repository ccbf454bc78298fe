"""Results of a job on their way to the archive: fetched again while less comes than the job should have.

What is archived is never fetched again, and a row without a result is paid for again. So a short file, an empty answer
of a proxy or a page of HTML is not believed at first: results that are short have the settle window to become whole.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from batchform.errors import BackendError
from batchform.ledger.records import JobRecord
from batchform.ports import RemoteJob
from batchform.run.context import RunContext, results_may_come
from batchform.spec.wording import counted

_FETCHES: Final = 3


class ShortResults(BackendError):
    """Fewer results than a job should have, and too early to call the others missing."""


def fetch(ctx: RunContext, record: JobRecord, remote: RemoteJob, to: Path) -> None:
    """Write a job's results to a file. If they are fewer than they should be, the most of three looks are taken.

    Raises ShortResults while the others may still come, NotFound when the service has them no longer, BackendError when
    they cannot be fetched now.
    """
    backend, wanted = ctx.backend_of(record.intent), _wanted(record, remote)
    may_come = results_may_come(ctx, record, remote)
    looks = 1 if may_come and record.state == remote.state else _FETCHES  # the next poll is another look
    most, again = -1, to.with_name(f"{to.name}.again")
    for attempt in range(1, looks + 1):
        backend.download(remote, again)
        found = _results_in(again)
        if found > most:
            again.replace(to)
            most = found
        if most >= wanted:
            return
        if attempt < looks:
            ctx.progress.note(
                f"The results of {record.tag} hold {counted(found, 'row')} of {wanted}: they are fetched again."
            )
            ctx.clock.sleep(min(2.0**attempt, ctx.settings(record.intent.backend).poll))
    again.unlink(missing_ok=True)
    if may_come:
        raise ShortResults(
            f"The results of {record.tag} hold {counted(most, 'row')} of {wanted}; the others may still come, and are "
            "waited for."
        )


def _wanted(record: JobRecord, remote: RemoteJob) -> int:
    """How many results there should be at least. A job that did not succeed says itself how far it came."""
    whole = record.intent.results or record.intent.requests  # a resumed job hands on what was there
    if remote.state == "SUCCEEDED":
        return whole
    done = remote.counts.get("succeeded", 0) + remote.counts.get("failed", 0)
    return min(whole, done)


def _results_in(path: Path) -> int:
    """Lines that say whose result they are, by a key or by the request that they repeat, and hold one."""
    from batchform.run.parse import key_hash_of
    from batchform.run.plain_lines import plain

    count = 0
    with path.open("rb") as lines:
        for line in lines:
            found = plain(line)
            count += _is_result(line) if found is None or key_hash_of(found.key) is None else 1
    return count


def _is_result(line: bytes) -> bool:
    from batchform.run.classify import key_of
    from batchform.run.parse import decode_line, key_hash_of

    value = decode_line(line)
    if not isinstance(value, dict):
        return False
    key = key_of(value)
    if key_hash_of(key) is None and (key or not isinstance(value.get("request"), dict)):
        return False
    response = value.get("response")
    return bool((isinstance(response, dict) and response) or value.get("error") or value.get("status"))

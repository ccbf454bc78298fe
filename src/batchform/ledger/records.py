"""What the ledger records: control events (JSON lines) and row states (Parquet). Documented in docs/ledger.md.

A row-state record is the whole state of one (spec, key) at one commit: the view is "last record wins", a pure fold.
"""

from __future__ import annotations

from typing import Final, Literal

import msgspec

from batchform.canon import digest
from batchform.ledger.cache_use import CacheUse as CacheUse
from batchform.ledger.event import Event as Event
from batchform.ledger.head import Head as Head
from batchform.ledger.head import Retired as Retired
from batchform.ledger.head import Segment as Segment
from batchform.ledger.moves import Forgotten as Forgotten
from batchform.ledger.moves import Moved as Moved
from batchform.ledger.names import answers_name as answers_name
from batchform.ledger.names import archive_name as archive_name
from batchform.ledger.names import bears_mark as bears_mark
from batchform.ledger.names import ledger_mark as ledger_mark
from batchform.ledger.names import reference_name as reference_name
from batchform.ledger.names import rerun_name as rerun_name
from batchform.ledger.names import tag_of_results as tag_of_results
from batchform.ledger.names import with_mark as with_mark
from batchform.ledger.rollouts import Reached as Reached
from batchform.ledger.rollouts import StageApproved as StageApproved
from batchform.ledger.rollouts import StageReached as StageReached

FORMAT_VERSION: Final = 1

# Column → DuckDB type of rows-*.parquet. One spec per segment. All nullable except key, key_hash, status.
ROW_COLUMNS: Final[dict[str, str]] = {
    "key": "VARCHAR",  # the row's key, as text
    "key_hash": "UUID",  # first 128 bits of sha256(key): what joins use
    "row_fp": "UUID",  # input fingerprint: md5 over fp_columns; a hint, never a reason to pay
    "fp_columns": "VARCHAR",  # JSON list of the columns that row_fp covers
    "request_fp": "BLOB",  # 32 bytes: the request that `status` speaks of
    "fp_version": "UTINYINT",
    "prompt_digest": "VARCHAR",  # components of the request, so that a plan can say why
    "model": "VARCHAR",
    "config_digest": "VARCHAR",
    "schema_digest": "VARCHAR",
    "realm": "VARCHAR",
    "status": "VARCHAR",  # a RowStatus
    "attempt": "INTEGER",  # attempts charged to request_fp so far, this one included
    "tag": "VARCHAR",  # the job of the last attempt
    "request_bytes": "BIGINT",  # canonical bytes of request_fp: what input tokens are estimated from
    "failure": "VARCHAR",  # failure class when failed or pending after a failure
    "failure_message": "VARCHAR",
    "failure_parse": "VARCHAR",  # of invalid_output: how the refused answer was read; another reading may take it
    # the last answer, which may be to an earlier request than request_fp:
    "answer_fp": "BLOB",
    "answer_tag": "VARCHAR",  # job whose archive holds it
    "answer_key_hash": "UUID",  # key_hash under which that archive holds it (another row's when reused)
    "answer_serial": "BIGINT",  # ledger serial that brought it; NULL in a fresh segment means the segment's serial
    "parse_digest": "VARCHAR",  # how it was parsed
    "answered_at": "TIMESTAMPTZ",
    "finish_reason": "VARCHAR",
    "model_version": "VARCHAR",
    "prompt_tokens": "BIGINT",
    "output_tokens": "BIGINT",
    "thought_tokens": "BIGINT",
    "cached_tokens": "BIGINT",
    "cost_usd": "DOUBLE",
    "changed_serial": "BIGINT",  # ledger serial of this record; NULL in a fresh segment means the segment's serial
    "at": "TIMESTAMPTZ",
}

UNPARSED: Final = digest(b"no spec: answers kept as text")
"""Parse digest, and `failure_parse`, of answers that came while their spec was not in the project. When it is back,
they are parsed again."""

RowStatus = Literal["in_flight", "answered", "failed", "pending", "absent", "gone"]
"""in_flight: in a job that is not settled; answered: request_fp is answered; failed: it is not, see failure; pending:
surely not sent or given back, may be sent again; absent: key left the source, answer kept and delivered; gone: key left
the source and was pruned from the destination (an answer, if any, is still archived)."""

# Column → DuckDB type of answers/<tag>.<parse>.parquet: results parsed from the archive, made again from it at will.
ANSWER_COLUMNS: Final[dict[str, str]] = {
    "tag": "VARCHAR",
    "key_hash": "UUID",
    "request_fp": "BLOB",  # the request that was answered, so that it is never paid for again
    "parse_digest": "VARCHAR",  # how this file was parsed
    "class": "VARCHAR",  # "answered" or a failure class
    "message": "VARCHAR",  # why it failed, for people
    "text": "VARCHAR",  # text parts that are not thoughts, joined
    "response": "VARCHAR",  # JSON text of the parsed answer when the spec's output is JSON
    "finish_reason": "VARCHAR",
    "model_version": "VARCHAR",
    "prompt_tokens": "BIGINT",
    "output_tokens": "BIGINT",  # candidates, thoughts not included
    "thought_tokens": "BIGINT",
    "cached_tokens": "BIGINT",
    "total_tokens": "BIGINT",
    "line": "BIGINT",  # 1-based line in the archive
}


# Columns of the same files that are NULL in most rows, and that files of earlier versions do not have.
ANSWER_DETAILS: Final[dict[str, str]] = {
    "function_calls": "VARCHAR",  # JSON list of the functions that the model wants called, with their arguments
    "tool_steps": "VARCHAR",  # JSON list of parts of the service's own tools: code that was run, what came of it
    "citations": "VARCHAR",  # JSON list of what the text was taken from
    "grounding": "VARCHAR",  # JSON of groundingMetadata: pages that were found, and what rests on each
    "url_context": "VARCHAR",  # JSON of urlContextMetadata: pages that were read
    "thoughts": "VARCHAR",  # text parts that are thoughts, joined
}


class Intent(Event, frozen=True, kw_only=True, tag=True):
    """About to create a job. Committed before the create call, together with the shard's rows as in_flight."""

    tag: str
    spec: str
    backend: str
    fingerprint: str  # of the credential, so that a 404 under another one is not believed
    realm: str
    model: str
    shard_digest: str
    rows: int
    requests: int
    bytes: int
    input_name: str | None  # staged input; None for inline
    deadline: str  # RFC 3339: a runner that wakes later than this must not create
    est_input_tokens: int = 0
    est_usd: float = 0.0
    est_usd_high: float = 0.0  # the upper estimate: what `max_usd_basis: high` reserves
    key_columns: tuple[tuple[str, str], ...] = ()  # name and DuckDB type, in key order; empty for an expression key
    plan_digest: str = ""
    place: str = ""  # project and location of the job, where the service has such
    resumes: str = (
        ""  # tag of the job whose results are its input: it runs those without an answer, hands on the others
    )
    results: int = 0  # of a job that resumes: results that it starts with, answered or not
    wave_of: str = ""  # of a chain's rows that were known after apply: digest of the plan that approved them
    cache: CacheUse | None = None
    edit: str = ""  # digest of what its rows are asked with, which a rollout is of; earlier versions recorded none

    def may_hold(self, total: int) -> bool:
        """Whether its job may show so many requests. Whether one that resumes counts what it hands on is not known."""
        return total in (self.requests, self.results or self.requests)


class Submitted(Event, frozen=True, kw_only=True, tag=True):
    """The job exists. how: "created", "adopted" (found by its tag), "manual" (a person said so), or "reopened" (given
    up on without results, and alive after all)."""

    tag: str
    job: str
    how: str = "created"


class NotSubmitted(Event, frozen=True, kw_only=True, tag=True):
    """Taken for no job: its rows, committed as pending with this event, may be sent again.

    how: "refused" (the service said no), "too_late" or "stopped" (create was not called), "unlisted" (not in the list
    when the settle window had passed) or "manual"; after the last two a job may still turn up.
    """

    tag: str
    reason: str
    how: str = ""


class StateSeen(Event, frozen=True, kw_only=True, tag=True):
    """The service's state of a job changed."""

    tag: str
    state: str
    error: str = ""
    counts: dict[str, int] = msgspec.field(default_factory=dict)
    ended_at: str | None = None


class Collected(Event, frozen=True, kw_only=True, tag=True):
    """The job's results are archived and parsed; committed with its rows' new states."""

    tag: str
    archive: str | None  # blob name of the raw results; None if there were none
    answers: str | None  # blob name of the parsed answers
    rows: dict[str, int] = msgspec.field(default_factory=dict)  # class → rows
    anomalies: dict[str, int] = msgspec.field(default_factory=dict)  # duplicate, unknown_key, unreadable
    prompt_tokens: int = 0
    output_tokens: int = 0
    usd: float = 0.0


class Reparsed(Event, frozen=True, kw_only=True, tag=True):
    """Archived results were parsed again; committed with the rows' new states."""

    spec: str
    parse_digest: str
    rows: dict[str, int] = msgspec.field(default_factory=dict)


class Refreshed(Event, frozen=True, kw_only=True, tag=True):
    """Bookkeeping of rows that cost nothing: equal requests under new inputs, reused answers, keys that left, and rows
    of a plan that found no room and stay queued, for `backend`. plan_digest: of the plan that did it; wave_of: of the
    one that had approved them, where it was a wave."""

    spec: str
    rows: dict[str, int] = msgspec.field(default_factory=dict)  # keep | reuse | forget | remove | queued → rows
    backend: str = ""
    plan_digest: str = ""
    wave_of: str = ""


class DeliveredTo(Event, frozen=True, kw_only=True, tag=True):
    """The destination holds every answer up to `through` (ledger serial). stamps: of its parts, or of the whole: what
    tells that nobody has written there since; recorded by versions that know of them."""

    spec: str
    destination_digest: str
    through: int
    rows: int
    location: str
    parts: tuple[str, ...] = ()
    key_columns: tuple[tuple[str, str], ...] = ()
    stamps: tuple[str, ...] = ()


class RerunRequested(Event, frozen=True, kw_only=True, tag=True):
    """Rows that a person wants sent again: answers older than this event's serial are rerun.

    chosen: blob with the key hashes, settled when it was asked; keys, where: how they were named, for people.
    """

    spec: str
    chosen: str
    rows: int
    keys: tuple[str, ...] = ()
    where: str | None = None
    reason: str = ""


class Allowed(Event, frozen=True, kw_only=True, tag=True):
    """A limit was released by `--allow NAME --reason …` for one plan."""

    limit: str
    plan_digest: str
    message: str = ""
    reason: str = ""


class Approved(Event, frozen=True, kw_only=True, tag=True):
    """What a reviewed plan said of a chain is known after apply, and may be sent once the answers are there.

    plan_digest: of that plan; rows, usd: the bound; digests: spec → digest of the spec and of those that its rows come
    from, as they were reviewed; sends: rows of the upstream that the plan sends. It holds until `ApprovalEnded`, or the
    next one of the spec.
    """

    spec: str
    plan_digest: str
    upstream: str
    rows: int
    usd: float
    digests: dict[str, str] = msgspec.field(default_factory=dict)
    sends: int = 0


class ApprovalEnded(Event, frozen=True, kw_only=True, tag=True):
    """Nothing more is sent of what was approved of a chain: all is sent, or what was reviewed is no longer so."""

    spec: str
    plan_digest: str
    reason: str = ""


class Admitted(Event, frozen=True, kw_only=True, tag=True):
    """A plan is applied under an envelope that somebody has approved: it lay inside it.

    envelope: its digest; plan_digest, rows, usd: of the plan that is applied; approver: who approved, if it was said.
    """

    envelope: str
    plan_digest: str
    rows: int
    usd: float
    approver: str = ""


class ChangeDecided(Event, frozen=True, kw_only=True, tag=True):
    """What becomes of answered rows that an edit of their spec would send again, as `--on-change` said it.

    components: digest of prompt, model, configuration and schema as they are after the edit: it holds for no other;
    decision: "rerun", "keep" or "canary" of so many `rows`; own: what the spec itself said then. The last one of a spec
    holds, until the spec says something else.
    """

    spec: str
    components: str
    decision: str
    rows: int = 0
    own: str = ""
    plan_digest: str = ""


class Spent(Event, frozen=True, kw_only=True, tag=True):
    """What has no job, and counts against budgets: requests that `try` sends through the synchronous API, and context
    caches, when they have ended.

    cache: name of the cache that was made and kept; trial: which run of `try` it is of; reserved: recorded before the
    request was sent, at its estimate. What a trial cost replaces what it had reserved; a trial that was killed counts
    as it was reserved.
    """

    spec: str
    realm: str
    model: str
    requests: int
    usd: float
    trial: str = ""
    reserved: bool = False
    cache: str = ""


class InputDeleted(Event, frozen=True, kw_only=True, tag=True):
    """The uploaded input of a settled job was removed."""

    tag: str
    input_name: str


class JobDeleted(Event, frozen=True, kw_only=True, tag=True):
    """A person deleted the remote job. If it is open, its rows wait until it is found to be gone."""

    tag: str


class Disowned(Event, frozen=True, kw_only=True, tag=True):
    """A person left a job to itself that bears this ledger's mark, and that it does not know."""

    job: str
    tag: str


AnyEvent = (
    Intent | Submitted | NotSubmitted | StateSeen | Collected | Reparsed | Refreshed | DeliveredTo | RerunRequested
    | Allowed | Approved | ApprovalEnded | Admitted | ChangeDecided | StageReached | StageApproved
    | Spent | InputDeleted | JobDeleted | Disowned
    | Moved | Forgotten
)  # fmt: skip


class JobRecord(msgspec.Struct, kw_only=True):
    """A job as the fold of its events sees it.

    status: intent (no job known) | submitted | collected | not_submitted; how: of the last Submitted, or of
    NotSubmitted, whose reason is kept too.
    """

    intent: Intent
    status: str = "intent"
    job: str | None = None
    how: str = ""
    reason: str = ""
    submitted_at: str | None = None
    state: str = ""
    state_at: str | None = None
    ended_at: str | None = None
    error: str = ""
    counts: dict[str, int] = msgspec.field(default_factory=dict)
    collected: Collected | None = None
    input_deleted: bool = False

    @property
    def tag(self) -> str:
        return self.intent.tag

    @property
    def open(self) -> bool:
        """Whether its rows wait for it."""
        return self.status in ("intent", "submitted")


class ControlView(msgspec.Struct, kw_only=True):
    """The fold of all control events."""

    lineage: str = ""
    serial: int = 0
    jobs: dict[str, JobRecord] = msgspec.field(default_factory=dict)  # by tag, in order of intent
    deliveries: dict[str, DeliveredTo] = msgspec.field(default_factory=dict)  # last one, by spec
    applied_to: dict[str, str] = msgspec.field(default_factory=dict)  # backend that rows were last meant for, by spec
    reruns: dict[str, list[tuple[int, RerunRequested]]] = msgspec.field(default_factory=dict)  # by spec, with serial
    allowed: list[Allowed] = msgspec.field(default_factory=list)
    approved: dict[str, Approved] = msgspec.field(default_factory=dict)  # what still holds, by spec
    admitted: list[Admitted] = msgspec.field(default_factory=list)
    refreshed: dict[str, list[Refreshed]] = msgspec.field(default_factory=dict)  # by plan, where that is known
    changes: dict[str, ChangeDecided] = msgspec.field(default_factory=dict)  # last one, by spec
    rollouts: dict[str, dict[tuple[str, str], Reached]] = msgspec.field(default_factory=dict)
    """by spec, by (edit, stages)"""
    spent: list[tuple[int, Spent]] = msgspec.field(default_factory=list)  # outside jobs, with serial
    disowned: set[str] = msgspec.field(default_factory=set)  # jobs at a service that were left to themselves
    keys: dict[str, list[tuple[int, str]]] = msgspec.field(default_factory=dict)  # blobs of moved keys, with serial
    moves: list[tuple[int, Moved | Forgotten]] = msgspec.field(default_factory=list)  # with serial

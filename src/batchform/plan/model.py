"""A plan, as plain values. Pure: no I/O, no clock. Several renderings of it live in view/."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

from msgspec import Struct, field

from batchform.plan.bounds import Envelope
from batchform.plan.importing import Importing
from batchform.plan.stages import StagePlan

FORMAT_VERSION = "1"


class Action(StrEnum):
    """What happens to a row."""

    RUN = "run"
    RERUN = "rerun"
    REUSE = "reuse"
    REPARSE = "reparse"
    REDELIVER = "redeliver"
    KEEP = "keep"
    IN_FLIGHT = "in_flight"
    UNKNOWN = "unknown"
    FORGET = "forget"
    REMOVE = "remove"
    HELD = "held"

    @property
    def symbol(self) -> str:
        return _SYMBOLS[self]

    @property
    def pays(self) -> bool:
        return self in (Action.RUN, Action.RERUN)


_SYMBOLS = {
    Action.RUN: "+",
    Action.RERUN: "~",
    Action.REUSE: ">",
    Action.REPARSE: "»",
    Action.REDELIVER: "→",
    Action.KEEP: "=",
    Action.IN_FLIGHT: "…",
    Action.UNKNOWN: "?",
    Action.FORGET: ".",
    Action.REMOVE: "-",
    Action.HELD: "!",
}


class Reason(StrEnum):
    """Why a row has its action. Explains, never decides."""

    NEW_KEY = "new_key"
    PROMPT_CHANGED = "prompt_changed"
    MODEL_CHANGED = "model_changed"
    GENERATION_CONFIG_CHANGED = "generation_config_changed"
    SCHEMA_CHANGED = "schema_changed"
    ROW_CHANGED = "row_changed"
    UPSTREAM_CHANGED = "upstream_changed"
    ATTACHMENT_CHANGED = "attachment_changed"
    REALM_CHANGED = "realm_changed"
    REQUESTED = "requested"
    PREVIOUS_FAILED = "previous_failed"
    PREVIOUS_EXPIRED = "previous_expired"
    KEY_LEFT_SOURCE = "key_left_source"
    KEY_MOVED = "key_moved"
    FINGERPRINT_UPGRADED = "fingerprint_upgraded"


class Range(Struct, frozen=True):
    """A low, an expected and a high figure."""

    low: float
    expected: float
    high: float

    def __add__(self, other: Range) -> Range:
        return Range(self.low + other.low, self.expected + other.expected, self.high + other.high)


ZERO = Range(0.0, 0.0, 0.0)


class Resumed(Struct, frozen=True):
    """A job that was cut short and that another one goes on with. tag, job: its names here and at the service;
    results: how many it wrote, answers and rows without one together."""

    tag: str
    job: str
    results: int


class Shard(Struct, frozen=True):
    """One job to be created. path: the JSONL relative to the bundle, rows_path: its row states (Parquet), likewise.

    resumes: the job that it goes on with. Its lines are then uploaded only if that turns out to be impossible.
    files_path: the list of the files that its requests name, relative to the bundle; files: how many there are.
    """

    index: int
    tag: str
    digest: str
    rows: int
    requests: int
    bytes: int
    input_tokens: int
    usd: Range
    mode: str  # "file", "inline" or "table"
    path: str
    rows_path: str
    resumes: Resumed | None = None
    files_path: str = ""
    files: int = 0
    model: str = ""  # of the job, where it is not the spec's
    rung: str = ""  # of the retry ladder: what its requests change, and after which failures
    cached: bool = False  # whether its requests name the cache of its spec


class Tokens(Struct, frozen=True):
    """Estimated tokens of what will be sent. basis: where the output figure comes from, in words.

    input: estimate; output: low, expected, high, for all requests together; counted: requests whose input the service
    has counted.
    """

    input: int
    output: Range
    basis: str
    input_basis: str = ""
    counted: int = 0


class Budget(Struct, frozen=True):
    """US dollars that a budget was judged on: settled in its window, reserved by open jobs, and planned.

    basis: "expected" or "high", of what is planned and in flight.
    """

    settled: float
    in_flight: float
    planned: float
    basis: str

    @property
    def total(self) -> float:
        return self.settled + self.in_flight + self.planned


class Verdict(Struct, frozen=True):
    """One limit, judged. scope: a spec's name or "project"; ok: passes, or was allowed; budget: of limits of money."""

    name: str
    scope: str
    ok: bool
    limit: float
    actual: float
    message: str
    allowed: bool = False
    budget: Budget | None = None


class Sample(Struct, frozen=True):
    """A rendered request chosen for preview. before: canonical JSON of the earlier request where it can be rebuilt."""

    key: str
    action: Action
    reason: Reason | None
    request: str
    chosen_as: str  # "shortest", "longest", "by key hash"
    before: str | None = None
    changed: tuple[str, ...] = ()  # components that differ: prompt, model, config, schema, row


class After(Struct, frozen=True):
    """What a spec would send later: a chain once answers that it reads are there, `known after apply`; a rollout in
    stages that are not released yet.

    upstream: the spec whose answers they are, "" where there is none; rows: at most so many; cost: low is nothing, high
    is at most so much; basis: where the figures come from, in words; staged: rows of stages among them. Apply goes on
    within `rows` and `cost.high`, and not beyond.
    """

    upstream: str
    rows: int
    cost: Range
    basis: str
    staged: int = 0


class Option(Struct, frozen=True):
    """One way to treat answered rows that an edit concerns, with all that its spec would then send, and for how much.

    decision: "rerun", "keep" or "canary"; canary: rows of one.
    """

    decision: str
    rows: int
    cost: Range
    canary: int = 0


class Change(Struct, frozen=True):
    """Answered rows that an edit of their spec would send again, and what becomes of them.

    decision: "rerun", "keep", "canary" (of `canary` rows) or "ask"; source: "command", "recorded" or "spec"; by: who
    recorded it, and when; components: digest of what the decision is about; rows: how many rows there are; held: how
    many of them wait.
    """

    decision: str
    canary: int
    source: str
    by: str
    components: str
    rows: int
    held: int
    options: tuple[Option, ...]


class Cached(Struct, frozen=True):
    """The context cache that jobs of a spec are sent with.

    turns, parts: how much of each request it holds: turns from the beginning, and parts of the one after them; seconds:
    that it lives after each submission; kept: whether the spec keeps it that long, or only while jobs name it; tokens:
    about how many it holds; rows: that read it; hours: that it is kept; made, storage: US dollars of making and keeping
    it; saved: on the input of the rows; cost, without: of all that is sent, with it and without; storage_known: whether
    the table has a price of storage.
    """

    turns: int
    parts: int
    seconds: float
    kept: bool
    tokens: int
    rows: int
    hours: Range
    made: float
    storage: Range
    saved: float
    cost: Range
    without: Range
    storage_known: bool = True


class Moving(Struct, frozen=True):
    """Rows of a spec that go on under its present name or key, for nothing.

    before: earlier name of the spec, "" where only keys move; rows: how many records go along; jobs: that are at work
    and go along; keys: rows that take a new key; waits: rows in jobs, for which new keys wait. states: bundle-relative
    Parquet of the row states that apply commits; keys_path: likewise, of which key was which.
    """

    spec: str
    before: str = ""
    rows: int = 0
    jobs: int = 0
    keys: int = 0
    waits: int = 0
    states: str = ""
    keys_path: str = ""
    reason: str = ""  # of a spec that is given up: why


class SpecPlan(Struct, frozen=True):
    """What one spec would do.

    actions: rows per action; reasons: rows per reason; held_by: why rows are held, in words → rows;
    bookkeeping: bundle-relative Parquet of row states that apply commits for nothing (refreshed, reused, forgotten);
    reread: bundle-relative Parquet of the keys whose archived answers apply reads anew.
    """

    name: str
    spec_digest: str
    source: str
    source_rows: int
    backend: str
    realm: str
    model: str
    destination: str
    actions: Mapping[Action, int]
    reasons: Mapping[Reason, int]
    rows_to_send: int
    requests_to_send: int
    shards: tuple[Shard, ...]
    bytes: int
    tokens: Tokens
    cost: Range
    verdicts: tuple[Verdict, ...] = ()
    samples: tuple[Sample, ...] = ()
    held_by: Mapping[str, int] = field(default_factory=dict)
    bookkeeping: str | None = None
    reread: str | None = None
    notes: tuple[str, ...] = ()
    previous: str = ""  # estimate against actual of the last apply, in words
    key_columns: tuple[tuple[str, str], ...] = ()
    preview: str = "private"
    waiting: int = 0  # rows that take the answer of another row's request once that is there
    source_digest: str = ""  # of the source's files; only in saved plans
    source_versions: tuple[str, ...] = ()  # of files in Cloud Storage: name#generation; only in saved plans
    change: Change | None = None  # what becomes of answered rows that an edit of the spec would send again
    after: After | None = None  # known only when answers of other specs of this plan are there, or in later stages
    rollout: StagePlan | None = None
    cache: Cached | None = None

    @property
    def delivers(self) -> bool:
        """Whether its destination would be written, now or when the answers are there."""
        written = (Action.RUN, Action.RERUN, Action.REUSE, Action.REPARSE, Action.REDELIVER, Action.REMOVE)
        return any(self.actions.get(a) for a in written)


class Plan(Struct, frozen=True):
    """What `apply` would do. digest covers everything that decides what is sent, nothing that only informs."""

    digest: str
    project: str
    environment: str
    created_at: str
    lineage: str
    serial: int
    batchform_version: str
    prices_dated: str
    specs: tuple[SpecPlan, ...]
    selected: tuple[str, ...]  # all specs of the project when not partial
    partial: bool
    verdicts: tuple[Verdict, ...] = ()
    purpose: str = "apply"  # "apply"; "retry": only rows that failed before are sent; "settle": nothing is; "wave"
    wave_of: str = ""  # of a wave, rows whose upstream has answered: digest of the reviewed plan that said how many
    envelope: Envelope | None = None  # what somebody may approve in place of these exact bytes, or has
    reason: str = ""  # why limits were released
    under: str = ""  # digest of the envelope that it is applied under
    approver: str = ""  # who has approved that, where it was said
    models_dated: str = ""  # of the table of models and limits
    moves: tuple[Moving, ...] = ()  # recorded before anything else
    imports: tuple[Importing, ...] = ()  # recorded next

    @property
    def rows_to_send(self) -> int:
        return sum(s.rows_to_send for s in self.specs)

    @property
    def cost(self) -> Range:
        total = ZERO
        for s in self.specs:
            total += s.cost
        return total

    @property
    def rows_after(self) -> int:
        """Rows that are known after apply, or of later stages, at most."""
        return sum(s.after.rows for s in self.specs if s.after)

    @property
    def rows_staged(self) -> int:
        """Those of later stages."""
        return sum(s.after.staged for s in self.specs if s.after)

    @property
    def cost_after(self) -> Range:
        """What they cost; high: at most."""
        total = ZERO
        for s in self.specs:
            total += s.after.cost if s.after else ZERO
        return total

    @property
    def all_verdicts(self) -> tuple[Verdict, ...]:
        return (*self.verdicts, *(v for s in self.specs for v in s.verdicts))

    @property
    def waits(self) -> bool:
        """Whether answered rows wait until somebody says what becomes of them after an edit."""
        return any(s.change is not None and s.change.held for s in self.specs)

    @property
    def has_changes(self) -> bool:
        """Whether apply would do anything at all, paid or free."""
        idle = (Action.KEEP, Action.IN_FLIGHT, Action.UNKNOWN, Action.HELD)
        if self.moves or any(s.change and s.change.source == "command" for s in self.specs):
            return True
        return self.rows_after > 0 or any(n for s in self.specs for a, n in s.actions.items() if a not in idle)

"""What can go wrong with which call of which run: every kind of fault at every call, and pairs over one submission."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import combinations_with_replacement, product
from typing import Any, Final

import yaml
from crash_world import Command

from batchform.emulator.fault_kinds import CALL_KINDS
from batchform.emulator.fault_kinds_jobs import FateKind, ListLag
from batchform.emulator.fault_kinds_rows import ResultKind
from batchform.emulator.faults import KINDS, Sample, catalogue, type_of

HOUR: Final = 3600.0
APPLY: Final[Command] = ("apply", "--yes")
DETACH: Final[Command] = ("apply", "--yes", "--detach")
SYNC: Final[Command] = ("sync", "--wait")
TIMEOUT: Final = 0.5  # seconds of real time

Fault = dict[str, Any]


def _types(*kinds: Any) -> frozenset[str]:
    return frozenset(type_of(k) for k in KINDS if issubclass(k, kinds))


CERTAIN: Final = frozenset(type_of(k) for k in CALL_KINDS)
"""Kinds that happen to any call; the others need something to change, and may find nothing."""
FATES: Final = _types(FateKind) - _types(ListLag)
SHOWN: Final = _types(ResultKind)
KEEPS_ANSWERS: Final = frozenset(
    {"shuffled", "rows_doubled", "unknown_rows", "unknown_fields", "huge_rows", "line_ends"}
)
SPOILS: Final = SHOWN - KEEPS_ANSWERS
"""Kinds that spoil answers on their way: each happens once, and then as often as results are fetched."""
FETCHED: Final = (4, 9)
"""How often one job is fetched at most, the look before counted in; and when the file is torn each time."""


@dataclass(frozen=True)
class Base:
    """A run that faults happen to. before: commands that led up to it, undisturbed; faults: of the run itself, so that
    it has the calls that are wanted; calls: globs of those, `most` of each: what follows is the same again; shards: of
    the project; cloud: whose API it speaks (fault_world.World.reset); anew: the command finds that the answers are to
    be read otherwise."""

    name: str
    calls: tuple[str, ...]
    submit: str = "file"
    before: tuple[Command, ...] = ()
    command: Command = APPLY
    faults: tuple[Fault, ...] = ()
    shards: int = 3
    cloud: str = "gemini"
    most: int = 100
    anew: bool = False


@dataclass(frozen=True)
class Schedule:
    """One run with its faults. backend: settings that it needs."""

    base: Base
    faults: tuple[Fault, ...]
    backend: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return f"{self.base.name}: " + " + ".join(_named(f) for f in self.faults)

    @property
    def every_fault(self) -> list[Fault]:
        return [*self.base.faults, *self.faults]

    @property
    def types(self) -> set[str]:
        return {f["do"]["type"] for f in self.every_fault}

    @property
    def takes_answers(self) -> bool:
        return any(_takes(f) for f in self.every_fault)


def _takes(fault: Fault) -> bool:
    """Whether a fault takes answers away. What is spoilt on its way is fetched again: it must be always."""
    kind, often = fault["do"]["type"], fault.get("times", 1) != 1
    if fault["call"] == "vertex.batches.create" and kind in SPOILS:
        return bool(kind != "keys_missing")  # written so once and for all; but who asked what is known by the request
    return kind in FATES or (often and (kind in SPOILS or fault["call"] == "files.download"))


def _named(fault: Fault) -> str:
    which = f"#{fault.get('nth', 1)}" + (f" ×{fault['times']}" if "times" in fault else "")
    return f"{which} {Sample(fault['call'], fault['do']).name}"


def _lost(when: str, **also: Any) -> Fault:
    return {"call": "batches.create", "nth": 2, **also, "do": {"type": "drop", "when": when}}


_SENDING: Final = ("models.get", "files.get", "files.upload.*", "batches.create")
_SMALL_PAGES: Final[Fault] = {"call": "batches.list", "times": "all", "do": {"type": "small_pages", "size": 1}}


def _on_vertex(where: str, cloud: str, *, puts: tuple[str, ...], fetches: tuple[str, ...]) -> tuple[Base, ...]:
    """The runs on Vertex AI. puts, fetches: the calls for inputs, and for results."""
    sending = ("vertex.models.count_tokens", "vertex.batches.create", *puts)
    lost = {"call": "vertex.batches.create", "nth": 2, "do": {"type": "drop", "when": "after"}}
    return (
        Base(f"apply {where}", sending, cloud=cloud),
        Base(f"sync {where}", ("vertex.batches.get", *fetches), before=(DETACH,), command=SYNC, cloud=cloud),
        Base(f"a create not answered {where}", ("vertex.batches.list",), cloud=cloud, faults=(lost,)),
    )


VERTEX: Final = (
    *_on_vertex(
        "on Vertex", "vertex", puts=("storage.buckets.*", "storage.uploads.*", "storage.objects.insert"),
        fetches=("storage.objects.list", "storage.objects.download", "storage.objects.delete"),
    ),
    Base(
        "sync on Vertex, results that stay", ("storage.objects.*",), before=(DETACH,), command=SYNC, cloud="staying",
    ),
    Base(
        "answers read anew where they stay", ("storage.objects.*",), before=(APPLY,), cloud="staying", anew=True,
    ),
    *_on_vertex(
        "on Vertex by tables", "tables", puts=("bigquery.datasets.*", "bigquery.jobs.*", "bigquery.tables.get"),
        fetches=("bigquery.tables.*", "bigquery.tabledata.*"),
    ),
)  # fmt: skip
CLOUDS: Final = ("vertex", "staying", "tables")

BASES: Final = (
    Base("apply of files", _SENDING),
    Base("sync of files", ("batches.get", "files.download", "files.delete"), before=(DETACH,), command=SYNC),
    Base("apply inline", ("batches.create",), submit="inline"),
    Base("sync inline", ("batches.get",), submit="inline", before=(DETACH,), command=SYNC),
    Base("a create not answered", ("batches.list",), faults=(_lost("after"),)),
    Base("a create not arrived", ("batches.list",), faults=(_lost("before"),), most=5),
    Base("a create not answered, pages", ("batches.list",), faults=(_lost("after"), _SMALL_PAGES)),
    *VERTEX,
)


# --- single faults ---------------------------------------------------------------------------------------------------


def singles(base: Base, counts: Counter[str], *, full: bool = False) -> Iterator[Schedule]:
    """Every kind at every call of an undisturbed run, and every example of it at one call at least; full: at each.

    counts: how often the run makes each call.
    """
    for call, calls in sorted(counts.items()):
        by_type: dict[str, list[Sample]] = defaultdict(list)
        for sample in catalogue(call):
            if _applies(base, sample):
                by_type[sample.do["type"]].append(sample)
        for samples in by_type.values():
            for sample, nth in _spread(samples, min(calls, base.most), full=full):
                yield _single(base, sample, nth)
                if sample.do["type"] in SPOILS and base.cloud not in CLOUDS:
                    yield _single(base, sample, nth, times=FETCHED[sample.do["type"] == "torn"])


def _applies(base: Base, sample: Sample) -> bool:
    kind = sample.do["type"]
    if sample.call == "batches.get" and kind in SHOWN:
        return base.submit == "inline"
    return True


def _spread(samples: Sequence[Sample], calls: int, *, full: bool) -> Iterator[tuple[Sample, int]]:
    if full:
        yield from product(samples, range(1, calls + 1))
        return
    for i in range(max(len(samples), calls)):
        yield samples[i % len(samples)], i % calls + 1


def _single(base: Base, sample: Sample, nth: int, **also: Any) -> Schedule:
    if sample.call == "batches.get" and sample.do["type"] in SHOWN:
        also |= {"nth": 1 + (nth - 1) % 6, "match": {"state": "SUCCEEDED"}}
    return Schedule(base, (sample.fault(**{"nth": nth, **also}),), _settings(sample.do))


def _settings(do: Any) -> dict[str, Any]:
    """Settings that a fault needs: who waits for days does not look every few seconds."""
    waits = do["type"] == "hang" or do.get("state") == "EXPIRED"
    return {"poll": 4 * HOUR} if waits else {}


# --- what the catalogue does not have --------------------------------------------------------------------------------

_DOWN: Final = (
    {"type": "error", "status": 503},
    {"type": "error", "status": 500},
    {"type": "error", "status": 429, "retry_info": "90s"},
    {"type": "error", "status": 401},
    {"type": "error", "status": 403},
    {"type": "error", "status": 404},
    {"type": "error", "status": 400},
    {"type": "drop"},
    {"type": "nonsense", "body": "html"},
)


def outages(base: Base, counts: Counter[str]) -> Iterator[Schedule]:
    """Each call fails as often as a command asks (and a bit): what is not read in four attempts stops it."""
    for call, do in product(sorted(counts), _DOWN):
        times = 12 if call == "batches.get" else 9
        if not any(sample.do["type"] == do["type"] for sample in catalogue(call)):
            continue  # nobody answers 200 with nonsense there
        yield Schedule(base, ({"call": call, "times": times, "do": dict(do)},))


def slow_calls(base: Base, counts: Counter[str]) -> Iterator[Schedule]:
    """Calls that take longer than the client waits, before their effect and after it."""
    for call, when in product(sorted(counts), ("before", "after", "body")):
        do = {"type": "slow", "seconds": 4 * TIMEOUT if when == "body" else 2 * TIMEOUT, "when": when}
        yield Schedule(base, ({"call": call, "nth": min(2, counts[call]), "do": do},), {"timeout": TIMEOUT})


def results_gone(base: Base) -> Iterator[Schedule]:
    """Results that the service deleted before anybody came for them: 403, for good. Those of retries are there."""
    yield Schedule(base, ({"call": "files.download", "times": "all", "match": {"tag": "*-a1"},
                           "do": {"type": "error", "status": 403}},))  # fmt: skip


# --- pairs -----------------------------------------------------------------------------------------------------------

ONE: Final = Base("one submission", (), shards=1)
ONE_ON_VERTEX: Final = Base("one submission on Vertex", (), shards=1, cloud="vertex")
_NOT_ANSWERED: Final = ("{type: drop, when: after}", "{type: drop}")

_PAIRED: Final[dict[str, tuple[str, ...]]] = {
    "files.upload.start": (
        "{type: error, status: 503}", "{type: drop, when: after}", "{type: no_upload_headers}",
        "{type: nonsense, body: html}",
    ),
    "files.upload.bytes": (
        "{type: error, status: 503}", "{type: error, status: 504, when: after}", "{type: drop, when: after}",
        "{type: short_chunk}", "{type: lost_upload}", "{type: no_upload_headers}", "{type: damaged_upload}",
    ),
    "batches.create": (
        "{type: error, status: 400}", "{type: error, status: 429}", "{type: error, status: 503}",
        "{type: error, status: 504, when: after}", "{type: drop}", "{type: drop, when: after}",
        "{type: nonsense, when: after}", "{type: cut}", "{type: without, fields: [name]}",
        "{type: list_lag, seconds: 300, get: true}", "{type: ends, state: FAILED}",
    ),
    "batches.get": (
        "{type: error, status: 503}", "{type: error, status: 404}", "{type: nonsense, body: object}",
        "{type: state, state: HIBERNATING}", "{type: object_details}",
    ),
}  # fmt: skip
_PAIRED_ON_VERTEX: Final[dict[str, tuple[str, ...]]] = {
    "storage.objects.insert": (
        "{type: error, status: 503}", "{type: error, status: 504, when: after}", "{type: drop}",
        "{type: drop, when: after}",
    ),
    "batches.create": _PAIRED["batches.create"],
    "batches.get": _PAIRED["batches.get"],
}  # fmt: skip
_UNKNOWN: Final = _PAIRED["batches.create"][2:9]
"""Faults of a create after which nobody knows whether there is a job."""

_LISTED: Final = (
    "{type: error, status: 503}", "{type: error, status: 403}", "{type: drop, when: after}",
    "{type: nonsense, body: object}", "{type: cut}", "{type: hide}", "{type: empty_page}", "{type: repeat_page}",
    "{type: repeat_entries}", "{type: without, fields: [displayName]}",
    "{type: without, fields: [displayName, inputConfig]}", "{type: object_details}", "{type: state, state: PAUSED}",
)  # fmt: skip

LAGS: Final = (60.0, 300.0, 629.0)
"""Seconds for which a new job is not listed, all within the settle window: its last 70 % are for the list."""


def pairs(on: Base = ONE) -> Iterator[Schedule]:
    """Two faults in one submission: of two calls, or of the first two of the same call."""
    paired = _PAIRED_ON_VERTEX if on.cloud == "vertex" else _PAIRED
    for one, other in combinations_with_replacement(paired, 2):
        for a, b in product(paired[one], paired[other]):
            yield _together(on, _at(one, a), _at(other, b, nth=2 if one == other else 1))


def pairs_of_recovery(on: Base = ONE) -> Iterator[Schedule]:
    """A create of unknown outcome and a fault of the list that is to settle it; a job whose create was not answered and
    two such faults."""
    for create, listed in product(_UNKNOWN, _LISTED):
        yield _together(on, _at("batches.create", create), _at("batches.list", listed))
    for a, b in product(_LISTED, repeat=2):
        first = _at("batches.create", _NOT_ANSWERED[0])
        yield _together(on, first, _at("batches.list", a), _at("batches.list", b, nth=2))


def lagging(on: Base = ONE) -> Iterator[Schedule]:
    """The answer of a create is lost, and its job is listed late, but within the settle window; and more faults."""
    for seconds, create in product(LAGS, _UNKNOWN):
        lag = _at("batches.create", f"{{type: list_lag, seconds: {seconds}}}")
        yield _together(on, lag, _at("batches.create", create))
        for listed in _LISTED if create == _NOT_ANSWERED[0] else ():
            yield _together(on, lag, _at("batches.create", create), _at("batches.list", listed))


def beyond_the_window(cancels: Sequence[Sample] = (), *, on: Base = ONE) -> Iterator[Schedule]:
    """The same, but the job is listed only after the window: what cannot be promised. It has ended by then, or it is
    still at work, so that it can be cancelled, which may go wrong in turn. cancels: faults of that call."""
    lost = (
        _at("batches.create", f"{{type: list_lag, seconds: {3 * HOUR}}}"),
        _at("batches.create", "{type: drop, when: after}"),
    )
    at_work = _at("batches.create", f"{{type: ends, state: SUCCEEDED, share: 1, seconds: {20 * HOUR}}}")
    yield _together(on, *lost)
    yield _together(on, *lost, at_work)
    for sample in cancels:
        yield _together(on, *lost, at_work, sample.fault())


def _at(call: str, do: str, nth: int = 1) -> Fault:
    return {"call": call, "nth": nth, "do": yaml.safe_load(do)}


def _together(on: Base, *faults: Fault) -> Schedule:
    """These faults in a run of this base: calls for jobs are those of its API."""
    there = "vertex." if on.cloud == "vertex" else ""
    named = (f | {"call": there + f["call"]} if f["call"].startswith("batches.") else f for f in faults)
    return Schedule(on, tuple(named))

"""What is killed: a project with a history, the command that dies, and what would have followed it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Final

from crash_cloud import ALL_IN_A_BUCKET, ANSWERS, BUCKET, GEMINI, JOINED, PROJECT, STAYING, STORAGE, TABLES, Cloud
from crash_effects import Point
from crash_world import SETTLE, Command, World

APPLY: Final[Command] = ("apply", "--yes")
SYNC: Final[Command] = ("sync", "--wait")
TRY: Final[Command] = ("try", "triage", "--rows", "3")
_TABLES: Final = ("sqlite", "duckdb")
TABLE: Final = "answers"
"""The destination of those that deliver to BigQuery: a table of the dataset for that."""


@dataclass(frozen=True)
class Scenario:
    """prepare: makes the project and its history; rest: commands that follow `command` in an undisturbed run; again:
    what a user does after a kill, in this order, until it says that all is done; focus: which points belong to it;
    regroups: rows that failed may be sent again in other groups than undisturbed, and so in more or fewer jobs;
    cloud: whose API it is, and where its ledger lies."""

    name: str
    prepare: Callable[[World], None]
    command: Command = APPLY
    rest: tuple[Command, ...] = ()
    again: tuple[Command, ...] = (SYNC, APPLY)
    destination: str = "results/triage.jsonl"
    focus: Callable[[list[Point]], list[Point]] = field(default=lambda points: points)
    regroups: bool = False
    cloud: Cloud = GEMINI


# --- projects --------------------------------------------------------------------------------------------------------


def project(world: World, *, rows_per_job: int = 2, **backend: Any) -> None:
    """An empty project with one spec and no rows."""
    local = {"type": "emulator", "url": world.url, "settle": SETTLE, "poll": 5, "max_rows_per_job": rows_per_job}
    world.write(
        "batchform.yaml",
        {
            "version": 1,
            "project": "crash",
            "backends": {"local": {**local, **world.cloud.backend, **backend}},
            "defaults": {"backend": "local"},
            **({"ledger": world.cloud.ledger} if world.cloud.ledger else {}),
        },
    )
    spec(world)


def spec(world: World, **changes: Any) -> None:
    world.write(
        "specs/triage.yaml",
        {
            "name": "triage",
            "source": {"type": "csv", "path": "data/tickets.csv"},
            "prompt": {"user": {"text": "Title: {{ title }}"}},
            "model": "gemini-3.5-flash-lite",
            "submit": "file",
            "generation_config": {"temperature": 0, "max_output_tokens": 64},
            "destination": destination("jsonl", "results/triage.jsonl"),
            "idempotency": {"key": ["id"]},
            **changes,
        },
    )


def destination(kind: str, path: str, **changes: Any) -> dict[str, Any]:
    """Columns without times and job names, so that two runs deliver the same bytes."""
    to = {"path": path, **({"table": "triage"} if kind in _TABLES else {})}
    if kind == "bigquery":
        to = {"table": f"{PROJECT}.{ANSWERS}.{path}"}
    return {"type": kind, **to, "columns": {"id": "id", "answer": "text", "out": "output_tokens"}, **changes}


def rows(world: World, titles: dict[str, str]) -> None:
    world.write("data/tickets.csv", "id,title\n" + "".join(f'{key},"{title}"\n' for key, title in titles.items()))


def some(count: int, **changes: str) -> dict[str, str]:
    """Rows T1 … Tn, some of them otherwise or not at all (an empty title)."""
    found = {f"T{n}": f"ticket {n}" for n in range(1, count + 1)} | changes
    return {key: title for key, title in found.items() if title}


# --- histories -------------------------------------------------------------------------------------------------------


def _first(world: World, **changes: Any) -> None:
    project(world)
    spec(world, **changes)
    rows(world, some(6))


def _with_files(world: World) -> None:
    """Each row with a file of its own and one that all have, uploaded."""
    attachments = [{"path": path, "inline_up_to": 1} for path in ("media/{{ id }}.txt", "media/all.txt")]
    _first(world, prompt={"user": {"text": "Title: {{ title }}"}, "attachments": attachments})
    for name in ("all", *some(6)):
        world.write(f"media/{name}.txt", f"file of {name}")


def _in_parts(world: World) -> None:
    """Each row with a PDF of three pages, of which two go with a request."""
    attachments = [{"path": "media/{{ id }}.pdf", "split_pages": 2, "inline_up_to": 1}]
    _first(world, prompt={"user": {"text": "Title: {{ title }}"}, "attachments": attachments})
    for number, name in enumerate(some(6)):
        path = world.project / f"media/{name}.pdf"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(_pdf(3, high=100 + number))


def _pdf(pages: int, *, high: int) -> bytes:
    import io

    from pypdf import PdfWriter

    writer, out = PdfWriter(), io.BytesIO()
    for number in range(pages):
        writer.add_blank_page(width=100 + number, height=high)
    writer.write(out)
    return out.getvalue()


def _vectors(world: World) -> None:
    """Embeddings, in jobs of their own kind."""
    _of_task(world, "embed", "gemini-embedding-001", {"answer": "embedding"}, embed={"dimensions": 128})


def _pictures(world: World) -> None:
    """Images, which are files beside the destination."""
    _of_task(world, "image", "gemini-3.1-flash-image", {"answer": "image_path", "hash": "image_sha256"})


def _of_task(world: World, task: str, model: str, columns: dict[str, str], **changes: Any) -> None:
    project(world)
    rows(world, some(5))
    to = {"type": "jsonl", "path": f"results/{task}/triage.jsonl", "columns": {"id": "id", **columns}}
    written = {
        "name": "triage", "task": task, "source": {"type": "csv", "path": "data/tickets.csv"},
        "prompt": {"user": {"text": "Title: {{ title }}"}}, "model": model, "destination": to,
        "idempotency": {"key": ["id"]},
    }  # fmt: skip
    world.write("specs/triage.yaml", {**written, **changes})


def _with_a_cache(world: World) -> None:
    """Rows that share a beginning worth keeping at the service, and a file in it."""
    prompt = {
        "system": {"text": "Sort each ticket by the rules of the house. " * 500},
        "user": {"text": "Title: {{ title }}"},
        "attachments": [{"path": "media/all.txt", "inline_up_to": 1}],
    }
    _first(world, prompt=prompt, cache={"attachments": ["media/all.txt"]})
    world.write("media/all.txt", "what all may read")


def _saved(world: World) -> None:
    _first(world)
    world.ok(("plan", "--out", "saved"))


def _detached(world: World) -> None:
    _first(world)
    world.ok((*APPLY, "--detach"))


def _staged(world: World) -> None:
    """Two of five rows were sent; the gate behind them is to release the others."""
    project(world)
    spec(world, rollout=[{"rows": 2, "require": {"answered": 1}}, {"percent": 100}])
    rows(world, some(5))
    world.ok((*APPLY, "--detach"))


def _changed(world: World) -> None:
    """Changed, new and gone rows; one fails once and one for good."""
    project(world)
    retry = {"max_attempts": 2, "on": ["internal", "empty"]}
    spec(world, retry=retry)
    rows(world, some(4))
    world.ok(APPLY)
    once, never = "ticket 5 [[emulator:error 500 x1]]", "ticket 6 [[emulator:empty]]"
    rows(world, some(7, T1="another ticket 1", T2="", T5=once, T6=never))


def _failed(world: World) -> None:
    _changed(world)
    world.ok(APPLY, codes=(6,))


def _chained(world: World) -> None:
    """triage → follow, and triage → groups, which is known as a whole or not at all."""
    project(world)
    spec(world, retry={"max_attempts": 2, "on": ["internal"]})
    rows(world, some(4))
    _reads_triage(world, "follow", {"type": "spec", "name": "triage"}, "Why {{ text }}?", "id")
    query = "SELECT 'all' AS id, string_agg(text, ', ' ORDER BY id) AS text FROM source GROUP BY ALL"
    _reads_triage(world, "groups", {"type": "spec", "name": "triage", "query": query}, "Sum up: {{ text }}", "id")


def _reads_triage(world: World, name: str, source: dict[str, Any], prompt: str, key: str) -> None:
    world.write(
        f"specs/{name}.yaml",
        {
            "name": name,
            "source": source,
            "prompt": {"user": {"text": prompt}},
            "model": "gemini-3.5-flash-lite",
            "generation_config": {"temperature": 0, "max_output_tokens": 64},
            "destination": destination("jsonl", f"results/chains/{name}.jsonl"),
            "idempotency": {"key": [key]},
        },
    )


def _chain_detached(world: World) -> None:
    _chained(world)
    world.ok((*APPLY, "--detach"))


def _chain_changed(world: World) -> None:
    """Rows of triage that change, come and go, under answers of chains that are there."""
    _chained(world)
    world.ok(APPLY)
    rows(world, some(5, T1="another ticket 1", T2=""))


def _worn(world: World) -> None:
    """A ledger of many segments, some of them replaced long ago."""
    project(world, rows_per_job=50)
    for number in range(1, 4):
        rows(world, some(4, T1=f"version {number}"))
        world.ok(APPLY)
    world.ok(("ledger", "compact"))
    rows(world, some(4, T1="version 4"))
    world.ok(APPLY)
    world.pass_time(2 * 3600)


def _crowded(world: World) -> None:
    """Nearly as many segments as make batchform compact by itself."""
    project(world, rows_per_job=1)
    rows(world, some(8))
    world.ok(APPLY)
    rows(world, some(8, T1="another ticket 1"))


def _delivered_to(kind: str, path: str, **changes: Any) -> Callable[[World], None]:
    """Rows that were delivered there, and others that will be."""

    def prepare(world: World) -> None:
        project(world, rows_per_job=50)
        spec(world, destination=destination(kind, path, **changes))
        rows(world, some(6))
        world.ok(APPLY)
        gone = {"T6": ""} if changes.get("prune") else {}
        rows(world, some(7, T1="another ticket 1", **gone))

    return prepare


def _redirected(kind: str, path: str) -> Callable[[World], None]:
    """Rows that were delivered elsewhere: all is written anew."""

    def prepare(world: World) -> None:
        project(world, rows_per_job=50)
        rows(world, some(6))
        world.ok(APPLY)
        spec(world, destination=destination(kind, path))

    return prepare


def _pruned(world: World) -> None:
    project(world, rows_per_job=50)
    spec(world, destination=destination("jsonl", "results/triage.jsonl", prune=True))
    rows(world, some(6))
    world.ok(APPLY)
    rows(world, some(6, T2="", T5=""))


def _answered(world: World) -> None:
    project(world, rows_per_job=50)
    rows(world, some(4))
    world.ok(APPLY)


def _to_rerun(world: World) -> None:
    _answered(world)
    world.ok(("rerun", "triage", "--key", "T2", "--key", "T3"))


def _read_otherwise(world: World) -> None:
    """Answers in JSON that were read as text, and shall be read as JSON."""
    project(world)
    config = {"temperature": 0, "max_output_tokens": 64, "response_mime_type": "application/json"}
    spec(world, generation_config=config, output={"format": "text"})
    rows(world, some(4))
    world.ok(APPLY)
    spec(world, generation_config=config, output={"format": "json"})


def _to_be_cut(world: World, *, ends: int = 1) -> None:
    """Ten rows of long texts, whose next job expires when three of them were answered."""
    project(world, rows_per_job=50, resume="auto")
    spec(world, generation_config={"temperature": 0})
    rows(world, {f"T{n}": "a long text that is worth more than its answer " * 40 + str(n) for n in range(10)})
    do = {"type": "ends", "state": "EXPIRED", "share": 0.3, "seconds": 0}
    world.service.set_faults([{"call": "vertex.batches.create", "times": ends, "do": do}])


def _cut_short(world: World) -> None:
    _to_be_cut(world)
    world.ok(APPLY, codes=(6,))


def _cut_short_twice(world: World) -> None:
    _to_be_cut(world, ends=2)
    world.ok(APPLY, codes=(6,))


# --- the matrix ------------------------------------------------------------------------------------------------------


def _from_delivery(points: list[Point]) -> list[Point]:
    """Only what comes after the last thing that the service was asked."""
    last = max((i for i, p in enumerate(points) if p.kind == "network"), default=-1)
    return points[last:] if last >= 0 else points


_RERUN: Final[Command] = ("rerun", "triage", "--key", "T2", "--key", "T3")
_SAVE: Final[Command] = ("plan", "--out", "saved")
_SEND_SAVED: Final[Command] = ("apply", "saved")
_KINDS: Final = {
    "jsonl": "results/triage.jsonl",
    "csv": "results/triage.csv",
    "parquet": "results/triage.parquet",
    "sqlite": "results/answers.sqlite",
    "duckdb": "results/answers.duckdb",
}

_GEMINI: Final = (
    Scenario("first apply, input as a file", _first),
    Scenario("first apply, rows inline", lambda world: _first(world, submit="inline")),
    Scenario("first apply, with files", _with_files),
    Scenario("first apply, of PDFs in parts", _in_parts),
    Scenario("first apply, of vectors", _vectors, destination="results/embed"),
    Scenario("first apply, of images", _pictures, destination="results/image/triage.jsonl"),
    Scenario("first apply, with a cache", _with_a_cache),
    Scenario("plan --out", _first, command=_SAVE, rest=(_SEND_SAVED,), again=(_SAVE,)),
    Scenario("apply of a saved plan", _saved, command=_SEND_SAVED, again=(_SEND_SAVED, SYNC, APPLY)),
    Scenario("apply --detach", _first, command=(*APPLY, "--detach"), rest=(SYNC,)),
    Scenario("sync --wait after it", _detached, command=SYNC),
    Scenario("sync --wait, past the gate of a rollout", _staged, command=SYNC),
    Scenario("second round, with failures", _changed, rest=(SYNC, APPLY), regroups=True),
    Scenario("sync with retries", _failed, command=SYNC, rest=(APPLY,), regroups=True),
    Scenario("two waves: apply", _chained, destination="results/chains", regroups=True),
    Scenario(
        "two waves: sync after a detached apply",
        _chain_detached,
        command=SYNC,
        destination="results/chains",
        regroups=True,
    ),
    Scenario("two waves: rows that changed", _chain_changed, destination="results/chains", regroups=True),
    Scenario("rerun", _answered, command=_RERUN, rest=(APPLY,), again=(_RERUN,)),
    Scenario("apply after a rerun", _to_rerun),
    Scenario("prune", _pruned),
    Scenario("answers read anew", _read_otherwise),
    Scenario("try, killed, and again", _first, command=TRY, rest=(APPLY,), again=(TRY,)),
    Scenario("ledger compact", _worn, command=("ledger", "compact"), again=(("ledger", "compact"), APPLY)),
    Scenario("automatic compaction", _crowded, focus=_from_delivery),
    *(
        Scenario(f"first delivery, {kind}", _redirected(kind, path), destination=path)
        for kind, path in {**_KINDS, "jsonl": "results/other.jsonl"}.items()
    ),
    *(
        Scenario(f"next delivery, {kind}", _delivered_to(kind, path), destination=path, focus=_from_delivery)
        for kind, path in _KINDS.items()
    ),
    Scenario("first part", _redirected("jsonl", "results/parts/"), destination="results/parts/"),
    Scenario("next part", _delivered_to("jsonl", "results/parts/"), destination="results/parts/", focus=_from_delivery),
    Scenario(
        "parts with a pruned row",
        _delivered_to("jsonl", "results/parts/", prune=True),
        destination="results/parts/",
        focus=_from_delivery,
    ),
)


def _there(cloud: Cloud, scenario: Scenario, **changes: Any) -> Scenario:
    return replace(scenario, name=f"{cloud.name}: {scenario.name}", cloud=cloud, **changes)


_SENDING: Final = (
    "first apply, input as a file", "plan --out", "apply of a saved plan", "apply --detach", "sync --wait after it",
    "second round, with failures", "sync with retries", "apply after a rerun", "prune", "answers read anew",
    "try, killed, and again",
)  # fmt: skip
"""Those that ask the service for something. The others of the Gemini API deliver to files, or are the ledger's own."""
_TASKS: Final = ("first apply, of vectors", "first apply, of images")
_OWN: Final = ("rerun", "ledger compact")
_TOGETHER: Final = ("first apply, input as a file", "sync --wait after it", "second round, with failures")
"""Those in which several jobs are begun, or collected, in one commit."""
_RECORDED: Final = ("sync --wait after it", "second round, with failures", "answers read anew")
"""Those in which raw results are stored, or read again."""
_OUT: Final = {"jsonl": f"gs://{BUCKET}/out/triage.jsonl", "parts": f"gs://{BUCKET}/out/parts/", "bigquery": TABLE}

_VERTEX: Final = (
    *(_there(cloud, s) for cloud in (STORAGE, TABLES, ALL_IN_A_BUCKET) for s in _GEMINI if s.name in _SENDING),
    *(_there(ALL_IN_A_BUCKET, s) for s in _GEMINI if s.name in _OWN),
    *(_there(STAYING, s) for s in _GEMINI if s.name in _RECORDED),
    *(_there(STORAGE, s) for s in _GEMINI if s.name in _TASKS),
    Scenario(f"{ALL_IN_A_BUCKET.name}: automatic compaction", _crowded, cloud=ALL_IN_A_BUCKET),
    *(
        _there(cloud, scenario)
        for cloud in (STORAGE, STAYING, TABLES, ALL_IN_A_BUCKET)
        for scenario in (
            Scenario("a job that is cut short, and gone on with", _to_be_cut, rest=(APPLY,), regroups=True),
            Scenario("going on with a job that was cut short", _cut_short),
            Scenario("going on with one that is cut short again", _cut_short_twice, rest=(APPLY,), regroups=True),
        )
    ),
    *(
        _there(STORAGE, Scenario(f"{when} delivery, {kind} there", prepare(kind.replace("parts", "jsonl"), path)),
               destination=path)
        for when, prepare in (("first", _redirected), ("next", _delivered_to))
        for kind, path in _OUT.items()
    ),
)  # fmt: skip

_JOINED: Final = tuple(_there(JOINED, s) for s in _GEMINI if s.name in _TOGETHER)

SCENARIOS: Final = (*_GEMINI, *_JOINED, *_VERTEX)

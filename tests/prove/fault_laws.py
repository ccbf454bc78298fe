"""What must hold when the faults of a schedule are over and a user has followed what the messages say."""

from __future__ import annotations

import gzip
import json
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from crash_laws import VERIFY, Facts, compare, facts, leftovers
from crash_scenarios import Scenario
from crash_world import Ran
from fault_schedules import Schedule
from fault_world import World

from batchform.spec.model import Retry

SCENARIO: Final = Scenario("faults", lambda _: None)
CODES: Final = (0, 1, 5, 6, 7, 8)
_EXPORT: Final = ("ledger", "export", "{to}", "--format", "jsonl")
_CHANGES_TEXT: Final = "huge_rows"
_SAYS_DONE: Final = ("ignored", "nonsense")  # answers of 200 for what was not done


@dataclass(frozen=True)
class Attempt:
    """A charged request. good: whether the service answered it as always, and the client got that answer."""

    tag: str
    key: str
    digest: str
    good: bool


def undisturbed(world: World) -> Facts:
    """What a run without faults comes to."""
    return facts(world, SCENARIO)


def judge(world: World, schedule: Schedule, said: Sequence[Ran], expected: Facts) -> None:
    """Raise AssertionError that says which law does not hold. said: all commands, the last of which ended well."""
    _messages(schedule, said)
    _nobody_was_cancelled(world)
    _inputs(world, schedule)
    found = facts(world, SCENARIO)
    _billed_once(world)
    if schedule.takes_answers:
        _answered_or_explained(world, said, expected)
    elif _CHANGES_TEXT in schedule.types:
        assert found.bill == expected.bill, "the bill differs"
        _own_rows(world, expected, whole=False)
    else:
        compare(found, expected, regroups=False)
    leftovers(world, SCENARIO, kills=0)


def judge_limit(world: World, schedule: Schedule, said: Sequence[Ran], expected: Facts) -> None:
    """The laws of a job that was listed only after the settle window, when its rows had been sent again: it is found,
    told by its name, and cancelled if it is still at work. Only what had ended before is paid for beside the other."""
    _messages(schedule, said)
    surplus, second = world.jobs()
    told = [line for ran in said for line in ran.err.splitlines() if surplus["name"] in line]
    assert any("sent again" in line or "double" in line for line in told), f"{surplus['name']} was not told: {said}"
    assert second["cancelled_at"] is None, "the job that has the rows was cancelled"
    bill, at_work = world.bill(), any(f["do"]["type"] == "ends" for f in schedule.faults)
    if not at_work:
        assert bill == Counter(dict.fromkeys(expected.bill, 2)), f"it had ended, so it is paid for: {bill}"
        assert any("paid" in line for line in told), f"that it is paid for was not told: {told}"
    elif any("could not be cancelled" in line for line in told):
        refused = {do.get("status") for f in schedule.faults if (do := f["do"])["type"] == "error"}
        assert refused <= {400, 401, 403, 404, 409} and refused, f"it was not tried again: {told}"
        assert any("batchform jobs cancel" in line for line in told), f"how to cancel it was not told: {told}"
    elif "ignored" not in schedule.types and "keeps_results" not in schedule.types:
        assert surplus["cancelled_at"] is not None and bill == expected.bill, f"it goes on: {told}"
    [verified] = world.ask(VERIFY)
    assert verified.code == 0, verified.out
    assert (world.project / SCENARIO.destination).read_bytes() == expected.destination, "the destination differs"


# --- what was said ---------------------------------------------------------------------------------------------------


def _messages(schedule: Schedule, said: Sequence[Ran]) -> None:
    """Who is not done says so in a sentence, with what to do next; and what was refused is named."""
    for ran in said:
        shown = f"exit code {ran.code}: {ran.err[-2000:]}"
        assert ran.code in CODES, f"strange {shown}"
        assert "Traceback" not in ran.err + ran.out and "internal error" not in ran.err, f"no sentence, {shown}"
        if ran.code == 0:
            continue
        error = ran.err.partition("error: ")[2]
        assert error.strip(), f"no error told, {shown}"
        told = len(error.strip().splitlines()) > 1 or any(word in error for word in ("Run ", "run ", "Check "))
        assert told, f"it does not say what to do, {shown}"
    stopped = [ran for ran in said if ran.code == 1]
    refusals = [f["do"] for f in schedule.every_fault if f["do"]["type"] == "error" and f["do"].get("when") != "after"]
    statuses = {str(do["status"]) for do in refusals}
    if stopped and refusals and len(refusals) == len(schedule.every_fault):
        named = [f"HTTP {s}" for s in statuses] + ["did not take the credentials"] * ("401" in statuses)
        assert any(words in stopped[0].err for words in named), f"what happened is not named: {stopped[0].err}"


# --- what the service did --------------------------------------------------------------------------------------------


def _nobody_was_cancelled(world: World) -> None:
    odd = [job["name"] for job in world.jobs() if job["cancelled_at"] is not None or job["deleted"]]
    assert not odd, f"cancelled or deleted without being told to: {odd}"


def _inputs(world: World, schedule: Schedule) -> None:
    """A service that only says that it deletes keeps what it has: it goes by itself after 48 hours."""
    if any(f["call"] == "files.delete" and f["do"]["type"] in _SAYS_DONE for f in schedule.every_fault):
        world.pass_time(48 * 3600)


def _billed_once(world: World) -> None:
    """A request is sent again only when its last attempt gave no usable answer."""
    by_request: dict[tuple[str, str], list[Attempt]] = defaultdict(list)
    for attempt in attempts(world):
        by_request[attempt.key, attempt.digest].append(attempt)
    for (key, _), sent in by_request.items():
        wasted = [a.tag for a in sent[:-1] if a.good]
        assert not wasted, f"{key} was paid for again, after a good answer in {wasted}"


def attempts(world: World) -> list[Attempt]:
    """The bill, oldest job first."""
    shown: dict[str, dict[str, Any]] = {}
    true: dict[str, dict[str, Any]] = {}
    found = []
    for row in world.query("SELECT b.*, j.* FROM bill b JOIN jobs j ON b.job = j.id ORDER BY j.seq, b.id"):
        tag, key = row["display_name"], row["key"]
        if tag not in shown:
            shown[tag] = _responses(world.results(tag)) if _stayed(world, tag) else _archived(world, tag)
        if row["id"] not in true:
            vertex = row["vertex"] is not None
            true[row["id"]] = _responses(world.results(tag)) if vertex else _results(world, row["result_id"])
        given = true[row["id"]].get(key)
        good = given is not None and _is_good(given) and shown[tag].get(key) == given
        found.append(Attempt(tag, key, row["digest"].hex(), good))
    return found


def _archived(world: World, tag: str) -> dict[str, Any]:
    """What the client saw and stored: response by key."""
    path = world.project / f".batchform/archive/{tag}.jsonl.gz"
    return _responses(gzip.decompress(path.read_bytes())) if path.exists() else {}


def _stayed(world: World, tag: str) -> bool:
    """Whether the ledger has the name and checksum of these results in place of a copy."""
    return (world.project / f".batchform/archive/{tag}.stored.json").exists()


def _results(world: World, file: str) -> dict[str, Any]:
    """What the service holds: response by key."""
    found = world.query(f"SELECT path FROM files WHERE id = '{file}'")
    return _responses((world.folder / "emulator/files" / found[0]["path"]).read_bytes()) if found else {}


def _responses(lines: bytes) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for line in lines.splitlines():
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict):
            found.setdefault(str(row.get("key") or (row.get("metadata") or {}).get("key")), row.get("response"))
    return found


def _is_good(response: Any) -> bool:
    candidates = (response or {}).get("candidates")
    if not candidates:
        return False
    parts = candidates[0].get("content", {}).get("parts", ())
    return candidates[0].get("finishReason") == "STOP" and any(p.get("text") and not p.get("thought") for p in parts)


# --- what became of the rows -----------------------------------------------------------------------------------------


def _own_rows(world: World, expected: Facts, *, whole: bool) -> set[str]:
    """Ids of the delivered rows, each with its own answer. whole: to the letter, else its beginning."""
    lines = (world.project / SCENARIO.destination).read_bytes().splitlines()
    wanted = {row["id"]: row["answer"] for row in map(json.loads, expected.destination.splitlines())}
    seen = set()
    for row in map(json.loads, lines):
        own = wanted[row["id"]]
        same = row["answer"] == own if whole else row["answer"].startswith(own)
        assert same, f"{row['id']} has another row's answer: {row['answer'][:200]}"
        assert row["id"] not in seen, f"{row['id']} is delivered twice"
        seen.add(row["id"])
    return seen


def _answered_or_explained(world: World, said: Sequence[Ran], expected: Facts) -> None:
    """Each row is answered by its own answer, or failed as often as it may or in a way that is not worth another
    attempt, and was told."""
    delivered = _own_rows(world, expected, whole=True)
    to = world.folder / "tmp/export"
    [exported] = world.ask(tuple(part.format(to=to) for part in _EXPORT))
    assert exported.code == 0, exported.err
    rows = [json.loads(line) for line in (to / "rows.jsonl").read_text(encoding="utf-8").splitlines()]
    for path in to.iterdir():
        path.unlink()
    to.rmdir()
    again = set(Retry().on)
    for row in rows:
        answered = row["status"] == "answered"
        assert answered == (row["key"] in delivered), f"{row['key']} is {row['status']}, delivered: {sorted(delivered)}"
        if not answered:
            why = row["failure"]
            assert row["status"] == "failed" and why and row["failure_message"], f"no reason given: {row}"
            tried = row["attempt"] >= Retry().max_attempts
            assert tried or why not in again, f"{row['key']} failed as {why}, which is worth another attempt"
            assert any(ran.code == 6 and why in ran.err for ran in said), f"{why} of {row['key']} was never told"
    assert len(rows) == expected.destination.count(b"\n"), f"rows are missing: {len(rows)}"

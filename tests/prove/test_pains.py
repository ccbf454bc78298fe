"""What users of other tools in this field have paid twice for, or lost: one test per pain, named after it.

Each plays the pain against the emulator, over real sockets and in virtual time, and says what must come of it. The
numbers are those of the list of pains in docs/reliability.md. Where a pain has a matrix or a table of its own, the test
here is its shortest form.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from crash_effects import Effects
from crash_world import Ran
from fault_world import POLL, SETTLE, SHARDS, World

HOURS = 3600.0
APPLY = ("apply", "--yes", "--json")
WAIT = ("sync", "--wait", "--json")


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with World(tmp_path_factory.mktemp("pains")) as world:
        yield world


@pytest.fixture
def world(shared: World) -> World:
    shared.reset()
    return shared


@pytest.fixture
def google(world: World, monkeypatch: pytest.MonkeyPatch) -> World:
    """The world with the backend that users pay for, whose requests go to the emulator."""
    backend = {"type": "gemini", "base_url": world.server.url, "settle": SETTLE, "poll": POLL, "max_rows_per_job": 2}
    change_project(world, backends={"local": backend})
    monkeypatch.setenv("GEMINI_API_KEY", "first")
    return world


def apply(world: World, *, code: int = 0) -> dict[str, Any]:
    return told(world.run(APPLY), code)


def settled(world: World, *, code: int = 0) -> dict[str, Any]:
    """Time passes until nothing is unknown any more, and sync is asked."""
    world.pass_time(SETTLE + 1)
    return told(world.run(WAIT), code)


def told(ran: Ran, code: int = 0) -> dict[str, Any]:
    assert ran.code == code, (ran.code, ran.out, ran.err)
    found: dict[str, Any] = json.loads(ran.out)
    return found


def forked(world: World, *lines: tuple[str, ...], kill_at: int | None = None) -> list[int]:
    """Exit codes of commands at once, each in a process of its own. kill_at: see crash_effects.Effects."""
    pids = []
    for line in lines:
        pid = os.fork()
        if pid == 0:
            code = 99
            try:
                if kill_at is not None:
                    Effects(world.folder / "trace", kill_at=kill_at, root=world.folder, state=None).install()
                code = world.run(line).code
            finally:
                os._exit(code)
        pids.append(pid)
    return [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]


def fault(call: str, do: str, /, **also: Any) -> dict[str, Any]:
    return {"call": call, "do": {"type": do, **{k: v for k, v in also.items() if k not in _ABOUT}}} | {
        k: v for k, v in also.items() if k in _ABOUT
    }


_ABOUT = ("nth", "every", "times", "match")


def answers(world: World) -> dict[str, str]:
    path = world.project / "results/triage.jsonl"
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []
    assert len({r["id"] for r in rows}) == len(rows)
    return {r["id"]: r["answer"] for r in rows}


def all_answered(world: World, count: int = 6) -> None:
    """Each row has its own answer, and was charged for once."""
    assert answers(world) == {f"T{n}": f"Emulated answer to: Title: ticket {n}" for n in range(1, count + 1)}
    assert set(world.bill().values()) == {1}
    assert len(world.bill()) == count


def actions(world: World) -> dict[str, int]:
    plan = told(world.run(("plan", "--json")))
    return {name: count for name, count in plan["specs"][0]["actions"].items() if count}


def change_spec(world: World, **changes: Any) -> None:
    path = world.project / "specs/triage.yaml"
    spec = yaml.safe_load(path.read_text(encoding="utf-8"))
    path.write_text(yaml.safe_dump({**spec, **changes}), encoding="utf-8")


def change_project(world: World, **changes: Any) -> None:
    path = world.project / "batchform.yaml"
    project = yaml.safe_load(path.read_text(encoding="utf-8"))
    path.write_text(yaml.safe_dump({**project, **changes}), encoding="utf-8")


def titles(world: World, *rows: str) -> None:
    lines = "".join(f"T{n},{title}\n" for n, title in enumerate(rows, start=1))
    (world.project / "data/tickets.csv").write_text("id,title\n" + lines, encoding="utf-8")


# --- paid twice --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "lost",
    [
        {"type": "drop", "when": "after"},
        {"type": "error", "status": 504, "when": "after"},
        {"type": "nonsense", "body": "html", "when": "after"},
    ],
    ids=lambda do: "-".join(str(v) for v in do.values()),
)
def test_pain_1_the_answer_to_create_is_lost(world: World, lost: dict[str, Any]) -> None:
    world.server.set_faults([{"call": "batches.create", "nth": 2, "do": lost}])
    apply(world)
    assert len(world.server.fired()) == 1
    assert len(world.jobs()) == SHARDS
    all_answered(world)


@pytest.mark.parametrize("place", (190, 270, 350))
def test_pain_2_killed_somewhere_in_the_middle(world: World, place: int) -> None:
    """The crash matrix has every place; these lie around the uploads, intents and creates."""
    assert forked(world, APPLY, kill_at=place) == [-signal.SIGKILL]
    world.pass_time(SETTLE + 1)
    world.run(WAIT)
    apply(world)
    assert len(world.jobs()) == SHARDS
    all_answered(world)


@pytest.mark.parametrize("lie", [{"type": "hide"}, {"type": "end_early"}])
def test_pain_3_a_job_that_a_list_does_not_show_is_alive(world: World, lie: dict[str, Any]) -> None:
    world.server.set_faults([{"call": "batches.list", "times": "all", "do": lie}])
    told(world.run(("apply", "--yes", "--detach", "--json")))
    world.pass_time(3 * SETTLE)
    told(world.run(WAIT))
    assert len(world.jobs()) == SHARDS
    all_answered(world)


def test_pain_3_an_intent_whose_job_is_listed_late_holds_its_rows(world: World) -> None:
    world.server.set_faults(
        [
            fault("batches.create", "drop", nth=1, when="after"),
            fault("batches.create", "list_lag", nth=1, seconds=SETTLE / 2),
        ]
    )
    outcome = told(world.run(("apply", "--yes", "--detach", "--json")), 8)
    assert len(outcome["unknown"]) == 1
    assert actions(world)["unknown"] == 2
    settled(world)
    assert len(world.jobs()) == SHARDS
    all_answered(world)


def test_pain_4_jobs_of_another_key_are_not_dead(google: World, monkeypatch: pytest.MonkeyPatch) -> None:
    told(google.run(("apply", "--yes", "--detach", "--json")))
    monkeypatch.setenv("GEMINI_API_KEY", "second")
    google.pass_time(24 * HOURS)
    ran = google.run(WAIT)
    assert ran.code == 1
    assert "another credential" in ran.out
    assert actions(google) == {"in_flight": 6}
    monkeypatch.setenv("GEMINI_API_KEY", "first")
    told(google.run(WAIT))
    all_answered(google)


def test_pain_5_no_timer_of_ours_cancels_a_job(world: World) -> None:
    world.server.set_faults([fault("batches.create", "hang", nth=1)])
    told(world.run(("apply", "--yes", "--detach", "--json")))
    for _ in range(30):
        world.pass_time(HOURS)
        told(world.run(("sync", "--json")))
    assert actions(world) == {"in_flight": 2, "keep": 4}
    assert all(job["cancelled_at"] is None for job in world.jobs())


def test_pain_6_a_job_given_up_on_that_ends_well_is_collected(world: World) -> None:
    world.server.set_faults([fault("batches.get", "state", nth=1, times=2, state="FAILED")])
    world.run(APPLY)
    settled(world)
    world.run(WAIT)
    apply(world)
    assert answers(world).keys() == {f"T{n}" for n in range(1, 7)}
    assert actions(world) == {"keep": 6}


@pytest.mark.parametrize("submit", ["file", "inline"])
@pytest.mark.parametrize(
    "odd", [{"type": "shuffled"}, {"type": "rows_doubled", "differ": True}, {"type": "unknown_rows"}]
)
def test_pain_7_answers_come_in_any_order_twice_and_from_nowhere(
    shared: World, submit: str, odd: dict[str, Any]
) -> None:
    shared.reset(submit=submit, shards=1)
    shared.server.set_faults([{"call": "*", "times": "all", "do": odd}])
    apply(shared)
    all_answered(shared, 2)


@pytest.mark.parametrize("submit", ["file", "inline"])
@pytest.mark.parametrize("odd", [{"type": "rows_missing", "rows": [1]}, {"type": "keys_missing", "rows": [1]}])
def test_pain_7_an_answer_without_a_key_answers_nobody(shared: World, submit: str, odd: dict[str, Any]) -> None:
    shared.reset(submit=submit, shards=1)
    change_spec(shared, retry={"max_attempts": 1})
    shared.server.set_faults([{"call": "*", "times": "all", "do": odd}])
    outcome = apply(shared, code=6)
    assert outcome["rows"]["triage"] == {"answered": 1, "missing": 1}
    assert len(answers(shared)) == 1
    assert all(text == f"Emulated answer to: Title: ticket {key[1:]}" for key, text in answers(shared).items())


def test_pain_8_results_that_nobody_collects_are_told_before_they_are_gone(google: World) -> None:
    """Google keeps results for six weeks."""
    check = ("status", "--check", "--within", "24")
    google.server.set_faults([fault("files.download", "error", times="all", status=503)])
    told(google.run(("apply", "--yes", "--detach", "--json")))
    google.pass_time(HOURS)
    google.run(("sync", "--json"))
    assert google.run(check).code == 0
    google.pass_time(41.5 * 24 * HOURS)
    shown = google.run(check)
    assert shown.code == 1, shown.out
    assert "expire" in shown.err
    google.server.set_faults([])
    told(google.run(WAIT))
    assert google.run(check).code == 0
    all_answered(google)


def test_pain_9_an_expired_job_is_sent_again_as_often_as_the_spec_says(world: World) -> None:
    change_spec(world, retry={"max_attempts": 2})
    world.server.set_faults([fault("batches.create", "hang", times="all", match={"tag": "*"})])
    told(world.run(("apply", "--yes", "--detach", "--json")))
    world.pass_time(49 * HOURS)
    world.run(("sync", "--json"))
    assert len(world.jobs()) == 2 * SHARDS
    world.pass_time(49 * HOURS)
    outcome = told(world.run(WAIT), 6)
    assert outcome["rows"]["triage"] == {"expired": 6}
    assert actions(world) == {"held": 6}
    assert "expired after 2 of 2 attempts" in world.run(("plan",)).out
    assert not world.bill()


def test_pain_10_only_failed_rows_are_sent_again(world: World) -> None:
    titles(world, *(f"ticket {n}" + (" [[emulator:error 503 x1]]" if n in (2, 5) else "") for n in range(1, 7)))
    change_spec(world, retry={"max_attempts": 1})
    apply(world, code=6)
    change_spec(world, retry={"max_attempts": 2})
    assert actions(world) == {"rerun": 2, "keep": 4}
    apply(world)
    assert len(world.bill()) == sum(world.bill().values()) == 6


def test_pain_11_a_job_that_succeeded_with_nothing_but_errors_is_no_success(world: World) -> None:
    change_spec(world, retry={"max_attempts": 1})
    world.server.set_faults([fault("batches.create", "row_error", times="all", status=400)])
    ran = world.run(("apply", "--yes"))
    assert ran.code == 6
    assert "6 of 6 rows of triage failed" in ran.err
    assert answers(world) == {}


@pytest.mark.parametrize(
    ("fate", "kind"),
    [
        ({"type": "block_reason", "reason": "SAFETY"}, "blocked"),
        ({"type": "finish_reason", "reason": "SAFETY"}, "blocked"),
        ({"type": "finish_reason", "reason": "MAX_TOKENS"}, "truncated"),
        ({"type": "hollow_rows", "show": "text"}, "empty"),
    ],
)
def test_pain_12_what_is_no_answer_does_not_count_as_one(world: World, fate: dict[str, Any], kind: str) -> None:
    change_spec(world, retry={"max_attempts": 1})
    world.server.set_faults([{"call": "*", "times": "all", "do": fate}])
    outcome = apply(world, code=6)
    assert outcome["rows"]["triage"] == {kind: 6}
    assert answers(world) == {}


def test_pain_13_a_full_quota_at_create_costs_no_attempt(world: World) -> None:
    world.server.set_faults([fault("batches.create", "error", times=4, status=429, retry_info="60s")])
    apply(world)
    assert len(world.server.fired()) == 4
    assert len(world.jobs()) == SHARDS
    all_answered(world)


def test_pain_14_no_more_is_in_flight_than_was_allowed(shared: World) -> None:
    shared.reset(max_jobs_in_flight=1)
    apply(shared)
    jobs = shared.jobs()
    assert len(jobs) == SHARDS
    ends = [job["created_at"] + 30 for job in jobs]
    assert all(job["created_at"] >= end for job, end in zip(jobs[1:], ends, strict=False))


def test_pain_15_a_cancelled_job_takes_room_until_the_service_says_it_is_over(shared: World) -> None:
    shared.reset(max_jobs_in_flight=1)
    told(shared.run(("apply", "--yes", "--detach", "--json")))
    assert len(shared.jobs()) == 1
    shared.server.set_faults([fault("batches.get", "state", times="all", state="RUNNING")])
    tag = json.loads(shared.run(("jobs", "list", "--json")).out)[0]["tag"]
    shared.run(("jobs", "cancel", tag, "--yes"))
    shared.run(("sync", "--json"))
    assert len(shared.jobs()) == 1
    shared.server.set_faults([])
    shared.pass_time(HOURS)
    shared.run(WAIT)
    apply(shared)
    assert actions(shared) == {"keep": 6}


def test_pain_16_inputs_are_deleted_once_their_rows_are_settled(shared: World) -> None:
    shared.reset(cleanup=True)
    told(shared.run(("apply", "--yes", "--detach", "--json")))
    assert len(shared.inputs()) == SHARDS
    shared.pass_time(HOURS)
    told(shared.run(WAIT))
    assert shared.inputs() == []
    all_answered(shared)


def test_pain_16_an_upload_that_is_refused_is_told(world: World) -> None:
    world.server.set_faults(
        [fault("files.upload.*", "error", times="all", status=403, message="Storage quota exceeded.")]
    )
    ran = world.run(("apply", "--yes"))
    assert ran.code == 1
    assert "Storage quota exceeded." in ran.err
    assert actions(world) == {"run": 6}


def test_pain_20_answers_whose_keys_do_not_come_back_answer_nobody(world: World) -> None:
    """The Gemini API echoes the key of each line; without it nothing may be guessed from the order."""
    change_spec(world, retry={"max_attempts": 1})
    world.server.set_faults([fault("*", "keys_missing", times="all")])
    outcome = apply(world, code=6)
    assert outcome["rows"]["triage"] == {"missing": 6}
    assert answers(world) == {}


# --- money -------------------------------------------------------------------------------------------------------


def test_pain_23_what_is_in_flight_counts_against_a_budget(world: World) -> None:
    plan = told(world.run(("plan", "--json")))
    cost = plan["specs"][0]["cost_usd"]["expected"]
    change_project(world, limits={"max_usd": 1.5 * cost})
    told(world.run(("apply", "--yes", "--detach", "--json")))
    titles(world, *(f"ticket {n}" for n in range(1, 13)))
    refused = world.run(APPLY)
    assert refused.code == 3
    assert "max_usd" in refused.out
    assert len(world.jobs()) == SHARDS


@pytest.mark.parametrize("state", ["CANCELLED", "EXPIRED", "FAILED", "PARTIALLY_SUCCEEDED"])
def test_pain_24_what_a_job_answered_before_it_ended_is_kept(world: World, state: str) -> None:
    world.server.set_faults([fault("batches.create", "ends", nth=1, state=state, share=0.5, seconds=30)])
    outcome = apply(world, code=6)
    assert outcome["rows"]["triage"]["answered"] == 5
    told(world.run(WAIT))
    assert len(answers(world)) == (5 if state == "CANCELLED" else 6)
    apply(world)
    all_answered(world)


@pytest.mark.parametrize("show", [{"type": "stats", "show": "words"}, {"type": "without", "fields": ["batchStats"]}])
def test_pain_25_the_services_counts_decide_nothing(world: World, show: dict[str, Any]) -> None:
    world.server.set_faults([{"call": "batches.get", "times": "all", "do": show}])
    apply(world)
    all_answered(world)


def test_pain_26_long_answers_are_read_in_batches(shared: World) -> None:
    """`make bench-memory` has the million rows."""
    shared.reset(shards=1)
    shared.server.set_faults([fault("*", "huge_rows", times="all", size=8_000_000)])
    apply(shared)
    assert all(len(text) >= 8_000_000 for text in answers(shared).values())


# --- reasons, two at once, interruptions ---------------------------------------------------------------------------


def test_pain_30_a_plan_says_why(world: World) -> None:
    apply(world)
    titles(world, "ticket 1", "ticket two", *(f"ticket {n}" for n in range(3, 8)))
    plan = told(world.run(("plan", "--json")))
    assert plan["specs"][0]["reasons"] == {"row_changed": 1, "new_key": 1}
    shown = world.run(("explain", "triage", "T2")).out
    assert "ticket 2" in shown
    assert "ticket two" in shown


def test_pain_31_two_applies_at_once_send_once(world: World) -> None:
    codes = forked(world, APPLY, APPLY)
    assert 0 in codes
    assert set(codes) <= {0, 4, 5}, codes
    assert len(world.jobs()) == SHARDS
    world.run(WAIT)
    all_answered(world)


def test_pain_32_nothing_is_deleted_before_its_answers_are_safe(shared: World) -> None:
    shared.reset(cleanup=True)
    shared.server.set_faults([fault("files.download", "error", times="all", status=503)])
    told(shared.run(("apply", "--yes", "--detach", "--json")))
    shared.pass_time(HOURS)
    shared.run(("sync", "--json"))
    assert len(shared.jobs()) == SHARDS
    assert len(shared.inputs()) == SHARDS
    shared.server.set_faults([])
    told(shared.run(WAIT))
    all_answered(shared)


def test_pain_33_one_failed_job_holds_up_no_finished_answer(world: World) -> None:
    change_spec(world, retry={"max_attempts": 1})
    world.server.set_faults([fault("batches.create", "ends", nth=2, state="FAILED")])
    apply(world, code=6)
    assert len(answers(world)) == 4
    change_spec(world, retry={"max_attempts": 2})
    apply(world)
    all_answered(world)


def test_pain_34_each_row_has_a_vector_of_its_own(world: World) -> None:
    """One content a request; vectors that are not as long as was asked for answer nobody."""
    path = world.project / "specs/triage.yaml"
    spec = yaml.safe_load(path.read_text(encoding="utf-8"))
    del spec["generation_config"]
    to = {"type": "jsonl", "path": "results/triage.jsonl", "columns": {"id": "id", "vector": "embedding"}}
    spec |= {"task": "embed", "model": "gemini-embedding-001", "embed": {"dimensions": 128}, "destination": to}
    path.write_text(yaml.safe_dump(spec), encoding="utf-8")
    apply(world)
    lines = (world.project / "results/triage.jsonl").read_text(encoding="utf-8").splitlines()
    vectors = {row["id"]: tuple(row["vector"]) for row in map(json.loads, lines)}
    assert sorted(vectors) == [f"T{n}" for n in range(1, 7)]
    assert len(set(vectors.values())) == 6 and {len(v) for v in vectors.values()} == {128}
    assert set(world.bill().values()) == {1} and len(world.bill()) == 6


def test_pain_35_mistakes_of_configuration_are_told_together_and_offline(world: World) -> None:
    change_spec(world, model="gemini-9", submt="file", destination={"type": "jsonl", "path": "/etc/passwd.jsonl"})
    change_project(world, backends={"local": {"type": "emulator", "url": world.server.url, "poll": "often"}})
    ran = world.run(("validate",))
    assert ran.code == 1
    for what in ("submt", "poll"):
        assert what in ran.err + ran.out
    assert not world.server.fired()
    assert not world.jobs()


def test_pain_36_fields_that_nobody_knows_yet_break_nothing(world: World) -> None:
    world.server.set_faults(
        [
            fault("*", "unknown_fields", times="all"),
            fault("batches.get", "new_fields", times="all"),
        ]
    )
    apply(world)
    all_answered(world)
    raw = sorted((world.project / ".batchform/archive").glob("*.jsonl.gz"))
    assert len(raw) == SHARDS


def test_every_pain_of_the_list_has_a_test() -> None:
    """17 to 19, 21, 22 and 27 to 29 are not about faults."""
    named = {int(name.split("_")[2]) for name in globals() if name.startswith("test_pain_")}
    listed = {*range(1, 17), 20, *range(23, 27), *range(30, 37)}
    assert named == listed
    assert Path(__file__).name == "test_pains.py"

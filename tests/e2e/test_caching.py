"""Context caches through the command line: what requests leave out, what plans say of the price, what is refused."""

from __future__ import annotations

import json
import sqlite3
from typing import Any

import pytest
from attached_kit import asked, uploads
from tests_e2e_kit import Workspace

from batchform.rules import code_of

SYSTEM = {"text": "Sort each ticket by the rules of the house. " * 500}
"""22,000 bytes, about 5,500 tokens: the emulator counts as a plan does."""
TOKENS = 5500
PROMPT: dict[str, Any] = {"system": SYSTEM, "user": "triage.j2"}
PER_MILLION = {"standard": 0.3, "batch": 0.15, "cached": 0.03, "hour": 1.0}


def query(workspace: Workspace, sql: str) -> list[dict[str, Any]]:
    """Rows of the emulator's tables."""
    con = sqlite3.connect(workspace.root / ".batchform/emulator/emulator.sqlite")
    con.row_factory = sqlite3.Row
    try:
        return [dict(row) for row in con.execute(sql)]
    finally:
        con.close()


def held(workspace: Workspace) -> dict[str, Any]:
    """What the only cache that was ever made holds."""
    [cache] = query(workspace, "SELECT content FROM caches")
    return dict(json.loads(cache["content"]))


def sent(workspace: Workspace) -> list[dict[str, Any]]:
    """What jobs were given, as the emulator took it in."""
    names = [row["path"] for row in query(workspace, "SELECT path FROM files WHERE id LIKE 'bf-%'")]
    found = [path for name in names for path in (workspace.root / ".batchform/emulator").rglob(name)]
    return [json.loads(line)["request"] for path in found for line in path.read_bytes().splitlines()]


def test_what_all_rows_share_is_kept_once_and_switching_it_sends_nothing(workspace: Workspace) -> None:
    workspace.spec(prompt=PROMPT, cache={})
    whole = asked(workspace)
    workspace.apply("--detach")
    assert held(workspace)["systemInstruction"]["parts"] == [SYSTEM]
    requests = sent(workspace)
    assert len(requests) == 6 and len({request["cachedContent"] for request in requests}) == 1
    assert {tuple(sorted(request)) for request in requests} == {("cachedContent", "contents", "generationConfig")}
    workspace.ok("sync", "--wait", "--quiet")
    assert len(workspace.delivered()) == 6 and set(workspace.billed()) == whole

    for cache in ({"ttl": "7d"}, None, {}):
        workspace.spec(prompt=PROMPT, **({"cache": cache} if cache is not None else {}))
        assert workspace.actions() == {"keep": 6}


def test_examples_tools_and_files_are_kept_too_and_rows_keep_what_is_theirs(workspace: Workspace) -> None:
    for name in ("manual", "T-1", "T-2"):
        workspace.write(f"media/{name}.txt", f"file {name}")
    manual = {"path": "media/manual.txt", "inline_up_to": 1}
    own = {"path": "media/{{ id }}.txt", "inline_up_to": 1}
    turns = [{"role": "user", "content": {"text": "Hello."}}, {"role": "model", "content": {"text": "Yes?"}}]
    workspace.rows([workspace.row(1), workspace.row(2)])
    workspace.spec(
        prompt={**PROMPT, "messages": turns, "attachments": [manual, own]},
        tools=[{"function_declarations": [{"name": "close", "description": "Closes it."}]}],
        cache={"attachments": ["media/manual.txt"]},
    )
    whole = asked(workspace)

    workspace.apply()

    content = held(workspace)
    assert content["tools"][0]["functionDeclarations"][0]["name"] == "close"
    assert [c["role"] for c in content["contents"]] == ["user", "model", "user"]
    assert [[*part] for part in content["contents"][2]["parts"]] == [["fileData"]]
    for request in sent(workspace):
        assert request.keys() == {"cachedContent", "contents", "generationConfig"}
        [turn] = request["contents"]
        assert [[*part] for part in turn["parts"]] == [["fileData"], ["text"]]
    assert len(uploads(workspace)) == 3, "the manual is uploaded once, for the cache"
    assert set(workspace.billed()) == whole, "what ran is what was planned"
    assert workspace.actions() == {"keep": 2}


def test_a_plan_says_what_it_saves_and_costs_and_limits_count_it(workspace: Workspace) -> None:
    workspace.rows([workspace.row(i) for i in range(2000)])
    workspace.spec(prompt=PROMPT)
    without = workspace.plan()
    workspace.spec(prompt=PROMPT, cache={})

    plan = workspace.plan()

    cache, million = plan["cache"], TOKENS / 1e6
    assert cache["tokens"] == pytest.approx(TOKENS, rel=0.01) and cache["rows"] == 2000 and not cache["kept"]
    assert cache["hours"] == {"low": 1.0, "expected": 24.0, "high": 50.0}
    saved = 2000 * million * (PER_MILLION["batch"] - PER_MILLION["cached"])
    made, stored = million * PER_MILLION["standard"], 24 * million * PER_MILLION["hour"]
    assert cache["saved_usd"] == pytest.approx(saved, rel=0.01)
    assert cache["made_usd"] == pytest.approx(made, rel=0.01)
    assert cache["storage_usd"]["expected"] == pytest.approx(stored, rel=0.01)
    assert cache["without_usd"] == without["cost_usd"] and "cache" not in without
    cost = without["cost_usd"]["expected"] - saved + made + stored
    assert plan["cost_usd"]["expected"] == pytest.approx(cost, rel=0.01)
    assert sum(s["cost_usd"]["expected"] for s in plan["shards"]) == pytest.approx(cost, rel=0.01)
    assert plan["shards"][0]["digest"] == without["shards"][0]["digest"]
    assert not [n for n in plan["notes"] if code_of("cache-costs-more") in n]

    for shown in (workspace.run("plan").out, workspace.run("plan", "--format", "markdown").out):
        assert "tokens of 2,000 rows are cached: saves $1.32, costs $0.1" in " ".join(shown.split())
    workspace.spec(prompt=PROMPT, cache={"ttl": "7d"})
    kept = workspace.plan()["cache"]
    assert kept["kept"] and kept["hours"] == {"low": 168.0, "expected": 168.0, "high": 168.0}
    workspace.spec(prompt=PROMPT, cache={"ttl": "7d"}, limits={"max_usd": round(cost, 2)})
    assert workspace.run("plan").code in (0, 3) and workspace.plan()["rows_to_send"] == 0


def test_a_cache_that_does_not_pay_is_told_and_sent_all_the_same(workspace: Workspace) -> None:
    workspace.spec(prompt=PROMPT, cache={})
    [note] = [n for n in workspace.plan()["notes"] if n.startswith(code_of("cache-costs-more"))]
    assert "to save $0.0040 on 6 rows" in note or "on 6 rows" in note
    assert code_of("cache-costs-more") in workspace.run("validate", "--format", "json").out
    workspace.spec(prompt=PROMPT, cache={}, ignore=[{"rule": code_of("cache-costs-more"), "reason": "A trial."}])
    assert not workspace.plan()["notes"]


REFUSED: dict[str, tuple[dict[str, Any], str, str]] = {
    "system by row": (
        {"prompt": {**PROMPT, "system": {"text": "For {{ tenant }}."}}}, "cache-not-shared", "reads `tenant`",
    ),
    "system beside it": ({"cache": {"system": False}}, "cache-not-shared", "takes no system instruction beside it"),
    "nothing": ({"prompt": {"user": "triage.j2"}}, "cache-not-shared", "there is nothing to cache"),
    "no such file": ({"cache": {"attachments": ["x.pdf"]}}, "cache-not-shared", "has no `x.pdf`"),
    "file by row": (
        {"prompt": {**PROMPT, "attachments": ["{{ id }}.txt"]}, "cache": {"attachments": ["{{ id }}.txt"]}},
        "cache-not-shared", "is not one and the same file",
    ),
    "file not first": (
        {"prompt": {**PROMPT, "attachments": ["{{ id }}.txt", "a.txt"]}, "cache": {"attachments": ["a.txt"]}},
        "cache-not-shared", "is not at the beginning",
    ),
    "own contents": ({"request": {"contents": []}}, "conflicting-fields", "replaces what `cache` would hold"),
    "short life": ({"cache": {"ttl": "1h"}}, "cache-too-short", "ttl is 1 h, and a job may take 48 h"),
    "small": ({"prompt": {**PROMPT, "system": {"text": "Be brief."}}}, "cache-too-small", "too few tokens"),
    "model": ({"model": "gemini-3.1-flash-image"}, "model-refuses", "is not known to take a context cache"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_cached_is_refused_before_anything_is_sent(workspace: Workspace, case: str) -> None:
    changes, rule, said = REFUSED[case]
    workspace.spec(**{"prompt": PROMPT, "cache": {}, **changes})
    found = workspace.run("plan")
    assert found.code == 1, found.out
    assert f"{code_of(rule)}" in found.err and said in " ".join(found.err.split())


def test_vertex_takes_none(workspace: Workspace) -> None:
    workspace.project(backends={"local": {"type": "emulator", "cloud": "vertex"}})
    workspace.spec(prompt=PROMPT, cache={})
    found = workspace.run("plan")
    assert found.code == 1 and "batches of Vertex AI take no explicit cache" in found.err


def test_what_the_service_finds_too_small_sends_nothing_and_says_what_to_do(workspace: Workspace) -> None:
    """The estimate is a little above the least, and the emulator counts a little below."""
    workspace.spec(prompt={**PROMPT, "system": {"text": "é" * 8300}}, cache={})
    found = workspace.run("apply", "--yes")
    assert found.code == 1 and "Cached content is too small" in found.err
    assert "leave `cache` out of the spec" in " ".join(found.err.split()) and workspace.billed() == []

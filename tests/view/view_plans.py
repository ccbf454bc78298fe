"""Plans to render: one with everything in it, a few small ones, and a strategy for any."""

from __future__ import annotations

import json
import os
from pathlib import Path

from hypothesis import strategies as st
from msgspec.structs import replace

from batchform.plan.bounds import Envelope, SpecBound
from batchform.plan.importing import Importing
from batchform.plan.model import (
    ZERO,
    Action,
    After,
    Budget,
    Change,
    Moving,
    Option,
    Plan,
    Range,
    Reason,
    Sample,
    Shard,
    SpecPlan,
    Tokens,
    Verdict,
)
from batchform.plan.policy import NAMES
from batchform.plan.stages import Measure, StagePlan

GOLDEN = Path(__file__).parent / "golden"
EVIL = "a\x1b[2J`x` ```y``` @octocat <img src=x onerror=alert(1)> | #1 \u202emirrored https://evil.example [z](y)"


def check_golden(name: str, text: str) -> None:
    """Compare with a golden file; UPDATE_GOLDEN=1 writes it anew, to be reviewed as a diff."""
    path = GOLDEN / name
    if os.environ.get("UPDATE_GOLDEN"):
        path.write_text(text, encoding="utf-8")
    assert path.read_text(encoding="utf-8") == text, f"{path} differs; UPDATE_GOLDEN=1 writes it anew"


def request(user: str, system: str = "Answer in one sentence.", temperature: float = 0) -> str:
    return json.dumps(
        {
            "contents": [{"parts": [{"text": user}], "role": "user"}],
            "generationConfig": {"maxOutputTokens": 256, "temperature": temperature},
            "systemInstruction": {"parts": [{"text": system}]},
        }
    )


def actions(**rows: int) -> dict[Action, int]:
    return {action: rows.get(action.value, 0) for action in Action}


def shard(index: int, rows: int, mode: str = "file") -> Shard:
    digest = "sha256:" + f"{index:064x}"
    usd = Range(0.2, 0.285, 0.55)
    return Shard(index, f"triage-ab12-{index}-a1", digest, rows, rows, 9_000 * rows, 1_000 * rows, usd, mode, "a", "b")


def verdict(
    name: str, scope: str, limit: float, actual: float, message: str, *, ok: bool, allowed: bool = False
) -> Verdict:
    return Verdict(name, scope, ok, limit, actual, message, allowed)


TRIAGE = SpecPlan(
    name="triage",
    spec_digest="sha256:" + "a" * 64,
    source="3 files, data/tickets*.csv",
    source_rows=50_427,
    backend="gemini",
    realm="google",
    model="gemini-3.5-flash-lite",
    destination="parquet results/triage.parquet",
    actions=actions(run=1_204, rerun=300, redeliver=5, in_flight=900, unknown=2, forget=3, held=48_011, keep=12),
    reasons={Reason.NEW_KEY: 1_204, Reason.ROW_CHANGED: 20, Reason.PROMPT_CHANGED: 280, Reason.KEY_LEFT_SOURCE: 3},
    rows_to_send=1_504,
    requests_to_send=1_504,
    shards=(shard(0, 1_000), shard(1, 504)),
    bytes=12_300_000,
    tokens=Tokens(
        1_610_000,
        Range(100_000, 260_000, 500_000),
        "p50 of 488 past rows of this spec",
        "0.271 tokens per byte in 488 past rows of this spec",
    ),
    cost=Range(0.4, 0.57, 1.1),
    verdicts=(
        verdict("max_usd", "triage", 0.5, 0.57, "expected cost $0.57 is above $0.50; allowed", ok=True, allowed=True),
        verdict("max_rows", "triage", 100_000, 1_504, "1,504 rows to send, within 100,000", ok=True),
    ),
    samples=(
        Sample(
            "T-1881",
            Action.RERUN,
            Reason.PROMPT_CHANGED,
            request("Ticket: the printer is on fire.\nWhich team?", "Answer in one sentence. Cite the ticket id."),
            "longest",
            request("Ticket: the printer is on fire.\nWhich team?"),
            ("prompt",),
        ),
        Sample("T-9\x1b[31m", Action.RUN, Reason.NEW_KEY, request("Ticket: " + "x" * 300 + "\x1b[2J"), "by key hash"),
    ),
    held_by={"limit max_rows of last week": 48_000, "failed: blocked is not in retry.on": 11},
    notes=("model gemini-3.5-flash-lite is shut down on 2026-12-11, in 20 days.",),
    previous="last apply was estimated $3.10, cost $2.96",
)  # fmt: skip

SUMMARY = SpecPlan(
    name="summary",
    spec_digest="sha256:" + "b" * 64,
    source="data/packages.csv",
    source_rows=420,
    backend="local",
    realm="emulator",
    model="gemini-3.5-flash-lite",
    destination="jsonl results/summary.jsonl",
    actions=actions(run=420),
    reasons={Reason.NEW_KEY: 420},
    rows_to_send=420,
    requests_to_send=420,
    shards=(shard(0, 420, "inline"),),
    bytes=233_000,
    tokens=Tokens(
        58_000,
        Range(5_376, 26_880, 107_520),
        "no history: 25 % of max_output_tokens 256",
        "4 bytes of prompt per token, give or take 25 %",
    ),
    cost=Range(0.0132, 0.0423, 0.1453),
    preview="public",
    samples=(Sample(EVIL, Action.RUN, Reason.NEW_KEY, request(f"Summarise: {EVIL}"), "shortest"),),
)

HELD = replace(
    SUMMARY,
    name="extract",
    preview="private",
    actions=actions(held=420),
    rows_to_send=0,
    requests_to_send=0,
    shards=(),
    bytes=0,
    cost=ZERO,
    held_by={"limit max_usd": 420},
    verdicts=(
        verdict("max_usd", "extract", 0.01, 0.04, "cost $0.04 is above $0.01; --allow max_usd releases it", ok=False),
    ),
)  # fmt: skip

UP_TO_DATE = replace(
    SUMMARY, actions=actions(keep=420), reasons={}, rows_to_send=0, requests_to_send=0, shards=(), samples=(), cost=ZERO
)


def plan(*specs: SpecPlan, **changes: object) -> Plan:
    made = Plan(
        digest="sha256:" + "5c1e0a77" * 8,
        project="acme-support",
        environment="",
        created_at="2026-11-21T12:00:00Z",
        lineage="0b5e",
        serial=41,
        batchform_version="0.1.0",
        prices_dated="2026-11-21",
        specs=specs,
        selected=tuple(s.name for s in specs),
        partial=False,
    )
    return replace(made, **changes)  # type: ignore[arg-type]


EDITED = replace(
    TRIAGE,
    verdicts=(),
    samples=(),
    notes=(),
    actions=actions(run=1_204, held=48_311, keep=12),
    reasons={Reason.NEW_KEY: 1_204},
    rows_to_send=1_204,
    held_by={"on_prompt_change: ask (prompt_changed)": 48_311},
    change=Change(
        "ask", 0, "spec", "", "sha256:c0", 48_311, 48_311,
        (
            Option("rerun", 49_515, Range(9.1, 21.31, 35.43)),
            Option("keep", 1_204, Range(0.4, 0.57, 1.1)),
            Option("canary", 1_254, Range(0.42, 0.59, 1.14), 50),
        ),
    ),
)  # fmt: skip
BOUND = SpecBound(
    "triage", "gemini-3.5-flash-lite", "gemini", "google",
    {"spec": "sha256:" + "a" * 64, "template": "sha256:02be44d" + "0" * 57, "config": "sha256:" + "c" * 64},
    "ask", "", {"run": 1_325, "rerun": 121, "remove": 0}, 1_325, 0.627,
)  # fmt: skip
APPROVABLE = replace(
    plan(EDITED, partial=True),
    envelope=Envelope(
        "sha256:" + "e1" * 32, "sha256:" + "5c1e0a77" * 8, "acme-support", "", "0b5e", "2026-11-21T12:00:00Z",
        "2026-11-28T12:00:00Z", (BOUND,), 1_325, 0.627, partial=True,
    ),
)  # fmt: skip

STAGED = replace(
    TRIAGE,
    verdicts=(),
    samples=(),
    notes=(),
    previous="",
    actions=actions(run=4_900, held=45_050, keep=50),
    reasons={Reason.NEW_KEY: 4_900},
    rows_to_send=4_900,
    held_by={"rollout: stage 3 of 3 waits for the gate of stage 2": 45_050},
    after=After("", 45_050, Range(0.0, 19.4, 31.5), "", 45_050),
    rollout=StagePlan(
        "sha256:ed17", 2, 3, 1, "sending", 4_950, 50, 45_050,
        (Measure("answered", 0.95, 0.98, ok=True), Measure("max_usd_per_row", 0.002, 0.00043, ok=True)),
        {"invalid_output": 1}, (("T-1881", "invalid_output"),),
    ),
)  # fmt: skip
GATE_FAILED = replace(
    STAGED,
    name="sort",
    preview="public",
    actions=actions(held=49_958, keep=42),
    reasons={},
    rows_to_send=0,
    shards=(),
    held_by={"rollout: the gate of stage 1 of 3 failed": 49_950, "failed: blocked is not in retry.on": 8},
    rollout=StagePlan(
        "sha256:ed17", 1, 3, 1, "failed", 50, 50, 49_950, (Measure("answered", 0.95, 0.84, ok=False),), {"blocked": 8},
        (("T-7", "blocked"), (EVIL, "blocked")),
    ),
)  # fmt: skip

FULL = plan(
    TRIAGE,
    SUMMARY,
    verdicts=(verdict("max_rows", "project", 100_000, 1_924, "1,924 rows to send, within 100,000", ok=True),),
)

_text = st.text(max_size=60) | st.just(EVIL)
_rows = st.integers(0, 10**7)
_usd = st.floats(0, 1e6, allow_nan=False)
_range = st.builds(Range, _usd, _usd, _usd)
_verdicts = st.lists(
    st.builds(
        Verdict, st.sampled_from(NAMES), st.sampled_from(["triage", "project"]), st.booleans(), _usd, _usd, _text,
        st.booleans(), st.none() | st.builds(Budget, _usd, _usd, _usd, st.sampled_from(["expected", "high"])),
    ),
    max_size=4,
).map(tuple)  # fmt: skip
_samples = st.lists(
    st.builds(
        Sample, _text, st.sampled_from(Action), st.none() | st.sampled_from(Reason),
        _text.map(request) | _text, st.sampled_from(["shortest", "longest"]), st.none() | _text.map(request),
    ),
    max_size=3,
).map(tuple)  # fmt: skip
_specs = st.builds(
    replace,
    st.sampled_from([TRIAGE, SUMMARY, HELD, UP_TO_DATE]),
    name=st.from_regex(r"[a-z0-9][a-z0-9_-]{0,46}", fullmatch=True),
    source=_text,
    destination=_text,
    model=_text,
    actions=st.fixed_dictionaries(dict.fromkeys(Action, _rows)),
    reasons=st.dictionaries(st.sampled_from(Reason), st.integers(0, 10**6)),
    cost=_range,
    verdicts=_verdicts,
    samples=_samples,
    held_by=st.dictionaries(_text, _rows, max_size=3),
    notes=st.lists(_text, max_size=3).map(tuple),
    previous=_text,
    preview=st.sampled_from(["public", "private"]),
    change=st.sampled_from([None, EDITED.change]),
    rollout=st.sampled_from([None, STAGED.rollout, GATE_FAILED.rollout]),
    after=st.sampled_from([None, STAGED.after]),
)
MOVING = plan(
    UP_TO_DATE,
    moves=(
        Moving("triage", "sorting", rows=50_427, jobs=1),
        Moving("support", rows=60, keys=60, waits=12),
        Moving("gone", rows=6, reason="replaced by support"),
    ),
    imports=(
        Importing(
            "triage",
            "import-triage-1",
            "batches/abc123",
            1_210,
            1_207,
            1_204,
            1_204,
            {"a key that `requests` does not have": 2, "no answer: blocked": 1},
            ("results.jsonl:7 (a key that `requests` does not have)",),
        ),
        Importing(
            "triage", "import-triage-2", "batches/def456", 0, 0, notes=("the job ended CANCELLED without results",)
        ),
    ),
)
"""What goes on under another name or key, is given up, and was bought elsewhere."""


PLANS = st.builds(
    plan,
    _specs,
    _specs,
    environment=_text,
    partial=st.booleans(),
    verdicts=_verdicts,
    purpose=st.sampled_from(["apply", "retry"]),
)

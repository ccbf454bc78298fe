"""What costs nothing costs nothing; what must be sent is sent, once."""

from __future__ import annotations

import csv
import gzip
import json
import os
import shutil
from pathlib import Path
from typing import Any

import duckdb
import pytest
from tests_e2e_kit import SPEC, Workspace

from batchform.canon import file_digest

SCHEMA = {
    "type": "object",
    "properties": {"label": {"type": "string", "enum": ["a", "b"]}, "score": {"type": "integer"}},
    "required": ["label", "score"],
}


def test_first_apply_sends_all_and_the_second_nothing(workspace: Workspace) -> None:
    assert workspace.actions() == {"run": 6}
    outcome = workspace.apply().json
    assert outcome["rows"] == {"triage": {"answered": 6}}
    assert [r["id"] for r in workspace.delivered()] == [f"T-{i}" for i in range(1, 7)]
    assert workspace.actions() == {"keep": 6}
    again = workspace.apply().json
    assert (again["created"], len(workspace.billed())) == ([], 6)


def test_detailed_exitcode(workspace: Workspace) -> None:
    assert workspace.run("plan", "--detailed-exitcode").code == 2
    workspace.apply()
    assert workspace.run("plan", "--detailed-exitcode").code == 0


def test_appended_row_is_one_to_send(workspace: Workspace) -> None:
    workspace.apply()
    workspace.rows([workspace.row(i) for i in range(1, 8)])
    plan = workspace.plan()
    assert (plan["rows_to_send"], plan["reasons"], plan["jobs"]) == (1, {"new_key": 1}, 1)
    workspace.apply()
    assert len(workspace.billed()) == 7
    assert len(workspace.delivered()) == 7


def test_edited_row_is_one_to_send_and_its_answer_is_replaced(workspace: Workspace) -> None:
    workspace.apply()
    before = {r["id"]: r["text"] for r in workspace.delivered()}
    rows = [workspace.row(i) for i in range(1, 7)]
    rows[2]["body"] = "something else entirely"
    workspace.rows(rows)
    plan = workspace.plan()
    assert (plan["actions"]["rerun"], plan["reasons"]) == (1, {"row_changed": 1})
    workspace.apply()
    after = {r["id"]: r["text"] for r in workspace.delivered()}
    assert {k for k in after if after[k] != before[k]} == {"T-3"}
    assert len(workspace.billed()) == 7


def _reordered(workspace: Workspace) -> None:
    workspace.rows([workspace.row(i) for i in (4, 2, 6, 1, 3, 5)])


def _touched(workspace: Workspace) -> None:
    os.utime(workspace.root / "data/tickets.csv", (1, 1))


def _requoted_with_other_columns_order(workspace: Workspace) -> None:
    rows = [dict(reversed(workspace.row(i).items())) for i in range(1, 7)]
    workspace.rows(rows, quoting=csv.QUOTE_ALL, lineterminator="\r\n")


def _unread_column_changed(workspace: Workspace) -> None:
    workspace.rows([{**workspace.row(i), "tenant": "other", "extra": "new"} for i in range(1, 7)])


def _split_into_two_gzipped_files(workspace: Workspace) -> None:
    lines = (workspace.root / "data/tickets.csv").read_text().splitlines(keepends=True)
    for number, part in enumerate((lines[1:4], lines[4:])):
        workspace.write(f"data/part{number}.csv.gz", gzip.compress("".join([lines[0], *part]).encode()))
    workspace.spec(source={"type": "csv", "path": "data/part*.csv.gz"})


def _exported_as(kind: str) -> Any:
    def export(workspace: Workspace) -> None:
        target = workspace.root / f"data/tickets.{kind}"
        con = duckdb.connect()
        con.execute(f"CREATE TABLE t AS SELECT * FROM read_csv('{workspace.root}/data/tickets.csv', all_varchar=true)")
        con.execute(f"COPY t TO '{target}' (FORMAT {'json' if kind == 'jsonl' else kind})")
        con.close()
        workspace.spec(source={"type": kind, "path": f"data/tickets.{kind}"})

    return export


def _template_refactored(workspace: Workspace) -> None:
    workspace.write("templates/body.j2", "Body: {{ body }}")
    workspace.write("templates/triage.j2", "{# tidier #}Title: {{ title }}\n{% include 'body.j2' %}\n")


def _template_inlined(workspace: Workspace) -> None:
    workspace.spec(
        prompt={"messages": [{"role": "user", "content": {"text": "Title: {{ title }}\nBody: {{ body }}\n"}}]}
    )


def _spec_rewritten(workspace: Workspace) -> None:
    text = json.dumps(
        {**dict(reversed(SPEC.items())), "generation_config": {"maxOutputTokens": 64, "temperature": 0.0},
         "description": "new", "tags": ["x"], "model": "models/gemini-3.5-flash-lite"}
    )  # fmt: skip
    workspace.write("specs/triage.yaml", "# a comment\n" + text)


FREE = [
    _reordered, _touched, _requoted_with_other_columns_order, _unread_column_changed, _split_into_two_gzipped_files,
    _exported_as("parquet"), _exported_as("jsonl"), _template_refactored, _template_inlined, _spec_rewritten,
]  # fmt: skip


@pytest.mark.parametrize("change", FREE, ids=lambda f: f.__qualname__.strip("_").split(".")[0])
def test_a_change_that_leaves_the_request_alone_is_free(workspace: Workspace, change: Any) -> None:
    workspace.apply()
    change(workspace)
    assert workspace.actions() == {"keep": 6}
    workspace.apply()
    assert workspace.actions() == {"keep": 6}
    assert len(workspace.billed()) == 6


def test_another_folder_and_machine_owe_nothing(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    workspace.apply()
    moved = workspace.root.parent / "elsewhere"
    shutil.copytree(workspace.root, moved)
    monkeypatch.chdir(moved)
    assert workspace.actions() == {"keep": 6}


def test_a_refactored_template_is_not_rendered_again_after_apply(workspace: Workspace) -> None:
    workspace.apply()
    _template_refactored(workspace)
    workspace.apply()
    rows = workspace.ok("ledger", "list", "--json").json["serial"]
    workspace.apply()
    assert workspace.ok("ledger", "list", "--json").json["serial"] == rows, "a second refactored apply records nothing"


PAID = {
    "generation_config_changed": {"generation_config": {"temperature": 1, "max_output_tokens": 64}},
    "prompt_changed": {"prompt": {"user": "triage.j2", "system": {"text": "Be brief."}}},
    "schema_changed": {"generation_config": {"temperature": 0, "max_output_tokens": 64, "response_schema": SCHEMA}},
    "model_changed": {"model": "gemini-3.5-flash"},
}


@pytest.mark.parametrize("reason", PAID)
def test_a_change_of_the_request_is_sent_again(workspace: Workspace, reason: str) -> None:
    workspace.apply()
    workspace.spec(**PAID[reason])
    plan = workspace.plan()
    assert (plan["actions"]["rerun"], plan["reasons"]) == (6, {reason: 6})
    workspace.apply()
    assert (len(workspace.billed()), workspace.actions()) == (12, {"keep": 6})


@pytest.mark.parametrize("reason", PAID)
def test_going_back_to_an_answered_request_is_reused(workspace: Workspace, reason: str) -> None:
    workspace.apply()
    first = workspace.delivered()
    workspace.spec(**PAID[reason])
    workspace.apply()
    workspace.spec()
    assert workspace.actions() == {"reuse": 6}
    workspace.apply()
    assert len(workspace.billed()) == 12
    assert [r["text"] for r in workspace.delivered()] == [r["text"] for r in first]


def test_json_in_an_answer_of_words_is_found_later_for_nothing(workspace: Workspace) -> None:
    workspace.rows([workspace.row(1, title='{"label": "bug"}', body="is what it is")])  # the emulator says it again
    workspace.spec(output={"format": "json", "extract": False})
    assert workspace.run("apply", "--yes").code == 6
    workspace.spec(output={"format": "json"})
    assert workspace.actions() == {"reparse": 1}
    workspace.apply()
    assert [row["response"] for row in workspace.delivered()] == [{"label": "bug"}]
    assert len(workspace.billed()) == 1


def test_schema_changes_only_in_the_sent_schema_cost(workspace: Workspace) -> None:
    workspace.spec(generation_config={"max_output_tokens": 64, "response_schema": SCHEMA})
    workspace.apply()
    workspace.spec(
        generation_config={"max_output_tokens": 64, "response_schema": SCHEMA},
        output={"schema": {"type": "object", "required": ["label"]}},
    )
    assert workspace.actions() == {"reparse": 6}
    workspace.apply()
    assert (workspace.actions(), len(workspace.billed())) == ({"keep": 6}, 6)


@pytest.mark.parametrize(
    "destination",
    [
        {"type": "csv", "path": "results/triage.csv"},
        {"type": "parquet", "path": "results/triage.parquet"},
        {"type": "jsonl", "path": "results/parts/"},
        {"type": "sqlite", "path": "results/all.db", "table": "triage"},
        {"type": "duckdb", "path": "results/all.duckdb", "table": "triage"},
        {"type": "jsonl", "path": "results/triage.jsonl", "columns": {"said": "text", "ticket": "id"}},
    ],
    ids=lambda d: f"{d['type']}-{'mapped' if 'columns' in d else 'plain'}",
)
def test_another_destination_is_delivered_from_the_archive(workspace: Workspace, destination: dict[str, Any]) -> None:
    workspace.apply()
    workspace.spec(destination=destination)
    plan = workspace.plan()
    assert (plan["actions"]["redeliver"], plan["rows_to_send"]) == (6, 0)
    workspace.apply()
    assert (workspace.actions(), len(workspace.billed())) == ({"keep": 6}, 6)
    assert (workspace.root / destination["path"]).exists()


def test_a_lost_destination_is_delivered_again(workspace: Workspace) -> None:
    workspace.apply()
    (workspace.root / "results/triage.jsonl").unlink()
    assert workspace.actions() == {"redeliver": 6}
    workspace.apply()
    assert len(workspace.delivered()) == 6


def test_a_key_that_left_keeps_its_answer(workspace: Workspace) -> None:
    workspace.apply()
    workspace.rows([workspace.row(i) for i in range(1, 6)])
    assert workspace.actions() == {"keep": 5, "forget": 1}
    workspace.apply()
    assert workspace.actions() == {"keep": 5}
    assert len(workspace.delivered()) == 6
    workspace.rows([workspace.row(i) for i in range(1, 7)])
    assert workspace.plan()["rows_to_send"] == 0


def test_a_key_that_left_is_pruned_and_comes_back_for_nothing(workspace: Workspace) -> None:
    pruned = {**SPEC["destination"], "prune": True}
    workspace.spec(destination=pruned)
    workspace.apply()
    workspace.rows([workspace.row(i) for i in range(1, 6)])
    plan = workspace.plan()
    assert (plan["actions"]["remove"], plan["reasons"]) == (1, {"key_left_source": 1})
    workspace.apply()
    assert (len(workspace.delivered()), workspace.actions()) == (5, {"keep": 5})
    workspace.rows([workspace.row(i) for i in range(1, 7)])
    assert workspace.plan()["rows_to_send"] == 0
    workspace.apply()
    assert (len(workspace.delivered()), len(workspace.billed())) == (6, 6)


def test_identical_requests_are_sent_once_and_shared(workspace: Workspace) -> None:
    rows = [workspace.row(i, title="same", body="same") for i in range(1, 5)] + [workspace.row(5)]
    workspace.rows(rows)
    workspace.spec(idempotency={"key": ["id"], "reuse_identical": True})
    plan = workspace.plan()
    assert (plan["actions"]["run"], plan["actions"]["reuse"], plan["requests_to_send"]) == (2, 3, 2)
    workspace.apply()
    assert (len(workspace.billed()), workspace.actions()) == (2, {"keep": 5})
    assert len({r["text"] for r in workspace.delivered()[:4]}) == 1
    workspace.rows([*rows, workspace.row(6, title="same", body="same")])
    assert workspace.actions() == {"reuse": 1, "keep": 5}
    workspace.apply()
    assert (len(workspace.billed()), len(workspace.delivered())) == (2, 6)


def test_identical_requests_are_sent_apart_by_default(workspace: Workspace) -> None:
    workspace.rows([workspace.row(i, title="same", body="same") for i in range(1, 5)])
    workspace.apply()
    assert len(workspace.billed()) == 4


def test_on_prompt_change_keep(workspace: Workspace) -> None:
    workspace.apply()
    workspace.spec(
        prompt={"user": {"text": "New prompt: {{ body }}"}}, idempotency={"key": ["id"], "on_prompt_change": "keep"}
    )
    rows = [workspace.row(i) for i in range(1, 8)]
    rows[0]["body"] = "changed"
    workspace.rows(rows)
    assert workspace.actions() == {"keep": 5, "run": 1, "rerun": 1}


def test_on_row_change_keep(workspace: Workspace) -> None:
    workspace.spec(idempotency={"key": ["id"], "on_row_change": "keep"})
    workspace.apply()
    workspace.rows([workspace.row(i, body="changed") for i in range(1, 8)])
    assert workspace.actions() == {"keep": 6, "run": 1}


def test_rerun_is_planned_reviewed_and_done_once(workspace: Workspace) -> None:
    workspace.apply()
    workspace.ok("rerun", "triage", "--key", "T-2", "--reason", "looked odd")
    plan = workspace.plan()
    assert (plan["actions"]["rerun"], plan["reasons"]) == (1, {"requested": 1})
    workspace.apply()
    assert (workspace.actions(), len(workspace.billed())) == ({"keep": 6}, 7)
    workspace.ok("rerun", "triage", "--where", "id IN ('T-1', 'T-4')")
    assert workspace.plan()["reasons"] == {"requested": 2}


def test_detach_and_sync(workspace: Workspace) -> None:
    workspace.project(backends={"local": {"type": "emulator", "job_seconds": 0.3, "poll": "10ms"}})
    detached = workspace.run("apply", "--yes", "--detach", "--json")
    assert (detached.code, len(detached.json["running"])) == (0, 1)
    assert workspace.actions() == {"in_flight": 6}
    workspace.ok("sync", "--wait")
    assert (workspace.actions(), len(workspace.delivered())) == ({"keep": 6}, 6)


def test_rows_changed_in_flight_wait_for_their_job(workspace: Workspace) -> None:
    workspace.project(backends={"local": {"type": "emulator", "job_seconds": 0.3, "poll": "10ms"}})
    workspace.run("apply", "--yes", "--detach")
    workspace.rows([workspace.row(i, body="changed") for i in range(1, 7)])
    assert workspace.actions() == {"in_flight": 6}
    workspace.ok("sync", "--wait")
    assert workspace.actions() == {"rerun": 6}


@pytest.mark.parametrize("submit", ["file", "inline", "auto"])
def test_every_way_to_submit_gives_the_same_answers(workspace: Workspace, submit: str) -> None:
    workspace.rows([workspace.row(i, body=f'naïve “{i}” ünïcode \u2028 \\ " {{}}') for i in range(1, 7)])
    workspace.spec(submit=submit)
    workspace.apply()
    assert {r["finish_reason"] for r in workspace.delivered()} == {"STOP"}
    assert len({r["text"] for r in workspace.delivered()}) == 6
    workspace.spec(submit="file")
    assert workspace.actions() == {"keep": 6}


def test_shards_are_cut_by_rows_and_all_are_sent(workspace: Workspace) -> None:
    backend = {"type": "emulator", "job_seconds": 0, "poll": "10ms", "max_rows_per_job": 4, "max_jobs_in_flight": 1}
    workspace.project(backends={"local": backend})
    assert workspace.plan()["jobs"] == 2
    outcome = workspace.apply().json
    assert (len(outcome["created"]), len(workspace.billed())) == (2, 6)


def test_keys_of_several_columns_and_expressions(workspace: Workspace) -> None:
    workspace.spec(idempotency={"key": ["tenant", "id"]})
    workspace.apply()
    assert workspace.delivered()[0]["tenant"] == "acme"
    workspace.spec(idempotency={"key": "{{ tenant|upper }}/{{ id }}"})
    assert workspace.plan()["actions"]["run"] == 6
    workspace.apply()
    assert workspace.delivered()[0]["key"] == "ACME/T-1"


@pytest.mark.parametrize(("mode", "kept"), [("first", "text 1"), ("last", "text 2")])
def test_duplicates_are_resolved_when_asked(workspace: Workspace, mode: str, kept: str) -> None:
    workspace.rows([workspace.row(1), workspace.row(2, id="T-1")])
    workspace.spec(idempotency={"key": ["id"], "duplicates": mode})
    workspace.apply()
    assert kept in workspace.ok("render", "triage", "--key", "T-1").out
    assert len(workspace.billed()) == 1


def test_saved_plan_is_shown_applied_and_then_stale(workspace: Workspace, tmp_path: Path) -> None:
    bundle = str(tmp_path / "bundle")
    digest = workspace.ok("plan", "--out", bundle, "--json").json["digest"]
    assert workspace.ok("show", bundle, "--json").json["digest"] == digest
    assert workspace.ok("apply", bundle, "--json").json["rows"] == {"triage": {"answered": 6}}
    again = workspace.run("apply", bundle)
    assert (again.code, "stale" in again.err) == (4, True)
    assert workspace.ok("show", bundle, "--json").json["digest"] == digest
    assert len(workspace.billed()) == 6


@pytest.mark.parametrize("altered", ["shard", "rows", "extra", "gone"])
def test_an_altered_bundle_is_refused_even_if_its_list_of_files_agrees(
    workspace: Workspace, tmp_path: Path, altered: str
) -> None:
    bundle = tmp_path / "bundle"
    workspace.ok("plan", "--out", str(bundle))
    shard, rows = next(bundle.rglob("*.jsonl")), next(bundle.rglob("*.rows.parquet"))
    manifest = json.loads((bundle / "bundle.json").read_text())
    if altered == "shard":
        shard.write_bytes(shard.read_bytes().replace(b"ticket 1", b"ticket 9"))
    elif altered == "rows":
        con = duckdb.connect()
        con.execute(f"CREATE TABLE r AS SELECT * REPLACE (unhex('00') AS request_fp) FROM read_parquet('{rows}')")
        con.execute(f"COPY r TO '{rows}' (FORMAT parquet)")
        con.close()
    elif altered == "extra":
        (shard.parent / "extra.jsonl").write_bytes(shard.read_bytes())
    else:
        shard.unlink()
    listed = (p for p in bundle.rglob("*") if p.is_file() and p.parent != bundle)
    manifest["files"] = {p.relative_to(bundle).as_posix(): file_digest(p) for p in listed}
    (bundle / "bundle.json").write_text(json.dumps(manifest))
    refused = workspace.run("apply", str(bundle))
    assert (refused.code, workspace.billed()) == (4, []), refused.err


@pytest.mark.parametrize("moved", ["spec", "template", "source", "bundle"])
def test_a_plan_that_moved_is_refused(workspace: Workspace, tmp_path: Path, moved: str) -> None:
    bundle = tmp_path / "bundle"
    workspace.ok("plan", "--out", str(bundle))
    if moved == "spec":
        workspace.spec(generation_config={"temperature": 1})
    elif moved == "template":
        workspace.write("templates/triage.j2", "{{ title }}!")
    elif moved == "source":
        workspace.rows([workspace.row(i) for i in range(1, 8)])
    else:
        shard = next(bundle.rglob("*.jsonl"))
        shard.write_bytes(shard.read_bytes().replace(b"ticket 1", b"ticket 9"))
    refused = workspace.run("apply", str(bundle))
    assert refused.code == 4, refused.err
    assert workspace.billed() == []


def test_json_plan_has_the_documented_core(workspace: Workspace) -> None:
    plan = workspace.ok("plan", "--format", "json").json
    assert plan["format_version"] == "1"
    assert plan["digest"].startswith("sha256:")
    core = {"name", "actions", "reasons", "rows_to_send", "requests_to_send", "jobs", "cost_usd", "verdicts"}
    assert core <= set(plan["specs"][0])
    assert list(plan["specs"][0]["cost_usd"]) == ["low", "expected", "high"]
    assert set(plan["specs"][0]["actions"]) == {
        "run", "rerun", "reuse", "reparse", "redeliver", "keep", "in_flight", "unknown", "forget", "remove", "held",
    }  # fmt: skip
    assert workspace.ok("plan", "--format", "json").json["digest"] == plan["digest"], "a plan is a pure function"


def test_a_limit_holds_rows_until_it_is_allowed(workspace: Workspace) -> None:
    workspace.spec(limits={"max_rows": 5})
    plan = workspace.run("plan", "--json")
    spec = plan.json["specs"][0]
    assert (plan.code, spec["rows_to_send"], spec["actions"]["held"], spec["jobs"]) == (3, 0, 6, 0)
    refused = workspace.run("apply", "--yes")
    assert (refused.code, workspace.billed()) == (3, [])
    assert "--allow" in refused.err
    assert workspace.run("apply", "--yes", "--allow", "max_usd", "--reason", "known").code == 3
    workspace.apply("--allow", "max_rows", "--reason", "known")
    assert len(workspace.billed()) == 6
    segments = workspace.root / ".batchform/segments"
    assert any('"Allowed"' in p.read_text() for p in segments.glob("events-*.jsonl"))


def test_answers_refused_by_a_stricter_schema_are_rescued_for_nothing(workspace: Workspace) -> None:
    schema = {"max_output_tokens": 64, "response_schema": SCHEMA}
    strict = {"schema": {"type": "object", "required": ["nothing has this"]}}
    workspace.spec(generation_config=schema, output=strict, retry={"max_attempts": 1})
    assert workspace.run("apply", "--yes").code == 6
    assert workspace.actions() == {"held": 6}
    workspace.spec(generation_config=schema, retry={"max_attempts": 1})
    assert workspace.actions() == {"reparse": 6}
    workspace.apply()
    assert (workspace.actions(), len(workspace.billed()), len(workspace.delivered())) == ({"keep": 6}, 6, 6)


def test_nested_json_columns_reach_templates_as_values(workspace: Workspace) -> None:
    lines = [{"id": i, "user": {"name": f"n{i}", "tags": ["x", i]}, "body": "b"} for i in (1, 2)]
    workspace.write("data/t.jsonl", "\n".join(json.dumps(line) for line in lines))
    workspace.spec(
        source={"type": "jsonl", "path": "data/t.jsonl"},
        prompt={"user": {"text": "{{ user.name }} {{ user.tags[1] }} {{ row.id + 1 }} {{ user|tojson }}"}},
    )
    text = workspace.ok("render", "triage", "--key", "2").json["contents"][0]["parts"][0]["text"]
    assert text == 'n2 2 3 {"name":"n2","tags":["x",2]}'
    workspace.apply()
    assert [r["id"] for r in workspace.delivered()] == [1, 2]


def test_answers_that_a_stricter_reading_refuses_are_failed_and_sent_again(workspace: Workspace) -> None:
    config = {"max_output_tokens": 64, "response_schema": SCHEMA}
    workspace.spec(generation_config=config)
    workspace.apply()
    before = workspace.delivered()
    workspace.spec(generation_config=config, output={"schema": {"type": "object", "required": ["zzz"]}})
    assert workspace.actions() == {"reparse": 6}
    refused = workspace.run("apply", "--yes", "--json")
    assert (refused.code, refused.json["reread"]) == (6, {"triage": {"invalid_output": 6}})
    plan = workspace.plan()
    assert (plan["actions"]["rerun"], plan["reasons"]) == (6, {"previous_failed": 6})
    assert [r["text"] for r in workspace.delivered()] == [r["text"] for r in before]
    workspace.spec(generation_config=config)
    assert workspace.actions() == {"reparse": 6}, "the answers that were paid for are good again"
    workspace.apply()
    assert (workspace.actions(), len(workspace.billed())) == ({"keep": 6}, 6)


FOREIGN: dict[str, tuple[str, bytes]] = {
    "prose": ("jsonl", b"my precious\n"),
    "other keys": ("jsonl", b'{"mine": 1}\n'),
    "binary": ("csv", b"\xff\xfe\0\0"),
    "other columns": ("csv", b"id,mine\n1,2\n"),
    "not parquet": ("parquet", b"PAR1 it is not"),
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_a_file_that_batchform_did_not_make_is_refused_before_paying(workspace: Workspace, kind: str) -> None:
    form, content = FOREIGN[kind]
    path = workspace.write("results/mine.file", content)
    workspace.spec(destination={"type": form, "path": "results/mine.file"})
    planned = workspace.run("plan")
    said = " ".join(planned.out.split())
    assert "apply will refuse: results/mine.file is already there, and batchform did not make it" in said
    for detach in ((), ("--detach",)):
        refused = workspace.run("apply", "--yes", *detach)
        assert (refused.code, workspace.billed()) == (1, [])
        assert "results/mine.file is already there, and batchform did not make it" in refused.err
        assert "Move it away, or choose another path." in refused.err
    assert path.read_bytes() == content
    path.unlink()
    workspace.apply()
    assert workspace.actions() == {"keep": 6}


@pytest.mark.parametrize("form", ["jsonl", "csv", "parquet"])
def test_a_destination_moved_onto_a_foreign_file_is_refused_by_every_command(workspace: Workspace, form: str) -> None:
    workspace.apply()
    mine = workspace.write("results/mine.file", b"my precious")
    workspace.spec(destination={"type": form, "path": "results/mine.file"})
    for command in (("apply", "--yes"), ("sync",)):
        refused = workspace.run(*command)
        assert (refused.code, "batchform did not make it" in refused.out + refused.err) == (1, True)
    assert mine.read_bytes() == b"my precious"


@pytest.mark.parametrize("form", ["jsonl", "csv", "parquet"])
def test_a_deleted_ledger_leaves_the_destination_ours(workspace: Workspace, form: str) -> None:
    to = {"type": form, "path": "results/all.file"}
    workspace.spec(destination=to)
    workspace.apply()
    workspace.spec(destination={**to, "columns": {"said": "text"}})
    workspace.apply()  # another mapping: recorded, so it is ours whatever its columns
    shutil.rmtree(workspace.root / ".batchform")
    workspace.apply()
    assert (workspace.actions(), len(workspace.billed())) == ({"keep": 6}, 6)


@pytest.mark.parametrize("kind", ["file", "foreign"])
def test_a_destination_that_cannot_be_written_is_refused_before_paying(workspace: Workspace, kind: str) -> None:
    if kind == "file":
        workspace.write("results", "in the way")
    else:
        import sqlite3

        con = sqlite3.connect(workspace.root / "mine.db")
        con.execute("CREATE TABLE triage (id TEXT)")
        con.close()
        workspace.spec(destination={"type": "sqlite", "path": "mine.db", "table": "triage"})
    refused = workspace.run("apply", "--yes")
    assert (refused.code, workspace.billed()) == (1, [])
    assert not (workspace.root / ".batchform/head.json").exists()


def test_rerun_settles_its_rows_when_it_is_asked(workspace: Workspace) -> None:
    rows = [workspace.row(i, tenant="open" if i == 1 else "closed") for i in range(1, 4)]
    workspace.rows(rows)
    workspace.apply()
    workspace.ok("rerun", "triage", "--where", "tenant = 'open'")
    rows[0]["tenant"], rows[1]["tenant"] = "closed", "open"
    workspace.rows(rows)
    workspace.apply()
    assert workspace.actions() == {"keep": 3}
    rows[2]["tenant"] = "open"
    workspace.rows(rows)
    assert workspace.actions() == {"keep": 3}
    assert len(workspace.billed()) == 4


def test_rerun_leaves_rows_in_flight_alone_and_says_so(workspace: Workspace) -> None:
    workspace.project(backends={"local": {"type": "emulator", "job_seconds": 0.3, "poll": "10ms"}})
    workspace.ok("apply", "--yes", "--detach")
    assert "1 of these rows are in flight" in workspace.ok("rerun", "triage", "--key", "T-1").err
    workspace.ok("sync", "--wait")
    assert (workspace.actions(), len(workspace.billed())) == ({"keep": 6}, 6)


def test_a_refused_request_is_not_paid_again_by_editing_back_and_forth(workspace: Workspace) -> None:
    refused = workspace.row(1, body="[[emulator:blocked]]")
    for row in (refused, workspace.row(1), refused, workspace.row(1), refused):
        workspace.rows([row])
        workspace.run("apply", "--yes")
    assert workspace.actions() == {"held": 1}
    assert len(workspace.billed()) == 2


def test_a_refused_request_is_not_paid_again_under_another_key(workspace: Workspace) -> None:
    workspace.rows([workspace.row(i, title="same", body="[[emulator:blocked]]") for i in range(1, 5)])
    workspace.spec(idempotency={"key": ["id"], "reuse_identical": True})
    for _ in range(3):
        workspace.run("apply", "--yes")
    assert workspace.actions() == {"held": 4}
    assert len(workspace.billed()) == 1

"""A job that is gone on with, as each rendering of a plan says it."""

from __future__ import annotations

import io
import json
from pathlib import Path

import jsonschema_rs
from msgspec.structs import replace
from view_plans import TRIAGE, plan, shard

from batchform.plan.digest import plan_digest
from batchform.plan.model import Resumed
from batchform.view.console import make_console
from batchform.view.json import plan_json_text
from batchform.view.markdown import plan_markdown
from batchform.view.terminal import print_plan

OLD = Resumed(tag="bf-triage-ab12-f00d-a1", job="projects/p/locations/l/batchPredictionJobs/7", results=1_200)
RESUMED = replace(TRIAGE, shards=(replace(shard(0, 1_000), resumes=OLD), shard(1, 504)))
WORDS = "resume job bf-triage-ab12-f00d-a1: 1,000 of 1,200 rows, nothing to upload"


def test_text_and_markdown_say_which_job_and_how_much_of_it() -> None:
    out = io.StringIO()
    print_plan(plan(RESUMED), make_console(file=out, width=120, color=False))
    assert WORDS in out.getvalue() and WORDS in plan_markdown(plan(RESUMED))
    assert "resume job" not in plan_markdown(plan(TRIAGE))


def test_the_contract_names_the_job() -> None:
    schema = json.loads((Path(__file__).parents[2] / "docs/plan.schema.json").read_bytes())
    value = json.loads(plan_json_text(plan(RESUMED)))
    jsonschema_rs.validate(schema, value)
    first, second = value["specs"][0]["shards"]
    assert first["resumes"] == {"tag": OLD.tag, "job": OLD.job, "results": 1_200} and second["resumes"] is None
    del first["resumes"]["job"]
    assert not jsonschema_rs.is_valid(schema, value)


def test_what_is_resumed_is_part_of_what_was_reviewed() -> None:
    other = replace(RESUMED, shards=(replace(shard(0, 1_000), resumes=replace(OLD, job="another")), shard(1, 504)))
    assert len({plan_digest(plan(spec)) for spec in (TRIAGE, RESUMED, other)}) == 3

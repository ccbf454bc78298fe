"""The fault matrix in short: some schedules of each kind. `make prove ARGS=faults` runs them all."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from fault_matrix import LIMIT, Matrix
from fault_schedules import (
    BASES,
    CERTAIN,
    FATES,
    ONE,
    ONE_ON_VERTEX,
    SPOILS,
    Schedule,
    lagging,
    pairs,
    pairs_of_recovery,
    singles,
)

from batchform.emulator.faults import KINDS, catalogue, type_of

BASE = {base.name: base for base in BASES}
LOST = {"call": "batches.create", "do": {"type": "drop", "when": "after"}}


@pytest.fixture(scope="module")
def matrix(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Matrix]:
    made = Matrix(tmp_path_factory.mktemp("faults"))
    yield made
    made.close()


def fault(call: str, nth: int = 1, times: Any = 1, **do: Any) -> dict[str, Any]:
    return {"call": call, "nth": nth, "times": times, "do": do}


SAMPLE = {
    "0": [
        Schedule(BASE["apply of files"], (fault("files.upload.bytes", nth=2, type="lost_upload"),)),
        Schedule(BASE["apply of files"], (fault("batches.create", nth=2, type="drop", when="after"),)),
        Schedule(BASE["sync of files"], (fault("files.download", nth=2, type="nonsense", body="html"),)),
        Schedule(BASE["sync inline"], (fault("batches.get", times=4, type="rows_missing", rows=[1]),)),
        Schedule(BASE["apply on Vertex"], (fault("vertex.batches.create", nth=2, type="drop", when="after"),)),
        Schedule(BASE["apply on Vertex"], (fault("vertex.batches.create", nth=2, type="keys_missing", show="empty"),)),
        Schedule(BASE["sync on Vertex"], (fault("storage.objects.download", nth=2, type="cut"),)),
        Schedule(BASE["answers read anew where they stay"], (fault("storage.objects.download", nth=2, type="drop"),)),
        Schedule(
            BASE["apply on Vertex by tables"], (fault("bigquery.jobs.upload.bytes", nth=2, type="drop", when="after"),)
        ),
        Schedule(BASE["sync on Vertex by tables"], (fault("bigquery.tabledata.list", nth=2, type="drop"),)),
    ],
    "0 0 0": [Schedule(BASE["sync of files"], (fault("files.delete", nth=3, type="drop", when="after"),))],
    "1 0 0": [
        Schedule(BASE["apply of files"], (fault("batches.create", nth=3, type="error", status=403),)),
        Schedule(
            BASE["apply on Vertex by tables"], (fault("bigquery.jobs.upload.bytes", nth=3, type="error", status=403),)
        ),
    ],
    "8 0 0": [Schedule(ONE, (fault("batches.create", type="drop"), fault("batches.list", nth=2, type="hide")))],
}
"""By the exit codes that a user sees: of the command, then of sync and apply as the messages say."""


@pytest.mark.parametrize(
    ("ended", "schedule"),
    [pytest.param(ended, s, id=f"{ended} {s.name}") for ended, found in SAMPLE.items() for s in found],
)
def test_after_a_fault_all_is_as_if_it_had_not_been(matrix: Matrix, ended: str, schedule: Schedule) -> None:
    outcome = matrix.run("sample", schedule)
    assert not outcome.failure, outcome.failure
    assert (outcome.state, outcome.ended) == ("fired", ended), outcome


def test_a_job_that_is_listed_within_the_settle_window_is_paid_for_once(matrix: Matrix) -> None:
    late = fault("batches.create", type="list_lag", seconds=300.0)
    outcome = matrix.run("sample", Schedule(ONE, (late, LOST)))
    assert not outcome.failure and outcome.ended == "8 0 0", outcome


def test_a_job_that_is_listed_later_is_found_told_and_cancelled(matrix: Matrix) -> None:
    late = fault("batches.create", type="list_lag", seconds=3 * 3600.0)
    at_work = fault("batches.create", type="ends", state="SUCCEEDED", share=1, seconds=72000.0)
    busy = fault("batches.cancel", type="error", status=504)
    outcome = matrix.run(LIMIT, Schedule(ONE, (late, LOST, at_work, busy)))
    assert not outcome.failure and outcome.state == "fired", outcome


def test_every_kind_and_example_of_the_catalogue_has_its_schedule() -> None:
    """Kinds that are added to the emulator come into the matrix by themselves."""
    made = [s for base in BASES for s in singles(base, dict.fromkeys(_calls(base.calls), 3))]
    have = {(f["call"], str(f["do"])) for s in made for f in s.faults}
    uploads, jobs = ("files.get", "files.upload.start", "files.upload.bytes"), ("batches.create", "batches.list")
    for call in ("models.get", *uploads, *jobs, "batches.get", "files.download", "files.delete"):
        for sample in catalogue(call):
            assert (call, str(dict(sample.do))) in have, sample.name
    staging = [call for base in BASES for call in _calls(base.calls) if call.startswith(("storage.", "bigquery."))]
    for call in ("vertex.batches.create", "vertex.batches.list", "vertex.batches.get", *staging):
        for sample in catalogue(call):
            assert (call, str(dict(sample.do))) in have, sample.name
    assert len(staging) >= 10
    every = {type_of(kind) for kind in KINDS}
    assert every >= CERTAIN | FATES | SPOILS and len(made) > 500
    on_vertex = [s for kind in (pairs, pairs_of_recovery, lagging) for s in kind(ONE_ON_VERTEX)]
    assert len(on_vertex) > 400 and not any(f["call"].startswith("batches.") for s in on_vertex for f in s.faults)
    assert len(list(pairs())) > 300 and len(list(pairs_of_recovery())) > 200 and len(list(lagging())) > 50


def _calls(globs: tuple[str, ...]) -> list[str]:
    from fnmatch import fnmatchcase

    from batchform.emulator.faults import CALLS

    return [call for call in CALLS if any(fnmatchcase(call, glob) for glob in globs)]

"""BigQuery when it fails: what passes is tried again, what does not is said, and the next run does nothing twice."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from bigquery_kit import Reading, fill
from google.cloud import bigquery
from test_bigquery_destination import Place, row

from batchform.adapters.bigquery_client import Access
from batchform.emulator import EmulatorServer
from batchform.errors import DestinationError, SourceError


def _error(status: int, reason: str = "", **more: Any) -> dict[str, Any]:
    return {"type": "error", "status": status, "reason": reason, "message": f"It is {reason or status}.", **more}


PASSING = {
    "rate limit": _error(429, "rateLimitExceeded"),
    "rate limit as 403": _error(403, "rateLimitExceeded"),
    "backend": _error(500, "backendError"),
    "dropped": {"type": "drop"},
    "dropped after": {"type": "drop", "when": "after"},
}
"""What every call is tried again after."""
LASTING = {
    "quota": (_error(403, "quotaExceeded"), "quota"),
    "denied": (_error(403, "accessDenied"), "Grant the role"),
    "gone": (_error(404, "notFound"), ""),
    "invalid": (_error(400, "invalid"), "Put right"),
}
"""What no call is tried again after, and a word of the way out."""


@pytest.fixture
def faults(server: EmulatorServer) -> Iterator[Callable[..., None]]:
    """Let something happen to a call."""

    def install(call: str, do: dict[str, Any], **also: Any) -> None:
        server.set_faults([{"call": f"bigquery.{call}", **also, "do": do}])

    yield install
    server.set_faults(())


@pytest.fixture
def numbers(client: bigquery.Client, dataset: str) -> str:
    fill(client, f"{dataset}.t", "CREATE TABLE {t} AS SELECT n FROM UNNEST(GENERATE_ARRAY(1, 30)) AS n")
    return f"{dataset}.t"


READS = [("tables.get", 1), ("jobs.insert", 1), ("jobs.insert", 2), ("jobs.getQueryResults", 1)]


@pytest.mark.parametrize("what", PASSING)
@pytest.mark.parametrize(("call", "nth"), READS)
def test_a_source_is_read_in_spite_of_what_passes(
    read: Callable[..., Reading], faults: Callable[..., None], numbers: str, call: str, nth: int, what: str
) -> None:
    faults(call, PASSING[what], nth=nth)
    assert read(table=numbers, order=("n",), read="rest").rows == [(n,) for n in range(1, 31)]


@pytest.mark.parametrize("what", LASTING)
@pytest.mark.parametrize(("call", "nth"), READS)
def test_what_lasts_is_said_and_the_next_run_reads_all(
    read: Callable[..., Reading], faults: Callable[..., None], numbers: str, call: str, nth: int, what: str
) -> None:
    do, word = LASTING[what]
    faults(call, do, nth=nth)
    with pytest.raises(SourceError, match=r"source\.table: It is \w+\.") as caught:
        read(table=numbers, order=("n",), read="rest")
    assert word in caught.value.hint and caught.value.hint
    assert read(table=numbers, order=("n",), read="rest").rows == [(n,) for n in range(1, 31)]


WRITES = ["datasets.get", "tables.get", "tables.insert", "jobs.upload", "jobs.insert", "jobs.getQueryResults"]


@pytest.fixture
def place(tmp_path: Path, access: Access, client: bigquery.Client, dataset: str) -> Place:
    return Place(tmp_path, access, client, dataset)


def _holds_once(place: Place) -> None:
    """The rows of the one delivery, merged once, and nothing beside them."""
    assert place.rows("key, n") == [("a", 1), ("b", 2)]
    assert place.leftovers() == []
    assert len([j for j in place.jobs("merge") if not j.error_result]) == 1


ROWS = [row("a", 1), row("b", 2)]


@pytest.mark.parametrize("what", PASSING)
@pytest.mark.parametrize("call", WRITES)
def test_answers_are_delivered_in_spite_of_what_passes(
    place: Place, faults: Callable[..., None], call: str, what: str
) -> None:
    faults(call, PASSING[what])
    place.deliver(ROWS)
    _holds_once(place)


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("what", ["denied", "gone"])
@pytest.mark.parametrize("call", WRITES[2:])
def test_a_delivery_that_failed_is_done_once_by_the_next(
    place: Place, faults: Callable[..., None], call: str, what: str, when: str
) -> None:
    do, word = LASTING[what]
    faults(call, {**do, "when": when})
    with pytest.raises(DestinationError, match=r"cannot be used: It is \w+\.") as caught:
        place.deliver(ROWS)
    assert word in caught.value.hint and "no answer is lost" in caught.value.hint
    place.deliver(ROWS)
    _holds_once(place)


def test_a_merge_that_may_not_bill_enough_is_done_when_it_may(place: Place) -> None:
    with pytest.raises(DestinationError, match="bytes billed") as caught:
        place.deliver(ROWS, max_bytes_billed=1)
    assert "max_bytes_billed" in caught.value.hint
    place.deliver(ROWS)
    _holds_once(place)


def test_a_load_that_ended_with_errors_is_followed_by_another(place: Place, faults: Callable[..., None]) -> None:
    faults("jobs.upload", LASTING["denied"][0])
    with pytest.raises(DestinationError):
        place.deliver(ROWS)
    [staging] = place.leftovers()
    fill(place.client, f"{place.table.rpartition('.')[0]}.{staging}", "INSERT INTO {t} (key) VALUES ('a stranger')")
    with pytest.raises(DestinationError, match="Already Exists"):
        place.deliver(ROWS)  # its load fails, and has taken its name for good
    place.deliver(ROWS)
    _holds_once(place)


def test_columns_that_changed_since_a_plan_make_it_stale(
    read: Callable[..., Reading], client: bigquery.Client, dataset: str
) -> None:
    fill(client, f"{dataset}.t", "CREATE TABLE {t} AS SELECT 1 AS n, 'x' AS body, 'y' AS other")
    got = read(table=f"{dataset}.t", order=("n",), needed=frozenset({"n", "body"}))
    fill(client, f"{dataset}.t", "CREATE OR REPLACE TABLE {t} AS SELECT 1 AS n, 'x' AS body, 'z' AS more")
    assert got.source.identity() == got.relation.identity  # none that it reads
    fill(client, f"{dataset}.t", "CREATE OR REPLACE TABLE {t} AS SELECT 1 AS n, 'z' AS more")
    assert got.source.identity() != got.relation.identity

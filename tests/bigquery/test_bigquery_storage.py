"""The Storage Read API when it breaks off, refuses, or never ends: rows come once each, or a sentence says why not."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import grpc
import pytest
from bigquery_kit import Reading
from msgspec import structs
from read_proxy import ReadProxy

from batchform.adapters.bigquery_client import Access
from batchform.adapters.sources.bigquery import BigQueryRows
from batchform.adapters.sources.bigquery_cache import SnapshotCache
from batchform.errors import SourceError
from batchform.spec.bigquery import BigQuerySource

ROWS = 12_000
QUERY = f"SELECT n AS id, REPEAT('x', 500) AS body FROM UNNEST(GENERATE_ARRAY(1, {ROWS})) AS n"
CODE = grpc.StatusCode


@pytest.fixture
def through(con: duckdb.DuckDBPyConnection, access: Access, tmp_path: Path) -> Callable[..., Reading]:
    """Read the query through a proxy."""

    def opened(proxy: ReadProxy, *, seconds: float = 5.0, **spec: Any) -> Reading:
        env = {**access.env, "BIGQUERY_STORAGE_EMULATOR_HOST": proxy.address}
        made = BigQuerySource(type="bigquery", **{"query": QUERY, "read": "storage", **spec})
        return Reading(
            con,
            BigQueryRows(
                made,
                access=structs.replace(access, env=env, retry_seconds=seconds),
                order=("id",),
                cache=SnapshotCache(tmp_path / "cache"),
            ),
        )

    return opened


def _to(access: Access) -> str:
    return access.env["BIGQUERY_STORAGE_EMULATOR_HOST"]


@pytest.mark.parametrize(
    "cuts",
    [
        [(0, CODE.UNAVAILABLE, "gone")],
        [(1, CODE.UNAVAILABLE, "gone"), (0, CODE.UNAVAILABLE, "gone"), (2, CODE.UNAVAILABLE, "gone")],
        [(3, CODE.UNKNOWN, "Stream removed")],
        [(2, CODE.INTERNAL, "Received RST_STREAM with error code 2")],
        [(1, CODE.DEADLINE_EXCEEDED, "late"), (1, CODE.RESOURCE_EXHAUSTED, "slowly"), (1, CODE.ABORTED, "again")],
        [(99, CODE.UNAVAILABLE, "gone at the very end")],
    ],
)
def test_a_stream_that_breaks_off_is_taken_up_where_it_ended(
    through: Callable[..., Reading], access: Access, cuts: list[Any]
) -> None:
    with ReadProxy(_to(access), cuts=cuts) as proxy:
        got = through(proxy)
        assert [row[0] for row in got.rows] == list(range(1, ROWS + 1))
        assert proxy.calls == len(cuts) + 1


def test_a_stream_that_never_goes_on_is_given_up(through: Callable[..., Reading], access: Access) -> None:
    forever = itertools.repeat((0, CODE.UNAVAILABLE, "down for the day"))
    with ReadProxy(_to(access), cuts=forever) as proxy:
        with pytest.raises(SourceError, match=r"source\.query: .*down for the day") as caught:
            through(proxy, seconds=0.5)
        assert 2 <= proxy.calls < 20 and "Run the same command again" in caught.value.hint


@pytest.mark.parametrize(
    ("code", "text"),
    [(CODE.INTERNAL, "it broke"), (CODE.PERMISSION_DENIED, "not any more"), (CODE.NOT_FOUND, "session expired")],
)
def test_what_cannot_go_on_is_said_and_keeps_nothing(
    through: Callable[..., Reading], access: Access, tmp_path: Path, code: grpc.StatusCode, text: str
) -> None:
    with ReadProxy(_to(access), cuts=[(2, code, text)]) as proxy:
        with pytest.raises(SourceError, match=rf"source\.query: .*{text}") as caught:
            through(proxy)
        assert proxy.calls == 1 and caught.value.hint
        assert not list((tmp_path / "temp").glob("source-*"))
        assert len(through(proxy).rows) == ROWS


@pytest.mark.parametrize("code", [CODE.PERMISSION_DENIED, CODE.UNIMPLEMENTED])
def test_where_it_is_not_allowed_rows_come_by_rest(
    through: Callable[..., Reading], access: Access, code: grpc.StatusCode
) -> None:
    with ReadProxy(_to(access), refuse=code) as proxy:
        assert [row[0] for row in through(proxy, read="auto").rows] == list(range(1, ROWS + 1))
        with pytest.raises(SourceError, match=r"source\.query: .*does not let this session through"):
            through(proxy, query=f"{QUERY} -- again")
        assert proxy.calls == 0

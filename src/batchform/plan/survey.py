"""Which rows would be sent if no stage held any, found by rendering them: their hashes, and nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from batchform.plan import diff as first
from batchform.plan.bookkeeping import FreeRows
from batchform.plan.diff import Diff, Recorded
from batchform.plan.ladder import Climbed
from batchform.plan.owed import waits
from batchform.plan.registry import Registry
from batchform.plan.render import PAYING, CandidateRenderer
from batchform.plan.row_rules import row_rules
from batchform.plan.shard import ShardCutter
from batchform.plan.staging import SURVEYED
from batchform.rows.keyed import KeyedRows
from batchform.spec.realm import realm_of
from batchform.spec.resolved import ResolvedSpec

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

_BATCH = 8192


class Survey(CandidateRenderer):
    """Renders the candidates of one spec into the temp table SURVEYED(key_hash)."""

    def __init__(
        self,
        con: DuckDBPyConnection,
        spec: ResolvedSpec,
        rows: KeyedRows,
        past: Recorded,
        *,
        registry: Registry,
        tags: frozenset[str],
    ) -> None:
        rules = row_rules(spec, registry, largest=0, most=None)
        realm, paying = realm_of(spec.backend), PAYING["apply"]
        super().__init__(con, spec, rows, past, realm=realm, free=FreeRows(None), paying=paying, rules=rules)
        self._tags = tags
        self._hashes: list[str] = []
        self._batches: list[Any] = []

    def look_at(self, found: Diff) -> int:
        """Fill the table; how many rows there are."""
        import pyarrow as pa

        if found.count(*first.RENDERED):
            if self._shares:
                self._share()
            for row in self._stream():
                self._one(row, None)
        self._pack()
        named = pa.schema([("key_hash", pa.string())])
        self._con.register("bf_surveyed_arrow", pa.Table.from_batches(self._batches, named))
        self._con.execute(
            f"CREATE OR REPLACE TEMP TABLE {SURVEYED} AS SELECT CAST(key_hash AS UUID) AS key_hash "
            "FROM bf_surveyed_arrow"
        )
        self._con.unregister("bf_surveyed_arrow")
        return sum(len(batch) for batch in self._batches)

    def take(
        self,
        key: str,  # noqa: ARG002
        key_hex: str,
        row_fp: str,  # noqa: ARG002
        request: bytes,  # noqa: ARG002
        fp: bytes,  # noqa: ARG002
        state: dict[str, Any],
        attempt: int,  # noqa: ARG002
        cutter: ShardCutter | None,  # noqa: ARG002
        climbed: Climbed | None = None,  # noqa: ARG002
    ) -> None:
        """Note a row that would be sent."""
        if waits(state, self._tags):
            self._hashes.append(key_hex)
            if len(self._hashes) >= _BATCH:
                self._pack()

    def _pack(self) -> None:
        import pyarrow as pa

        self._batches.append(pa.record_batch({"key_hash": pa.array(self._hashes, pa.string())}))
        self._hashes = []

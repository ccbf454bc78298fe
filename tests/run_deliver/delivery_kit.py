"""A project with a real ledger, into which tests put answers as a collect would, and from which they deliver."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from duckdb import DuckDBPyConnection

from batchform.adapters.destinations import make_destination
from batchform.adapters.local_blobs import LocalBlobs
from batchform.adapters.sources import connect
from batchform.canon import key_hash
from batchform.ledger.records import Collected, Intent, Submitted, answers_name
from batchform.ledger.row_writer import RowStateWriter
from batchform.ledger.store import Ledger, RowsFile
from batchform.ports import Delivered, Destination
from batchform.run.deliver import SourceRows, Undelivered, deliver_spec, needs_delivery
from batchform.run.row_states import write_states
from batchform.spec.delivery import destination_digest
from batchform.spec.load import load_project
from batchform.spec.resolved import ResolvedSpec

AT = datetime(2026, 11, 21, 12, 30, tzinfo=UTC)
STAMP = "2026-11-21T12:30:00Z"
SCHEMA = {
    "type": "object",
    "properties": {
        "category": {"type": "string"},
        "score": {"type": "number"},
        "count": {"type": "integer"},
        "urgent": {"type": "boolean"},
        "tags": {"type": "array", "items": {"type": "string"}},
    },
    "required": ["category"],
}
Answer = tuple[str, dict[str, Any] | None]  # text, parsed


class FixedClock:
    def now(self) -> datetime:
        return AT

    def sleep(self, seconds: float) -> None:
        raise AssertionError(f"nothing here waits ({seconds} s)")


class World:
    """One project, one spec called triage, one ledger."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.scratch = root / ".batchform" / "tmp"
        (root / "templates").mkdir(parents=True)
        (root / "data").mkdir()
        (root / "data" / "t.csv").write_text("id,subject\n")
        (root / "batchform.yaml").write_text("version: 1\nproject: p\nbackends: {local: {type: emulator}}\n")
        self.ledger = Ledger.open(LocalBlobs(root / ".batchform"), clock=FixedClock(), who="ann@desk")
        self.ledger.commit([])  # a ledger begins with its head: answers without one are what is left of a lost one
        self._jobs = 0
        self.scratch.mkdir(parents=True)
        self.memory_limit = "256MB"
        self.env: dict[str, str] = {}

    def spec(
        self,
        destination: Mapping[str, Any],
        *,
        key: list[str] | str = "id",
        schema: Mapping[str, Any] | None = SCHEMA,
    ) -> ResolvedSpec:
        document = {
            "name": "triage",
            "source": {"type": "csv", "path": "data/t.csv"},
            "prompt": {"user": {"text": "{{ subject }}"}},
            "model": "gemini-3.5-flash-lite",
            "generation_config": {"response_schema": schema} if schema else {},
            "destination": dict(destination),
            "idempotency": {"key": [key] if isinstance(key, str) and "{{" not in key else key},
            "backend": "local",
        }
        (self.root / "specs").mkdir(exist_ok=True)
        (self.root / "specs" / "triage.yaml").write_text(json.dumps(document))
        return load_project(self.root / "batchform.yaml", environment=None, env=self.env).specs[0]

    def connect(self) -> DuckDBPyConnection:
        return connect(self.scratch, memory_limit=self.memory_limit, threads=2, allowed=[self.root])

    def destination(self, spec: ResolvedSpec) -> Destination:
        return make_destination(spec.spec.destination, spec=spec.name, root=self.root, allow=())

    def deliver(self, spec: ResolvedSpec, *, source_rows: SourceRows | None = None) -> Delivered | None:
        return deliver_spec(
            self.ledger,
            spec,
            self.destination(spec),
            connect=self.connect,
            clock=FixedClock(),
            who="ann@desk",
            scratch=self.scratch,
            source_rows=source_rows,
        )

    def need(self, spec: ResolvedSpec) -> Undelivered:
        last = self.ledger.control().deliveries.get(spec.name)
        with closing(self.connect()) as con:
            return needs_delivery(
                con,
                self.ledger.rows_relation(con, spec.name),
                last,
                digest=destination_digest(spec),
                exists=self.destination(spec).exists(last.parts if last else ()),
            )

    def answer(
        self,
        answers: Mapping[str, Answer],
        *,
        key_columns: tuple[tuple[str, str], ...] = (("id", "VARCHAR"),),
        parse_digest: str = "sha256:" + "a" * 64,
    ) -> str:
        """Record a job that answered these keys; returns its tag."""
        self._jobs += 1
        tag = f"bf-triage-{self._jobs}"
        name = answers_name(tag, parse_digest)
        file = self.scratch / f"{tag}.parquet"
        self._answers_file(file, tag, answers)
        self.ledger.put_blob(name, file)
        keys = list(answers)
        hashes = [key_hash(k) for k in keys]
        constants = {
            "status": "answered", "tag": tag, "answer_tag": tag, "parse_digest": parse_digest, "answered_at": AT,
            "request_fp": b"r" * 32, "answer_fp": b"r" * 32, "attempt": 1, "cost_usd": 0.25,
        }  # fmt: skip
        rows = self.write_rows(constants, {"key": keys, "key_hash": hashes, "answer_key_hash": hashes})
        intent = Intent(
            at=STAMP, tag=tag, spec="triage", backend="local", fingerprint="f", realm="emulator", model="m",
            shard_digest="s", rows=len(keys), requests=len(keys), bytes=1, input_name=None, deadline=STAMP,
            key_columns=key_columns,
        )  # fmt: skip
        self.ledger.commit([intent, Submitted(at=STAMP, tag=tag, job=f"batches/{self._jobs}")])
        self.ledger.commit([Collected(at=STAMP, tag=tag, archive=None, answers=name)], [rows])
        return tag

    def write_rows(self, constants: Mapping[str, Any], columns: Mapping[str, list[Any]]) -> RowsFile:
        path = self.scratch / f"rows-{self.ledger.serial}.parquet"
        with RowStateWriter(path, constants=constants) as out:
            out.append(columns)
        return RowsFile("triage", path, out.rows)

    def restate(self, keys: list[str], **changes: str) -> None:
        """Commit these rows as they are, but for some columns (SQL)."""
        path = self.scratch / f"restated-{self.ledger.serial}.parquet"
        with closing(self.connect()) as con:
            rows = self.ledger.rows_relation(con, "triage")
            listed = ", ".join(f"'{k}'" for k in keys)
            count = write_states(con, changes, f"{rows} r WHERE r.key IN ({listed})", path)
        self.ledger.commit([], [RowsFile("triage", path, count)])

    def _answers_file(self, path: Path, tag: str, answers: Mapping[str, Answer]) -> None:
        count = len(answers)
        numbers = list(range(1, count + 1))
        table = pa.table(
            {
                "tag": [tag] * count,
                "key_hash": pa.array([key_hash(k) for k in answers], pa.uuid()),
                "class": ["answered"] * count,
                "message": pa.array([None] * count, pa.string()),
                "text": [text for text, _ in answers.values()],
                "response": pa.array([None if p is None else json.dumps(p) for _, p in answers.values()], pa.string()),
                "finish_reason": ["STOP"] * count,
                "model_version": ["emulator"] * count,
                "prompt_tokens": pa.array([11] * count, pa.int64()),
                "output_tokens": pa.array([5] * count, pa.int64()),
                "thought_tokens": pa.array([None] * count, pa.int64()),
                "cached_tokens": pa.array([0] * count, pa.int64()),
                "total_tokens": pa.array([16] * count, pa.int64()),
                "line": pa.array(numbers, pa.int64()),
            }
        )
        pq.write_table(table, path)


def said(category: str, **more: Any) -> Answer:
    """An answer in JSON, and its text."""
    parsed = {"category": category, **more}
    return json.dumps(parsed), parsed

"""What the tests of run/ share: a clock that tests move, the emulator behind a proxy that can misbehave, plans by hand.

The real client talks over real sockets to the real emulator; only time is ours.
"""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from random import Random
from types import TracebackType
from typing import Any, Self

import duckdb
import httpx2
from msgspec.structs import replace

from batchform import canon
from batchform.adapters.gemini import GeminiBackend
from batchform.adapters.local_blobs import LocalBlobs
from batchform.emulator import EmulatorServer
from batchform.errors import Place
from batchform.ledger.records import Collected, JobRecord, ledger_mark
from batchform.ledger.row_writer import RowStateWriter
from batchform.ledger.store import Ledger
from batchform.plan.model import ZERO, Action, Plan, Shard, SpecPlan, Tokens
from batchform.plan.price import Rates
from batchform.ports import Delivered, RemoteJob
from batchform.run.context import Backends, RunContext
from batchform.spec.model import EmulatorBackend, Limits, Project, Retry, Spec
from batchform.spec.resolved import ResolvedProject, ResolvedSpec

MODEL = "gemini-3.5-flash-lite"
RATES = Rates(input=1e-6, output=2e-6, cached=1e-7)
START = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)


class HandClock:
    """Time that moves only when told to, or when slept. `alarm` runs before each sleep."""

    def __init__(self) -> None:
        self.at = START
        self.naps: list[float] = []
        self.alarm: Callable[[], None] = lambda: None

    def now(self) -> datetime:
        return self.at

    def sleep(self, seconds: float) -> None:
        self.alarm()
        self.naps.append(seconds)
        self.at += timedelta(seconds=max(seconds, 0.001))


# --- a proxy that misbehaves -------------------------------------------------------------------------------------


@dataclass
class Fault:
    """What happens to matching calls, `times` of them. before: answer without asking the emulator; after: change what
    it said. Each gives (status, body), or None to drop the connection."""

    method: str
    part: str
    before: Callable[[], tuple[int, bytes] | None] | None = None
    after: Callable[[int, bytes], tuple[int, bytes] | None] | None = None
    times: int = 1
    headers: Mapping[str, str] = field(default_factory=dict)


class Proxy:
    """Passes calls on to the emulator, except where a fault says otherwise. `calls` has them all."""

    def __init__(self, target: str) -> None:
        self.calls: list[tuple[str, str]] = []
        self.faults: list[Fault] = []
        client = httpx2.Client(base_url=target, timeout=30)
        self._client = client
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            wbufsize = 65536  # headers and body in one packet

            def _serve(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                outer.calls.append((self.command, self.path))
                fault = outer._fault(self.command, self.path)
                headers: dict[str, str] = dict(fault.headers) if fault else {}
                result: tuple[int, bytes] | None
                if fault and fault.before:
                    result = fault.before()
                else:
                    answer = client.request(self.command, self.path, content=body, headers=dict(self.headers.items()))
                    result = (answer.status_code, answer.content)
                    headers |= {k: v for k, v in answer.headers.items() if k.startswith("x-")}
                    if fault and fault.after:
                        result = fault.after(*result)
                if result is None:
                    self.close_connection = True
                    return
                self.send_response(result[0])
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(result[1])))
                self.end_headers()
                self.wfile.write(result[1])

            do_GET = do_POST = do_DELETE = _serve  # noqa: N815

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)

    def _fault(self, method: str, path: str) -> Fault | None:
        for fault in self.faults:
            if fault.times > 0 and fault.method == method and fault.part in path:
                fault.times -= 1
                return fault
        return None

    def count(self, method: str, part: str) -> int:
        return sum(1 for m, p in self.calls if m == method and part in p)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
        self._client.close()


# --- specs and plans by hand -------------------------------------------------------------------------------------


def make_spec(name: str = "triage", **changes: Any) -> ResolvedSpec:
    """A spec that asks for text, unless changed."""
    backend = EmulatorBackend(type="emulator")
    spec = Spec.model_validate(
        {
            "name": name,
            "source": {"type": "csv", "path": "rows.csv"},
            "prompt": {"user": {"text": "{{ text }}"}},
            "model": MODEL,
            "destination": {"type": "jsonl", "path": "out.jsonl"},
            "idempotency": {"key": ["id"]},
        }
    )
    made = ResolvedSpec(
        spec=spec, path=Path(f"specs/{name}.yaml"), place=Place(f"specs/{name}.yaml"), name=name, model=MODEL,
        backend_name="local", backend=backend, retry=Retry(), limits=Limits(), system=None, turns=(), key_template=None,
        request_base={}, request_overlay={}, response_schema=None, output_schema=None, output_format="text",
        prompt_digest="sha256:p", config_digest="sha256:c", schema_digest="sha256:s",
        parse_digest=canon.digest(b"text"), spec_digest="sha256:spec",
    )  # fmt: skip
    return replace(made, **changes)


JSON_OUTPUT = {
    "output_format": "json",
    "output_schema": {"type": "object", "required": ["category"], "properties": {"category": {"type": "string"}}},
    "parse_digest": canon.digest(b"json"),
}


def make_plan(
    bundle: Path,
    prompts: Mapping[str, str],
    *,
    spec: str = "triage",
    shards: int = 1,
    attempt: int = 1,
    serial: int = 0,
    mode: str = "file",
    tokens: int = 100,
    generation_config: Mapping[str, Any] | None = None,
    mark: str = "",
) -> Plan:
    """A plan that sends these prompts (key → text), in so many shards, with its bundle. mark: of the ledger."""
    keys = list(prompts)
    size = -(-len(keys) // shards)
    made = [
        _make_shard(
            bundle,
            spec,
            n,
            {k: prompts[k] for k in keys[n * size : (n + 1) * size]},
            attempt,
            mode,
            tokens,
            generation_config,
            mark,
        )
        for n in range(shards)
    ]
    planned = SpecPlan(
        name=spec, spec_digest="sha256:spec", source="csv", source_rows=len(keys), backend="local", realm="emulator",
        model=MODEL, destination="out.jsonl", actions={Action.RUN: len(keys)}, reasons={}, rows_to_send=len(keys),
        requests_to_send=len(keys), shards=tuple(made), bytes=0, tokens=Tokens(0, ZERO, ""), cost=ZERO,
    )  # fmt: skip
    return Plan(
        digest="sha256:plan", project="demo", environment="", created_at="", lineage="", serial=serial,
        batchform_version="0", prices_dated="", specs=(planned,), selected=(spec,), partial=False,
    )  # fmt: skip


def _make_shard(
    bundle: Path,
    spec: str,
    index: int,
    prompts: Mapping[str, str],
    attempt: int,
    mode: str,
    tokens: int,
    config: Mapping[str, Any] | None,
    mark: str,
) -> Shard:
    folder = bundle / "specs" / spec
    folder.mkdir(parents=True, exist_ok=True)
    hasher = canon.RequestHasher(model=MODEL, realm="emulator")
    lines, prints = [], []
    for key, prompt in prompts.items():
        request = {
            "contents": [{"role": "user", "parts": [{"text": prompt}]}],
            **({"generationConfig": config} if config else {}),
        }
        lines.append(canon.canonical_json({"key": canon.wire_key(key), "request": request}) + b"\n")
        prints.append(hasher.fingerprint(canon.canonical_json(request)))
    path = folder / f"shard-{index:04d}.jsonl"
    path.write_bytes(b"".join(lines))
    digest = canon.digest(b"".join(lines))
    tag = f"bf-{spec}-{canon.short(digest)}{mark and '-'}{mark}-a{attempt}"
    rows_path = folder / f"shard-{index:04d}.rows.parquet"
    constants = {"status": "in_flight", "attempt": attempt, "tag": tag, "model": MODEL, "realm": "emulator"}
    with RowStateWriter(rows_path, constants=constants) as writer:
        writer.append({"key": list(prompts), "key_hash": [canon.key_hash(k) for k in prompts], "request_fp": prints})
    return Shard(
        index=index, tag=tag, digest=digest, rows=len(prompts), requests=len(prompts), bytes=path.stat().st_size,
        input_tokens=tokens, usd=ZERO, mode=mode, path=str(path.relative_to(bundle)),
        rows_path=str(rows_path.relative_to(bundle)),
    )  # fmt: skip


# --- a world -----------------------------------------------------------------------------------------------------


class Log:
    """Progress that is remembered."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, str]] = []

    def staged(self, spec: str, shard: Shard) -> None:
        self.lines.append(("staged", f"{spec} {shard.tag}"))

    def submitted(self, record: JobRecord, how: str) -> None:
        self.lines.append((how, record.tag))

    def state(self, record: JobRecord, remote: RemoteJob) -> None:
        self.lines.append(("state", f"{record.tag} {remote.state}"))

    def collected(self, record: JobRecord, collected: Collected) -> None:
        self.lines.append(("collected", f"{record.tag} {collected.rows}"))

    def delivered(self, spec: str, delivered: Delivered) -> None:
        self.lines.append(("delivered", f"{spec} {delivered.rows}"))

    def note(self, message: str) -> None:
        self.lines.append(("note", message))

    @property
    def notes(self) -> str:
        return "\n".join(text for kind, text in self.lines if kind == "note")


class Spaced(LocalBlobs):
    """A place that takes one head a second, as a bucket does: commits that wait are joined."""

    spacing = 1.0


class World:
    """An emulator behind a proxy, a ledger in a folder, and runs over both, each like a new process."""

    def __init__(self, root: Path, stack: ExitStack, *, job_seconds: float, settings: Mapping[str, Any]) -> None:
        self.root = root
        self.ledger_at = root / "ledger"
        self.spaced = False
        self.clock = HandClock()
        self.log = Log()
        self.emulator = stack.enter_context(
            EmulatorServer(root / "emulator", job_seconds=job_seconds, clock=self.clock)
        )
        self.proxy = stack.enter_context(Proxy(self.emulator.url))
        self.stack = stack
        self.config = EmulatorBackend.model_validate({"type": "emulator", "settle": "15m", "poll": "30s", **settings})
        self.deliveries: list[str] = []

    def run(self, *specs: ResolvedSpec, key: str = "emulator") -> RunContext:
        """What a new process would have."""
        work = self.root / "work"
        work.mkdir(exist_ok=True)
        backends = Backends(lambda _: self._backend(key))
        self.stack.callback(backends.close)
        project = ResolvedProject(
            root=self.root,
            file=self.root / "batchform.yaml",
            config=Project(version=1, project="demo", backends={"local": self.config}),
            environment="",
            specs=specs or (make_spec(),),
        )
        blobs = (Spaced if self.spaced else LocalBlobs)(self.ledger_at)
        ledger = Ledger.open(blobs, clock=self.clock, who="ann@desk")
        return RunContext(
            project=project, ledger=ledger, backends=backends, connect=self._connect, rates=lambda *_: RATES,
            deliver=self._deliver, clock=self.clock, who="ann@desk", work_dir=work, progress=self.log, rng=Random(7),
        )  # fmt: skip

    def _backend(self, key: str) -> GeminiBackend:
        return GeminiBackend(
            self.config,
            env={},
            realm="emulator",
            base_url=self.proxy.url,
            api_key=key,
            sleep=lambda _: None,
            now=self.clock.now,
        )

    def _connect(self) -> duckdb.DuckDBPyConnection:
        con = duckdb.connect(config={"threads": 2, "memory_limit": "512MB", "temp_directory": str(self.root / "spill")})
        con.execute("SET TimeZone = 'UTC'")
        return con

    def _deliver(self, ctx: RunContext, spec: ResolvedSpec) -> Delivered | None:
        assert ctx.ledger.serial
        self.deliveries.append(spec.name)
        return None

    def plan(self, prompts: Mapping[str, str], **options: Any) -> tuple[Plan, Path]:
        bundle = self.root / f"bundle-{len(list(self.root.glob('bundle-*')))}"
        if "mark" not in options:
            options["mark"] = self.mark
        return make_plan(bundle, prompts, **options), bundle

    @property
    def mark(self) -> str:
        """Of the ledger, which is begun if there is none."""
        ledger = Ledger.open(LocalBlobs(self.ledger_at), clock=self.clock, who="ann@desk")
        ledger.commit([])
        return ledger_mark(ledger.lineage)

    def rows(self, ctx: RunContext, spec: str = "triage") -> dict[str, dict[str, Any]]:
        """The ledger's row states by key."""
        ctx.ledger.refresh()
        con = self._connect()
        try:
            times = 'answered_at::VARCHAR AS answered_at, "at"::VARCHAR AS "at"'
            found = con.execute(f"SELECT * REPLACE ({times}) FROM {ctx.ledger.rows_relation(con, spec)} ORDER BY key")
            names = [d[0] for d in found.description]
            return {str(r[0]): dict(zip(names, r, strict=True)) for r in found.fetchall()}
        finally:
            con.close()

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        con = self._connect()
        try:
            return con.execute(sql).fetchall()
        finally:
            con.close()

    def head_has_rows(self) -> bool:
        """Whether the ledger's head names row states."""
        head = self.ledger_at / "head.json"
        return head.exists() and '"rows-' in head.read_text().replace("segments/", "")

    def event_lines(self) -> list[str]:
        """All control events, in order of commit."""
        ledger = Ledger.open(LocalBlobs(self.ledger_at), clock=self.clock, who="ann@desk")
        return [line for s in ledger.event_segments() for line in ledger.blobs.read(s.name).decode().splitlines()]

    def charged(self) -> int:
        """Requests that a real service would have billed."""
        return len(self.emulator.bill())

    def fault(self, method: str, part: str, **what: Any) -> Fault:
        made = Fault(method, part, **what)
        self.proxy.faults.append(made)
        return made

    @contextmanager
    def hidden_list(self) -> Iterator[None]:
        """The service's list shows nothing for a while."""
        fault = Fault("GET", "/v1/batches?", before=lambda: (200, b"{}"), times=1000)
        self.proxy.faults.insert(0, fault)
        try:
            yield
        finally:
            self.proxy.faults.remove(fault)

    def end_lease(self) -> None:
        """Whoever is at work is taken for gone: safety rests on the swapped head alone."""
        shutil.rmtree(self.ledger_at / "lease", ignore_errors=True)

    def forget_work(self) -> None:
        shutil.rmtree(self.root / "work", ignore_errors=True)


@contextmanager
def world(root: Path, *, job_seconds: float = 60.0, **settings: Any) -> Iterator[World]:
    with ExitStack() as stack:
        yield World(root, stack, job_seconds=job_seconds, settings=settings)


def refusal(status: int, message: str = "no", details: Sequence[Any] = ()) -> tuple[int, bytes]:
    return status, json.dumps(
        {"error": {"code": status, "message": message, "status": "X", "details": list(details)}}
    ).encode()

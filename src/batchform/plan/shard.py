"""Cutting requests into shards: one shard is one remote job.

Shards are cut in row order by rows and bytes, so the same rows give the same shards. A shard's digest covers its rows'
key hashes and request fingerprints; its tag is derived from spec, digest, ledger and attempt, so that a lost job can be
found by its tag and no two create calls share one, not even those of two ledgers that send the same rows.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping
from copy import copy
from itertools import count
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from msgspec import Struct
from msgspec.structs import replace

from batchform.canon import FINGERPRINT_VERSION, ShardHasher, short
from batchform.plan.ladder import Rung
from batchform.plan.model import Resumed
from batchform.ports import BackendLimits
from batchform.spec.resolved import ResolvedSpec

if TYPE_CHECKING:
    from batchform.plan.attached import ShardFiles

_FLUSH_ROWS = 2048
_LINE_OVERHEAD = 55
"""Bytes of a line around its request: `{"key":"k<32 hex>","request":…}` and a newline."""


_KEY_AT = slice(9, 41)
_REQUEST_AT = slice(53, -2)


def shard_line(key_hex: str, request: bytes) -> bytes:
    """One line of a shard: the wire key (a letter and the key hash in hex) and the canonical request."""
    return b'{"key":"k' + key_hex.encode() + b'","request":' + request + b"}\n"


def split_line(line: bytes) -> tuple[bytes, bytes]:
    """(key hash, canonical request) of a shard's line. What is no such line gives a key hash of no row."""
    try:
        key = bytes.fromhex(line[_KEY_AT].decode("ascii"))
    except ValueError:
        return b"", line
    request = line[_REQUEST_AT]
    return (key, request) if shard_line(key.hex(), request) == line else (b"", line)


class DraftShard(Struct, frozen=True):
    """A shard before it is priced. Paths are relative to the bundle, empty when nothing is written.

    bytes: of its lines as they will be sent; files, file_bytes: different files that it names; file_tokens: of the
    files of all rows; extra_bytes: those of `bytes` that say where files are, or hold them.
    """

    index: int
    tag: str
    digest: str
    rows: int
    bytes: int
    path: str
    rows_path: str
    resumes: Resumed | None = None
    files_path: str = ""
    files: int = 0
    file_bytes: int = 0
    file_tokens: int = 0
    extra_bytes: int = 0
    rung: Rung | None = None  # of the retry ladder, on which all of its rows are
    leading: tuple[int, ...] = ()  # tokens of the files of its first row, in their order

    @property
    def request_bytes(self) -> int:
        """Bytes of its requests alone, with files by their content."""
        return self.bytes - self.rows * _LINE_OVERHEAD - self.extra_bytes


class ShardCutter:
    """Takes rendered rows one by one and cuts shards. With `folder` None it only counts: a plan that is not saved."""

    def __init__(
        self,
        spec: ResolvedSpec,
        *,
        limits: BackendLimits,
        folder: Path | None,
        relative: str,
        realm: str,
        fp_columns: str,
        attempts_of: Callable[[str], int],
        refuse: Callable[[str, int], None],
        mark: str,
        at: dt.datetime,
        files: ShardFiles | None = None,
    ) -> None:
        """attempts_of: shard digest → how many jobs were begun for it before; refuse: told key and bytes of a row that
        no job would take, not even alone; mark: of the ledger, "" while there is none; at: time of the plan; files: of
        a spec with attachments."""
        self._files = files
        self._spec = spec
        self._limits = limits
        self._folder = folder
        self._relative = relative
        self._attempts_of = attempts_of
        self._refuse = refuse
        self._mark = f"-{mark}" if mark else ""
        self._rung: Rung | None = None
        self._lanes: dict[Rung, ShardCutter] = {}
        self._numbers = count()
        self._constants: dict[str, Any] = {
            "fp_columns": fp_columns,
            "fp_version": FINGERPRINT_VERSION,
            "prompt_digest": spec.prompt_digest,
            "model": spec.model,
            "config_digest": spec.config_digest,
            "schema_digest": spec.schema_digest,
            "realm": realm,
            "status": "in_flight",
            "at": at,
        }
        self.shards: list[DraftShard] = []
        self._begin()

    def _begin(self) -> None:
        self._rows = 0
        self._bytes = 0
        self._hasher = ShardHasher()
        self._file: IO[bytes] | None = None
        self._lines: list[bytes] = []
        self._keys: list[str] = []
        self._hashes: list[bytes] = []
        self._row_fps: list[bytes] = []
        self._request_fps: list[bytes] = []
        self._attempts: list[int] = []
        self._sizes: list[int] = []
        self._sent_fps: list[bytes] = []
        self._flushed: list[dict[str, Any]] = []
        self._number = -1

    def lane(self, rung: Rung) -> ShardCutter:
        """The cutter of the rows on a rung of the retry ladder, whose shards are among these."""
        if rung not in self._lanes:
            self._lanes[rung] = made = copy(self)
            made._rung, made._lanes = rung, {}
            made._begin()
            if self._files is not None:
                made._files = copy(self._files)
                made._files.begin()
        return self._lanes[rung]

    def add(
        self,
        key: str,
        key_hex: str,
        row_fp_hex: str,
        request: bytes,
        fingerprint: bytes,
        attempt: int,
        sent: bytes = b"",
    ) -> None:
        """One row to be sent. key_hex: 32 hex digits of the key hash; request: canonical bytes; fingerprint: of what
        the files ask for; sent: of the request, where that is another one."""
        size = len(request) + _LINE_OVERHEAD
        if self._files is not None:
            size += self._files.look(request)
        if size > self._limits.largest:
            self._refuse(key, size)
            return
        if self._rows and (
            self._rows >= self._limits.max_rows_per_job or self._bytes + size > self._limits.max_bytes_per_job
        ):
            self.close_shard()
        self._rows += 1
        self._bytes += size
        if self._files is not None:
            self._files.take()
        key_hash = bytes.fromhex(key_hex)
        self._request_fps.append(fingerprint)
        self._hashes.append(key_hash)
        if sent:
            self._sent_fps.append(sent)
        if self._folder is not None:
            self._lines.append(shard_line(key_hex, request))
            self._keys.append(key)
            self._row_fps.append(bytes.fromhex(row_fp_hex))
            self._attempts.append(attempt)
            self._sizes.append(len(request))
        if len(self._hashes) >= _FLUSH_ROWS:
            self._flush()

    def _flush(self) -> None:
        sent_fps = self._sent_fps or [b""] * len(self._hashes)
        for key_hash, fingerprint, sent in zip(self._hashes, self._request_fps, sent_fps, strict=True):
            self._hasher.update(key_hash + fingerprint + sent)
        if self._folder is not None and self._hashes:
            if self._file is None:
                self._file = (self._folder / self._name("jsonl")).open("wb")
            self._file.write(b"".join(self._lines))
            self._flushed.append(self._columns())
            self._lines, self._keys, self._row_fps, self._attempts, self._sizes = [], [], [], [], []
        self._hashes, self._request_fps, self._sent_fps = [], [], []

    def _columns(self) -> dict[str, Any]:
        import pyarrow as pa

        return {
            "key": pa.array(self._keys, pa.string()),
            "key_hash": pa.array(self._hashes, pa.binary(16)),
            "row_fp": pa.array(self._row_fps, pa.binary(16)),
            "request_fp": pa.array(self._request_fps, pa.binary(32)),
            "attempt": pa.array(self._attempts, pa.int32()),
            "request_bytes": pa.array(self._sizes, pa.int64()),
        }

    def _name(self, suffix: str) -> str:
        if self._number < 0:
            self._number = next(self._numbers)
        return f"shard-{self._number:04d}.{suffix}"

    def close(self) -> None:
        """End the shards at hand, of all rungs."""
        for cutter in (self, *self._lanes.values()):
            cutter.close_shard()

    def close_shard(self, *, resumes: Resumed | None = None) -> None:
        """End the shard at hand, if it has rows: its file is complete and its rows carry its tag.

        resumes: the job that it goes on with.
        """
        if not self._rows:
            return
        self._flush()
        digest = self._hasher.digest()
        tag = f"bf-{self._spec.name}-{short(digest)}{self._mark}-a{self._attempts_of(digest) + 1}"
        path = rows_path = ""
        if self._folder is not None:
            assert self._file is not None
            self._file.close()
            path, rows_path = (
                self._relative + self._name("jsonl"),
                self._relative + self._name("rows.parquet"),
            )
            self._write_rows(self._folder / self._name("rows.parquet"), {**self._constants, "tag": tag})
        number, rows, size = len(self.shards), self._rows, self._bytes
        shard = DraftShard(number, tag, digest, rows, size, path, rows_path, resumes, rung=self._rung)
        self.shards.append(self._with_files(shard) if self._files is not None else shard)
        self._begin()

    def _with_files(self, shard: DraftShard) -> DraftShard:
        """A shard with its files, which are listed beside it."""
        files, name = self._files, self._name("files.jsonl")
        assert files is not None
        listed = self._folder is not None and files.write(self._folder / name)
        made = replace(
            shard, files_path=self._relative + name if listed else "", files=files.count, file_bytes=files.size,
            file_tokens=files.tokens, extra_bytes=files.extra_bytes, leading=files.leading,
        )  # fmt: skip
        files.begin()
        return made

    def _write_rows(self, path: Path, constants: Mapping[str, Any]) -> None:
        from batchform.ledger.row_writer import RowStateWriter

        with RowStateWriter(path, constants=constants) as writer:
            for columns in self._flushed:
                writer.append(columns)

    def abandon(self) -> None:
        """Close what is open after an error. The bundle's folder is removed by its owner."""
        for cutter in (self, *self._lanes.values()):
            if cutter._file is not None:
                cutter._file.close()

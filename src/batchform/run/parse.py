"""Result lines → a Parquet of readings. Streams: memory holds one batch, whatever the size of the results."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
from msgspec import Struct, field

from batchform.ledger.raw import Raw, open_lines
from batchform.ledger.records import CacheUse
from batchform.rows.cached import own_part
from batchform.run.classify import Decode, Reading, Validate, classify, did_not_run, key_of
from batchform.run.extract import json_in
from batchform.run.plain_lines import PlainLines
from batchform.spec.embed import VECTOR
from batchform.spec.image import IMAGES

if TYPE_CHECKING:
    from batchform.run.rejoin import Rejoiner

BATCH_ROWS: Final = 10_000
BATCH_BYTES: Final = 64_000_000

_READING_TYPES: Final = tuple(pa.int64() if name.endswith("_tokens") else pa.string() for name in Reading._fields)
READING_SCHEMA: Final = pa.schema(
    [("key_hash", pa.uuid())]
    + [("class" if n == "cls" else n, t) for n, t in zip(Reading._fields, _READING_TYPES, strict=True)]
    + [("line", pa.int64())]
)
"""What `parse_file` writes: one row a line whose key can be one of ours; `line` is 1-based."""
_DECODER: Final = msgspec.json.Decoder()
_HASH_DIGITS: Final = 32


class Parser(Struct, frozen=True):
    """How the answers of one spec are read. whole: reads a line in place of `classify`."""

    decode: Decode | None = None
    validate: Validate | None = None
    whole: Callable[[Any], Reading] | None = None

    def read(self, line: Any) -> Reading:
        if self.whole is not None:
            return self.whole(line)
        return classify(line, decode=self.decode, validate=self.validate)


class Parsed(Struct):
    """What a parse met. strays: lines whose key cannot be ours; unreadable: lines that are no JSON object."""

    lines: int = 0
    strays: int = 0
    unreadable: int = 0
    examples: list[str] = field(default_factory=list)


def parser_for(output_format: str, schema: Mapping[str, Any] | None) -> Parser:
    """The parser of a spec. Raises ValueError if `schema` is no JSON Schema, which loading the spec refuses."""
    if output_format == "text":
        return Parser()
    if output_format == VECTOR:
        from batchform.run.vectors import read_vector

        return Parser(whole=partial(read_vector, dimensions=(schema or {}).get("minItems")))
    if output_format == IMAGES:
        from batchform.run.pictures import read_images

        return Parser(whole=read_images)
    decode = json_in if output_format == "json_in_text" else msgspec.json.decode
    if not schema:
        return Parser(decode)
    import jsonschema_rs

    validator = jsonschema_rs.validator_for(dict(schema))

    def validate(value: Any) -> str:
        if validator.is_valid(value):
            return ""
        error = next(iter(validator.iter_errors(value)))
        place = "/".join(str(p) for p in error.instance_path)
        return f"{error.message} at {place}" if place else str(error.message)

    return Parser(decode, validate)


Lines = Callable[[], Iterable[bytes]]


def parse_file(
    raw: Raw,
    readings: Path,
    *,
    parser: Parser,
    sent: Lines | None = None,
    cut_short: bool = False,
    cache: CacheUse | None = None,
) -> Parsed:
    """Read result lines into a Parquet of READING_SCHEMA.

    sent: the lines of the job's input, asked for when results came without keys; cut_short: whether the job ended
    before all rows had run. Vertex AI then hands on those that did not, without response and status: no results; cache:
    that the job's requests named.
    """
    met, keys = Parsed(), _Keys(raw, sent, cache)
    plain = None if parser.whole else PlainLines(parser.decode, parser.validate)
    with open_lines(raw) as lines, pq.ParquetWriter(readings, READING_SCHEMA, compression="lz4") as writer:
        batch = _Batch()
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            met.lines += 1
            if plain is not None and (found := plain.read(line)) and (key := key_hash_of(found[0])) is not None:
                batch.add(key, found[1], number, len(line))
                if batch.full:
                    writer.write_batch(batch.take())
                continue
            value = decode_line(line)
            if not isinstance(value, dict):
                met.unreadable += 1
                continue
            if cut_short and did_not_run(value):
                continue
            key = key_hash_of(keys.of(value))
            if key is None:
                met.strays += 1
                _remember(met, value)
                continue
            batch.add(key, parser.read(value), number, len(line))
            if batch.full:
                writer.write_batch(batch.take())
        writer.write_batch(batch.take())
    return met


class _Keys:
    """Whose result a line is: by its key, or where none came back by the request that it repeats."""

    def __init__(self, raw: Raw, sent: Lines | None, cache: CacheUse | None) -> None:
        self._raw, self._sent, self._cache = raw, sent, cache
        self._rejoiner: Rejoiner | None = None

    def of(self, line: dict[str, Any]) -> str | None:
        key, request = key_of(line), line.get("request")
        if key or self._sent is None or not isinstance(request, dict):
            return key
        if self._rejoiner is None:
            from batchform.run.rejoin import Rejoiner

            cache = self._cache
            own = partial(own_part, turns=cache.turns, parts=cache.parts) if cache else None
            self._rejoiner = Rejoiner(self._sent(), self._came(), own=own)
        return self._rejoiner.key(request)

    def _came(self) -> Iterator[str]:
        """The keys that results came with."""
        with open_lines(self._raw) as lines:
            for line in lines:
                key = key_of(decode_line(line))
                if key is not None:
                    yield key


def decode_line(line: bytes) -> Any:
    """The JSON of a line; None if it is none.

    What msgspec refuses for its bytes alone (invalid UTF-8, lone surrogates) is read with those characters replaced,
    without a byte order mark, and with NaN and Infinity as texts: an answer that was paid for is not lost to one bad
    character.
    """
    try:
        return _DECODER.decode(line)
    except (ValueError, RecursionError):
        pass
    try:
        lenient = json.loads(line.decode("utf-8-sig", "replace"), strict=False, parse_constant=str)
        clean = json.dumps(lenient, ensure_ascii=False, allow_nan=False).encode("utf-8", "replace")
        return _DECODER.decode(clean)
    except (ValueError, RecursionError):
        return None


def key_hash_of(key: str | None) -> bytes | None:
    """The 16 bytes behind a wire key (`k` and 32 hex digits); None if it is none of ours."""
    if key is None or len(key) != _HASH_DIGITS + 1 or key[0] != "k":
        return None
    digits = key[1:]
    try:
        return bytes.fromhex(digits) if digits.isalnum() else None
    except ValueError:
        return None


class _Batch:
    """Columns of a few thousand answers."""

    def __init__(self) -> None:
        self._keys: list[bytes] = []
        self._readings: list[Reading] = []
        self._lines: list[int] = []
        self._bytes = 0

    @property
    def full(self) -> bool:
        return len(self._lines) >= BATCH_ROWS or self._bytes >= BATCH_BYTES

    def add(self, key: bytes, reading: Reading, line: int, size: int) -> None:
        self._keys.append(key)
        self._readings.append(reading)
        self._lines.append(line)
        self._bytes += size

    def take(self) -> pa.RecordBatch:
        """The batch as Arrow; empties this one."""
        count = len(self._lines)
        middle = list(zip(*self._readings, strict=True)) if count else [()] * len(Reading._fields)
        keys = pa.ExtensionArray.from_storage(pa.uuid(), pa.array(self._keys, pa.binary(16)))
        columns = [pa.array(values, kind) for values, kind in zip(middle, _READING_TYPES, strict=True)]
        columns = [keys, *columns, pa.array(self._lines, pa.int64())]
        self._keys, self._readings, self._lines, self._bytes = [], [], [], 0
        return pa.RecordBatch.from_arrays(columns, schema=READING_SCHEMA)


def _remember(met: Parsed, value: dict[str, Any]) -> None:
    """Keep a few keys that are none of ours, for people."""
    if len(met.examples) < 3:
        met.examples.append(str(key_of(value))[:60])

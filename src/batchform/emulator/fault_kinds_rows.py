"""What a fault can do to rows: what they get when they run, and how their results come back."""

from __future__ import annotations

from fnmatch import fnmatchcase
from random import Random
from typing import Any, ClassVar, Final, Literal

import msgspec
from pydantic import Field

from batchform.emulator.fate import Fate, RowFate
from batchform.emulator.fault_kinds import VERTEX, Kind
from batchform.emulator.fault_kinds_jobs import FateKind

RUNS: Final = ("batches.create", "models.generate_content")
RESULTS: Final = ("files.download", "batches.get")

FINISH_REASONS: Final = (
    "MAX_TOKENS", "SAFETY", "RECITATION", "LANGUAGE", "OTHER", "BLOCKLIST", "PROHIBITED_CONTENT", "SPII",
    "MALFORMED_FUNCTION_CALL", "IMAGE_SAFETY", "IMAGE_PROHIBITED_CONTENT", "IMAGE_OTHER", "NO_IMAGE",
    "IMAGE_RECITATION", "UNEXPECTED_TOOL_CALL", "TOO_MANY_TOOL_CALLS", "MISSING_THOUGHT_SIGNATURE",
    "MALFORMED_RESPONSE", "ESCALATION", "PUP_LIMITED_DISABLED", "CONTINUATION", "MODEL_ARMOR", "BORED",
)  # fmt: skip
"""Those that Google's client knows, but for STOP, and one that nobody knows."""
BLOCK_REASONS: Final = (
    "SAFETY", "OTHER", "BLOCKLIST", "PROHIBITED_CONTENT", "IMAGE_SAFETY", "MODEL_ARMOR", "JAILBREAK", "BORED",
)  # fmt: skip

_NUMBERS: Final = "Numbers of rows, from 1: lines of the input, or of the results."
_KEYS: Final = "Keys of rows, or globs. Without rows and keys: every row."


class _RowKind(FateKind):
    calls: ClassVar[tuple[str, ...]] = RUNS
    rows: list[int] = Field(default_factory=list, description=_NUMBERS)
    keys: list[str] = Field(default_factory=list, description=_KEYS)

    def fated(self, before: Fate) -> Fate:
        mine = msgspec.structs.replace(self._row(), rows=tuple(self.rows), keys=tuple(self.keys))
        return msgspec.structs.replace(before, rows=(*before.rows, mine))

    def _row(self) -> RowFate:
        raise NotImplementedError


class RowError(_RowKind):
    """Rows end with an error, in the results line of a batch or as the answer of a synchronous call. Not charged."""

    type: Literal["row_error"]
    status: Literal[400, 401, 403, 404, 409, 429, 499, 500, 501, 503, 504] = Field(
        500, description="HTTP status; the line has the code that belongs to it."
    )
    message: str = Field("", description="Text of the error.")
    details: bool = Field(default=False, description="With details, which are objects.")

    examples: ClassVar[tuple[str, ...]] = (
        *(
            f"{{type: row_error, status: {s}, rows: [1]}}"
            for s in (400, 401, 403, 404, 409, 429, 499, 500, 501, 503, 504)
        ),
        "{type: row_error, status: 500, details: true}",
    )

    def _row(self) -> RowFate:
        return RowFate(error=self.status, message=self.message, details=self.details)


class FinishReason(_RowKind):
    """Rows end with this finishReason. Charged."""

    type: Literal["finish_reason"]
    reason: str = Field(description="MAX_TOKENS, SAFETY, …, or a word that nobody knows.")
    text: Literal["keep", "none", "half", "thought"] = Field("none", description="What is left of the text.")

    examples: ClassVar[tuple[str, ...]] = (
        *(f"{{type: finish_reason, reason: {reason}, rows: [1]}}" for reason in FINISH_REASONS),
        "{type: finish_reason, reason: STOP}",
        "{type: finish_reason, reason: STOP, text: thought}",
        "{type: finish_reason, reason: MAX_TOKENS, text: half}",
        "{type: finish_reason, reason: BORED, text: keep}",
    )

    def _row(self) -> RowFate:
        return RowFate(finish=self.reason, text=self.text)


class BlockReason(_RowKind):
    """The prompts of rows are refused with this blockReason: no candidates. Charged."""

    type: Literal["block_reason"]
    reason: str = Field(description="SAFETY, BLOCKLIST, …, or a word that nobody knows.")

    examples: ClassVar[tuple[str, ...]] = tuple(
        f"{{type: block_reason, reason: {reason}, rows: [1]}}" for reason in BLOCK_REASONS
    )

    def _row(self) -> RowFate:
        return RowFate(block=self.reason)


class ResultKind(Kind):
    """A kind that changes results as they are shown. What ran and what it cost stays."""

    calls: ClassVar[tuple[str, ...]] = RESULTS

    @classmethod
    def works_on(cls, call: str) -> bool:
        """On Vertex AI results are written once, by the job, and read from elsewhere: what happens to them is fate."""
        return call == "vertex.batches.create" if call.startswith(VERTEX) else super().works_on(call)

    def lines(self, lines: list[bytes]) -> list[bytes]:
        """The lines, as a results file has them (without line ends), or inline results have them."""
        raise NotImplementedError


class _ChosenRows(ResultKind):
    rows: list[int] = Field(default_factory=list, description=_NUMBERS)
    keys: list[str] = Field(default_factory=list, description=_KEYS)

    def lines(self, lines: list[bytes]) -> list[bytes]:
        return [new for i, old in enumerate(lines, 1) for new in (self._row(old) if self._meant(i, old) else [old])]

    def _row(self, line: bytes) -> list[bytes]:
        raise NotImplementedError

    def _meant(self, number: int, line: bytes) -> bool:
        chosen = number in self.rows or any(fnmatchcase(str(key_of(line)), glob) for glob in self.keys)
        return chosen or not (self.rows or self.keys)


class Shuffled(ResultKind):
    """Results come in another order each time."""

    type: Literal["shuffled"]
    seed: int = Field(1, description="Of the order.")

    examples: ClassVar[tuple[str, ...]] = ("{type: shuffled}",)

    def lines(self, lines: list[bytes]) -> list[bytes]:
        new = lines.copy()
        Random(self.seed).shuffle(new)
        return new if new != lines else lines[::-1]


class RowsMissing(_ChosenRows):
    """Results of rows are missing."""

    type: Literal["rows_missing"]

    examples: ClassVar[tuple[str, ...]] = ("{type: rows_missing, rows: [1]}", "{type: rows_missing}")

    def _row(self, line: bytes) -> list[bytes]:  # noqa: ARG002  (each line goes)
        return []


class RowsDoubled(_ChosenRows):
    """Results of rows come twice; with `differ` the second one says something else."""

    type: Literal["rows_doubled"]
    differ: bool = Field(default=False, description="The second one has another text.")

    examples: ClassVar[tuple[str, ...]] = (
        "{type: rows_doubled, rows: [1]}",
        "{type: rows_doubled}",
        "{type: rows_doubled, differ: true}",
    )

    def _row(self, line: bytes) -> list[bytes]:
        return [line, _with_text(line, lambda text: text + " (again)") if self.differ else line]


class UnknownRows(ResultKind):
    """There are results under keys that nobody sent."""

    type: Literal["unknown_rows"]
    count: int = Field(1, ge=1, description="How many.")

    examples: ClassVar[tuple[str, ...]] = ("{type: unknown_rows}", "{type: unknown_rows, count: 50}")

    def lines(self, lines: list[bytes]) -> list[bytes]:
        return [*lines, *(_with_key(line, f"unknown-{i}") for line in lines[:1] for i in range(self.count))]


class KeysMissing(_ChosenRows):
    """Results of rows do not say whose they are, or not with a text."""

    type: Literal["keys_missing"]
    show: Literal["nothing", "null", "number", "empty"] = Field("nothing", description="In place of the key.")

    examples: ClassVar[tuple[str, ...]] = (
        "{type: keys_missing, rows: [1]}",
        "{type: keys_missing}",
        "{type: keys_missing, show: 'null'}",
        "{type: keys_missing, show: number}",
        "{type: keys_missing, show: empty}",
    )

    def _row(self, line: bytes) -> list[bytes]:
        return [_with_key(line, {"null": None, "number": 7, "empty": ""}.get(self.show, msgspec.UNSET))]


class HollowRows(_ChosenRows):
    """Results of rows hold neither a response nor an error, or an empty response."""

    type: Literal["hollow_rows"]
    show: Literal["nothing", "empty", "null", "text"] = Field("nothing", description="In place of the response.")

    examples: ClassVar[tuple[str, ...]] = (
        "{type: hollow_rows, rows: [1]}",
        "{type: hollow_rows, show: empty}",
        "{type: hollow_rows, show: 'null'}",
        "{type: hollow_rows, show: text}",
    )

    def _row(self, line: bytes) -> list[bytes]:
        tags = {name: value for name, value in msgspec.json.decode(line).items() if name not in ("response", "error")}
        responses: dict[str, Any] = {"empty": {}, "null": None, "text": "ok"}
        if self.show in responses:
            tags["response"] = responses[self.show]
        return [msgspec.json.encode(tags)]


class HugeRows(_ChosenRows):
    """The text of rows is repeated until it is this long, which makes huge lines."""

    type: Literal["huge_rows"]
    size: int = Field(1_000_000, ge=1, description="Characters of the text.")

    examples: ClassVar[tuple[str, ...]] = ("{type: huge_rows, rows: [1]}",)

    def _row(self, line: bytes) -> list[bytes]:
        return [_with_text(line, lambda text: (text * (self.size // max(1, len(text)) + 1))[: self.size])]


class UnknownFields(_ChosenRows):
    """Results carry fields and values that nobody knows yet."""

    type: Literal["unknown_fields"]

    examples: ClassVar[tuple[str, ...]] = ("{type: unknown_fields}",)

    def _row(self, line: bytes) -> list[bytes]:
        row = msgspec.json.decode(line)
        row |= {"brandNew": {"nested": [1, None]}, "processedTime": "2026-11-21T07:05:58Z"}
        response = row.get("response")
        if isinstance(response, dict):
            response |= {"serviceTier": "TIER_OF_TOMORROW", "brandNew": []}
            response.setdefault("usageMetadata", {})["serviceTier"] = "TIER_OF_TOMORROW"
            for candidate in response.get("candidates", ()):
                candidate |= {"groundingOfTomorrow": {"a": 1}, "avgLogprobs": -0.5}
        return [msgspec.json.encode(row)]


class FileKind(ResultKind):
    """A kind that only a results file can show."""

    calls: ClassVar[tuple[str, ...]] = ("files.download",)

    def body(self, body: bytes) -> bytes:
        raise NotImplementedError


class Unreadable(_ChosenRows):
    """Lines of the results file are no JSON objects."""

    type: Literal["unreadable"]
    show: Literal["text", "half", "list", "null", "binary", "blank"] = Field("text", description="What they are.")

    calls: ClassVar[tuple[str, ...]] = ("files.download",)
    examples: ClassVar[tuple[str, ...]] = (
        "{type: unreadable, rows: [1]}",
        "{type: unreadable}",
        *(f"{{type: unreadable, show: '{show}', rows: [1]}}" for show in ("half", "list", "null", "binary", "blank")),
    )

    def _row(self, line: bytes) -> list[bytes]:
        odd = {"text": b"upstream says hi", "list": b"[1]", "null": b"null", "binary": b"\x80\xff\x00", "blank": b"  "}
        return [odd.get(self.show, line[: len(line) // 2])]


class Torn(FileKind):
    """The results file ends in the middle of its last line, and its length says that it is whole."""

    type: Literal["torn"]

    examples: ClassVar[tuple[str, ...]] = ("{type: torn}",)

    def body(self, body: bytes) -> bytes:
        last = body.rstrip(b"\n").rpartition(b"\n")[2]
        return body[: len(body.rstrip(b"\n")) - len(last) // 2 - 1]


class NoResults(FileKind):
    """The results file is empty."""

    type: Literal["no_results"]

    examples: ClassVar[tuple[str, ...]] = ("{type: no_results}",)

    def body(self, body: bytes) -> bytes:  # noqa: ARG002  (none of it is left)
        return b""


class LineEnds(FileKind):
    """The results file has other line ends, or a byte order mark."""

    type: Literal["line_ends"]
    show: Literal["crlf", "none_at_end", "blank_lines", "mark"] = Field("crlf", description="What is odd.")

    examples: ClassVar[tuple[str, ...]] = tuple(
        f"{{type: line_ends, show: {show}}}" for show in ("crlf", "none_at_end", "blank_lines", "mark")
    )

    def body(self, body: bytes) -> bytes:
        if self.show == "none_at_end":
            return body.rstrip(b"\n")
        if self.show == "mark":
            return b"\xef\xbb\xbf" + body
        return body.replace(b"\n", b"\r\n" if self.show == "crlf" else b"\n\n")


ROW_KINDS: Final = (
    RowError, FinishReason, BlockReason, Shuffled, RowsMissing, RowsDoubled, UnknownRows, KeysMissing, HollowRows,
    HugeRows, UnknownFields, Unreadable, Torn, NoResults, LineEnds,
)  # fmt: skip


def key_of(line: bytes) -> Any:
    """The key of a result, in a file or inline; None if it has none that can be read."""
    try:
        row = msgspec.json.decode(line)
        return row.get("key", row.get("metadata", {}).get("key"))
    except (msgspec.DecodeError, AttributeError):
        return None


def _with_key(line: bytes, key: Any) -> bytes:
    row = msgspec.json.decode(line)
    holder = row.setdefault("metadata", {}) if "metadata" in row else row
    holder.pop("key", None)
    if key is not msgspec.UNSET:
        holder["key"] = key
    return msgspec.json.encode(row)


def _with_text(line: bytes, change: Any) -> bytes:
    """The line with its first text changed."""
    row = msgspec.json.decode(line)
    for candidate in (row.get("response") or {}).get("candidates", ()):
        for part in candidate.get("content", {}).get("parts", ()):
            if "text" in part:
                part["text"] = change(part["text"])
                return msgspec.json.encode(row)
    return line

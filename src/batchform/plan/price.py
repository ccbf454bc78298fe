"""What a plan will cost, and what an answer did cost. Pure: figures in, figures and words out.

The rules, all of them:
- input: as the service counted it, where that was asked for (of a sample: its tokens per request byte, with their
  statistical error); else this spec's own tokens per request byte when 20 or more of its rows were answered; else one
  token per 4 bytes of rendered text, 25 % either way, and the rest of the request (schema, configuration) only in the
  high figure;
- output, thinking included, since it bills as output: p5, p50 and p95 of those rows, else 5 %, 25 % and 100 %
  of max_output_tokens, else 64, 512 and 8,192 tokens an answer;
- batch prices of the day; the high figure takes the dearer of today's price and that at the end of the job's
  window;
- prompts above 200,000 tokens pay that tier; cached input pays the standard cached rate, the higher of two
  readings.
"""

from __future__ import annotations

import datetime as dt
from typing import Final, Literal

from msgspec import Struct
from msgspec.structs import replace

from batchform.plan.model import ZERO, Range, Tokens
from batchform.plan.registry import ModelInfo, Registry
from batchform.plan.rendered import Counted

MIN_HISTORY: Final = 20
TIER_TOKENS: Final = 200_000
BYTES_PER_TOKEN: Final = 4
_UNCALIBRATED: Final = 0.25
_SHARE_OF_MAX: Final = (0.05, 0.25, 1.0)
_UNBOUNDED: Final = (64, 512, 8192)
_MILLION: Final = 1_000_000

Mode = Literal["batch", "sync"]


class Rates(Struct, frozen=True):
    """US dollars per token. output covers thinking; above: rates of prompts longer than 200,000 tokens; made, hour: of
    tokens that are put into a context cache, once and for each hour that they lie there."""

    input: float
    output: float
    cached: float
    above: Rates | None = None
    made: float = 0.0
    hour: float | None = None

    def of(self, prompt_tokens: float) -> Rates:
        """The rates of a request with a prompt this long."""
        return self.above if self.above and prompt_tokens > TIER_TOKENS else self


class History(Struct, frozen=True):
    """What this spec's answered rows used: input in all, percentiles of output plus thinking per row."""

    rows: int
    prompt_tokens: int
    request_bytes: int
    output_p5: float
    output_p50: float
    output_p95: float

    @property
    def enough(self) -> bool:
        return self.rows >= MIN_HISTORY


class Estimate(Struct, frozen=True):
    """priced: whether a price is known; if not, cost is zero and a note says so."""

    tokens: Tokens
    cost: Range
    priced: bool
    notes: tuple[str, ...] = ()

    def __add__(self, other: Estimate) -> Estimate:
        tokens = Tokens(
            self.tokens.input + other.tokens.input,
            self.tokens.output + other.tokens.output,
            self.tokens.basis,
            self.tokens.input_basis,
            self.tokens.counted,
        )
        notes = tuple(dict.fromkeys((*self.notes, *other.notes)))
        return Estimate(tokens, self.cost + other.cost, self.priced and other.priced, notes)


def rates(model: str, *, registry: Registry, when: dt.datetime, mode: Mode = "batch") -> Rates | None:
    """The model's rates on a day; None when no price is known. Image models bill output at the image rate."""
    entry = registry.price(model, when)
    if entry is None:
        return None
    tier = entry.above_200k
    if mode == "batch":
        dearest = max(entry.batch_output, entry.batch_output_image or 0.0)
        above = _rates(tier.batch_input, tier.batch_output, tier.cached) if tier else None
        batch = _rates(entry.batch_input, dearest, entry.cached, above)
        hour = None if entry.cache_hour is None else entry.cache_hour / _MILLION
        made = 2 * entry.batch_input if entry.input is None else entry.input
        return replace(batch, made=made / _MILLION, hour=hour)
    if entry.input is None or entry.output is None:
        return None
    above = None
    if tier and tier.input is not None and tier.output is not None:
        above = _rates(tier.input, tier.output, tier.cached)
    return _rates(entry.input, max(entry.output, entry.output_image or 0.0), entry.cached, above)


def _rates(input_: float, output: float, cached: float | None, above: Rates | None = None) -> Rates:
    return Rates(input_ / _MILLION, output / _MILLION, (input_ if cached is None else cached) / _MILLION, above)


def usage_cost(
    model: str,
    *,
    prompt: int,
    output: int,
    thoughts: int,
    cached: int,
    registry: Registry,
    when: dt.datetime,
    mode: Mode = "batch",
) -> float | None:
    """US dollars of one answer by its usage metadata (prompt includes cached); None if no price is known.

    More cached tokens than the prompt has are taken for a mistake: the prompt is the most that can be cached.
    """
    known = rates(model, registry=registry, when=when, mode=mode)
    if known is None:
        return None
    tier = known.of(prompt)
    cached = min(cached, prompt)
    return (prompt - cached) * tier.input + cached * tier.cached + (output + thoughts) * tier.output


def usage_cost_sql(known: Rates | None, alias: str) -> str:
    """`usage_cost` as a DuckDB expression over the token columns of `alias`; NULL if no price or no usage is known."""
    if known is None:
        return "CAST(NULL AS DOUBLE)"
    prompt = f"{alias}.prompt_tokens"
    cached = f"least(coalesce({alias}.cached_tokens, 0), {prompt})"
    output = f"coalesce({alias}.output_tokens, 0) + coalesce({alias}.thought_tokens, 0)"

    def one(r: Rates) -> str:
        fresh = f"({prompt} - {cached}) * {r.input!r}::DOUBLE"
        return f"{fresh} + {cached} * {r.cached!r}::DOUBLE + ({output}) * {r.output!r}::DOUBLE"

    if known.above is None:
        return f"(CASE WHEN {prompt} IS NOT NULL THEN {one(known)} END)"
    return (
        f"(CASE WHEN {prompt} > {TIER_TOKENS} THEN {one(known.above)} WHEN {prompt} IS NOT NULL THEN {one(known)} END)"
    )


def history_sql(relation: str, *, realm: str) -> str:
    """SELECT of one row in the order of History's fields, over row states (ROW_COLUMNS) of one spec.

    Only answers of this realm count: an emulator's echo says nothing about a model. Only rows whose answer is
    to the recorded request, since request_bytes is of that one. Percentiles are exact, and memory is bounded
    by the distinct token counts, not by the rows.
    """
    quoted = realm.replace("'", "''")
    return f"""
        WITH used AS (
            SELECT prompt_tokens AS p, request_bytes AS b,
                   coalesce(output_tokens, 0) + coalesce(thought_tokens, 0) AS o
            FROM {relation}
            WHERE realm = '{quoted}' AND answer_fp = request_fp AND prompt_tokens > 0 AND request_bytes > 0
        ), counted AS (
            SELECT o, count(*) AS n, sum(p) AS p, sum(b) AS b FROM used GROUP BY o
        ), ranked AS (
            SELECT *, sum(n) OVER (ORDER BY o) AS upto, sum(n) OVER () AS total FROM counted
        )
        SELECT coalesce(sum(n), 0)::BIGINT, coalesce(sum(p), 0)::BIGINT, coalesce(sum(b), 0)::BIGINT,
               coalesce(min(o) FILTER (upto >= 0.05 * total), 0)::DOUBLE,
               coalesce(min(o) FILTER (upto >= 0.50 * total), 0)::DOUBLE,
               coalesce(min(o) FILTER (upto >= 0.95 * total), 0)::DOUBLE
        FROM ranked"""


class Estimator(Struct, frozen=True):
    """Estimates requests of one spec. today, later: rates now and at the end of the job's window."""

    model: str
    info: ModelInfo | None
    today: Rates | None
    later: Rates | None
    history: History | None = None
    max_output_tokens: int | None = None
    fixed_bytes: int = 0
    image_size: str = ""
    counted: Counted | None = None

    @classmethod
    def of(
        cls,
        model: str,
        *,
        registry: Registry,
        when: dt.datetime,
        history: History | None = None,
        max_output_tokens: int | None = None,
        fixed_bytes: int = 0,
        image_size: str = "",
        counted: Counted | None = None,
        mode: Mode = "batch",
    ) -> Estimator:
        """An estimator for a model on a day.

        max_output_tokens: as the spec's generation config sets it; image_size: of a spec that asks for images;
        fixed_bytes: of each request, those that are not rendered text: JSON, configuration, response schema;
        counted: requests whose input the service has counted.
        """
        late = when + dt.timedelta(hours=registry.service.job_expires_hours)
        return cls(
            model=model,
            info=registry.model(model),
            today=rates(model, registry=registry, when=when, mode=mode),
            later=rates(model, registry=registry, when=late, mode=mode),
            history=history,
            max_output_tokens=max_output_tokens,
            fixed_bytes=fixed_bytes,
            image_size=image_size,
            counted=counted,
        )

    def estimate(self, *, requests: int, request_bytes: int, largest_bytes: int = 0, file_tokens: int = 0) -> Estimate:
        """Estimate `requests` requests of `request_bytes` bytes in all.

        largest_bytes: of the longest request, for the tier above 200,000 tokens; file_tokens: about how many the
        attached files have, which past rows' tokens per byte cover already.
        """
        if requests == 0:
            return Estimate(Tokens(0, ZERO, "nothing to send"), ZERO, priced=True)
        input_tokens, input_basis = self._input(requests, request_bytes, file_tokens)
        per_request, basis = self._output()
        output = Range(*(round(requests * n) for n in per_request))
        many = min(requests, self.counted.requests) if self.counted else 0
        tokens = Tokens(round(input_tokens.expected), output, basis, input_basis, many)
        mean = input_tokens.expected / requests
        largest = max(mean, self._input(1, largest_bytes)[0].expected)
        notes = self._notes(tokens.input, largest)
        if self.today is None or self.later is None:
            return Estimate(tokens, ZERO, priced=False, notes=(self._no_price(), *notes))
        cost = Range(
            _cost(self.today.of(mean), input_tokens.low, output.low),
            _cost(self.today.of(mean), input_tokens.expected, output.expected),
            max(_cost(r.of(largest), input_tokens.high, output.high) for r in (self.today, self.later)),
        )
        return Estimate(tokens, cost, priced=True, notes=notes)

    def _input(self, requests: int, request_bytes: int, file_tokens: int = 0) -> tuple[Range, str]:
        if self.counted:
            return self._as_counted(self.counted, request_bytes, file_tokens)
        past = self.history
        if past and past.enough and past.request_bytes:
            ratio = past.prompt_tokens / past.request_bytes
            tokens = request_bytes * ratio
            words = f"{ratio:.3f} tokens per byte in {past.rows:,} past rows of this spec"
            return Range(tokens, tokens, tokens), words
        fixed = min(self.fixed_bytes * requests, request_bytes)
        tokens = (request_bytes - fixed) / BYTES_PER_TOKEN + file_tokens
        high = tokens * (1 + _UNCALIBRATED) + fixed / BYTES_PER_TOKEN
        return (
            Range(tokens * (1 - _UNCALIBRATED), tokens, high),
            "4 bytes of prompt per token, give or take 25 %"
            + (f"; about {file_tokens:,} of attached files" if file_tokens else ""),
        )

    @staticmethod
    def _as_counted(known: Counted, request_bytes: int, file_tokens: int) -> tuple[Range, str]:
        """Files are not with the service before the requests are sent: their tokens stay estimates."""
        text, off = request_bytes * known.tokens / known.size, known.spread
        low, high = 1 - _UNCALIBRATED, 1 + _UNCALIBRATED
        tokens = Range(text * (1 - off) + file_tokens * low, text + file_tokens, text * (1 + off) + file_tokens * high)
        return tokens, known.words + (f"; about {file_tokens:,} of attached files" if file_tokens else "")

    def _output(self) -> tuple[tuple[float, float, float], str]:
        if self.info and self.info.kind == "embedding":
            return (0, 0, 0), "embeddings have no output tokens"
        past, limit = self.history, self.max_output_tokens
        picture = (self.info.image_tokens or {}).get(self.image_size) if self.info else None
        if picture and not (past and past.enough):
            return (
                picture,
                picture,
                2.0 * picture,
            ), f"{picture:,} tokens an image of {self.image_size}, up to two images"
        if past and past.enough:
            cap = float(limit) if limit else float("inf")
            used = (min(past.output_p5, cap), min(past.output_p50, cap), min(past.output_p95, cap))
            return used, f"p50 of {past.rows:,} past rows of this spec"
        why = f"only {past.rows} past rows" if past and past.rows else "no history"
        if limit:
            low, expected, high = (max(1.0, share * limit) for share in _SHARE_OF_MAX)
            return (low, expected, high), f"{why}: 25 % of max_output_tokens {limit:,}"
        ceiling = (self.info.max_output_tokens if self.info else None) or _UNBOUNDED[2]
        low, expected, high = (min(n, ceiling) for n in _UNBOUNDED)
        return (
            low,
            expected,
            high,
        ), f"{why}, no max_output_tokens: {expected} tokens an answer, up to {high:,}"

    def _notes(self, input_tokens: int, largest: float) -> tuple[str, ...]:
        if self.info is None:
            return ()
        notes = []
        limit, queue = self.info.max_input_tokens, self.info.enqueued_tokens
        if limit and largest > limit:
            notes.append(f"the longest request has about {largest:,.0f} tokens; {self.info.id} takes {limit:,}")
        if queue and input_tokens > queue[0]:
            notes.append(
                f"about {input_tokens:,} input tokens: tier 1 queues {queue[0]:,} at once for {self.info.id} "
                "(max_enqueued_tokens paces the jobs)"
            )
        return tuple(notes)

    def _no_price(self) -> str:
        return (
            f"no price is known for {self.model}: its cost is not counted; declare one in the file that `prices:` names"
        )


def _cost(tier: Rates, input_tokens: float, output_tokens: float) -> float:
    return input_tokens * tier.input + output_tokens * tier.output

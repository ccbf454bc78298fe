"""`try`: the exact requests of a few rows through the synchronous API. Nothing is recorded."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Sequence
from typing import Any, Final

import msgspec
from msgspec import Struct

from batchform.errors import BackendError
from batchform.plan.price import Estimator, usage_cost
from batchform.plan.registry import Registry
from batchform.ports import Backend
from batchform.run.budget import TrialBudget
from batchform.run.classify import Reading
from batchform.run.parse import parser_for
from batchform.spec.image import image_size
from batchform.spec.resolved import ResolvedSpec
from batchform.spec.wording import money

_VECTOR_SHOWN: Final = 60


class _Asked(Struct, frozen=True):
    generationConfig: dict[str, Any] = {}  # noqa: N815  (the API's name)


_asked: Final = msgspec.json.Decoder(_Asked)


class Trial(Struct, frozen=True):
    """One row's answer. usd: at the synchronous price, None when none is known; failure: None if answered."""

    key: str
    reading: Reading
    usd: float | None
    realm: str
    vector: bool = False

    @property
    def failure(self) -> str | None:
        return None if self.reading.cls == "answered" else self.reading.cls

    def as_json(self) -> dict[str, Any]:
        """The trial as JSON."""
        shown = {k: v for k, v in self.reading._asdict().items() if v is not None and k != "cls"}
        return {"key": self.key, "class": self.reading.cls, **shown, "usd": self.usd}

    def describe(self) -> str:
        """The trial for people. Answers are untrusted text: control characters are shown, not sent to the terminal."""
        reading = self.reading
        answer = reading.response or reading.text or ""
        if self.vector:
            answer = f"{answer[:_VECTOR_SHOWN]}… ({answer.count(',') + 1:,} numbers)"
        shown = "".join(c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in answer)
        used = f"{reading.prompt_tokens or 0:,} tokens in, {reading.output_tokens or 0:,} out"
        cost = "" if self.usd is None else f", {money(self.usd)}"
        why = f": {reading.message}" if reading.message else ""
        return f"{self.key}  {reading.cls}{why} ({used}{cost})\n  {shown}"


def try_rows(
    spec: ResolvedSpec,
    backend: Backend,
    requests: Sequence[tuple[str, bytes]],
    *,
    registry: Registry,
    now: dt.datetime,
    budget: TrialBudget,
) -> Iterator[Trial]:
    """Send (key, canonical request) pairs one after the other and read each answer as a batch's would be read.

    Raises LimitExceeded when a budget has no room for the next one.
    """
    backend.check_model(spec.model, task=spec.task)
    parser = parser_for(spec.output_format, spec.output_schema)
    for key, request in requests:
        limit = _asked.decode(request).generationConfig.get("maxOutputTokens")  # rows and rungs have their own
        estimator = Estimator.of(
            spec.model, registry=registry, when=now, max_output_tokens=limit, image_size=image_size(spec.spec),
            mode="sync",
        )  # fmt: skip
        estimate = estimator.estimate(requests=1, request_bytes=len(request))
        budget.reserve(estimate.cost, priced=estimate.priced)
        reading = parser.read({"key": key, "response": _answer(backend, spec, request, budget)})
        usd = usage_cost(
            spec.model,
            prompt=reading.prompt_tokens or 0,
            output=reading.output_tokens or 0,
            thoughts=reading.thought_tokens or 0,
            cached=reading.cached_tokens or 0,
            registry=registry,
            when=now,
            mode="sync",
        )
        if reading.prompt_tokens is None and reading.cls == "answered":  # embeddings come without usage
            usd = estimate.cost.expected if estimate.priced else None
        budget.settle(usd or 0.0)
        yield Trial(key, reading, usd, backend.realm, vector=spec.task == "embed" and reading.response is not None)


def _answer(backend: Backend, spec: ResolvedSpec, request: bytes, budget: TrialBudget) -> dict[str, Any]:
    """The raw answer. A refusal costs nothing; a request of which nothing was heard may have cost what it could."""
    try:
        return backend.generate(spec.model, request, task=spec.task)
    except BackendError as error:
        if 400 <= error.status < 500:
            budget.settle(0.0)
        raise

"""Models, service limits and prices: dated data files in the package, with the user's own file laid over
them.

Laid over by model id: a model's fields replace those of the built-in model one by one; a model's prices
replace all of its built-in prices, since dated entries only make sense together.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Struct

from batchform.errors import Diagnostic, Place
from batchform.spec.service_limits import DATA, ServiceLimits, VertexLimits, VertexRefusals

_SOON: Final = dt.timedelta(days=30)


class ModelInfo(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is known of one model on the Gemini API. None: not known.

    shutdown: first day on which it no longer answers; vertex_shutdown, vertex_batch: the same on Vertex AI, where
    models have a life of their own; vertex_locations: where batches there have it, None for wherever they run;
    routed: whether requests after the shutdown are answered and billed as `replaced_by`; reads, writes: kinds of
    content; thinking_budgets: least and most tokens, of models that take no levels; thinking: whether it can think at
    all; thinks: whether it does unless it is told; refused_fields: of the generationConfig; thinking_off: whether
    thinking can be switched off; enqueued_tokens: input tokens of all active jobs, for tiers 1, 2 and 3; dimensions:
    shortest and longest of its vectors; heeds_task_type: whether it makes them for a task; image_tokens: output
    tokens of an image, by its size; least_cached_tokens: that a context cache must hold, of models that are known to
    take one;
    sources: field → id in the data file.
    """

    id: str
    batch: bool
    kind: Literal["text", "image", "embedding"] = "text"
    max_input_tokens: int | None = None
    max_output_tokens: int | None = None
    shutdown: dt.date | None = None
    vertex_shutdown: dt.date | None = None
    vertex_batch: bool | None = None
    vertex_locations: tuple[str, ...] | None = None
    replaced_by: str | None = None
    routed: bool | None = None
    reads: tuple[str, ...] | None = None
    writes: tuple[str, ...] | None = None
    thinking_levels: tuple[str, ...] | None = None
    thinking_budgets: tuple[int, int] | None = None
    thinking_off: bool | None = None
    thinking: bool | None = None
    thinks: bool | None = None
    refused_fields: tuple[str, ...] | None = None
    enqueued_tokens: tuple[int, int, int] | None = None
    dimensions: tuple[int, int] | None = None
    heeds_task_type: bool | None = None
    image_tokens: dict[str, int] | None = None
    least_cached_tokens: int | None = None
    note: str = ""
    sources: dict[str, str] = msgspec.field(default_factory=dict)

    @property
    def can_think(self) -> bool | None:
        """Whether it can think at all; None where nothing tells."""
        told = self.thinking_levels or self.thinking_budgets or self.thinks or self.thinking_off is not None
        return True if self.thinking is None and told else self.thinking


Price = Annotated[float, msgspec.Meta(ge=0)]


class Above200k(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Prices of requests whose prompt is longer than 200,000 tokens."""

    batch_input: Price
    batch_output: Price
    input: Price | None = None
    output: Price | None = None
    cached: Price | None = None


class PriceEntry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """US dollars per million tokens, from `since` to `until`, both included. None: no such price.

    cached: the standard rate of cached input; whether batches halve it is unsettled, and the higher reading
    is used; cache_hour: of tokens that lie in a context cache, for each hour.
    """

    batch_input: Price
    batch_output: Price
    input: Price | None = None
    output: Price | None = None
    cached: Price | None = None
    cache_hour: Price | None = None
    output_image: Price | None = None
    batch_output_image: Price | None = None
    above_200k: Above200k | None = None
    since: dt.date | None = None
    until: dt.date | None = None
    dated: dt.date | None = None
    source: str = ""
    note: str = ""


class Origin(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where something is known from, and how old that is. dated: a day, or as much of one as the page gives."""

    url: str
    dated: str
    note: str = ""


class _Models(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    format_version: int
    dated: str
    sources: dict[str, Origin]
    service: ServiceLimits
    vertex: VertexLimits
    vertex_refuses: VertexRefusals
    models: dict[str, dict[str, Any]]


class _Prices(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    format_version: int
    dated: str
    currency: str
    unit: str
    sources: dict[str, Origin]
    prices: dict[str, tuple[PriceEntry, ...]]
    vertex_prices: dict[str, tuple[PriceEntry, ...]]


class Finding(Struct, frozen=True):
    """Something about a model that a plan must say.

    severity: "error" forbids the plan, "warning" does not.
    """

    rule: str
    severity: Literal["error", "warning"]
    message: str
    hint: str = ""

    def at(self, place: Place) -> Diagnostic:
        """The finding as a complaint about the file that names the model."""
        return Diagnostic(self.rule, self.message, place, hint=self.hint, severity=self.severity)


class Registry(Struct, frozen=True):
    """The data files, with the user's file laid over them.

    vertex_prices: of models that Vertex AI bills otherwise; service, vertex: limits of the Gemini API and of Vertex
    AI; vertex_refuses: what the latter does not take at all; prices_dated, models_dated: days of the two tables, for
    people; origins, price_origins: what the ids in `sources` and `source` stand for.
    """

    models: Mapping[str, ModelInfo]
    prices: Mapping[str, tuple[PriceEntry, ...]]
    service: ServiceLimits
    vertex: VertexLimits
    vertex_refuses: VertexRefusals
    prices_dated: str
    models_dated: str = ""
    vertex_prices: Mapping[str, tuple[PriceEntry, ...]] = msgspec.field(default_factory=dict)
    origins: Mapping[str, Origin] = msgspec.field(default_factory=dict)
    price_origins: Mapping[str, Origin] = msgspec.field(default_factory=dict)

    @classmethod
    def load(cls) -> Registry:
        """Read the package's data; `plan.override.lay_over` puts the user's file on top."""
        models = msgspec.json.decode((DATA / "models.json").read_bytes(), type=_Models)
        prices = msgspec.json.decode((DATA / "prices.json").read_bytes(), type=_Prices)
        return cls(
            models={name: msgspec.convert({"id": name, **raw}, ModelInfo) for name, raw in models.models.items()},
            prices=prices.prices,
            service=models.service,
            vertex=models.vertex,
            vertex_refuses=models.vertex_refuses,
            prices_dated=prices.dated,
            models_dated=models.dated,
            vertex_prices=prices.vertex_prices,
            origins=models.sources,
            price_origins=prices.sources,
        )

    def on(self, cloud: str) -> Registry:
        """What holds at `vertex`: its limits and prices, and the life of models there. The rest is the Gemini API's."""
        if cloud != "vertex":
            return self
        models = {name: _on_vertex(info) for name, info in self.models.items()}
        service = msgspec.structs.replace(self.service, **msgspec.structs.asdict(self.vertex))
        return msgspec.structs.replace(
            self, models=models, service=service, prices={**self.prices, **self.vertex_prices}
        )

    def model(self, name: str) -> ModelInfo | None:
        """What is known of a model; `models/x` is `x`."""
        return self.models.get(bare(name))

    def price(self, name: str, when: dt.datetime) -> PriceEntry | None:
        """The price that holds on a day; outside all entries, the last one before it, else the first."""
        entries = self.prices.get(bare(name))
        if not entries:
            return None
        day = when.astimezone(dt.UTC).date()
        begun = [e for e in entries if e.since is None or e.since <= day] or [entries[0]]
        holding = [e for e in begun if e.until is None or day <= e.until]
        return max(holding or begun, key=lambda e: e.since or dt.date.min)

    def check(self, name: str, *, now: dt.datetime, realm: str, task: str = "generate") -> tuple[Finding, ...]:
        """What speaks against sending a batch of a task to this model now.

        An emulator outlives the models it stands in for.
        """
        info = self.model(name)
        if info is None:
            return (self._unknown(name),)
        found: list[Finding] = []
        if not info.batch:
            found.append(
                Finding(
                    "model-without-batch",
                    "error",
                    f"model {info.id} takes no batches" + (f": {_lower(info.note)}" if info.note else "."),
                    "Choose another model, or declare `batch: true` for it in the file that `prices:` names.",
                )
            )
        if task == "embed" and info.kind != "embedding":
            hint = "Use a model that embeds, such as gemini-embedding-001, or `task: generate`."
            found.append(Finding("model-for-task", "error", f"model {info.id} makes no embeddings.", hint))
        if task == "image" and info.kind != "image":
            hint = "Use a model that makes images, such as gemini-3.1-flash-image, or `task: generate`."
            found.append(Finding("model-for-task", "error", f"model {info.id} makes no images.", hint))
        if task != "embed" and info.kind == "embedding":
            found.append(
                Finding(
                    "model-embeds",
                    "error",
                    f"model {info.id} makes embeddings, and a spec with a prompt needs one that generates.",
                    "Use `task: embed`, or choose another model.",
                )
            )
        life = self._life(info, now, realm)
        return (*found, life) if life else tuple(found)

    def check_config(self, name: str, config: Mapping[str, Any]) -> tuple[Finding, ...]:
        """What the model is known to refuse in a camelCase generationConfig."""
        info = self.model(name)
        return () if info is None else tuple(Finding("model-refuses", "error", m) for m in refusals(info, config))

    def _unknown(self, name: str) -> Finding:
        from difflib import get_close_matches

        if bare(name).endswith("-latest"):
            return Finding(
                "model-alias",
                "error",
                f"model {name} is an alias: which model answers, and at what price, changes without a change of the "
                "spec, and the API's v1 does not have it.",
                "Name the model itself: `batchform models list` has them.",
            )
        near = get_close_matches(bare(name).rpartition("/")[2], list(self.models), n=3, cutoff=0.5)
        meant = f"Did you mean {' or '.join(near)}? " if near else ""
        return Finding(
            "unknown-model",
            "error",
            f"model {name} is not known.",
            f"{meant}A newer model can be declared in the file that `prices:` in batchform.yaml names.",
        )

    def _life(self, info: ModelInfo, now: dt.datetime, realm: str) -> Finding | None:
        if info.shutdown is None:
            return None
        window = dt.timedelta(hours=self.service.job_expires_hours)
        severity: Literal["error", "warning"] = "error" if realm == "google" else "warning"
        hint = f"Use {info.replaced_by}." if info.replaced_by else "Choose another model."
        today, end = now.astimezone(dt.UTC).date(), info.shutdown
        if today >= end:
            return Finding("model-shut-down", severity, f"model {info.id} was shut down on {end}.", hint)
        if (now + window).astimezone(dt.UTC).date() >= end:
            hours = self.service.job_expires_hours
            message = f"model {info.id} is shut down on {end}, and a job sent now may take {hours} h."
            return Finding("model-shutting-down", severity, message, hint)
        if today + _SOON >= end:
            days = (end - today).days
            return Finding("model-ending", "warning", f"model {info.id} is shut down on {end}, in {days} days.", hint)
        return None


def _on_vertex(info: ModelInfo) -> ModelInfo:
    batch = info.batch if info.vertex_batch is None else info.vertex_batch
    return msgspec.structs.replace(info, batch=batch, shutdown=info.vertex_shutdown, enqueued_tokens=None)


def bare(name: str) -> str:
    """The id of a model without the API's `models/` prefix."""
    return name.removeprefix("models/")


def refusals(info: ModelInfo, config: Mapping[str, Any]) -> Iterable[str]:
    """What a model is known to refuse in a camelCase generationConfig, each in a sentence."""
    limit = info.max_output_tokens
    asked = config.get("maxOutputTokens")
    if limit and isinstance(asked, int) and asked > limit:
        yield f"max_output_tokens {asked:,} is above the {limit:,} that {info.id} can answer."
    thinking = config.get("thinkingConfig")
    if not isinstance(thinking, Mapping):
        return
    level, budget = thinking.get("thinkingLevel"), thinking.get("thinkingBudget")
    if level is not None and budget is not None:
        yield "thinking_level and thinking_budget exclude each other."
    if info.thinking is False and (level is not None or budget not in (None, 0)):
        yield f"{info.id} does not think: it takes neither thinking_level nor thinking_budget."
        return
    if level is not None and info.thinking_levels and str(level).upper() not in info.thinking_levels:
        yield f"{info.id} has no thinking_level {level}: it takes {', '.join(info.thinking_levels)}."
    if level is not None and info.thinking_budgets:
        yield f"{info.id} has no thinking_level: it takes {_budgets(info, info.thinking_budgets)}."
    if isinstance(budget, int) and budget > 0 and info.thinking_budgets:
        least, most = info.thinking_budgets
        if not least <= budget <= most:
            yield f"thinking_budget {budget:,} is not for {info.id}: it takes {_budgets(info, info.thinking_budgets)}."
    if budget == 0 and info.thinking_off is False:
        yield f"thinking of {info.id} cannot be switched off (thinking_budget 0)."


def _budgets(info: ModelInfo, budgets: tuple[int, int]) -> str:
    off = ", 0 for none" if info.thinking_off else ""
    return f"thinking_budget from {budgets[0]:,} to {budgets[1]:,}{off}, or -1 for what the model deems right"


def _lower(sentence: str) -> str:
    return sentence[:1].lower() + sentence[1:]

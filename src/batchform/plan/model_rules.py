"""What is known of a model beside whether it answers: where it is, what becomes of it, what it does not take."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Mapping
from typing import Any, Final

from batchform.errors import Diagnostic
from batchform.plan.registry import ModelInfo, Registry
from batchform.spec.generation import snake
from batchform.spec.realm import cloud_of
from batchform.spec.resolved import ResolvedSpec

_SOON: Final = dt.timedelta(days=30)


def check_model(
    spec: ResolvedSpec, request: Mapping[str, Any], registry: Registry, now: dt.datetime
) -> list[Diagnostic]:
    """Complaints about a spec, each with its place. request: what all its rows share; registry: of the spec's cloud."""
    info = registry.model(spec.model)
    if info is None:
        return []
    config = request.get("generationConfig")
    refused = _refused(spec, info, config) if isinstance(config, Mapping) else ()
    return [*_elsewhere(spec, info), *_routed(spec, info, registry, now), *refused]


def _elsewhere(spec: ResolvedSpec, info: ModelInfo) -> Iterator[Diagnostic]:
    location = getattr(spec.backend, "location", None) if cloud_of(spec.backend) == "vertex" else None
    if location and info.vertex_locations is not None and location not in info.vertex_locations:
        there = ", ".join(info.vertex_locations)
        message = f"model {info.id} is not in {location}: batches of Vertex AI have it in {there}"
        hint = f"Use a backend with `location: {info.vertex_locations[0]}`, or another model."
        yield Diagnostic("model-elsewhere", message, spec.at("model"), hint=hint)


def _routed(spec: ResolvedSpec, info: ModelInfo, registry: Registry, now: dt.datetime) -> Iterator[Diagnostic]:
    """A name that goes on to answer, for another model and at its price."""
    if not info.routed or info.shutdown is None or info.replaced_by is None:
        return
    today = now.astimezone(dt.UTC).date()
    if today + _SOON < info.shutdown:
        return
    then = dt.datetime.combine(max(today, info.shutdown), dt.time(), dt.UTC)
    old, new = registry.price(info.id, now), registry.price(info.replaced_by, then)
    prices = ""
    if old is not None and new is not None:
        prices = (
            f": ${new.batch_input:g} in and ${new.batch_output:g} out per million tokens, in place of "
            f"${old.batch_input:g} and ${old.batch_output:g}"
        )
    when = "are" if today >= info.shutdown else f"are from {info.shutdown} on"
    message = f"requests to {info.id} {when} answered and billed as {info.replaced_by}{prices}"
    hint = f"Say which you mean: `model: {info.replaced_by}` is what you get."
    yield Diagnostic("model-rerouted", message, spec.at("model"), hint=hint, severity="warning")


def _refused(spec: ResolvedSpec, info: ModelInfo, config: Mapping[str, Any]) -> Iterator[Diagnostic]:
    for name in info.refused_fields or ():
        if name in config:
            message = f"{info.id} refuses `{snake(name)}`: each row would come back with an error"
            yield Diagnostic("model-refuses", message, spec.at("generation_config"), hint="Leave it out.")

"""What is known of models, held against what the service says of them now."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Iterator
from typing import Any, Final

from msgspec import Struct

from batchform.plan.registry import ModelInfo, Registry
from batchform.ports import ServedModel

_LIMITS: Final = ("max_input_tokens", "max_output_tokens")


class Difference(Struct, frozen=True):
    """Something that the table and the service do not say alike. field: "" where a whole model is on one side only;
    known, served: the two values, None where one of them says nothing."""

    model: str
    field: str
    known: Any
    served: Any

    @property
    def message(self) -> str:
        """The difference as a sentence."""
        if self.field:
            return (
                f"{self.model}: `{self.field}` is {_worded(self.served)} there, and {_worded(self.known)} in the table."
            )
        if self.known is None:
            return f"{self.model} takes batches there, and is not in the table."
        return f"{self.model} is in the table, and not on the service's list for this key."


def differences(registry: Registry, served: Iterable[ServedModel], today: dt.date) -> list[Difference]:
    """In order of models. What the service has and takes no batches of is none of ours; models that were shut down are
    not missed."""
    there = {model.id: model for model in served}
    found = [d for info in registry.models.values() for d in _of_known(info, there.get(info.id), today)]
    found += [
        Difference(model.id, "", None, model.id)
        for model in there.values()
        if model.batch and model.id not in registry.models
    ]
    return sorted(found, key=lambda d: (d.model, d.field))


def _of_known(info: ModelInfo, served: ServedModel | None, today: dt.date) -> Iterator[Difference]:
    if served is None:
        if info.shutdown is None or today < info.shutdown:
            yield Difference(info.id, "", info.id, None)
        return
    # Lists do not say of all models that embed whether they take batches, so that only a yes counts.
    if served.batch != info.batch and (served.batch or info.kind != "embedding"):
        yield Difference(info.id, "batch", info.batch, served.batch)
    for name in _LIMITS:
        known, says = getattr(info, name), getattr(served, name)
        if says is not None and says != known and not (info.kind == "embedding" and name == "max_output_tokens"):
            yield Difference(info.id, name, known, says)
    if served.embeds is not None and served.embeds != (info.kind == "embedding"):
        yield Difference(info.id, "kind", info.kind, _kind(served))
    if served.thinking is not None and served.thinking != info.can_think:
        yield Difference(info.id, "thinking", info.can_think, served.thinking)


def _kind(served: ServedModel) -> str:
    return "embedding" if served.embeds else "text"


def override(found: Iterable[Difference], served: Iterable[ServedModel]) -> dict[str, dict[str, Any]]:
    """`models:` of the file that `prices:` names, as the service's list would have it. Models that it lacks are left
    alone: another key may have them."""
    there = {model.id: model for model in served}
    models: dict[str, dict[str, Any]] = {}
    for difference in found:
        if difference.served is None:
            continue
        fields = models.setdefault(difference.model, {})
        if difference.field:
            fields[difference.field] = difference.served
            continue
        fields["batch"] = True
        new = there[difference.model]
        fields.update((n, v) for n in (*_LIMITS, "thinking") if (v := getattr(new, n)) is not None)
        if new.embeds:
            fields["kind"] = _kind(new)
    return models


def _worded(value: Any) -> str:
    if value is None:
        return "not known"
    if isinstance(value, bool):
        return "true" if value else "false"
    return f"{value:,}" if isinstance(value, int) else str(value)

"""The retry ladder: what another attempt of a row changes, by how the earlier ones failed.

A row's request is what its files ask for, and its fingerprint is of that, on whatever rung it is sent: an answer to a
changed request answers the row, later plans keep it, and a changed ladder sends nothing that is answered. The rung
follows from the failures of that very request that are archived, so planning again gives the same one.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

import msgspec
from msgspec import Struct

from batchform.canon import RequestHasher, canonical_json, normalise
from batchform.errors import Diagnostic
from batchform.plan.registry import Registry
from batchform.spec.realm import realm_of
from batchform.spec.resolved import ResolvedSpec
from batchform.spec.retry import Change, factor_of

_SAME_NAME: Final = {"temperature": "temperature", "seed": "seed"}


class Rung(Struct, frozen=True):
    """What rows of one job have in common that are not sent as their files ask. words: what is changed, and why."""

    model: str
    max_output_tokens: int | None
    words: str


class Climbed(Struct, frozen=True):
    """A row's request on its rung, canonical, and the fingerprint of that."""

    rung: Rung
    request: bytes
    fingerprint: bytes


class Climber:
    """Finds the rungs of rows of one spec. most_tokens: model → output tokens that it gives at most, if known."""

    def __init__(self, spec: ResolvedSpec, *, realm: str, most_tokens: Callable[[str], int | None]) -> None:
        self._model, self._realm = spec.model, realm
        self._changes = spec.retry.changes
        self._by_row = any(v.path[-1] == "maxOutputTokens" for v in spec.row_values)
        self._most_tokens = most_tokens
        self._hashers: dict[str, RequestHasher] = {}

    def climb(self, request: bytes, failures: Mapping[str, int]) -> Climbed | None:
        """The request after these failures (class → how many); None if nothing is changed."""
        falls = {name: failures[name] for name in self._changes if failures.get(name)}
        if not falls:
            return None
        asked: dict[str, Any] = msgspec.json.decode(request)
        model, config = changed(self._model, asked.get("generationConfig", {}), self._changes, falls, self._most_tokens)
        sent = canonical_json({**asked, "generationConfig": config} if config else asked)
        if model == self._model and sent == request:
            return None
        hasher = self._hashers.setdefault(model, RequestHasher(model=model, realm=self._realm))
        words = f"{_said(self._model, model, asked.get('generationConfig', {}), config)} after {_fallen(falls)}"
        most = config.get("maxOutputTokens")
        if self._by_row and most == asked.get("generationConfig", {}).get("maxOutputTokens"):
            most = None  # another one for each row, all of which are on this rung
        return Climbed(Rung(model, most, words), sent, hasher.fingerprint(sent))


def climber_of(spec: ResolvedSpec, registry: Registry) -> Climber | None:
    """What finds the rungs of a spec's rows, None if nothing ever changes; vectors have nothing that could.
    registry: of its service."""
    if not spec.retry.changes or spec.task == "embed":
        return None

    def most_tokens(model: str) -> int | None:
        info = registry.model(model)
        return info.max_output_tokens if info else None

    return Climber(spec, realm=realm_of(spec.backend), most_tokens=most_tokens)


def check_rungs(
    spec: ResolvedSpec, request: Mapping[str, Any], registry: Registry, now: dt.datetime
) -> Iterator[Diagnostic]:
    """What is to be said of each change by itself: of its model, and of what that is known to refuse. request: what all
    rows share; registry: of the spec's service."""
    for name, change in spec.retry.changes.items():
        at, own = spec.at(f"retry.on.{name}"), request.get("generationConfig", {})
        model, config = changed(spec.model, own, {name: change}, {name: 1}, lambda _: None)
        if model != spec.model:
            yield from (f.at(at) for f in registry.check(model, now=now, realm=realm_of(spec.backend)))
        yield from (f.at(at) for f in registry.check_config(model, config))
        if model != spec.model and "cachedContent" in request:
            hint = "Leave the cache or the change of model out."
            yield Diagnostic("retry-change", "a cache is of one model, and `model` names another", at, hint=hint)


def failures_of(fp: bytes, state: Mapping[str, Any], archived: str) -> dict[str, int]:
    """Class → how often this request failed so. archived: the classes of its archived failures, with commas."""
    found: dict[str, int] = {}
    for name in archived.split(",") if archived else ():
        found[name] = found.get(name, 0) + 1
    last = state["failure"] if state["status"] == "failed" and state["request_fp"] == fp else None
    if last and last not in found:
        found[last] = 1
    return found


def changed(
    model: str,
    config: Mapping[str, Any],
    changes: Mapping[str, Change],
    falls: Mapping[str, int],
    most_tokens: Callable[[str], int | None],
) -> tuple[str, dict[str, Any]]:
    """Model and generationConfig after these failures. Of two changes of one field the one written later holds."""
    made = dict(config)
    for name, times in falls.items():
        change = changes[name]
        model = _bare(change.model) if change.model else model
        tokens, factor = change.max_output_tokens, factor_of(change.max_output_tokens)
        if factor is not None and isinstance(made.get("maxOutputTokens"), int):
            made["maxOutputTokens"] = int(made["maxOutputTokens"] * min(factor**times, 2.0**31))
        elif isinstance(tokens, int):
            made["maxOutputTokens"] = tokens
        made |= {k: v for k in _SAME_NAME if (v := getattr(change, k)) is not None}
        if change.thinking_level is not None or change.thinking_budget is not None:
            made["thinkingConfig"] = _thinking(made.get("thinkingConfig", {}), change)
    most = most_tokens(model)
    if most is not None and isinstance(made.get("maxOutputTokens"), int):
        made["maxOutputTokens"] = min(made["maxOutputTokens"], most)
    return model, made


def _thinking(config: Mapping[str, Any], change: Change) -> dict[str, Any]:
    kept = {k: v for k, v in config.items() if k not in ("thinkingLevel", "thinkingBudget")}
    if change.thinking_level is not None:
        return {**kept, "thinkingLevel": change.thinking_level.upper()}
    return {**kept, "thinkingBudget": change.thinking_budget}


def _bare(model: str) -> str:
    return model.removeprefix("publishers/google/").removeprefix("models/")


def _said(before: str, model: str, config: Mapping[str, Any], made: Mapping[str, Any]) -> str:
    """What differs from the row's own request."""
    parts = [model] if model != before else []
    names = {"maxOutputTokens": "max_output_tokens", **_SAME_NAME}
    parts += [f"{word} {normalise(made[name]):,}" for name, word in names.items() if made.get(name) != config.get(name)]
    thinking = made.get("thinkingConfig", {})
    if thinking != config.get("thinkingConfig", {}):
        parts.append(f"thinking {thinking.get('thinkingLevel', thinking.get('thinkingBudget'))}".lower())
    return ", ".join(parts)


def _fallen(falls: Mapping[str, int]) -> str:
    return ", ".join(f"{n} × {name}" if n > 1 else name for name, n in falls.items())

"""The user's own file of models and prices, laid over the package's. YAML or JSON, as strict as a spec:

dated: 2026-11-25
models:
  gemini-4-argon: {batch: true}
prices:
  gemini-4-argon: {batch_input: 1.0, batch_output: 5.0, cached: 0.1}
vertex_prices: {}   # of what Vertex AI bills otherwise
service: {max_jobs: 200}
vertex: {max_rows: 300000}
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from msgspec.structs import replace

from batchform.errors import Diagnostic, InvalidProject
from batchform.plan.registry import Above200k, ModelInfo, PriceEntry, Registry
from batchform.spec.wording import suggestion
from batchform.spec.yaml_source import Document, NodePath, parse_yaml, read_text

S = TypeVar("S", bound=msgspec.Struct)
_SECTIONS = ("dated", "models", "prices", "vertex_prices", "service", "vertex")


def lay_over(registry: Registry, path: Path, shown: str) -> Registry:
    """The registry with the file's entries in place of its own. Raises InvalidProject with all complaints."""
    file = _OverrideFile(_read(path, shown))
    models = {**registry.models, **file.models(registry.models)}
    own, there = file.prices("prices"), file.prices("vertex_prices")
    prices = {**registry.prices, **own}
    there = {**{name: entries for name, entries in registry.vertex_prices.items() if name not in own}, **there}
    service, vertex = file.laid("service", registry.service), file.laid("vertex", registry.vertex)
    dated = file.dated()
    if file.complaints:
        raise InvalidProject(file.complaints)
    moved = f", {path.name}" + (f" of {dated}" if dated else "")
    return replace(
        registry, models=models, prices=prices, service=service, vertex=vertex,
        vertex_prices=there, prices_dated=registry.prices_dated + moved, models_dated=registry.models_dated + moved,
    )  # fmt: skip


class _OverrideFile:
    """Reads the sections of one file; whatever is wrong is complained about and left out."""

    def __init__(self, document: Document) -> None:
        self.document = document
        self.complaints: list[Diagnostic] = []
        self._names_known(document.value, _SECTIONS, ())

    def models(self, built_in: Mapping[str, ModelInfo]) -> dict[str, ModelInfo]:
        found = {}
        for name, own in self._section("models"):
            base = _plain(built_in[name]) if name in built_in else {}
            mine = own if isinstance(own, dict) else {}
            sources = {field: source for field, source in base.get("sources", {}).items() if field not in mine}
            info = self._convert(own, ModelInfo, ("models", name), {**base, "sources": sources, "id": name})
            if info is not None:
                found[name] = info
        return found

    def prices(self, section: str) -> dict[str, tuple[PriceEntry, ...]]:
        found = {}
        for name, own in self._section(section):
            entries = (
                [self._convert(e, PriceEntry, (section, name, i)) for i, e in enumerate(own)]
                if isinstance(own, list)
                else [self._convert(own, PriceEntry, (section, name))]
            )
            if not entries:
                self._complain("wrong-type", f"`{section}.{name}` is empty", (section, name))
            found[name] = tuple(e for e in entries if e is not None)
        return found

    def laid(self, name: str, base: S) -> S:
        """A section that is one set of fields."""
        if name not in self.document.value:
            return base
        return self._convert(self.document.value[name], type(base), (name,), _plain(base)) or base

    def dated(self) -> dt.date | None:
        try:
            return msgspec.convert(self.document.value.get("dated"), dt.date | None)
        except msgspec.ValidationError:
            self._complain("wrong-type", "`dated` must be a date, such as 2026-11-25", ("dated",))
            return None

    def _section(self, name: str) -> Iterator[tuple[str, Any]]:
        section = self.document.value.get(name, {})
        if not isinstance(section, dict):
            self._complain("wrong-type", f"`{name}` must map model ids to entries", (name,))
            return
        yield from section.items()

    def _convert(self, own: Any, to: type[S], at: NodePath, base: Mapping[str, Any] | None = None) -> S | None:
        if not isinstance(own, dict):
            self._complain("wrong-type", f"`{_dotted(at)}` must be a mapping of fields", at)
            return None
        known = self._names_known(own, tuple(f for f in to.__struct_fields__ if f != "id"), at)
        tier = own.get("above_200k")
        if isinstance(tier, dict):
            known = self._names_known(tier, Above200k.__struct_fields__, (*at, "above_200k")) and known
        if not known:
            return None
        try:
            return msgspec.convert({**own, **{k: v for k, v in (base or {}).items() if k not in own}}, to)
        except msgspec.ValidationError as error:
            self._complain_of(error, at)
            return None

    def _names_known(self, own: Mapping[str, Any], known: tuple[str, ...], at: NodePath) -> bool:
        unknown = [name for name in own if name not in known]
        for name in unknown:
            message = f"unknown field `{_dotted((*at, name))}`"
            self._complain("unknown-field", message, (*at, name), suggestion(name, known, noun="Fields"))
        return not unknown

    def _complain_of(self, error: msgspec.ValidationError, at: NodePath) -> None:
        """msgspec says `Expected …, got … - at `$.field``, or names the missing field."""
        what, _, inner = str(error).partition(" - at `$")
        where = (*at, *inner.rstrip("`").strip(".").split(".")) if inner else at
        what = what.replace("Object missing required field ", "misses the field ")
        self._complain("wrong-type", f"`{_dotted(where)}`: {what[:1].lower()}{what[1:]}", where)

    def _complain(self, rule: str, message: str, at: NodePath, hint: str = "") -> None:
        on_key = rule == "unknown-field"
        self.complaints.append(self.document.diagnostic(rule, message, at, on_key=on_key, hint=hint))


def _read(path: Path, shown: str) -> Document:
    text = read_text(path, shown)
    if isinstance(text, Diagnostic):
        raise InvalidProject([text])
    # JSON is YAML, but for the tabs that it may be indented with.
    document, complaints = parse_yaml(text.replace("\t", " ") if path.suffix == ".json" else text, shown)
    if document is None or complaints:
        raise InvalidProject(complaints)
    return document


def _plain(struct: msgspec.Struct) -> dict[str, Any]:
    return {name: getattr(struct, name) for name in struct.__struct_fields__}


def _dotted(at: NodePath) -> str:
    return ".".join(str(part) for part in at)

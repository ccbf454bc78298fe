"""The user's own file of models and prices, laid over the package's. YAML or JSON, as strict as a spec:

dated: 2026-11-25
models:
  gemini-4-argon: {batch: true}
prices:
  gemini-4-argon: {batch_input: 1.0, batch_output: 5.0, cached: 0.1}
service: {max_jobs: 200}
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Mapping
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import msgspec
import yaml

from batchform.errors import Diagnostic, InvalidProject, Place
from batchform.plan.registry import Above200k, ModelInfo, PriceEntry, Registry, ServiceLimits

_SECTIONS = ("dated", "models", "prices", "service")
_Path = tuple[str | int, ...]


def lay_over(registry: Registry, built_in: Mapping[str, Mapping[str, Any]], path: Path) -> Registry:
    """The registry with the file's entries in place of its own. Raises InvalidProject with all complaints."""
    return _Override(path).over(registry, built_in)


class _Override:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.lines: list[str] = []
        self.places: dict[_Path, Place] = {}
        self.complaints: list[Diagnostic] = []

    def over(self, registry: Registry, built_in: Mapping[str, Mapping[str, Any]]) -> Registry:
        raw = self._read()
        self._check_names(raw, _SECTIONS, ())
        models = dict(registry.models)
        for name, own in self._section(raw, "models"):
            base = {k: v for k, v in built_in.get(name, {}).items() if k != "sources"}
            models[name] = self._convert(
                {**base, **own, "id": name}, own, ModelInfo, ("models", name), models.get(name)
            )
        prices = dict(registry.prices)
        for name, own in self._section(raw, "prices", lists=True):
            entries = own if isinstance(own, list) else [own]
            where: _Path = ("prices", name)
            converted = [
                self._convert(e, e, PriceEntry, (*where, i) if isinstance(own, list) else where, None)
                for i, e in enumerate(entries)
            ]
            prices[name] = tuple(e for e in converted if e is not None)
        service = dict(msgspec.structs.asdict(registry.service))
        own_service = raw.get("service", {})
        limits = self._convert(
            {**service, **own_service}, own_service, ServiceLimits, ("service",), registry.service
        )
        dated = self._dated(raw)
        if self.complaints:
            raise InvalidProject(self.complaints)
        return replace(
            registry,
            models=models,
            prices=prices,
            service=limits,
            prices_dated=f"{registry.prices_dated}, {dated}",
        )

    def _dated(self, raw: Mapping[str, Any]) -> str:
        dated = raw.get("dated")
        try:
            day = msgspec.convert(dated, dt.date | None)
        except msgspec.ValidationError:
            self._complain("wrong-type", "`dated` is not a date: write 2026-11-25.", ("dated",))
            return ""
        return f"{self.path.name} of {day}" if day else self.path.name

    def _section(
        self, raw: Mapping[str, Any], name: str, *, lists: bool = False
    ) -> Iterator[tuple[str, Any]]:
        """Entries by model id; whatever has the wrong shape is complained about and left out."""
        section = raw.get(name, {})
        if not isinstance(section, dict):
            self._complain("wrong-type", f"`{name}` maps model ids to entries.", (name,))
            return
        for model, own in section.items():
            if isinstance(own, dict) or (
                lists and isinstance(own, list) and own and all(isinstance(e, dict) for e in own)
            ):
                yield str(model), own
            else:
                wanted = "a mapping, or a list of them" if lists else "a mapping"
                self._complain("wrong-type", f"`{name}.{model}` is not {wanted}.", (name, model))

    def _convert(self, merged: Any, own: Any, to: type[Any], where: _Path, fallback: Any) -> Any:
        if not isinstance(own, dict):
            self._complain("wrong-type", f"`{_dotted(where)}` is not a mapping.", where)
            return fallback
        clean = self._check_names(own, tuple(f for f in to.__struct_fields__ if f != "id"), where)
        if isinstance(tier := own.get("above_200k"), dict):
            clean = self._check_names(tier, Above200k.__struct_fields__, (*where, "above_200k")) and clean
        if not clean:
            return fallback
        try:
            return msgspec.convert(merged, to)
        except msgspec.ValidationError as error:
            what, _, at = str(error).partition(" - at `$")
            inner = tuple(at.rstrip("`").strip(".").split(".")) if at else ()
            message = f"`{_dotted((*where, *inner))}`: {what[:1].lower()}{what[1:]}."
            self._complain(
                "wrong-type",
                message.replace("object missing required field", "misses the field"),
                (*where, *inner),
            )
            return fallback

    def _check_names(self, raw: Mapping[str, Any], known: tuple[str, ...], where: _Path) -> bool:
        unknown = [name for name in raw if name not in known]
        for name in unknown:
            near = get_close_matches(str(name), known, n=1)
            hint = f"Did you mean `{near[0]}`?" if near else f"Known: {', '.join(known)}."
            self._complain(
                "unknown-field", f"`{_dotted((*where, name))}` is not a known field.", (*where, name), hint
            )
        return not unknown

    def _complain(self, rule: str, message: str, at: _Path, hint: str = "") -> None:
        place = next(
            (self.places[at[:n]] for n in range(len(at), -1, -1) if at[:n] in self.places),
            Place(str(self.path)),
        )
        line = self.lines[place.line - 1] if 0 < place.line <= len(self.lines) else ""
        self.complaints.append(Diagnostic(rule, message, place, hint=hint, source_line=line))

    def _read(self) -> dict[str, Any]:
        try:
            text = self.path.read_text(encoding="utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
            raise self._unreadable(f"the file that `prices:` names cannot be read: {reason}.") from error
        self.lines = text.splitlines()
        try:
            # JSON is YAML, but for the tabs that it may be indented with.
            node = yaml.compose(
                text.replace("\t", " ") if self.path.suffix == ".json" else text, Loader=yaml.SafeLoader
            )
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark
            place = Place(str(self.path), mark.line + 1, mark.column + 1) if mark else Place(str(self.path))
            raise self._unreadable(f"not valid YAML: {error.problem}.", place) from error
        except yaml.YAMLError as error:
            raise self._unreadable(f"not valid YAML: {str(error).splitlines()[0]}.") from error
        raw = self._value(node, ()) if node else {}
        if not isinstance(raw, dict):
            raise self._unreadable(f"the file holds no mapping with {', '.join(_SECTIONS)}.")
        return raw

    def _value(self, node: yaml.Node, at: _Path) -> Any:
        """Plain values of a node; notes where each stands and complains about duplicate keys."""
        self.places.setdefault(
            at, Place(str(self.path), node.start_mark.line + 1, node.start_mark.column + 1)
        )
        if isinstance(node, yaml.MappingNode):
            result: dict[str, Any] = {}
            for key_node, value_node in node.value:
                key = str(key_node.value)
                self.places[(*at, key)] = Place(
                    str(self.path), key_node.start_mark.line + 1, key_node.start_mark.column + 1
                )
                if key in result:
                    self._complain("duplicate-key", f"`{_dotted((*at, key))}` is given twice.", (*at, key))
                result[key] = self._value(value_node, (*at, key))
            return result
        if isinstance(node, yaml.SequenceNode):
            return [self._value(item, (*at, i)) for i, item in enumerate(node.value)]
        try:
            return yaml.SafeLoader("").construct_object(node)
        except (yaml.YAMLError, ValueError):
            self._complain("wrong-type", f"`{_dotted(at)}` has no plain value.", at)
            return None

    def _unreadable(self, message: str, place: Place | None = None) -> InvalidProject:
        return InvalidProject([Diagnostic("unreadable-prices", message, place or Place(str(self.path)))])


def _dotted(at: _Path) -> str:
    return ".".join(str(part) for part in at)

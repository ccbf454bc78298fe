"""Chains: specs whose rows are the answers of other specs. Their order, their columns, and what is wrong with them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

from batchform.errors import DestinationError, Diagnostic, Place
from batchform.spec.delivery import OutputColumn, free_names, source_columns
from batchform.spec.expressions import Field, InResponse, Key, KeyColumn, properties
from batchform.spec.model import Spec, SpecSource
from batchform.spec.realm import realm_of
from batchform.spec.resolved import ResolvedSpec
from batchform.spec.wording import shown, suggestion
from batchform.spec.yaml_source import Document

STATUS: Final = "status"
"""Column that `source.where` and `source.query` of a chain see beside the others: answered, or absent."""
_NAME: Final = ("source", "name")


def answer_columns(upstream: ResolvedSpec) -> tuple[OutputColumn, ...]:
    """What a chain reads of each answer: the columns of the key, then the properties of the response, or else the
    `response` itself, or the `text` of one that is no JSON. None of them changes when the same answer comes again."""
    columns = [OutputColumn(c, KeyColumn(c)) for c in upstream.key_columns] or [OutputColumn("key", Key())]
    if upstream.output_format == "text":
        return free_names(columns, {"text": Field("text")})
    found = properties(upstream.output_schema)
    if not found:
        return free_names(columns, {"response": Field("response")})
    return free_names(columns, {name: InResponse((name,), kind) for name, kind in found.items()})


def in_order(specs: Sequence[ResolvedSpec]) -> list[ResolvedSpec]:
    """Each spec after the one whose answers it reads, otherwise as they were. Chains must have no cycle."""
    named = {s.name: s for s in specs}
    ordered: dict[str, ResolvedSpec] = {}
    for spec in specs:
        line: list[ResolvedSpec] = []
        at: ResolvedSpec | None = spec
        while at is not None and at.name not in ordered:
            line.append(at)
            at = named.get(at.upstream or "")
        ordered |= {s.name: s for s in reversed(line)}
    return list(ordered.values())


def ancestors(spec: ResolvedSpec, specs: Iterable[ResolvedSpec]) -> list[ResolvedSpec]:
    """The specs that a spec's rows come from, the nearest first."""
    named = {s.name: s for s in specs}
    found = []
    at = named.get(spec.upstream or "")
    while at is not None and at not in found:
        found.append(at)
        at = named.get(at.upstream or "")
    return found


def with_upstreams(specs: Sequence[ResolvedSpec], every: Sequence[ResolvedSpec]) -> list[ResolvedSpec]:
    """Specs, and those that their rows come from."""
    wanted = {s.name for s in specs} | {a.name for s in specs for a in ancestors(s, every)}
    return [s for s in every if s.name in wanted]


def lint_chains(loaded: Sequence[tuple[Document, Spec]], resolved: Sequence[ResolvedSpec]) -> Iterator[Diagnostic]:
    """Complaints about what chains name. loaded: all specs that are well-formed; resolved: those without errors."""
    named = {spec.name: spec for _, spec in loaded}
    ready = {spec.name: spec for spec in resolved}
    told: set[str] = set()
    for document, spec in loaded:
        source = spec.source
        if not isinstance(source, SpecSource):
            continue
        if source.name not in named:
            hint = suggestion(source.name, [n for n in named if n != spec.name], noun="Specs")
            message = f"there is no spec `{shown(source.name)}` without errors whose answers could be read"
            yield document.diagnostic("unknown-upstream", message, _NAME, hint=hint)
            continue
        cycle = _cycle(spec, named)
        if cycle:
            if not told & set(cycle):
                yield _cyclic(document, cycle)
            told |= set(cycle)
        elif spec.name in ready and source.name in ready:
            yield from _against(document, ready[spec.name], ready[source.name])


def _cycle(spec: Spec, named: Mapping[str, Spec]) -> list[str]:
    """The names from a spec back to itself; none if its chain ends, or ends in a cycle that it is no part of."""
    path, at = [spec.name], spec
    while isinstance(at.source, SpecSource) and at.source.name in named:
        at = named[at.source.name]
        if at.name in path:
            return [*path, at.name] if at.name == spec.name else []
        path.append(at.name)
    return []


def _cyclic(document: Document, cycle: list[str]) -> Diagnostic:
    if len(cycle) == 2:
        message = f"{cycle[0]} reads its own answers"
    else:
        message = f"the chain is a circle: {' reads '.join(cycle)}"
    return document.diagnostic("chain-cycle", message, _NAME, hint="A chain begins with rows that are no answers.")


def _against(document: Document, spec: ResolvedSpec, upstream: ResolvedSpec) -> Iterator[Diagnostic]:
    """Complaints about a spec and the one whose answers it reads."""
    if realm_of(spec.backend) == "google" and realm_of(upstream.backend) != "google":
        message = (
            f"{upstream.name} is answered by the emulator (backend {upstream.backend_name}), and {spec.name} would "
            f"send its synthetic answers to Google (backend {spec.backend_name})"
        )
        hint = "Send both to backends of one kind, in the environment too that is chosen with --env."
        yield document.diagnostic("chain-realm", message, _NAME, hint=hint)
    if upstream.splits:
        message = f"{upstream.name} asks about PDFs in parts, and a chain reads one answer of each row"
        yield document.diagnostic("parts-refused", message, _NAME, hint="Read what it delivers, as a file.")
    source = spec.spec.source
    assert isinstance(source, SpecSource)
    if source.with_source or source.query is not None:
        return  # what columns there are is known when the rows are read
    known = [c.name for c in answer_columns(upstream)]
    for column, place in _read(spec).items():
        if column not in known:
            message = f"{upstream.name}, whose answers are read, has no column `{shown(column)}`"
            yield Diagnostic("chain-column", message, place, hint=suggestion(column, known, noun="It has"))


def _read(spec: ResolvedSpec) -> dict[str, Place]:
    """Columns that a spec reads of its rows → where it does."""
    found = {column: spec.at("idempotency.key") for column in spec.key_columns}
    if spec.key_template is not None:
        found |= {column: spec.at("idempotency.key") for column in sorted(spec.key_template.columns or ())}
    for template in [*([spec.system] if spec.system else []), *(t.template for t in spec.turns)]:
        for column in sorted(template.columns or ()):
            found.setdefault(column, template.where(column))
    try:
        delivered = source_columns(spec)
    except DestinationError:
        delivered = {}  # said of the destination itself
    for column, by in delivered.items():
        found.setdefault(column, spec.at(f"destination.columns.{by}"))
    return found

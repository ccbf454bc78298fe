"""Fault schedules: which call, which time, what happens. Read here, strictly; carried out by `fault_gate`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from functools import reduce
from operator import or_
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

import msgspec
from msgspec import Struct
from msgspec.structs import replace
from pydantic import Field

from batchform.emulator import routes_batches, routes_caches, routes_files, routes_models
from batchform.emulator.fault_kinds import CALL_KINDS, VERTEX, Kind
from batchform.emulator.fault_kinds_jobs import JOB_KINDS
from batchform.emulator.fault_kinds_rows import ROW_KINDS
from batchform.emulator.storage import routes as storage_routes
from batchform.emulator.vertex import routes as vertex
from batchform.emulator.warehouse import names as warehouse_names
from batchform.errors import BatchformError, Diagnostic, InvalidProject
from batchform.spec.complaints import validate
from batchform.spec.fields import Strict
from batchform.spec.wording import counted, suggestion
from batchform.spec.yaml_source import Document, parse_yaml, read_text

_ROUTES: Final = (
    *routes_files.ROUTES, *routes_batches.ROUTES, *routes_caches.ROUTES, *routes_models.ROUTES, *vertex.ROUTES,
)  # fmt: skip
CALLS: Final = (*(route.name for route in _ROUTES), *storage_routes.NAMES, *warehouse_names.NAMES)
"""Names of the calls that faults can happen to."""

KINDS: Final[tuple[type[Kind], ...]] = (*CALL_KINDS, *JOB_KINDS, *ROW_KINDS)

if TYPE_CHECKING:
    Do = Kind
else:
    Do = Annotated[reduce(or_, KINDS), Field(discriminator="type")]

Source = str | bytes | Path | Mapping[str, Any] | Iterable[Mapping[str, Any]]
"""A schedule: a file, the text of one, or its values: a list of faults, or `{"faults": […]}`."""


class InvalidSchedule(InvalidProject):
    """All complaints about a fault schedule."""

    def __init__(self, diagnostics: Sequence[Diagnostic]) -> None:
        super().__init__(diagnostics)
        self.message = f"{counted(len(diagnostics), 'error')} in the fault schedule"


class Match(Strict):
    """Which job or file the call must be about: globs, all of which must fit. In a list: which entries it is about."""

    tag: str | None = Field(None, description="Display name of the job or file.")
    job: str | None = Field(None, description="Name of the job, `batches/…`.")
    file: str | None = Field(None, description="Name of the file, `files/…`; of a job its input.")
    model: str | None = Field(None, description="Model of the job or call.")
    state: str | None = Field(None, description="State of the job as it truly is, such as SUCCEEDED.")

    def fits(self, subject: Mapping[str, str | None]) -> bool:
        """Whether this is what was meant."""
        wanted = {name: glob for name, glob in self if glob is not None}
        return all(fnmatchcase(subject.get(name) or "", glob) for name, glob in wanted.items())


class Fault(Strict):
    """One fault. Of the calls that match it happens to the `nth`, then to every `every`-th, `times` times in all."""

    call: str = Field(description="Name of the call, or a glob: batches.create, files.*, *.")
    nth: int = Field(1, ge=1, description="The first matching call that it happens to.")
    every: int = Field(1, ge=1, description="From then on to every so-many-th.")
    times: Annotated[int, Field(ge=1)] | Literal["all"] = Field(1, description="How often in all.")
    match: Match | None = Field(None, description="Which job or file.")
    do: Do = Field(description="What happens.")

    def calls(self) -> tuple[str, ...]:
        """The calls that it can happen to: those it names and its kind works on."""
        return tuple(name for name in CALLS if fnmatchcase(name, self.call) and _works_on(self.do, name))

    def is_due(self, seen: int, fired: int) -> bool:
        """Whether it happens to the matching call number `seen`, after it happened `fired` times."""
        in_turn = seen >= self.nth and (seen - self.nth) % self.every == 0
        return in_turn and (self.times == "all" or fired < self.times)


class Schedule(Strict):
    """What a schedule file holds."""

    faults: list[Fault] = Field(description="Faults; each counts the calls that match it.")


class Sample(Struct, frozen=True):
    """One thing that can go wrong with one call. do: as in a schedule."""

    call: str
    do: Mapping[str, Any]

    @property
    def name(self) -> str:
        """`batches.create: error, status=503, when=after`."""
        rest = "".join(f", {name}={value}" for name, value in self.do.items() if name != "type")
        return f"{self.call}: {self.do['type']}{rest}"

    def fault(self, **also: Any) -> dict[str, Any]:
        """A fault of a schedule; also: its nth, every, times, match."""
        return {"call": self.call, **also, "do": dict(self.do)}


def catalogue(call: str = "*") -> tuple[Sample, ...]:
    """Every kind of fault, with every example of it, for each call (a glob) that it works on."""
    return tuple(
        Sample(name, do)
        for name in CALLS
        if fnmatchcase(name, call)
        for kind in KINDS
        if _works_on(kind, name)
        for do in examples(kind, call=name)
    )


def examples(kind: type[Kind], *, call: str = "") -> list[dict[str, Any]]:
    """A kind's examples as values. call: which they are for."""
    chosen = (call.startswith(VERTEX) and kind.vertex_examples) or kind.examples
    text = "faults:\n" + "".join(f"- {example}\n" for example in chosen)
    document, _ = parse_yaml(text, kind.__name__)
    assert document is not None  # a test reads them all
    found: list[dict[str, Any]] = document.value["faults"]
    return found


def type_of(kind: Kind | type[Kind]) -> str:
    """The word that stands for a kind in a schedule."""
    (word,) = kind.model_fields["type"].annotation.__args__  # type: ignore[union-attr]
    return str(word)


def load(source: Source, *, name: str = "faults") -> Schedule:
    """Read a schedule. Raises InvalidSchedule with all complaints; name: what messages call it, unless it is a file."""
    document, problems = _document(source, name)
    if document is None:
        raise InvalidSchedule(problems)
    document = _written_out(document)
    schedule, found = validate(Schedule, document)
    problems += found
    if schedule is not None:
        problems += [p for i, fault in enumerate(schedule.faults) for p in _misfits(document, i, fault)]
    if schedule is None or problems:
        raise InvalidSchedule(problems)
    return schedule


def as_json(schedule: Schedule) -> list[dict[str, Any]]:
    """The faults as plain values, without defaults: `load` reads them again."""
    return [fault.model_dump(mode="json", exclude_unset=True) for fault in schedule.faults]


def _document(source: Source, name: str) -> tuple[Document | None, list[Diagnostic]]:
    if isinstance(source, Path):
        text = read_text(source, str(source))
        return (None, [text]) if isinstance(text, Diagnostic) else parse_yaml(text, str(source))
    if isinstance(source, bytes):
        source = source.decode(errors="replace")
    if isinstance(source, str):
        return parse_yaml(source, name)
    value = source if isinstance(source, Mapping) else {"faults": list(source)}
    try:
        plain = msgspec.to_builtins(value, str_keys=True)
    except TypeError as e:
        raise BatchformError(f"A fault schedule holds plain values only: {e}.") from e
    return Document(name, plain), []


def _written_out(document: Document) -> Document:
    """`do: drop` is short for `do: {type: drop}`."""
    faults = document.value.get("faults")
    if not isinstance(faults, list):
        return document
    full = [
        {**f, "do": {"type": f["do"]}} if isinstance(f, dict) and isinstance(f.get("do"), str) else f for f in faults
    ]
    return replace(document, value={**document.value, "faults": full})


def _misfits(document: Document, i: int, fault: Fault) -> list[Diagnostic]:
    """What is wrong with the call that a fault names."""
    at = ("faults", i, "call")
    if not any(fnmatchcase(name, fault.call) for name in CALLS):
        hint = suggestion(fault.call, CALLS, noun="Calls")
        return [document.diagnostic("unknown-call", f"there is no call `{fault.call}`", at, hint=hint)]
    if not fault.calls():
        message = f"`{fault.do.word}` does nothing to `{fault.call}`"
        able = ", ".join(name for name in CALLS if _works_on(fault.do, name))
        return [document.diagnostic("wrong-call", message, at, hint=f"It works on {able}.")]
    return []


def _works_on(kind: Kind | type[Kind], call: str) -> bool:
    return kind.works_on(call)


def names(kinds: Sequence[type[Kind]] = KINDS) -> list[str]:
    """The words that kinds have in a schedule."""
    return [type_of(kind) for kind in kinds]

"""The columns that a spec delivers, and the digest by which a changed destination is known. Pure: nothing is read."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Mapping, Sequence

from msgspec import Struct

from batchform.canon import digest_of
from batchform.errors import DestinationError
from batchform.spec.bigquery import BigQueryDestination, name_problem
from batchform.spec.embed import VECTOR
from batchform.spec.expressions import (
    DETAILS,
    FIELDS,
    PARTS_FIELD,
    VECTOR_FIELD,
    Expression,
    ExpressionError,
    Field,
    InField,
    InResponse,
    InResponses,
    Key,
    KeyColumn,
    Metadata,
    Rendered,
    RowColumn,
    parse,
    properties,
)
from batchform.spec.image import IMAGE_FIELDS, IMAGES, images_folder
from batchform.spec.model import Destination
from batchform.spec.model_sql import SqlDestination
from batchform.spec.resolved import ResolvedSpec

_DEFAULT = tuple(name for name in FIELDS if name != "cost_usd")
_OF_VECTORS = (VECTOR_FIELD, "prompt_tokens", "model_version", "batch_job", "answered_at")


_OF_TOOLS = (
    ("functionDeclarations", "function_calls"),
    ("codeExecution", "tool_steps"),
    ("googleSearch", "grounding"),
    ("urlContext", "url_context"),
)
"""Tools that a spec names → what answers then have, and default columns show."""

Complaint = tuple[tuple[str, ...], str]
"""The path of the field that is wrong, and a sentence on it."""

METADATA = "_batchform"
"""The column that says where a row of a table that others write too comes from."""
_COLUMNS = ("destination", "columns")
_FLATTEN = ("destination", "flatten")


class OutputColumn(Struct, frozen=True):
    """One column of the destination."""

    name: str
    expression: Expression


def output_columns(spec: ResolvedSpec) -> tuple[OutputColumn, ...]:
    """The destination's columns, in order. Raises DestinationError with all complaints."""
    columns, complaints = _columns(spec)
    if complaints:
        words = "; ".join(sentence for _, sentence in complaints)
        raise DestinationError(words, place=spec.at(".".join(complaints[0][0])))
    return columns


def check_columns(spec: ResolvedSpec) -> list[Complaint]:
    """What is wrong with the destination's `columns` and `flatten`; empty when they are fine."""
    return _columns(spec)[1]


def destination_digest(spec: ResolvedSpec) -> str:
    """Digest of everything that decides where answers go and what each holds: another one means deliver all again."""
    to = spec.spec.destination
    if isinstance(to, BigQueryDestination):
        return digest_of("destination", [to.type, to.table, _described(spec)])
    named = to.database if isinstance(to, SqlDestination) else posixpath.normpath(to.path)
    path = f"{named}/" if to.takes_parts else named
    return digest_of("destination", [to.type, path, getattr(to, "table", None), _described(spec)])


def takes_changes(to: Destination) -> bool:
    """Whether a delivery that is not full writes what changed, and reads nothing else."""
    return to.takes_parts or isinstance(to, BigQueryDestination)


def _described(spec: ResolvedSpec) -> list[list[object]]:
    """The columns, as a digest covers them."""
    described: list[list[object]] = [
        [c.name, type(c.expression).__name__, *_parts(c.expression)] for c in output_columns(spec)
    ]
    return [*described, ["images", images_folder(spec.spec)]] if spec.output_format == IMAGES else described


def reads_row(columns: tuple[OutputColumn, ...]) -> bool:
    """Whether a column needs the source's row, not only its answer."""
    return any(
        isinstance(c.expression, RowColumn) or (isinstance(c.expression, Rendered) and "row" in c.expression.reads)
        for c in columns
    )


def details_read(columns: tuple[OutputColumn, ...]) -> tuple[str, ...]:
    """Those of DETAILS that columns show."""
    read: set[str] = set()
    for column in columns:
        match column.expression:
            case Field(name) | InField(name):
                read.add(name)
            case Rendered(reads=reads):
                read |= reads
            case _:
                pass
    return tuple(name for name in DETAILS if name in read)


def source_columns(spec: ResolvedSpec) -> dict[str, str]:
    """Columns of the source that `destination.columns` needs beside the key → the column that reads each."""
    needed: dict[str, str] = {}
    for column in output_columns(spec):
        match column.expression:
            case RowColumn(name):
                needed.setdefault(name, column.name)
            case Rendered(row=row):
                for name in sorted(row):
                    needed.setdefault(name, column.name)
            case _:
                pass
    return needed


def _parts(expression: Expression) -> Iterator[object]:
    """What tells two expressions of one kind apart."""
    match expression:
        case InResponse(steps, kind):
            yield from (list(steps), kind)
        case InResponses(steps):
            yield list(steps)
        case InField(name, steps):
            yield from (name, list(steps))
        case KeyColumn(name) | Field(name) | RowColumn(name):
            yield name
        case Rendered(text):
            yield text
        case Key() | Metadata():
            return


def _columns(spec: ResolvedSpec) -> tuple[tuple[OutputColumn, ...], list[Complaint]]:
    columns, complaints = _written(spec)
    to = spec.spec.destination
    if not isinstance(to, BigQueryDestination):
        return columns, complaints
    for name in (c.name for c in columns):
        if problem := name_problem(name):
            at = (*_COLUMNS, name) if name in (to.columns or ()) else _FLATTEN if to.flatten else ("destination",)
            words = f"the column {name!r} {problem}: give it another name in destination.columns"
            complaints.append((at, words))
    if not to.metadata:
        return columns, complaints
    if any(c.name.casefold() == METADATA for c in columns):
        words = f"destination.columns.{METADATA} is batchform's own: choose another name, or set metadata: false"
        complaints.append(((*_COLUMNS, METADATA), words))
    return (*columns, OutputColumn(METADATA, Metadata())), complaints


def _written(spec: ResolvedSpec) -> tuple[tuple[OutputColumn, ...], list[Complaint]]:
    if spec.spec.destination.columns is not None:
        return _mapped(spec)
    columns = [OutputColumn(c, KeyColumn(c)) for c in spec.key_columns] or [OutputColumn("key", Key())]
    if spec.output_format == VECTOR:
        complaints = _flatten_needs("answers in JSON") if spec.spec.destination.flatten else []
        return _named(columns, [(f, Field(f)) for f in _OF_VECTORS], []), complaints
    given = [detail for tool, detail in _OF_TOOLS if _names(spec, tool) and detail not in spec.key_columns]
    given += [PARTS_FIELD] if spec.splits else []
    fields = [*(f for f in _DEFAULT if f != "response"), *given]
    if spec.output_format == IMAGES:
        complaints = _flatten_needs("answers in JSON") if spec.spec.destination.flatten else []
        return _named(columns, [(f, Field(f)) for f in (*IMAGE_FIELDS, *fields)], []), complaints
    if spec.output_format == "text":
        complaints = _flatten_needs("answers in JSON") if spec.spec.destination.flatten else []
        return _named(columns, [(f, Field(f)) for f in fields], []), complaints
    if not spec.spec.destination.flatten:
        return _named(columns, [(f, Field(f)) for f in (*_DEFAULT, *given)], []), []
    found = properties(spec.output_schema)
    if not found:
        return (), _flatten_needs("an output schema of type object with properties")
    flat: list[tuple[str, Expression]] = [(name, InResponse((name,), kind)) for name, kind in found.items()]
    return _named(columns, [(f, Field(f)) for f in fields], flat), []


def _names(spec: ResolvedSpec, tool: str) -> bool:
    """Whether a spec's `tools` name a tool. What `request:` brings is not looked at: it never gave columns."""
    tools = spec.request_base.get("tools") or ()
    return any(tool in t for t in tools)


def _flatten_needs(what: str) -> list[Complaint]:
    words = f"destination.flatten needs {what}; leave it out, or map single columns in destination.columns"
    return [(_FLATTEN, words)]


def free_names(key: Sequence[OutputColumn], more: Mapping[str, Expression]) -> tuple[OutputColumn, ...]:
    """More columns behind those of the key; one whose name the key has gets the prefix `response_`."""
    return _named(list(key), [], list(more.items()))


def _named(
    key: list[OutputColumn], fields: list[tuple[str, Expression]], flat: list[tuple[str, Expression]]
) -> tuple[OutputColumn, ...]:
    """Key, response properties, then the rest. Names are claimed by the key first, then by the rest: a property whose
    name is taken, whatever its case, gets the prefix `response_`."""
    taken = {c.name.casefold() for c in key}

    def free(name: str) -> str:
        while name.casefold() in taken:
            name = f"response_{name}"
        taken.add(name.casefold())
        return name

    rest = [OutputColumn(free(name), expression) for name, expression in fields]
    return (*key, *(OutputColumn(free(name), expression) for name, expression in flat), *rest)


def _mapped(spec: ResolvedSpec) -> tuple[tuple[OutputColumn, ...], list[Complaint]]:
    """The columns of `destination.columns`, after those columns of the key that the mapping leaves out."""
    mapping = spec.spec.destination.columns or {}
    complaints: list[Complaint] = []
    if not mapping:
        complaints.append((_COLUMNS, "destination.columns names no column; leave it out to have all of them"))
    elif spec.spec.destination.flatten:
        words = "destination.flatten has no effect beside destination.columns: leave one of them out"
        complaints.append((_FLATTEN, words))
    columns, names = [], set()
    for name, text in mapping.items():
        at = (*_COLUMNS, name)
        try:
            columns.append(OutputColumn(name, parse(text, spec)))
        except ExpressionError as exc:
            complaints.append((at, f"destination.columns.{name}: {text!r}: {exc}"))
        if not name.strip():
            complaints.append((at, "destination.columns has a column without a name"))
        if name.casefold() in names:
            words = f"destination.columns.{name} is there twice: upper and lower case are one to a database"
            complaints.append((at, words))
        names.add(name.casefold())
    expressions = [c.expression for c in columns]
    if Key() in expressions:
        return tuple(columns), complaints
    missing = [c for c in spec.key_columns if KeyColumn(c) not in expressions]
    keys = [OutputColumn(c, KeyColumn(c)) for c in missing]
    if not spec.key_columns:
        keys = [OutputColumn("key", Key())]
    for c in keys:
        if c.name.casefold() not in names:
            continue
        taken = next(name for name in mapping if name.casefold() == c.name.casefold())
        words = (
            f"destination.columns.{taken}: the key's own column `{c.name}` is written too; give this one another name, "
            f"or map the key under a name of your choice ({c.name}_key: {'key.' if spec.key_columns else ''}{c.name})"
        )
        complaints.append(((*_COLUMNS, taken), words))
    return (*keys, *columns), complaints

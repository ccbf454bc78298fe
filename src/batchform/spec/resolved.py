"""A spec as the rest of batchform sees it: defaults filled in, templates compiled, schemas read, names canonical."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from msgspec import Struct, field

from batchform.errors import Place
from batchform.spec.model import Backend, Limits, Project, Retry, Spec, SpecSource
from batchform.spec.model_tasks import Task

if TYPE_CHECKING:
    from batchform.spec.attachments import CompiledAttachment
    from batchform.spec.cached import CompiledCache
    from batchform.spec.row_values import RowValue


class Template(Protocol):
    """A compiled prompt template.

    digest: of the closure (own text, includes, imports, in order); columns: the row's columns it can read, None if it
    uses the whole `row`; name: file as the user wrote it, or `<inline>`.
    """

    name: str
    digest: str
    columns: frozenset[str] | None

    def render(self, values: Mapping[str, Any]) -> str:
        """Text for one row. Raises jinja2 errors; rows/ turns them into a SourceError with the row's key."""
        ...

    def where(self, column: str) -> Place:
        """Where the template, or one that it includes, reads a column."""
        ...

    def place(self, jinja_name: str | None, line: int) -> Place:
        """Where a line of one of the closure's templates stands in the files that the user wrote."""
        ...


class Turn(Struct, frozen=True):
    """One turn of the compiled prompt."""

    role: str  # "user" or "model"
    template: Template


class EarlierKey(Struct, frozen=True):
    """The key that rows of a spec had before: columns, or an expression."""

    columns: tuple[str, ...] = ()
    template: Template | None = None


class ResolvedSpec(Struct, frozen=True):
    """Everything needed to plan and run one spec. No I/O happens after this is built, but for the rows.

    request_base: canonical camelCase request without contents and systemInstruction: generationConfig,
    safetySettings, … (`request:` is kept apart in `request_overlay`, merged last);
    response_schema: JSON Schema of answers that was sent, None if free text; output_schema: what answers are validated
    against; output_format: "json", "json_in_text" (JSON that may have something around it), "text" or "vector"; the
    digests are the components of the request that a plan compares;
    parse_digest: of everything that decides how an answer is read, nothing that is sent;
    classes: schemas of Python classes that it names, by name;
    places: where fields stand in the user's files, by dotted name, for errors that show up later.
    """

    spec: Spec
    path: Path
    place: Place
    name: str
    model: str
    backend_name: str
    backend: Backend
    retry: Retry
    limits: Limits
    system: Template | None
    turns: tuple[Turn, ...]
    key_template: Template | None  # None when the key is a list of columns
    request_base: Mapping[str, Any]
    request_overlay: Mapping[str, Any]
    response_schema: Mapping[str, Any] | None
    output_schema: Mapping[str, Any] | None
    output_format: str
    prompt_digest: str
    config_digest: str
    schema_digest: str
    parse_digest: str
    spec_digest: str  # of everything in the spec that can matter to a plan; comments and order do not
    places: Mapping[str, Place] = field(default_factory=dict)
    classes: Mapping[str, dict[str, Any]] = field(default_factory=dict)
    attachments: tuple[CompiledAttachment, ...] = ()
    title: Template | None = None  # of the text that is embedded
    row_values: tuple[RowValue, ...] = ()  # of generationConfig, that each row gives
    cache: CompiledCache | None = None  # how much of its requests is kept at the service
    moved_key: EarlierKey | None = None  # what its key was before

    def at(self, name: str) -> Place:
        """Where a field stands, such as `idempotency.key`, or else what holds it, or else the top of the file."""
        while name not in self.places and "." in name:
            name = name.rpartition(".")[0]
        return self.places.get(name, self.place)

    @property
    def task(self) -> Task:
        """What is made of each row."""
        return self.spec.task

    @property
    def templates(self) -> tuple[Template, ...]:
        """Everything that is rendered for a row's request."""
        own = [t for t in (self.system, self.title) if t is not None]
        return (*(turn.template for turn in self.turns), *own, *(v.template for v in self.row_values))

    @property
    def key_columns(self) -> tuple[str, ...]:
        key = self.spec.idempotency.key
        return () if isinstance(key, str) else tuple(key)

    @property
    def splits(self) -> bool:
        """Whether rows may be asked about in parts: see `rows.pages`."""
        return any(a.split_pages for a in self.attachments)

    @property
    def upstream(self) -> str | None:
        """The spec whose answers are this one's rows; None when they come from elsewhere."""
        return self.spec.source.name if isinstance(self.spec.source, SpecSource) else None


class ResolvedProject(Struct, frozen=True):
    """The project with its environment laid over it."""

    root: Path
    file: Path
    config: Project
    environment: str
    specs: tuple[ResolvedSpec, ...]
    warnings: tuple[Any, ...] = field(default=())  # Diagnostics of severity "warning"
    ledgers: Mapping[str, str] = field(default_factory=dict)  # of each environment and of `default`; "" if not known

"""What a user writes, as models: `batchform.yaml` (Project) and specs (Spec).

Field metadata `wire=True` marks the fields that can cause rows to be sent; a test changes every field and checks that
exactly those do, and only for the rows concerned.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from batchform.spec.backends import Backend, EmulatorBackend, GeminiBackend, VertexBackend
from batchform.spec.bigquery import BigQueryDestination, BigQuerySource
from batchform.spec.fields import (
    NAME_PATTERN,
    Count,
    Duration,
    InlineText,
    Name,
    Strict,
    TemplateRef,
    Wire,
    parse_count,
    parse_duration,
)
from batchform.spec.model_approval import Approval
from batchform.spec.model_attachments import Attachment
from batchform.spec.model_cache import Cache
from batchform.spec.model_chain import SpecSource
from batchform.spec.model_change import Canary, PromptChange
from batchform.spec.model_import import Import
from batchform.spec.model_limits import Limits
from batchform.spec.model_moved import Moved, Removed
from batchform.spec.model_rollout import Require, Stage
from batchform.spec.model_sql import Database, SqlDestination, SqlSource
from batchform.spec.model_tasks import Embed, Image, Task
from batchform.spec.retry import Change, FailureClass, Retry

__all__ = [  # from other modules, for whoever wants all models in one place
    "NAME_PATTERN",
    "Approval",
    "Attachment",
    "Backend",
    "Cache",
    "Canary",
    "Change",
    "Count",
    "Database",
    "Duration",
    "Embed",
    "EmulatorBackend",
    "FailureClass",
    "GeminiBackend",
    "Image",
    "Import",
    "InlineText",
    "Limits",
    "Moved",
    "Name",
    "Removed",
    "Require",
    "Retry",
    "SpecSource",
    "SqlDestination",
    "SqlSource",
    "Stage",
    "Strict",
    "TemplateRef",
    "VertexBackend",
    "Wire",
    "parse_count",
    "parse_duration",
]

# --- pieces ------------------------------------------------------------------------------------------------------


class Defaults(Strict):
    """What a spec need not repeat."""

    backend: str | None = Wire(None, description="Name of the backend that specs use.")
    model: str | None = Wire(None, description="Model that specs use.")
    retry: Retry | None = Field(None, description="Retries of specs that have none of their own.")
    limits: Limits | None = Field(None, description="Limits of each spec that has none of its own.")


class GoogleCloud(Strict):
    """How Google Cloud is reached: Application Default Credentials unless something else is said here."""

    project: str | None = Field(None, description="Project that is asked and billed; default that of the credentials.")
    credentials: str | None = Field(
        None, description="A credentials file outside of the project; default Application Default Credentials."
    )
    impersonate: str | None = Field(None, description="Service account to act as, by its address.")


class Environment(Strict):
    """What differs in an environment (`--env NAME`); laid over the project."""

    ledger: str | None = Wire(None, description="Folder of this environment's recorded state.")
    backends: dict[str, Backend] | None = Wire(None, description="Backends to add, or to replace by name.")
    databases: dict[str, Database] | None = Wire(None, description="Databases to add, or to replace by name.")
    defaults: Defaults | None = Wire(None, description="Defaults to change; the others stay.")
    limits: Limits | None = Field(None, description="Limits to change; the others stay.")
    google_cloud: GoogleCloud | None = Field(None, description="Settings of Google Cloud to change; the others stay.")
    reuse_from: list[Name] | None = Field(None, description="Environments whose answers are taken, in place of others.")


class Project(Strict):
    """`batchform.yaml`: the folder that holds it is the project."""

    version: Literal[1] = Field(description="Version of this file's format.")
    project: Name = Field(description="Name of the project, part of what its jobs are called.")
    specs: list[str] = Field(default_factory=lambda: ["specs/"], description="Spec files or folders of them.")
    ledger: str = Wire(".batchform", description="Folder of the recorded state, here or at gs://.")
    backends: dict[str, Backend] = Wire(default_factory=dict, description="Services that take jobs, by name.")
    databases: dict[str, Database] = Wire(
        default_factory=dict, description="Databases of sources and destinations of type sql, by name."
    )
    defaults: Defaults = Wire(default_factory=Defaults, description="What specs need not repeat.")
    limits: Limits = Field(default_factory=Limits, description="Limits of all specs together.")
    approval: Approval = Field(default_factory=Approval, description="How far approvals lie around their plans.")
    google_cloud: GoogleCloud = Field(
        default_factory=GoogleCloud, description="How Google Cloud is reached, for whatever lies there."
    )
    environments: dict[str, Environment] = Wire(
        default_factory=dict, description="What differs under `--env NAME`, laid over the rest of this file."
    )
    reuse_from: list[Name] = Field(
        default_factory=list,
        description="Environments whose answers to the very same requests are taken, for nothing; the file without an "
        "environment is `default`.",
    )
    allow_paths: list[str] = Field(
        default_factory=list, description="Folders outside the project that specs may read and write."
    )
    allow_hosts: list[str] = Field(
        default_factory=list,
        description="Hosts in a private network from which files may be fetched that rows name with https://.",
    )
    allow_imports: list[str] = Field(
        default_factory=list,
        description="Python modules whose Pydantic classes may be response schemas. Their code runs here.",
    )
    removed: list[Removed] = Field(
        default_factory=list, description="Specs that are no more, and whose rows are given up."
    )
    prices: str | None = Field(
        None, description="A YAML or JSON file of prices and models, laid over the built-in table."
    )


# --- specs -------------------------------------------------------------------------------------------------------


class FileSource(Strict):
    """Rows from files: csv, json (an array), jsonl, parquet."""

    type: Literal["csv", "json", "jsonl", "parquet"] = Wire(description="Kind of the files.")
    path: str | list[str] = Wire(description="File or glob, here or at gs://, or a list of them.")
    where: str | None = Wire(None, description="SQL condition, pushed down to the reader.")
    query: str | None = Wire(None, description="SQL over `source`, in place of all its rows.")
    encoding: str | None = Wire(None, description="csv: text encoding, default utf-8.")
    delimiter: str | None = Wire(None, min_length=1, max_length=4, description="csv: default a comma.")
    quote: str | None = Wire(None, max_length=1, description="csv: default a double quote; empty for none.")


class DatabaseSource(Strict):
    """Rows from a table or query of a SQLite or DuckDB file."""

    type: Literal["sqlite", "duckdb"] = Wire(description="Kind of the database.")
    path: str = Wire(description="The database file.")
    table: str | None = Wire(None, description="Table or view; or give `query`.")
    where: str | None = Wire(None, description="SQL condition on the table's rows.")
    query: str | None = Wire(None, description="SQL of the database itself, in place of `table`.")


class FilesSource(Strict):
    """One row per file: path, name, size, sha256, mime, text (NULL when it is not text)."""

    type: Literal["files"] = Field(description="Whole files as rows.")
    path: str | list[str] = Wire(description="File or glob, here or at gs://, or a list of them.")
    where: str | None = Wire(None, description="SQL condition on those columns.")
    query: str | None = Wire(None, description="SQL over `source`, in place of all its rows.")
    encoding: str | None = Wire(None, description="Encoding of text files, default utf-8.")


Source = Annotated[
    FileSource | DatabaseSource | FilesSource | SqlSource | BigQuerySource | SpecSource, Field(discriminator="type")
]


class Message(Strict):
    """One turn of a conversation: few-shot examples before the row's own question."""

    role: Literal["user", "model"] = Wire(description="Who speaks.")
    content: TemplateRef = Wire(description="What is said: a file in templates/, or {text: …}.")


class Examples(Strict):
    """Few-shot examples from a file: each record becomes a user turn and the model's turn that is wanted."""

    path: str = Wire(description="A .jsonl file, or a .yaml file whose `examples:` is a list; in the project.")
    user: TemplateRef = Wire(
        default_factory=lambda: InlineText(text="{{ user }}"),
        description="The question, from a record's fields: a file in templates/, or {text: …}. Default its `user`.",
    )
    model: TemplateRef = Wire(
        default_factory=lambda: InlineText(text="{{ model if model is string else model | tojson }}"),
        description="The answer, likewise. Default its `model`, as JSON when that is no text.",
    )


class Prompt(Strict):
    """What is asked of each row: `user`, or `messages` that end with a user turn; `system` beside either."""

    system: TemplateRef | None = Wire(None, description="System instruction: a file in templates/, or {text: …}.")
    user: TemplateRef | None = Wire(None, description="User turn: a file in templates/, or {text: …}.")
    examples: Examples | None = Wire(None, description="Few-shot examples from a file, before all other turns.")
    messages: list[Message] | None = Wire(None, description="Turns in order; `user`, if given, comes last.")
    attachments: list[str | Attachment] = Wire(
        default_factory=list,
        description="Files that go with the last user turn: paths or URIs, in Jinja, or what an attachment says more.",
    )


class Output(Strict):
    """How answers are read. Never part of the request: a change is replayed from the archive for nothing."""

    format: Literal["json", "text"] | None = Field(
        None, description="json: parse and validate; text: take as is. Default json when a response schema or "
        "responseMimeType application/json is set."
    )  # fmt: skip
    extract: bool | None = Field(
        None, description="json: take it out of code fences and of text around it. Default: only without a schema, "
        "since a model that is held to one answers with nothing else."
    )  # fmt: skip
    schema_: str | dict[str, Any] | None = Field(
        None, alias="schema", description="JSON Schema to validate against in place of the response schema; not sent."
    )


class FileDestination(Strict):
    """Answers in a file, replaced atomically; a path that ends in / takes one part per delivery."""

    type: Literal["jsonl", "csv", "parquet"] = Field(description="Kind of the file.")
    path: str = Field(
        description="The file, here or at gs://, or a folder (with a / at the end) that takes one part per delivery."
    )
    columns: dict[str, str] | None = Field(None, description="Output column → expression; default: all.")
    flatten: bool = Field(
        default=False, description="One column per property of the response, in place of one JSON column."
    )
    prune: bool = Field(default=False, description="Remove answers whose key left the source.")

    @property
    def place(self) -> str:
        """Where answers go, as the user wrote it."""
        return self.path

    @property
    def takes_parts(self) -> bool:
        """Whether each delivery adds a part, in place of writing all anew."""
        return self.path.endswith("/")


class DatabaseDestination(Strict):
    """Answers in a table of a SQLite or DuckDB file, replaced in one transaction."""

    type: Literal["sqlite", "duckdb"] = Field(description="Kind of the database.")
    path: str = Field(description="The database file; made when it does not exist.")
    table: str = Field(description="The table that holds this spec's answers and nothing else.")
    columns: dict[str, str] | None = Field(None, description="Output column → expression; default: all.")
    flatten: bool = Field(
        default=False, description="One column per property of the response, in place of one JSON column."
    )
    prune: bool = Field(default=False, description="Remove answers whose key left the source.")

    @property
    def place(self) -> str:
        """Where answers go, as the user wrote it."""
        return self.path

    @property
    def takes_parts(self) -> bool:
        """Whether each delivery adds a part, in place of writing all anew."""
        return self.path.endswith("/")


Destination = Annotated[
    FileDestination | DatabaseDestination | SqlDestination | BigQueryDestination, Field(discriminator="type")
]


class Idempotency(Strict):
    """What makes a row the same row, and what is done when it changes."""

    key: list[str] | str = Wire(description='Columns, or a Jinja expression: "{{ tenant }}/{{ id }}".')
    duplicates: Literal["error", "first", "last"] = Wire("error", description="What to do with rows of one key.")
    on_prompt_change: PromptChange = Field(
        "rerun",
        description="What becomes of answered rows when prompt, model, config or schema change. keep: they keep their "
        "answer; ask: they are held until somebody says; canary: the first few are sent, the others held.",
    )
    on_row_change: Literal["rerun", "keep"] = Field(
        "rerun", description="keep: answered rows keep their answer when their columns change."
    )
    reuse_identical: bool = Field(default=False, description="Send identical requests once and share the answer.")


class Ignored(Strict):
    """A rule that does not hold for a spec: a warning that is known, or an error that the service has outgrown."""

    rule: str = Field(pattern=r"^BF\d{3}$", description="Code of the rule; `batchform validate --explain CODE`.")
    reason: str = Field(min_length=1, description="Why it does not hold here, for those who review it.")


class Spec(Strict):
    """One YAML document in specs/: rows, prompt, model, destination."""

    name: Name = Wire(description="Name of the spec: what commands, jobs and the ledger call it.")
    description: str = Field("", description="What it is for.")
    tags: list[Name] = Field(default_factory=list, description="Words to select specs by: `--select tag:nightly`.")
    task: Task = Wire(
        "generate",
        description="generate: an answer to each row's prompt; embed: a vector of each row's text; image: image "
        "files for each row's prompt.",
    )
    source: Source = Wire(description="Where rows come from.")
    prompt: Prompt = Wire(description="What is asked of each row.")
    model: str | None = Wire(None, description="Model id, such as gemini-3.5-flash-lite; default from the project.")
    generation_config: dict[str, Any] = Wire(
        default_factory=dict, description="The API's generationConfig, snake_case or camelCase; "
        "response_schema may be a file in schemas/, or {python: package.module:Class}."
    )  # fmt: skip
    schema_dialect: Literal["auto", "json_schema", "inlined", "openapi"] = Wire(
        "auto",
        description="Form in which the response schema is sent. json_schema: as it is; inlined: without $ref; openapi: "
        "as the API's `responseSchema`; auto: as it is, on Vertex AI as its importer takes it.",
    )
    safety_settings: list[dict[str, Any]] | dict[str, str | bool] = Wire(
        default_factory=list, description="The API's safetySettings, or thresholds by category: `hate_speech: off`."
    )
    tools: list[str | dict[str, Any]] = Wire(
        default_factory=list, description="What the model may use: google_search, url_context, code_execution, or "
        "function_declarations, inline or in files of schemas/."
    )  # fmt: skip
    tool_config: dict[str, Any] = Wire(
        default_factory=dict, description="The API's toolConfig: whether functions must be called, and which."
    )
    labels: dict[str, str] = Wire(default_factory=dict, description="Labels of each request, for Vertex AI's bills.")
    embed: Embed | None = Wire(None, description="task embed: what the vectors are for, and how long they are.")
    image: Image | None = Wire(None, description="task image: what the images are like, and where their files go.")
    cache: Cache | None = Field(None, description="Keep what all rows share at the Gemini API, and price that.")
    request: dict[str, Any] = Wire(
        default_factory=dict, description="Raw JSON merged last into every request, for what has no name yet."
    )
    output: Output = Field(default_factory=Output, description="How answers are read.")
    destination: Destination = Field(description="Where answers go.")
    idempotency: Idempotency = Wire(description="What makes a row the same row.")
    moved: Moved | None = Field(None, description="Earlier name and key of the spec, whose rows are not sent again.")
    import_: list[Import] = Field(
        default_factory=list,
        alias="import",
        description="Results of jobs made elsewhere: they answer rows.",
    )
    retry: Retry | None = Field(None, description="Which failed rows are sent again; default from the project.")
    limits: Limits = Field(default_factory=Limits, description="Limits of this spec alone.")
    rollout: list[Stage] = Field(
        default_factory=list, description="Stages in which an edit reaches its rows; each waits for the one before."
    )
    backend: str | None = Wire(None, description="Name of a backend in batchform.yaml; default from the project.")
    submit: Literal["auto", "file", "inline"] = Field(
        "file",
        description="file: upload a JSONL per job; inline: send rows in the create call; auto: inline when small.",
    )
    preview: Literal["private", "public"] = Field(
        "private", description="public: plan summaries may show the text of sample rows."
    )
    ignore: list[Ignored] = Field(
        default_factory=list, description="Rules that do not hold for this spec, with reasons."
    )
    tolerate_failed: float = Field(0.0, ge=0, le=1, description="Share of failed rows that is not an error (exit 6).")

"""What a spec may not say although each of its fields is well-formed. One function per rule family, in one table."""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Final

from batchform.errors import Diagnostic
from batchform.spec.bigquery import BigQueryDestination, BigQuerySource
from batchform.spec.ignored import lint_ignored
from batchform.spec.lint_backends import lint_backends
from batchform.spec.lint_bigquery import bigquery_identity, lint_bigquery
from batchform.spec.lint_imports import lint_imports
from batchform.spec.lint_moved import lint_moved
from batchform.spec.lint_pages import lint_pages
from batchform.spec.lint_rollout import lint_rollout
from batchform.spec.lint_sql import databases, sql_spec, table_or_query
from batchform.spec.lint_tasks import lint_task
from batchform.spec.model import DatabaseDestination, DatabaseSource, FileSource, FilesSource, Project, Spec
from batchform.spec.model_chain import SpecSource
from batchform.spec.model_sql import SqlDestination, SqlSource
from batchform.spec.remote import address, is_remote
from batchform.spec.wording import shown
from batchform.spec.yaml_source import Document, NodePath

_GLOB = re.compile(r"[*?\[]")
_REMOTE = re.compile(r"^[A-Za-z][A-Za-z0-9+.-]+://")
_FREE_FORM = (
    "generation_config", "request", "safety_settings", "tools", "tool_config", "labels", "output", "description",
)  # fmt: skip


def lint_spec(document: Document, spec: Spec, root: Path, config: Project | None) -> list[Diagnostic]:
    """Complaints of all rules about one spec."""
    folders = [root / p for p in (config.allow_paths if config else ())]
    found = [*_paths(document, spec, root, folders, config), *sql_spec(document, spec, config)]
    if spec.image is not None and spec.image.folder and (problem := _path_problem(spec.image.folder, root, folders)):
        found.append(_path_diagnostic(document, ("image", "folder"), problem))
    for rule in _RULES:
        found += rule(document, spec)
    return found


def lint_project(document: Document, config: Project, root: Path) -> list[Diagnostic]:
    """Complaints about the project's own paths and texts."""
    folders = [root / p for p in config.allow_paths]
    found = [*_empty_texts(document), *lint_backends(document, config, root), *databases(document)]
    problem = _path_problem(config.ledger, root, folders)
    if problem:
        found.append(_path_diagnostic(document, ("ledger",), problem))
    return found


# --- single rules ------------------------------------------------------------------------------------------------


def _empty_texts(document: Document) -> Iterator[Diagnostic]:
    for path in document.values:
        value = document.get(*path)
        if isinstance(value, str) and not value.strip() and path[0] not in _FREE_FORM:
            if path[-1] in ("quote", "delimiter"):
                continue
            name = shown(".".join(map(str, path)))
            hint = "Give it a value, or remove the line."
            yield document.diagnostic("empty-value", f"`{name}` is empty", path, hint=hint)


def _empty(document: Document, spec: Spec) -> Iterator[Diagnostic]:  # noqa: ARG001
    yield from _empty_texts(document)


def _tags(document: Document, spec: Spec) -> Iterator[Diagnostic]:
    for i, tag in enumerate(spec.tags):
        if tag in spec.tags[:i]:
            yield document.diagnostic("duplicate-tag", f"the tag `{tag}` is given twice", ("tags", i))


def _prompt(document: Document, spec: Spec) -> Iterator[Diagnostic]:
    messages = spec.prompt.messages or []
    if spec.prompt.user is None and not messages:
        hint = "Give `user:` a template in templates/, or {text: …}."
        yield document.diagnostic(
            "no-prompt", "the prompt has neither `user` nor `messages`", ("prompt",), on_key=True, hint=hint
        )
    elif spec.prompt.user is None and messages[-1].role != "user":
        at = ("prompt", "messages", len(messages) - 1, "role")
        hint = "Add `user:`, which comes last, or end with a message of role user."
        yield document.diagnostic("last-turn", "the last message must be the user's", at, hint=hint)


def _key(document: Document, spec: Spec) -> Iterator[Diagnostic]:
    key, at = spec.idempotency.key, ("idempotency", "key")
    if isinstance(key, str):
        return
    if not key:
        hint = "Name the columns that identify a row."
        yield document.diagnostic("empty-key", "the key names no column", at, hint=hint)
    for i, column in enumerate(key):
        if column in key[:i]:
            yield document.diagnostic("duplicate-key-column", f"the key names `{shown(column)}` twice", (*at, i))


def _source(document: Document, spec: Spec) -> Iterator[Diagnostic]:
    source = spec.source
    if isinstance(source, DatabaseSource | SqlSource | BigQuerySource):
        yield from table_or_query(document, source)
    elif isinstance(source, FileSource) and source.type != "csv":
        for name in ("encoding", "delimiter", "quote"):
            if getattr(source, name) is not None:
                message = f"`{name}` is for csv sources, not {source.type}"
                yield document.diagnostic("wrong-field", message, ("source", name), on_key=True)
    encoding = getattr(source, "encoding", None)
    if encoding:
        try:
            codecs.lookup(encoding)
        except (LookupError, ValueError):
            message = f"there is no encoding `{shown(encoding)}`"
            hint = "Write utf-8, latin-1, utf-16 or another name that Python knows."
            yield document.diagnostic("wrong-value", message, ("source", "encoding"), hint=hint)
    if getattr(source, "path", None) == []:
        yield document.diagnostic("empty-value", "`source.path` names no file", ("source", "path"))


_RULES: Final[Sequence[Callable[[Document, Spec], Iterator[Diagnostic]]]] = (
    _empty,
    _tags,
    _prompt,
    _key,
    _source,
    lint_bigquery,
    lint_task,
    lint_pages,
    lint_rollout,
    lint_ignored,
    lint_moved,
    lint_imports,
)


# --- paths -------------------------------------------------------------------------------------------------------


def source_paths(spec: Spec) -> list[tuple[NodePath, str]]:
    """Every path or glob of the source, with its node; none of a source that is no file."""
    if isinstance(spec.source, SqlSource | BigQuerySource | SpecSource):
        return []
    path = spec.source.path
    return (
        [(("source", "path"), path)]
        if isinstance(path, str)
        else [(("source", "path", i), p) for i, p in enumerate(path)]
    )


def destination_identity(spec: Spec, root: Path) -> str:
    """Equal for two specs that would write over each other's answers."""
    if isinstance(spec.destination, SqlDestination):
        return f"sql\0{spec.destination.database}\0{spec.destination.table.casefold()}"
    if isinstance(spec.destination, BigQueryDestination):
        return bigquery_identity(spec.name, spec.destination)
    where = place_of(root, spec.destination.path)
    table = spec.destination.table if isinstance(spec.destination, DatabaseDestination) else ""
    return f"{where}\0{table.casefold()}"


def written_file(spec: Spec, root: Path) -> str | None:
    """The file that a delivery writes; of a folder of parts, some file in it. None when it writes no file."""
    if isinstance(spec.destination, SqlDestination | BigQueryDestination):
        return None
    path = spec.destination.path
    return place_of(root, f"{path}part.{spec.destination.type}" if path.endswith("/") else path)


def place_of(root: Path, path: str) -> str:
    """What tells two paths apart: the gs:// path as it is written, or the local one without links and `..`."""
    return path if is_remote(path) else real_path(root / path)


def _paths(
    document: Document, spec: Spec, root: Path, folders: Sequence[Path], config: Project | None
) -> Iterator[Diagnostic]:
    sources = source_paths(spec)
    target = written_file(spec, root)
    for at, path in [*sources, *([(("destination", "path"), spec.destination.place)] if target else ())]:
        problem = _path_problem(path, root, folders)
        if problem:
            yield _path_diagnostic(document, at, problem)
    for part, at in ((spec.source, ("source", "path")), (spec.destination, ("destination", "path"))):
        if isinstance(part, DatabaseSource | DatabaseDestination) and is_remote(part.path):
            message = f"a {part.type} file must be local"
            hint = "Files of type csv, json, jsonl and parquet can be read and written at gs://."
            yield document.diagnostic("remote-path", message, at, hint=hint)
    if target is None:
        return
    if isinstance(spec.destination, DatabaseDestination) and spec.destination.path.endswith("/"):
        message = f"a {spec.destination.type} destination is a file, not a folder"
        yield document.diagnostic("wrong-value", message, ("destination", "path"))
    for _, path in sources:
        if glob_matches(place_of(root, path), target):
            message = f"the destination `{shown(spec.destination.place)}` is one of the files that the source reads"
            hint = "Answers must not become rows: write them elsewhere."
            yield document.diagnostic("destination-is-source", message, ("destination", "path"), hint=hint)
            break
    if config and Path(target).is_relative_to(place_of(root, config.ledger)):
        message = "the destination is inside the ledger, where only batchform writes"
        yield document.diagnostic("destination-in-ledger", message, ("destination", "path"))


def _path_diagnostic(document: Document, at: NodePath, problem: tuple[str, str, str]) -> Diagnostic:
    rule, message, hint = problem
    path = document.shown(document.get(*at), *at)
    return document.diagnostic(rule, message.format(path=f"`{path}`"), at, hint=hint)


def _path_problem(path: str, root: Path, folders: Sequence[Path]) -> tuple[str, str, str] | None:
    """Rule, message with `{path}`, hint: why a path may not be used; None when it may."""
    if not path.strip():
        return None  # said by the rule on empty texts
    if is_remote(path):
        return _remote_problem(path)
    if _REMOTE.match(path):
        return "remote-path", "{path} is neither a local path nor one in Cloud Storage", "Write gs://BUCKET/NAME."
    fixed = _GLOB.split(path, maxsplit=1)[0]
    start = root / (fixed if fixed == path else fixed.rpartition("/")[0] or ("/" if fixed.startswith("/") else ""))
    if ".." in Path(path).parts and fixed != path and ".." in Path(path[len(fixed) :]).parts:
        return "path-outside", "{path} has `..` after a wildcard", "Write the folder out."
    if any(is_inside(start, folder) for folder in (root, *folders)):
        return None
    hint = "Move it into the project, or list its folder under `allow_paths:` in batchform.yaml."
    return "path-outside", "{path} is outside the project", hint


def _remote_problem(path: str) -> tuple[str, str, str] | None:
    try:
        address(path)
    except ValueError as error:
        reason = shown(str(error), 200).replace("{", "{{").replace("}", "}}")
        return "wrong-path", f"{{path}}: {reason}", "Write gs://BUCKET/NAME."
    return None


def is_inside(path: Path, folder: Path) -> bool:
    """Whether a path is in a folder once links are followed."""
    return Path(real_path(path)).is_relative_to(real_path(folder))


def real_path(path: Path) -> str:
    """The path with links followed as far as it exists, and `..` gone."""
    try:
        return str(path.resolve())
    except (OSError, RuntimeError, ValueError):
        return str(path)


def glob_matches(pattern: str, path: str) -> bool:
    """Whether a path is one that a glob names: `*` and `?` within a folder, `**` across folders, `[…]`."""
    return glob_pattern(pattern).fullmatch(path) is not None


@lru_cache(maxsize=1024)
def glob_pattern(pattern: str) -> re.Pattern[str]:
    """What the paths that a glob names match as a whole."""
    regex, at = "", 0
    while at < len(pattern):
        if pattern.startswith("**/", at):
            regex, at = regex + "(?:.*/)?", at + 3
        elif pattern.startswith("**", at):
            regex, at = regex + ".*", at + 2
        elif pattern[at] in "*?":
            regex, at = regex + ("[^/]*" if pattern[at] == "*" else "[^/]"), at + 1
        elif pattern[at] == "[" and (end := pattern.find("]", at + 2)) > 0:
            inner = pattern[at + 1 : end].replace("\\", "\\\\")
            regex, at = regex + f"[{'^' + inner[1:] if inner[0] == '!' else inner}]", end + 1
        else:
            regex, at = regex + re.escape(pattern[at]), at + 1
    try:
        return re.compile(regex, re.DOTALL)
    except re.error:
        return re.compile(re.escape(pattern))


__all__ = [
    "FilesSource",
    "destination_identity",
    "glob_matches",
    "glob_pattern",
    "is_inside",
    "lint_project",
    "lint_spec",
    "place_of",
    "real_path",
    "source_paths",
    "written_file",
]

"""Find and load a project: every file is read and judged, and all complaints come together."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import cache, partial
from pathlib import Path
from typing import Any, Final

from msgspec import Struct

from batchform.errors import Diagnostic, InvalidProject, UsageError, relative_to
from batchform.spec.chains import lint_chains
from batchform.spec.classes import Classes
from batchform.spec.complaints import validate
from batchform.spec.delivery import check_columns
from batchform.spec.environment import overlaid, refuse_references, substitute
from batchform.spec.ignored import without_ignored
from batchform.spec.lint import destination_identity, lint_project, lint_spec
from batchform.spec.lint_destinations import ProjectFiles, lint_destinations
from batchform.spec.lint_environments import ledgers_of, lint_reuse
from batchform.spec.lint_moved import lint_moves, lint_removed
from batchform.spec.lint_texts import lint_templates, lint_texts
from batchform.spec.model import Backend, EmulatorBackend, Project, Prompt, Spec
from batchform.spec.realm import with_environment
from batchform.spec.request_parts import request_parts
from batchform.spec.resolve import ProjectParts, compile_prompt, resolve_spec
from batchform.spec.resolved import ResolvedProject, ResolvedSpec
from batchform.spec.templates import TemplateSet
from batchform.spec.wording import shown, suggestion
from batchform.spec.yaml_source import Document, NodePath, read_yaml

PROJECT_FILE: Final = "batchform.yaml"
IMPLICIT_BACKEND: Final = "local"

_SUFFIXES = (".yaml", ".yml")


def find_project(start: Path) -> Path:
    """The `batchform.yaml` of the folder `start` or of the nearest one above it. Raises UsageError."""
    start = start.absolute()
    for folder in (start, *start.parents):
        file = folder / PROJECT_FILE
        if file.is_file():
            return file
    raise UsageError(
        f"there is no {PROJECT_FILE} in {shown(start, 200)} or in a folder above it",
        hint="Change to your project's folder, name it with -C DIR, or make one with: batchform init",
    )


def load_project(
    file: Path,
    *,
    environment: str | None,
    env: Mapping[str, str],
    recorded: Callable[[Project], Mapping[str, dict[str, Any]]] | None = None,
) -> ResolvedProject:
    """Load a project with all its specs. env: the environment variables that `${ENV:…}` may name; recorded: gives
    schemas of Python classes, by name, that are taken in place of importing them; asked when a spec names a class.

    Raises InvalidProject with every complaint about every file, UsageError for an environment that is not declared.
    """
    root = file.absolute().parent
    document, problems = read_yaml(file, file.name)
    if document is None:
        raise InvalidProject(problems)
    document, found = substitute(document, env, environment)
    problems += found
    merged = overlaid(document, environment)
    config, found = validate(Project, document)
    problems += found
    if config is not None and merged is not document:
        config, found = validate(Project, merged)
        problems += found
    backends = _backends(config, env) if config is not None else None
    templates = TemplateSet(root / "templates")
    from_plan = cache(partial(recorded, config)) if recorded and config else None
    classes = Classes(root, tuple(config.allow_imports) if config else (), from_plan)
    parts = ProjectParts(root, merged, config.defaults if config else None, backends, templates, classes)
    if config is not None:
        config = config.model_copy(update={"backends": backends})
        problems += [*lint_project(merged, config, root), *lint_texts(document)]
        problems += [*_check_default_backend(config, merged), *lint_reuse(document, config)]
    specs = _load_specs(_spec_files(merged, config, root, problems), parts, config, problems)
    problems += lint_removed(merged, config, [s.name for s in specs]) if config is not None else ()
    if config is None or any(p.severity == "error" for p in problems):
        raise InvalidProject(problems)
    ledgers = ledgers_of(document)
    return ResolvedProject(root, file.absolute(), config, environment or "", specs, tuple(problems), ledgers)


def _backends(config: Project, env: Mapping[str, str]) -> dict[str, Backend]:
    declared: Mapping[str, Backend] = config.backends
    if not declared:
        declared = {IMPLICIT_BACKEND: EmulatorBackend.model_validate({"type": "emulator"})}
    return {n: with_environment(b, env) for n, b in declared.items()}


def _check_default_backend(config: Project, document: Document) -> list[Diagnostic]:
    name = config.defaults.backend
    if name is None or name in config.backends:
        return []
    at = ("defaults", "backend")
    hint = suggestion(name if at not in document.env else "", config.backends, noun="Backends")
    return [document.diagnostic("unknown-backend", f"there is no backend `{document.shown(name, *at)}`", at, hint=hint)]


# --- spec files --------------------------------------------------------------------------------------------------


class _SpecFile(Struct, frozen=True):
    path: Path
    shown: str


def _spec_files(document: Document, config: Project | None, root: Path, problems: list[Diagnostic]) -> list[_SpecFile]:
    """The spec files of a project in order, each once."""
    listed = document.get("specs")
    if config is not None:
        entries = config.specs
    else:  # batchform.yaml has errors of its own; its specs are still worth a look
        entries = [e for e in listed if isinstance(e, str)] if isinstance(listed, list) else ["specs/"]
    files: dict[Path, _SpecFile] = {}
    for i, entry in enumerate(entries):
        at: NodePath = ("specs", i) if listed is not None else ()
        written = document.shown(entry, *at)
        found, problem = _entry_files(entry, root)
        if problem is not None:
            problems.append(document.diagnostic(problem[0], problem[1].format(f"`{written}`"), at, hint=problem[2]))
        if entry in entries[:i]:
            problems.append(document.diagnostic("duplicate-entry", f"`{written}` is listed twice", at))
        for path in found:
            files.setdefault(path.resolve(), _SpecFile(path, relative_to(path, root)))
    if not entries:
        hint = "List spec files or folders of them: specs: [specs/]"
        problems.append(document.diagnostic("no-specs", "the project lists no specs", ("specs",), hint=hint))
    return list(files.values())


def _entry_files(entry: str, root: Path) -> tuple[list[Path], tuple[str, str, str] | None]:
    """The files that one entry of `specs:` names, or rule, message with a `{}` and hint."""
    outside = (
        "spec-outside",
        "{} is outside the project",
        "Specs stand in the project's folder, so that it can be copied as one.",
    )
    if not entry.strip() or "\0" in entry or Path(entry).is_absolute() or ".." in Path(entry).parts:
        return [], outside
    path = root / entry
    if any(c in entry for c in "*?["):
        found = sorted(p for p in root.glob(entry) if p.is_file())
    elif path.is_dir():
        found = sorted(p for p in path.rglob("*") if p.suffix in _SUFFIXES and p.is_file() and not _hidden(p, path))
    elif path.exists():
        found = [path]
    else:
        hint = "Make it, or correct `specs:` in batchform.yaml."
        return [], ("spec-not-found", "there is no file or folder {}", hint)
    if not found:
        return [], ("no-specs", "{} has no spec files", "Specs are .yaml files; `batchform init` writes a first one.")
    inside = [p for p in found if p.resolve().is_relative_to(root.resolve())]
    return inside, None if len(inside) == len(found) else outside


def _hidden(path: Path, folder: Path) -> bool:
    return any(part.startswith(".") for part in path.relative_to(folder).parts)


def _load_specs(
    files: list[_SpecFile], parts: ProjectParts, config: Project | None, problems: list[Diagnostic]
) -> tuple[ResolvedSpec, ...]:
    names: dict[str, str] = {}
    targets: dict[str, str] = {}
    loaded: list[tuple[Document, Spec]] = []
    resolved = []
    for file in files:
        document, found = read_yaml(file.path, file.shown)
        problems += found
        if document is None:
            continue
        problems += refuse_references(document)
        texts = list(lint_texts(document))
        spec, found = validate(Spec, document)
        problems += found
        if spec is None:
            problems += [*texts, *_check_pieces(document, parts)]
            continue
        loaded.append((document, spec))
        problems += lint_spec(document, spec, parts.root, config)
        problems += _check_unique(spec, document, parts.root, names, targets)
        result, found = resolve_spec(spec, document, file.path, parts)
        texts += lint_templates(result) if result is not None else ()
        problems += without_ignored([*texts, *found], spec.ignore)
        if result is not None:
            problems += [document.diagnostic("output-columns", text, at) for at, text in check_columns(result)]
            resolved.append(result)
    entries = config.specs if config is not None else ()
    own = ProjectFiles(parts.root, parts.root / PROJECT_FILE, entries, [f.path for f in files])
    problems += lint_destinations(loaded, own)
    problems += [*lint_chains(loaded, resolved), *lint_moves(loaded)]
    return tuple(sorted(resolved, key=lambda s: s.name))


def _check_unique(
    spec: Spec, document: Document, root: Path, names: dict[str, str], targets: dict[str, str]
) -> Iterator[Diagnostic]:
    if spec.name in names:
        message = f"the name `{spec.name}` is already that of {names[spec.name]}"
        hint = "The ledger knows a spec by its name: give one of them another."
        yield document.diagnostic("duplicate-spec", message, ("name",), hint=hint)
    names.setdefault(spec.name, document.path)
    target = destination_identity(spec, root)
    if target in targets:
        message = f"the destination is already that of {targets[target]}"
        yield document.diagnostic(
            "shared-destination", message, ("destination", "path"), hint="Give each spec its own."
        )
    targets.setdefault(target, document.path)


def _check_pieces(document: Document, parts: ProjectParts) -> list[Diagnostic]:
    """Of a spec that has errors, what can still be said about its templates and its generation config."""
    problems: list[Diagnostic] = []
    prompt, _ = validate(Prompt, document, ("prompt",))
    if prompt is not None:
        compile_prompt(prompt, document, parts, problems)
    pieces: dict[str, Any] = {
        n: document.get(n) for n in ("generation_config", "request") if isinstance(document.get(n), dict)
    }
    if pieces:
        request_parts(
            Spec.model_construct(output=Spec.model_fields["output"].get_default(call_default_factory=True), **pieces),
            document,
            parts.classes,
            problems,
        )
    return [p for p in problems if p.severity == "error"]

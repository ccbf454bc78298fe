"""A spec's model made into a ResolvedSpec: defaults filled in, templates compiled, schemas read, digests taken."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec
from msgspec import Struct
from pydantic import BaseModel

from batchform.errors import Diagnostic, InvalidProject, Place
from batchform.spec.classes import Classes
from batchform.spec.digests import component_digests, spec_digest
from batchform.spec.lint import is_inside
from batchform.spec.model import Backend, Defaults, Examples, InlineText, Limits, Prompt, Retry, Spec, TemplateRef
from batchform.spec.request_parts import RequestParts, request_parts
from batchform.spec.resolved import EarlierKey, ResolvedSpec, Turn
from batchform.spec.retry import check_changes
from batchform.spec.row_values import row_values
from batchform.spec.template_errors import explain_render_error
from batchform.spec.templates import CompiledTemplate, TemplateSet
from batchform.spec.wording import shown, suggestion
from batchform.spec.yaml_source import Document, NodePath

if TYPE_CHECKING:
    from batchform.spec.attachments import CompiledAttachment
    from batchform.spec.cached import CompiledCache

M = TypeVar("M", bound=BaseModel)


class ProjectParts(Struct, frozen=True):
    """What all specs of a project share. defaults and backends: None when batchform.yaml could not be read."""

    root: Path
    document: Document
    defaults: Defaults | None
    backends: Mapping[str, Backend] | None
    templates: TemplateSet
    classes: Classes


class CompiledPrompt(Struct, frozen=True):
    """system and turns of a prompt, compiled; title: of a text that is embedded."""

    system: CompiledTemplate | None
    turns: tuple[Turn, ...]
    title: CompiledTemplate | None = None


def resolve_spec(
    spec: Spec, document: Document, path: Path, parts: ProjectParts
) -> tuple[ResolvedSpec | None, list[Diagnostic]]:
    """The resolved spec, None when there are errors; and its complaints, warnings included."""
    problems: list[Diagnostic] = []
    prompt = compile_prompt(spec.prompt, document, parts, problems)
    if prompt is not None and spec.embed is not None and spec.embed.title is not None:
        title = _template(spec.embed.title, document, ("embed", "title"), parts.templates, problems)
        prompt = msgspec.structs.replace(prompt, title=title)
    key = _key_template(spec.idempotency.key, ("idempotency", "key"), document, parts.templates, problems)
    earlier = _earlier_key(spec, document, parts.templates, problems)
    backend_name, backend = _backend(spec, document, parts, problems)
    request = request_parts(spec, document, parts.classes, problems, backend=backend)
    values, found = row_values(spec.generation_config if spec.task != "embed" else {}, document, parts.templates)
    problems += found
    attachments = _attachments(spec, document, parts.templates, request.overlay, problems)
    cache = _cache(spec, document, prompt, attachments, request, problems)
    model = _model(spec, document, parts, problems)
    if any(p.severity == "error" for p in problems) or parts.defaults is None or backend is None or prompt is None:
        return None, problems
    retry = _laid_over(spec.retry, parts.defaults.retry, Retry)
    problems += _ladder(spec, document, parts, retry, request)
    limits = _laid_over(spec.limits, parts.defaults.limits, Limits)
    digests = component_digests(prompt, request, attachments, values)
    return ResolvedSpec(
        spec=spec,
        path=path,
        place=Place(document.path, 1, 1),
        name=spec.name,
        model=model,
        backend_name=backend_name,
        backend=backend,
        retry=retry,
        limits=limits,
        system=prompt.system,
        turns=prompt.turns,
        key_template=key,
        request_base=request.base,
        request_overlay=request.overlay,
        response_schema=request.response_schema,
        output_schema=request.output_schema,
        output_format=request.output_format,
        classes=request.classes,
        **digests,
        spec_digest=spec_digest(spec, model, backend_name, backend, retry, limits, attachments, digests, cache),
        places=_places(document, spec, parts),
        attachments=attachments,
        title=prompt.title,
        row_values=values,
        cache=cache,
        moved_key=earlier,
    ), problems


def _ladder(
    spec: Spec, document: Document, parts: ProjectParts, retry: Retry, request: RequestParts
) -> Iterator[Diagnostic]:
    """What the retry ladder of a spec, or the project's, cannot mean."""
    own = spec.retry is not None and "on" in spec.retry.model_fields_set
    where, base = (document, ("retry", "on")) if own else (parts.document, ("defaults", "retry", "on"))
    if spec.task == "embed":
        if own and retry.changes:
            yield document.diagnostic("retry-change", "another attempt at a vector has nothing to change", base)
        return
    over = request.overlay.get("generationConfig")
    config = {**request.base.get("generationConfig", {}), **(over if isinstance(over, dict) else {})}
    for path, message, hint in check_changes(retry, config):
        yield where.diagnostic("retry-change", message, (*base, *path), hint=hint)
    for name, change in retry.changes.items():
        if change.model is not None and canonical_model(change.model) is None:
            message = f"`{shown(change.model)}` is not a model id"
            yield where.diagnostic("wrong-value", message, (*base, name, "model"))


# --- templates ---------------------------------------------------------------------------------------------------


def compile_prompt(
    prompt: Prompt, document: Document, parts: ProjectParts, problems: list[Diagnostic]
) -> CompiledPrompt | None:
    """Compile every template of a prompt. Complaints go to `problems`; None if there are any."""
    before, templates = len(problems), parts.templates
    examples = _examples(prompt.examples, document, parts, problems) if prompt.examples else ()
    system = _template(prompt.system, document, ("prompt", "system"), templates, problems)
    turns = []
    for i, message in enumerate(prompt.messages or ()):
        at = ("prompt", "messages", i, "content")
        turns.append((message.role, _template(message.content, document, at, templates, problems)))
    if prompt.user is not None:
        turns.append(("user", _template(prompt.user, document, ("prompt", "user"), templates, problems)))
    if len(problems) > before:
        return None
    return CompiledPrompt(system, (*examples, *(Turn(role, t) for role, t in turns if t is not None)))


def _examples(
    examples: Examples, document: Document, parts: ProjectParts, problems: list[Diagnostic]
) -> tuple[Turn, ...]:
    """The turns of few-shot examples."""
    from batchform.spec.examples import example_turns

    at: NodePath = ("prompt", "examples")
    user = _template(examples.user, document, (*at, "user"), parts.templates, problems)
    model = _template(examples.model, document, (*at, "model"), parts.templates, problems)
    if not is_inside(parts.root / examples.path, parts.root):
        message = f"`{shown(examples.path)}` is outside the project"
        hint = "Examples are part of the prompt: keep them with the project."
        problems.append(document.diagnostic("path-outside", message, (*at, "path"), hint=hint))
    elif user is not None and model is not None:
        turns, found = example_turns(parts.root / examples.path, examples.path, user=user, model=model)
        problems += found
        return turns
    return ()


def _attachments(
    spec: Spec, document: Document, templates: TemplateSet, overlay: Mapping[str, Any], problems: list[Diagnostic]
) -> tuple[CompiledAttachment, ...]:
    if not spec.prompt.attachments:
        return ()
    from batchform.spec.attachments import check_conflicts, compile_attachments

    check_conflicts(document, overlay, problems)
    return compile_attachments(spec.prompt, document, templates, problems)


def _cache(
    spec: Spec,
    document: Document,
    prompt: CompiledPrompt | None,
    attachments: tuple[CompiledAttachment, ...],
    request: RequestParts,
    problems: list[Diagnostic],
) -> CompiledCache | None:
    if spec.cache is None or prompt is None:
        return None
    from batchform.spec.cached import compile_cache

    return compile_cache(
        spec, document, system=prompt.system, turns=prompt.turns, attachments=attachments, base=request.base,
        overlay=request.overlay, problems=problems,
    )  # fmt: skip


def _template(
    ref: TemplateRef | None, document: Document, at: NodePath, templates: TemplateSet, problems: list[Diagnostic]
) -> CompiledTemplate | None:
    if ref is None:
        return None
    try:
        if isinstance(ref, InlineText):
            at = (*at, "text")
            exact = document.style(*at) == "|"
            template = templates.inline(ref.text, place=document.place(*at), exact_lines=exact)
        else:
            template = templates.file(ref, place=document.place(*at))
    except InvalidProject as exc:
        problems.extend(exc.diagnostics)
        return None
    if template.constant:
        _try_constant(template, document, at, problems)
    return template


def _try_constant(template: CompiledTemplate, document: Document, at: NodePath, problems: list[Diagnostic]) -> None:
    """A template that reads no column is rendered now: what is wrong with it is wrong with every row."""
    try:
        text = template.render({})
    except Exception as exc:  # noqa: BLE001  (whatever a template can raise)
        error = explain_render_error(template, exc, "")
        problems.append(Diagnostic("template-fails", error.message, error.place or document.place(*at), error.hint))
        return
    if not text.strip():
        problems.append(document.diagnostic("empty-prompt", f"{template.name} renders to nothing", at))


def _earlier_key(
    spec: Spec, document: Document, templates: TemplateSet, problems: list[Diagnostic]
) -> EarlierKey | None:
    key = spec.moved.key if spec.moved else None
    if key is None:
        return None
    template = _key_template(key, ("moved", "key"), document, templates, problems)
    return EarlierKey(() if isinstance(key, str) else tuple(key), template)


def _key_template(
    key: list[str] | str, at: NodePath, document: Document, templates: TemplateSet, problems: list[Diagnostic]
) -> CompiledTemplate | None:
    if not isinstance(key, str) or not key.strip():
        return None
    try:
        template = templates.inline(key, place=document.place(*at), exact_lines=document.style(*at) == "|")
    except InvalidProject as exc:
        problems.extend(exc.diagnostics)
        return None
    if template.constant:
        hint = f"To use the column: key: [{shown(key)}]" if key.replace("_", "a").isalnum() else 'Write "{{ column }}".'
        message = "the key expression reads no column, so that all rows would have one key"
        problems.append(document.diagnostic("constant-key", message, at, hint=hint))
    return template


# --- project -----------------------------------------------------------------------------------------------------


def _backend(
    spec: Spec, document: Document, parts: ProjectParts, problems: list[Diagnostic]
) -> tuple[str, Backend | None]:
    if parts.backends is None or parts.defaults is None:
        return "", None
    known = list(parts.backends)
    name = spec.backend or parts.defaults.backend or (known[0] if len(known) == 1 else None)
    if name is None:
        hint = f"Set `backend:`, or `defaults: {{backend: …}}` in batchform.yaml. Backends: {', '.join(known)}."
        problems.append(document.diagnostic("missing-backend", f"the spec {spec.name} has no backend", (), hint=hint))
        return "", None
    backend = parts.backends.get(name)
    if backend is None and spec.backend is not None:  # the project's own default is judged where it stands
        message = f"there is no backend `{shown(name)}` in {parts.document.path}"
        problems.append(
            document.diagnostic("unknown-backend", message, ("backend",), hint=suggestion(name, known, noun="Backends"))
        )
    return name, backend


def _model(spec: Spec, document: Document, parts: ProjectParts, problems: list[Diagnostic]) -> str:
    name = spec.model or (parts.defaults.model if parts.defaults else None)
    if name is None:
        if parts.defaults is not None:
            hint = "Set `model:`, such as gemini-3.5-flash-lite, or `defaults: {model: …}` in batchform.yaml."
            problems.append(document.diagnostic("missing-model", f"the spec {spec.name} has no model", (), hint=hint))
        return ""
    canonical = canonical_model(name)
    if canonical is None:
        where, at = (document, ("model",)) if spec.model else (parts.document, ("defaults", "model"))
        message = f"`{where.shown(name, *at)}` is not a model id"
        problem = where.diagnostic(
            "wrong-value", message, at, hint="Write the id alone, such as gemini-3.5-flash-lite."
        )
        if problem not in problems:
            problems.append(problem)
    return canonical or ""


def canonical_model(name: str) -> str | None:
    """`models/x` and `publishers/google/models/x` are `x`; None if it cannot be a model id."""
    bare = name.strip().removeprefix("publishers/google/").removeprefix("models/")
    kept = bare.removeprefix("tunedModels/")
    fits = kept and kept[0].isalnum() and all(c.isascii() and (c.isalnum() or c in "._-@") for c in kept)
    return bare if fits and ".." not in kept else None


def _places(document: Document, spec: Spec, parts: ProjectParts) -> dict[str, Place]:
    """Where each field of a spec stands, by dotted name; model and backend perhaps in batchform.yaml."""
    places = {".".join(map(str, path)): document.place(*path) for path in document.values if path}
    for name in ("model", "backend"):
        if getattr(spec, name) is None and parts.document.get("defaults", name) is not None:
            places[name] = parts.document.place("defaults", name)
    return places


def _laid_over(own: M | None, default: M | None, kind: type[M]) -> M:
    """The default's fields with those that the spec itself sets laid over."""
    values = {n: getattr(m, n) for m in (default, own) if m is not None for n in m.model_fields_set}
    return kind.model_construct(**{**kind().model_dump(), **values})

"""The cache of a spec, compiled: how much of each request all rows share."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from msgspec import Struct

from batchform.errors import Diagnostic
from batchform.spec.attachments import CompiledAttachment
from batchform.spec.model import Attachment, Spec
from batchform.spec.model_cache import Cache
from batchform.spec.resolved import Turn
from batchform.spec.templates import CompiledTemplate
from batchform.spec.wording import shown, suggestion
from batchform.spec.yaml_source import Document

_MOVED = ("systemInstruction", "tools", "toolConfig", "contents", "cachedContent")


class CompiledCache(Struct, frozen=True):
    """turns: of each request, from its beginning, that are cached whole; parts: of the turn after them, likewise; ttl:
    seconds that it is kept after its last use, None: as long as jobs name it."""

    turns: int
    parts: int = 0
    ttl: float | None = None


def compile_cache(
    spec: Spec,
    document: Document,
    *,
    system: CompiledTemplate | None,
    turns: Sequence[Turn],
    attachments: Sequence[CompiledAttachment],
    base: Mapping[str, Any],
    overlay: Mapping[str, Any],
    problems: list[Diagnostic],
) -> CompiledCache | None:
    """What is cached; None without `cache:`. base, overlay: of the request. Complaints go to `problems`."""
    cache = spec.cache
    if cache is None:
        return None
    found = [*_refused(spec, cache, document, system, base, overlay)]
    fixed = 0
    while fixed < len(turns) - 1 and _constant(turns[fixed].template):
        fixed += 1
    whole = fixed == len(turns) - 1
    found += _attached(spec, cache, document, attachments, whole=whole)
    held = system is not None or fixed or cache.attachments or any(name in base for name in ("tools", "toolConfig"))
    if not found and not held:
        hint = "Leave `cache` out, or move what all rows share into `prompt.system`."
        message = "there is nothing to cache: no system instruction, no tools, and no turn that is the same for all"
        found.append(document.diagnostic("cache-not-shared", message, ("cache",), hint=hint))
    problems += found
    return None if found else CompiledCache(fixed, len(cache.attachments), cache.ttl)


def _constant(template: Any) -> bool:
    return template.columns is not None and not template.columns


def _refused(
    spec: Spec,
    cache: Cache,
    document: Document,
    system: CompiledTemplate | None,
    base: Mapping[str, Any],
    overlay: Mapping[str, Any],
) -> Iterator[Diagnostic]:
    if spec.task == "embed":
        message = "`task: embed` has no cache: each request is one text"
        yield document.diagnostic("conflicting-fields", message, ("cache",), on_key=True)
    for name in (n for n in _MOVED if n in overlay):
        message = f"`request.{name}` replaces what `cache` would hold"
        hint = "Say it with the fields of the spec, or leave `cache` out."
        yield document.diagnostic("conflicting-fields", message, ("cache",), hint=hint, on_key=True)
    if system is not None and not _constant(system):
        read = ", ".join(f"`{shown(c)}`" for c in sorted(system.columns or ())) or "the whole row"
        message = f"{system.name} reads {read}: each row has a system instruction of its own, and a cache holds one"
        hint = "Say what differs by row in the user turn, or leave `cache` out."
        yield document.diagnostic("cache-not-shared", message, ("prompt", "system"), hint=hint)
    beside = [n for n, there in (("system instruction", system), ("tools", base.get("tools"))) if there]
    if beside and not cache.system:
        message = f"a request that names a cache takes no {' and no '.join(beside)} beside it"
        hint = "Leave `system: false` out: they are then part of the cache."
        yield document.diagnostic("cache-not-shared", message, ("cache", "system"), hint=hint)


def _attached(
    spec: Spec, cache: Cache, document: Document, attachments: Sequence[CompiledAttachment], *, whole: bool
) -> Iterator[Diagnostic]:
    """Complaints about `cache.attachments`. whole: whether all turns before the files are cached."""
    written = [a if isinstance(a, str) else _written(a) for a in spec.prompt.attachments]
    leading = [w for w, a in zip(written, attachments, strict=False) if a.position == "before"]
    for i, named in enumerate(cache.attachments):
        at = ("cache", "attachments", i)
        if named not in written:
            hint = suggestion(named, [w for w in written if w], noun="They are")
            message = f"`prompt.attachments` has no `{shown(named)}`"
            yield document.diagnostic("cache-not-shared", message, at, hint=hint)
            continue
        one = attachments[written.index(named)] if written.index(named) < len(attachments) else None
        if one is None:
            continue
        if one.kind != "path" or one.template is None or not _constant(one.template) or one.optional:
            message = f"`{shown(named)}` is not one and the same file for all rows"
            hint = "A cache holds files that are named by `path`, without columns, and not `optional`."
            yield document.diagnostic("cache-not-shared", message, at, hint=hint)
        elif leading[i : i + 1] != [named] or not whole:
            message = f"`{shown(named)}` is not at the beginning of what all rows share"
            hint = "List cached files first, before the text, and in this order; turns before them read no column."
            yield document.diagnostic("cache-not-shared", message, at, hint=hint)


def _written(attachment: Attachment) -> str:
    return attachment.path or attachment.pattern or attachment.column or ""

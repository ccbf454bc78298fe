"""What a spec may not say for its task: fields that the request of an embedding has no place for."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from batchform.errors import Diagnostic
from batchform.spec.generation import SCHEMA_FIELDS, camel
from batchform.spec.image import images_folder
from batchform.spec.model import Spec
from batchform.spec.model_tasks import TITLED
from batchform.spec.wording import shown
from batchform.spec.yaml_source import Document, NodePath

_EMBED: Final = frozenset({
    "name", "description", "tags", "task", "source", "prompt", "model", "embed", "request", "destination",
    "idempotency", "moved", "import", "retry", "limits", "backend", "submit", "preview", "ignore", "rollout",
    "tolerate_failed",
})  # fmt: skip
"""Fields of a spec that mean something with `task: embed`. Whatever else there is speaks of generated answers."""
_EMBED_HINT: Final = "An embedding is made of one text: remove the line, or use `task: generate`."


def lint_task(document: Document, spec: Spec) -> Iterator[Diagnostic]:
    """Complaints about fields that do not go with `task`."""
    if spec.task == "embed":
        yield from _embed(document, spec)
    if spec.task == "image":
        yield from _image(document, spec)
    elif spec.image is not None:
        yield _wrong(document, ("image",), "`image` is for `task: image`", "Add `task: image`, or remove the section.")
    if spec.task != "embed" and spec.embed is not None:
        message, hint = "`embed` is for `task: embed`", "Add `task: embed`, or remove the section."
        yield _wrong(document, ("embed",), message, hint)


def _embed(document: Document, spec: Spec) -> Iterator[Diagnostic]:
    for name in document.get() or ():
        if name in Spec.model_fields and name not in _EMBED:
            yield _wrong(document, (name,), f"`{shown(name)}` means nothing with `task: embed`", _EMBED_HINT)
    for name in document.get("prompt") or ():
        if name != "user":
            message = f"`prompt.{shown(name)}` means nothing with `task: embed`: `prompt.user` is what is embedded"
            yield _wrong(document, ("prompt", name), message, _EMBED_HINT)
    if spec.submit != "file":
        message = f"embeddings go as files: inline requests bear no keys, and `submit: {spec.submit}` may use them"
        yield _wrong(document, ("submit",), message, "Write `submit: file`, or leave it out.")
    embed = spec.embed
    if embed is not None and embed.title is not None and embed.task_type != TITLED:
        message = f"`title` is for task_type {TITLED}"
        yield _wrong(document, ("embed", "title"), message, f"Write `task_type: {TITLED}`, or leave the title out.")


def _image(document: Document, spec: Spec) -> Iterator[Diagnostic]:
    for name in ("output", "schema_dialect"):
        if document.get(name) is not None:
            message = f"`{name}` is about answers in text, and `task: image` makes files"
            yield _wrong(document, (name,), message, "Remove the line, or use `task: generate`.")
    for name, value in spec.generation_config.items():
        at = ("generation_config", name)
        if camel(name) in (*SCHEMA_FIELDS, "responseMimeType"):
            message = f"`{shown(name)}` is about answers in text, and `task: image` makes files"
            yield _wrong(document, at, message, "Remove the line, or use `task: generate`.")
        if camel(name) == "responseModalities" and isinstance(value, list) and "IMAGE" not in map(_upper, value):
            yield _wrong(
                document, at, "`task: image` needs the modality IMAGE", "Leave the line out: both are asked for."
            )
    if spec.submit != "file":
        message = f"results of images are too large for inline jobs, and `submit: {spec.submit}` may make such"
        yield _wrong(document, ("submit",), message, "Write `submit: file`, or leave it out.")
    folder = images_folder(spec)
    if folder is None:
        message = "image files go to a folder, and nothing says to which"
        hint = "Write `image: {folder: results/images}`, or one at gs://."
        yield _wrong(document, ("destination",), message, hint)


def _upper(value: object) -> str:
    return str(value).upper()


def _wrong(document: Document, at: NodePath, message: str, hint: str) -> Diagnostic:
    return document.diagnostic("not-for-task", message, at, on_key=True, hint=hint)

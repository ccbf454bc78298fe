"""Digests of a spec: of each component that explains a row's action, and of all that can matter to a plan."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from batchform.canon import digest_of
from batchform.spec.image import images_folder
from batchform.spec.model import Backend, Limits, Retry, Spec

if TYPE_CHECKING:
    from batchform.spec.attachments import CompiledAttachment
    from batchform.spec.cached import CompiledCache
    from batchform.spec.request_parts import RequestParts
    from batchform.spec.resolve import CompiledPrompt
    from batchform.spec.row_values import RowValue

_PACE = {"settle", "poll", "timeout", "cleanup", "job_seconds"}


def component_digests(
    prompt: CompiledPrompt, request: RequestParts, attachments: Sequence[CompiledAttachment], values: Sequence[RowValue]
) -> dict[str, str]:
    """Digests of prompt, configuration, schema and reading. What a spec does not use is in none of them, so that they
    stay the same when a new batchform knows more."""
    config = dict(request.base.get("generationConfig", {}))
    schema = config.pop("responseJsonSchema", None)
    if "responseSchema" in config:
        schema = {"responseSchema": config.pop("responseSchema")}
    base = {**request.base, "generationConfig": config}
    turns = [[turn.role, turn.template.digest] for turn in prompt.turns]
    said: dict[str, Any] = {"system": prompt.system.digest if prompt.system else None, "turns": turns}
    if attachments:
        said["attachments"] = [a.digest for a in attachments]
    if prompt.title is not None:
        said["title"] = prompt.title.digest
    configured: dict[str, Any] = {"base": base, "overlay": request.overlay}
    if values:
        configured["by_row"] = [[*v.path, v.template.digest] for v in values]
    return {
        "prompt_digest": digest_of("prompt", said),
        "config_digest": digest_of("config", configured),
        "schema_digest": digest_of("schema", schema),
        "parse_digest": digest_of("parse", {"format": request.output_format, "schema": request.output_schema}),
    }


def _ladder(retry: Retry) -> dict[str, Any]:
    """What attempts change, in the order as written, which decides; nothing where they change nothing."""
    changes = [[name, change.model_dump(mode="json", exclude_none=True)] for name, change in retry.changes.items()]
    return {"changes": changes} if changes else {}


def _of_task(spec: Spec) -> dict[str, Any]:
    """Nothing for specs that generate text, whose digests are older than tasks."""
    if spec.task == "generate":
        return {}
    return {"task": spec.task, **({"images": images_folder(spec)} if spec.task == "image" else {})}


def _of_rollout(spec: Spec) -> dict[str, Any]:
    return {"rollout": [s.model_dump(mode="json") for s in spec.rollout]} if spec.rollout else {}


def spec_digest(
    spec: Spec,
    model: str,
    backend_name: str,
    backend: Backend,
    retry: Retry,
    limits: Limits,
    attachments: Sequence[CompiledAttachment],
    digests: Mapping[str, str],
    cache: CompiledCache | None = None,
) -> str:
    """Of everything that can matter to a plan: not the description, tags, or who may see a preview."""
    kept = {"name", "source", "destination", "idempotency", "submit", "tolerate_failed"}
    carried = {"attachments": [_carried(a) for a in attachments]} if attachments else {}
    return digest_of(
        "spec",
        {
            **spec.model_dump(mode="json", include=kept),
            "model": model,
            **_of_task(spec),
            "backend": [backend_name, backend.model_dump(mode="json", exclude=_PACE)],
            "retry": {**retry.model_dump(mode="json"), "on": sorted(retry.on), **_ladder(retry)},
            "limits": limits.told(),
            **carried,
            **_of_rollout(spec),
            **({"cache": [cache.turns, cache.parts, cache.ttl]} if cache else {}),
            **({"import": [i.model_dump(mode="json") for i in spec.import_]} if spec.import_ else {}),
            **({"moved": spec.moved.model_dump(mode="json")} if spec.moved else {}),
            **digests,
        },
    )


def _carried(attachment: CompiledAttachment) -> list[object]:
    said: list[object] = [attachment.optional, attachment.inline_up_to]
    return [*said, attachment.split_pages] if attachment.split_pages else said

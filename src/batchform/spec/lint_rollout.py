"""Rollouts that would hold rows for ever, or hold none."""

from __future__ import annotations

from collections.abc import Iterator

from batchform.errors import Diagnostic
from batchform.spec.model import Spec
from batchform.spec.model_change import Canary
from batchform.spec.model_rollout import stage_problems
from batchform.spec.yaml_source import Document


def lint_rollout(document: Document, spec: Spec) -> Iterator[Diagnostic]:
    """Complaints about the stages of a rollout."""
    wrong = list(stage_problems(spec.rollout))
    for path, message, hint in wrong:
        yield document.diagnostic("rollout-stages", message, ("rollout", *path), hint=hint)
    if wrong or not spec.rollout:
        return
    last = len(spec.rollout) - 1
    if last == 0:
        message, hint = "a single stage releases all rows at once", "Put a smaller one before it, or remove `rollout`."
        yield document.diagnostic("rollout-idle", message, ("rollout",), hint=hint, severity="warning")
    elif spec.rollout[last].require is not None:
        message, hint = "nothing comes after the last stage: its `require` holds no row back", "Remove the line."
        yield document.diagnostic(
            "rollout-idle", message, ("rollout", last, "require"), hint=hint, severity="warning"
        )  # fmt: skip
    if not _judges_answers(document, spec):
        for i, stage in enumerate(spec.rollout):
            if stage.require is not None and stage.require.valid is not None:
                message = "answers of this spec are held to no schema and read as text, so all of them are valid"
                hint = "Add a response schema, or require `answered` alone."
                at = ("rollout", i, "require", "valid")
                yield document.diagnostic("rollout-idle", message, at, hint=hint, severity="warning")
    if isinstance(spec.idempotency.on_prompt_change, Canary):
        message = "a canary holds answered rows beside the stages of the rollout, and no gate releases them"
        hint = "Write `on_prompt_change: rerun`: the first stage is the canary."
        said = ("idempotency", "on_prompt_change")
        yield document.diagnostic("rollout-idle", message, said, hint=hint, severity="warning")


def _judges_answers(document: Document, spec: Spec) -> bool:
    """Whether an answer can be invalid: it must be JSON, or fit a schema."""
    if spec.task != "generate" or spec.output.format == "text":
        return False
    config = {**spec.generation_config, **dict(document.get("request", "generationConfig") or {})}
    names = {name.replace("_", "").lower() for name in config}
    asked = {"responseschema", "responsejsonschema", "responsemimetype"} & names
    return bool(asked or spec.output.format == "json" or spec.output.schema_ is not None)

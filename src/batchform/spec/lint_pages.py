"""What a spec may not say beside `split_pages`: rows in parts have several answers, and keys of their own."""

from __future__ import annotations

from collections.abc import Iterator

from batchform.errors import Diagnostic
from batchform.spec.model import Spec
from batchform.spec.model_attachments import Attachment
from batchform.spec.yaml_source import Document, NodePath


def lint_pages(document: Document, spec: Spec) -> Iterator[Diagnostic]:
    """Complaints about fields that do not go with PDFs that are asked about in parts."""
    split = [a for a in spec.prompt.attachments if isinstance(a, Attachment) and a.split_pages]
    if not split:
        return
    if spec.task != "generate":
        message = f"`task: {spec.task}` has one answer for each row, and a PDF in parts has several"
        yield _wrong(document, ("task",), message, "Leave `split_pages` out, or cut the files before.")
    if spec.destination.flatten:
        message = "destination.flatten makes columns of one answer, and a PDF in parts has several"
        hint = "Leave it out: `response` is the list of them. Or map columns: each is the list of what the parts say."
        yield _wrong(document, ("destination", "flatten"), message, hint)
    if spec.idempotency.duplicates != "error":
        message = f"idempotency.duplicates: {spec.idempotency.duplicates} picks one of several rows, not of their parts"
        yield _wrong(document, ("idempotency", "duplicates"), message, "Leave it out, and pick rows with source.query.")
    if spec.idempotency.on_row_change == "keep":
        message = (
            "idempotency.on_row_change: keep keeps the answer of a changed row, and the parts of a changed PDF are new"
        )
        hint = "Leave it out: a file that changes is asked about anew."
        yield _wrong(document, ("idempotency", "on_row_change"), message, hint)
    named = {name for a in split for name in (a.path, a.pattern, a.column) if name}
    for number, name in enumerate(spec.cache.attachments if spec.cache else ()):
        if name in named:
            message = "a cached file is the same for all requests, and each part of a PDF is another"
            yield _wrong(document, ("cache", "attachments", number), message, "Leave one of the two out.")


def _wrong(document: Document, at: NodePath, message: str, hint: str) -> Diagnostic:
    return document.diagnostic("parts-refused", message, at, on_key=True, hint=hint)

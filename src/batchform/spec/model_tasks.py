"""What a spec asks for other than text, as models: the `embed` section."""

from __future__ import annotations

from typing import Literal

from batchform.spec.fields import Strict, TemplateRef, Wire

Task = Literal["generate", "embed"]
"""What is made of each row."""

TITLED = "RETRIEVAL_DOCUMENT"
"""The one task type that takes a title."""

EmbedTask = Literal[
    "RETRIEVAL_QUERY", "RETRIEVAL_DOCUMENT", "SEMANTIC_SIMILARITY", "CLASSIFICATION", "CLUSTERING",
    "QUESTION_ANSWERING", "FACT_VERIFICATION", "CODE_RETRIEVAL_QUERY",
]  # fmt: skip


class Embed(Strict):
    """What the vectors of `task: embed` are for, and how long they are."""

    task_type: EmbedTask | None = Wire(None, description="What the vectors are for; gemini-embedding-001 heeds it.")
    dimensions: int | None = Wire(
        None,
        ge=1,
        description="Numbers in each vector; default the model's own. Others are invalid.",
    )
    title: TemplateRef | None = Wire(
        None, description="Title of the row's text, for RETRIEVAL_DOCUMENT: a file in templates/, or {text: …}."
    )

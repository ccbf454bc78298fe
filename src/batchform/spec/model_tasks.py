"""What a spec asks for other than text, as models: the sections `embed` and `image`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from batchform.spec.fields import Strict, TemplateRef, Wire

Task = Literal["generate", "embed", "image"]
"""What is made of each row."""

ASPECT_RATIO = r"^[1-9]\d?:[1-9]\d?$"
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


class Image(Strict):
    """What the images of `task: image` are like, and where their files go."""

    aspect_ratio: str | None = Wire(
        None, pattern=ASPECT_RATIO, description="Width to height, such as 16:9; default the model's own."
    )
    size: Literal["512", "1K", "2K", "4K"] | None = Wire(None, description="Size of each image; default 1K.")
    folder: str | None = Field(
        None, min_length=1, description="Folder of the files; default beside the destination: results/x.csv → "
        "results/x-images. Needed where the destination is a table."
    )  # fmt: skip

"""Attachments of a prompt, as a user writes them: files that go with each row's question."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from batchform.spec.fields import Count, Strict, Wire

MIME_TYPE = r"^[a-z0-9.+-]+/[a-zA-Z0-9.+-]+$"


class Attachment(Strict):
    """Files of each row, beside the text: images, PDF, audio, video. Exactly one of `path`, `pattern` and `column`."""

    path: str | None = Wire(
        None, description='Jinja that gives one file: "scans/{{ id }}.pdf", here, at gs:// or https://.'
    )
    pattern: str | None = Wire(
        None, description='Jinja that gives a glob in the project: "scans/{{ id }}-*.png". Its files, by name.'
    )
    column: str | None = Wire(None, description="A column that holds a path or URI, or a list of them.")
    mime_type: str | None = Wire(
        None,
        pattern=MIME_TYPE,
        description="MIME type of the files; default by the ending of their names.",
    )
    optional: bool = Field(
        default=False,
        description="A row may have none: NULL, an empty text, or a pattern without files. "
        "A file that is named must be there all the same.",
    )
    position: Literal["before", "after"] = Wire("before", description="Before or after the text of the user turn.")
    split_pages: int | None = Wire(
        None,
        ge=1,
        le=1000,
        description="Pages of a PDF in one request: a longer one is asked about in parts, whose answers are delivered "
        "as one row.",
    )
    inline_up_to: Count | None = Field(
        None,
        description="Bytes up to which a file goes within the request, in place of an upload. "
        "Default 16k on the Gemini API, nothing on Vertex AI.",
    )

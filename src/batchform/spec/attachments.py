"""The attachments of a prompt, compiled: expressions over a row's columns that give paths and URIs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal

from msgspec import Struct

from batchform.canon import digest_of
from batchform.errors import Diagnostic, InvalidProject
from batchform.spec.model import Prompt
from batchform.spec.model_attachments import Attachment
from batchform.spec.resolved import Template
from batchform.spec.templates import TemplateSet, simple_parts
from batchform.spec.wording import shown
from batchform.spec.yaml_source import Document, NodePath

KINDS: Final = ("path", "pattern", "column")


class CompiledAttachment(Struct, frozen=True):
    """One entry of `prompt.attachments`. template: of a path or a pattern; at: where it stands in the spec.

    split_pages: pages of a PDF that one request holds; None for all of them.
    inline_up_to: bytes up to which a file goes within the request; None for what the backend takes well.
    """

    kind: str
    at: str
    template: Template | None = None
    column: str = ""
    mime_type: str | None = None
    optional: bool = False
    position: Literal["before", "after"] = "before"
    inline_up_to: int | None = None
    split_pages: int | None = None

    @property
    def columns(self) -> frozenset[str] | None:
        """The columns that it reads; None if it uses the whole `row`."""
        return frozenset({self.column}) if self.template is None else self.template.columns

    @property
    def digest(self) -> str:
        """Of what decides which content a request names, and where."""
        what = self.template.digest if self.template else self.column
        return digest_of("attachment", [self.kind, what, self.mime_type, self.position])

    def named(self, row: Mapping[str, Any]) -> list[str]:
        """The paths, patterns or URIs of a row; none where the row has none. Raises jinja2 errors, or TypeError."""
        if self.template is None:
            return _texts(row[self.column])
        bare = simple_parts(self.template)
        if bare and len(bare) == 1 and bare[0][0] == "column":
            return _texts(row[bare[0][1]])
        text = self.template.render(row).strip()
        return [text] if text else []


def _texts(value: Any) -> list[str]:
    values = list(value) if isinstance(value, (list, tuple)) else [value]
    if wrong := next((v for v in values if v is not None and not isinstance(v, str)), None):
        raise TypeError(f"a path is a text, and this is {type(wrong).__name__}")
    return [v.strip() for v in values if v is not None and v.strip()]


def compile_attachments(
    prompt: Prompt, document: Document, templates: TemplateSet, problems: list[Diagnostic]
) -> tuple[CompiledAttachment, ...]:
    """Compile them. Complaints go to `problems`."""
    found = []
    for number, entry in enumerate(prompt.attachments):
        at: NodePath = ("prompt", "attachments", number)
        one = Attachment(path=entry) if isinstance(entry, str) else entry
        given = [kind for kind in KINDS if getattr(one, kind) is not None]
        if len(given) != 1:
            what = " and ".join(f"`{kind}`" for kind in given) or "nothing"
            message = f"an attachment has one of `path`, `pattern` and `column`, and this one has {what}"
            problems.append(document.diagnostic("conflicting-fields", message, at))
            continue
        value_at = at if isinstance(entry, str) else (*at, given[0])
        template = _template(one, given[0], document, value_at, templates, problems)
        if template is not None or given[0] == "column":
            where = ".".join(map(str, value_at))
            column = one.column or ""
            found.append(
                CompiledAttachment(
                    given[0],
                    where,
                    template,
                    column,
                    one.mime_type,
                    one.optional,
                    one.position,
                    one.inline_up_to,
                    one.split_pages,
                )
            )
    return tuple(found)


def _template(
    one: Attachment, kind: str, document: Document, at: NodePath, templates: TemplateSet, problems: list[Diagnostic]
) -> Template | None:
    text = getattr(one, kind)
    if kind == "column":
        return None
    if not text.strip():
        problems.append(document.diagnostic("wrong-value", f"the {kind} of an attachment is empty", at))
        return None
    if kind == "pattern" and "://" in text:
        message = f"`{shown(text)}` is no pattern of files in the project"
        hint = "Name objects one by one with `path` or `column`."
        problems.append(document.diagnostic("wrong-value", message, at, hint=hint))
        return None
    try:
        return templates.inline(text, place=document.place(*at), exact_lines=document.style(*at) == "|")
    except InvalidProject as exc:
        problems.extend(exc.diagnostics)
        return None


def check_conflicts(document: Document, overlay: Mapping[str, Any], problems: list[Diagnostic]) -> None:
    """`request:` must not replace the turn that attachments go with."""
    if "contents" in overlay:
        message = "`request.contents` replaces the turns that the attachments go with"
        problems.append(document.diagnostic("conflicting-fields", message, ("request",), on_key=True))

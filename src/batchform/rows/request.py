"""Rendered requests: the canonical bytes that the API receives for a row, spliced rather than encoded.

The request is encoded once per spec with a marker where each rendered text goes. Per row only the texts are rendered,
escaped and put between the constant pieces; what comes out is byte for byte what `canonical_json` gives.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from batchform.canon import canonical_json, json_string
from batchform.errors import SourceError
from batchform.rows.names import ATTACHMENTS, FILES
from batchform.spec.embed import embed_request
from batchform.spec.generation import snake
from batchform.spec.realm import cloud_of
from batchform.spec.resolved import ResolvedSpec, Template

if TYPE_CHECKING:
    from batchform.rows.attached import Carried
    from batchform.spec.row_values import RowValue


class RequestRenderer:
    """Renders rows of one spec. `columns`: names of the values that `render` is given, in order; keep_empty: whether a
    text with nothing in it is left to whoever judges all rows; carried: the files of the row that was rendered last,
    None for a spec without attachments."""

    def __init__(self, spec: ResolvedSpec, columns: Sequence[str], *, keep_empty: bool = False) -> None:
        self._spec = spec
        self._keep_empty = keep_empty
        self._columns = tuple(columns)
        self._templates, self._pieces = _compile(spec)
        self._values = {id(v.template): v for v in spec.row_values}
        self._single = len(self._templates) == 1 and not self._values
        self._attached = bool(spec.attachments)
        self.carried: Carried | None = None
        if self._attached:
            from batchform.rows.attached import Carried

            self.carried = Carried()

    @property
    def one_form(self) -> bool:
        """Whether requests differ in texts only."""
        return not self._attached and not self._values

    @property
    def fixed_bytes(self) -> int:
        """Bytes of every request that no row's text is part of."""
        return sum(len(piece) for piece in self._pieces)

    def render(self, key: str, values: Sequence[Any]) -> bytes:
        """The canonical request of one row. Raises SourceError naming the row's key."""
        row = dict(zip(self._columns, values, strict=True))
        attachments, files = (row.pop(ATTACHMENTS, "{}"), row.pop(FILES, "[]")) if self._attached else ("", "")
        texts: list[str | bytes] = []
        left_out: list[tuple[str, ...]] = []
        for template in self._templates:
            try:
                text = template.render(row)
            except Exception as exc:
                from batchform.spec.templates import explain_render_error

                raise explain_render_error(template, exc, key) from exc
            if value := self._values.get(id(template)):
                given = self._given(value, text, key)
                left_out += [value.path] if given is None else []
                texts.append(canonical_json(given))
                continue
            if not text and not self._keep_empty:
                raise SourceError(
                    f"{template.name}: renders to nothing for the row with key {key!r} of {self._spec.name}",
                    hint="The API refuses empty text. Leave the row out with source.where, or mend the template.",
                )
            texts.append(text)
        request = self._splice(texts, key)
        request = _without(request, left_out) if left_out else request
        return self._with_files(request, attachments, files) if self._attached else request

    def _with_files(self, request: bytes, attachments: str, files: str) -> bytes:
        from batchform.rows.attached import splice

        assert self.carried is not None
        self.carried.take(files)
        return splice(request, attachments)

    def _given(self, value: RowValue, text: str, key: str) -> Any:
        """What a row gives for a field of generationConfig."""
        try:
            return value.checked(text)
        except ValueError as exc:
            field = ".".join(map(snake, value.path))
            raise SourceError(
                f"{field} is {text[:80]} for the row with key {key!r} of {self._spec.name}: {str(exc).rstrip('.')}",
                place=self._spec.at("generation_config"),
                hint="Mend the row or the expression; null leaves the field out.",
            ) from None

    def _splice(self, texts: Sequence[str | bytes], key: str) -> bytes:
        try:
            if self._single:
                head, tail = self._pieces
                return head + json_string(str(texts[0])) + tail
            out = [self._pieces[0]]
            for text, piece in zip(texts, self._pieces[1:], strict=True):
                out.append(text if isinstance(text, bytes) else json_string(text))
                out.append(piece)
        except ValueError as exc:
            raise SourceError(
                f"the text of the row with key {key!r} of {self._spec.name} is not Unicode: {exc}"
            ) from exc
        return b"".join(out)


def _marker(number: int) -> str:
    return f"\x00batchform:{number}\x00"


def _compile(spec: ResolvedSpec) -> tuple[tuple[Template, ...], tuple[bytes, ...]]:
    """Templates in the order in which their texts stand in the request, and the constant bytes around them."""
    templates: list[Template] = [turn.template for turn in spec.turns]
    if spec.task == "embed":
        title = None if spec.title is None else _marker(len(templates))
        templates += [spec.title] if spec.title is not None else []
        whole = embed_request(spec.request_base, text=_marker(0), title=title, cloud=cloud_of(spec.backend))
        return _split(canonical_json(merge(whole, spec.request_overlay)), templates)
    turns: list[dict[str, Any]] = [
        {"role": turn.role, "parts": [{"text": _marker(i)}]} for i, turn in enumerate(spec.turns)
    ]
    if spec.attachments:
        from batchform.rows.attached import AFTER, BEFORE

        turns[-1]["parts"] = [BEFORE, *turns[-1]["parts"], AFTER]
    request: dict[str, Any] = {**spec.request_base, "contents": turns}
    for value in spec.row_values:
        request = merge(request, _at(value.path, _marker(len(templates))))
        templates.append(value.template)
    if spec.system is not None:
        request["systemInstruction"] = {"parts": [{"text": _marker(len(templates))}]}
        templates.append(spec.system)
    return _split(canonical_json(merge(request, spec.request_overlay)), templates)


def _at(path: Sequence[str], value: Any) -> dict[str, Any]:
    """A value under its path."""
    return {path[0]: value if len(path) == 1 else _at(path[1:], value)}


def _without(request: bytes, paths: Sequence[tuple[str, ...]]) -> bytes:
    """A canonical request without the fields at these paths, nor objects that they leave empty."""
    made: dict[str, Any] = msgspec.json.decode(request)
    for path in paths:
        holders = [made]
        for name in path[:-1]:
            holders.append(holders[-1][name])
        for holder, name in zip(reversed(holders), reversed(path), strict=True):
            if holder[name] in (None, {}):
                del holder[name]
    return canonical_json(made)


def _split(encoded: bytes, templates: Sequence[Template]) -> tuple[tuple[Template, ...], tuple[bytes, ...]]:
    """A request cut at the markers of its templates, and these in that order."""
    found = []
    for number, template in enumerate(templates):
        mark = json_string(_marker(number))
        at = encoded.find(mark)
        if at >= 0:  # an overlay may replace contents or systemInstruction as a whole
            found.append((at, len(mark), template))
    found.sort(key=lambda f: f[0])
    pieces, at = [], 0
    for start, length, _ in found:
        pieces.append(encoded[at:start])
        at = start + length
    pieces.append(encoded[at:])
    return tuple(t for _, _, t in found), tuple(pieces)


def merge(base: Mapping[str, Any], overlay: Mapping[str, Any]) -> dict[str, Any]:
    """`overlay` laid over `base`: objects merge, everything else replaces. Neither is changed."""
    merged = dict(base)
    for name, value in overlay.items():
        under = merged.get(name)
        merged[name] = merge(under, value) if isinstance(under, Mapping) and isinstance(value, Mapping) else value
    return merged

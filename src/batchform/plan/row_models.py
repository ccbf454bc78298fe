"""What single rows ask of a model that it does not take: values of generation_config, and kinds of files.

Only requests of specs whose rows give such things are looked at; what all rows share was judged with the spec.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

import msgspec
from msgspec import Struct

from batchform.plan.registry import ModelInfo, refusals
from batchform.plan.request_rules import room_to_think
from batchform.spec.resolved import ResolvedSpec

_TYPE: Final = re.compile(rb'"mimeType":"([^"\\\\]+)"')
"""Within a JSON text a quote is escaped, so that no text of a row can look like this."""
_KINDS: Final = ("image", "audio", "video")
_MOST_SEEN: Final = 10_000


class _Configured(Struct, frozen=True):
    generationConfig: msgspec.Raw = msgspec.Raw(b"{}")  # noqa: N815  (the API's name)


class RowModelRules:
    """Judges requests of one spec. info: what is known of its model."""

    def __init__(self, spec: ResolvedSpec, info: ModelInfo) -> None:
        self._spec, self._info = spec, info
        self._by_row, self._attached = bool(spec.row_values), bool(spec.attachments)
        self._configs = msgspec.json.Decoder(_Configured)
        self._said: dict[bytes, tuple[tuple[str, str], ...]] = {}

    def look(self, request: bytes) -> Iterator[tuple[str, str, str]]:
        """(rule, path, a sentence without its full stop) of each thing that the model does not take, or answers
        nothing to."""
        if self._by_row:
            for rule, sentence in self._of_config(bytes(self._configs.decode(request).generationConfig)):
                yield rule, "generationConfig", sentence
        reads = self._info.reads
        if self._attached and reads is not None:
            for found in sorted(set(_TYPE.findall(request))):
                kind = found.decode().partition("/")[0]
                if kind in _KINDS and kind not in reads:
                    yield "model-refuses", "contents", f"{found.decode()}, and {self._info.id} reads {_listed(reads)}"

    def _of_config(self, raw: bytes) -> tuple[tuple[str, str], ...]:
        if raw not in self._said:
            if len(self._said) >= _MOST_SEEN:
                self._said.clear()
            config: dict[str, Any] = msgspec.json.decode(raw)
            said = [("model-refuses", sentence.rstrip(".")) for sentence in refusals(self._info, config)]
            said += [(d.rule, d.message) for d in room_to_think(self._spec, config, self._info)]
            self._said[raw] = tuple(said)
        return self._said[raw]


def row_model_rules(spec: ResolvedSpec, info: ModelInfo | None) -> RowModelRules | None:
    """The rules of a spec; None where its rows give nothing that a model could refuse."""
    if info is None or not (spec.row_values or spec.attachments):
        return None
    return RowModelRules(spec, info)


def _listed(words: tuple[str, ...]) -> str:
    return f"{', '.join(words[:-1])} and {words[-1]}" if len(words) > 1 else words[0]

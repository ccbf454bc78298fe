"""Rules on what single rows would send. Every request that a plan would send passes here, so rows are looked at in
batches: one expression over all of them finds those that deserve a closer look."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import msgspec

from batchform.errors import Diagnostic, RowPlace
from batchform.plan.counting import Sample
from batchform.plan.importer import Columns, form_of, worded
from batchform.plan.registry import ModelInfo, Registry
from batchform.plan.row_models import RowModelRules, row_model_rules
from batchform.spec.realm import cloud_of
from batchform.spec.resolved import ResolvedSpec
from batchform.spec.secrets import HOME, MARKS, secret_in
from batchform.spec.wording import counted, dotted, shown
from batchform.spec.yaml_source import NodePath, leaves

_NAMED: Final = 5
_BATCH_ROWS: Final = 1024
_BATCH_BYTES: Final = 4 << 20
_FORMS: Final = 10_000
_BLANK: Final = r'"text":"(?: |\\[nrtf]|\xC2\xA0)*"'
_SUSPECT: Final = rf"{MARKS}|/home/|/Users/|[\\/][Uu]sers[\\/]|{_BLANK}"
_EXPECTED_BYTES: Final = 4
_MOST_BYTES: Final = 8
"""Bytes of a token: of ordinary text, and more than any text has. What is longer than the second is surely too long."""


class _Found(msgspec.Struct):
    words: str  # what is to be said of the first row
    hint: str = ""
    rows: int = 0
    last: str = ""
    first: list[RowPlace] = msgspec.field(default_factory=list)


class EnoughRows(Exception):
    """As many rows were looked at as were asked for."""


class RowRules:
    """Looks at the requests of one spec; complains at the end, once for each rule.

    info: what is known of its model; most: rows to look at, None for all; largest: bytes of a request that fits into a
    job; columns: of the importer that will load them, None where there is none, or where all rows have one form;
    model: what it does not take of single rows, None where nothing is to be judged.
    """

    def __init__(
        self,
        spec: ResolvedSpec,
        info: ModelInfo | None,
        *,
        most: int | None = None,
        largest: int | None = None,
        columns: Columns | None = None,
        model: RowModelRules | None = None,
    ) -> None:
        self._spec = spec
        self._model = model
        self.file_tokens: Callable[[bytes], int] | None = None  # of a request's files, where rows have any
        self.sample: Sample | None = None  # of the requests, where tokens are to be counted
        self._left = most
        self._largest = largest
        self._columns = columns
        self._forms: set[object] = set()
        self._most_tokens = info.max_input_tokens if info else None
        self._long = (self._most_tokens or 1 << 60) * _EXPECTED_BYTES
        self._found: dict[str, _Found] = {}
        self._keys: list[str] = []
        self._requests: list[bytes] = []
        self._bytes = 0

    def of_one_form(self) -> None:
        """Rows differ in texts only: their form was judged with the spec."""
        self._columns = None

    def look(self, key: str, request: bytes) -> None:
        """Judge one canonical request, now or with the next ones. Raises EnoughRows."""
        if self._left is not None:
            if not self._left:
                raise EnoughRows
            self._left -= 1
        if self._model is not None:
            for rule, path, sentence in self._model.look(request):
                self._note(rule, key, (path,), sentence)
        if self.file_tokens is not None and (tokens := self.file_tokens(request)):
            self._judge_files(key, len(request), tokens)
        self._keys.append(key)
        self._requests.append(request)
        self._bytes += len(request)
        if self._bytes >= _BATCH_BYTES or len(self._keys) >= _BATCH_ROWS:
            self._judge_batch()

    def too_large(self, key: str, size: int) -> None:
        """Note a row whose line no job would take, not even alone. size: its bytes."""
        self._note("row-too-large", key, (), f"{size:,} bytes")

    def complaints(self) -> list[Diagnostic]:
        """One for each rule that was broken, with how many rows broke it and the first of them."""
        self._judge_batch()
        return [self._complaint(rule, found) for rule, found in sorted(self._found.items())]

    def _judge_batch(self) -> None:
        if not self._keys:
            return
        if self.sample is not None:
            for key, request in zip(self._keys, self._requests, strict=True):
                self.sample.look(key, request)
        import pyarrow as pa  # never where there is nothing to send: a plan without changes must start at once
        import pyarrow.compute as pc

        requests = pa.array(self._requests, pa.binary())
        long = pc.greater(pc.binary_length(requests), self._long)
        closer = pc.or_(pc.match_substring_regex(requests, _SUSPECT), long)
        for index in pc.indices_nonzero(closer).to_pylist():
            self._judge(self._keys[index], self._requests[index])
        if self._columns is not None:
            for key, request in zip(self._keys, self._requests, strict=True):
                self._judge_form(self._columns, key, msgspec.json.decode(request))
        self._keys, self._requests, self._bytes = [], [], 0

    def _judge(self, key: str, request: bytes) -> None:
        media = 0
        for at, text in leaves(msgspec.json.decode(request)):
            if not isinstance(text, str):
                continue
            if at[-2:] == ("inlineData", "data"):
                media += len(text)  # bytes in base64: they spell anything, and are counted as pictures, not as text
                continue
            if kind := secret_in(text):
                self._note("secret-in-row", key, at, kind)
            if HOME.search(text):
                self._note("personal-path", key, at, "")
            if at[-1] == "text" and (not text or text.isspace()) and at[-3:-2] == ("parts",):
                self._note("empty-prompt", key, at, self._template(at))
        size = len(request) - media
        if size > self._long:
            surely = size > self._long // _EXPECTED_BYTES * _MOST_BYTES
            self._note("prompt-too-long" if surely else "prompt-long", key, (), f"{size:,} bytes")

    def _judge_files(self, key: str, size: int, tokens: int) -> None:
        """Text and files together. Tokens of files are estimates: only twice as many are surely too many."""
        most = self._most_tokens or 1 << 60
        if size / _EXPECTED_BYTES + tokens > most:
            surely = size / _MOST_BYTES + tokens / 2 > most
            words = f"{size:,} bytes, and files of about {tokens:,} tokens"
            self._note("prompt-too-long" if surely else "prompt-long", key, (), words)

    def _template(self, at: NodePath) -> str:
        """The template that a text of a request comes from, in words; "" if it comes from `request:`."""
        if at[0] in self._spec.request_overlay:
            return ""
        turns, index = self._spec.turns, at[1]
        found = turns[index].template if isinstance(index, int) and index < len(turns) else self._spec.system
        return f"{found.name} renders to nothing" if found is not None else ""

    def _judge_form(self, columns: Columns, key: str, request: dict[str, Any]) -> None:
        form = form_of(request)
        if form in self._forms:
            return
        if len(self._forms) < _FORMS:
            self._forms.add(form)
        for problem in columns.look(request, key):
            path = worded(problem.path)
            beside = f" (in `{shown(problem.other, 60)}`)" if problem.other else ""
            rule = "rows-differ" if problem.across and problem.other else "vertex-refuses"
            self._note(rule, key, (path,), f"{problem.message}{beside}", hint=problem.hint)

    def _note(self, rule: str, key: str, at: NodePath, words: str, *, hint: str = "") -> None:
        found = self._found.setdefault(rule, _Found(words, hint))
        if found.rows and key == found.last:
            return  # the same row, at another place
        found.rows, found.last = found.rows + 1, key
        if len(found.first) < _NAMED:
            found.first.append(RowPlace(key, f"$.{dotted(at)}" if at else "$"))

    def _complaint(self, rule: str, found: _Found) -> Diagnostic:
        message, hint, severity = self._words(rule, found)
        place = self._spec.at("prompt")
        return Diagnostic(rule, message, place, hint, severity, rows=tuple(found.first), row_count=found.rows)

    def _words(self, rule: str, found: _Found) -> tuple[str, str, str]:
        """Message, hint, severity."""
        keys = ", ".join(f"`{shown(row.key, 60)}`" for row in found.first)
        rows = f"{counted(found.rows, 'row')} ({keys}{', …' if found.rows > len(found.first) else ''})"
        path, words = found.first[0].path, found.words
        most = f"the {self._most_tokens or 0:,} tokens that {self._spec.model} takes; the first has {words}"
        return {
            "secret-in-row": (
                f"{rows} would send what looks like {words} at {path}",
                "Leave the column out of the prompt, or the rows with source.where; revoke what was exposed.",
                "error",
            ),
            "personal-path": (
                f"{rows} would send a path of somebody's home folder, at {path}",
                "It tells the model nothing: send the file's name, or its text.",
                "warning",
            ),
            "empty-prompt": (
                f"{rows} would send a text with nothing in it, at {path}" + (f": {words}" if words else ""),
                "Leave the rows out with source.where, or let the template say something for them.",
                "error",
            ),
            "prompt-too-long": (f"{rows} would send more than {most}", _CUT, "error"),
            "prompt-long": (f"{rows} may send more than {most}", _CUT, "warning"),
            "model-refuses": (
                f"{rows} would send what the model does not take at {path}: {words}",
                "Mend the column, or leave the rows out with source.where.",
                "error",
            ),
            "no-room-to-think": (
                f"{rows} would leave no room for an answer, at {path}: {words}",
                "Allow more, or tell the model to think less: what is cut while thinking is empty, and billed.",
                "warning",
            ),
            "row-too-large": (
                f"{rows} would not fit into {self._job()}; the first has {words}",
                self._smaller(),
                "error",
            ),
            "vertex-refuses": (f"{rows} would fail the job: {words}", found.hint, "error"),
            "rows-differ": (f"{rows} would fail the job: {words}", found.hint, "error"),
        }[rule]

    def _job(self) -> str:
        inline = self._spec.spec.submit == "inline"
        what = "a create call with its requests inline" if inline else "the input of one job"
        return f"{what}, which holds {self._largest or 0:,} bytes"

    def _smaller(self) -> str:
        if self._spec.spec.submit == "inline":
            return "Use `submit: file`."
        return "Give media by `file_uri` in place of their bytes, or cut the text."


def row_rules(spec: ResolvedSpec, registry: Registry, *, largest: int, most: int | None) -> RowRules:
    """The rules for a spec. largest: bytes of a request that fits into a job; most: rows to look at, None for all."""
    vertex = cloud_of(spec.backend) == "vertex"
    imported = vertex and getattr(spec.backend, "via", "") == "storage"
    columns = Columns(registry.vertex_refuses.max_nesting) if imported else None
    info = registry.on(cloud_of(spec.backend)).model(spec.model)
    model = row_model_rules(spec, info)
    return RowRules(spec, info, most=most, largest=largest, columns=columns, model=model)


_CUT: Final = "Cut the text in the template, `{{ text | truncate(100000) }}`, or split the rows."

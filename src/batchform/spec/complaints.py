"""pydantic's errors as complaints: a sentence, the place of the offending node, the nearest name."""

from __future__ import annotations

import re
import types
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

from batchform.errors import Diagnostic
from batchform.spec.backends import (
    DATASET,
    LABEL_NAME,
    LABEL_VALUE,
    LOCATION,
    PROJECT_ID,
    SERVICE_ACCOUNT,
    STAGING,
)
from batchform.spec.fields import NAME_PATTERN
from batchform.spec.model_attachments import MIME_TYPE
from batchform.spec.model_tasks import ASPECT_RATIO
from batchform.spec.wording import dotted, one_of, shown, suggestion
from batchform.spec.yaml_source import Document, NodePath

M = TypeVar("M", bound=BaseModel)

_SECRET_FIELDS = frozenset({"api_key", "apikey", "key", "token", "password", "secret", "credentials"})
_WANTED = {
    "string_type": "text",
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "list_type": "a list",
    "dict_type": "a mapping",
    "model_type": "a mapping of fields",
    "model_attributes_type": "a mapping of fields",
}
_FROM_ENV = {"int_type": int, "float_type": float}
_BOUNDS = {
    "greater_than_equal": ("ge", "at least"),
    "less_than_equal": ("le", "at most"),
    "greater_than": ("gt", "more than"),
    "less_than": ("lt", "less than"),
    "string_too_short": ("min_length", "at least this long:"),
    "string_too_long": ("max_length", "at most this long:"),
    "too_short": ("min_length", "at least this long:"),
    "too_long": ("max_length", "at most this long:"),
}

_FORMS = {
    NAME_PATTERN: "may have at most 48 lower-case letters, digits, `-` and `_`, "
    "and starts and ends with a letter or digit",
    PROJECT_ID: "must be the id of a Google Cloud project: 6 to 63 lower-case letters, digits and `-`, a letter first",
    LOCATION: "must be a region such as us-central1, or `global`, `us` or `eu`",
    STAGING: "must be a folder of a bucket, such as gs://acme-batch/staging, without `*`, `?`, `#` or spaces",
    DATASET: "must be a dataset of letters, digits and `_`, or one of another project: acme-data.batch",
    ASPECT_RATIO: "must be width:height, such as 16:9",
    MIME_TYPE: "must be a MIME type, such as image/png",
    LABEL_NAME: "must be a label's name: at most 63 lower-case letters, digits, `-` and `_`, a letter first",
    LABEL_VALUE: "must be a label's value: at most 63 lower-case letters, digits, `-` and `_`",
    SERVICE_ACCOUNT: "must be a service account's address, such as batch@acme-data.iam.gserviceaccount.com",
}


def validate(model: type[M], document: Document, base: NodePath = ()) -> tuple[M | None, list[Diagnostic]]:
    """The model of the document's value at `base`, or complaints with their places."""
    value = document.get(*base)
    try:
        return model.model_validate(value, strict=True), []
    except ValidationError as exc:
        errors = exc.errors(include_url=False, include_input=False)
    converted, changed = _convert_env(value, errors, document, base)
    if changed:
        try:
            return model.model_validate(converted, strict=True), []
        except ValidationError as exc:
            errors = exc.errors(include_url=False, include_input=False)
    return None, complaints(model, errors, document, base)


def complaints(
    model: type[BaseModel], errors: Sequence[Mapping[str, Any]], document: Document, base: NodePath = ()
) -> list[Diagnostic]:
    """pydantic's errors about the document's value at `base`, one complaint per node, in its order."""
    by_node: dict[NodePath, list[tuple[Mapping[str, Any], str]]] = {}
    plain: list[tuple[NodePath, Mapping[str, Any]]] = []
    for error in errors:
        path, union, branch = _walk(document, base, error)
        if union is None:
            plain.append((path, error))
        else:
            by_node.setdefault(union, []).append((error, branch))
    for node, branches in by_node.items():
        plain += _chosen(document, node, branches, base)
    return [_complaint(model, path, error, document, base) for path, error in plain if path not in document.broken]


def _convert_env(
    value: Any, errors: Sequence[Mapping[str, Any]], document: Document, base: NodePath
) -> tuple[Any, bool]:
    """Numbers and booleans that arrived as text from the environment, as what their fields want."""
    changed = False
    for error in errors:
        path, _, _ = _walk(document, base, error)
        if path not in document.env:
            continue
        kind, text = error["type"], document.get(*path)
        try:
            if kind == "bool_type" and text in ("true", "false"):
                new: Any = text == "true"
            elif kind in _FROM_ENV:
                new = _FROM_ENV[kind](text)
            else:
                continue
        except ValueError:
            continue
        value = _replaced(value, path[len(base) :], new)
        changed = True
    return value, changed


def _replaced(value: Any, path: NodePath, new: Any) -> Any:
    if not path:
        return new
    copy: Any = dict(value) if isinstance(value, dict) else list(value)
    copy[path[0]] = _replaced(value[path[0]], path[1:], new)
    return copy


def _walk(document: Document, base: NodePath, error: Mapping[str, Any]) -> tuple[NodePath, NodePath | None, str]:
    """The node of an error; within an undiscriminated union also the union's node and the member's name."""
    path, union, branch = base, None, ""
    loc: tuple[str | int, ...] = error["loc"]
    for i, step in enumerate(loc):
        here = document.get(*path)
        last = i == len(loc) - 1
        is_tag = isinstance(here, dict) and here.get("type") == step and not (last and step in here)
        in_dict = isinstance(here, dict) and (step in here or (last and error["type"] == "missing"))
        in_list = isinstance(here, list) and isinstance(step, int) and step < len(here)
        if in_list or (in_dict and not is_tag):
            path = (*path, step)
        elif not is_tag and not isinstance(step, int):
            union, branch = path, step
    return path, union, branch


def _chosen(
    document: Document, node: NodePath, branches: list[tuple[Mapping[str, Any], str]], base: NodePath
) -> Iterator[tuple[NodePath, Mapping[str, Any]]]:
    """Of the complaints of a union's members those of the member that the user meant, or one for all."""
    value = document.get(*node)
    wanted = [b for b in branches if _fits(value, b[1])]
    if wanted:
        for error, _ in wanted:
            yield _walk(document, base, error)[0], error
        return
    names = dict.fromkeys(_member(b) for _, b in branches)
    yield node, {"type": "union", "loc": node, "msg": "", "ctx": {"wanted": one_of(names)}}


def _fits(value: Any, member: str) -> bool:
    if isinstance(value, dict):
        return member[:1].isupper() or (member.startswith("dict") and bool(value))
    return isinstance(value, list) and member.startswith("list")


def _member(name: str) -> str:
    if name.startswith("list"):
        return "a list of texts"
    return {"str": "text", "InlineText": "{text: …}"}.get(name, "a mapping")


def _complaint(
    model: type[BaseModel], path: NodePath, error: Mapping[str, Any], document: Document, base: NodePath
) -> Diagnostic:
    kind, ctx = str(error["type"]), error.get("ctx", {})
    name = shown(path[-1]) if path else "the file"
    label = dotted(path) if path else name
    if kind == "missing":
        above = path[:-1]
        where = f" in `{dotted(above)}`" if above else ""
        _, about = _field_at(model, path[len(base) :], document.get(*base))
        return document.diagnostic("missing-field", f"`{name}` is missing{where}", above, on_key=True, hint=about)
    if kind == "extra_forbidden":
        return _unknown_field(model, path, document, base)
    if kind == "union_tag_not_found":
        known = _tags(model, path[len(base) :], document.get(*base))
        message = (
            f"`{label}` has no `type`" if isinstance(document.get(*path), dict) else f"`{label}` must be a mapping"
        )
        return document.diagnostic("missing-field", message, path, on_key=True, hint=f"Types: {', '.join(known)}.")
    if kind == "union_tag_invalid":
        known = re.findall(r"'([^']*)'", ctx["expected_tags"])
        at = (*path, "type")
        message = f"unknown type `{document.shown(ctx['tag'], *at)}` in `{label}`"
        return document.diagnostic("unknown-type", message, at, hint=suggestion(ctx["tag"], known, noun="Types"))
    if path in document.env:
        message = f"the value of `{document.env[path]}` does not fit `{label}`"
        return document.diagnostic("wrong-value", message, path, hint=f"It {_wanted(kind, ctx, hidden=True)}.")
    if kind == "literal_error":
        options = [str(o).strip("'") for o in re.findall(r"'[^']*'|\d+", ctx["expected"])]
        given = document.get(*path)
        value = shown(given)
        message = f"`{label}` cannot be `{value}`"
        if not isinstance(given, str) and str(given) in options:
            hint = f"YAML reads this as {'true or false' if isinstance(given, bool) else 'a number'}: quote it."
            return document.diagnostic("wrong-value", message, path, hint=hint)
        return document.diagnostic("wrong-value", message, path, hint=suggestion(value, options, noun="Values"))
    message = f"`{label}` {_wanted(kind, ctx, msg=error['msg'])}"
    return document.diagnostic("wrong-value", message, path, hint=_quote_hint(kind, document, path))


def _wanted(kind: str, ctx: Mapping[str, Any], *, msg: str = "", hidden: bool = False) -> str:
    if kind in _WANTED:
        return f"must be {_WANTED[kind]}"
    if kind == "union":
        return f"must be {ctx['wanted']}"
    if kind in _BOUNDS:
        field, words = _BOUNDS[kind]
        return f"must be {words} {ctx[field]:g}" if isinstance(ctx[field], float) else f"must be {words} {ctx[field]}"
    if kind == "string_pattern_mismatch":
        return _FORMS.get(str(ctx["pattern"]), "has the wrong form")
    if kind == "value_error":
        return "has the wrong form" if hidden else f"cannot be used: {shown(ctx['error'], 200)}"
    return "has the wrong form" if hidden else shown(msg.replace("Input should", "should"), 200)


def _quote_hint(kind: str, document: Document, path: NodePath) -> str:
    value = document.get(*path)
    if kind == "string_type" and isinstance(value, (bool, int, float)):
        return f"YAML reads this as {'true or false' if isinstance(value, bool) else 'a number'}: quote it."
    if value is None:
        return "Give it a value, or remove the line."
    return ""


def _unknown_field(model: type[BaseModel], path: NodePath, document: Document, base: NodePath) -> Diagnostic:
    name = str(path[-1])
    inside = f" in `{dotted(path[:-1])}`" if len(path) > 1 else ""
    owner = _model_at(model, path[len(base) : -1], document.get(*base))
    known = [f.alias or n for n, f in owner.model_fields.items()] if owner else []
    hint = suggestion(name, known, noun="Fields")
    if name.casefold().replace("-", "_") in _SECRET_FIELDS:
        hint = f"Secrets never stand in a file: the key comes from the environment. {hint}"
    return document.diagnostic("unknown-field", f"unknown field `{shown(name)}`{inside}", path, on_key=True, hint=hint)


# --- models along a path -----------------------------------------------------------------------------------------


def _field_at(annotation: Any, path: NodePath, value: Any) -> tuple[Any, str]:
    """The annotation and the description of the node at `path` of a value that `annotation` describes."""
    about = ""
    for step in path:
        current = _pick(annotation, value)
        if isinstance(current, type) and issubclass(current, BaseModel):
            field = next((f for n, f in current.model_fields.items() if step in (f.alias or n, n)), None)
            annotation, about = (field.annotation, field.description or "") if field else (None, "")
        else:
            annotation, about = (get_args(current) or (None,))[-1], ""
        try:
            value = value[step]
        except (KeyError, IndexError, TypeError):
            value = None
    return annotation, about


def _model_at(model: type[BaseModel], path: NodePath, value: Any) -> type[BaseModel] | None:
    """The model that describes the node at `path` of a value that `model` describes."""
    annotation, _ = _field_at(model, path, value)
    for step in path:
        try:
            value = value[step]
        except (KeyError, IndexError, TypeError):
            return None
    found = _pick(annotation, value)
    return found if isinstance(found, type) and issubclass(found, BaseModel) else None


def _members(annotation: Any) -> list[Any]:
    """The members of a union, Annotated and None taken away."""
    if get_origin(annotation) is Annotated:
        return _members(get_args(annotation)[0])
    if get_origin(annotation) in (Union, types.UnionType):
        return [m for a in get_args(annotation) for m in _members(a) if m is not type(None)]
    return [annotation]


def _pick(annotation: Any, value: Any) -> Any:
    """Of a union the member that a value chooses by its `type`, or else by its shape."""
    members = _members(annotation)
    if isinstance(value, dict):
        for member in members:
            if value.get("type") in _literals(member):
                return member
        models = [m for m in members if isinstance(m, type) and issubclass(m, BaseModel)]
        return models[0] if models else next((m for m in members if get_origin(m) is dict), None)
    if isinstance(value, list):
        return next((m for m in members if get_origin(m) is list), None)
    return members[0]


def _literals(member: Any) -> tuple[Any, ...]:
    if not (isinstance(member, type) and issubclass(member, BaseModel)) or "type" not in member.model_fields:
        return ()
    annotation = member.model_fields["type"].annotation
    return get_args(annotation) if get_origin(annotation) is Literal else ()


def _tags(model: type[BaseModel], path: NodePath, value: Any) -> list[str]:
    """The values that `type` may have at the node at `path`."""
    annotation, _ = _field_at(model, path, value)
    return [tag for member in _members(annotation) for tag in _literals(member)]

"""`${ENV:NAME}`: values from the environment, only in `batchform.yaml`, and environments laid over the project."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from msgspec.structs import replace

from batchform.errors import Diagnostic, UsageError
from batchform.spec.wording import suggestion
from batchform.spec.yaml_source import Document, NodePath, leaves

_REFERENCE = re.compile(r"\$\{ENV:([A-Za-z_][A-Za-z0-9_]*)\}")
_OPENING = re.compile(r"\$\{\s*ENV\b", re.IGNORECASE)

_MERGED: Final = ("backends", "databases", "defaults", "limits", "google_cloud")


def substitute(
    document: Document, env: Mapping[str, str], environment: str | None
) -> tuple[Document, list[Diagnostic]]:
    """The document with `${ENV:NAME}` replaced, but for the environments that are not chosen: of those the ledger alone
    is, if it can be."""
    problems: list[Diagnostic] = []
    raw: dict[NodePath, str] = {}

    def visit(text: str, path: NodePath) -> str:
        if not _OPENING.search(text):
            return text
        if path[:1] == ("environments",) and path[1:2] != (environment,):
            raw[path] = text
            set_ = path[2:] == ("ledger",) and all(name in env for name in _REFERENCE.findall(text))
            return _REFERENCE.sub(lambda match: env[match[1]], text) if set_ else text
        if _OPENING.search(_REFERENCE.sub("", text)):
            hint = "Write ${ENV:NAME}, with a name of letters, digits and _."
            problems.append(
                document.diagnostic("env-syntax", "this reference to the environment is malformed", path, hint=hint)
            )
            return text
        for name in _REFERENCE.findall(text):
            if name not in env:
                hint = f"Set it: export {name}=…"
                message = f"the environment variable {name} is not set"
                problems.append(document.diagnostic("env-not-set", message, path, hint=hint))
                return text
        raw[path] = text
        return _REFERENCE.sub(lambda match: env[match[1]], text)

    for path in _bad_keys(document):
        message = "${ENV:…} may stand in a value, not in a name"
        problems.append(document.diagnostic("env-syntax", message, path, on_key=True))
    value = _mapped(document.value, (), visit)
    if isinstance(value.get("environments"), dict):
        others = {k: v if k == environment else _pruned(v) for k, v in value["environments"].items()}
        value = {**value, "environments": others}
    return replace(document, value=value, env=raw), problems


def refuse_references(document: Document) -> list[Diagnostic]:
    """Complaints about `${ENV:…}` in a file that may not have it."""
    found = [path for path, leaf in leaves(document.value) if isinstance(leaf, str) and _OPENING.search(leaf)]
    message = "${ENV:…} works only in batchform.yaml"
    hint = (
        "What is sent must not depend on the environment; put the value here, or use an environment of batchform.yaml."
    )
    return [
        *(document.diagnostic("env-not-allowed", message, path, hint=hint) for path in found),
        *(
            document.diagnostic("env-not-allowed", message, path, on_key=True, hint=hint)
            for path in _bad_keys(document)
        ),
    ]


def has_reference(text: str) -> int:
    """1-based line of the first `${ENV:…}` in a text; 0 if there is none."""
    match = _OPENING.search(text)
    return text.count("\n", 0, match.start()) + 1 if match else 0


def overlaid(document: Document, environment: str | None) -> Document:
    """The project with a chosen environment laid over it: backends, defaults and limits deeply, the rest replaced.

    Complaints about what came from the environment are placed there. Raises UsageError when it does not exist.
    """
    if environment is None:
        return document
    environments = document.get("environments")
    known = list(environments) if isinstance(environments, dict) else []
    if environment not in known:
        hint = suggestion(environment, known, noun="Environments") or "batchform.yaml declares no `environments`."
        raise UsageError(f"there is no environment {environment!r} in {document.path}", hint=hint)
    top: NodePath = ("environments", environment)
    overlay = document.get(*top)
    if not isinstance(overlay, dict):
        return document
    keys, values, env = dict(document.keys), dict(document.values), dict(document.env)
    for table in (keys, values):
        table.update({path[2:]: spot for path, spot in table.items() if path[:2] == top and len(path) > 2})
    for path in document.values:
        if path[:2] == top:
            env.pop(path[2:], None)
    env.update({path[2:]: text for path, text in env.items() if path[:2] == top})
    value = dict(document.value)
    for name, new in overlay.items():
        value[name] = _merge(value.get(name), new) if name in _MERGED else new
    return replace(document, value=value, keys=keys, values=values, env=env)


def _merge(under: Any, over: Any) -> Any:
    if not (isinstance(under, dict) and isinstance(over, dict)):
        return over
    if "type" in over and over["type"] != under.get("type"):
        return over  # another kind of backend: none of the fields of the old one fit
    return {**under, **{k: _merge(under.get(k), v) for k, v in over.items()}}


def _mapped(value: Any, path: NodePath, visit: Callable[[str, NodePath], str]) -> Any:
    if isinstance(value, dict):
        return {k: _mapped(v, (*path, k), visit) for k, v in value.items()}
    if isinstance(value, list):
        return [_mapped(v, (*path, i), visit) for i, v in enumerate(value)]
    return visit(value, path) if isinstance(value, str) else value


def _pruned(value: Any) -> Any:
    """The value without the entries that wait for the environment: nothing can be said about them. A database whose URL
    waits is such an entry as a whole."""
    if not isinstance(value, dict):
        return value
    if isinstance(databases := value.get("databases"), dict):
        ready = {n: d for n, d in databases.items() if not (isinstance(d, dict) and _waits(d.get("url")))}
        value = {**value, "databases": ready}
    return {k: _pruned(v) for k, v in value.items() if not _waits(v)}


def _waits(value: Any) -> bool:
    return isinstance(value, str) and _OPENING.search(value) is not None


def _bad_keys(document: Document) -> list[NodePath]:
    return [path for path in document.keys if _OPENING.search(str(path[-1]))]

"""Response schemas of Pydantic classes: `{python: package.module:Class}`.

The project's own code is imported for that, so only modules that batchform.yaml lists. What counts is the JSON Schema
of the class and not its name or where it stands: references are written out, the titles that Pydantic makes of names
are left out, so that a class that is moved, renamed or split, with the same schema, is the same schema.
"""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from msgspec import Struct

from batchform.errors import Diagnostic
from batchform.spec.dialect import inlined
from batchform.spec.schemas import ONE_SCHEMA, SCHEMA_LISTS, SCHEMAS_BY_NAME, SchemaSource
from batchform.spec.wording import shown, suggestion
from batchform.spec.yaml_source import Document, NodePath

if TYPE_CHECKING:
    from pydantic import BaseModel

_NAME: Final = re.compile(r"(?P<module>[A-Za-z_]\w*(\.[A-Za-z_]\w*)*):(?P<cls>[A-Za-z_]\w*(\.[A-Za-z_]\w*)*)", re.ASCII)
_SAYS_NOTHING: Final = ("default", "examples", "example", "deprecated", "readOnly", "writeOnly", "discriminator")


class Classes(Struct, frozen=True):
    """What specs of a project may import. allowed: modules; recorded: gives the schemas of a saved plan, by the name of
    their class, which are taken in place of importing anything; None when there is no such plan."""

    root: Path
    allowed: tuple[str, ...] = ()
    recorded: Callable[[], Mapping[str, dict[str, Any]]] | None = None


def class_name(value: object) -> str | None:
    """The name of the class that a schema is, None if it is another kind of schema."""
    name = value.get("python") if isinstance(value, dict) and len(value) == 1 else None
    return name if isinstance(name, str) else None


def read_class(
    name: str, document: Document, path: NodePath, classes: Classes
) -> tuple[SchemaSource | None, list[Diagnostic]]:
    """The schema of a class, or what is wrong with it. path: of the schema in the spec."""
    at = (*path, "python")
    if classes.recorded is not None:
        return SchemaSource(classes.recorded().get(name, {}), document, at), []
    try:
        return SchemaSource(_schema(name, classes), document, at), []
    except _NoSchema as exc:
        return None, [document.diagnostic("schema-class", exc.message, at, hint=exc.hint)]


class _NoSchema(Exception):
    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message, self.hint = message, hint


def _schema(name: str, classes: Classes) -> dict[str, Any]:
    found = _NAME.fullmatch(name)
    if found is None:
        raise _NoSchema(f"`{shown(name)}` names no class", "Write package.module:Class.")
    module, path = found["module"], found["cls"]
    if module not in classes.allowed:
        listed = ", ".join(classes.allowed) or "none"
        hint = f"List it in batchform.yaml, since its code runs here: allow_imports: [{module}]. Listed: {listed}."
        raise _NoSchema(f"`{module}` may not be imported: the project does not list it", hint)
    model = _class(_module(module, classes.root), module, path)
    return _schema_of(model, name)


def _module(name: str, root: Path) -> Any:
    with _importable(root):
        try:
            return importlib.import_module(name)
        except (Exception, SystemExit) as exc:
            why = f"{type(exc).__name__}: {shown(str(exc), 200)}".rstrip(": ")
            hint = "It is looked for among the installed packages, then in the project's folder."
            raise _NoSchema(f"importing `{name}` failed: {why}", hint) from exc


@contextmanager
def _importable(root: Path) -> Iterator[None]:
    """The project's folder is the last place where modules are looked for; what they print goes to standard error."""
    folder = str(root)
    sys.path.append(folder)
    importlib.invalidate_caches()
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        with suppress(ValueError):
            del sys.path[len(sys.path) - 1 - sys.path[::-1].index(folder)]


def _class(module: Any, name: str, path: str) -> type[BaseModel]:
    from pydantic import BaseModel

    found = module
    for step in path.split("."):
        if not hasattr(found, step):
            known = [n for n, v in vars(found).items() if isinstance(v, type) and issubclass(v, BaseModel)]
            raise _NoSchema(f"`{name}` has no class `{path}`", suggestion(path, known, noun="Classes"))
        found = getattr(found, step)
    if not (isinstance(found, type) and issubclass(found, BaseModel)):
        raise _NoSchema(f"`{name}:{path}` is no Pydantic class", "Make it a subclass of pydantic.BaseModel.")
    return found


def _schema_of(model: type[BaseModel], name: str) -> dict[str, Any]:
    from pydantic.json_schema import GenerateJsonSchema

    class Untitled(GenerateJsonSchema):
        """Without the titles that are made of field names."""

        def field_title_should_be_set(self, _: Any) -> bool:
            return False

    try:
        schema = model.model_json_schema(schema_generator=Untitled)
    except Exception as exc:
        raise _NoSchema(f"`{name}` has no JSON Schema: {shown(str(exc).splitlines()[0], 200)}") from exc
    for title, part in {model.__name__: schema, **schema.get("$defs", {})}.items():
        if part.get("title") in (title, title.rpartition("__")[2]):
            del part["title"]
    flat, problems = inlined(schema)
    return _plain(flat if not problems else schema)


def _plain(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema in the words that the service takes, as far as they say the same; with the order of properties, which
    canonical JSON does not keep."""
    made: dict[str, Any] = {}
    for key, value in schema.items():
        if key in _SAYS_NOTHING:
            continue
        if key in SCHEMAS_BY_NAME:
            made[key] = {n: _part(s) for n, s in value.items()}
        elif key in SCHEMA_LISTS:
            made[key] = [_part(s) for s in value]
        else:
            made[key] = _part(value) if key in ONE_SCHEMA else value
    if isinstance(const := made.get("const"), (str, int, float)) and not isinstance(const, bool):
        made["enum"] = [made.pop("const")]
    elif "const" in made and const is None:
        made = {"type": "null", **{k: v for k, v in made.items() if k not in ("const", "type")}}
    if made.get("type") == "integer":
        for word, inclusive, step in (("exclusiveMinimum", "minimum", 1), ("exclusiveMaximum", "maximum", -1)):
            if isinstance(made.get(word), int) and inclusive not in made:
                made[inclusive] = made.pop(word) + step
    if made.get("properties") and "propertyOrdering" not in made:
        made["propertyOrdering"] = list(made["properties"])
    return made


def _part(schema: Any) -> Any:
    return _plain(schema) if isinstance(schema, dict) else schema

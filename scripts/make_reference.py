"""Write the field tables of docs/specs.md from the models, between their markers.

python scripts/make_reference.py [--check]

A marker `<!-- fields: Retry -->` starts a table of the model `Retry` in batchform.spec.model; `<!-- end -->` ends it.
"""

from __future__ import annotations

import re
import sys
import types
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from batchform.spec import model

PAGE = Path(__file__).resolve().parent.parent / "docs" / "specs.md"
_NAMED = {id(model.Duration): "duration", id(model.Count): "count", id(model.Name): "name"}
_PLAIN = {str: "text", int: "integer", float: "number", bool: "true \\| false", type(None): "", Any: "any"}


def main() -> None:
    before = PAGE.read_text(encoding="utf-8")
    after = with_tables(before)
    if "--check" in sys.argv[1:]:
        sys.exit(
            0 if before == after else f"{PAGE.name} is not what the models say: run python scripts/make_reference.py"
        )
    PAGE.write_text(after, encoding="utf-8")


def with_tables(page: str) -> str:
    """The page with every marked table made again."""

    def fill(marker: re.Match[str]) -> str:
        return f"<!-- fields: {marker[1]} -->\n{table(getattr(model, marker[1]))}\n<!-- end -->"

    return re.sub(r"<!-- fields: (\w+) -->.*?<!-- end -->", fill, page, flags=re.DOTALL)


def table(of: type[BaseModel]) -> str:
    """Markdown table of a model's fields, in order. A field marked * can change the request that is sent."""
    hints = get_type_hints(of, include_extras=True)
    lines = ["| field | value | default | |", "|---|---|---|---|"]
    for name, field in of.model_fields.items():
        extra = field.json_schema_extra
        star = "\\*" if isinstance(extra, dict) and extra.get("wire") else ""
        shown = field.alias or name
        lines.append(
            f"| `{shown}`{star} | {type_text(hints[name])} | {default_text(field)} | {cell(field.description or '')} |"
        )
    return "\n".join(lines)


def type_text(hint: Any) -> str:
    """A field's type, as one would say it of YAML."""
    if id(hint) in _NAMED:
        return _NAMED[id(hint)]
    origin, args = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return type_text(args[0])
    if origin is Literal:
        return " \\| ".join(f"`{a}`" for a in args)
    if origin in (Union, types.UnionType):
        return " \\| ".join(dict.fromkeys(text for a in args if (text := type_text(a))))
    if origin is list:
        return f"list of {type_text(args[0])}"
    if origin is dict:
        return "mapping" if args[1] is Any else f"mapping of name to {type_text(args[1])}"
    if isinstance(hint, type) and issubclass(hint, BaseModel):
        return f"[{hint.__name__}](#{hint.__name__.lower()})"
    return _PLAIN[hint]


def default_text(field: FieldInfo) -> str:
    if field.is_required():
        return "**required**"
    value = field.get_default(call_default_factory=True)
    if isinstance(value, BaseModel):
        return "its defaults"
    if value is None or value in ("", [], {}):
        return ""
    if isinstance(value, list):
        return ", ".join(f"`{v}`" for v in value)
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return f"`{value:g}`" if isinstance(value, float) else f"`{value}`"


def cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    main()

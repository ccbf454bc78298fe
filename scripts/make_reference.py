"""Write the tables of docs/specs.md, docs/ledger.md and docs/emulator.md from the code, between their markers, and the
pages of docs/rules, one for each rule.

python scripts/make_reference.py [--check]

`<!-- fields: Retry -->` starts a table of the model `Retry` in batchform.spec.model, `<!-- columns: ROW_COLUMNS -->`
one of those columns in batchform.ledger.records, `<!-- events -->` one of its events, `<!-- outcomes: finishReason -->`
one of tests/run/outcomes.json, `<!-- faults: CALL_KINDS -->` one of those kinds in batchform.emulator.faults;
`<!-- end -->` ends each.
"""

from __future__ import annotations

import inspect
import json
import re
import sys
import types
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo

from batchform.emulator import faults
from batchform.emulator.fault_kinds import Kind
from batchform.ledger import records
from batchform.rules import catalogue
from batchform.spec import model
from batchform.view.complaints import rule_page

DOCS = Path(__file__).resolve().parent.parent / "docs"
PAGES = (DOCS / "specs.md", DOCS / "ledger.md", DOCS / "emulator.md", DOCS / "answers.md")
OUTCOMES = DOCS.parent / "tests" / "run" / "outcomes.json"
RULES = DOCS / "rules"
_RULES_PAGE = """# Rules

What batchform complains of before anything is sent. `batchform validate` shows all complaints at once, each with the
code of its rule: about the project's files, and then about the rows that would be sent (`--sample N` renders only N of
each spec). It needs no network: rows that are not on this machine are left out, and a ledger elsewhere counts as empty.

`batchform validate --explain BF101` says what a rule is about. `--format github` writes annotations
for pull requests, `--format sarif` a log for code scanning, `--format json` objects for other programs.

A code stays what it is. A spec can ignore warnings, and errors that rest on what is known of a model or service, with a
reason for those who review it:

```yaml
ignore:
  - {rule: BF504, reason: the prompt itself asks for JSON}
```

"""
_NAMED = {id(model.Duration): "duration", id(model.Count): "count", id(model.Name): "name"}
_PLAIN = {str: "text", int: "integer", float: "number", bool: "true \\| false", type(None): "", Any: "any"}
_PLAIN |= {SecretStr: "text"}


def main() -> None:
    for page in PAGES:
        before = page.read_text(encoding="utf-8")
        after = with_tables(before)
        if "--check" not in sys.argv[1:]:
            page.write_text(after, encoding="utf-8")
        elif before != after:
            sys.exit(f"docs/{page.name} is not what the code says: run python scripts/make_reference.py")
    _rules()


def _rules() -> None:
    made = {RULES / f"{code}.md": rule_page(rule) for code, rule in catalogue().items()}
    made[RULES / "README.md"] = rules_index()
    if "--check" not in sys.argv[1:]:
        RULES.mkdir(exist_ok=True)
        for page, text in made.items():
            page.write_text(text, encoding="utf-8")
    found = {page: page.read_text(encoding="utf-8") for page in RULES.glob("*.md")}
    if found != made:
        sys.exit("docs/rules is not what the catalogue says: run python scripts/make_reference.py, remove what is left")


def rules_index() -> str:
    """All rules in one table."""
    rows = [f"| [{code}]({code}.md) | {r.name} | {r.severity} | {r.title} |" for code, r in catalogue().items()]
    return _RULES_PAGE + "\n".join(["| code | name | severity | about |", "|---|---|---|---|", *rows]) + "\n"


def with_tables(page: str) -> str:
    """The page with every marked table made again."""

    def fill(marker: re.Match[str]) -> str:
        kind, name = marker[1], marker[2]
        if kind == "fields":
            made = fields_table(getattr(model, name))
        elif kind == "faults":
            made = faults_table(getattr(faults, name))
        elif kind == "outcomes":
            made = outcomes_table(name)
        else:
            made = columns_table(name) if kind == "columns" else events_table()
        return f"<!-- {kind}{': ' + name if name else ''} -->\n{made}\n<!-- end -->"

    return re.sub(
        r"<!-- (fields|columns|events|faults|outcomes)(?:: (\w+))? -->.*?<!-- end -->", fill, page, flags=re.DOTALL
    )


def outcomes_table(name: str) -> str:
    """Markdown table of what becomes of answers: rows by word, columns by what stands in the answer."""
    rows = json.loads(OUTCOMES.read_text(encoding="utf-8"))[name]
    columns = list(next(iter(rows.values())))
    words = {"A_WORD_TO_COME": "any other word", "": "none"}
    lines = [f"| `{name}` | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
    for word, row in rows.items():
        shown = words.get(word, f"`{word}`")
        lines.append(f"| {shown} | {' | '.join(row[c] for c in columns)} |")
    return "\n".join(lines)


def columns_table(name: str) -> str:
    """Markdown table of a Parquet file's columns; what each is for is the comment beside it."""
    source = inspect.getsource(records)
    start = source.index(f"{name}: Final")
    found = re.findall(
        r'^    "(\w+)": "(\w+)",(?:  # (.*))?$', source[start : source.index("\n}", start)], re.MULTILINE
    )
    rows = [f"| `{column}` | {kind} | {cell(text)} |" for column, kind, text in found]
    return "\n".join(["| column | type | |", "|---|---|---|", *rows])


def events_table() -> str:
    """Markdown table of the events, with their fields."""
    rows = []
    for event in records.Event.__subclasses__():
        fields = ", ".join(f"`{f}`" for f in event.__struct_fields__ if f not in records.Event.__struct_fields__)
        rows.append(f"| `{event.__name__}` | {cell(' '.join((event.__doc__ or '').split()))} | {fields} |")
    return "\n".join(["| type | | fields |", "|---|---|---|", *rows])


def faults_table(kinds: tuple[type[Kind], ...]) -> str:
    """Markdown table of kinds of faults: how one is written, where it works, what it does, what else can be said."""
    lines = ["| `do:` | calls | what happens |", "|---|---|---|"]
    for kind in kinds:
        about = " ".join((kind.__doc__ or "").split())
        hints = get_type_hints(kind, include_extras=True)
        others = [
            f"`{name}` ({', '.join(text for text in (type_text(hints[name]), default_text(field)) if text)}): "
            + cell(field.description or "")
            for name, field in kind.model_fields.items()
            if name != "type"
        ]
        calls = ", ".join(f"`{call}`" for call in kind.calls)
        lines.append(f"| `{kind.examples[0]}` | {calls} | {' <br> '.join([cell(about), *others])} |")
    return "\n".join(lines)


def fields_table(of: type[BaseModel]) -> str:
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

"""Complaints for other programs: GitHub's annotations, and SARIF. One rule for people."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import PurePath
from typing import Any, Final
from urllib.parse import quote

from batchform import __version__
from batchform.errors import Diagnostic
from batchform.rules import Example, Rule, catalogue

_SARIF: Final = "https://json.schemastore.org/sarif-2.1.0.json"


def as_github(complaints: Sequence[Diagnostic]) -> str:
    """Workflow commands, a line each: GitHub shows them beside the lines of the pull request."""
    return "\n".join(_command(c) for c in complaints)


def _command(complaint: Diagnostic) -> str:
    place = complaint.place
    spot = [("file", place.path)]
    spot += [(name, str(n)) for name, n in (("line", place.line), ("col", place.column)) if n]
    spot.append(("title", f"{complaint.code} {complaint.rule}"))
    properties = ",".join(f"{name}={_escaped(value, property_=True)}" for name, value in spot)
    text = f"{complaint.message}\n{complaint.hint}" if complaint.hint else complaint.message
    return f"::{complaint.severity} {properties}::{_escaped(text)}"


def _escaped(text: str, *, property_: bool = False) -> str:
    text = text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")
    return text.replace(":", "%3A").replace(",", "%2C") if property_ else text


def as_sarif(complaints: Sequence[Diagnostic]) -> str:
    """A log of the Static Analysis Results Interchange Format, 2.1.0, with the rules that were broken."""
    used = sorted({c.code for c in complaints})
    index = {code: i for i, code in enumerate(used)}
    rules = catalogue()
    driver = {"name": "batchform", "version": __version__, "rules": [_sarif_rule(rules[code]) for code in used]}
    results = [_sarif_result(c, index[c.code]) for c in complaints]
    run = {"tool": {"driver": driver}, "columnKind": "unicodeCodePoints", "results": results}
    return json.dumps({"$schema": _SARIF, "version": "2.1.0", "runs": [run]}, indent=2, ensure_ascii=False)


def _sarif_rule(rule: Rule) -> dict[str, Any]:
    return {
        "id": rule.code,
        "name": rule.name,
        "shortDescription": {"text": f"{rule.title}."},
        "fullDescription": {"text": rule.why},
        "help": {"text": rule.fix},
        "defaultConfiguration": {"level": rule.severity.partition(" ")[0]},
    }


def _sarif_result(complaint: Diagnostic, rule_index: int) -> dict[str, Any]:
    place = complaint.place
    region = {name: n for name, n in (("startLine", place.line), ("startColumn", place.column)) if n}
    location: dict[str, Any] = {
        "physicalLocation": {"artifactLocation": {"uri": _uri(place.path)}} | ({"region": region} if region else {})
    }
    if complaint.rows:
        rows = [{"fullyQualifiedName": f"{row.key} {row.path}", "kind": "element"} for row in complaint.rows]
        location["logicalLocations"] = rows
    text = f"{complaint.message} {complaint.hint}".strip()
    return {
        "ruleId": complaint.code,
        "ruleIndex": rule_index,
        "level": complaint.severity,
        "message": {"text": text},
        "locations": [location],
    }


def _uri(path: str) -> str:
    """A reference to a file, as RFC 3986 wants it: from the root of the repository, or of the machine."""
    return PurePath(path).as_uri() if path.startswith("/") else quote(path)


def rule_page(rule: Rule) -> str:
    """One rule as Markdown: what `validate --explain` prints, and a page of docs/rules."""
    ignored = "A spec may say that it does not hold, under `ignore:`." if rule.may_be_ignored else ""
    parts = [
        f"# {rule.code} {rule.name}",
        f"{rule.title}. Severity: {rule.severity}.",
        " ".join(filter(None, (rule.why, ignored))),
        f"What to do: {rule.fix}",
    ]
    for heading, example in (("Refused" if rule.severity != "warning" else "Noted", rule.bad), ("Better", rule.good)):
        if example:
            parts += [f"{heading}:", _example(example)]
    return "\n\n".join(parts) + "\n"


def print_rule(rule: Rule) -> None:
    """The page for a person at a terminal: wrapped, and without the marks of Markdown."""
    from rich.text import Text

    from batchform.view.console import make_console

    console = make_console()
    for line in rule_page(rule).splitlines():
        if line.startswith("```"):
            continue
        heading = line.startswith("# ")
        console.print(Text(line.removeprefix("# "), style="bold" if heading else ""))


def _example(example: Example) -> str:
    files = {"specs/triage.yaml": example} if isinstance(example, str) else example
    blocks = []
    for name, text in files.items():
        language = "yaml" if name.endswith(".yaml") else "text"
        shown = "".join(c if c.isprintable() or c == "\n" else f"<U+{ord(c):04X}>" for c in text)
        blocks.append(f"`{name}`\n```{language}\n{shown.rstrip()}\n```")
    return "\n\n".join(blocks)

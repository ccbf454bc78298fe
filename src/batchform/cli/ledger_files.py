"""`ledger mv` and `ledger forget`: write what is to happen into the project's files. The ledger is left alone: a plan
shows it, somebody reviews it, and `apply` does it."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import click

from batchform.cli.options import Common, common
from batchform.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path

_NEXT = "Nothing is recorded yet. Next: git diff, batchform plan"


@click.command("mv", short_help="Rename a spec in its file, with the word that its rows go along.")
@click.argument("old")
@click.argument("new")
@common
def mv_command(common: Common, old: str, new: str) -> None:
    """Write `moved: {from: OLD}` into the file of the spec, and the name NEW if it still has the old one.

    Changes no ledger: the plan shows the move, and `apply` makes it.
    """
    from batchform.cli.wiring import open_session
    from batchform.spec.fields import NAME_PATTERN

    if not re.fullmatch(NAME_PATTERN, new):
        raise UsageError(
            f"{new!r} is no name of a spec", hint="Up to 48 lower-case letters, digits, `-` and `_`; no space."
        )
    with open_session(common) as session:
        found = [s for s in session.project.specs if s.name in (old, new)]
        if len(found) != 1 or (found[0].name == new and old not in session.ledger.specs()):
            raise UsageError(
                f"{old} cannot become {new}: one of them must be a spec of the project, and {old} have rows"
            )
        if found[0].spec.moved is not None:
            raise UsageError(
                f"{found[0].name} has a `moved:` already", hint="Change it there; a list of names may stand."
            )
        path = found[0].path
        _put(
            path,
            rf"^name:[ \t]*[\"']?{re.escape(found[0].name)}[\"']?[ \t]*(#.*)?$",
            f"name: {new}\nmoved: {{from: {old}}}",
        )
        click.echo(f"Wrote {path.relative_to(session.root)}. {_NEXT}")


@click.command("forget", short_help="Write down that the rows of a removed spec are managed no more.")
@click.argument("spec")
@click.option("--reason", required=True, help="Why, for those who review it.")
@common
def forget_command(common: Common, spec: str, reason: str) -> None:
    """Add SPEC, which the project has no longer, to `removed:` in batchform.yaml.

    Changes no ledger: the plan shows it, and `apply` gives the rows up. What was delivered stays.
    """
    from batchform.cli.wiring import open_session

    with open_session(common) as session:
        if any(s.name == spec for s in session.project.specs):
            raise UsageError(f"{spec} cannot be given up: its spec is still there", hint="Remove its file first.")
        if spec not in session.ledger.specs():
            raise UsageError(f"nothing is recorded of {spec}", hint="batchform ledger list")
        line = f"  - {{spec: {spec}, reason: {_text(reason)}}}"
        file = session.project.file
        if session.project.config.removed:
            _put(file, r"^removed:[ \t]*(#.*)?$", f"removed:\n{line}")
        else:
            text = file.read_text(encoding="utf-8")
            file.write_text(f"{text.rstrip()}\n\nremoved:\n{line}\n", encoding="utf-8")
        click.echo(f"Wrote {file.name}. {_NEXT}")


def _text(value: str) -> str:
    """Any text as YAML, on one line."""
    return "".join(c if c.isprintable() else f"\\U{ord(c):08x}" for c in json.dumps(value, ensure_ascii=False))


def _put(path: Path, pattern: str, lines: str) -> None:
    """Replace the one line of this form. Raises UsageError where the file is written in another way."""
    text = path.read_text(encoding="utf-8")
    changed, count = re.subn(pattern, lambda _: lines, text, count=1, flags=re.MULTILINE)
    if not count:
        first = lines.replace("\n", "; ")
        raise UsageError(
            f"{path.name} is written in a way that is not changed here", hint=f"Write it yourself: {first}"
        )
    path.write_text(changed, encoding="utf-8")

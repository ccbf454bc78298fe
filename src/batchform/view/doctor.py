"""What `doctor` found, for people."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Final

from rich.console import Console
from rich.text import Text

from batchform.run.doctor import Finding
from batchform.spec.wording import counted
from batchform.view.console import Grid
from batchform.view.text import safe

_MARKS: Final = {
    "ok": ("✓ ok", "green"),
    "warning": ("! warning", "yellow"),
    "failure": ("✗ failure", "bold red"),
    "unknown": ("? unknown", "cyan"),
}
_COMMAND_INDENT: Final = 6


def print_findings(console: Console, findings: Sequence[Finding], *, only_wrong: bool) -> None:
    """By subject, in order, aligned; under each the way out. only_wrong: leave out what is ok."""
    shown = [f for f in findings if f.status != "ok"] if only_wrong else list(findings)
    width = max((len(f.check) for f in shown), default=0)
    for subject, group in itertools.groupby(shown, key=lambda f: f.subject):
        console.print(Text(safe(subject), style="bold"))
        for finding in group:
            mark, style = _MARKS[finding.status]
            cells = (Text(mark.ljust(9), style=style), Text(finding.check.ljust(width)), Text(safe(_said(finding))))
            console.print(Grid([cells]))
            for line in command_lines(finding.fix, width=console.width - _COMMAND_INDENT):
                console.print(Text(" " * _COMMAND_INDENT + safe(line)), soft_wrap=True)
        console.print()


def summary(findings: Sequence[Finding]) -> str:
    """`1 failure, 2 warnings, 9 ok, 1 unknown.`"""
    counts = Counter(f.status for f in findings)
    parts = [counted(counts["failure"], "failure"), counted(counts["warning"], "warning"), f"{counts['ok']} ok"]
    parts += [f"{counts['unknown']} unknown"] if counts["unknown"] else []
    return ", ".join(parts) + "."


def command_lines(command: str, *, width: int) -> Iterator[str]:
    """A command as it can be pasted: on one line if it fits, else broken before its options."""
    if not command:
        return
    if len(command) <= width or " --" not in command:
        yield command
        return
    line, *options = command.split(" --")
    for option in options:
        if len(line) + len(option) + 5 > width:
            yield line + " \\"
            line = f"    --{option}"
        else:
            line += f" --{option}"
    yield line


def _said(finding: Finding) -> str:
    if not finding.hint:
        return finding.message
    end = "" if finding.message.endswith((".", "!", "?", ":", "…")) else "."  # what others say may come without
    return f"{finding.message}{end} {finding.hint}"

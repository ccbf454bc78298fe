"""The long proofs that nothing is paid for twice and no answer is lost: `make prove`, or one part by its name.

    python scripts/prove.py [--list] [PART …]

A part is a program of its own. It exits with 0 when every law held, and its last line on standard output is a JSON
object of counts. What it says before passes through as it comes. At the end one table has all counts.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Part:
    """name: as given on the command line; about: what it does, for the table; command: after the interpreter."""

    name: str
    about: str
    command: tuple[str, ...]


PARTS = (
    Part("crash", "each command killed at each of its effects", ("tests/prove/crash_matrix.py",)),
    Part(
        "faults",
        "each fault of the service at each call, and pairs of them",
        ("tests/prove/fault_matrix.py", "--every", "3"),
    ),
    Part("histories", "random histories of a project, over months of virtual time", ("tests/prove/history_run.py",)),
    Part(
        "vertex-histories",
        "the same on Vertex AI, with inputs in Cloud Storage",
        ("tests/prove/history_run.py", "--cloud", "vertex"),
    ),
    Part(
        "table-histories",
        "the same on Vertex AI, with inputs in BigQuery",
        ("tests/prove/history_run.py", "--cloud", "tables"),
    ),
)


@dataclass(frozen=True)
class Outcome:
    part: Part
    code: int
    counts: dict[str, int]
    seconds: float


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help="all, if none is named")
    parser.add_argument("--list", action="store_true", help="say which there are")
    given = parser.parse_args()
    if given.list:
        say("\n".join(f"{p.name:16} {p.about}" for p in PARTS))
        return 0
    unknown = set(given.parts) - {p.name for p in PARTS}
    if unknown:
        parser.error(f"no such part: {', '.join(sorted(unknown))} (there are {', '.join(p.name for p in PARTS)})")
    outcomes = [run(p) for p in PARTS if not given.parts or p.name in given.parts]
    say(table(outcomes))
    return 1 if any(o.code for o in outcomes) else 0


def run(part: Part) -> Outcome:
    """Run a part, passing on what it says."""
    say(f"--- {part.name}: {part.about}")
    start, last = time.monotonic(), ""
    with subprocess.Popen(
        [sys.executable, *part.command], cwd=ROOT, env={**os.environ, "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        for line in process.stdout:
            last = line.strip() or last
            say(line.rstrip("\n"))
    return Outcome(part, process.returncode, counts_in(last), time.monotonic() - start)


def counts_in(line: str) -> dict[str, int]:
    """The counts of a part's last line; none when the part broke off before it."""
    try:
        found = json.loads(line)
    except ValueError:
        return {}
    return {str(k): v for k, v in found.items() if isinstance(v, int)} if isinstance(found, dict) else {}


def table(outcomes: Sequence[Outcome]) -> str:
    lines = [""]
    for outcome in outcomes:
        counts = ", ".join(f"{count:,} {name}" for name, count in outcome.counts.items()) or "broke off"
        word = "holds" if outcome.code == 0 else "FAILED"
        lines.append(f"{outcome.part.name:16} {word:7} {outcome.seconds:6.0f} s   {counts}")
    return "\n".join(lines)


def say(text: str) -> None:
    print(text, flush=True)  # noqa: T201


if __name__ == "__main__":
    sys.exit(main())

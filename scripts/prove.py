"""The long proofs that nothing is paid for twice and no answer is lost: `make prove`, or some parts by their names.

    python scripts/prove.py [--list] [--go-on] [--write-docs] [PART …]

A part is a program of its own. It exits with 0 when every law held, and its last line on standard output is a JSON
object of counts. What it says before passes through as it comes. At the end one table has all counts. Outcomes are kept
in .prove/: `--go-on` leaves out what held before with the same sources, also within the crash matrix, and
`--write-docs` puts the last outcome of each part into docs/reliability.md.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
KEPT = ROOT / ".prove"
DOCS = ROOT / "docs" / "reliability.md"
BEGIN, END = "<!-- outcomes: make prove ARGS=--write-docs -->\n", "<!-- end -->\n"


@dataclass(frozen=True)
class Part:
    """name: as given on the command line; about: what it does, for the table; command: after the interpreter;
    journals: whether it can go on from a file of its own, `--journal FILE`."""

    name: str
    about: str
    command: tuple[str, ...]
    journals: bool = False


def _crash(name: str, about: str, *clouds: str) -> Part:
    command = ("tests/prove/crash_matrix.py", *(f"--cloud={cloud}" for cloud in clouds))
    return Part(name, f"each command killed at each of its effects{about}", command, journals=True)


def _histories(name: str, about: str, *options: str) -> Part:
    return Part(name, about, ("tests/prove/history_run.py", "--seconds", "300", *options))


PARTS = (
    _crash("crash", "", "gemini", "joined"),
    _crash("crash-vertex", ", on Vertex AI with inputs in Cloud Storage", "vertex", "staying"),
    _crash("crash-tables", ", on Vertex AI with inputs in BigQuery", "tables"),
    _crash("crash-bucket", ", with the ledger in a bucket too", "bucket"),
    Part(
        "faults",
        "each fault of the service at each call, and pairs of them",
        ("tests/prove/fault_matrix.py", "--every", "3"),
    ),
    Part("storage", "the ledger in a bucket: a fault, or a kill, at each call", ("tests/prove/storage_run.py",)),
    _histories("histories", "random histories of a project, over months of virtual time"),
    _histories("vertex-histories", "the same on Vertex AI, with inputs in Cloud Storage", "--cloud", "vertex"),
    _histories("table-histories", "the same on Vertex AI, with inputs in BigQuery", "--cloud", "tables"),
)


@dataclass(frozen=True)
class Outcome:
    """What a part came to. sources: digest of the sources that it ran with."""

    part: str
    code: int
    counts: dict[str, int]
    seconds: float
    sources: str = ""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help="all, if none is named")
    parser.add_argument("--list", action="store_true", help="say which there are")
    parser.add_argument("--go-on", action="store_true", help="leave out what held before with these sources")
    parser.add_argument("--write-docs", action="store_true", help="run nothing; put the last outcomes into the docs")
    given = parser.parse_args()
    if given.list:
        say("\n".join(f"{p.name:16} {p.about}" for p in PARTS))
        return 0
    if given.write_docs:
        DOCS.write_text(with_outcomes(DOCS.read_text(encoding="utf-8"), kept(KEPT)), encoding="utf-8")
        return 0
    unknown = set(given.parts) - {p.name for p in PARTS}
    if unknown:
        parser.error(f"no such part: {', '.join(sorted(unknown))} (there are {', '.join(p.name for p in PARTS)})")
    sources = sources_digest()
    before = {o.part: o for o in kept(KEPT) if given.go_on and o.code == 0 and o.sources == sources}
    chosen = [p for p in PARTS if not given.parts or p.name in given.parts]
    outcomes = [before.get(p.name) or run(p, sources, go_on=given.go_on) for p in chosen]
    say(table(outcomes))
    return 1 if any(o.code for o in outcomes) else 0


def run(part: Part, sources: str, *, go_on: bool) -> Outcome:
    """Run a part, passing on what it says, and keep what it came to."""
    say(f"--- {part.name}: {part.about}")
    start, last, command = time.monotonic(), "", [sys.executable, *part.command]
    KEPT.mkdir(exist_ok=True)
    if part.journals:
        journal = KEPT / f"{part.name}.{sources[:16]}.jsonl"
        if not go_on:
            journal.unlink(missing_ok=True)
        command += ["--journal", str(journal)]
    with subprocess.Popen(
        command, cwd=ROOT, env={**os.environ, "PYTHONUNBUFFERED": "1"}, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            last = line.strip() or last
            say(line.rstrip("\n"))
    outcome = Outcome(part.name, process.returncode, counts_in(last), time.monotonic() - start, sources)
    (KEPT / f"{part.name}.json").write_text(json.dumps(asdict(outcome)), encoding="utf-8")
    return outcome


def sources_digest() -> str:
    """Of what a part runs: the package and the tests, as they lie here."""
    files = (f for top in ("src", "tests") for f in (ROOT / top).rglob("*") if f.is_file())
    kept = sorted(f for f in files if f.suffix in (".py", ".toml", ".yaml", ".json"))
    return hashlib.sha256(b"".join(hashlib.sha256(f.read_bytes()).digest() for f in kept)).hexdigest()


def counts_in(line: str) -> dict[str, int]:
    """The counts of a part's last line; none when the part broke off before it."""
    try:
        found = json.loads(line)
    except ValueError:
        return {}
    return {str(k): v for k, v in found.items() if isinstance(v, int)} if isinstance(found, dict) else {}


def kept(folder: Path) -> list[Outcome]:
    """The last outcome of each part."""
    files = [folder / f"{p.name}.json" for p in PARTS]
    return [Outcome(**json.loads(f.read_text(encoding="utf-8"))) for f in files if f.exists()]


def with_outcomes(text: str, outcomes: Sequence[Outcome]) -> str:
    """The text with the outcomes in place of what is between its two marks."""
    head, begin, rest = text.partition(BEGIN)
    _, end, tail = rest.partition(END)
    assert begin and end, "the place for outcomes is gone"
    lines = ["| part | outcome | counts | time |", "|---|---|---|---|"]
    for o in outcomes:
        word = "every law held" if o.code == 0 else "a law was broken"
        lines.append(f"| `{o.part}` | {word} | {shown(o.counts)} | {o.seconds / 60:.0f} min |")
    return head + begin + "\n".join(lines) + "\n" + end + tail


def table(outcomes: Sequence[Outcome]) -> str:
    lines = [""]
    for o in outcomes:
        word = "holds" if o.code == 0 else "FAILED"
        lines.append(f"{o.part:16} {word:7} {o.seconds:6.0f} s   {shown(o.counts) or 'broke off'}")
    return "\n".join(lines)


def shown(counts: dict[str, int]) -> str:
    return ", ".join(f"{count:,} {name}" for name, count in counts.items())


def say(text: str) -> None:
    print(text, flush=True)  # noqa: T201


if __name__ == "__main__":
    sys.exit(main())

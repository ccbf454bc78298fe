"""The story of `make demo`: a real table planned, sent, collected and delivered, then changed.

Works in a copy of this project under .demo/, so that the clone stays as it is. Every line that starts with
`$` is exactly what was run there; in between, this script checks what it claims, and stops if a claim does
not hold.
"""

from __future__ import annotations

import difflib
import json
import os
import shutil
import subprocess
import sys
import textwrap
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DEMO = ROOT / ".demo"
PROJECT = ("batchform.yaml", "specs", "templates", "schemas", "data")
ENVIRONMENT = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"}


def main() -> None:
    started = time.monotonic()
    fresh_copy()
    first_apply()
    nothing_changed()
    one_row_edited()
    templates_edited()
    say(f"""
        That was the whole loop, in {time.monotonic() - started:.0f} seconds and for nothing: the
        emulator answered, and the ledger marks its answers as synthetic, so that they never count
        as Gemini's. The copy is in .demo/: look around with `cd .demo`, edit a spec, and plan
        again. README.md has the same path with a real API key.""")


def fresh_copy() -> None:
    heading("1. A project is files: specs, templates, schemas, rows")
    say("""
        420 Debian packages with their descriptions, and three specs: `classify` asks for a JSON
        object by a response schema and goes into Parquet, `summarize` writes text into JSONL,
        `extract` fills a table of a SQLite file.""")
    shutil.rmtree(DEMO, ignore_errors=True)
    DEMO.mkdir()
    for name in PROJECT:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, DEMO / name, ignore=shutil.ignore_patterns("editor", "README.md"))
        else:
            shutil.copy(source, DEMO / name)
    run("cat specs/classify.yaml")
    run("batchform validate")


def first_apply() -> None:
    heading("2. Plan: what would be sent, why, and what it would cost")
    expect_to_send(classify=420)
    run("batchform plan --out plan")
    say("""
        Every row is new, so every row would be sent. Nothing was sent yet: planning only reads. In a pull
        request, this is what a reviewer sees. The folder `plan` now holds the exact requests.""")
    heading("3. Apply that very plan: send, wait, collect, deliver")
    run("batchform apply plan --yes")
    say("""
        One job per spec went through the Files and Batch APIs of the emulator with Google's own client.
        Each job was recorded as an intent before it was created; each answer was archived before it was
        parsed.""")
    run("batchform results classify")
    run("head -n 2 results/summaries.jsonl")
    run("ls -l results")


def nothing_changed() -> None:
    heading("4. Again, with nothing changed")
    expect_to_send(classify=0, summarize=0, extract=0)
    run("batchform apply --yes")
    say("No job, no cost. A nightly run may do this as often as it likes.")


def one_row_edited() -> None:
    heading("5. Edit one row")
    edit(
        "data/packages.csv",
        "Web-based database administration tool",
        "Database administration in one PHP file",
    )
    expect_to_send(classify=1, summarize=0, extract=0)
    run("batchform plan")
    say("""
        One row to send, and the plan names the reason. The other specs leave this row out, by their
        `where`. Reordering, touching or re-exporting the file would send nothing: rows are known by
        key and content.""")
    run("batchform apply --yes")


def templates_edited() -> None:
    heading("6. Refactor a template that all three prompts share")
    edit("templates/package.j2", "{{ description | trim }}", "{% set text = description | trim -%}\n{{ text }}")
    expect_to_send(classify=0, summarize=0, extract=0)
    run("batchform plan")
    say("""
        All rows were rendered again, and every request came out the same to the byte: nothing to
        send. What counts is the request that the model would receive, not the file that it came
        from.""")
    heading("7. Change what the model is asked")
    edit(
        "templates/classify.j2",
        "Classify this package.",
        "Classify this package. When in doubt, choose other.",
    )
    expect_to_send(classify=420, summarize=0, extract=0)
    run("batchform plan --select classify")
    say("""
        Now every request of `classify` differs, so the plan is to send all 420 rows again, at the
        price it shows: the line to look at before you merge. `batchform explain classify adminer`
        shows one row before and after.""")
    run("batchform explain classify adminer")


# --- telling ---


def heading(text: str) -> None:
    bold, plain = ("\033[1m", "\033[0m") if colour() else ("", "")
    show(f"\n{bold}== {text}{plain}\n")


def say(text: str) -> None:
    show(textwrap.fill(" ".join(text.split()), 100) + "\n")


def show(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def colour() -> bool:
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR")


# --- doing ---


def run(command: str) -> None:
    """Run a command in the copy, as a user would type it; stop the demo if it fails."""
    show(f"$ {command}")
    done = subprocess.run(command, shell=True, cwd=DEMO, env=ENVIRONMENT, check=False)
    if done.returncode:
        sys.exit(f"demo: `{command}` ended with exit code {done.returncode}")
    show("")


def edit(name: str, old: str, new: str) -> None:
    """Replace text that occurs once in a file of the copy, and show the difference."""
    path = DEMO / name
    before = path.read_text(encoding="utf-8")
    if before.count(old) != 1:
        sys.exit(f"demo: {name} has {before.count(old)} times {old!r}, not once")
    after = before.replace(old, new)
    path.write_text(after, encoding="utf-8", newline="\n")
    show(f"(edit {name})")
    diff = difflib.unified_diff(before.splitlines(), after.splitlines(), lineterm="", n=0)
    show("\n".join(f"    {line}" for line in list(diff)[2:] if not line.startswith("@@")) + "\n")


def expect_to_send(**rows: int) -> None:
    """Check the claims of the story against `plan --format json`."""
    command = ["batchform", "plan", "--format", "json"]
    done = subprocess.run(command, cwd=DEMO, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"demo: `{' '.join(command)}` ended with exit code {done.returncode}\n{done.stderr}")
    planned = {spec["name"]: spec["rows_to_send"] for spec in json.loads(done.stdout)["specs"]}
    for name, expected in rows.items():
        if planned.get(name) != expected:
            sys.exit(f"demo: {name} should have {expected} rows to send, and the plan says {planned.get(name)}")


if __name__ == "__main__":
    main()

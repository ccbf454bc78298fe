"""Make the fixture of the ledger's present format: a small project as this version leaves it, answered and delivered.

python scripts/make_ledger_fixture.py [--force]

It is written to tests/ledger/released/ under the versions of the ledger's format and of request fingerprints, and never
changed afterwards: `tests/ledger/test_released_formats.py` plans it with every later version, which must send nothing.
Run it when one of the two was raised, before the release, and keep the older ones. See docs/ledger.md, Upgrades.
"""

from __future__ import annotations

import contextlib
import io
import os
import platform
import sys
import tarfile
import tempfile
from pathlib import Path

from batchform.canon import FINGERPRINT_VERSION
from batchform.cli import run
from batchform.ledger.records import FORMAT_VERSION

ROOT = Path(__file__).resolve().parent.parent
RELEASED = ROOT / "tests" / "ledger" / "released"
_SPEC = """name: {name}
{more}source: {{type: csv, path: data/tickets.csv{where}}}
prompt: {{user: {{text: "{text}"}}}}
model: gemini-3.5-flash-lite
generation_config: {{temperature: 0, max_output_tokens: 64{schema}}}
destination: {{type: jsonl, path: results/{path}.jsonl}}
idempotency: {{key: {key}}}
"""
_ROWS = "id,tenant,title,body\nT-1,acme,one,1\nT-2,acme,two,2\nT-3,globex,three,3\nT-4,globex,four,4\n"
_SCHEMA = ", response_schema: {type: object, properties: {label: {type: string}}, required: [label]}"


def fixture_name() -> str:
    """The name of the fixture of the formats that this version writes."""
    return f"format-{FORMAT_VERSION}-fingerprint-{FINGERPRINT_VERSION}.tar.gz"


def make(folder: Path) -> None:
    """A project with a history: rows that changed or left, a rerun, a compaction, a rename with new keys."""

    def write(name: str, text: str) -> None:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)

    write(
        "batchform.yaml",
        "version: 1\nproject: released\nbackends: {local: {type: emulator, job_seconds: 0, poll: 10ms}}\n",
    )
    plain = {"more": "", "where": "", "text": "{{ title }}: {{ body }}", "schema": "", "path": "triage", "key": "[id]"}
    labels = {**plain, "name": "labels", "schema": _SCHEMA, "path": "labels", "where": ", where: tenant = 'acme'"}
    write("data/tickets.csv", _ROWS)
    write("specs/triage.yaml", _SPEC.format(**{**plain, "name": "triage"}))
    write("specs/labels.yaml", _SPEC.format(**labels))
    _run(folder, "apply", "--yes")
    write("data/tickets.csv", _ROWS.replace("two,2", "two,changed").replace("T-4,globex,four,4\n", ""))
    _run(folder, "rerun", "triage", "--key", "T-1", "--reason", "as asked")
    _run(folder, "apply", "--yes")
    _run(folder, "ledger", "compact", "--keep", "0s")
    (folder / "specs/triage.yaml").unlink()
    moved = "moved: {from: triage, key: [id]}\n"
    write("specs/support.yaml", _SPEC.format(**{**plain, "name": "support", "more": moved, "key": "[tenant, id]"}))
    _run(folder, "apply", "--yes")
    write("data/tickets.csv", _ROWS.replace("two,2", "two,changed").replace("T-4,globex,four,4\n", "T-5,acme,five,5\n"))
    _run(folder, "apply", "--yes")


def _run(folder: Path, *arguments: str) -> None:
    told = io.StringIO()
    with contextlib.chdir(folder), contextlib.redirect_stdout(told), contextlib.redirect_stderr(told):
        code = run([*arguments])
    if code:
        raise SystemExit(f"batchform {' '.join(arguments)} ended with {code}:\n{told.getvalue()}")


def pack(folder: Path, to: Path) -> None:
    """The project and its ledger, without what belongs to one machine: the emulator, notes of plans, the lease."""

    def kept(entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
        entry.uid = entry.gid = 0
        entry.uname = entry.gname = ""
        own = entry.name.split("/")
        return None if own[:1] == [".batchform"] and own[1:2] and own[1] in _OWN else entry

    with tarfile.open(to, "w:gz", compresslevel=9) as archive:
        for path in sorted(folder.iterdir()):
            archive.add(path, path.name, filter=kept)


_OWN = ("emulator", "cache", "lease.json", "lease", ".lock", ".tmp")


def main() -> None:
    to = RELEASED / fixture_name()
    if to.exists() and "--force" not in sys.argv[1:]:
        raise SystemExit(f"{to} is there: a fixture of a released format is never changed (--force before a release)")
    os.environ["LOGNAME"], platform.node = "somebody", lambda: "somewhere"  # who wrote it is nobody's affair
    RELEASED.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        make(Path(folder))
        pack(Path(folder), to)
    sys.stdout.write(f"{to.relative_to(ROOT)}: {to.stat().st_size:,} bytes\n")


if __name__ == "__main__":
    main()

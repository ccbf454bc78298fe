"""Every folder of examples/ is a project that runs on the emulator, and what goes over the wire is as it was.

After a change that is meant: `python tests/examples/test_examples.py` writes the golden files again; read the diff.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import sqlite3
import sys
import tempfile
from pathlib import Path

import pytest
import yaml

from batchform.cli import run

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = Path(__file__).with_name("golden")
KINDS = sorted(p.parent.name for p in (ROOT / "examples").glob("*/batchform.yaml"))
CLOUDS = {"gemini": (), "vertex": ("--env", "vertex")}
_CACHE = re.compile(rb'"cachedContents/[0-9a-f]+"')
_HOST = re.compile(rb"http://127\.0\.0\.1:\d+/")


def cases() -> list[tuple[str, str]]:
    """(folder, cloud): Vertex AI where the project has an environment of that name."""
    found = []
    for kind in KINDS:
        project = yaml.safe_load((ROOT / "examples" / kind / "batchform.yaml").read_text(encoding="utf-8"))
        found += [(kind, cloud) for cloud in CLOUDS if cloud == "gemini" or "vertex" in project.get("environments", {})]
    return found


def sent(root: Path, cloud: str) -> bytes:
    """The lines that jobs were given, as the emulator took them in, and what caches hold. Jobs are made at once:
    they are ordered by text."""
    state = root / ".batchform/emulator"
    query = {
        "gemini": "SELECT path FROM files WHERE id LIKE 'bf-%'",
        "vertex": "SELECT content FROM objects WHERE name LIKE '%inputs/bf-%' AND deleted_at IS NULL",
    }[cloud]
    con = sqlite3.connect(state / "emulator.sqlite")
    try:
        names = [row[0] for row in con.execute(query)]
        held = [f"{row[0]}\n".encode() for row in con.execute("SELECT content FROM caches ORDER BY content")]
    finally:
        con.close()
    files = [path for name in names for path in state.rglob(name)]
    assert files, "no job was given any lines"
    lines = b"".join([*held, *sorted(f.read_bytes() for f in files)])
    lines = _CACHE.sub(b'"cachedContents/ID"', lines)
    return _HOST.sub(b"https://generativelanguage.googleapis.com/", lines)


def ran(kind: str, cloud: str, to: Path) -> bytes:
    """Run an example to its end in a copy; returns what was sent."""
    root, environment = to / kind, CLOUDS[cloud]
    shutil.copytree(ROOT / "examples" / kind, root, ignore=shutil.ignore_patterns(".batchform", "results"))
    with contextlib.chdir(root):
        assert run(["validate", *environment]) == 0
        assert run(["apply", "--yes", "--quiet", "--detach", *environment]) == 0
        lines = sent(root, cloud)
        assert run(["sync", "--wait", "--quiet", *environment]) == 0
        assert run(["plan", "--detailed-exitcode", "--quiet", *environment]) == 0, "a second plan sends something"
    return lines


@pytest.mark.parametrize(("kind", "cloud"), cases())
def test_an_example_runs_and_sends_what_it_sent(
    kind: str, cloud: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("GEMINI_API_KEY", "GOOGLE_API_KEY", "GOOGLE_GEMINI_BASE_URL", "BATCHFORM_ENV"):
        monkeypatch.delenv(name, raising=False)
    lines = ran(kind, cloud, tmp_path)
    assert lines.decode() == (GOLDEN / f"{kind}.{cloud}.jsonl").read_text(encoding="utf-8")
    assert any((tmp_path / kind / "results").iterdir())


def test_each_golden_file_is_of_an_example() -> None:
    assert {p.name for p in GOLDEN.iterdir()} == {f"{kind}.{cloud}.jsonl" for kind, cloud in cases()}


if __name__ == "__main__":
    os.environ.pop("BATCHFORM_ENV", None)
    only = sys.argv[1:]
    for kind, cloud in cases():
        if not only or kind in only:
            with tempfile.TemporaryDirectory() as folder:
                (GOLDEN / f"{kind}.{cloud}.jsonl").write_bytes(ran(kind, cloud, Path(folder)))

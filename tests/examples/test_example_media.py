"""The media of examples/ are what their script makes, so that their origin is plain."""

from __future__ import annotations

import importlib.util
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_media_are_made_by_their_script() -> None:
    spec = importlib.util.spec_from_file_location("make_example_media", ROOT / "scripts/make_example_media.py")
    assert spec is not None and spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    examples = ROOT / "examples"
    made = {p.relative_to(examples).as_posix(): p.read_bytes() for p in examples.glob("*/media/*")}
    assert made == script.made()

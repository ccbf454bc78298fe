"""The reference page shows every field of every model, as the models are now."""

import subprocess
import sys
from pathlib import Path

from pydantic import BaseModel

from batchform.spec import model

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs/specs.md"


def test_tables_are_current() -> None:
    command = [sys.executable, str(ROOT / "scripts/make_reference.py"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_every_model_has_a_table_and_every_field_a_description() -> None:
    page = PAGE.read_text(encoding="utf-8")
    models = [m for m in vars(model).values() if isinstance(m, type) and issubclass(m, BaseModel)]
    public = [m for m in models if m not in (BaseModel, model.Strict) and not m.__name__.startswith("_")]
    assert len(public) > 10
    for each in public:
        assert f"<!-- fields: {each.__name__} -->" in page, each.__name__
        for name, field in each.model_fields.items():
            assert field.description, f"{each.__name__}.{name} has no description"

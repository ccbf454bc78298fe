"""The demo's rows and specs are what the README says they are."""

import csv
import json
import re
from collections import Counter
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
COLUMNS = ["name", "section", "version", "source", "homepage", "installed_kib", "summary", "description"]
SCHEMA_KEYWORDS = {
    "type", "properties", "required", "enum", "items", "description", "minimum", "maximum", "minItems",
    "maxItems", "anyOf", "propertyOrdering",
}  # fmt: skip


@pytest.fixture(scope="module")
def rows() -> list[dict[str, str]]:
    with (ROOT / "data/packages.csv").open(encoding="utf-8", newline="") as f:
        return list(csv.DictReader(f, strict=True))


def test_rows_are_as_many_as_the_documents_say(rows: list[dict[str, str]]) -> None:
    assert list(rows[0]) == COLUMNS
    assert len(rows) == 420
    assert set(Counter(row["section"] for row in rows).values()) == {30}
    for document in ("README.md", "data/README.md", "scripts/demo.py"):
        assert "420" in (ROOT / document).read_text(encoding="utf-8"), document


def test_names_are_a_key(rows: list[dict[str, str]]) -> None:
    names = [row["name"] for row in rows]
    assert names == sorted(set(names))


def test_text_is_real_and_clean(rows: list[dict[str, str]]) -> None:
    assert sum(row["homepage"] == "" for row in rows) == 25
    for row in rows:
        assert 160 <= len(row["description"]) <= 1400, row["name"]
        assert row["summary"], row["name"]
        assert not any(ord(c) < 32 and c != "\n" for value in row.values() for c in value), row["name"]


def test_file_has_one_kind_of_line_end() -> None:
    content = (ROOT / "data/packages.csv").read_bytes()
    assert b"\r" not in content
    assert b"\0" not in content
    assert not content.startswith(b"\xef\xbb\xbf")


def test_origin_and_licence_are_stated() -> None:
    text = (ROOT / "data/README.md").read_text(encoding="utf-8")
    for fact in ("Origin", "Licence", "2026-11-21", "debian/copyright", "scripts/make_demo_data.py"):
        assert fact in text, fact


def test_three_specs_go_into_three_kinds_of_destination() -> None:
    specs = [yaml.safe_load(p.read_text(encoding="utf-8")) for p in sorted((ROOT / "specs").glob("*.yaml"))]
    assert {s["name"]: s["destination"]["type"] for s in specs} == {
        "classify": "parquet",
        "extract": "sqlite",
        "summarize": "jsonl",
    }
    for spec in specs:
        assert (ROOT / spec["source"]["path"]).exists()
        assert spec["description"]


@pytest.mark.parametrize("name", ["classify", "extract"])
def test_response_schemas_use_common_keywords_only(name: str) -> None:
    def keywords(schema: dict[str, object]) -> set[str]:
        found = set(schema)
        for child in dict(schema.get("properties", {})).values():  # type: ignore[call-overload]
            found |= keywords(child)
        if isinstance(schema.get("items"), dict):
            found |= keywords(schema["items"])  # type: ignore[arg-type]
        return found

    schema = json.loads((ROOT / f"schemas/{name}.json").read_text(encoding="utf-8"))
    assert keywords(schema) <= SCHEMA_KEYWORDS
    assert schema["propertyOrdering"] == list(schema["properties"])


def test_readme_explains_the_spec_as_it_is() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    explained = re.search(r"```yaml\n# specs/classify.yaml\n(.*?)```", readme, re.DOTALL)
    assert explained
    assert yaml.safe_load(explained[1]) == yaml.safe_load((ROOT / "specs/classify.yaml").read_text(encoding="utf-8"))

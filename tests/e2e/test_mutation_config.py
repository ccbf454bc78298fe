"""Every field of generationConfig and of a safety setting: a change sends all rows, another spelling none.

What is compared is what the two levels of a plan's diff compare: a row is rendered when a digest differs, and sent when
the fingerprint of its request differs too.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from mutation_table import COMMON, SCHEMA, write_specs
from tests_e2e_kit import Workspace

from batchform.canon import RequestHasher
from batchform.rows.request import RequestRenderer
from batchform.spec.generation import FIELDS, SAFETY_FIELDS, SCHEMA_FIELDS, snake
from batchform.spec.load import load_project

TEXTS = {"responseMimeType": ("application/json", "text/x.enum")}
NUMBERS = {"topK": (1, 2), "candidateCount": (1, 1)}  # more than one candidate is refused
Values = tuple[Any, Any]


def config_leaves(kind: Any = FIELDS, at: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Values]]:
    """Every field that generation_config knows, by its path, with two values for it."""
    if isinstance(kind, Mapping):
        for name, inner in kind.items():
            yield from config_leaves(inner, (*at, name))
    elif isinstance(kind, list):
        yield from config_leaves(kind[0], (*at, "[]"))
    else:
        yield at, _two_values(kind, at[-1])


def _two_values(kind: Any, name: str) -> Values:
    if isinstance(kind, tuple):
        return kind[0], kind[1]
    if kind == "text":
        return TEXTS.get(name, ("one", "two"))
    plain: dict[str, Values] = {"bool": (True, False), "number": (1, 0.5), "json": ({"a": 1}, {"a": 2}), "int": (1, 2)}
    return NUMBERS.get(name, plain[kind])


def config_of(path: tuple[str, ...], value: Any) -> dict[str, Any]:
    """A generation_config in which only the field at this path is set."""
    for name in reversed(path):
        value = [value] if name == "[]" else {name: value}
    return dict(value)


def spelled(value: Any) -> Any:
    """The same value, said otherwise: snake_case names in reverse order, fractional numbers, words in lower case."""
    if isinstance(value, Mapping):
        return {snake(name): spelled(inner) for name, inner in reversed(value.items())}
    if isinstance(value, list):
        return [spelled(inner) for inner in value]
    if isinstance(value, str):
        return value.lower() if value.isupper() else value
    return float(value) if type(value) is int else value


@pytest.fixture(scope="module")
def identity(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Function: specs by name → what the two levels of a plan's diff compare of each: digests, and a row's fingerprint.

    A row is sent when both differ. It is not even rendered when the digests are equal.
    """
    root = tmp_path_factory.mktemp("identity") / "project"
    workspace = Workspace(root, lambda: ("", ""))
    (root / "specs/triage.yaml").unlink()

    def identify(specs: Mapping[str, Mapping[str, Any]]) -> dict[str, tuple[Any, ...]]:
        for name, changes in specs.items():
            made = {
                **COMMON,
                "source": {"type": "files", "path": "pages/*.txt"},
                "prompt": {"user": {"text": "{{ text }}"}},
                **changes,
            }
            made["destination"] = {"type": "jsonl", "path": f"results/{name}.jsonl"}
            write_specs(workspace, {name: made})
        loaded = load_project(root / "batchform.yaml", environment=None, env={})
        found = {}
        for spec in loaded.specs:
            request = RequestRenderer(spec, ["text"]).render("a", ["A"])
            fingerprint = RequestHasher(model=spec.model, realm="emulator").fingerprint(request)
            found[spec.name] = (spec.prompt_digest, spec.config_digest, spec.schema_digest), fingerprint
        shutil.rmtree(root / "specs")
        return found

    return identify


def test_every_field_of_a_generation_config_counts_and_its_spelling_does_not(identity: Any) -> None:
    leaves = dict(config_leaves())
    specs: dict[str, dict[str, Any]] = {"none": {}}
    for number, (path, values) in enumerate(leaves.items()):
        first = config_of(path, values[0])
        for kind, config in (("first", first), ("same", spelled(first)), ("other", config_of(path, values[1]))):
            specs[f"f{number}-{kind}"] = {"generation_config": config}
    found = identity(specs)
    for number, (path, values) in enumerate(leaves.items()):
        first, same, other = (found[f"f{number}-{kind}"] for kind in ("first", "same", "other"))
        assert first == same, path
        for level in (0, 1):
            assert first[level] != found["none"][level], path
            assert (first[level] != other[level]) == (values[0] != values[1]), path


@pytest.mark.parametrize("name", SCHEMA_FIELDS)
def test_a_response_schema_counts_and_its_spelling_does_not(identity: Any, name: str) -> None:
    other = {**SCHEMA, "properties": {"label": {"type": "string", "enum": ["a", "b"]}}}
    found = identity(
        {
            "none": {},
            "inline": {"generation_config": {name: SCHEMA}},
            "snake": {"generation_config": {snake(name): dict(reversed(SCHEMA.items()))}},
            "mime": {"generation_config": {"response_mime_type": "application/json", name: SCHEMA}},
            "other": {"generation_config": {name: other}},
        }
    )
    assert found["inline"] == found["snake"] == found["mime"]
    assert all(found["inline"][level] != found[spec][level] for level in (0, 1) for spec in ("none", "other"))


def test_every_safety_setting_counts_and_its_order_and_spelling_do_not(identity: Any) -> None:
    categories, thresholds = SAFETY_FIELDS["category"], SAFETY_FIELDS["threshold"]
    settings = [{"category": c, "threshold": thresholds[0]} for c in categories]
    specs = {"all": settings, "spelled": [spelled(s) for s in reversed(settings)]}
    for number in range(len(categories)):
        specs[f"without-{number}"] = settings[:number] + settings[number + 1 :]
        specs[f"off-{number}"] = [{**s, "threshold": "OFF"} if i == number else s for i, s in enumerate(settings)]
    for method in SAFETY_FIELDS["method"]:
        specs[f"by-{method.lower()}"] = [{**s, "method": method} for s in settings]
    found = identity({name: {"safety_settings": value} for name, value in specs.items()})
    assert found.pop("spelled") == found["all"]
    assert len(set(found.values())) == len({f[1] for f in found.values()}) == len(specs) - 1

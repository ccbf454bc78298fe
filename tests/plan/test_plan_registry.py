"""The data files and the user's file laid over them."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path

import pytest

from batchform.errors import InvalidProject, Place
from batchform.plan.override import lay_over
from batchform.plan.registry import DATA, ModelInfo, PriceEntry, Registry

NOW = dt.datetime(2026, 11, 21, 12, tzinfo=dt.UTC)


@pytest.fixture(scope="module")
def registry() -> Registry:
    return Registry.load()


def day(text: str) -> dt.datetime:
    return dt.datetime.fromisoformat(text).replace(tzinfo=dt.UTC)


def rules(registry: Registry, model: str, now: dt.datetime = NOW, realm: str = "google") -> list[tuple[str, str]]:
    return [(f.rule, f.severity) for f in registry.check(model, now=now, realm=realm)]


def overlay(tmp_path: Path, text: str, name: str = "prices.yaml") -> Registry:
    path = tmp_path / name
    path.write_text(text)
    return lay_over(Registry.load(), path, name)


def test_every_fact_names_a_source_that_exists() -> None:
    for file, section in (("models.json", "models"), ("prices.json", "prices")):
        data = json.loads((DATA / file).read_bytes())
        for source in data["sources"].values():
            assert source["url"].startswith("https://")
            assert source["dated"]
        for name, entry in data[section].items():
            if section == "models":
                facts = set(entry) - {"kind", "note", "sources"}
                assert facts == set(entry["sources"]), name
                assert set(entry["sources"].values()) <= set(data["sources"]), name
            else:
                assert {e["source"] for e in entry} <= set(data["sources"]), name
                assert all(e["dated"] for e in entry), name


def test_every_living_model_with_batches_has_a_price_and_every_price_a_model(registry: Registry) -> None:
    living = {m.id for m in registry.models.values() if not m.shutdown or m.shutdown > NOW.date()}
    assert living == set(registry.prices)


def test_batch_prices_are_half_of_the_others(registry: Registry) -> None:
    for name, entries in registry.prices.items():
        for e in entries:
            assert e.input is not None, name
            assert e.output is not None, name
            assert e.batch_input == pytest.approx(e.input / 2), name
            assert e.batch_output == pytest.approx(e.output / 2), name


@pytest.mark.parametrize("model", ["gemini-3.8-flash", "gemini-3.7-flash", "gemini-3.6-flash"])
def test_introductory_prices_double_with_the_new_year(registry: Registry, model: str) -> None:
    def prices(when: str) -> tuple[float, float]:
        entry = registry.price(model, day(when))
        assert entry
        return entry.batch_input, entry.batch_output

    assert prices("2026-11-21") == prices("2026-12-31T23:59:59") == (0.375, 1.875)
    assert prices("2027-01-01") == prices("2030-01-01") == (0.75, 3.75)


def test_a_day_outside_all_entries_takes_the_last_before_it_or_the_first(tmp_path: Path) -> None:
    entries = "[{batch_input: 1, batch_output: 1, since: 2026-02-01, until: 2026-02-28}, "
    entries += "{batch_input: 2, batch_output: 2, since: 2026-04-01, until: 2026-04-30}]"
    registry = overlay(tmp_path, f"prices: {{x: {entries}}}")
    expected = {"2026-01-01": 1, "2026-02-28": 1, "2026-03-15": 1, "2026-04-01": 2, "2026-06-01": 2}
    for when, price in expected.items():
        entry = registry.price("models/x", day(when))
        assert entry is not None
        assert entry.batch_input == price, when
    assert registry.price("y", NOW) is None


def test_check_passes_a_living_model(registry: Registry) -> None:
    assert rules(registry, "gemini-3.5-flash-lite") == []
    assert rules(registry, "models/gemini-3.5-flash-lite") == []


def test_an_unknown_model_is_refused_with_the_nearest_names(registry: Registry) -> None:
    (found,) = registry.check("gemini-3.5-flash-light", now=NOW, realm="emulator")
    assert (found.rule, found.severity) == ("unknown-model", "error")
    assert "gemini-3.5-flash-lite" in found.hint
    assert "prices:" in found.hint
    assert "specs/a.yaml:3:8: error: model gemini-3.5-flash-light" in found.at(Place("specs/a.yaml", 3, 8)).render()


@pytest.mark.parametrize(
    ("when", "rule"),
    [
        ("2026-10-31", None),
        ("2026-11-05", "model-ending"),
        ("2026-11-28T23:59:59", "model-ending"),
        ("2026-11-29", "model-shutting-down"),
        ("2026-12-01", "model-shut-down"),
    ],
)
def test_the_end_of_a_model_is_refused_from_the_first_job_that_could_cross_it(
    registry: Registry, when: str, rule: str | None
) -> None:
    severity = "warning" if rule == "model-ending" else "error"
    assert rules(registry, "gemini-2.5-pro", day(when)) == ([(rule, severity)] if rule else [])
    assert rules(registry, "gemini-2.5-pro", day(when), "emulator") == ([(rule, "warning")] if rule else [])


def test_models_without_batches_and_embedding_models_are_refused(registry: Registry) -> None:
    assert rules(registry, "gemini-4-argon") == [("model-without-batch", "error")]
    assert rules(registry, "gemini-embedding-2") == [("model-embeds", "error")]


@pytest.mark.parametrize(
    ("model", "config", "words"),
    [
        ("gemini-3.5-flash-lite", {"maxOutputTokens": 65_537}, "max_output_tokens 65,537 is above the 65,536"),
        ("gemini-3.8-flash", {"thinkingConfig": {"thinkingLevel": "MINIMAL"}}, "takes LOW, MEDIUM, HIGH"),
        ("gemini-2.5-pro", {"thinkingConfig": {"thinkingBudget": 0}}, "cannot be switched off"),
        ("gemini-3-flash-preview", {"thinkingConfig": {"thinkingLevel": "LOW", "thinkingBudget": 5}}, "exclude"),
    ],
)
def test_what_a_model_is_known_to_refuse(registry: Registry, model: str, config: dict[str, object], words: str) -> None:
    (found,) = registry.check_config(model, config)
    assert words in found.message


def test_what_a_model_takes_passes(registry: Registry) -> None:
    assert registry.check_config("gemini-3.8-flash", {"thinkingConfig": {"thinkingLevel": "low"}}) == ()
    assert registry.check_config("gemini-2.5-flash", {"thinkingConfig": {"thinkingBudget": 0}}) == ()
    assert registry.check_config("gemini-3.5-flash", {"thinkingConfig": None, "maxOutputTokens": "x"}) == ()
    assert registry.check_config("unknown", {"maxOutputTokens": 10**9}) == ()


@pytest.mark.parametrize("name", ["prices.yaml", "prices.json"])
def test_an_override_is_laid_over_by_model_id(tmp_path: Path, name: str, registry: Registry) -> None:
    value = {
        "dated": "2026-11-25",
        "models": {"gemini-4-argon": {"batch": True}, "house-1": {"batch": True, "shutdown": "2030-01-01"}},
        "prices": {"gemini-3.8-flash": {"batch_input": 1, "batch_output": 2.5}},
        "service": {"max_jobs": 7},
    }
    laid = overlay(tmp_path, json.dumps(value, indent="\t") if name.endswith("json") else json.dumps(value), name)
    assert laid.model("gemini-4-argon") == ModelInfo(
        id="gemini-4-argon", batch=True, max_input_tokens=1048576, max_output_tokens=1048576,
        reads=("text", "image", "audio", "video"), writes=("text",),
        note="Restricted rollout; batch is not advertised.",
        sources=dict.fromkeys(("max_input_tokens", "max_output_tokens", "reads", "writes"), "litellm-map"),
    )  # fmt: skip
    assert rules(laid, "gemini-4-argon") == rules(laid, "house-1") == []
    assert laid.prices["gemini-3.8-flash"] == (PriceEntry(batch_input=1.0, batch_output=2.5),)
    assert laid.prices["gemini-3.7-flash"] == registry.prices["gemini-3.7-flash"]
    assert laid.service.max_jobs == 7
    assert laid.service.max_input_bytes == registry.service.max_input_bytes
    assert laid.prices_dated == laid.models_dated == f"2026-11-21, {name} of 2026-11-25"


def test_all_complaints_about_an_override_come_together_with_their_places(tmp_path: Path) -> None:
    text = """\
dated: soon
models:
  new: {kind: text}
  gemini-3.5-flash: {bacth: yes}
  gemini-3.6-flash: {shutdown: never}
  x: 3
prices:
  a: {batch_input: 1.0, batch_output: -5.0}
  b: [{batch_input: a, batch_output: 1}]
  c: {batch_input: 1, batch_output: 1, above_200k: {batch_inptu: 1}}
  d: []
  e: null
modls: 3
service: {max_jobs: many}
"""
    with pytest.raises(InvalidProject) as caught:
        overlay(tmp_path, text)
    found = [(d.place.line, d.message) for d in caught.value.diagnostics]
    assert found == [
        (1, "`dated` must be a date, such as 2026-11-25"),
        (3, "`models.new`: misses the field `batch`"),
        (4, "unknown field `models.gemini-3.5-flash.bacth`"),
        (5, "`models.gemini-3.6-flash.shutdown`: invalid RFC3339 encoded date"),
        (6, "`models.x` must be a mapping of fields"),
        (8, "`prices.a.batch_output`: expected `float` >= 0.0"),
        (9, "`prices.b.0.batch_input`: expected `float`, got `str`"),
        (10, "unknown field `prices.c.above_200k.batch_inptu`"),
        (11, "`prices.d` is empty"),
        (12, "`prices.e` must be a mapping of fields"),
        (13, "unknown field `modls`"),
        (14, "`service.max_jobs`: expected `int | null`, got `str`"),
    ]
    assert "Did you mean `batch`?" in caught.value.render()


@pytest.mark.parametrize("text", ["", "[1]", "models: [", "models: {a: {batch: true}}\nmodels: {}", "models: 3"])
def test_an_override_that_is_no_mapping_is_one_clear_error(tmp_path: Path, text: str) -> None:
    with pytest.raises(InvalidProject) as caught:
        overlay(tmp_path, text)
    assert caught.value.render().startswith("prices.yaml")


def test_a_missing_override_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(InvalidProject, match="1 error"):
        lay_over(Registry.load(), tmp_path / "none.yaml", "none.yaml")

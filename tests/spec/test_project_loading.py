"""From files to a ResolvedProject: defaults, environments, variables, discovery."""

from __future__ import annotations

from pathlib import Path

import pytest
from spec_kit import PROJECT, SPEC, Folder

from batchform.errors import InvalidProject, UsageError
from batchform.spec.load import find_project


def test_find_project_walks_up(folder: Folder) -> None:
    deep = folder.root / "a" / "b"
    deep.mkdir(parents=True)
    assert find_project(deep) == folder.root / "batchform.yaml"


def test_no_project_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        find_project(tmp_path)
    assert "batchform init" in caught.value.render()


def test_small_project(folder: Folder) -> None:
    project = folder.load()
    (spec,) = project.specs
    assert (spec.name, spec.model, spec.backend_name) == ("triage", "gemini-3.5-flash-lite", "local")
    assert spec.turns[0].template.render({"subject": "x"}) == "Ticket: x"
    assert spec.request_base == {}
    assert spec.output_format == "text"
    assert spec.key_columns == ("id",)
    assert project.environment == ""


def test_without_backends_there_is_an_emulator(folder: Folder) -> None:
    folder.write("batchform.yaml", "version: 1\nproject: x\ndefaults: {model: gemini-x}\n")
    (spec,) = folder.load().specs
    assert (spec.backend_name, spec.backend.type) == ("local", "emulator")


def test_a_single_backend_needs_no_default(folder: Folder) -> None:
    folder.write("batchform.yaml", "version: 1\nproject: x\nbackends: {g: {type: gemini}}\ndefaults: {model: m}\n")
    assert folder.load().specs[0].backend_name == "g"


def test_specs_are_found_below_folders_and_by_globs_once(folder: Folder) -> None:
    folder.write("batchform.yaml", PROJECT + 'specs: [specs/, "specs/**/*.yml"]\n')
    folder.write("specs/more/b.yml", SPEC.replace("triage", "b").replace("b.j2", "triage.j2"))
    folder.write("specs/.hidden.yaml", "nonsense")
    folder.write("specs/README.md", "nonsense")
    assert [s.name for s in folder.load().specs] == ["b", "triage"]


def test_two_specs_of_one_name_or_destination(folder: Folder) -> None:
    folder.write("specs/other.yaml", SPEC)
    said = folder.complaint()
    assert "specs/triage.yaml:1:7: error: the name `triage` is already that of specs/other.yaml" in said
    assert "specs/triage.yaml:4:34: error: the destination is already that of specs/other.yaml" in said


def test_a_spec_that_is_a_link_out_of_the_project(folder: Folder, tmp_path_factory: pytest.TempPathFactory) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "x.yaml"
    elsewhere.write_text(SPEC)
    (folder.root / "specs" / "x.yaml").symlink_to(elsewhere)
    assert "spec-outside" in folder.complaint()


def test_spec_fields_win_over_defaults(folder: Folder) -> None:
    more = "defaults: {backend: local, model: m, retry: {max_attempts: 5, 'on': [internal]}, limits: {max_rows: 10k}}"
    folder.write("batchform.yaml", PROJECT.replace(PROJECT.splitlines()[-1], more))
    folder.spec("model: models/x\nretry: {max_attempts: 2}\nlimits: {max_usd: 3}\nbackend: gemini")
    (spec,) = folder.load().specs
    assert (spec.model, spec.backend_name) == ("x", "gemini")
    assert (spec.retry.max_attempts, spec.retry.on) == (2, ["internal"])
    assert (spec.limits.max_usd, spec.limits.max_rows, spec.limits.changed_floor) == (3, 10_000, 20)


ENVIRONMENTS = """\
backends:
  local: {type: emulator, job_seconds: 5}
  gemini: {type: gemini, max_rows_per_job: 7, timeout: 5s}
ledger: ${ENV:LEDGER}
limits: {max_usd: 5, max_rows: 10}
environments:
  prod:
    ledger: .batchform/${ENV:STAGE}
    defaults: {backend: gemini}
    limits: {max_usd: 50}
    backends: {gemini: {type: gemini, timeout: 9s}, local: {type: gemini}}
  broken: {ledger: "${ENV:NEVER_SET}", limits: {max_rows: "${ENV:NEVER_SET}"}}
"""


def test_environment_is_laid_over_deeply(folder: Folder) -> None:
    folder.write("batchform.yaml", "version: 1\nproject: x\ndefaults: {model: m, backend: local}\n" + ENVIRONMENTS)
    env = {"LEDGER": "state", "STAGE": "live"}
    base, prod = folder.load(env=env).config, folder.load(environment="prod", env=env).config
    assert (base.ledger, prod.ledger) == ("state", ".batchform/live")
    assert (prod.limits.max_usd, prod.limits.max_rows) == (50, 10)
    assert (prod.defaults.model, prod.defaults.backend) == ("m", "gemini")
    assert (prod.backends["gemini"].timeout, prod.backends["gemini"].max_rows_per_job) == (9, 7)
    assert prod.backends["local"].type == "gemini"
    assert base.backends["local"].type == "emulator"


def test_only_the_chosen_environment_needs_its_variables(folder: Folder) -> None:
    folder.write("batchform.yaml", "version: 1\nproject: x\ndefaults: {model: m, backend: local}\n" + ENVIRONMENTS)
    env = {"LEDGER": "state", "STAGE": "live"}
    folder.load(env=env)
    said = folder.complaint(environment="broken", env=env)
    assert said.count("NEVER_SET is not set") == 2


def test_complaints_about_an_environment_stand_there(folder: Folder) -> None:
    folder.write("batchform.yaml", PROJECT + "environments:\n  prod:\n    defaults: {backend: nope}\n")
    assert "batchform.yaml:9:25: error: there is no backend `nope`" in folder.complaint(environment="prod")


def test_unknown_environment(folder: Folder) -> None:
    folder.write("batchform.yaml", PROJECT + "environments: {prod: {}}\n")
    with pytest.raises(UsageError) as caught:
        folder.load(environment="prd")
    assert "Did you mean `prod`?" in caught.value.render()


def test_values_from_the_environment_take_the_type_of_their_field(folder: Folder) -> None:
    more = 'limits: {max_usd: "${ENV:USD}", changed_floor: "${ENV:FLOOR}", max_rows: "${ENV:ROWS}"}\n'
    folder.write("batchform.yaml", PROJECT + more)
    limits = folder.load(env={"USD": "4.5", "FLOOR": "7", "ROWS": "50k"}).config.limits
    assert (limits.max_usd, limits.changed_floor, limits.max_rows) == (4.5, 7, 50_000)


def test_base_url_of_the_sdk_reaches_the_backend(folder: Folder) -> None:
    config = folder.load(env={"GOOGLE_GEMINI_BASE_URL": "http://127.0.0.1:1"}).config
    assert config.backends["gemini"].base_url == "http://127.0.0.1:1"  # type: ignore[union-attr]


def test_missing_project_file(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    (tmp_path / "batchform.yaml").unlink()
    with pytest.raises(InvalidProject, match="1 error"):
        folder.load()


def test_allow_paths(folder: Folder, tmp_path_factory: pytest.TempPathFactory) -> None:
    outside = tmp_path_factory.mktemp("shared")
    folder.spec(f"source: {{type: csv, path: {outside}/*.csv}}", without="source")
    assert "path-outside" in folder.complaint()
    folder.write("batchform.yaml", PROJECT + f"allow_paths: [{outside}]\n")
    folder.load()


def test_a_link_in_the_project_that_leads_out_is_outside(
    folder: Folder, tmp_path_factory: pytest.TempPathFactory
) -> None:
    (folder.root / "data").symlink_to(tmp_path_factory.mktemp("shared"))
    assert "path-outside" in folder.complaint()


def test_warnings_are_kept(folder: Folder) -> None:
    folder.spec("output: {format: json}")
    (warning,) = folder.load().warnings
    assert warning.rule == "json-not-asked"

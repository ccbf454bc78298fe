"""A destination is never one of the files that the project is made of, nor one that a source reads."""

from __future__ import annotations

import pytest
from spec_kit import SPEC, Folder


def place(folder: Folder, path: str, kind: str = "jsonl") -> None:
    table = ", table: t" if kind in ("sqlite", "duckdb") else ""
    folder.spec(f"destination: {{type: {kind}, path: {path}{table}}}", without="destination")


@pytest.mark.parametrize("kind", ["jsonl", "csv", "sqlite", "duckdb"])
@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("batchform.yaml", "is the project's file"),
        ("results/../batchform.yaml", "is the project's file"),
        ("specs/triage.yaml", "is a spec"),
        ("specs/answers", "is inside specs/"),
        ("./specs/deep/er/answers", "is inside specs/"),
        ("templates/triage.j2", "is inside templates/"),
        ("results/../templates/new", "is inside templates/"),
        ("schemas/answer.json", "is inside schemas/"),
        ("link/answers", "is inside templates/"),
        ("config", "is the project's file"),
    ],
)
def test_the_projects_own_files_are_no_destination(folder: Folder, path: str, said: str, kind: str) -> None:
    folder.write("schemas/other.json", "{}")
    (folder.root / "link").symlink_to("templates")
    (folder.root / "config").symlink_to("batchform.yaml")
    place(folder, path, kind)
    complaint = folder.complaint()
    assert f"the destination `{path}` {said}" in complaint
    assert complaint.startswith("specs/triage.yaml:")
    assert " destination-in-project]" in complaint


@pytest.mark.parametrize("path", ["specs/", "templates/parts/", "schemas/"])
def test_nor_do_they_take_parts(folder: Folder, path: str) -> None:
    folder.write("schemas/other.json", "{}")
    place(folder, path)
    assert f"is inside {path.split('/')[0]}/" in folder.complaint()


@pytest.mark.parametrize(
    ("source", "destination"),
    [
        ("data/people.csv", "data/people.csv"),
        ("data/*.csv", "results/../data/new.csv"),
        ("data/**/*.csv", "data/parts/"),
        ("link/people.csv", "data/people.csv"),
    ],
)
def test_what_another_spec_reads_is_no_destination(folder: Folder, source: str, destination: str) -> None:
    (folder.root / "data").mkdir()
    (folder.root / "link").symlink_to("data")
    place(folder, destination, "csv")
    other = SPEC.replace("name: triage", "name: people").replace("data/tickets.csv", source)
    folder.write("specs/people.yaml", other.replace("results/triage", "results/people"))
    complaint = folder.complaint()
    assert f"the destination `{destination}` is one of the files that specs/people.yaml reads" in complaint


def test_results_may_stand_beside_a_spec_that_is_listed_by_itself(folder: Folder) -> None:
    folder.write("batchform.yaml", (folder.root / "batchform.yaml").read_text() + "specs: [pipelines/*/spec.yaml]\n")
    folder.write("pipelines/a/spec.yaml", SPEC.replace("results/", "pipelines/a/"))
    assert folder.load().specs[0].name == "triage"
    folder.write("pipelines/a/spec.yaml", SPEC.replace("results/triage.jsonl", "pipelines/a/spec.yaml"))
    assert "is a spec" in folder.complaint()

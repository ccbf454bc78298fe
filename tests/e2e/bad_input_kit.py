"""What tests of bad input share: ways to break a project, and what a refusal looks like."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests_e2e_kit import Result, Workspace

Break = Callable[[Workspace], Any]


def refused(found: Result, *says: str, code: int = 1) -> None:
    """One error in plain words, with everything that it must say."""
    assert found.code == code, (found.code, found.out, found.err)
    assert [line.partition(" ")[0] for line in found.err.splitlines()].count("error:") == 1, found.err
    assert "Traceback" not in found.out + found.err
    assert "internal error" not in found.err, found.err
    for text in says:
        assert text in found.err, (text, found.err)


def check(project: Workspace, *says: str, valid: bool, code: int = 1) -> None:
    """All three commands say it, and nothing is touched. valid: whether the project's files are; of its rows `validate`
    says what a plan says, and of what surrounds them nothing."""
    before, billed = project.snapshot(), project.billed()
    if valid:
        files = project.run("validate", "--sample", "0")
        assert files.code == 0, files.err
        rows = project.run("validate")
        if rows.code:
            refused(rows, *says, "" if any("[BF" in text for text in says) else "[BF705 row-fails]")
    else:
        refused(project.run("validate"), *says, code=code)
    refused(project.run("plan"), *says, code=code)
    refused(project.run("apply", "--yes"), *says, code=code)
    assert project.snapshot() == before
    assert project.billed() == billed


def write(name: str, text: str | bytes) -> Break:
    return lambda w: w.write(name, text)


def template(text: str | bytes) -> Break:
    return write("templates/triage.j2", text)


def spec_text(text: str | bytes) -> Break:
    return write("specs/triage.yaml", text)


def spec(**changes: Any) -> Break:
    return lambda w: w.spec(**changes)


def both(*breaks: Break) -> Break:
    return lambda w: [each(w) for each in breaks]

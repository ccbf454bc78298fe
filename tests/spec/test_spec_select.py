"""`--select`."""

from __future__ import annotations

import pytest
from spec_kit import SPEC, Folder

from batchform.errors import UsageError
from batchform.spec.resolved import ResolvedSpec
from batchform.spec.select import select


@pytest.fixture
def specs(folder: Folder) -> tuple[ResolvedSpec, ...]:
    for name, tags in (("tag-all", "[nightly]"), ("summary", "[nightly, mail]")):
        text = SPEC.replace("name: triage", f"name: {name}\ntags: {tags}").replace("triage.jsonl", f"{name}.jsonl")
        folder.write(f"specs/{name}.yaml", text)
    return folder.load().specs


@pytest.mark.parametrize(
    ("patterns", "names"),
    [
        ([], ["summary", "tag-all", "triage"]),
        (["triage"], ["triage"]),
        (["triage,summary"], ["summary", "triage"]),
        (["triage", "summary", "triage"], ["summary", "triage"]),
        (["t*"], ["tag-all", "triage"]),
        (["tag:nightly"], ["summary", "tag-all"]),
        (["tag:mail, triage"], ["summary", "triage"]),
    ],
)
def test_select(specs: tuple[ResolvedSpec, ...], patterns: list[str], names: list[str]) -> None:
    assert [s.name for s in select(specs, patterns)] == names


@pytest.mark.parametrize(
    ("pattern", "message", "hint"),
    [
        ("triag", "there is no spec 'triag'", "Did you mean `triage`? Specs: summary, tag-all, triage."),
        ("x*", "there is no spec 'x*'", "Specs: summary, tag-all, triage."),
        ("tag:nightl", "no spec has the tag 'nightl'", "Did you mean `nightly`? Tags: mail, nightly."),
        ("state:modified", "there is no spec 'state:modified'", "Specs: summary, tag-all, triage."),
    ],
)
def test_nothing_selected(specs: tuple[ResolvedSpec, ...], pattern: str, message: str, hint: str) -> None:
    with pytest.raises(UsageError) as caught:
        select(specs, ["triage", pattern])
    assert (caught.value.message, caught.value.hint) == (message, hint)

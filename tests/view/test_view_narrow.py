"""What is printed fits a terminal of 80 columns, and reads well there."""

from __future__ import annotations

import datetime as dt
import io
import re

import click
import pytest

from batchform.cli.jobs import jobs_command
from batchform.cli.ledger import ledger_command
from batchform.cli.models import models_command
from batchform.ledger.head import Head, Segment
from batchform.plan.registry import Registry
from batchform.run.doctor import Subject
from batchform.view.console import make_console
from batchform.view.doctor import print_findings
from batchform.view.models import print_model
from batchform.view.segments import print_segments

NOW = dt.datetime(2026, 11, 22, tzinfo=dt.UTC)


@pytest.mark.parametrize("group", [jobs_command, ledger_command, models_command], ids=lambda g: g.name)
def test_no_line_of_a_list_of_commands_is_cut(group: click.Group) -> None:
    for name, command in group.commands.items():
        assert not command.get_short_help_str(78 - len(max(group.commands, key=len))).endswith("..."), name


def test_a_segment_is_a_line() -> None:
    names = [
        "segments/rows-summarize-20261122T063541Z-d301c6d56934-0.parquet",
        "segments/events-20261122T063541Z-d301c6d56934.jsonl",
    ]
    segments = [
        Segment(name=names[0], kind="rows", serial=12, sha256="0" * 64, bytes=32_214, rows=181, spec="summarize"),
        Segment(name=names[1], kind="events", serial=12, sha256="1" * 64, bytes=546),
    ]
    head = Head(format_version=1, lineage="3376f53e", serial=12, written_at="2026-11-22T06:35:42Z",
                writer="me", segments=tuple(segments))  # fmt: skip
    out = io.StringIO()
    print_segments(".batchform", head, make_console(file=out, width=80))
    lines = out.getvalue().splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[-2].split() == ["12", "181", "32,214", names[0].removeprefix("segments/")]
    assert lines[-1].split() == ["12", "546", names[1].removeprefix("segments/")]


def test_sources_of_a_model_are_whole_at_any_width() -> None:
    registry, out = Registry.load(), io.StringIO()
    info = registry.models["gemini-3.5-flash-lite"]
    print_model(registry, info, NOW, make_console(file=out, width=80))
    shown = out.getvalue()
    sources = {registry.origins[source].url for source in info.sources.values()}
    assert sources and all(f"] {url} (" in shown for url in sources)
    assert re.search(r"^  max_output_tokens +\[\d\] ", shown, re.M)


def test_a_way_out_is_a_sentence_of_its_own() -> None:
    about, out = Subject("backend gemini"), io.StringIO()
    found = [
        about.failure("access", "Listing jobs: Name or service not known", hint="Check the network."),
        about.failure("key", "There is no key.", hint="Make one."),
    ]
    print_findings(make_console(file=out, width=120), found, only_wrong=False)
    assert "not known. Check the network." in out.getvalue()
    assert "There is no key. Make one." in out.getvalue()

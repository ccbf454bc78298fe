"""The comment of a pull request, rendered as a forge renders it and shown in a real browser: what a reviewer sees."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from browser_kit import Browser, browser
from markdown_it import MarkdownIt

STORY = Path(__file__).resolve().parents[2] / "docs/story.md"
STYLE = """
body { font: 14px/1.5 -apple-system, 'Segoe UI', Helvetica, Arial, sans-serif; margin: 16px; color: #1f2328;
       max-width: 860px; overflow-wrap: break-word }
h3 { font-size: 1.25em; margin: 0 0 16px } p, ul, details, table { margin: 0 0 16px }
code { background: #eff1f3; border-radius: 6px; padding: .2em .4em; font-size: 85% }
table { border-collapse: collapse; display: block; width: max-content; max-width: 100%; overflow: auto }
th, td { border: 1px solid #d1d9e0; padding: 6px 13px } tr:nth-child(2n) { background: #f6f8fa }
"""
"""The rules of GitHub's own style that decide what fits."""


@pytest.fixture(scope="module")
def tab() -> Iterator[Browser]:
    with browser() as opened:
        yield opened


@pytest.fixture
def page(tmp_path: Path) -> Path:
    found = re.search(
        r"^````markdown\n\$ [^\n]+\n(.*?)^````$", STORY.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE
    )
    assert found
    body = MarkdownIt("commonmark", {"html": True}).enable("table").render(found[1])
    file = tmp_path / "comment.html"
    head = f"<meta charset=utf-8><meta name=viewport content=width=device-width><style>{STYLE}</style>"
    file.write_text(f"<!doctype html>{head}<body>{body}", encoding="utf-8")
    return file


@pytest.mark.parametrize("width", [390, 900])
def test_a_reviewer_sees_verdict_money_and_what_a_merge_approves(
    tab: Browser, page: Path, width: int, tmp_path: Path
) -> None:
    tab.show(page, width=width)
    assert (tab.said, tab.asked) == ([], [page.as_uri()])
    seen = str(tab.value("document.body.innerText"))
    first = [line for line in seen.splitlines() if line.strip()][:3]
    assert re.fullmatch(r"✓ batchform: support, \$[\d.]+ expected", first[0])
    assert first[1].startswith("Plan: 10 to send ($") and first[2].startswith("Cost $")
    assert "You approve 11 rows for $" in seen and "batchform apply --approved sha256:" in seen
    assert re.findall(r"<!--|\*\*|\||\]\(|batchform:envelope", seen) == []
    assert tab.value("[...document.querySelectorAll('table')[0].rows].map(r => r.cells.length).join()") == "5,5"
    assert tab.value("document.documentElement.scrollWidth") <= width
    assert tab.value("(t => t.scrollWidth <= t.clientWidth)(document.querySelector('table'))") is True
    assert tab.value("[...document.querySelectorAll('details')].filter(d => d.open).length") == 0
    tab.value("document.querySelectorAll('details').forEach(d => d.open = true)")
    opened = str(tab.value("document.body.innerText"))
    assert "prompt_changed" in opened and "▸ rerun" in opened and "max_changed_percent: 10 of 10" in opened
    assert tab.value("document.documentElement.scrollWidth") <= width
    tab.picture(tmp_path / "comment.png")
    assert (tmp_path / "comment.png").stat().st_size > 20_000

"""The report in a real browser: it draws, loads nothing, runs nothing that is not ours, and can be read by anybody."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

import pytest
from browser_kit import Browser, browser
from report_pages import NASTY, empty, full

from batchform.view.report import page

CHARTS = {
    "spend": "Spend per day",
    "rows": "Share of rows by state",
    "failures": "Failed rows by class",
    "jobs": "Jobs from creation to end",
    "latency": "Minutes from a job's creation to its end",
}
VENDORED = {  # as npm has them
    "d3.min.js": "f2094bbf6141b359722c4fe454eb6c4b0f0e42cc10cc7af921fc158fceb86539",
    "plot.umd.min.js": "4358086467740777dd788d6b27a95cebdbaefdd50c730a3060117073bd7134cb",
}
DRAWN = """Object.fromEntries([...document.querySelectorAll('figure.drawn')].map(
    f => [f.dataset.chart, f.querySelector('svg[role=img]').getAttribute('aria-label')]))"""
CONTRAST = """(() => {
  const style = getComputedStyle(document.documentElement), of = (name) => {
    const hex = style.getPropertyValue(name).trim().slice(1);
    const parts = [0, 2, 4].map((i) => parseInt(hex.slice(i, i + 2), 16) / 255)
      .map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2];
  };
  const ratio = (a, b) => { const [x, y] = [of(a), of(b)].sort((p, q) => q - p); return (x + 0.05) / (y + 0.05); };
  const colours = ['answered', 'at-work', 'queued', 'failed', 'absent', ...[0, 1, 2, 3, 4, 5, 6].map((i) => 'c' + i)];
  return {
    text: Math.min(...['--bg', '--panel', '--warn'].flatMap((b) => ['--fg', '--soft'].map((f) => ratio(f, b)))),
    marks: Math.min(...colours.filter((c) => c !== 'absent' && c !== 'queued').map((c) => ratio('--' + c, '--bg'))),
  };
})()"""


@pytest.fixture(scope="module")
def tab() -> Iterator[Browser]:
    with browser() as made:
        yield made


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder, made = tmp_path_factory.mktemp("pages"), {}
    many = full(specs=200, jobs=200)
    for name, report in (("full", full()), ("hostile", full(text=NASTY)), ("empty", empty()), ("many", many)):
        made[name] = folder / f"{name}.html"
        made[name].write_text(page(report), encoding="utf-8")
    return made


def test_all_charts_are_drawn_beside_their_figures_and_nothing_is_loaded(
    tab: Browser, pages: dict[str, Path], tmp_path: Path
) -> None:
    tab.show(pages["full"])
    assert (tab.said, tab.asked) == ([], [pages["full"].as_uri()])
    assert tab.value(DRAWN) == CHARTS
    bars = "document.querySelectorAll('figure[data-chart=spend] svg rect').length"
    assert tab.value(bars) == len(full().spend)
    assert tab.value("document.querySelectorAll('figure[data-chart=spend] [stroke-dasharray]').length") == 1
    for chart in CHARTS:  # each is followed by a table that says the same
        beside = (
            f"document.querySelector('figure[data-chart={chart}]').parentElement.querySelectorAll('tbody tr').length"
        )
        assert tab.value(beside) > 0, chart
    assert tab.value("document.querySelectorAll('[role=region]:not([tabindex])').length") == 0
    assert tab.value("[...document.querySelectorAll('thead th, tbody th')].every(t => t.scope)")
    said = "document.querySelector('figure[data-chart=spend]').innerText"
    assert "The dashed line is the budget of a day, $50.00." in tab.value(said)
    assert tab.value("document.documentElement.lang + document.querySelectorAll('h1').length") == "en1"
    tab.picture(tmp_path / "page.png")
    assert (tmp_path / "page.png").stat().st_size > 50_000
    tab.call("Input.dispatchKeyEvent", type="keyDown", key="Tab", code="Tab", windowsVirtualKeyCode=9)
    assert tab.value("document.activeElement.className") == "skip"


def test_text_from_outside_stays_text(tab: Browser, pages: dict[str, Path]) -> None:
    tab.show(pages["hostile"])
    assert (tab.said, tab.asked) == ([], [pages["hostile"].as_uri()])
    assert tab.value("document.title").startswith("</script><script>document.title='taken'")
    assert tab.value("document.querySelectorAll('img, iframe, object, link, a[href]:not(.skip)').length") == 0
    assert tab.value("document.scripts.length") == 4 and tab.value(DRAWN).keys() == CHARTS.keys()
    shown = tab.value("document.body.innerText")
    assert "{{ 7*7 }}" in shown and "\u202e" not in shown and "\x1b" not in shown
    cells = tab.value(
        "[...document.querySelectorAll('tbody th')].filter(t => t.textContent.includes('onerror=')).length"
    )
    assert cells > 10


def test_the_policy_runs_no_other_script_and_lets_nothing_out(tab: Browser, pages: dict[str, Path]) -> None:
    tab.show(pages["full"])
    tab.value("const s = document.createElement('script'); s.text = 'window.ran = 1'; document.body.append(s); 0")
    tab.value("const i = new Image(); i.src = 'http://127.0.0.1:9/x'; document.body.append(i); 0")
    sent = tab.value("fetch('http://127.0.0.1:9/y').then(() => 'sent', () => 'refused')")
    assert (sent, tab.value("typeof window.ran")) == ("refused", "undefined")
    assert sum("Content Security Policy" in line for line in tab.said) >= 3
    tab.value("document.body.insertAdjacentHTML('beforeend', '<p onclick=\"window.ran=1\">x</p>'); 0")
    tab.value("document.body.lastElementChild.click()")
    assert tab.value("typeof window.ran") == "undefined"


def test_a_ledger_without_anything_is_a_page_too(tab: Browser, pages: dict[str, Path]) -> None:
    tab.show(pages["empty"], width=390)
    assert (tab.said, tab.value(DRAWN)) == ([], {})
    shown = tab.value("document.body.innerText")
    assert "Nothing was settled yet." in shown and "No job was created yet" in shown and "No row is failed." in shown


@pytest.mark.parametrize("dark", [False, True])
def test_both_schemes_can_be_read_and_a_phone_shows_all(tab: Browser, pages: dict[str, Path], *, dark: bool) -> None:
    for name in ("full", "hostile", "many"):
        tab.show(pages[name], width=390, dark=dark)
        assert tab.value("document.documentElement.scrollWidth") <= 390, name
        wide = "[...document.querySelectorAll('figure svg')].filter(s => s.getBoundingClientRect().right > 390).length"
        assert tab.value(wide) == 0, name
    contrast = tab.value(CONTRAST)
    assert contrast["text"] >= 4.5 and contrast["marks"] >= 3, contrast
    black = tab.value("getComputedStyle(document.body).backgroundColor") != "rgb(255, 255, 255)"
    assert black is dark


def test_it_prints_light_and_whole_and_is_read_without_scripts(tab: Browser, pages: dict[str, Path]) -> None:
    tab.show(pages["full"], dark=True, media="print")
    assert tab.value("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert tab.value("getComputedStyle(document.querySelector('.wide')).maxHeight") == "none"
    assert tab.pdf().startswith(b"%PDF")
    tab.show(pages["full"], scripts=False)
    text = tab.call("DOMSnapshot.captureSnapshot", computedStyles=["display"])
    tab.show(pages["full"])
    styles = [text["strings"][s[0]] for s in text["documents"][0]["layout"]["styles"] if s]
    assert "table-row" in styles and "triage" in text["strings"]
    assert "drawn" not in text["strings"]


def test_the_page_does_not_grow_beyond_what_is_read(pages: dict[str, Path]) -> None:
    assert pages["many"].stat().st_size < 800_000
    assert pages["empty"].stat().st_size < 520_000


@pytest.mark.parametrize("name", VENDORED)
def test_the_libraries_are_those_of_npm_with_their_licences(name: str) -> None:
    folder = files("batchform") / "data" / "report"
    assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == VENDORED[name]
    licence = (folder / f"LICENSE-{name.partition('.')[0]}.txt").read_text(encoding="utf-8")
    assert "Permission to use, copy, modify, and/or distribute" in licence

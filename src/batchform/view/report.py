"""The report as one HTML page that needs no network: tables that anybody can read, and charts drawn from the same
figures by Observable Plot, which is in the page (data/report).

The page's policy lets run only scripts with the hashes of our own, and loads nothing. All text is escaped.
"""

from __future__ import annotations

import hashlib
import json
from base64 import b64encode
from pathlib import Path
from typing import Any, Final

from batchform.spec.wording import counted, money
from batchform.view.report_values import JobSpan, Report
from batchform.view.text import count, duration, safe, safe_lines

_FOLDER: Final = Path(__file__).resolve().parent.parent / "data" / "report"
_SCRIPTS: Final = ("d3.min.js", "plot.umd.min.js", "charts.js")
TITLE: Final = "batchform report</title>"
"""How the title of each report ends, by which it is known."""
STATES: Final = ("answered", "in_flight", "pending", "failed", "absent", "gone")
_DRAWN: Final = 40  # of jobs in the timeline and specs in a chart: more cannot be told apart


def page(report: Report) -> str:
    """The page."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    scripts = [(_FOLDER / name).read_text(encoding="utf-8") for name in _SCRIPTS]
    env = Environment(loader=FileSystemLoader(_FOLDER), autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    env.filters |= {
        "money": money,
        "count": count,
        "minutes": _minutes,
        "when": _when,
        "safe_text": safe,
        "safe_block": _block,
    }
    return env.get_template("page.html.j2").render(
        report=report,
        states=[s for s in STATES if any(s in spec.rows for spec in report.specs)],
        rows={s: sum(spec.rows.get(s, 0) for spec in report.specs) for s in STATES},
        counted=counted,
        policy=_policy(scripts),
        style=Markup((_FOLDER / "page.css").read_text(encoding="utf-8")),
        scripts=[Markup(s) for s in scripts],
        data=Markup(_as_script_data(_data(report))),
    )


def _policy(scripts: list[str]) -> str:
    """Plot writes style elements into its charts; styles alone can load nothing under this policy."""
    hashes = (b64encode(hashlib.sha256(s.encode()).digest()).decode() for s in scripts)
    allowed = " ".join(f"'sha256-{h}'" for h in hashes)
    return f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"


def _as_script_data(data: dict[str, Any]) -> str:
    """JSON that no text in it can end the element of."""
    text = json.dumps(data, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _data(report: Report) -> dict[str, Any]:
    """What the charts are drawn from."""
    specs = report.specs[:_DRAWN]
    return {
        "period": report.period,
        "limit": report.day_limit if report.period == "day" else None,
        "spend": [{"day": s.day.isoformat(), "spec": safe(s.spec), "usd": s.usd} for s in report.spend],
        "rows": [
            {"spec": safe(s.name), "state": state.replace("_", " "), "rows": s.rows[state]}
            for s in specs for state in STATES if s.rows.get(state)
        ],
        "jobs": [_job(j) for j in report.jobs[:_DRAWN]],
        "took": [{"spec": safe(j.spec), "minutes": j.minutes} for j in report.jobs if j.minutes is not None],
        "failures": [
            {"spec": safe(s.name), "kind": kind, "rows": n} for s in specs for kind, n in s.failures.items()
        ],
    }  # fmt: skip


def _job(job: JobSpan) -> dict[str, Any]:
    return {
        "tag": safe(job.tag),
        "spec": safe(job.spec),
        "state": job.state,
        "from": job.begun.isoformat(),
        "to": job.ended.isoformat(),
        "took": _minutes(job.minutes),
    }


def _block(text: str) -> str:
    return "\n".join(safe_lines(text))


def _minutes(minutes: float | None) -> str:
    return "—" if minutes is None else duration(minutes * 60)


def _when(at: Any) -> str:
    return f"{at:%Y-%m-%d %H:%M}"

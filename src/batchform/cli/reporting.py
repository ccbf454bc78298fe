"""What the report shows, gathered from the ledger. Rows are counted by DuckDB, so memory does not grow with them, and
the page does not either: of jobs, specs and samples it has the newest or largest, and says what it leaves out."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from statistics import median, quantiles
from typing import TYPE_CHECKING, Final

from batchform import __version__
from batchform.cli.looking import status_of
from batchform.errors import UsageError
from batchform.ledger.records import JobRecord, answers_name
from batchform.plan.sent import sent_lines
from batchform.plan.spend import settled_by_day
from batchform.rows.sql import literal
from batchform.spec.realm import realm_of
from batchform.spec.remote import is_remote
from batchform.spec.wording import counted
from batchform.view.report import TITLE, page
from batchform.view.report_values import JobSpan, Latency, Report, Sample, SpecState, SpentOn
from batchform.view.requests import prompt_lines
from batchform.view.text import clipped
from batchform.view.values import SpecLine, parse_time

if TYPE_CHECKING:
    from batchform.cli.wiring import Session
    from batchform.ledger.records import ControlView
    from batchform.spec.resolved import ResolvedSpec

MOST_SPECS: Final = 200
MOST_JOBS: Final = 200
MOST_SAMPLED: Final = 12  # specs with samples
_PERIODS: Final = 92  # bars of spend
_HEAD: Final = 16_384  # bytes of a page in which its title stands
_TEXT: Final = 2_000  # characters of a prompt or an answer
_COLOURS: Final = 7
OTHERS: Final = "others"


def write_report(session: Session, out: str, *, select: Sequence[str] = (), samples: int = 3) -> Path:
    """Write index.html into a folder, which is made if it is not there; whole or not at all. A page that is no report
    is left. Raises UsageError."""
    folder = Path(out)
    if is_remote(out) or (folder.exists() and not folder.is_dir()):
        raise UsageError(f"{out} is no folder on this machine", hint="Name one: batchform report --out report")
    if foreign := _foreign(folder / "index.html"):
        raise UsageError(f"{foreign} is no report of batchform", hint="Name a folder of its own: --out report")
    text = page(gather(session, select=select, samples=samples))
    folder.mkdir(parents=True, exist_ok=True)
    made, there = folder / ".index.html.new", folder / "index.html"
    made.write_text(text, encoding="utf-8")
    made.replace(there)
    return there


def _foreign(there: Path) -> Path | None:
    """The page that stands there, if it is another's."""
    if not there.exists():
        return None
    if there.is_file():
        with there.open("rb") as file:
            if TITLE.encode() in file.read(_HEAD):
                return None
    return there


def gather(session: Session, *, select: Sequence[str] = (), samples: int = 3) -> Report:
    """The report of a project, or of some specs. samples: rows shown of each spec that says `preview: public`."""
    specs = session.select(select)
    status = status_of(session, specs, everything=True, whole=not select)
    control, now = session.ledger.control(), session.clock.now()
    names = {s.name for s in specs}
    jobs = [j for j in control.jobs.values() if not select or j.intent.spec in names]
    created = [j for j in jobs if j.status != "not_submitted"]
    spans = sorted((_span(j, now) for j in created), key=lambda s: s.begun, reverse=True)
    states = sorted(
        (_state(session, line, jobs) for line in status.specs), key=lambda s: (-sum(s.rows.values()), s.name)
    )
    period, spend = _spend(control, names if select else None)
    realms = tuple(sorted({realm_of(s.backend) for s in specs}))
    public = [s for s in specs if s.spec.preview == "public" and s.name in session.ledger.specs()]
    left_out = [
        f"{counted(len(every) - most, noun)} more"
        for every, most, noun in (
            (states, MOST_SPECS, "spec"), (spans, MOST_JOBS, "job"), (public, MOST_SAMPLED, "spec with public rows"),
        )
        if len(every) > most
    ]  # fmt: skip
    return Report(
        project=status.project,
        environment=status.environment,
        made=now,
        version=__version__,
        ledger=status.ledger,
        serial=status.serial,
        realms=realms,
        notes=status.notes,
        budgets=status.budgets,
        day_limit=session.project.config.limits.max_usd if len(realms) == 1 and not select else None,
        period=period,
        spend=tuple(spend),
        specs=tuple(states[:MOST_SPECS]),
        jobs=tuple(spans[:MOST_JOBS]),
        latency=tuple(_latency(spans)),
        samples=tuple(s for spec in public[:MOST_SAMPLED] for s in _samples(session, spec, samples)),
        private=sum(s.spec.preview != "public" for s in specs),
        usd=sum(s.usd for s in spend),
        in_flight_usd=sum(j.intent.est_usd for j in jobs if j.open),
        left_out=tuple(left_out),
    )


def _span(job: JobRecord, now: dt.datetime) -> JobSpan:
    begun = parse_time(job.submitted_at or job.intent.at) or now
    ended = parse_time(job.ended_at) or (parse_time(job.collected.at) if job.collected else None)
    return JobSpan(
        tag=job.tag,
        spec=job.intent.spec,
        model=job.intent.model,
        state={"submitted": "at work", "intent": "unknown"}.get(job.status, job.status),
        said=job.state or job.status,
        begun=begun,
        ended=max(ended or now, begun),
        minutes=max((ended - begun).total_seconds() / 60, 0.0) if ended else None,
        rows=job.intent.rows,
        usd=job.collected.usd if job.collected else None,
        error=clipped(job.error, 300),
    )


def _state(session: Session, line: SpecLine, jobs: Sequence[JobRecord]) -> SpecState:
    failures: dict[str, int] = {}
    if line.rows.get("failed"):
        with closing(session.connect()) as con:
            rows = session.ledger.rows_relation(con, line.name)
            failures = dict(
                con.execute(
                    f"SELECT coalesce(failure, 'unknown'), count(*) FROM {rows} WHERE status = 'failed' "
                    "GROUP BY 1 ORDER BY 2 DESC, 1"
                ).fetchall()
            )
    many = sum(j.intent.spec == line.name for j in jobs)
    return SpecState(line.name, line.rows, failures, line.usd, many, line.location, line.undelivered)


def _latency(spans: Sequence[JobSpan]) -> list[Latency]:
    took: dict[str, list[float]] = {}
    for span in spans:
        if span.minutes is not None:
            took.setdefault(span.spec, []).append(span.minutes)
    return [
        Latency(spec, len(m), min(m), median(m), quantiles(m, n=10)[-1] if len(m) > 9 else max(m), max(m))
        for spec, m in sorted(took.items(), key=lambda item: -len(item[1]))[:MOST_SPECS]
    ]


# --- spend ---------------------------------------------------------------------------------------------------------


def _spend(control: ControlView, names: set[str] | None) -> tuple[str, list[SpentOn]]:
    """What a bar is of, and the bars: by day while there are few enough, or else by week or month; most spent first."""
    by_day: dict[tuple[dt.date, str], float] = {}
    for realm in {j.intent.realm for j in control.jobs.values()} | {s.realm for _, s in control.spent}:
        for (day, spec), usd in settled_by_day(control, realm=realm).items():
            if names is None or spec in names:
                by_day[day, spec] = by_day.get((day, spec), 0.0) + usd
    days = sorted({day for day, _ in by_day})
    span = (days[-1] - days[0]).days + 1 if days else 0
    period = "day" if span <= _PERIODS else "week" if span <= 7 * _PERIODS else "month"
    of_spec: dict[str, float] = {}
    for (_, spec), usd in by_day.items():
        of_spec[spec] = of_spec.get(spec, 0.0) + usd
    named = sorted(of_spec, key=lambda s: (-of_spec[s], s))[: _COLOURS if len(of_spec) > _COLOURS + 1 else None]
    bars: dict[tuple[dt.date, str], float] = {}
    for (day, spec), usd in by_day.items():
        at = _first(day, period), spec if spec in named else OTHERS
        bars[at] = bars.get(at, 0.0) + usd
    return period, [SpentOn(day, spec, usd) for (day, spec), usd in sorted(bars.items()) if usd]


def _first(day: dt.date, period: str) -> dt.date:
    if period == "day":
        return day
    return day - dt.timedelta(days=day.weekday()) if period == "week" else day.replace(day=1)


# --- samples -------------------------------------------------------------------------------------------------------


def _samples(session: Session, spec: ResolvedSpec, most: int) -> list[Sample]:
    """Newest answers beside what was asked, of one job, so that no more than its lines are read."""
    ledger = session.ledger
    with closing(session.connect()) as con:
        rows = ledger.rows_relation(con, spec.name)
        chosen = con.execute(
            f"SELECT key, replace(CAST(answer_key_hash AS VARCHAR), '-', ''), answer_tag, parse_digest FROM {rows} "
            "WHERE status = 'answered' AND answer_tag IS NOT NULL AND parse_digest IS NOT NULL "
            f"ORDER BY answer_serial DESC, answer_tag, key_hash LIMIT {most}"
        ).fetchall()
        chosen = [c for c in chosen if c[2:] == chosen[0][2:]]
        if not chosen or not ledger.has_blob(answers_name(*chosen[0][2:])):
            return []
        tag, parsed = chosen[0][2:]
        hashes = ", ".join(literal(c[1]) for c in chosen)
        told = dict(
            con.execute(
                "SELECT replace(CAST(key_hash AS VARCHAR), '-', '') AS bf_hex, coalesce(response, text) "
                f"FROM read_parquet({literal(str(ledger.blob(answers_name(tag, parsed))))}) WHERE bf_hex IN ({hashes})"
            ).fetchall()
        )
    asked = _asked(session, tag, {c[1] for c in chosen})
    return [Sample(spec.name, key, asked.get(at, ""), _answer(told.get(at))) for key, at, _, _ in chosen]


def _asked(session: Session, tag: str, wanted: set[str]) -> dict[str, str]:
    """Hash → the prompt that a job carried for that row, as text."""
    found: dict[str, str] = {}
    for line in sent_lines(session.ledger, tag):
        at = line[9:41].decode("ascii", "replace") if line.startswith(b'{"key":"k') else ""
        if at in wanted:
            request = json.dumps(json.loads(line)["request"])
            found[at] = clipped("\n".join(prompt_lines(request)), _TEXT)
            if len(found) == len(wanted):
                break
    return found


def _answer(text: str | None) -> str:
    return clipped(text, _TEXT) if text else "(no text: images and vectors are not shown)"

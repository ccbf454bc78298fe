"""Rows that are recorded under an earlier name or key of their spec: found before anything is compared, so that the
plan sees them as if they had moved. Apply records the move before it records or sends anything else."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from msgspec import Struct, field
from msgspec.structs import replace

from batchform.canon import file_digest, short
from batchform.errors import SourceError, StalePlan, UsageError
from batchform.ledger.moves import Forgotten, Moved
from batchform.ledger.records import ROW_COLUMNS, AnyEvent, ControlView
from batchform.ledger.row_writer import ROW_GROUP
from batchform.ledger.store import Ledger, RowsFile
from batchform.plan.compare import remembered
from batchform.plan.diff import row_same
from batchform.plan.importing import Elsewhere, Importing, completed, import_blobs, import_events
from batchform.plan.model import Action, Moving, Plan, Reason, SpecPlan
from batchform.plan.recorded import reading
from batchform.plan.work import Saving, Settings, Work
from batchform.rows.earlier import earlier_keys
from batchform.rows.keyed import NARROW, prepare
from batchform.rows.sql import identifier, literal
from batchform.spec.chains import with_upstreams
from batchform.spec.realm import realm_of
from batchform.spec.resolved import ResolvedProject, ResolvedSpec
from batchform.spec.wording import counted

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

_CLAIMS: Final = "bf_claims"
_SHOWN: Final = 5
_AWAY: Final = "(status = 'gone' AND answer_fp IS NULL AND tag IS NULL)"
"""SQL: whether a row's record is what is left of one that took another key."""


class Moves(Struct):
    """What moves, and what the ledger is supposed to hold while the plan is made. waiting: spec → why its rows are
    held until it can move."""

    moving: list[Moving] = field(default_factory=list)
    events: list[AnyEvent] = field(default_factory=list)
    files: list[RowsFile] = field(default_factory=list)
    blobs: dict[str, Path] = field(default_factory=dict)
    waiting: dict[str, str] = field(default_factory=dict)
    importing: list[Importing] = field(default_factory=list)
    elsewhere: dict[str, list[Elsewhere]] = field(default_factory=dict)  # by spec


@contextmanager
def moved_on(
    project: ResolvedProject,
    work: Sequence[Work],
    ledger: Ledger,
    settings: Settings,
    *,
    folder: Path,
    save: Saving,
) -> Iterator[tuple[Moves, Settings]]:
    """Within the block, `ledger` shows rows under their present names and keys, and answers from elsewhere: what moves,
    and the settings to plan with. Only plans for `apply` move rows; others leave to it what has yet to move."""
    _refuse_left_behind(project, work, ledger, settings)
    found = Moves()
    if ledger.head is not None and settings.purpose in ("apply", "promote"):
        _moved(project, work, ledger, settings, found, folder)
    if found.moving and settings.purpose == "promote":
        raise UsageError(
            f"{found.moving[0].spec} has rows to move first: answers are promoted to rows under their present names",
            hint="Apply the move: batchform apply",
        )
    for spec in (w.spec for w in work if w.spec.spec.import_ and settings.imports):
        for one in settings.imports(spec, folder) if settings.imports else ():
            _import(found, one, spec, folder)
    if settings.elsewhere is not None:
        _elsewhere(work, ledger, settings, found, folder, save)
    if not found.moving and not found.importing:
        yield found, settings
        return
    with ledger.supposing(found.events, found.files, found.blobs):
        yield found, replace(settings, waiting={**settings.waiting, **found.waiting})


def _moved(
    project: ResolvedProject, work: Sequence[Work], ledger: Ledger, settings: Settings, found: Moves, folder: Path
) -> None:
    if not work:
        return
    specs = with_upstreams([w.spec for w in work], project.specs)
    _renamed(work[0], specs, ledger, found)
    if not settings.partial:
        _given_up(work[0], project, ledger, found)
    if keyed := [w for w in work if w.spec.moved_key is not None]:
        with ledger.supposing(found.events, (), {}):
            known = set(ledger.specs())
            for one in keyed:
                if one.spec.name in known and remembered(one, ledger, settings) is None:
                    _keyed(one, ledger, found, folder)


def _elsewhere(
    work: Sequence[Work], ledger: Ledger, settings: Settings, found: Moves, folder: Path, save: Saving
) -> None:
    """What other environments' ledgers hold of specs, unless nothing is to do for them, or their own rows have yet to
    move: an answer under the new name or key would be in the way of that."""
    moves = settings.purpose in ("apply", "promote")
    for one in work:
        if settings.elsewhere is None or (save == Saving() and remembered(one, ledger, settings) is not None):
            continue
        if (
            not moves
            and one.spec.spec.moved
            and (one.spec.moved_key or {*one.spec.spec.moved.names} & {*ledger.specs()})
        ):
            continue
        found.elsewhere[one.spec.name] = there = settings.elsewhere(one.spec, folder)
        for importing in (i for e in there for i in e.importing):
            _import(found, importing, one.spec, folder)


def _import(
    found: Moves, one: Importing, spec: ResolvedSpec, bundle: Path, *, at: str = "1970-01-01T00:00:00Z", by: str = ""
) -> None:
    found.importing.append(one)
    found.events += import_events(one, spec, realm_of(spec.backend), at=at, by=by)
    found.blobs |= import_blobs(one, bundle)


def with_moves(plan: Plan, moves: Moves, taken: Mapping[str, Mapping[str, int]], *, save: Saving) -> Plan:
    """The plan with what moves, which is a reason of those rows, too, and what is imported. taken: see `Settings`."""
    moved = {m.spec: m.rows for m in moves.moving if not m.waits}
    specs = [
        replace(s, reasons={**s.reasons, Reason.KEY_MOVED: moved[s.name]}) if s.name in moved else s for s in plan.specs
    ]
    specs = [_with_notes(s, moves.elsewhere.get(s.name, ())) for s in specs]
    there = [e for found in moves.elsewhere.values() for e in found]
    imports = completed(moves.importing, there, taken, archives=save.shards)
    return replace(plan, specs=tuple(specs), moves=tuple(moves.moving), imports=imports)


def _with_notes(plan: SpecPlan, elsewhere: Sequence[Elsewhere]) -> SpecPlan:
    """A plan that sends rows, or holds them, with why other environments do not answer them."""
    notes = tuple(note for one in elsewhere for note in one.notes)
    asks = plan.rows_to_send or plan.actions.get(Action.HELD)
    return replace(plan, notes=(*plan.notes, *notes)) if notes and asks else plan


@contextmanager
def as_moved(ledger: Ledger, plan: Plan, bundle: Path) -> Iterator[None]:
    """Within the block, `ledger` shows rows as they will be when what the plan says has moved."""
    found = Moves()
    for moving in plan.moves:
        add_move(found, moving, bundle)
    if not found.events or ledger.head is None:
        yield
        return
    with ledger.supposing(found.events, found.files, found.blobs):
        yield


def add_move(found: Moves, moving: Moving, bundle: Path, *, at: str = "", by: str = "", plan: str = "") -> None:
    """What recording a move of a plan records. plan: its digest."""
    if moving.waits:
        return
    keys = ""
    if moving.states:
        import pyarrow.parquet as pq

        states, path = bundle / moving.states, bundle / moving.keys_path
        keys = keys_blob(path)
        found.files.append(RowsFile(moving.spec, states, int(pq.read_metadata(states).num_rows)))
        found.blobs[keys] = path
    found.events.append(event_of(moving, at=at, by=by, keys=keys, plan_digest=plan))


def event_of(moving: Moving, *, at: str = "", by: str = "", keys: str = "", plan_digest: str = "") -> AnyEvent:
    """The event of a move. keys: name of the blob that tells which keys moved."""
    if moving.reason:
        return Forgotten(
            at=at, by=by, spec=moving.spec, rows=moving.rows, reason=moving.reason, plan_digest=plan_digest
        )
    return Moved(
        at=at, by=by, spec=moving.spec, before=moving.before, rows=moving.rows, keys=keys, plan_digest=plan_digest
    )


def keys_blob(path: Path) -> str:
    """The name under which the ledger keeps which keys moved: by content, so that it is stored once."""
    return f"archive/moved-{short(file_digest(path), 24)}.parquet"


def moved_away(control: ControlView, name: str) -> str:
    """The name that a spec's rows have gone under since, "" if they did not leave it, or others came after."""
    to = ""
    for _, event in control.moves:
        if isinstance(event, Moved) and event.before == name:
            to = event.spec
        elif event.spec == name:
            to = ""
        elif isinstance(event, Moved) and to and event.before == to:
            to = event.spec
    return to


# --- names -------------------------------------------------------------------------------------------------------


def _refuse_left_behind(project: ResolvedProject, work: Sequence[Work], ledger: Ledger, settings: Settings) -> None:
    """A spec whose rows go under another name by now, in a project that does not have that: its files are older than
    the ledger, and all would be paid for again. Raises StalePlan."""
    if settings.purpose not in ("apply", "wave") or ledger.head is None or not ledger.control().moves:
        return
    there, recorded = {s.name for s in project.specs}, set(ledger.specs())
    for spec in (w.spec for w in work):
        to = moved_away(ledger.control(), spec.name) if spec.name not in recorded else ""
        mine = spec.spec.moved.names if spec.spec.moved else ()
        if to and to not in there and to not in mine:
            raise StalePlan(
                f"the rows of {spec.name} were moved to {to}, and this project has no spec {to}",
                place=spec.at("name"),
                hint=f"Are these files older than the ledger? Get the newest, or move the rows back: "
                f"`moved: {{from: {to}}}` in {spec.name}.",
            )


def _renamed(work: Work, specs: Sequence[ResolvedSpec], ledger: Ledger, found: Moves) -> None:
    control, recorded = ledger.control(), set(ledger.specs())
    jobs = {job.intent.spec for job in control.jobs.values()}
    for spec in specs:
        moved = spec.spec.moved
        before = [name for name in (moved.names if moved else ()) if name in recorded]
        if not before:
            continue
        if spec.name in recorded:
            before.append(spec.name)
        if len(before) > 1:
            both = " and ".join(f"{name} ({counted(_rows(work, ledger, name), 'row')})" for name in before)
            raise UsageError(
                f"{spec.name} cannot move: rows are recorded under {both}",
                place=spec.at("moved.from"),
                hint="Which of them count, nothing says. Leave out of moved.from what is not to move; what the project "
                "no longer has can be given up with `removed:` in batchform.yaml.",
            )
        name = before[0]
        at_work = sum(job.open for job in control.jobs.values() if job.intent.spec == name) if name in jobs else 0
        moving = Moving(spec.name, name, rows=_rows(work, ledger, name), jobs=at_work)
        found.moving.append(moving)
        found.events.append(event_of(moving))


def _given_up(work: Work, project: ResolvedProject, ledger: Ledger, found: Moves) -> None:
    """Specs that batchform.yaml says are no more, and that have recorded rows. Jobs at work are waited for."""
    going = {e.before for e in found.events if isinstance(e, Moved)}
    for removed in project.config.removed:
        if removed.spec not in ledger.specs() or removed.spec in going:
            continue
        open_ = sum(j.open for j in ledger.control().jobs.values() if j.intent.spec == removed.spec)
        rows = _rows(work, ledger, removed.spec)
        moving = Moving(removed.spec, rows=rows, jobs=open_, waits=open_, reason=removed.reason)
        found.moving.append(moving)
        if not open_:
            found.events.append(event_of(moving))


def _rows(work: Work, ledger: Ledger, name: str) -> int:
    """How many rows of a spec are recorded. A connection is opened only now: most plans move nothing."""
    with closing(work.connect()) as con:
        return int(con.execute(f"SELECT count(*) FROM {ledger.rows_relation(con, name)}").fetchall()[0][0])


# --- keys --------------------------------------------------------------------------------------------------------


def _keyed(work: Work, ledger: Ledger, found: Moves, folder: Path) -> None:
    """What of a spec's rows takes a new key."""
    spec = work.spec
    own = folder / "specs" / spec.name
    with closing(work.connect()) as con, reading(ledger, spec):
        relation = ledger.rows_relation(con, spec.name)
        covered = con.execute(f"SELECT DISTINCT fp_columns FROM {relation} WHERE fp_columns IS NOT NULL").fetchall()
        rows = prepare(con, spec, work.source, recorded_fp_columns=tuple(sorted(c for (c,) in covered)))
        _claim(con, earlier_keys(con, spec, rows), relation, rows.fingerprints)
        _refuse_ambiguous(con, spec)
        count, waits = con.execute(
            f"SELECT count(*), count(*) FILTER (status = 'in_flight') FROM {_CLAIMS} WHERE fate = 'moves'"
        ).fetchall()[0]
        if not count:
            return
        if waits:
            found.waiting[spec.name] = (
                f"the move to a new key waits for {counted(waits, 'row')} in flight: batchform sync --wait"
            )
            found.moving.append(Moving(spec.name, rows=count, keys=count, waits=waits))
            return
        own.mkdir(parents=True, exist_ok=True)
        states, keys = own / "moved.rows.parquet", own / "moved.keys.parquet"
        _write_states(con, relation, states)
        con.execute(
            f"COPY (SELECT key_hash, before FROM {_CLAIMS} WHERE fate = 'moves' ORDER BY ALL) TO "
            f"{literal(str(keys))} (FORMAT parquet, COMPRESSION zstd)"
        )
    moving = Moving(
        spec.name, rows=count, keys=count, states=f"specs/{spec.name}/{states.name}",
        keys_path=f"specs/{spec.name}/{keys.name}",
    )  # fmt: skip
    found.moving.append(moving)
    add_move(found, moving, folder)


def _claim(con: DuckDBPyConnection, earlier: str, relation: str, fingerprints: Mapping[str, str]) -> None:
    """Temp table of records that a row of the source may claim by its earlier key: (key, key_hash, before, status,
    row_same, fate). fate: "moves"; "stays", since the record is another row's under its present key, or the row has one
    under its own; "ambiguous".

    Of several rows that had one key, the one that asks what was asked is meant, as its input fingerprint tells.
    """
    same, holder_same = row_same(fingerprints), row_same(fingerprints, row="h")
    con.execute(
        f"CREATE OR REPLACE TEMP TABLE bf_claimed AS SELECT e.key, e.key_hash, e.before, l.status, {same} AS row_same, "
        f"h.key_hash IS NOT NULL AS holds, {holder_same} AS holder_same "
        f"FROM {earlier} e JOIN (SELECT * FROM {relation} WHERE NOT {_AWAY}) l ON l.key_hash = e.before "
        f"JOIN {NARROW} n ON n.key_hash = e.key_hash LEFT JOIN {NARROW} h ON h.key_hash = l.key_hash "
        "WHERE e.before <> e.key_hash"
    )
    con.execute(
        f"CREATE OR REPLACE TEMP TABLE {_CLAIMS} AS SELECT key, key_hash, before, status, row_same, "
        "CASE WHEN holds AND holder_same THEN 'stays' WHEN (holds OR claimants > 1) AND same = 0 THEN 'ambiguous' "
        "WHEN claimants > 1 AND turn > 1 THEN 'stays' ELSE 'moves' END AS fate FROM ("
        "SELECT *, count(*) OVER (PARTITION BY before) AS claimants, "
        "count(*) FILTER (row_same) OVER (PARTITION BY before) AS same, "
        "row_number() OVER (PARTITION BY before ORDER BY row_same DESC, key) AS turn FROM bf_claimed)"
    )
    con.execute(
        f"UPDATE {_CLAIMS} SET fate = 'stays' WHERE key_hash IN (SELECT key_hash FROM {relation} WHERE NOT {_AWAY}) "
        f"AND key_hash NOT IN (SELECT before FROM {_CLAIMS} WHERE fate = 'moves')"
    )


def _refuse_ambiguous(con: DuckDBPyConnection, spec: ResolvedSpec) -> None:
    unclear = con.execute(
        f"SELECT list(key ORDER BY key) FROM {_CLAIMS} WHERE fate = 'ambiguous' GROUP BY before ORDER BY min(key)"
    ).fetchall()
    if not unclear:
        return
    shown = "; ".join(" or ".join(map(repr, keys[:_SHOWN])) for (keys,) in unclear[:_SHOWN])
    more = f"; and {len(unclear) - _SHOWN:,} more" if len(unclear) > _SHOWN else ""
    raise SourceError(
        f"{counted(len(unclear), 'recorded row')} of {spec.name} cannot take a new key: by the earlier key each may be "
        f"any of these rows, and none, or another one, asks what it was asked: {shown}{more}",
        place=spec.at("moved.key"),
        hint="Move first, while each earlier key is one row's, and add or edit the others after that.",
    )


def _write_states(con: DuckDBPyConnection, relation: str, to: Path) -> None:
    """The records of rows under their new keys, and what is left of them under the earlier ones."""
    kept = ", ".join(
        {"key": "c.key", "key_hash": "c.key_hash", "changed_serial": "NULL::BIGINT AS changed_serial"}.get(
            n, f"l.{identifier(n)}"
        )
        for n in ROW_COLUMNS
    )
    empty = {n: f"NULL::{kind} AS {identifier(n)}" for n, kind in ROW_COLUMNS.items()}
    empty |= {n: f"l.{n}" for n in ("key", "key_hash", "realm", "at")} | {"status": "'gone' AS status"}
    moves = f"(SELECT * FROM {_CLAIMS} WHERE fate = 'moves')"
    con.execute(
        f"COPY (SELECT {kept} FROM {moves} c JOIN {relation} l ON l.key_hash = c.before UNION ALL "
        f"SELECT {', '.join(empty[n] for n in ROW_COLUMNS)} FROM {relation} l "
        f"WHERE l.key_hash IN (SELECT before FROM {moves}) AND l.key_hash NOT IN (SELECT key_hash FROM {moves})) "
        f"TO {literal(str(to))} (FORMAT parquet, COMPRESSION zstd, ROW_GROUP_SIZE {ROW_GROUP})"
    )

"""Plans of a session: made, and saved. Nothing is printed here."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from batchform.cli.options import Asked
from batchform.spec.remote import is_remote

if TYPE_CHECKING:
    from batchform.cli.wiring import Session
    from batchform.plan.model import Plan
    from batchform.spec.resolved import ResolvedSpec


def asked_of(
    specs: Sequence[ResolvedSpec], allow: Sequence[str] = (), on_change: Sequence[str] = (), *, reason: str = ""
) -> Asked:
    """What the command line says of a plan of these specs. Raises UsageError."""
    if not on_change:
        return Asked(allow=tuple(allow), reason=reason)
    from batchform.plan.changes import parse_changes

    said = parse_changes(on_change, [s.name for s in specs])
    return Asked(allow=tuple(allow), reason=reason, on_change=said)


def plan_into(session: Session, specs: Sequence[ResolvedSpec], out: str, asked: Asked) -> Plan:
    """The plan, saved in a local folder or at gs://."""
    if not is_remote(out):
        return save_plan(session, specs, Path(out), asked)
    remote = session.remote_bundle(out)
    remote.check()  # before the work is done
    folder = session.scratch / "saved"
    plan = save_plan(session, specs, folder, asked)
    remote.upload(folder)
    return plan


def make_plan(
    session: Session,
    specs: Sequence[ResolvedSpec],
    *,
    asked: Asked | None = None,
    folder: Path | None = None,
    purpose: str = "apply",
    wave_of: str = "",
    saved: bool = False,
) -> Plan:
    """The plan of these specs. With a folder, shards and row states are written there, ready to be applied.

    saved: whether the plan will be applied later, and so must know its source again.
    """
    from batchform.plan.build import build_plan
    from batchform.plan.work import Saving

    where = folder or session.scratch / "plan"
    where.mkdir(parents=True, exist_ok=True)
    try:
        return build_plan(
            session.project,
            session.work(specs, where.resolve()),
            session.ledger,
            session.settings(specs, asked=asked, purpose=purpose, wave_of=wave_of),
            folder=where.resolve(),
            save=Saving(shards=folder is not None, source=saved),
        )
    except OSError as exc:
        exc.filename = exc.filename or str(where)  # a write does not say to which file
        raise


def save_plan(session: Session, specs: Sequence[ResolvedSpec], folder: Path, asked: Asked) -> Plan:
    """Plan into a bundle, with its summaries beside it. On any error the folder is removed: no half plan is left."""
    from batchform.plan.bundle import prepare_folder, save_bundle
    from batchform.view.json import plan_json_text
    from batchform.view.markdown import plan_markdown

    prepare_folder(folder)
    try:
        purpose = "promote" if asked.promoted else "apply"
        plan = make_plan(session, specs, asked=asked, folder=folder, purpose=purpose, saved=True)
        (folder / "plan.json").write_text(plan_json_text(plan), encoding="utf-8")
        (folder / "plan.md").write_text(plan_markdown(plan), encoding="utf-8")
        save_bundle(folder, plan, schemas={name: schema for s in specs for name, schema in s.classes.items()})
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return plan

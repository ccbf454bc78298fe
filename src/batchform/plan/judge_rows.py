"""The rows of a spec judged as a plan would judge them, without a plan: for `validate`."""

from __future__ import annotations

from contextlib import closing, suppress

from batchform.errors import Diagnostic, SourceError
from batchform.ledger.store import Ledger
from batchform.plan.bookkeeping import FreeRows
from batchform.plan.build import Settings, Work, refuse_empty, render_candidates
from batchform.plan.recorded import diff_recorded, reading, recorded
from batchform.plan.row_rules import EnoughRows, RowRules
from batchform.rows.keyed import prepare
from batchform.spec.ignored import without_ignored
from batchform.spec.realm import cloud_of


def judge_rows(work: Work, ledger: Ledger, settings: Settings, *, most: int | None) -> list[Diagnostic]:
    """Complaints about the rows that would be sent, or about the first that cannot be read, keyed or rendered.

    most: of them that are rendered, None for all; rows are read and keyed all the same.
    """
    spec = work.spec
    rules = RowRules(spec, settings.registry.on(cloud_of(spec.backend)).model(spec.model), most=most)
    try:
        with closing(work.connect()) as con, reading(ledger, spec), suppress(EnoughRows):
            past = recorded(con, ledger, spec, destination=work.destination)
            rows = prepare(con, spec, work.source, recorded_fp_columns=past.fp_columns)
            refuse_empty(spec, rows)
            found = diff_recorded(con, ledger, spec, rows, past)
            control = ledger.control()
            render_candidates(
                con, spec, rows, past, found, control, settings, folder=None, free=FreeRows(None), rules=rules
            )
    except SourceError as error:
        return [Diagnostic("row-fails", error.message, error.place or spec.at("source"), error.hint)]
    return without_ignored(rules.complaints(), spec.spec.ignore)

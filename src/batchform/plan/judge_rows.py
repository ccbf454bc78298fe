"""The rows of a spec judged as a plan would judge them, without a plan: for `validate`."""

from __future__ import annotations

from contextlib import closing

from batchform.errors import Diagnostic, SourceError
from batchform.ledger.store import Ledger
from batchform.plan.bookkeeping import FreeRows
from batchform.plan.build import render_candidates
from batchform.plan.compare import compare, remembered
from batchform.plan.recorded import reading
from batchform.plan.work import Settings, Work


def judge_rows(work: Work, ledger: Ledger, settings: Settings, *, most: int | None) -> list[Diagnostic]:
    """Complaints about the rows that would be sent, or about the first that cannot be read, keyed or rendered.

    most: of them that are rendered, None for all; rows are read and keyed all the same.
    """
    spec = work.spec
    if remembered(work, ledger, settings) is not None:
        return []
    try:
        with closing(work.connect()) as con, reading(ledger, spec):
            past, rows, found = compare(con, work, ledger, settings)
            rendered, _, _ = render_candidates(
                con, spec, rows, past, found, ledger.control(), settings, folder=None, free=FreeRows(None), most=most
            )
    except SourceError as error:
        return [Diagnostic("row-fails", error.message, error.place or spec.at("source"), error.hint)]
    return rendered.complaints

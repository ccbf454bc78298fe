"""A source that is another spec's answers. `model.py` has the rest."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from batchform.spec.fields import Name, Strict, Wire


class SpecSource(Strict):
    """Rows from the answers of another spec, as the ledger has them: a chain."""

    type: Literal["spec"] = Field(description="The answers of another spec.")
    name: Name = Wire(description="The spec whose answers are read.")
    where: str | None = Wire(
        None, description="SQL condition on its columns and on `status`: answered, or absent (key left its source)."
    )
    query: str | None = Wire(
        None, description="SQL over `source`, in place of all its rows: groups, say. Waits until all answers are there."
    )
    with_source: bool = Wire(
        default=False, description="The columns of its own source too, joined by key; taken names get `source_`."
    )

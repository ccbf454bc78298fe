"""Rollouts, as a user writes them: an edit is sent to a few rows first, and to more when what came of those is good."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pydantic import Field

from batchform.spec.fields import Count, Strict


class Require(Strict):
    """The gate of a stage: what the ledger must say of all rows that were sent so far."""

    answered: float | None = Field(None, ge=0, le=1, description="Least share of the rows that have an answer.")
    valid: float | None = Field(
        None, ge=0, le=1, description="Least share of what came back that could be read, and fits the schema."
    )
    max_usd_per_row: float | None = Field(
        None, ge=0, description="US dollars that a row may have cost, in the mean, failures and retries included."
    )


class Stage(Strict):
    """One stage of a rollout: so many rows, those of the stages before among them."""

    rows: Count | None = Field(None, description="How many rows, of the first by the hash of their keys.")
    percent: float | None = Field(None, gt=0, le=100, description="Which share of the rows, likewise.")
    require: Require | None = Field(
        None,
        description="What must be so before the next stage is released; default: as the stage before says. `{}`: only "
        "that no row of the stage is under way.",
    )
    manual: bool = Field(
        default=False, description="true: somebody must release this stage, with `batchform approve SPEC --stage N`."
    )


def stage_problems(stages: Sequence[Stage]) -> Iterator[tuple[tuple[str | int, ...], str, str]]:
    """(path in `rollout`, message, hint) of each stage that means nothing."""
    rows, percent = 0, 0.0
    for i, stage in enumerate(stages):
        last, which = i == len(stages) - 1, f"stage {i + 1}"
        if (stage.rows is None) == (stage.percent is None):
            yield (i,), f"{which} needs `rows` or `percent`, one of them", "Such as {rows: 50}, or {percent: 10}."
        elif last and stage.percent != 100:
            hint = "Add `- {percent: 100}`, which releases the rest."
            yield (i,), "the last stage must be `percent: 100`: rows beyond it would be held for ever", hint
        elif not last and stage.percent == 100:
            yield (i, "percent"), f"{which} releases all rows, and the stages after it none", "Remove those after it."
        elif (stage.rows is not None and stage.rows <= rows) or (
            stage.percent is not None and stage.percent <= percent
        ):
            yield (i,), f"{which} holds no more rows than the one before", "Each stage holds those of the one before."
        rows, percent = max(rows, stage.rows or 0), max(percent, stage.percent or 0)
    if stages and stages[0].manual:
        yield (0, "manual"), "the first stage is released by `apply`, which somebody approves", "Remove the line."

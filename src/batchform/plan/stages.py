"""How far the rollout of a spec has come, as plain values of a plan."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from msgspec import Struct, field

from batchform.spec.wording import counted, money


class Measure(Struct, frozen=True):
    """One condition of a gate. name: as in the spec; required, measured: the share, or US dollars; None: not known."""

    name: str
    required: float
    measured: float | None
    ok: bool

    @property
    def words(self) -> str:
        """`answered 0.84, required 0.95`."""
        dollars = self.name == "max_usd_per_row"
        told = "unknown" if self.measured is None else _usd(self.measured) if dollars else _share(self.measured)
        verb, least = ("at most", _usd(self.required)) if dollars else ("required", _share(self.required))
        return f"{self.name} {told}, {verb} {least}"


class StagePlan(Struct, frozen=True):
    """The rollout of a spec, as a plan finds it; none where all stages are released.

    edit: digest of what rows are asked with; stage: the one that is released, from 1, of so many; before: the one that
    was, so that apply records what is new; state: "sending", "waiting", "failed", "manual" or "complete"; size: rows of
    the stage; sent: rows that were sent with the edit before this plan; held: rows that wait; gate: what was judged;
    failed: failure class → rows that were sent; samples: (key, failure class) of a few of them.
    """

    edit: str
    stage: int
    of: int
    before: int
    state: str
    size: int
    sent: int
    held: int
    gate: tuple[Measure, ...] = ()
    failed: Mapping[str, int] = field(default_factory=dict)
    samples: tuple[tuple[str, str], ...] = ()

    @property
    def gate_words(self) -> str:
        """`answered 0.84, required 0.95; valid 1, required 0.98`."""
        return "; ".join(m.words for m in self.gate)

    def failed_words(self, name: str, *, keys: bool) -> str:
        """`triage: the gate of stage 1 of 3 failed after 50 rows: answered 0.84, required 0.95 (8 invalid_output, such
        as T-1 (invalid_output))`. keys: whether rows may be named."""
        missed = "; ".join(m.words for m in self.gate if not m.ok)
        words = (
            f"{name}: the gate of stage {self.stage} of {self.of} failed after {counted(self.sent, 'row')}: {missed}"
        )
        samples = self.samples if keys else ()
        return words + (f" ({failures_told(self.failed, samples)})" if self.failed else "")


def failures_told(failed: Mapping[str, int], samples: Sequence[tuple[str, str]]) -> str:
    """`6 invalid_output, 2 blocked, such as T-1 (invalid_output), T-7 (blocked)`."""
    words = ", ".join(f"{rows:,} {failure}" for failure, rows in failed.items())
    named = ", ".join(f"{key} ({failure})" for key, failure in samples)
    return words + (f", such as {named}" if named else "")


def what_to_do(name: str = "SPEC") -> str:
    """What is to be done about a gate that failed."""
    return (
        f"The other rows stay as they are. See what came: batchform explain {name} KEY. Mend the prompt: an edit "
        "starts anew with the first rows. Or send failed rows again (batchform rerun), or require less in `rollout`."
    )


def _share(share: float) -> str:
    return f"{share:.4f}".rstrip("0").rstrip(".") if share < 1 else "1"


def _usd(usd: float) -> str:
    return money(usd) if usd >= 0.01 or not usd else f"${usd:.6f}".rstrip("0")

"""A spec of which nothing was to do: what its rows came to is kept, so that the next plan need not read them again.

It counts only while all that it was found from is as it was: the spec, the ledger's head, what lies at the destination,
and the source's files as the file system tells them apart. Nothing is ever paid for, or left undone by `apply`, because
of it: a plan that is saved or applied reads the rows.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec
from msgspec import Struct

from batchform.canon import FINGERPRINT_VERSION, digest, digest_of
from batchform.ledger.store import Ledger
from batchform.plan.diff import KEEP, QUIET_ABSENT, Diff
from batchform.ports import Relation
from batchform.rows.keyed import KeyedRows
from batchform.spec.realm import realm_of
from batchform.spec.resolved import ResolvedSpec

_HALF_WRITTEN_FOR: Final = 3600.0
"""Seconds after which nobody is at it any more."""


class Kept(Struct, frozen=True):
    """Where what was found of a spec is kept, and what tells its source's files from others.

    stamp: None if they cannot be told apart without being read.
    """

    path: Path
    stamp: Callable[[], str | None]


class _Found(Struct, frozen=True):
    state: str
    described: str
    rows: int
    key_columns: tuple[tuple[str, str], ...]
    notes: tuple[str, ...]
    counts: dict[str, int]
    answered: int


def state_of(spec: ResolvedSpec, ledger: Ledger, *, stamp: str, delivered_through: int | None, made: str) -> str:
    """A digest of all that decides what a plan finds. made: version and purpose of the plan."""
    digests = (spec.spec_digest, spec.prompt_digest, spec.config_digest, spec.schema_digest, spec.parse_digest)
    here = (spec.name, spec.model, spec.backend_name, realm_of(spec.backend))
    head = msgspec.json.encode(ledger.head).decode()
    return digest_of("plan-state", [made, FINGERPRINT_VERSION, *digests, *here, head, delivered_through, stamp])


def recall(kept: Kept, state: str) -> tuple[KeyedRows, Diff] | None:
    """What was found when all was as it is, as far as a plan tells it; None if it was something else or is not kept."""
    try:
        noted = kept.path.read_bytes()
        text = noted.partition(b"\n")[2]
        if noted != sealed(text):
            return None
        found = msgspec.json.decode(text, type=_Found)
    except (OSError, msgspec.DecodeError):
        return None
    if found.state != state:
        return None
    relation = Relation(sql="", columns={}, described=found.described)
    rows = KeyedRows(relation, found.rows, {}, found.key_columns, {}, found.notes)
    return rows, Diff(found.counts, {}, found.answered)


def sealed(text: bytes) -> bytes:
    """A note as it is written: its digest, which tells it from half of one and from one that somebody changed."""
    return digest(text).encode() + b"\n" + text


def keep(kept: Kept, state: str, rows: KeyedRows, found: Diff) -> None:
    """Keep what was found if there is nothing to do, nothing that would be done if results came back, and no row that
    keeps its answer to another prompt, of which a plan says what it would cost to ask again."""
    if not found.counts.keys() <= {KEEP, QUIET_ABSENT} or found.unreadable or found.edited[0]:
        return
    text = msgspec.json.encode(
        _Found(
            state=state, described=rows.relation.described, rows=rows.rows, key_columns=rows.key_columns,
            notes=rows.notes, counts=dict(found.counts), answered=found.answered_before,
        )
    )  # fmt: skip
    with suppress(OSError):  # a project that cannot be written to is planned all the same
        kept.path.parent.mkdir(parents=True, exist_ok=True)
        new = kept.path.with_name(f"{kept.path.name}.{os.getpid()}")
        try:
            new.write_bytes(sealed(text))
            _clear(kept.path, beside=new)
            new.replace(kept.path)
        finally:
            new.unlink(missing_ok=True)


def _clear(path: Path, *, beside: Path) -> None:
    """Remove what plans that were killed left half written."""
    limit = beside.stat().st_mtime - _HALF_WRITTEN_FOR
    for other in path.parent.glob(f"{path.name}.*"):
        if other.stat().st_mtime < limit:
            other.unlink()

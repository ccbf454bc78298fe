"""Rows that go under another name or key, or are no longer managed: the events, and what they make of head and fold.

A spec's name stands on its segments, in the head: to rename it, the head that records the event names it on them. So a
renamed spec costs one commit, whatever it has of rows. Keys are in the rows: those that move are written anew.
"""

from __future__ import annotations

from collections.abc import Iterable, MutableMapping
from typing import TYPE_CHECKING, Any

import msgspec

from batchform.ledger.event import Event
from batchform.ledger.head import Head, Retired

if TYPE_CHECKING:
    from batchform.ledger.records import ControlView


class Moved(Event, frozen=True, kw_only=True, tag=True):
    """A spec took over the rows of its earlier name, or its rows their keys of a new scheme; committed with the states
    of rows whose key moved.

    before: the earlier name, "" where only keys moved; rows: how many; keys: blob of `key_hash` and `before`, of rows
    whose key moved: what is archived of them has the hash of their earlier key; "" where none did. plan_digest: of the
    plan that did it.
    """

    spec: str
    before: str = ""
    rows: int = 0
    keys: str = ""
    plan_digest: str = ""


class Forgotten(Event, frozen=True, kw_only=True, tag=True):
    """A spec that the project no longer has was given up: its rows are not managed any more. What was delivered stays
    where it is, and its jobs count as spent. reason: as the project's file says it."""

    spec: str
    rows: int = 0
    reason: str = ""
    plan_digest: str = ""


def moved_head(head: Head, events: Iterable[object], *, at: str) -> Head:
    """The head with the segments of renamed specs under their new names, and without those that are given up.

    at: RFC 3339; segments that are given up are deleted by a later compaction, as those that it replaces are.
    """
    for event in events:
        if isinstance(event, Moved) and event.before:
            kept = tuple(
                msgspec.structs.replace(s, spec=event.spec) if s.spec == event.before else s for s in head.segments
            )
            head = msgspec.structs.replace(head, segments=kept)
        elif isinstance(event, Forgotten):
            gone = [s.name for s in head.segments if s.spec == event.spec]
            head = msgspec.structs.replace(
                head,
                segments=tuple(s for s in head.segments if s.spec != event.spec),
                retired=(*head.retired, *(Retired(name=n, at=at, until=at) for n in gone)),
            )
    return head


def fold_move(view: ControlView, at: int, event: Moved | Forgotten) -> None:
    """What is known of a spec goes on under its new name. Where its keys moved, its destination is served anew."""
    view.moves.append((at, event))
    name = event.spec
    if isinstance(event, Forgotten):
        for known in _by_spec(view):
            known.pop(name, None)
        return
    if event.before:
        _rename(view, event.before, name)
    if event.keys:
        view.keys.setdefault(name, []).append((at, event.keys))
    if event.keys and name in view.deliveries:
        view.deliveries[name] = msgspec.structs.replace(view.deliveries[name], destination_digest="")


def _rename(view: ControlView, before: str, name: str) -> None:
    for job in view.jobs.values():
        if job.intent.spec == before:
            job.intent = msgspec.structs.replace(job.intent, spec=name)
    for known in _by_spec(view):
        if before in known:
            renamed = _renamed(known.pop(before), before, name)
            known[name] = _joined(renamed, known[name]) if name in known else renamed
    for plan, free in view.refreshed.items():
        view.refreshed[plan] = [_renamed(event, before, name) for event in free]
    view.spent = [(serial, _renamed(event, before, name)) for serial, event in view.spent]


def _joined(renamed: Any, newer: Any) -> Any:
    """What was known under the old name, and what the apply that moves it has recorded under the new one before."""
    if isinstance(renamed, list):
        return [*newer, *renamed]
    return {**renamed, **newer} if isinstance(renamed, dict) else newer


def _by_spec(view: ControlView) -> tuple[MutableMapping[str, Any], ...]:
    return view.deliveries, view.applied_to, view.reruns, view.approved, view.changes, view.rollouts, view.keys


def _renamed(value: Any, before: str, name: str) -> Any:
    """An event, or a list of what belongs to one, under the new name."""
    if isinstance(value, list):
        return [(item[0], _renamed(item[1], before, name)) if isinstance(item, tuple) else item for item in value]
    if getattr(value, "spec", None) == before:
        return msgspec.structs.replace(value, spec=name)
    return value

"""What a fault can do to jobs: how lists and single looks show them, and how they end."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any, ClassVar, Final, Literal

import msgspec
from msgspec import Struct
from pydantic import Field

from batchform.emulator import fate
from batchform.emulator.calls import Call
from batchform.emulator.fate import Fate
from batchform.emulator.fault_kinds import EntryKind, Kind, Share
from batchform.emulator.jobs import EXPIRY_SECONDS
from batchform.spec.fields import Duration

LISTS: Final = ("batches.list", "files.list")
LOOKS: Final = ("batches.get", "batches.list", "batches.create")
_WITH_RESULTS: Final = ("SUCCEEDED", "FAILED", "CANCELLED", "EXPIRED", "PARTIALLY_SUCCEEDED")


def is_vertex(entry: dict[str, Any]) -> bool:
    """Whether a job is shown as Vertex AI shows it: flat, not as an operation with metadata."""
    return any(name in entry for name in ("inputConfig", "outputConfig", "displayName", "modelVersionId"))


def meta_of(entry: dict[str, Any]) -> dict[str, Any]:
    """Where a job's state, times and counts stand."""
    if is_vertex(entry):
        return entry
    meta: dict[str, Any] = entry.setdefault("metadata", {})
    return meta


class Page(Struct):
    """A page of a list. asked: its own token; following: the next one's; fits: whether the fault is about an entry."""

    entries: list[dict[str, Any]]
    following: str
    asked: str
    seen: int
    fits: Callable[[dict[str, Any]], bool]

    @property
    def again(self) -> str:
        """Another token of this page."""
        return f"again-{self.seen}-{self.asked}"


class PageKind(Kind):
    """A kind that changes a page of a list."""

    calls: ClassVar[tuple[str, ...]] = LISTS

    def change_page(self, page: Page) -> bool:
        """Change it in place. False when there was nothing to change."""
        raise NotImplementedError


class Hide(PageKind):
    """Entries are left out: those that `match`, or the whole page. Single looks still show them."""

    type: Literal["hide"]

    examples: ClassVar[tuple[str, ...]] = ("{type: hide}",)

    def change_page(self, page: Page) -> bool:
        before = len(page.entries)
        page.entries = [entry for entry in page.entries if not page.fits(entry)]
        return len(page.entries) < before


class Reorder(PageKind):
    """The entries of the page come in another order."""

    type: Literal["reorder"]
    how: Literal["reversed", "shuffled"] = Field("reversed", description="The order.")

    examples: ClassVar[tuple[str, ...]] = ("{type: reorder}", "{type: reorder, how: shuffled}")

    def change_page(self, page: Page) -> bool:
        if self.how == "reversed":
            page.entries.reverse()
        else:
            Random(page.seen).shuffle(page.entries)
        return len(page.entries) > 1


class RepeatEntries(PageKind):
    """Entries come twice: those that `match`, or all of the page."""

    type: Literal["repeat_entries"]

    examples: ClassVar[tuple[str, ...]] = ("{type: repeat_entries}",)

    def change_page(self, page: Page) -> bool:
        before = len(page.entries)
        page.entries = [e for entry in page.entries for e in [entry] * (2 if page.fits(entry) else 1)]
        return len(page.entries) > before


class RepeatPage(PageKind):
    """The next page is this page once more, under a new token or (same_token) under the token that was asked for."""

    type: Literal["repeat_page"]
    same_token: bool = Field(default=False, description="A token that the client has seen; not on the first page.")

    examples: ClassVar[tuple[str, ...]] = ("{type: repeat_page}", "{type: repeat_page, same_token: true}")

    def change_page(self, page: Page) -> bool:
        page.following = (self.same_token and page.asked) or page.again
        return True


class EmptyPage(PageKind):
    """The page is empty, and a next page holds what it should have held."""

    type: Literal["empty_page"]

    examples: ClassVar[tuple[str, ...]] = ("{type: empty_page}",)

    def change_page(self, page: Page) -> bool:
        page.entries.clear()
        page.following = page.again
        return True


class EndEarly(PageKind):
    """The list ends with this page, though there is more."""

    type: Literal["end_early"]

    examples: ClassVar[tuple[str, ...]] = ("{type: end_early}",)

    def change_page(self, page: Page) -> bool:
        before, page.following = page.following, ""
        return bool(before)


class SmallPages(Kind):
    """The page has at most so many entries, whatever was asked for."""

    type: Literal["small_pages"]
    size: int = Field(1, ge=1, description="Entries of a page.")

    calls: ClassVar[tuple[str, ...]] = LISTS
    examples: ClassVar[tuple[str, ...]] = ("{type: small_pages}",)

    def prepared(self, call: Call) -> Call:
        return call.with_query(pageSize=str(self.size))


class State(EntryKind):
    """The job is shown in another state than it is in: an earlier one, or a word that nobody knows.

    Unless it is a last one, results and end are not shown either.
    """

    type: Literal["state"]
    state: str = Field(description="PENDING, RUNNING, PAUSED, …")
    prefix: str | None = Field(None, description="Before the word, on the wire; default BATCH_STATE_ or JOB_STATE_.")

    calls: ClassVar[tuple[str, ...]] = LOOKS
    examples: ClassVar[tuple[str, ...]] = (
        "{type: state, state: PENDING}",
        "{type: state, state: RUNNING}",
        "{type: state, state: UNSPECIFIED}",
        "{type: state, state: QUEUED}",
        "{type: state, state: PAUSED}",
        "{type: state, state: UPDATING}",
        "{type: state, state: CANCELLING, prefix: JOB_STATE_}",
        "{type: state, state: HIBERNATING}",
        "{type: state, state: '', prefix: ''}",
    )

    def change(self, entry: dict[str, Any]) -> bool:
        before, vertex = msgspec.json.encode(entry), is_vertex(entry)
        meta = meta_of(entry)
        prefix = self.prefix if self.prefix is not None else ("JOB_STATE_" if vertex else "BATCH_STATE_")
        meta["state"] = prefix + self.state
        if self.state not in _WITH_RESULTS:
            for name in ("done", "response", "error", "output", "endTime", "outputInfo", "completionStats"):
                entry.pop(name, None)
                meta.pop(name, None)
        elif not vertex:
            entry["done"] = True
        return msgspec.json.encode(entry) != before


class ObjectDetails(EntryKind):
    """The job carries an error whose `details` are objects, as google.rpc.Status has them.

    Google's client ignores it here, and fails on it in inline results (`row_error` with `details`) and on Vertex AI,
    where one such job makes a whole page of a list unreadable.
    """

    type: Literal["object_details"]

    calls: ClassVar[tuple[str, ...]] = LOOKS
    examples: ClassVar[tuple[str, ...]] = ("{type: object_details}",)

    def change(self, entry: dict[str, Any]) -> bool:
        error = entry.get("error") or {"code": 13, "message": "Internal error encountered."}
        detail = {"@type": "type.googleapis.com/google.rpc.DebugInfo", "stackEntries": [], "detail": "scripted"}
        entry["error"] = {**error, "details": [detail]}
        return True


class Without(EntryKind):
    """The job is shown without some of its fields."""

    type: Literal["without"]
    fields: list[str] = Field(min_length=1, description="Names, of the operation or of its metadata.")

    calls: ClassVar[tuple[str, ...]] = LOOKS
    examples: ClassVar[tuple[str, ...]] = (
        "{type: without, fields: [name]}",
        "{type: without, fields: [displayName]}",
        "{type: without, fields: [inputConfig]}",
        "{type: without, fields: [displayName, inputConfig]}",
        "{type: without, fields: [batchStats]}",
        "{type: without, fields: [state]}",
        "{type: without, fields: [createTime, updateTime, endTime]}",
        "{type: without, fields: [metadata]}",
        "{type: without, fields: [output]}",
        "{type: without, fields: [response]}",
        "{type: without, fields: [output, response]}",
        "{type: without, fields: [done]}",
    )
    vertex_examples: ClassVar[tuple[str, ...]] = (
        "{type: without, fields: [name]}",
        "{type: without, fields: [displayName]}",
        "{type: without, fields: [inputConfig]}",
        "{type: without, fields: [outputConfig]}",
        "{type: without, fields: [completionStats]}",
        "{type: without, fields: [outputInfo]}",
        "{type: without, fields: [state]}",
        "{type: without, fields: [error]}",
        "{type: without, fields: [createTime, updateTime, endTime]}",
    )

    def change(self, entry: dict[str, Any]) -> bool:
        meta = entry.get("metadata", {})
        return sum(holder.pop(name, None) is not None for name in self.fields for holder in (meta, entry)) > 0


class Stats(EntryKind):
    """The counts in `batchStats` (Vertex AI: `completionStats`) are odd."""

    type: Literal["stats"]
    show: Literal["numbers", "words", "negative", "zeros", "list"] = Field("numbers", description="What they are.")

    calls: ClassVar[tuple[str, ...]] = LOOKS
    examples: ClassVar[tuple[str, ...]] = (
        "{type: stats}",
        "{type: stats, show: words}",
        "{type: stats, show: negative}",
        "{type: stats, show: zeros}",
        "{type: stats, show: list}",
    )

    def change(self, entry: dict[str, Any]) -> bool:
        meta, name = meta_of(entry), "completionStats" if is_vertex(entry) else "batchStats"
        stats = meta.get(name, {})
        odd = {"words": "many", "negative": "-1", "zeros": "0"}
        changed: Any = {key: odd.get(self.show, int(n)) for key, n in stats.items()}
        if stats:
            meta[name] = list(changed) if self.show == "list" else changed
        return bool(stats)


class NewFields(EntryKind):
    """The job or file is shown with fields that nobody knows yet."""

    type: Literal["new_fields"]

    calls: ClassVar[tuple[str, ...]] = (*LOOKS, "files.get", "files.list")
    examples: ClassVar[tuple[str, ...]] = ("{type: new_fields}",)

    def change(self, entry: dict[str, Any]) -> bool:
        for holder in (entry, entry.get("metadata", {})):
            holder |= {"brandNew": {"nested": [1, None]}, "serviceTier": "TIER_OF_TOMORROW"}
        return True


class FateKind(Kind):
    """A kind that decides, when a job is made, what becomes of it."""

    calls: ClassVar[tuple[str, ...]] = ("batches.create",)

    def fated(self, before: Fate) -> Fate:
        raise NotImplementedError


class ListLag(FateKind):
    """The new job is in no list (nor, with `get`, found by name) until so much of the emulator's time has passed."""

    type: Literal["list_lag"]
    seconds: Duration = Field(description="How long.")
    get: bool = Field(default=False, description="Looking it up by name answers 404 as well.")

    examples: ClassVar[tuple[str, ...]] = (
        "{type: list_lag, seconds: 30}",
        "{type: list_lag, seconds: 30, get: true}",
    )

    def fated(self, before: Fate) -> Fate:
        return msgspec.structs.replace(before, list_lag=self.seconds, get_lag=self.seconds if self.get else 0.0)


class Hang(FateKind):
    """The job never gets anywhere, and expires without results, after 48 hours (Vertex AI: 36, or 72 when PENDING).

    Nothing is charged.
    """

    type: Literal["hang"]
    state: Literal["PENDING", "RUNNING"] = Field("RUNNING", description="RUNNING: from the 12th hour on.")

    examples: ClassVar[tuple[str, ...]] = ("{type: hang}", "{type: hang, state: PENDING}")

    def fated(self, before: Fate) -> Fate:
        seconds = EXPIRY_SECONDS if self.state == "RUNNING" else fate.NEVER
        return msgspec.structs.replace(before, seconds=seconds, share=0.0)


class Ends(FateKind):
    """The job ends like this, with the results of a share of its rows. Those are charged, the others did not run."""

    type: Literal["ends"]
    state: Literal["SUCCEEDED", "FAILED", "CANCELLED", "EXPIRED", "PARTIALLY_SUCCEEDED"] = Field(description="How.")
    share: float = Field(0.0, ge=0, le=1, description="Of each 500 rows the share that runs, the first ones.")
    seconds: Duration | None = Field(None, description="When; default as always, EXPIRED just before 48 h.")
    code: int = Field(0, ge=0, description="Code of the job's error; default 13 failed, 1 cancelled, 4 expired.")
    message: str = Field("", description="Text of the job's error.")

    examples: ClassVar[tuple[str, ...]] = (
        "{type: ends, state: SUCCEEDED}",
        "{type: ends, state: SUCCEEDED, share: 0.5}",
        "{type: ends, state: FAILED}",
        "{type: ends, state: FAILED, share: 0.5}",
        "{type: ends, state: CANCELLED}",
        "{type: ends, state: CANCELLED, share: 0.5}",
        "{type: ends, state: EXPIRED, share: 0.5}",
        "{type: ends, state: EXPIRED, seconds: 1}",
        "{type: ends, state: PARTIALLY_SUCCEEDED, share: 0.5}",
        "{type: ends, state: PARTIALLY_SUCCEEDED, share: 1}",
    )

    def fated(self, before: Fate) -> Fate:
        seconds = EXPIRY_SECONDS - 1 if self.seconds is None and self.state == "EXPIRED" else self.seconds
        if seconds is not None:
            seconds = min(seconds, EXPIRY_SECONDS - 1)
        return msgspec.structs.replace(
            before, state=self.state, share=self.share, seconds=seconds, code=self.code, message=self.message
        )


class KeepsResults(Kind):
    """The job that is cancelled ends CANCELLED, with the results of a share of its rows, which are charged."""

    type: Literal["keeps_results"]
    share: float = Share

    calls: ClassVar[tuple[str, ...]] = ("batches.cancel",)
    examples: ClassVar[tuple[str, ...]] = ("{type: keeps_results}", "{type: keeps_results, share: 1}")


JOB_KINDS: Final = (
    Hide, Reorder, RepeatEntries, RepeatPage, EmptyPage, EndEarly, SmallPages, State, ObjectDetails, Without, Stats,
    NewFields, ListLag, Hang, Ends, KeepsResults,
)  # fmt: skip

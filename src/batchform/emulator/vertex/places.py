"""Where a job reads and writes: `gs://` and `bq://` names, and whether a place suits the location of a job."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from msgspec import Struct

_GS: Final = re.compile(r"gs://(?P<bucket>[a-z0-9][a-z0-9._-]{1,220}[a-z0-9])(?:/(?P<name>.*))?")
_BQ: Final = re.compile(r"bq://(?P<project>[^./]+)\.(?P<dataset>\w+)(?:\.(?P<table>[^./]+))?")
_DUAL: Final[Mapping[str, tuple[str, ...]]] = {
    "NAM4": ("us-central1", "us-east1"),
    "EUR4": ("europe-north1", "europe-west4"),
    "EUR5": ("europe-west1", "europe-west2"),
    "EUR7": ("europe-west2", "europe-west3"),
    "EUR8": ("europe-west3", "europe-west6"),
    "ASIA1": ("asia-northeast1", "asia-northeast2"),
}
_MULTI: Final[Mapping[str, tuple[str, str]]] = {
    "US": ("us", "us-"),
    "EU": ("eu", "europe-"),
    "ASIA": ("asia", "asia-"),
}


class Folder(Struct, frozen=True):
    """A bucket and a name, or the beginning of names, in it."""

    bucket: str
    name: str

    def __str__(self) -> str:
        return f"gs://{self.bucket}/{self.name}"


class Table(Struct, frozen=True):
    """A table; without a name of its own, a dataset."""

    project: str
    dataset: str
    table: str

    def __str__(self) -> str:
        return f"bq://{self.project}.{self.dataset}" + (f".{self.table}" if self.table else "")


class Column(Struct, frozen=True):
    """A column of a table. kind: REST's name of its type (STRING, INTEGER, JSON, …); repeated: an ARRAY of it."""

    name: str
    kind: str
    repeated: bool = False


class Gone(Exception):
    """A bucket or dataset that was there when the job was made is there no more."""


def folder(uri: str) -> Folder | None:
    """What a `gs://` URI names; None when it is none."""
    found = _GS.fullmatch(uri)
    return Folder(found["bucket"], found["name"] or "") if found else None


def table(uri: str) -> Table | None:
    """What a `bq://project.dataset[.table]` URI names; None when it is none."""
    found = _BQ.fullmatch(uri)
    return Table(found["project"], found["dataset"], found["table"] or "") if found else None


def suits(place: str, location: str) -> bool:
    """Whether a job at a location can use a bucket or dataset that is at a place: the same, or one around it."""
    place, location = place.upper(), location.lower()
    if location == "global" or place.lower() == location:
        return True
    around = next((prefix for name, prefix in _MULTI.values() if name == location), None)
    if place in _DUAL:
        return location in _DUAL[place] or (around is not None and all(r.startswith(around) for r in _DUAL[place]))
    multi = _MULTI.get(place)
    if multi is not None:
        return location == multi[0] or location.startswith(multi[1])
    return around is not None and place.lower().startswith(around)


def suits_tables(place: str, location: str) -> bool:
    """Whether a job at a location can use a dataset that is at a place: of a region, in that very region."""
    multi = [name for name, _ in _MULTI.values()]
    if location.lower() in ("global", *multi):
        return suits(place, location)
    return place.lower() == location.lower()

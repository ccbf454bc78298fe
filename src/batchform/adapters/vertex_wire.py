"""Shapes of Vertex AI's batch prediction jobs on the wire: pure functions over plain JSON, without a vendor library."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from batchform import canon
from batchform.adapters.gemini_wire import error_words, mapping, parse_time
from batchform.ports import RemoteJob

GS: Final = "gs://"
BQ: Final = "bq://"
_PLACE: Final = re.compile(r"projects/(?P<project>[^/]+)/locations/(?P<location>[^/]+)")
_COUNTS: Final = {"successfulCount": "succeeded", "failedCount": "failed", "incompleteCount": "pending"}
_MULTI: Final = {"us": "us-", "eu": "europe-"}
_AROUND: Final = {**_MULTI, "asia": "asia-"}
"""Multi-regions of Cloud Storage; jobs run in the first two of them as well."""
_DUAL: Final = {
    "nam4": ("us-central1", "us-east1"),
    "eur4": ("europe-north1", "europe-west4"),
    "eur5": ("europe-west1", "europe-west2"),
    "eur7": ("europe-west2", "europe-west3"),
    "eur8": ("europe-west3", "europe-west6"),
    "asia1": ("asia-northeast1", "asia-northeast2"),
}
_LABEL_CHARS: Final = 63


class Place(msgspec.Struct, frozen=True):
    """A project, and where in it jobs run."""

    project: str
    location: str

    def __str__(self) -> str:
        return f"projects/{self.project}/locations/{self.location}"

    @property
    def endpoint(self) -> str:
        """Google's own for this location."""
        if self.location == "global":
            return "https://aiplatform.googleapis.com"
        if self.location in _MULTI:
            return f"https://aiplatform.{self.location}.rep.googleapis.com"
        return f"https://{self.location}-aiplatform.googleapis.com"


def place(text: str) -> Place | None:
    """The place that the ledger recorded; None if it is none."""
    found = _PLACE.fullmatch(text)
    return Place(found["project"], found["location"]) if found else None


def suits(where: str, location: str) -> bool:
    """Whether a job at `location` can use a bucket or dataset that is at `where`: the same place, or one around it."""
    where, location = where.lower(), location.lower()
    if location in ("global", where):
        return True
    if where in _DUAL:
        return location in _DUAL[where] or all(region.startswith(_MULTI.get(location, "-")) for region in _DUAL[where])
    if where in _AROUND:
        return location.startswith(_AROUND[where])
    return location in _MULTI and where.startswith(_MULTI[location])


def suits_tables(where: str, location: str) -> bool:
    """Whether a job at `location` can use a dataset that is at `where`. BigQuery is stricter than Cloud Storage: a job
    wants its tables in its own region, and US is not us-central1. `global` takes any; `us`, `eu` what is in them."""
    regional = location.lower() not in ("global", *_MULTI)
    return where.lower() == location.lower() if regional else suits(where, location)


def labels(stated: Mapping[str, str], own: Mapping[str, str]) -> dict[str, str]:
    """Labels of a job: the user's, and ours under names that begin with `batchform_`. What does not fit is made fit."""
    fitting = {f"batchform_{name}": _label(value) for name, value in own.items()}
    return {**stated, **fitting}


def _label(value: str) -> str:
    return re.sub(r"[^a-z0-9_-]", "-", value.lower())[:_LABEL_CHARS]


def table_name(prefix: str, tag: str) -> str:
    """A table name of the tag's own: letters, digits and _, different for tags that differ in other characters only."""
    return f"{prefix}_{re.sub(r'[^A-Za-z0-9_]', '_', tag)}_{canon.short(canon.digest(tag.encode()), 6)}"


def remote_job(job: Mapping[str, Any]) -> RemoteJob:
    """A job from its raw JSON. Never raises, whatever the service put into it."""
    return RemoteJob(
        name=str(job.get("name") or ""),
        tag=str(job.get("displayName") or ""),
        state=str(job.get("state") or "UNSPECIFIED").removeprefix("JOB_STATE_"),
        model=str(job.get("model") or "").rpartition("/")[2],
        created_at=parse_time(job.get("createTime")),
        ended_at=parse_time(job.get("endTime")),
        counts=_counts(mapping(job.get("completionStats"))),
        input_name=_input(mapping(job.get("inputConfig"))),
        results=_results(job),
        error=_error(job),
    )


def _input(config: dict[str, Any]) -> str | None:
    uris = mapping(config.get("gcsSource")).get("uris")
    if isinstance(uris, list) and uris:
        return str(uris[0])
    return str(mapping(config.get("bigquerySource")).get("inputUri") or "") or None


def _results(job: Mapping[str, Any]) -> str | None:
    """Where the results are: only `outputInfo` says. A table may be named alone, beside its dataset."""
    info = mapping(job.get("outputInfo"))
    if info.get("gcsOutputDirectory"):
        return str(info["gcsOutputDirectory"])
    table = str(info.get("bigqueryOutputTable") or "").removeprefix(BQ)
    dataset = str(info.get("bigqueryOutputDataset") or "").removeprefix(BQ)
    if not table:
        return None
    return BQ + (table if "." in table or not dataset else f"{dataset}.{table}")


def _counts(stats: dict[str, Any]) -> dict[str, int]:
    """Counts are strings on the wire, and -1 where they are not known. total: only of a job that knows all three."""
    found = {ours: int(stats[theirs]) for theirs, ours in _COUNTS.items() if str(stats.get(theirs, "")).isdecimal()}
    return {**found, "total": sum(found.values())} if len(found) == len(_COUNTS) else found


def _error(job: Mapping[str, Any]) -> str:
    """The job's error in words, and how many parts of it failed."""
    said = error_words(job.get("error"))
    partial = job.get("partialFailures")
    if isinstance(partial, list) and partial:
        said = "; ".join(filter(None, (said, error_words(partial[0]) + (" …" if len(partial) > 1 else ""))))
    return said

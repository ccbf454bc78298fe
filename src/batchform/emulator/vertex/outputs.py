"""Where results go: a folder or a table of the job's own, and how the job tells of it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final

from msgspec import Struct

from batchform.emulator.clock import rfc3339
from batchform.emulator.store import Store
from batchform.emulator.vertex import places
from batchform.emulator.vertex.inputs import INVALID, Failed, check_bucket, check_dataset
from batchform.emulator.vertex.plan import Plan
from batchform.emulator.vertex.stores import Stores

_MICRO: Final = 1e-6


class Target(Struct, frozen=True):
    """folder: `gs://bucket/prefix/prediction-model-…`; table: `bq://p.d.t`; one of them is ""."""

    folder: str = ""
    table: str = ""


def target(store: Store, config: dict[str, Any], location: str, stores: Stores, now: float) -> Target:
    """Where the results of a job will go that is made now. Raises Failed when they cannot."""
    found = unchecked(store, config, now)
    if found.folder:
        folder = places.folder(found.folder)
        assert folder is not None  # the body was checked
        check_bucket(folder.bucket, location, stores)
    else:
        table = places.table(found.table)
        assert table is not None
        check_dataset(table, location, stores)
        if stores.columns(table) is not None:
            name = f"{table.project}:{table.dataset}.{table.table}"
            raise Failed(INVALID, f"Already Exists: Table {name}; name a dataset, or a table that does not exist.")
    return found


def unchecked(store: Store, config: dict[str, Any], now: float) -> Target:
    """The same, whether or not anything can be written there."""
    if "gcsDestination" in config:
        prefix = config["gcsDestination"]["outputUriPrefix"].rstrip("/")
        return Target(folder=f"{prefix}/prediction-model-{rfc3339(_stamp(store, now))}")
    named = places.table(config["bigqueryDestination"]["outputUri"])
    assert named is not None
    if named.table:
        return Target(table=str(named))
    at = datetime.fromtimestamp(_stamp(store, now), UTC)
    name = f"predictions_{at:%Y_%m_%dT%H_%M_%S}_{at.microsecond // 1000:03}Z_{at.microsecond % 1000:03}"
    return Target(table=f"{named}.{name}")


def _stamp(store: Store, now: float) -> float:
    """The time, a microsecond later for each job that was made in the same one: it names their folders apart."""
    with store.writing() as db:
        row = db.execute(
            "UPDATE vertex_stamp SET seconds = max(?, seconds + ?) RETURNING seconds", (now, _MICRO)
        ).fetchone()
    return float(row[0])


def shown(plan: Plan) -> dict[str, str]:
    """A job's outputInfo."""
    if plan.folder:
        return {"gcsOutputDirectory": plan.folder}
    dataset, _, name = plan.table.rpartition(".")
    return {"bigqueryOutputDataset": dataset, "bigqueryOutputTable": name}

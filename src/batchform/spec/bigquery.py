"""BigQuery in a spec: as the source of rows, and as the destination of answers."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any, Final, Literal

from pydantic import BeforeValidator, Field

from batchform.spec.fields import Count, Duration, Strict, Wire


def parse_moment(value: Any) -> str:
    """A time with its zone, as RFC 3339 in UTC."""
    try:
        moment = datetime.fromisoformat(str(value))
    except ValueError:
        raise ValueError(f"{value!r} is not a time: write 2026-11-21T08:00:00Z") from None
    if moment.tzinfo is None:
        raise ValueError(f"{value!r} has no time zone: write Z behind it for UTC")
    return moment.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


Moment = Annotated[str, BeforeValidator(parse_moment, json_schema_input_type=str)]


_LONGEST_NAME: Final = 300
_NOT_IN_NAMES: Final = frozenset('!"$()*,./;?@[\\]^`{}~')
_TAKEN: Final = ("_table_", "_file_", "_partition", "_row_timestamp", "__root__", "_colidentifier")


def name_problem(name: str) -> str:
    """Why BigQuery takes no column of this name, as the end of a sentence; "" if it does."""
    if len(name) > _LONGEST_NAME:
        return f"has {len(name)} characters, and BigQuery takes {_LONGEST_NAME}"
    odd = next((sign for sign in name if sign in _NOT_IN_NAMES or not sign.isprintable()), None)
    if odd is not None:
        return f"has {odd!r}, which BigQuery takes in no name"
    taken = next((start for start in _TAKEN if name.casefold().startswith(start)), None)
    return f"begins with {name[: len(taken)]}, which BigQuery keeps for itself" if taken else ""


class BigQuerySource(Strict):
    """Rows of BigQuery: a table, a view or a query."""

    type: Literal["bigquery"] = Wire(description="BigQuery.")
    table: str | None = Wire(None, description="Table or view, as project.dataset.table; or give `query`.")
    where: str | None = Wire(None, description="SQL condition on the table's rows, run by BigQuery.")
    query: str | None = Wire(None, description="One SELECT of BigQuery, in place of `table`.")
    as_of: Moment | None = Wire(
        None,
        description="Read the table, or `@snapshot` in the query, as it was at this time (RFC 3339); default now.",
    )
    project: str | None = Field(
        None, description="Project that is billed; default that of google_cloud, or of the credentials."
    )
    location: str | None = Field(None, description="Region of the data, such as EU; default that of the table.")
    max_bytes_billed: Count | None = Field(
        None, description="Bytes that reading may bill, such as 10G; more is refused before anything is read."
    )
    read: Literal["auto", "storage", "rest"] = Field(
        "auto", description="storage: by the Storage Read API; rest: by pages; auto: whichever is there and faster."
    )
    cache: bool = Field(
        default=True,
        description="Keep what was read in .batchform/cache, and read a table again only when it has changed.",
    )
    timeout: Duration = Field(3600.0, description="How long the query may take.")


class BigQueryDestination(Strict):
    """Answers in a table of BigQuery, merged by key in one statement."""

    type: Literal["bigquery"] = Field(description="BigQuery.")
    table: str = Field(description="The table, as project.dataset.table; made when it does not exist.")
    columns: dict[str, str] | None = Field(None, description="Output column → expression; default: all.")
    flatten: bool = Field(
        default=False, description="One column per property of the response, in place of one JSON column."
    )
    prune: bool = Field(default=False, description="Remove answers whose key left the source.")
    metadata: bool = Field(
        default=True,
        description="A column `_batchform` with each row's spec, plan, job, request fingerprint, time and cost.",
    )
    shared: bool = Field(
        default=False,
        description="The table may hold rows and columns that are not this spec's: they are left as they are.",
    )
    partition_by: str | None = Field(None, description="Column by whose time a new table is partitioned; default none.")
    partition: Literal["hour", "day", "month", "year"] = Field("day", description="Size of a partition.")
    cluster_by: list[str] = Field(
        default_factory=list, description="Columns by which a new table is clustered, four at most."
    )
    project: str | None = Field(
        None, description="Project that is billed; default that of google_cloud, or of the credentials."
    )
    location: str | None = Field(None, description="Region of the dataset, to be checked; default wherever it lies.")
    max_bytes_billed: Count | None = Field(None, description="Bytes that one merge may bill, such as 10G.")
    timeout: Duration = Field(1800.0, description="How long the load, and then the merge, may take.")

    @property
    def place(self) -> str:
        """Where answers go, as the user wrote it."""
        return self.table

    @property
    def takes_parts(self) -> bool:
        """Whether each delivery adds a part, in place of writing all anew."""
        return False

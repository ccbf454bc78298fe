"""Rows of a query's result, streamed into a Parquet file in order of the key, in bounded memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from batchform.adapters.bigquery_client import Access
from batchform.adapters.bigquery_storage import stored_rows
from batchform.adapters.bigquery_types import arrow_schema, from_arrow, from_rest
from batchform.adapters.sources.snapshot import temp_path
from batchform.adapters.sources.sql import quote_name, quote_text
from batchform.errors import SourceError
from batchform.run.ordered import BATCH_ROWS, cuts_of, write_ordered

if TYPE_CHECKING:
    import pyarrow as pa
    from duckdb import DuckDBPyConnection
    from google.cloud.bigquery import QueryJob, SchemaField

PAGE_ROWS: Final = 10_000
"""Rows that REST is asked for at once; the service ends a page at about 10 MB in any case."""
SORTED_BY_DUCKDB: Final = 20_000
_BETWEEN_CUTS: Final = 1_024
_GROUP_BYTES: Final = 8 << 20
_GROUP_ROWS: Final = 30_720


def batches(
    access: Access, job: QueryJob, *, way: str, seconds: float
) -> tuple[Sequence[SchemaField], Iterator[pa.RecordBatch]]:
    """The columns and record batches of a query, in the types of `arrow_schema`, once it is done.

    way: "storage", "rest", or "auto": the Storage Read API for more than a page, where it is installed and allowed.
    seconds: how long the query may take.
    """
    rows = job.result(page_size=PAGE_ROWS, retry=access.retry, timeout=seconds, job_retry=None)
    fields = list(rows.schema)
    schema = arrow_schema(fields)
    if way == "storage" or (way == "auto" and (rows.total_rows or 0) > PAGE_ROWS):
        stored = _from_storage(access, job, fields, schema, must=way == "storage")
        if stored is not None:
            return fields, stored
    return fields, (from_rest(page.raw_page.get("rows", ()), fields, schema) for page in rows.pages)


def _from_storage(
    access: Access, job: QueryJob, fields: Sequence[SchemaField], schema: pa.Schema, *, must: bool
) -> Iterator[pa.RecordBatch] | None:
    """The rows through the Storage Read API; None where it is not there to be used, unless it must be."""
    found = stored_rows(access, billed=job.project, table=job.destination.to_bqstorage(), must=must)
    if found is None and must:
        raise SourceError(
            "source.read is storage, and the Storage Read API is not there to be used.",
            hint="Install it with `pip install 'batchform[bigquery]'`, or set read: auto.",
        )
    return found and (from_arrow(batch, fields, schema) for batch in found)


# --- to a file ---------------------------------------------------------------------------------------------------


def write_raw(con: DuckDBPyConnection, schema: pa.Schema, read: Iterator[pa.RecordBatch]) -> tuple[Path, int]:
    """The batches in a Parquet file of the run's temp folder, and how many rows it has."""
    import pyarrow.parquet as pq

    path, rows = temp_path(con, ".parquet"), 0
    try:
        with pq.ParquetWriter(path, schema, compression="lz4") as writer:
            for table in _grouped(schema, read):
                rows += table.num_rows
                writer.write_table(table, row_group_size=table.num_rows)
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    return path, rows


def _grouped(schema: pa.Schema, read: Iterator[pa.RecordBatch]) -> Iterator[pa.Table]:
    """Batches together, as far as a row group should hold; never an empty one."""
    import pyarrow as pa

    held: list[pa.RecordBatch] = []
    size = count = 0
    for batch in read:
        for start in range(0, batch.num_rows, _GROUP_ROWS):
            part = batch.slice(start, _GROUP_ROWS)
            held.append(part)
            size, count = size + part.nbytes, count + part.num_rows
            if size >= _GROUP_BYTES or count >= _GROUP_ROWS:
                yield pa.Table.from_batches(held, schema)
                held, size, count = [], 0, 0
    if held:
        yield pa.Table.from_batches(held, schema)


def in_order(
    con: DuckDBPyConnection,
    raw: Path,
    rows: int,
    *,
    order: Sequence[str],
    columns: Sequence[str],
    to: Path,
    most_sorted: int = SORTED_BY_DUCKDB,
) -> None:
    """Write the rows of `raw` to `to`, by the columns in `order` and, among equals, by their whole content.

    most_sorted: up to so many rows, of a few megabytes, are sorted whole. Of more, only keys are sorted by DuckDB; the
    rows follow, dealt to files by rank: memory does not grow with their number.
    """
    if rows <= most_sorted and raw.stat().st_size <= _GROUP_BYTES:
        names = ", ".join(map(quote_name, columns))
        keys = ", ".join([*(f"{quote_name(name)} NULLS LAST" for name in order), _content(columns)])
        con.execute(
            f"COPY (SELECT {names} FROM {_numbered(raw)} ORDER BY {keys}) TO {quote_text(str(to))} "
            "(FORMAT parquet, COMPRESSION lz4_raw)"
        )
        return
    cuts = cuts_of(range(0, rows, _BETWEEN_CUTS), rows=rows)
    with _ranks(con, raw, order=order, columns=columns) as ranks:
        write_ordered([_ranked(raw, ranks)], to, cuts=cuts, folder=to.with_suffix(".dealt"))
    con.execute("DROP TABLE bf_source_ranks; DROP TABLE bf_source_ties")


def _numbered(raw: Path) -> str:
    return f"read_parquet({quote_text(str(raw))}, file_row_number = true)"


def _content(columns: Sequence[str]) -> str:
    """SQL of a number that is the same for rows of the same content only."""
    return f"md5_number(CAST(ROW({', '.join(map(quote_name, columns))}) AS VARCHAR))"


def _ranks(con: DuckDBPyConnection, raw: Path, *, order: Sequence[str], columns: Sequence[str]) -> pa.RecordBatchReader:
    """The place of each row in order, from 0, row by row. The content is looked at only where keys are equal: taken for
    every row, it costs many times what the keys cost."""
    keys = ", ".join(f"{quote_name(name)} NULLS LAST" for name in order) or "content"
    content = "" if order else f", {_content(columns)} AS content"
    con.execute(
        "CREATE OR REPLACE TEMP TABLE bf_source_ranks AS "
        "SELECT file_row_number AS number, row_number() OVER w - 1 AS place, rank() OVER w - 1 AS rank "
        f"FROM (SELECT *{content} FROM {_numbered(raw)}) WINDOW w AS (ORDER BY {keys})"
    )
    con.execute(
        "CREATE OR REPLACE TEMP TABLE bf_source_ties AS SELECT file_row_number AS number, "
        f"rank + row_number() OVER (PARTITION BY rank ORDER BY {_content(columns)}) - 1 AS place "
        f"FROM {_numbered(raw)} JOIN bf_source_ranks ON number = file_row_number "
        "WHERE rank IN (SELECT rank FROM bf_source_ranks WHERE place <> rank)"
    )
    return con.sql(
        "SELECT coalesce(t.place, r.place) FROM bf_source_ranks r LEFT JOIN bf_source_ties t USING (number) "
        "ORDER BY number"
    ).to_arrow_reader(BATCH_ROWS)


def _ranked(raw: Path, ranks: pa.RecordBatchReader) -> pa.RecordBatchReader:
    """The rows of `raw`, each behind its rank."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pq.read_schema(raw).insert(0, pa.field("bf_rank", pa.int64()))

    def batches() -> Iterator[pa.RecordBatch]:
        held = pa.array([], pa.int64())
        with pq.ParquetFile(raw) as file:
            groups = (file.read_row_group(i, use_threads=False) for i in range(file.num_row_groups))
            for batch in (b for group in groups for b in group.to_batches(BATCH_ROWS)):
                while len(held) < batch.num_rows:
                    held = pa.concat_arrays([held, ranks.read_next_batch().column(0)])
                yield pa.RecordBatch.from_arrays([held[: batch.num_rows], *batch.columns], schema=schema)
                held = held[batch.num_rows :]

    return pa.RecordBatchReader.from_batches(schema, batches())

"""The DuckDB that runs what BigQuery is asked. Nothing durable is in it, and it opens no file outside its folders."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from batchform.emulator.warehouse.declined import Declined, invalid_query
from batchform.emulator.warehouse.fields import text

if TYPE_CHECKING:
    import duckdb

MEMORY: Final = "512MiB"
_LOCK: Final = threading.Lock()


class Engine:
    """One database in memory, which spills into `spill`; a cursor per piece of work. `close` it."""

    def __init__(self, folders: list[Path], spill: Path) -> None:
        self._folders, self._spill = folders, spill
        self._active: dict[duckdb.DuckDBPyConnection, int] = {}
        self._db: duckdb.DuckDBPyConnection | None = None

    @contextmanager
    def cursor(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """A connection of its own, for one thread."""
        cursor = self._opened().cursor()
        self._active[cursor] = threading.get_ident()
        try:
            cursor.execute("SET TimeZone = 'UTC'")
            yield cursor
        finally:
            self._active.pop(cursor, None)
            cursor.close()

    def interrupt(self, thread: int | None = None) -> None:
        """Let what runs come to an end: all of it, or what one thread runs."""
        for cursor, its_thread in list(self._active.items()):
            if thread in (None, its_thread):
                cursor.interrupt()

    @contextmanager
    def declining(self) -> Iterator[None]:
        """What DuckDB and sqlglot refuse, as BigQuery says it."""
        import duckdb
        from sqlglot.errors import SqlglotError

        try:
            yield
        except duckdb.Error as e:
            raise _declined(e) from e
        except SqlglotError as e:
            raise invalid_query(f"The emulator cannot run this SQL: {str(e).splitlines()[0]}") from e

    def close(self) -> None:
        """End all work."""
        if self._db is not None:
            self._db.close()
            self._db = None

    def _opened(self) -> duckdb.DuckDBPyConnection:
        with _LOCK:
            if self._db is None:
                import duckdb

                self._db = duckdb.connect(":memory:")
                folders = ", ".join(text(str(f)) for f in (*self._folders, self._spill))
                for setting in (
                    "autoinstall_known_extensions = false",
                    f"memory_limit = '{MEMORY}'",
                    f"temp_directory = {text(str(self._spill))}",
                    "default_null_order = 'nulls_first_on_asc_last_on_desc'",
                    "parquet_metadata_cache = true",
                    f"allowed_directories = [{folders}]",
                    "enable_external_access = false",
                    "lock_configuration = false",
                ):
                    self._db.execute(f"SET {setting}")
            return self._db


def _declined(error: duckdb.Error) -> Declined:
    kind, message = type(error).__name__, str(error).split("\n\n")[0].strip()
    if "cannot affect the same target row more than once" in message:
        return invalid_query("UPDATE/MERGE must match at most one source row for each target row")
    if kind == "OutOfMemoryException":
        return Declined(400, f"Resources exceeded during query execution: {message}", reason="resourcesExceeded")
    if kind == "InterruptException":
        return Declined(400, "Job execution was cancelled: User requested cancellation", reason="stopped")
    if kind == "ConstraintException" and "NOT NULL" in message:
        column = message.rpartition(".")[2].strip()
        return invalid_query(f"Required field {column} cannot be null")
    return invalid_query(message)

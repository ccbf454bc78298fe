"""Files that requests name, placed where jobs read them: through the unmodified clients, against the emulator."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from vertex_kit import STAGING, emulated

from batchform.adapters.gemini import GeminiBackend
from batchform.canon import digest
from batchform.emulator import EmulatorServer
from batchform.errors import BackendError, StalePlan
from batchform.ports import File
from batchform.spec.model import GeminiBackend as GeminiConfig


class Watch:
    """A clock that is set by hand; its naps pass at once."""

    def __init__(self) -> None:
        self.time = datetime.now(UTC)
        self.naps: list[float] = []

    def now(self) -> datetime:
        return self.time

    def sleep(self, seconds: float) -> None:
        self.naps.append(seconds)
        self.time += timedelta(seconds=seconds)


@pytest.fixture
def watch() -> Watch:
    return Watch()


@pytest.fixture
def emulator(tmp_path: Path) -> Iterator[EmulatorServer]:
    with EmulatorServer(tmp_path / "emulator", job_seconds=0.0) as server:
        yield server


def gemini_at(url: str, watch: Watch) -> GeminiBackend:
    config = GeminiConfig(type="gemini", base_url=url)
    return GeminiBackend(config, env={"GEMINI_API_KEY": "key"}, realm="emulator", sleep=watch.sleep, now=watch.now)


@pytest.fixture
def gemini(emulator: EmulatorServer, watch: Watch) -> Iterator[GeminiBackend]:
    with closing(gemini_at(emulator.url, watch)) as backend:
        yield backend


def file(folder: Path, content: bytes = b"pixels", name: str = "a.png", mime_type: str = "image/png") -> File:
    path = folder / name
    path.write_bytes(content)
    return File(digest(content), mime_type, len(content), path)


def test_a_file_is_uploaded_once_while_it_is_new(gemini: GeminiBackend, watch: Watch, tmp_path: Path) -> None:
    placed = gemini.place_file(file(tmp_path))
    watch.time += timedelta(minutes=55)
    assert gemini.place_file(file(tmp_path, name="moved.png")) == placed
    assert placed.renew_at is not None and placed.renew_at > watch.now()


def test_what_may_expire_before_its_job_reads_it_is_uploaded_anew(
    gemini: GeminiBackend, watch: Watch, tmp_path: Path
) -> None:
    placed = gemini.place_file(file(tmp_path))
    watch.time += timedelta(minutes=65)
    assert gemini.place_file(file(tmp_path)).uri == f"{placed.uri}-2"


def test_other_bytes_and_other_types_are_other_files(gemini: GeminiBackend, tmp_path: Path) -> None:
    uris = {
        gemini.place_file(found).uri
        for found in (
            file(tmp_path),
            file(tmp_path, b"other", name="b.png"),
            file(tmp_path, mime_type="image/webp"),
        )
    }
    assert len(uris) == 3


@pytest.mark.parametrize("cloud", ["gemini", "vertex"])
def test_a_file_that_changed_is_not_uploaded(
    cloud: str, gemini: GeminiBackend, emulator: EmulatorServer, tmp_path: Path
) -> None:
    planned = file(tmp_path)
    (tmp_path / "a.png").write_bytes(b"change")
    with emulated(emulator) as vertex, pytest.raises(StalePlan, match=r"a\.png changed since it was planned"):
        (gemini if cloud == "gemini" else vertex).place_file(planned)


def test_a_file_is_waited_for_while_it_is_processed(tmp_path: Path, watch: Watch) -> None:
    busy = {"call": "files.get", "nth": 2, "times": 3, "do": {"type": "file_state", "state": "PROCESSING"}}
    with (
        EmulatorServer(tmp_path / "emulator", job_seconds=0.0, faults=[busy]) as server,
        closing(gemini_at(server.url, watch)) as backend,
    ):
        assert backend.place_file(file(tmp_path)).uri
    assert watch.naps == [2.0, 2.0, 2.0]


def test_a_file_that_stays_in_processing_is_told_and_not_uploaded_twice(tmp_path: Path, watch: Watch) -> None:
    busy = {"call": "files.get", "times": "all", "do": {"type": "file_state", "state": "PROCESSING"}}
    with (
        EmulatorServer(tmp_path / "emulator", job_seconds=0.0, faults=[busy]) as server,
        closing(gemini_at(server.url, watch)) as backend,
        pytest.raises(BackendError, match="still being processed after 15 minutes"),
    ):
        backend.place_file(file(tmp_path))


def test_on_vertex_a_file_is_staged_once_under_its_content(emulator: EmulatorServer, tmp_path: Path) -> None:
    with emulated(emulator) as backend:
        placed = backend.place_file(file(tmp_path))
        assert placed.uri == f"{STAGING}/attachments/{digest(b'pixels').removeprefix('sha256:')}.png"
        assert placed.renew_at is None
        assert backend.place_file(file(tmp_path)) == placed


def test_an_object_is_taken_as_it_is_unless_it_changed(emulator: EmulatorServer, tmp_path: Path) -> None:
    from batchform.adapters.contents import object_digest
    from batchform.spec.remote import address

    with emulated(emulator) as backend:
        uri = backend.place_file(file(tmp_path)).uri
        client = backend._objects._client
        found = client.stat(address(uri))
        assert found is not None
        named = File(object_digest(found), "image/png", found.size, None, uri)
        assert backend.place_file(named).uri == uri
        client.write(address(uri), b"other pixels", match=found.generation)
        with pytest.raises(StalePlan, match="changed since it was planned"):
            backend.place_file(named)

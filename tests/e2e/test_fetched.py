"""Files that rows name at https:// and gs://, for a service that takes uploads only."""

from __future__ import annotations

import gzip
import json
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
from attached_kit import asked, pdf, png, project, uploads
from tests_e2e_kit import Workspace
from web_kit import Site, site

from batchform.adapters import web as web_module
from batchform.adapters.web import Version, Web
from batchform.emulator import EmulatorServer
from batchform.errors import SourceError
from batchform.run.attachments import changed
from bucket_kit import Bucket

LOCAL: dict[str, Any] = {"type": "emulator", "job_seconds": 0, "poll": "10ms"}


@pytest.fixture
def web(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    with site(tmp_path) as made:
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "cert.pem"))
        yield made


def rows(workspace: Workspace, *addresses: str, up_to: int = 1, **attachment: Any) -> None:
    named = [{"id": str(n), "image": one} for n, one in enumerate(addresses)]
    project(workspace, {"path": "{{ image }}", "inline_up_to": up_to, **attachment}, rows=named)


def test_what_an_address_holds_is_uploaded_and_counts_by_its_content(workspace: Workspace, web: Site) -> None:
    workspace.project(backends={"local": LOCAL}, allow_hosts=["localhost"])
    web.content = {"/a.png": png(colour=1), "/b.png": png(colour=2), "/old.png": "/b.png"}
    rows(workspace, f"{web.url}/a.png?sig=s3cret", f"{web.url}/old.png", "media/a.png")
    workspace.apply()
    assert len(workspace.billed()) == 3 and len(uploads(workspace)) == 3
    assert set(workspace.billed()) == asked(workspace)
    assert workspace.actions() == {"keep": 3}
    assert web.took(200) == 2  # all other calls: it is as it was

    web.content["/moved.png"] = web.content["/b.png"]
    rows(workspace, f"{web.url}/a.png?sig=another", f"{web.url}/moved.png", "media/a.png")
    assert workspace.actions() == {"keep": 3}

    web.content["/moved.png"] = png(colour=3)
    assert workspace.actions() == {"rerun": 1, "keep": 2}
    web.content["/a.png"] = 404
    found = workspace.run("plan")
    assert found.code == 1 and f"{web.url}/a.png?… answers 404" in found.err and "another" not in found.err
    assert workspace.run("validate").code == 0  # which asks nobody


@pytest.mark.parametrize("up_to", [1, 100_000])
def test_what_was_planned_is_what_is_sent(workspace: Workspace, web: Site, up_to: int) -> None:
    workspace.project(backends={"local": LOCAL}, allow_hosts=["localhost"])
    web.content = {"/a.png": png(colour=1)}
    web.tags = False
    rows(workspace, f"{web.url}/a.png", up_to=up_to)
    workspace.ok("plan", "--out", "saved")
    web.content["/a.png"] = png(colour=2)

    found = workspace.run("apply", "saved", "--yes")

    assert found.code == 4 and "changed" in found.err and workspace.billed() == []
    web.content["/a.png"] = png(colour=1)
    workspace.ok("apply", "saved", "--yes")
    assert len(workspace.billed()) == 1


@pytest.mark.parametrize("cloud", ["gemini", "vertex"])
def test_objects_are_fetched_once_for_uploads_and_for_parts(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cloud: str
) -> None:
    with EmulatorServer(tmp_path / "emulator", job_seconds=0) as server:
        bucket = Bucket(server.url)
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", server.url)
        backend = {"type": "emulator", "poll": "10ms", "cloud": cloud, "url": server.url}
        staged = {"staging": f"gs://{bucket.name}/staging"} if cloud == "vertex" else {}
        workspace.project(backends={"local": {**backend, **staged}})
        bucket.put("long.pdf", pdf(3))
        packed = bucket.bucket.blob("short.pdf")
        packed.content_encoding = "gzip"
        packed.upload_from_string(gzip.compress(pdf(2)), content_type="application/pdf")
        rows(workspace, f"gs://{bucket.name}/long.pdf", f"gs://{bucket.name}/short.pdf", split_pages=2)

        workspace.apply()

        assert [len(row["parts"]) for row in workspace.delivered()] == [2, 1]
        assert workspace.actions() == {"keep": 3}
        assert len(bucket.names("staging/attachments/")) == (2 if cloud == "vertex" else 0)
        bucket.put("short.pdf", pdf(1))
        assert workspace.actions() == {"rerun": 1, "keep": 2}
        rows(workspace, f"gs://{bucket.name}/none.pdf")
        assert f"There is no object gs://{bucket.name}/none.pdf" in workspace.run("plan").err
        bucket.client.close()


PRIVATE = (
    "127.0.0.1",
    "10.1.2.3",
    "192.168.0.1",
    "169.254.169.254",
    "[::1]",
    "[fd00::1]",
    "[::ffff:10.0.0.1]",
    "[64:ff9b::10.0.0.1]",
    "[fec0::1]",
    "[::127.0.0.1]",
    "0.0.0.0",
)


@pytest.mark.parametrize("host", [*PRIVATE, "localhost"])
def test_what_only_this_machine_can_reach_is_not_read(host: str, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="no public address"):
        Web().read(f"https://{host}/a.png", tmp_path / "x")


def test_nor_behind_a_redirect(web: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    web.content = {"/a": web.url.replace("localhost", "127.0.0.1") + "/b", "/plain": "http://localhost/b", "/b": b"x"}
    web.content["/circle"] = "/circle"
    web.content["/secret"] = "http://ann:s3cret@localhost/b?sig=s3cret"
    one = Web(allow_hosts=["localhost"])
    with pytest.raises(SourceError, match=r"leads to http://localhost/b\?…, which") as told:
        one.read(f"{web.url}/secret", tmp_path / "x")
    assert "s3cret" not in str(told.value)
    with pytest.raises(SourceError, match=r"leads to 127\.0\.0\.1, which is 127\.0\.0\.1: no public"):
        one.read(f"{web.url}/a", tmp_path / "x")
    with pytest.raises(SourceError, match="leads to http://localhost/b, which is no https:// address"):
        one.read(f"{web.url}/plain", tmp_path / "x")
    with pytest.raises(SourceError, match="more than 5 times"):
        one.read(f"{web.url}/circle", tmp_path / "x")
    with pytest.raises(SourceError, match="without user and password"):
        one.read("https://ann:secret@example.com/a", tmp_path / "x")
    with pytest.raises(SourceError, match=r"^https://example\.com/a\?… is no https"):
        one.read("https://ann:secret@example.com/a?b#c", tmp_path / "x")
    monkeypatch.delenv("SSL_CERT_FILE")
    with pytest.raises(SourceError, match="The certificate of localhost does not hold"):
        one.read(f"{web.url}/b", tmp_path / "x")
    assert not (tmp_path / "x").exists()


def test_what_passes_is_tried_again_and_what_is_too_large_is_not_read(web: Site, tmp_path: Path) -> None:
    waited: list[float] = []
    one, to = Web(allow_hosts=["localhost"], most=1000, sleep=waited.append), tmp_path / "x"
    web.content = {"/busy": 503, "/large": b"x" * 1001, "/fits": b"x" * 1000, "/no": 403}
    with pytest.raises(SourceError, match="/busy answers 503"):
        one.read(f"{web.url}/busy", to)
    assert waited == [1.0, 2.0] and web.took(503) == 3
    with pytest.raises(SourceError, match="has more than 1,000 bytes"):
        one.read(f"{web.url}/large", to)
    with pytest.raises(SourceError, match="answers 403"):
        one.read(f"{web.url}/no", to)
    version = one.read(f"{web.url}/fits", to)
    assert to.stat().st_size == 1000 and isinstance(version, Version)
    assert one.read(f"{web.url}/fits", to, version) is None
    with pytest.raises(SourceError, match=r"there is no host nowhere\.invalid"):
        one.read("https://nowhere.invalid/a", to)
    with pytest.raises(SourceError, match="cannot be reached"):
        one.read("https://localhost:1/a", to)


def test_a_name_that_changes_its_address_in_between_is_not_followed(
    web: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The connection goes to the address that was looked at, whatever the name means a moment later."""
    port = int(web.url.rpartition(":")[2])
    went: list[Any] = []
    monkeypatch.setattr(
        web_module.socket, "getaddrinfo", lambda _, port, **__: [(2, 1, 6, "", ("93.184.216.34", port))]
    )
    monkeypatch.setattr(
        web_module.socket, "create_connection", lambda at, **_: went.append(at) or (_ for _ in ()).throw(OSError("no"))
    )
    with pytest.raises(SourceError, match="cannot be reached"):
        Web(sleep=lambda _: None).read(f"https://rebinding.example:{port}/a", tmp_path / "x")
    assert went == [("93.184.216.34", port)] * 3


@pytest.mark.parametrize("of", ["the head", "the body"])
def test_a_server_that_sends_a_byte_now_and_then_is_left(web: Site, tmp_path: Path, of: str) -> None:
    def slowly(call: BaseHTTPRequestHandler) -> None:
        with suppress(OSError):
            if of == "the body":
                call.wfile.write(b"HTTP/1.1 200 OK\r\n\r\n")
            for _ in range(200):
                call.wfile.write(b"H")
                time.sleep(0.02)

    web.content = {"/slow": slowly}
    began = time.monotonic()
    with pytest.raises(SourceError, match="/slow is not read after"):
        Web(allow_hosts=["localhost"], longest=0.2).read(f"{web.url}/slow", tmp_path / "x")
    assert time.monotonic() - began < 3


def _answer(call: BaseHTTPRequestHandler, content: bytes, **headers: str) -> None:
    call.send_response(200)
    for name, value in headers.items():
        call.send_header(name.replace("_", "-"), value)
    call.end_headers()
    call.wfile.write(content)


def test_what_is_not_the_file_itself_is_not_taken_for_it(web: Site, tmp_path: Path) -> None:
    one, to = Web(allow_hosts=["localhost"], sleep=lambda _: None), tmp_path / "x"
    web.content = {
        "/packed": lambda call: _answer(call, b"\x1f\x8b", Content_Encoding="gzip", Content_Length="2"),
        "/cut": lambda call: _answer(call, b"half"),  # no length, and an end that is not stated as one
        "/short": lambda call: _answer(call, b"half", Content_Length="8"),
        "/odd": lambda call: _answer(call, b"whole", Content_Length="much"),
        "/a%20b%C3%A4%2Fc": b"named",
    }
    with pytest.raises(SourceError, match=r"comes packed \(gzip\)"):
        one.read(f"{web.url}/packed", to)
    for name in ("cut", "short", "odd"):
        with pytest.raises(SourceError, match=f"/{name} broke off"):
            one.read(f"{web.url}/{name}", to)
    one.read(f"{web.url}/a bä%2Fc?x=y z", to)
    assert to.read_bytes() == b"named" and web.asked[-1][0].endswith("?x=y%20z")


def test_only_what_was_read_there_is_known_there(web: Site, tmp_path: Path) -> None:
    """Two servers may call two files the same; the later one may also be older."""

    def same(content: bytes) -> Callable[[BaseHTTPRequestHandler], None]:
        def give(call: BaseHTTPRequestHandler) -> None:
            if call.headers.get("If-None-Match"):
                call.send_response(304)
                call.end_headers()
            else:
                _answer(call, content, ETag='"1"', Content_Length=str(len(content)))

        return give

    web.content = {"/now": "/first", "/first": same(b"first"), "/second": same(b"second")}
    one, to = Web(allow_hosts=["localhost"]), tmp_path / "x"
    known = one.read(f"{web.url}/now", to)
    assert known is not None and one.read(f"{web.url}/now", to, known) is None
    web.content["/now"] = "/second"
    assert one.read(f"{web.url}/now", to, known) is not None and to.read_bytes() == b"second"


def test_plans_name_no_signature(workspace: Workspace, web: Site) -> None:
    workspace.project(backends={"local": LOCAL}, allow_hosts=["localhost"])
    web.tags = False
    web.content = {"/a.png": png(colour=1)}
    rows(workspace, f"{web.url}/a.png?sig=s3cret")
    assert "s3cret" not in workspace.ok("plan").out
    assert "s3cret" not in json.dumps(workspace.plan())
    assert web.took(200) == 2  # once for each plan, also where the server names no versions
    web.content |= {"/long.pdf": b"%PDF-1.4 no", "/log-in.pdf": b"\n<!DOCTYPE html><p>Who are you?"}
    for said, address in (
        ("The pages of", f"{web.url}/long.pdf?sig=s3cret"),
        ("log-in.pdf?… is a web page, and no application/pdf", f"{web.url}/log-in.pdf?sig=s3cret"),
        ("is neither a path", "http://ann:s3cret@localhost/a.png?sig=s3cret"),
        ("is no path and no address", f"{web.url}/\x1b[31mlong.pdf?sig=s3cret"),
    ):
        rows(workspace, address, split_pages=2)
        found = workspace.run("plan").err
        assert said in found and "s3cret" not in found and "\x1b" not in found
    assert "s3cret" not in str(changed(f"{web.url}/a.png?sig=s3cret"))

from __future__ import annotations
import json, shutil, threading, socket, ssl, time
from pathlib import Path
from typing import Any
import pytest
from attached_kit import asked, pdf, png, project, uploads
from tests_e2e_kit import Workspace
from web_kit import Site, site
from test_fetched import rows, LOCAL, web
from batchform.adapters.web import Web
from batchform.errors import SourceError


def show(*a):
    with open("/tmp/w/rp/out2.txt", "a") as f:
        print(*a, file=f)


def test_e6(workspace: Workspace, web: Site, tmp_path: Path) -> None:
    workspace.project(backends={"local": LOCAL}, allow_hosts=["localhost"])
    web.content = {
        "/a.png": png(colour=1),
        "/bad.pdf": b"%PDF-1.4 nope",
        "/to": "http://u:pw9@h/x?sig=s3cret",
        "/empty.png": b"",
        "/big.pdf": pdf(5),
    }
    web.tags = False
    rows(workspace, f"{web.url}/a.png?sig=s3cret")
    workspace.ok("plan", "--out", "saved")
    web.content["/a.png"] = png(colour=2)
    r = workspace.run("apply", "saved", "--yes")
    show("changed:", r.code, r.out[-300:], r.err)
    for u, kw in [
        (f"{web.url}/bad.pdf?sig=s3cret", {"split_pages": 2}),
        (f"{web.url}/to?sig=s3cret", {"mime_type": "image/png"}),
        (f"{web.url}/empty.png?sig=s3cret", {}),
        ("https://ann:s3cret@localhost/a.png", {}),
        ("http://h/a.png?sig=s3cret", {}),
        ("HTTPS://h/a.png?sig=s3cret", {}),
        (f"{web.url}/a b.png?sig=s3cret", {}),
        (f"{web.url}/ä.png?sig=s3cret", {}),
        (f"{web.url}/a\x1b[31mX.png?sig=s3cret", {}),
        (f"{web.url}/x.zip?sig=s3cret", {}),
        (f"{web.url}/a.png#s3cret", {}),
        ("https://[::1/a.png?sig=s3cret", {}),
        ("https://localhost:99999/a.png?sig=s3cret", {}),
    ]:
        rows(workspace, u, **kw)
        t = time.time()
        r = workspace.run("plan")
        show(repr(u), r.code, round(time.time() - t, 1), repr(r.err))
    web.content["/a.png"] = png(colour=1)
    rows(workspace, f"{web.url}/a.png?sig=s3cret")
    r = workspace.run("apply", "--yes")
    show("apply", r.code, "s3cret" in r.out + r.err)
    for args in (
        ["explain", "triage", "0"],
        ["explain", "triage", "0", "--json"],
        ["render", "triage", "--all"],
        ["status"],
        ["jobs", "list"],
        ["results", "triage"],
        ["plan", "--json"],
    ):
        r = workspace.run(*args)
        show(args, r.code, "s3cret" in r.out + r.err)
    import subprocess

    show(subprocess.run(["grep", "-rl", "s3cret", str(workspace.root)], capture_output=True, text=True).stdout)


def test_e7(workspace: Workspace, web: Site) -> None:
    failed = {"call": "batches.create", "times": 1, "do": {"type": "row_error", "status": 500, "rows": [1]}}
    workspace.write("faults.yaml", json.dumps({"faults": [failed]}))
    workspace.project(backends={"local": {**LOCAL, "faults": "faults.yaml"}}, allow_hosts=["localhost"])
    web.content = {"/a.png": png(colour=1), "/b.png": png(colour=2)}
    rows(workspace, f"{web.url}/a.png", f"{web.url}/b.png")
    r = workspace.run("apply", "--yes", "--detach")
    show("E7", r.code, r.err)
    web.content = {}
    r = workspace.run("sync")
    show("E7 sync", r.code, r.out, r.err)
    r = workspace.run("sync", "--wait")
    show("E7 sync", r.code, r.out, r.err)
    show(workspace.run("status").out)
    p = workspace.root / "results/triage.jsonl"
    show(p.exists() and p.read_text())

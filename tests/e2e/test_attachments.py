"""Files that go with requests, through the command line: what is sent for them, and what is not."""

from __future__ import annotations

import hashlib
import json
import os

from attached_kit import ROWS, png, project
from tests_e2e_kit import Workspace

UPLOADED = {"path": "{{ image }}", "inline_up_to": 1}


def test_a_request_names_its_file_by_its_content(workspace: Workspace) -> None:
    project(workspace)

    shown = json.loads(workspace.ok("render", "triage", "--key", "b", "--json").out)["request"]

    digest = hashlib.sha256((workspace.root / "media/b.png").read_bytes()).hexdigest()
    assert shown["contents"][0]["parts"] == [
        {"fileData": {"fileUri": f"sha256:{digest}", "mimeType": "image/png"}},
        {"text": "What is in picture b?"},
    ]


def test_a_file_that_is_moved_or_touched_sends_nothing_and_one_that_changes_sends_its_rows(
    workspace: Workspace,
) -> None:
    project(workspace, UPLOADED)
    workspace.apply()
    assert workspace.actions() == {"keep": 3}

    os.utime(workspace.root / "media/a.png", ns=(1, 1))
    assert workspace.actions() == {"keep": 3}
    (workspace.root / "media/a.png").rename(workspace.root / "media/moved.png")
    workspace.rows([{**row, "image": row["image"].replace("a.png", "moved.png")} for row in ROWS])
    assert workspace.actions() == {"keep": 3}

    workspace.write("media/moved.png", png(colour=99))
    assert workspace.actions() == {"rerun": 2, "keep": 1}
    workspace.apply()
    assert workspace.actions() == {"keep": 3}

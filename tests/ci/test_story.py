"""docs/story.md, lived: its commands in a real git repository, and what they print is what stands there.

`python tests/ci/test_story.py` writes the outputs anew; read the diff. Figures and words must be the same; digests,
times and names of jobs may differ.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import subprocess
import tempfile
from collections.abc import Iterator
from io import StringIO
from pathlib import Path

import pytest
from forge_server import BOT, GITHUB_TOKEN, ForgeServer, forge_server

from batchform.cli import run

STORY = Path(__file__).resolve().parents[2] / "docs/story.md"
WHEN = "2026-01-01T12:00:00Z"
VARIABLES = {
    "COLUMNS": "110",
    "NO_COLOR": "1",
    "LOGNAME": "ada",
    "GIT_AUTHOR_NAME": "Ada", "GIT_AUTHOR_EMAIL": "ada@example.com", "GIT_AUTHOR_DATE": WHEN,
    "GIT_COMMITTER_NAME": "Ada", "GIT_COMMITTER_EMAIL": "ada@example.com", "GIT_COMMITTER_DATE": WHEN,
    "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull,
    "GITHUB_REPOSITORY": "acme/support", "GITHUB_TOKEN": GITHUB_TOKEN,
}  # fmt: skip
UNSET = ("GITHUB_ACTIONS", "GITLAB_CI", "GITHUB_EVENT_PATH", "GITHUB_SHA", "GITHUB_RUN_ID", "BATCHFORM_ENV", "GH_TOKEN",
         "GEMINI_API_KEY", "GOOGLE_API_KEY")  # fmt: skip
_BLOCK = re.compile(r"^(```+)(console|diff|markdown)\n(.*?)^\1$", re.DOTALL | re.MULTILINE)


class Teller:
    """Lives the story: keeps the folder, as a shell would."""

    def __init__(self, folder: Path, forge: ForgeServer) -> None:
        self.folder, self.forge = folder, forge

    def tell(self, text: str) -> str:
        """The text with what its commands print now."""
        return _BLOCK.sub(self._block, text)

    def _block(self, match: re.Match[str]) -> str:
        fence, language, body = match.groups()
        if language == "diff":
            self._edit(body)
            return match[0]
        commands = re.findall(r"^\$ (.+)$", body, re.MULTILINE)
        told = "".join(f"$ {command}\n{self._run(command)}" for command in commands)
        told = re.sub(r"(<!-- batchform:envelope:)\S+", r"\1…", told)  # for programs
        return f"{fence}{language}\n{told}{fence}"

    def _edit(self, body: str) -> None:
        head, *lines = body.splitlines(keepends=True)
        path = self.folder / head.removeprefix("--- ").strip()
        old, new = ("".join(line[1:] for line in lines if line[0] in kept).rstrip("\n") for kept in (" -", " +"))
        before = path.read_text(encoding="utf-8")
        assert before.count(old) == 1, (path, old)
        path.write_text(before.replace(old, new), encoding="utf-8")

    def _run(self, line: str) -> str:
        command, _, comment = line.partition("  # ")
        wanted = re.fullmatch(r"exits (\d+)", comment)
        words = shlex.split(command)
        if words[0] == "cd":
            self.folder = self.folder / words[1]
            return ""
        code, told = (
            self._batchform(words[1:]) if words[0] == "batchform" and ">" not in words else self._shell(command)
        )
        assert code == (int(wanted[1]) if wanted else 0), (line, code, told)
        return told

    def _batchform(self, arguments: list[str]) -> tuple[int, str]:
        branch = self._git("branch", "--show-current")
        os.environ["GITHUB_SHA"] = self._git("rev-parse", "HEAD")
        os.environ["GITHUB_REF"] = f"refs/heads/{branch}" if branch == "main" else "refs/pull/7/merge"
        said = StringIO()
        with contextlib.chdir(self.folder), contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            code = run(arguments)
        if arguments[0] == "init":
            self._hurry(self.folder / arguments[1] / "batchform.yaml")
        return code, "".join(f"{line.rstrip()}\n" for line in said.getvalue().splitlines()).lstrip("\n")

    def _shell(self, command: str) -> tuple[int, str]:
        if command.startswith("batchform "):
            code, told = self._batchform(shlex.split(command.partition(" > ")[0])[1:])
            (self.folder / command.partition(" > ")[2]).write_text(told, encoding="utf-8")
            return code, ""
        done = subprocess.run(
            command, shell=True, cwd=self.folder, capture_output=True, text=True, check=False, timeout=30
        )
        if command.startswith("git merge"):  # as the button does
            merged = {"number": 7, "merged_at": WHEN, "base": {"ref": "main"}}
            self.forge.pulls = [{**merged, "merge_commit_sha": self._git("rev-parse", "HEAD")}]
        return done.returncode, done.stdout + done.stderr

    def _git(self, *arguments: str) -> str:
        done = subprocess.run(["git", *arguments], cwd=self.folder, capture_output=True, text=True, check=False)
        return done.stdout.strip()

    @staticmethod
    def _hurry(file: Path) -> None:
        """The emulator answers at once; nobody waits for it."""
        text = file.read_text(encoding="utf-8")
        file.write_text(text.replace("{type: emulator}", "{type: emulator, job_seconds: 0, poll: 10ms}"))


def masked(text: str) -> str:
    """A text without what differs between two runs: digests, days, times, names of jobs."""
    text = re.sub(r"<!-- batchform:(digest|envelope):\S+ -->", "<!-- # -->", text)
    text = re.sub(r"\bbf-[a-z]+-[0-9a-f]+-[0-9a-f]+-a(\d)", r"bf-#-a\1", text)
    text = re.sub(r"\b[0-9a-f]{7,}\b", "#", text)
    text = re.sub(r"\b\d+ s ago", "# s ago", text)
    return re.sub(r"\b\d{4}-\d{2}-\d{2}(T[\d:.]+Z|,? \d\d:\d\d)?", "#", text)


@contextlib.contextmanager
def at_ada(forge: ForgeServer) -> Iterator[None]:
    """The machine and the variables of whoever tells the story."""
    with pytest.MonkeyPatch.context() as patch:
        for name in UNSET:
            patch.delenv(name, raising=False)
        for name, value in {**VARIABLES, "GITHUB_API_URL": forge.url, "GITHUB_SHA": "", "GITHUB_REF": ""}.items():
            patch.setenv(name, value)
        patch.setattr("platform.node", lambda: "laptop")
        yield


def test_the_story_is_as_it_is_told(tmp_path: Path, forge: ForgeServer) -> None:
    story = STORY.read_text(encoding="utf-8")
    with at_ada(forge):
        told = Teller(tmp_path, forge).tell(story)
    assert masked(told) == masked(story)
    assert len(forge.bodies(BOT)) == 1


if __name__ == "__main__":
    with forge_server() as server, tempfile.TemporaryDirectory() as home, at_ada(server):
        STORY.write_text(Teller(Path(home), server).tell(STORY.read_text(encoding="utf-8")), encoding="utf-8")

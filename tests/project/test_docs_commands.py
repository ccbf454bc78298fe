"""Every command, edit and file in README.md and docs/ is tried, in order, as a reader would.

Each document gets a fresh copy of the demo project and an emulator in place of Gemini. Of its fenced blocks,

- `console`: a line that starts with `$ ` is a command, lines after it are output. It must end with exit code 0, or N if
  it carries the comment `# exits N`; each line of output must appear in the real one, in that order, whatever its
  figures, spacing and digests. A line of `…` stands for anything;
- `diff`: `--- FILE`, then lines to take out (`-`) and to put in (`+`): done to the file;
- `yaml` whose first line is `# specs/NAME.yaml` or `# batchform.yaml`: written there, and all files must be valid then.

A new section (`##`) starts in the project's folder again. A line that ends with `\\` goes on in the next one. What is
not run is in NOT_RUN, with the reason.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from postgres_kit import PostgresServer, installed_binaries

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
PROJECT = ("batchform.yaml", "specs", "templates", "schemas", "data")
TOLD = "story.md"
"""It has a repository and a forge of its own: tests/ci/test_story.py runs it, and holds it to all that is printed."""
NOT_RUN = {
    r"pip install \S+": "installs; .ci/run does that on a clean clone",
    r"make (demo|test|check|prove|bench|bench-memory|clean)": "installs, or runs these tests; .ci/run does both",
    r"make (validate|plan|show|apply|sync|status)\b.*": "same recipe as the command beside it; see test_makefile.py",
    r"(gcloud|bq) .*": "asks a project of Google Cloud",
    r"(jq|opa|conftest) .*": "programs of others; tests/e2e/test_policy_docs.py runs the rules that they are given",
    r"batchform emulator serve\b.*": "runs until stopped; the `gemini` fixture below is that very command",
}


@dataclass(frozen=True)
class Command:
    line: str
    exit_code: int
    output: tuple[str, ...]


@dataclass(frozen=True)
class Edit:
    file: str
    old: str
    new: str


@dataclass(frozen=True)
class Write:
    file: str
    text: str


@dataclass(frozen=True)
class Section:
    title: str


Step = Command | Edit | Write | Section


def steps(document: str) -> Iterator[Step]:
    """What a document asks its reader to do, in order."""
    for title, language, body in re.findall(r"^## ([^\n]+)$|^```(\w+)\n(.*?)^```$", document, re.DOTALL | re.MULTILINE):
        if title:
            yield Section(title)
        elif language == "console":
            yield from console_steps(body)
        elif language == "diff":
            file = re.match(r"--- (\S+)\n", body)
            assert file, f"a diff block must start with `--- FILE`:\n{body}"
            lines = body.splitlines(keepends=True)[1:]
            sides = ["".join(line[1:] for line in lines if line[0] in kept) for kept in (" -", " +")]
            yield Edit(file[1], *sides)
        elif language == "yaml" and (file := re.match(r"# ((?:specs/[\w-]+|batchform)\.yaml)\b", body)):
            yield Write(file[1], body)
        else:
            assert language not in ("bash", "sh", "shell"), "commands go into ```console blocks, after `$ `"


def console_steps(body: str) -> Iterator[Command]:
    joined = body.replace("\\\n", "")
    for block in re.split(r"^\$ ", joined, flags=re.MULTILINE)[1:]:
        line, *output = block.rstrip().split("\n")
        command, _, comment = line.partition("  # ")
        code = re.search(r"exits (\d+)", comment)
        yield Command(command.strip(), int(code[1]) if code else 0, tuple(o for o in output if o.strip()))


def masked(line: str) -> str:
    """A line of output without what differs between two runs."""
    line = re.sub(r"\b[0-9a-f]{12,}\b", "#", line)
    line = re.sub(r"\d[\d,.:TZ+-]*", "#", line)
    return re.sub(r"[\s─│┃━…]+", " ", line).strip()


def missing_line(documented: tuple[str, ...], real: str) -> str | None:
    """The first documented line that the real output does not have, after the ones before it."""
    lines = iter([masked(line) for line in real.splitlines()])
    for line in documented:
        wanted = masked(line)
        if wanted and not any(wanted == found for found in lines):
            return line
    return None


@pytest.fixture
def environment(program: Path, gemini: str) -> dict[str, str]:
    """What a reader has set, with an emulator in place of Gemini."""
    return {
        "PATH": f"{program.parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT / "src"),
        "HOME": os.environ.get("HOME", "/"),
        "LANG": "C.UTF-8",
        "COLUMNS": "110",
        "GOOGLE_GEMINI_BASE_URL": gemini,
        "GEMINI_API_KEY": "emulator",
    }


@pytest.fixture
def gemini(program: Path, tmp_path: Path) -> Iterator[str]:
    """The address of `batchform emulator serve`."""
    command = [str(program), "emulator", "serve", "--port", "0", "--job-seconds", "0"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "PYTHONUNBUFFERED": "1"}
    state = tmp_path / "emulator"
    with subprocess.Popen(
        [*command, "--state", str(state)], stdout=subprocess.PIPE, text=True, env=environment
    ) as server:
        assert server.stdout is not None
        address = re.search(r"http://\S+?(?=[;,\s])", server.stdout.readline())
        assert address, "the emulator did not say where it listens"
        yield address[0]
        server.terminate()


@pytest.fixture
def shop(postgres: PostgresServer, environment: dict[str, str]) -> Iterator[dict[str, str]]:
    """A PostgreSQL in place of the reader's own, and psql."""
    with postgres.database() as name:
        path = f"{environment['PATH']}{os.pathsep}{installed_binaries()}"
        yield {"SHOP_DB": postgres.url(name, driver=""), "PATH": path}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = tmp_path / "project"
    folder.mkdir()
    for name in PROJECT:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, folder / name)
    return folder


class Reader:
    """Follows one document: keeps the folder and the variables of the shell."""

    def __init__(self, project: Path, environment: dict[str, str]) -> None:
        self.project = self.folder = project
        self.environment = environment

    def follow(self, step: Step) -> None:
        if isinstance(step, Section):
            self.folder = self.project
        elif isinstance(step, Command):
            self._run(step)
        elif isinstance(step, Edit):
            path = self.folder / step.file
            before = path.read_text(encoding="utf-8")
            assert before.count(step.old) == 1, f"{step.file} has not once:\n{step.old}"
            path.write_text(before.replace(step.old, step.new), encoding="utf-8")
        else:
            (self.folder / step.file).write_text(step.text, encoding="utf-8")
            self._run(Command("batchform validate", 0, ()))

    def _run(self, command: Command) -> None:
        if any(re.fullmatch(pattern, command.line) for pattern in NOT_RUN):
            return
        if command.line.startswith("cd "):
            self.folder = self.folder / command.line.removeprefix("cd ")
            return
        if command.line.startswith("export "):
            name, _, value = command.line.removeprefix("export ").partition("=")
            if name == "STORAGE_EMULATOR_HOST":  # the same emulator serves all, on another port here
                value = self.environment["GOOGLE_GEMINI_BASE_URL"]
            self.environment.setdefault(name, value)
            return
        if re.match(r"batchform (apply|sync)", command.line):
            self._hurry()
        done = subprocess.run(
            command.line,
            shell=True,
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == command.exit_code, f"$ {command.line}\n{done.stdout}"
        missing = missing_line(command.output, done.stdout)
        assert missing is None, f"$ {command.line}\nis documented to print\n{missing}\nand printed\n{done.stdout}"

    def _hurry(self) -> None:
        """Both backends answer at once here: look for results every tenth of a second, not as one would with Gemini."""
        file = self.folder / "batchform.yaml"
        text = file.read_text(encoding="utf-8")
        text = text.replace("{type: gemini}", "{type: gemini, poll: 0.1}")
        text = text.replace("{type: emulator}", "{type: emulator, poll: 0.1, job_seconds: 0}")
        file.write_text(text, encoding="utf-8")


@pytest.mark.timeout(300)
@pytest.mark.parametrize("document", [d for d in DOCUMENTS if d.name != TOLD], ids=lambda p: p.name)
def test_a_reader_can_follow(
    document: Path, project: Path, environment: dict[str, str], request: pytest.FixtureRequest
) -> None:
    text = document.read_text(encoding="utf-8")
    if "$SHOP_DB" in text:
        environment |= request.getfixturevalue("shop")
    reader = Reader(project, environment)
    for step in steps(text):
        reader.follow(step)


def test_nothing_is_left_out_without_need() -> None:
    lines = [
        step.line
        for document in DOCUMENTS
        for step in steps(document.read_text(encoding="utf-8"))
        if isinstance(step, Command)
    ]
    assert len(lines) > 20
    for pattern, reason in NOT_RUN.items():
        assert any(re.fullmatch(pattern, line) for line in lines), f"no document has it any more: {pattern} ({reason})"


def test_links_lead_somewhere() -> None:
    for document in DOCUMENTS:
        for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", document.read_text(encoding="utf-8")):
            if not target.startswith(("http://", "https://")):
                assert (document.parent / target).exists(), f"{document.name}: {target}"

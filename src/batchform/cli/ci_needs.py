"""What a project's workflow depends on, from its files: variables, Google Cloud, where the ledger lies."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from batchform import __version__
from batchform.cli.options import Common
from batchform.errors import UsageError
from batchform.spec.remote import is_remote

if TYPE_CHECKING:
    from batchform.spec.resolved import ResolvedProject
    from batchform.view.workflows import Needs, Variable

_REFERENCE: Final = re.compile(r"\$\{ENV:([A-Za-z_][A-Za-z0-9_]*)\}")
_PRIVATE: Final = re.compile(r"KEY|TOKEN|SECRET|PASS|PWD|DSN|CREDENTIAL", re.IGNORECASE)
_WORD: Final = re.compile(r"[A-Za-z0-9._/-]+")
_PLACEHOLDER: Final = "placeholder"


def needs_of(common: Common, *, branch: str, runs_on: Sequence[str], requirement: str) -> Needs:
    """Raises UsageError if the ledger would be lost with the runner, InvalidProject if the files are wrong."""
    from batchform.spec.load import find_project, load_project
    from batchform.view.workflows import Needs

    for what, text in (("--branch", branch), *(("--runs-on", label) for label in runs_on)):
        if not _WORD.fullmatch(text):
            raise UsageError(
                f"{what} {text!r} cannot stand in a workflow", hint="Letters, digits and . _ - / are taken."
            )
    file = find_project(Path(common.directory))
    named = dict(_named(file, common.environment))
    project = load_project(file, environment=common.environment, env=dict.fromkeys(named, _PLACEHOLDER))
    _check_ledger(project, runs_on)
    folder = file.parent.relative_to(repository_of(file.parent)).as_posix()
    if not _WORD.fullmatch(folder):
        raise UsageError(f"the project's folder {folder!r} cannot stand in a workflow", hint="Rename it: no spaces.")
    return Needs(
        environment=common.environment or "",
        branch=branch,
        folder="" if folder == "." else folder,
        requirement=requirement or f"batchform{_extras(project)}=={__version__}",
        runs_on=tuple(runs_on),
        variables=tuple(_variables(project, named)),
        google=_asks_google(project, runs_on),
    )


def repository_of(folder: Path) -> Path:
    """The top of the git work tree that a folder lies in; the folder itself outside of one."""
    return next((p for p in (folder, *folder.parents) if (p / ".git").exists()), folder)


def _named(file: Path, environment: str | None) -> Iterator[tuple[str, bool]]:
    """Names in `${ENV:NAME}`, and whether each is a secret; but for those of environments that are not chosen."""
    import yaml

    def visit(value: Any, field: str = "") -> Iterator[tuple[str, bool]]:
        if isinstance(value, str):
            yield from ((name, field == "url" or bool(_PRIVATE.search(name))) for name in _REFERENCE.findall(value))
        elif isinstance(value, dict):
            for key, part in value.items():
                yield from visit(part, str(key))
        elif isinstance(value, list):
            for part in value:
                yield from visit(part, field)

    try:
        told = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError):
        return  # loading it says what is wrong
    if isinstance(told, dict):
        environments = told.get("environments")
        chosen = environments.get(environment) if isinstance(environments, dict) else None
        yield from visit([{k: v for k, v in told.items() if k != "environments"}, chosen])


def _check_ledger(project: ResolvedProject, runs_on: Sequence[str]) -> None:
    ledger = project.config.ledger
    if (
        is_remote(ledger)
        or ledger == _PLACEHOLDER
        or _PLACEHOLDER in ledger
        or (runs_on and Path(ledger).is_absolute())
    ):
        return
    where = (
        "on a runner that is thrown away" if Path(ledger).is_absolute() else "in the checkout, which each job cleans"
    )
    raise UsageError(
        f"the ledger {ledger} would lie {where}: with it every answer is forgotten, and paid for again",
        hint="Name one at gs://, or on a disk that your own runners keep (an absolute path, with --runs-on LABELS), "
        "as `ledger:` of batchform.yaml or of the environment, such as ${ENV:BATCHFORM_LEDGER}.",
    )


def _variables(project: ResolvedProject, named: Mapping[str, bool]) -> Iterator[Variable]:
    from batchform.spec.model import EmulatorBackend, GeminiBackend
    from batchform.view.workflows import Variable

    yield from (Variable(name, secret) for name, secret in named.items())
    keys: list[str] = []
    for backend in {s.backend_name: s.backend for s in project.specs}.values():
        if not isinstance(backend, EmulatorBackend):
            keys += [backend.api_key_env or ("GEMINI_API_KEY" if isinstance(backend, GeminiBackend) else "")]
    yield from (Variable(name, secret=True, key=True) for name in dict.fromkeys(keys) if name and name not in named)


def _parts(project: ResolvedProject) -> Iterator[Any]:
    for spec in project.specs:
        yield from (spec.spec.source, spec.spec.destination)


def _asks_google(project: ResolvedProject, runs_on: Sequence[str]) -> bool:
    """Whether plans ask Google Cloud. A ledger that a variable names is at gs:// unless the runners are one's own."""
    from batchform.spec.model import VertexBackend
    from batchform.spec.remote import remote_paths

    if is_remote(project.config.ledger) or (_PLACEHOLDER in project.config.ledger and not runs_on):
        return True
    vertex = any(isinstance(s.backend, VertexBackend) for s in project.specs)
    return vertex or any(p.type == "bigquery" or remote_paths(p) for p in _parts(project))


def _extras(project: ResolvedProject) -> str:
    kinds = {p.type for p in _parts(project)}
    found = [e for e in ("bigquery", "sql") if e in kinds]
    found += ["pdf"] if any(s.attachments for s in project.specs) else []
    return f"[{','.join(found)}]" if found else ""

"""`--select` by what is known beside the files: the ledger (`state:`) and git (`changed-since:`)."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Collection, Iterator
from contextlib import closing
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from batchform.errors import UsageError

if TYPE_CHECKING:
    from batchform.cli.wiring import Session
    from batchform.spec.resolved import ResolvedSpec
    from batchform.spec.select import Find

_STATES: Final = ("modified", "new")
_GIT: Final = ("git", "-c", "core.fsmonitor=false", "-c", "core.quotepath=off")
"""Nothing that a repository's own configuration names is run."""
_SECONDS: Final = 60


def found_by(session: Session) -> dict[str, Find]:
    """Words before a colon, beside `tag:`, and what finds specs by what stands after it."""
    return {"state": partial(by_state, session), "changed-since": partial(changed_since, session)}


def by_state(session: Session, state: str) -> frozenset[str]:
    """Specs by what the ledger has of them. new: no row was ever applied; modified: those too, and specs of which no
    row was asked with what the files say now, or whose answers are read or delivered otherwise. Raises UsageError."""
    if state not in _STATES:
        raise UsageError(f"there is no state {state!r} to select by", hint="States are new and modified.")
    known = set(session.ledger.specs())
    return frozenset(
        s.name for s in session.project.specs if s.name not in known or (state == "modified" and _modified(session, s))
    )


def _modified(session: Session, spec: ResolvedSpec) -> bool:
    from batchform.plan.changes import components_of
    from batchform.rows.sql import literal
    from batchform.spec.delivery import destination_digest

    control = session.ledger.control()
    delivery, decided = control.deliveries.get(spec.name), control.changes.get(spec.name)
    if delivery is not None and delivery.destination_digest != destination_digest(spec):
        return True
    now = ", ".join(map(literal, (spec.prompt_digest, spec.model, spec.config_digest, spec.schema_digest)))
    with closing(session.connect()) as con:
        asked, read = con.execute(
            f"SELECT count(*) FILTER ((prompt_digest, model, config_digest, schema_digest) = ({now})), "
            f"count(*) FILTER (status = 'answered' AND parse_digest <> {literal(spec.parse_digest)}) "
            f"FROM {session.ledger.rows_relation(con, spec.name)}"
        ).fetchall()[0]
    kept = decided is not None and decided.components == components_of(spec)
    return bool(read) or not (asked or kept)


def changed_since(session: Session, ref: str) -> frozenset[str]:
    """Specs with a file that git says is another than where this branch left `ref`: committed, edited or new. Raises
    UsageError when git cannot tell."""
    root = session.root
    changed = _changed_files(root, ref)
    shared = {session.project.file.name, session.project.config.prices or session.project.file.name}
    if shared & changed:
        return frozenset(s.name for s in session.project.specs)
    return frozenset(s.name for s in session.project.specs if _uses(root, s, changed))


def _uses(root: Path, spec: ResolvedSpec, changed: Collection[str]) -> bool:
    files = {os.path.relpath(spec.path, root)}
    compiled = (*spec.templates, spec.key_template) if spec.key_template else spec.templates
    for template in compiled:
        files |= {place.path for place in getattr(template, "places", {}).values()}
    if files & set(changed):
        return True
    named = {text.removeprefix("./") for text in _texts(spec.spec.model_dump(mode="json", by_alias=True))}
    return any(_names(text, path) for text in named for path in changed)


def _names(text: str, path: str) -> bool:
    """Whether a text of a spec names a file: its path, a glob over it, or the module of a Python class."""
    module = text.partition(":")[0].replace(".", "/")
    return (
        text == path
        or path == f"{module}.py"
        or (any(c in text for c in "*?[") and fnmatchcase(path, text.replace("**/", "*")))
    )


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for inner in value.values():
            yield from _texts(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _texts(inner)


def _changed_files(root: Path, ref: str) -> set[str]:
    """Paths below the project, relative to it."""
    if not ref or ref.startswith("-"):
        raise UsageError(f"changed-since:{ref} names no commit", hint="Such as changed-since:origin/main.")
    commit = _git(root, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{ref}^{{commit}}", what=ref).strip()
    base = _git(root, "merge-base", commit, "HEAD", what=ref).strip()
    diff = (
        "diff",
        "--relative",
        "--name-only",
        "-z",
        "--no-renames",
        "--no-ext-diff",
        "--no-textconv",
        base,
        "--",
        ".",
    )
    found = _git(root, *diff, what=ref) + _git(root, "ls-files", "--others", "--exclude-standard", "-z", what=ref)
    return {path for path in found.split("\0") if path}


def _git(root: Path, *arguments: str, what: str) -> str:
    """The output of a git command. Its configuration by environment, hooks and prompts are left out."""
    env = {k: v for k, v in os.environ.items() if not k.startswith("GIT_") or k in ("GIT_DIR", "GIT_WORK_TREE")}
    command = [*_GIT, *arguments]
    try:
        done = subprocess.run(
            command, cwd=root, capture_output=True, timeout=_SECONDS, check=False, stdin=subprocess.DEVNULL,
            env={**env, "GIT_OPTIONAL_LOCKS": "0", "GIT_TERMINAL_PROMPT": "0"},
        )  # fmt: skip
    except FileNotFoundError:
        raise UsageError("changed-since: needs git, which is not installed") from None
    except subprocess.TimeoutExpired:
        raise UsageError(f"git {arguments[0]} took more than {_SECONDS} seconds") from None
    if done.returncode:
        told = done.stderr.decode(errors="replace").strip().splitlines()
        why = f": {told[-1]}" if told else ""
        raise UsageError(
            f"git does not know what changed since {what!r}{why}",
            hint="Fetch it, with its history: git fetch origin main; in CI, fetch-depth: 0.",
        )
    return done.stdout.decode(errors="surrogateescape")

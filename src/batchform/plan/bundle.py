"""A saved plan: a private folder with the exact bytes that apply will send, under the plan's digest.

    bundle.json                      the plan and the digest of every file
    specs/NAME/shard-0000.jsonl      the lines of one job
    specs/NAME/shard-0000.rows.parquet   its rows' states, committed with its intent
    specs/NAME/shard-0000.files.jsonl    the files that its requests name by their content, and where they are
    specs/NAME/bookkeeping.rows.parquet  row states that cost nothing
    specs/NAME/reread.rows.parquet   keys whose archived answers are read anew

It holds prompts: the folder is made for its owner only, and never belongs in a CI log or an artefact that others read.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from batchform.canon import RequestHasher, ShardHasher, file_digest
from batchform.errors import StalePlan, UsageError
from batchform.ledger.store import Ledger
from batchform.plan.digest import plan_digest
from batchform.plan.model import Plan, Shard, SpecPlan
from batchform.plan.shard import split_line
from batchform.rows.sql import literal
from batchform.rows.stream import stream
from batchform.spec.resolved import ResolvedProject

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

MANIFEST: Final = "bundle.json"
BUNDLE_FORMAT: Final = 1
_UNFINISHED: Final = ".unfinished"
"""Says of a folder without a manifest that a plan was being saved there: its maker was killed, another may go on."""


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """`bundle.json`. files: bundle-relative path → digest; schemas: of Python classes that specs name, so that
    nothing is imported to apply the plan. The digests of the specs cover them."""

    bundle_format: int
    plan: Plan
    files: dict[str, str]
    schemas: dict[str, dict[str, Any]] = {}


def prepare_folder(folder: Path) -> None:
    """Make an empty private folder. Refuses one that holds something other than an earlier bundle, whole or not."""
    import shutil

    if folder.exists():
        if not folder.is_dir():
            raise UsageError(f"{folder} is a file, not a folder", hint="Name a new folder for --out.")
        found = {p.name for p in folder.iterdir()}
        if found and not found & {MANIFEST, _UNFINISHED}:
            raise UsageError(
                f"{folder} is not empty and holds no saved plan",
                hint="Name a new or empty folder for --out.",
            )
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    (folder / _UNFINISHED).touch()
    for entry in folder.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        elif entry.name != _UNFINISHED:
            entry.unlink()


def save_bundle(folder: Path, plan: Plan, *, schemas: Mapping[str, dict[str, Any]]) -> None:
    """Complete a bundle whose shards and row states are already in `folder`. The manifest comes last. schemas: of
    Python classes that specs name."""
    files = {p.relative_to(folder).as_posix(): file_digest(p) for p in _files(folder)}
    manifest = Manifest(
        bundle_format=BUNDLE_FORMAT,
        plan=plan,
        files=files,
        schemas=dict(schemas),
    )
    (folder / MANIFEST).write_bytes(msgspec.json.format(msgspec.json.encode(manifest), indent=1))
    (folder / _UNFINISHED).unlink(missing_ok=True)


def load_bundle(folder: Path) -> Manifest:
    """Read a bundle's manifest. Raises UsageError if there is none, StalePlan if another batchform wrote it."""
    path = folder / MANIFEST
    if not path.is_file():
        raise UsageError(f"{folder} holds no saved plan", hint="Make one with `batchform plan --out DIR`.")
    again = "Plan again with `batchform plan --out DIR`."
    try:
        raw = msgspec.json.decode(path.read_bytes())
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise UsageError(f"{path} is not a saved plan: {exc}", hint=again) from exc
    if not isinstance(raw, dict) or "bundle_format" not in raw:
        raise UsageError(f"{path} is not a saved plan: it has no bundle_format", hint=again)
    if raw["bundle_format"] != BUNDLE_FORMAT:
        raise StalePlan(
            f"{path} has bundle format {raw['bundle_format']}, this batchform reads {BUNDLE_FORMAT}",
            hint="Plan again with this version.",
        )
    try:
        return msgspec.convert(raw, Manifest)
    except msgspec.ValidationError as exc:
        raise UsageError(f"{path} is not a saved plan: {exc}", hint=again) from exc


def check_files(folder: Path, manifest: Manifest, con: DuckDBPyConnection) -> None:
    """Refuse a bundle whose files are not, byte for byte, the ones that were planned.

    Shards and their row states are held against the shard digests that the plan's own digest covers: what is sent is
    what was reviewed, even if the list of files was changed with them.
    """
    if plan_digest(manifest.plan) != manifest.plan.digest:
        raise StalePlan(f"{folder / MANIFEST} was changed after it was made", hint="Plan again.")
    present = {p.relative_to(folder).as_posix() for p in _files(folder)}
    specs = manifest.plan.specs
    planned = {p for s in specs for shard in s.shards for p in (shard.path, shard.rows_path)}
    planned |= {name for s in specs for name in (s.bookkeeping, s.reread) if name}
    planned |= {name for one in manifest.plan.imports for name in (one.archive, one.parsed)}
    planned |= {name for move in manifest.plan.moves for name in (move.states, move.keys_path) if name}
    planned |= {shard.files_path for s in specs for shard in s.shards if shard.files_path}
    for name in sorted(present ^ planned | set(manifest.files) ^ planned):
        what = "is not part of the saved plan" if name not in planned else "is missing from the saved plan"
        raise StalePlan(f"{folder / name} {what}", hint="Plan again.")
    for name, digest in manifest.files.items():
        if file_digest(folder / name) != digest:
            raise StalePlan(f"{folder / name} was changed after it was planned", hint="Plan again.")
    for spec in specs:
        for shard in spec.shards:
            _check_shard(folder, spec, shard, con)


def _check_shard(folder: Path, spec: SpecPlan, shard: Shard, con: DuckDBPyConnection) -> None:
    """Hold a shard's lines and its row states against its digest."""
    fingerprint = RequestHasher(model=shard.model or spec.model, realm=spec.realm).fingerprint
    lines, rows = ShardHasher(), ShardHasher()
    asked = _row_states(folder / shard.rows_path, con)
    with (folder / shard.path).open("rb") as sent:
        for line in sent:
            key, request = split_line(line)
            if shard.rung:  # what is sent is not what was asked: the digest covers both
                row, request_fp = next(asked, (b"", b""))
                lines.update(row + request_fp + fingerprint(request) if row == key else b"another row")
            else:
                lines.update(key + fingerprint(request))
    if lines.digest() != shard.digest:
        raise StalePlan(f"{folder / shard.path} does not hold the requests that were planned", hint="Plan again.")
    for row, request_fp in asked:
        rows.update(row + request_fp)
    if rows.digest() != (ShardHasher().digest() if shard.rung else shard.digest):
        raise StalePlan(f"{folder / shard.rows_path} does not hold the rows that were planned", hint="Plan again.")


def _row_states(path: Path, con: DuckDBPyConnection) -> Iterator[tuple[bytes, bytes]]:
    """(key hash, request fingerprint) of a shard's rows, in order."""
    sql = f"SELECT CAST(key_hash AS VARCHAR), request_fp FROM read_parquet({literal(str(path))})"
    for batch in stream(con, sql):
        for key_hash, request_fp in batch:
            yield bytes.fromhex(key_hash.replace("-", "")), request_fp


def check_fresh(
    manifest: Manifest, project: ResolvedProject, ledger: Ledger, source_digests: Mapping[str, str]
) -> None:
    """Refuse a plan whose project, specs, sources or ledger moved since; says all that moved."""
    plan = manifest.plan
    moved = []
    if (plan.project, plan.environment) != (project.config.project, project.environment):
        moved.append(
            f"it was made for project {plan.project}{_in(plan.environment)}, "
            f"this is {project.config.project}{_in(project.environment)}"
        )
    specs = {s.name: s for s in project.specs}
    for planned in plan.specs:
        spec = specs.get(planned.name)
        if spec is None:
            moved.append(f"spec {planned.name} is gone")
        elif spec.spec_digest != planned.spec_digest:
            moved.append(f"spec {planned.name}, or a template or schema it uses, changed")
        elif source_digests[planned.name] != planned.source_digest:
            files = ", or a file that its rows name," if spec.attachments else ""
            moved.append(f"the source of {planned.name}{files} changed ({planned.source})")
    if plan.lineage != ledger.lineage and plan.lineage:
        moved.append(f"the ledger is another one (lineage {ledger.lineage or 'none'}, planned on {plan.lineage})")
    elif _moved(ledger, plan.serial):
        moved.append(f"the ledger moved from serial {plan.serial} to {ledger.serial}: something was applied or synced")
    if moved:
        raise StalePlan(
            f"the plan of {plan.created_at} is stale: {'; '.join(moved)}",
            hint="Nothing was sent. Plan again and review what changed: batchform plan --out DIR",
        )


def _moved(ledger: Ledger, planned: int) -> bool:
    """Whether anything but spend was recorded since: that changes no row, and budgets are judged again anyway."""
    if ledger.serial < planned:
        return True
    quiet = {serial for serial, _ in ledger.control().spent}
    return any(serial not in quiet for serial in range(planned + 1, ledger.serial + 1))


def _files(folder: Path) -> Iterable[Path]:
    return sorted(p for p in folder.rglob("*") if p.is_file() and p.parent != folder)


def _in(environment: str) -> str:
    return f" in environment {environment}" if environment else ""

"""Where answers go: files and folders of parts, here or in Cloud Storage, and tables of SQLite and DuckDB files."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from batchform import ports
from batchform.errors import DestinationError
from batchform.spec import model
from batchform.spec.image import images_folder
from batchform.spec.model_sql import Database, SqlDestination
from batchform.spec.remote import is_remote

if TYPE_CHECKING:
    from batchform.adapters.storage.client import StorageClient

__all__ = ["make_destination", "with_images"]


def make_destination(
    spec_dest: model.FileDestination | model.DatabaseDestination | SqlDestination,
    *,
    spec: str,
    root: Path,
    allow: Sequence[Path],
    storage: StorageClient | None = None,
    databases: Mapping[str, Database] | None = None,
    was: Collection[str] = (),
) -> ports.Destination:
    """The destination that a spec names. Touches nothing. Raises DestinationError when it lies outside the project.

    spec: its name; root: the project's folder, against which paths are relative; allow: folders outside of it that
    may be written; storage: for gs:// paths, which are refused without it; databases: those of batchform.yaml;
    was: earlier names of the spec, whose tables are its own.
    """
    if isinstance(spec_dest, SqlDestination):
        from batchform.adapters.destinations.sqlalchemy_table import SqlTable

        return SqlTable(spec_dest, spec=spec, root=root, databases=databases or {}, was=was)
    if storage is not None and isinstance(spec_dest, model.FileDestination) and is_remote(spec_dest.path):
        from batchform.adapters.storage.destinations import make_remote

        return make_remote(storage, spec_dest.path, format=spec_dest.type)
    path = _confined(spec_dest.path, root=root, allow=allow)
    shown = spec_dest.path
    if isinstance(spec_dest, model.FileDestination):
        from batchform.adapters.destinations.files import FileDestination, PartFolder

        kind = PartFolder if shown.endswith("/") else FileDestination
        return kind(path, format=spec_dest.type, shown=shown)
    if shown.endswith("/"):
        raise DestinationError(f"destination.path {shown!r} is a folder; a {spec_dest.type} destination is one file.")
    from batchform.adapters.destinations.databases import DuckDBTable, SqliteTable

    table = SqliteTable if spec_dest.type == "sqlite" else DuckDBTable
    return table(path, table=spec_dest.table, spec=spec, shown=shown, was=was)


def with_images(
    rows: ports.Destination, spec: model.Spec, *, root: Path, allow: Sequence[Path], storage: StorageClient | None
) -> ports.Destination:
    """The destination with the folder of its image files, if the spec asks for images. storage: for one at gs://."""
    folder = images_folder(spec) if spec.task == "image" else None
    if folder is None:
        return rows
    from batchform.adapters.destinations.image_folder import ImageFolder, WithImages

    if storage is not None and is_remote(folder):
        from batchform.adapters.storage.images import ImageBucket

        return WithImages(rows, ImageBucket(storage, folder, spec=spec.name))
    return WithImages(rows, ImageFolder(_confined(f"{folder}/", root=root, allow=allow), shown=folder, spec=spec.name))


def _confined(written: str, *, root: Path, allow: Sequence[Path]) -> Path:
    """The real path, links resolved, if it lies inside the project or an allowed folder."""
    if "://" in written:
        raise DestinationError(
            f"destination.path {written!r} is not a local path.", hint="Deliver into the project and copy from there."
        )
    if not written.strip() or "\0" in written:
        raise DestinationError(f"destination.path {written!r} names no file.")
    path = Path(os.path.realpath(root / written))
    bases = [Path(os.path.realpath(base)) for base in (root, *allow)]
    if path in bases and not written.endswith("/"):
        raise DestinationError(f"destination.path {written!r} is a folder; name a file in it, or end it with /.")
    if not any(path.is_relative_to(base) for base in bases):
        raise DestinationError(
            f"destination.path {written!r} lies outside the project {root}.",
            hint="Name its folder in allow_paths of batchform.yaml to write it.",
        )
    return path

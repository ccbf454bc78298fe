"""What a saved plan says of itself before its project is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from batchform.spec.model import Project
from batchform.spec.remote import is_remote


def schemas_of(plan: str, config: Project) -> Mapping[str, dict[str, Any]]:
    """The schemas of Python classes in a saved plan, by name. config: says how Cloud Storage is reached."""
    from batchform.plan.bundle import load_bundle

    if not is_remote(plan):
        return load_bundle(Path(plan)).schemas
    from batchform.adapters.storage.bundles import RemoteBundle
    from batchform.adapters.storage.client import StorageClient

    client = StorageClient(config.google_cloud)
    try:
        with TemporaryDirectory() as folder:
            RemoteBundle(client, plan).download_manifest(Path(folder))
            return load_bundle(Path(folder)).schemas
    finally:
        client.close()

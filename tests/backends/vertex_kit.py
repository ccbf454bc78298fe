"""What tests of the Vertex backend share: a backend on an emulator, and shards."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from batchform import canon
from batchform.adapters.vertex import VertexBackend
from batchform.emulator import EmulatorServer
from batchform.spec.backends import EmulatorBackend
from batchform.spec.backends import VertexBackend as VertexConfig
from batchform.spec.model import GoogleCloud

MODEL = "gemini-3.5-flash-lite"
PROJECT, LOCATION = "acme-support", "us-central1"
STAGING = "gs://acme-batch/staging"


@contextmanager
def emulated(server: EmulatorServer, *, via: str = "storage", **settings: Any) -> Iterator[VertexBackend]:
    """A backend of `type: emulator, cloud: vertex` at a server, with bucket and dataset there."""
    places = {"project": PROJECT, "location": LOCATION, "staging": STAGING, "via": via, "dataset": "batches"}
    config = EmulatorBackend(type="emulator", cloud="vertex", **{**places, **settings})
    server.provide(
        config.location, bucket="acme-batch", dataset=f"{config.project}.batches" if via == "bigquery" else ""
    )
    backend = VertexBackend(
        config, cloud=GoogleCloud(), env={}, realm="emulator", base_url=server.url, sleep=lambda _: None
    )
    with closing(backend):
        yield backend


@contextmanager
def pointed_at(
    url: str, *, realm: str = "emulator", env: dict[str, str] | None = None, **settings: Any
) -> Iterator[VertexBackend]:
    """A backend of `type: vertex` whose `base_url` is some server."""
    places = {"project": PROJECT, "location": LOCATION, "staging": STAGING}
    config = VertexConfig(type="vertex", base_url=url, **{**places, **settings})
    backend = VertexBackend(config, cloud=GoogleCloud(), env=env or {}, realm=realm, sleep=lambda _: None)
    with closing(backend):
        yield backend


def shard(folder: Path, *prompts: str) -> tuple[Path, str]:
    """A shard's file and its digest."""
    lines = [
        canon.canonical_json(
            {
                "key": canon.wire_key(f"row-{i}"),
                "request": {
                    "contents": [{"role": "user", "parts": [{"text": prompt}]}],
                    "generationConfig": {"temperature": 0.25},
                },
            }
        )
        for i, prompt in enumerate(prompts)
    ]
    path = folder / "shard.jsonl"
    path.write_bytes(b"".join(line + b"\n" for line in lines))
    return path, canon.file_digest(path)

"""What a backend may not say although each of its fields is well-formed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from batchform.errors import Diagnostic
from batchform.spec.backends import EmulatorBackend, VertexBackend
from batchform.spec.model import Project
from batchform.spec.realm import realm_of
from batchform.spec.service_limits import laid_over
from batchform.spec.yaml_source import Document, NodePath

_LEAST_SETTLE: Final = 120.0
_LEAST_SETTLE_EMULATOR: Final = 1.0
_NEEDED: Final = {"storage": ("staging", "gs://bucket/prefix"), "bigquery": ("dataset", "my_dataset")}
_OF_VERTEX: Final = ("project", "location", "staging", "via", "dataset", "resume", "raw_results")


def lint_backends(document: Document, config: Project, root: Path) -> Iterator[Diagnostic]:
    """Complaints about all backends of a project. root: its folder."""
    yield from _settle(document, config)
    yield from _above_the_service(document, config, root)
    for name, backend in (config.backends or {}).items():
        at = ("backends", name)
        if getattr(backend, "raw_results", "ledger") == "bucket" and getattr(backend, "via", "storage") == "bigquery":
            message = "`raw_results: bucket` needs `via: storage`: results of `via: bigquery` are rows of a table"
            hint = "Remove the line: they are archived in the ledger."
            yield document.diagnostic("conflicting-fields", message, (*at, "raw_results"), on_key=True, hint=hint)
        if isinstance(backend, VertexBackend):
            yield from _vertex(document, backend, at)
        elif isinstance(backend, EmulatorBackend) and backend.cloud != "vertex":
            for field in _OF_VERTEX:
                if field in backend.model_fields_set:
                    message = f"`{field}` is for `cloud: vertex`, and this emulates the Gemini API"
                    hint = "Add `cloud: vertex`, or remove the line."
                    yield document.diagnostic("wrong-field", message, (*at, field), on_key=True, hint=hint)


def _vertex(document: Document, backend: VertexBackend, at: NodePath) -> Iterator[Diagnostic]:
    needed, example = _NEEDED[backend.via]
    if getattr(backend, needed) is None:
        message = f"backend {at[-1]} has no `{needed}`, which `via: {backend.via}` needs"
        hint = f"Add `{needed}: {example}`; docs/google-cloud.md says how to make one."
        yield document.diagnostic("missing-field", message, at, on_key=True, hint=hint)
    if backend.api_key_env is not None and backend.impersonate is not None:
        hint = "A key acts as itself: keep one of them."
        message = "`api_key_env` and `impersonate` exclude each other"
        yield document.diagnostic("conflicting-fields", message, (*at, "impersonate"), on_key=True, hint=hint)


def _above_the_service(document: Document, config: Project, root: Path) -> Iterator[Diagnostic]:
    """Settings that the service would refuse."""
    limits = laid_over(root, config.prices)
    for name, backend in (config.backends or {}).items():
        if isinstance(backend, EmulatorBackend):
            continue
        service, whose = (
            (limits.vertex, "Vertex AI") if isinstance(backend, VertexBackend) else (limits.service, "the Gemini API")
        )
        for field, most, what in (
            ("max_rows_per_job", service.max_rows, "rows that a job of {} takes"),
            ("max_bytes_per_job", service.max_input_bytes, "bytes that a job of {} takes"),
            ("max_jobs_in_flight", service.max_jobs, "jobs that {} runs at once"),
        ):
            if most is not None and getattr(backend, field) > most:
                message = f"`{field}` is above the {most:,} {what.format(whose)}"
                hint = (
                    f"Write {most} or less. If the service takes more by now, say so in the file that `prices:` names."
                )
                yield document.diagnostic("wrong-value", message, ("backends", name, field), hint=hint)


def _settle(document: Document, config: Project) -> Iterator[Diagnostic]:
    """A settle window must hold the create call (0.7 of it, at most) and the time until the service lists the job."""
    for name, backend in (config.backends or {}).items():
        google = realm_of(backend) == "google"
        least = _LEAST_SETTLE if google else _LEAST_SETTLE_EMULATOR
        if backend.settle >= least:
            continue
        room = (
            f"a create call {0.7 * backend.settle:.3g} s, and the service {0.3 * backend.settle:.3g} s to list the job"
        )
        yield document.diagnostic(
            "short-settle",
            f"`settle` of backend {name} is too short: it leaves {room}",
            ("backends", name, "settle"),
            hint=f"At least {least:g}s" + ("; 15m is the default. " if google else ". ")
            + "Too short a window pays twice for a job that is listed late; a long one costs nothing.",
        )  # fmt: skip

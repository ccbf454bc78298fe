"""Limits of the batch services, from the package's dated data file, with the user's own file laid over them."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any, Final

import msgspec
from msgspec import Struct

from batchform.errors import Diagnostic

DATA: Final = Path(__file__).resolve().parent.parent / "data"


class ServiceLimits(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Limits of the batch service itself. max_jobs: at once, None where none is stated; max_rows: None where none is
    stated; max_inline_bytes: 0 where no request goes inline; max_storage_bytes: of all uploaded inputs."""

    max_jobs: int | None
    max_input_bytes: int
    max_inline_bytes: int
    max_storage_bytes: int | None = None
    job_expires_hours: int
    input_kept_hours: int
    results_kept_days: int
    max_rows: int | None = None
    sources: dict[str, str] = msgspec.field(default_factory=dict)


class VertexLimits(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Limits of Vertex AI where they are others. job_expires_hours: the longest wait and run together."""

    max_rows: int
    max_input_bytes: int
    max_inline_bytes: int
    max_jobs: int | None = None
    max_storage_bytes: int | None = None
    job_expires_hours: int
    sources: dict[str, str] = msgspec.field(default_factory=dict)


class VertexRefusals(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What batches of Vertex AI do not take. image_sizes: those that they do; max_nesting: levels of a line that their
    importer takes."""

    image_sizes: tuple[str, ...]
    max_nesting: int
    sources: dict[str, str] = msgspec.field(default_factory=dict)


class Limits(Struct, frozen=True):
    """service: of the Gemini API; vertex: of Vertex AI."""

    service: ServiceLimits
    vertex: VertexLimits


@cache
def built_in() -> Limits:
    """Those of the package."""
    return msgspec.json.decode((DATA / "models.json").read_bytes(), type=Limits)


def laid_over(root: Path, prices: str | None) -> Limits:
    """Those of the package with what the file says that `prices:` names. What is wrong in it is told elsewhere."""
    found = built_in()
    for name, own in _own(root, prices).items():
        base = getattr(found, name)
        try:
            laid = msgspec.convert({**msgspec.structs.asdict(base), **own}, type(base))
        except msgspec.ValidationError:
            continue
        found = msgspec.structs.replace(found, **{name: laid})
    return found


def _own(root: Path, prices: str | None) -> dict[str, dict[str, Any]]:
    if not prices:
        return {}
    from batchform.spec.yaml_source import parse_yaml, read_text

    text = read_text(root / prices, prices)
    document = None if isinstance(text, Diagnostic) else parse_yaml(text.replace("\t", " "), prices)[0]
    value = document.value if document is not None else None
    sections = {name: value.get(name) for name in Limits.__struct_fields__} if isinstance(value, dict) else {}
    return {name: own for name, own in sections.items() if isinstance(own, dict)}

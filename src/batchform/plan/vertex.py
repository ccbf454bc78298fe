"""What Vertex AI is known to refuse in the requests of a batch, said before anything is sent. The part that all
requests of a spec share is judged once; where rows add to it, each is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from batchform.errors import Diagnostic
from batchform.plan.importer import Columns, Path, Problem
from batchform.spec.backends import EmulatorBackend, VertexBackend
from batchform.spec.resolved import ResolvedSpec
from batchform.spec.service_limits import VertexRefusals
from batchform.spec.tools import REQUEST_FIELDS


def check_vertex(spec: ResolvedSpec, request: Mapping[str, Any], refuses: VertexRefusals) -> list[Diagnostic]:
    """Complaints about a spec whose backend is Vertex AI, each with its place in the spec. request: what all rows
    share."""
    assert isinstance(spec.backend, (VertexBackend, EmulatorBackend))
    problems = [*_features(request, refuses)]
    if spec.spec.submit == "inline":
        hint = "Use `submit: file`, or leave it out."
        problems.append(Problem(("submit",), "Vertex AI takes no inline requests", hint))
    if spec.backend.via == "storage":
        problems += Columns(refuses.max_nesting).look(request)
    return [Diagnostic("vertex-refuses", p.message, spec.at(_field(spec, p.path)), hint=p.hint) for p in problems]


def _features(request: Mapping[str, Any], refuses: VertexRefusals) -> Iterator[Problem]:
    """Features of the API that batches of Vertex AI do not have."""
    if "cachedContent" in request:
        hint = "Leave it out: repeated beginnings are cached by themselves there, at the price of cached input."
        yield Problem(("cachedContent",), "batches of Vertex AI take no explicit cache", hint)
    config = request.get("generationConfig")
    image = config.get("imageConfig") if isinstance(config, Mapping) else None
    size = image.get("imageSize") if isinstance(image, Mapping) else None
    if size is not None and str(size).upper() not in refuses.image_sizes:
        made = " or ".join(refuses.image_sizes)
        hint = f"Leave `image_size` out, or use the Gemini API for {size} images."
        path = ("generationConfig", "imageConfig", "imageSize")
        yield Problem(path, f"batches of Vertex AI make {made} images only", hint)
    for tool in _list(request.get("tools")):
        if isinstance(tool, Mapping) and "retrieval" in tool:
            hint = "Put what is to be known into the prompt."
            yield Problem(("tools",), "batches of Vertex AI have no retrieval (RAG)", hint)


def _field(spec: ResolvedSpec, path: Path) -> str:
    """The field of the spec that a part of the request comes from."""
    if path == ("submit",):
        return "submit"
    overlay: Any = spec.request_overlay
    for name in path:
        if isinstance(overlay, list) and name[:1] == "[":
            overlay = overlay[int(name[1:-1])]  # lists of `request:` replace those of the spec's own fields
        elif isinstance(overlay, Mapping) and name in overlay:
            overlay = overlay[name]
        else:
            break
    else:
        return "request"
    return REQUEST_FIELDS.get(path[0], "request")


def _list(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list) else ()

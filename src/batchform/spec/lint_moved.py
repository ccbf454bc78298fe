"""What `moved` cannot mean: names that are taken, and moves from a place to itself."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from batchform.errors import Diagnostic
from batchform.spec.model import Project, Spec
from batchform.spec.yaml_source import Document, NodePath

_FROM: NodePath = ("moved", "from")


def lint_moved(document: Document, spec: Spec) -> Iterator[Diagnostic]:
    """Complaints about one spec's `moved` that need no other spec."""
    moved = spec.moved
    if moved is None:
        return
    if moved.key is None and not moved.names:
        hint = "Say `from:` an earlier name, or the earlier `key:`; or remove the section."
        yield document.diagnostic("moved-nothing", "`moved` names nothing that moves", ("moved",), hint=hint)
    if moved.key == []:
        hint = "Say what `idempotency.key` was before, or remove the line."
        yield document.diagnostic("moved-nothing", "`moved.key` names no column", ("moved", "key"), hint=hint)
    if spec.name in moved.names:
        hint = "Name what the spec was called before."
        message = f"`moved.from` is `{spec.name}`, the spec's own name"
        yield document.diagnostic("moved-nothing", message, _FROM, hint=hint)
    if moved.key is not None and moved.key == spec.idempotency.key:
        hint = "Say what `idempotency.key` was before, or remove the line."
        yield document.diagnostic("moved-nothing", "`moved.key` is the spec's own key", ("moved", "key"), hint=hint)


def lint_removed(document: Document, config: Project, names: Sequence[str]) -> Iterator[Diagnostic]:
    """Complaints about what batchform.yaml gives up. names: of the project's specs."""
    for i, removed in enumerate(config.removed):
        if removed.spec in names:
            hint = "Remove its file, or the line: what is given up while its spec is there would be sent again."
            message = f"`{removed.spec}` is given up, and there is a spec of that name"
            yield document.diagnostic("removed-there", message, ("removed", i, "spec"), hint=hint)


def lint_moves(loaded: Sequence[tuple[Document, Spec]]) -> Iterator[Diagnostic]:
    """Complaints about specs that move beside each other. loaded: all specs that are well-formed."""
    there = {spec.name: document for document, spec in loaded}
    claimed: dict[str, str] = {}
    for document, spec in loaded:
        for name in dict.fromkeys(spec.moved.names if spec.moved else ()):
            if name == spec.name:
                continue
            if name in there:
                message = f"`moved.from` is `{name}`, and there is still a spec of that name, in {there[name].path}"
                hint = (
                    "Remove that spec, or `moved.from` when its rows have moved: a new spec may have the old name then."
                )
                yield document.diagnostic("moved-taken", message, _FROM, hint=hint)
            if name in claimed:
                message = f"the rows of `{name}` move to {claimed[name]} already"
                hint = "A row goes to one place: remove `moved.from` from one of the two."
                yield document.diagnostic("moved-twice", message, _FROM, hint=hint)
            claimed.setdefault(name, spec.name)

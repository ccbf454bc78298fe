"""What a spec says of rules: that it knows better, and why."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from batchform.errors import Diagnostic
from batchform.spec.model import Ignored, Spec
from batchform.spec.yaml_source import Document


def lint_ignored(document: Document, spec: Spec) -> Iterator[Diagnostic]:
    """Complaints about `ignore:` itself."""
    if not spec.ignore:
        return
    from batchform.rules import catalogue, may_be_ignored

    for i, ignored in enumerate(spec.ignore):
        at, allowed = ("ignore", i, "rule"), may_be_ignored(ignored.rule)
        if allowed is None:
            hint = "docs/rules lists all rules."
            yield document.diagnostic("cannot-ignore", f"there is no rule {ignored.rule}", at, hint=hint)
        elif not allowed:
            rule = catalogue()[ignored.rule]
            message = f"{ignored.rule} {rule.name} cannot be ignored: without it there is no plan"
            yield document.diagnostic("cannot-ignore", message, at, hint=rule.fix)


def without_ignored(complaints: Sequence[Diagnostic], ignored: Sequence[Ignored]) -> list[Diagnostic]:
    """The complaints but for those of ignored rules. What cannot be ignored stays."""
    if not ignored or not complaints:
        return list(complaints)
    from batchform.rules import may_be_ignored

    gone = {i.rule for i in ignored if may_be_ignored(i.rule)}
    return [c for c in complaints if c.code not in gone]

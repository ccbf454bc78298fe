"""Environments beside each other: where the ledger of each is, and whose answers one takes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from batchform.errors import Diagnostic
from batchform.spec.model import Project
from batchform.spec.wording import suggestion
from batchform.spec.yaml_source import Document, NodePath

DEFAULT: Final = "default"
"""What the file without an environment is called, unless an environment has that name."""


def ledgers_of(document: Document) -> dict[str, str]:
    """The ledger of each environment of batchform.yaml and of `default`; "" where it waits for a variable. document:
    without an environment laid over it."""
    shared = str(document.get("ledger") or Project.model_fields["ledger"].default)
    environments = document.get("environments")
    found = {DEFAULT: shared}
    for name in environments if isinstance(environments, dict) else ():
        at: NodePath = ("environments", name, "ledger")
        own = document.get(*at)
        found[name] = str(own) if own else "" if at in document.env else shared
    return found


def lint_reuse(document: Document, config: Project) -> Iterator[Diagnostic]:
    """Complaints about `reuse_from`. document: without an environment laid over it; config: with the chosen one."""
    ledgers = ledgers_of(document)
    places: list[tuple[str, NodePath]] = [("", ("reuse_from",))]
    places += [(name, ("environments", name, "reuse_from")) for name in ledgers]
    for own, at in places:
        found = document.get(*at)
        for i, name in enumerate(found if isinstance(found, list) else ()):
            if name not in ledgers:
                hint = suggestion(str(name), list(ledgers), noun="Environments")
                yield document.diagnostic(
                    "unknown-environment", f"there is no environment `{name}`", (*at, i), hint=hint
                )
            elif name == own:
                message = f"`{name}` reuses its own answers anyway"
                hint = "Name another environment, or remove the line."
                yield document.diagnostic("unknown-environment", message, (*at, i), hint=hint)
    for name in dict.fromkeys(config.reuse_from):
        if ledgers.get(name) == "":
            message = f"where the ledger of {name} is waits for an environment variable that is not set"
            hint = "Set it, or leave the environment out of `reuse_from`."
            yield document.diagnostic("env-not-set", message, ("environments", name, "ledger"), hint=hint)

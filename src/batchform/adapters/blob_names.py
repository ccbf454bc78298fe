"""Names of the ledger's objects, the same wherever they lie."""

from __future__ import annotations

from collections.abc import Container

HEAD = "head.json"


def check_name(name: str, reserved: Container[str] = (HEAD,)) -> str:
    """The name. Names are ours: one that leaves the ledger, or meets its own files, is a bug (ValueError)."""
    parts = name.split("/")
    if any(p in ("", ".", "..") for p in parts) or "\\" in name or "\0" in name:
        raise ValueError(f"{name!r} is no name for an object: it must be relative, with single slashes")
    if parts[0] in reserved:
        raise ValueError(f"{name!r} is reserved")
    return name

"""The Gemini Developer API on loopback, for tests and dry runs. See docs/emulator.md."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from batchform.emulator.bill import BillSummary, Charge
    from batchform.emulator.server import EmulatorServer, serve

__all__ = ["BillSummary", "Charge", "EmulatorServer", "serve"]


def __getattr__(name: str) -> Any:
    # Late, so that pytest can load the plugin next door without loading a web server.
    if name in ("BillSummary", "Charge"):
        from batchform.emulator import bill

        return getattr(bill, name)
    if name in ("EmulatorServer", "serve"):
        from batchform.emulator import server

        return getattr(server, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

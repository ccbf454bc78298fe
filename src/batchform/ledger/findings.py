"""What `ledger verify` says: one finding for one thing that does not hold, with the command that mends it."""

from __future__ import annotations

from typing import Final

from msgspec import Struct

ERROR: Final = "error"
WARNING: Final = "warning"
INFO: Final = "info"

SYNC: Final = "batchform sync"
REPAIR: Final = "batchform ledger repair"
FROM_BACKUP: Final = "batchform ledger repair --from BACKUP"
COMPACT: Final = "batchform ledger compact"

RESTORE_FILE: Final = (
    f"`{FROM_BACKUP}` takes it from a copy of the ledger's folder, if that has the very same file. Do not edit the "
    "folder: rows that it forgets are sent, and paid for, again."
)


class Finding(Struct, frozen=True):
    """severity: "error" (answers or money at risk), "warning" or "info"; hint: what to do, in words; file: its name in
    the ledger, if it is about one; repair: the command to run, "" if there is none or nothing needs to be done."""

    severity: str
    message: str
    hint: str = ""
    file: str = ""
    repair: str = ""


def worst_first(findings: list[Finding]) -> list[Finding]:
    """By severity, else in the order in which they were found."""
    order = {ERROR: 0, WARNING: 1, INFO: 2}
    return sorted(findings, key=lambda f: order[f.severity])

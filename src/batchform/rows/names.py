"""Names of columns that a source has more when its rows have attachments; see `rows.attached`."""

from __future__ import annotations

from typing import Final

ATTACHMENTS: Final = "bf_attachments"
FILES: Final = "bf_files"

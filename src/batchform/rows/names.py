"""Names of columns that a source has more when its rows have attachments; see `rows.attached`."""

from __future__ import annotations

from typing import Final

ATTACHMENTS: Final = "bf_attachments"
FILES: Final = "bf_files"
PART: Final = "bf_part"
"""Of rows that are asked about in parts: what stands behind the row's key in that of the part, "" for a whole row."""
ROW: Final = "bf_row"
"""And which row of the source it is, from 0."""
MADE: Final = (ATTACHMENTS, FILES, PART, ROW)

"""PDF files: how many pages they have, and some of their pages as a file of its own."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from batchform.errors import SourceError

if TYPE_CHECKING:
    from pypdf import PdfReader


def is_there() -> bool:
    """Whether the library is installed that reads PDF files."""
    try:
        import pypdf  # noqa: F401
    except ImportError:
        return False
    return True


def page_count(path: Path) -> int | None:
    """Pages of a PDF; None where pypdf is not installed, or cannot read it: models may all the same. Raises OSError."""
    if not is_there():
        return None
    try:
        with _opened(path, path.name) as reader:
            return len(reader.pages)
    except SourceError:
        return None


def cut(path: Path, first: int, last: int, *, name: str) -> bytes:
    """Pages `first` to `last`, from 1, as a PDF: the same bytes whenever the same library writes them. Raises
    SourceError for a file that cannot be read, OSError."""
    from pypdf import PdfWriter

    with _opened(path, name) as reader:
        writer = PdfWriter()
        writer.append(reader, pages=(first - 1, last), import_outline=False)
        out = io.BytesIO()
        writer.write(out)
        return out.getvalue()


@contextmanager
def _opened(path: Path, name: str) -> Iterator[PdfReader]:
    import logging

    import pypdf

    logging.getLogger("pypdf").setLevel(logging.CRITICAL)  # it tells of each oddity of a file that it can read
    with path.open("rb") as f:
        try:
            yield pypdf.PdfReader(f)
        except Exception as error:  # a damaged file can make it raise anything
            raise SourceError(
                f"{name} cannot be read as a PDF: {str(error) or type(error).__name__}.",
                hint="Save it anew, without a password, or leave the row out with source.where.",
            ) from error

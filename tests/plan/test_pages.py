"""Pages of PDFs: how parts are named, and that they are cut to the same bytes each time."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import pypdf
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchform.errors import SourceError
from batchform.rows.attached import by_content, names_in
from batchform.rows.pages import pages_of, part_name, part_suffix, ranges, row_key
from batchform.rows.pdf import cut, page_count

DIGEST = "sha256:" + "0123456789abcdef" * 4


@given(st.integers(1, 3000), st.integers(1, 1000))
def test_every_page_is_in_exactly_one_part(pages: int, most: int) -> None:
    found = list(ranges(pages, most))
    assert [n for first, last in found for n in range(first, last + 1)] == list(range(1, pages + 1))
    assert all(last - first < most for first, last in found)


@given(st.text(max_size=40), st.integers(1, 99), st.integers(1, 99))
def test_names_of_parts_read_back(key: str, first: int, last: int) -> None:
    assert pages_of(part_name(DIGEST, first, last)) == (DIGEST, first, last)
    assert row_key(key + part_suffix(DIGEST, first, last, 99)) == key


def test_a_part_is_known_in_a_request_and_where_it_was_staged() -> None:
    name = part_name(DIGEST, 3, 4)
    line = b'{"parts":[{"fileData":{"fileUri":"%s","mimeType":"application/pdf"}}]}' % name.encode()
    assert list(names_in(line)) == [(name, "application/pdf")] and pages_of(DIGEST) is None
    staged = {
        "fileData": {"fileUri": f"gs://b/x/attachments/{DIGEST[7:]}.pages-3-4.pdf", "mimeType": "application/pdf"}
    }
    assert by_content(staged)["fileData"]["fileUri"] == name


def test_pages_are_cut_to_the_same_bytes_each_time(tmp_path: Path) -> None:
    path = tmp_path / "x.pdf"
    writer = pypdf.PdfWriter()
    for number in range(7):
        writer.add_blank_page(width=100 + number, height=100)
    writer.write(path)
    assert page_count(path) == 7
    part = cut(path, 3, 5, name="x.pdf")
    assert part == cut(path, 3, 5, name="x.pdf") and len(part) < path.stat().st_size
    found = pypdf.PdfReader(io.BytesIO(part)).pages
    assert [int(p.mediabox.width) for p in found] == [102, 103, 104]


def test_a_locked_file_and_a_missing_library_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.pdf"
    writer = pypdf.PdfWriter()
    writer.add_blank_page(width=100, height=100)
    writer.encrypt("secret")
    writer.write(path)
    assert page_count(path) is None
    with pytest.raises(SourceError, match=r"x\.pdf cannot be read as a PDF"):
        cut(path, 1, 1, name="x.pdf")
    monkeypatch.setitem(sys.modules, "pypdf", None)
    assert page_count(path) is None

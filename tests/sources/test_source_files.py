"""The `files` source: one row per file, the same on every machine."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import pytest

from batchform.adapters.sources.files import MAX_TEXT
from batchform.errors import SourceError
from batchform.spec.mime import mime_type


def test_one_row_per_file_sorted_by_path(desk: Any) -> None:
    contents = {
        "docs/b.txt": b"hello\r\n",
        "docs/a/z.md": "# é\n".encode(),
        "docs/a/bin.PDF": b"%PDF-\xff",
        "docs/nul.txt": b"a\0b",
        "docs/empty": b"",
        "docs/bom.csv": b"\xef\xbb\xbfid\n",
        "docs/q'uo\"te\n.txt": b"x",
    }
    for name, content in contents.items():
        desk.write(name, content)
    desk.write("docs/.hidden.txt", "no")
    desk.write("docs/.git/config", "no")
    read = desk.read(type="files", path="docs/**")
    assert list(read.relation.columns) == ["path", "name", "size", "sha256", "mime", "text"]
    assert [row[0] for row in read.rows] == sorted(contents)
    for path, name, size, sha256, _, _ in read.rows:
        assert name == path.rpartition("/")[2]
        assert (size, sha256) == (len(contents[path]), hashlib.sha256(contents[path]).hexdigest())
    texts = {row[0]: (row[4], row[5]) for row in read.rows}
    assert texts["docs/b.txt"] == ("text/plain", "hello\r\n")
    assert texts["docs/a/z.md"] == ("text/markdown", "# é\n")
    assert texts["docs/a/bin.PDF"] == ("application/pdf", None)
    assert texts["docs/nul.txt"] == ("text/plain", None)
    assert texts["docs/empty"] == ("application/octet-stream", "")
    assert texts["docs/bom.csv"] == ("text/csv", "id\n")
    assert read.places() == sorted(contents)
    assert read.relation.described == "7 files, docs/**"


def test_encoding_where_and_query(desk: Any) -> None:
    desk.write("a.txt", "café".encode("latin-1"))
    desk.write("b.txt", "x")
    assert desk.read(type="files", path="a.txt").rows[0][5] is None
    assert desk.read(type="files", path="a.txt", encoding="latin-1").rows[0][5] == "café"
    read = desk.read(type="files", path="*.txt", where="text IS NOT NULL")
    assert ([row[0] for row in read.rows], read.places()) == (["b.txt"], ["b.txt"])
    query = "SELECT name, upper(text) AS t FROM source ORDER BY name DESC"
    assert desk.read(type="files", path="*.txt", query=query).rows == [("b.txt", "X"), ("a.txt", None)]
    with pytest.raises(SourceError, match=r"source\.encoding 'klingon'"):
        desk.read(type="files", path="*.txt", encoding="klingon")
    with pytest.raises(SourceError, match=r"source\.where: Referenced column"):
        desk.read(type="files", path="*.txt", where="sha = 'x'")


def test_big_files_have_no_text(desk: Any) -> None:
    desk.write("a.txt", b"x" * (MAX_TEXT + 1))
    desk.write("b.txt", b"y" * MAX_TEXT)
    read = desk.read(type="files", path="*.txt", query="SELECT size, length(text) AS n FROM source")
    assert read.rows == [(MAX_TEXT + 1, None), (MAX_TEXT, MAX_TEXT)]


def test_many_files(desk: Any) -> None:
    for number in range(5_000):
        desk.write(f"d{number % 7}/{number:05}.txt", str(number))
    read = desk.read(type="files", path="d*/*.txt")
    assert [row[0] for row in read.rows] == sorted(row[0] for row in read.rows)
    assert len(read.rows) == 5_000


def test_a_name_that_is_not_text(desk: Any) -> None:
    Path(os.fsdecode(os.fsencode(desk.root) + b"/caf\xe9.txt")).write_text("x")
    with pytest.raises(SourceError, match="is not valid UTF-8"):
        desk.read(type="files", path="*.txt")


def test_types_do_not_depend_on_the_machine() -> None:
    names = ["a.webp", "a.JSONL", "a.md", "a.yaml", "a.xml", "a.png", "a.tar.gz", "a.unheard", "a", ".bashrc"]
    assert [mime_type(name) for name in names] == [
        "image/webp",
        "application/jsonl",
        "text/markdown",
        "application/yaml",
        "application/xml",
        "image/png",
        "application/gzip",
        "application/octet-stream",
        "application/octet-stream",
        "application/octet-stream",
    ]

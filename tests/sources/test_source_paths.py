"""Globs in a fixed order, errors that say where we looked, and no way out of the project."""

from __future__ import annotations

import gzip
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from batchform.adapters.sources.paths import expand
from batchform.errors import SourceError

FILES = ["a.csv", "b.csv", "B.csv", "sub/c.csv", "sub/deep/d.csv", ".hidden.csv", ".dir/e.csv", "sub/x[1].csv"]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in FILES:
        path = tmp_path / "project" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("a\n1\n")
    return tmp_path / "project"


def _names(root: Path, *patterns: str) -> list[str]:
    return [file.name for file in expand(list(patterns), root=root, allow=[])]


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("*.csv", ["B.csv", "a.csv", "b.csv"]),
        ("[ab].csv", ["a.csv", "b.csv"]),
        ("?.csv", ["B.csv", "a.csv", "b.csv"]),
        ("**/*.csv", ["B.csv", "a.csv", "b.csv", "sub/c.csv", "sub/deep/d.csv", "sub/x[1].csv"]),
        ("sub/**", ["sub/c.csv", "sub/deep/d.csv", "sub/x[1].csv"]),
        ("**/deep/*.csv", ["sub/deep/d.csv"]),
        ("sub/x[1].csv", ["sub/x[1].csv"]),
        ("sub/x[[]1].csv", ["sub/x[1].csv"]),
        (".*.csv", [".hidden.csv"]),
        (".dir/*.csv", [".dir/e.csv"]),
        ("./sub/../a.csv", ["a.csv"]),
        ("*/c.csv", ["sub/c.csv"]),
    ],
)
def test_globs(root: Path, pattern: str, names: list[str]) -> None:
    assert _names(root, pattern) == names


def test_several_patterns_name_each_file_once(root: Path) -> None:
    assert _names(root, "b.csv", "*.csv", "a.csv") == ["B.csv", "a.csv", "b.csv"]
    assert _names(root, str(root / "a.csv")) == ["a.csv"]
    assert _names(root, str(root / "sub" / "*.csv")) == ["sub/c.csv", "sub/x[1].csv"]


@pytest.mark.parametrize(
    ("pattern", "words", "hint"),
    [
        ("c.csv", "There is no file c.csv: looked for c.csv in {root}.", "There is "),
        ("A.CSV", "There is no file A.CSV: looked for A.CSV in {root}.", "There is "),
        ("sub/*.tsv", "No file matches sub/*.tsv: looked for *.tsv in {root}/sub.", "There is "),
        ("subb/c.csv", "There is no file subb/c.csv: looked for subb in {root}.", "There is sub."),
        ("sub/dep/d.csv", "looked for dep in {root}/sub.", "There is deep."),
        ("a.csv/x", "looked for a.csv in {root}.", "There is a.csv"),
        ("sub", "source.path 'sub' is a folder.", "Name the files in it, such as sub/*"),
        ("gs://bucket/a.csv", "source.path 'gs://bucket/a.csv' is not a local path.", "Copy"),
        ("", "names no file", ""),
        ("a\0.csv", "names no file", ""),
        ("/etc/hostname", "/etc/hostname lies outside the project {root}.", "allow_paths"),
        ("../project/../x.csv", "it lies outside", "allow_paths"),
        ("../other/*.csv", "other/x.csv lies outside the project {root}.", "allow_paths"),
        ("sub/../../other/x.csv", "other/x.csv lies outside the project {root}.", "allow_paths"),
    ],
)
def test_what_is_not_there(root: Path, pattern: str, words: str, hint: str) -> None:
    (root.parent / "other").mkdir()
    (root.parent / "other" / "x.csv").write_text("a\n1\n")
    with pytest.raises(SourceError) as caught:
        _names(root, "a.csv", pattern)
    assert words.format(root=root) in caught.value.message
    assert hint in caught.value.hint


def test_links(root: Path) -> None:
    other = root.parent / "other"
    other.mkdir()
    (other / "secret.csv").write_text("a\n1\n")
    (root / "inside.csv").symlink_to("sub/c.csv")
    assert _names(root, "inside.csv") == ["inside.csv"]
    (root / "loop").symlink_to(root)
    assert _names(root, "**/d.csv") == ["sub/deep/d.csv"]
    (root / "out.csv").symlink_to(other / "secret.csv")
    (root / "outdir").symlink_to(other)
    for pattern in ("out.csv", "o*.csv", "outdir/secret.csv", "outdir/*.csv", "*/secret.csv"):
        with pytest.raises(SourceError, match="outside the project"):
            _names(root, pattern)
    allowed = expand("outdir/*.csv", root=root, allow=[other])
    assert [(file.path, file.name) for file in allowed] == [(other / "secret.csv", "outdir/secret.csv")]
    (root / "gone.csv").symlink_to("nowhere")
    (root / "round.csv").symlink_to("round.csv")
    for pattern in ("gone.csv", "g*.csv", "round.csv"):
        with pytest.raises(SourceError, match="leads nowhere"):
            _names(root, pattern)


def test_a_project_behind_a_link(root: Path, make_desk: Callable[..., Any]) -> None:
    desk = make_desk()
    link = root.parent / "link"
    link.symlink_to(root)
    desk.root = link
    assert desk.read(type="csv", path="*.csv").places() == ["B.csv:2", "a.csv:2", "b.csv:2"]
    assert desk.read(type="files", path="sub/*.csv").rows[0][0] == "sub/c.csv"


def test_what_is_no_file(root: Path) -> None:
    os.mkfifo(root / "pipe.csv")
    with pytest.raises(SourceError, match="neither a file nor a folder"):
        _names(root, "pipe.csv")
    assert "pipe.csv" not in _names(root, "*.csv")


def test_allowed_folders_are_readable(tmp_path: Path, make_desk: Callable[..., Any]) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "a.csv").write_text("a\n1\n")
    desk = make_desk(allow=(other,))
    read = desk.read(type="csv", path=str(other / "*.csv"))
    assert (read.rows, read.places()) == ([("1",)], [f"{other}/a.csv:2"])


def _zstd(data: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as out:
        out.write(data)
    return bytes(sink.getvalue())


@pytest.mark.parametrize("form", ["csv", "jsonl", "json"])
@pytest.mark.parametrize("packing", ["gz", "zst", "GZ"])
def test_packed_files_are_whole_or_refused(desk: Any, form: str, packing: str) -> None:
    text = {
        "csv": "i,t\n" + "".join(f"{i},row {i * 7919}\n" for i in range(20_000)),
        "jsonl": "".join(f'{{"i":{i},"t":"row {i * 7919}"}}\n' for i in range(20_000)),
        "json": "[" + ",".join(f'{{"i":{i},"t":"row {i * 7919}"}}' for i in range(20_000)) + "]",
    }[form].encode()
    whole = _zstd(text) if packing == "zst" else gzip.compress(text)
    name = f"a.{form}.{packing}"
    desk.write(name, whole)
    read = desk.read(type=form, path=name)
    assert len(read.rows) == 20_000
    assert read.places(19_999)[0].startswith(name + ":")
    broken = [whole[: len(whole) // 2], whole[:-3], b"", text[:1000], whole[:1000] + bytes(64) + whole[1064:]]
    if packing != "zst":
        broken += [whole[:-8] + bytes(8), whole + b"rubbish"]
    for content in broken:
        desk.write(name, content)
        with pytest.raises(SourceError, match=r"is not a whole|is empty|closed|JSON|cells|NUL|UTF-8") as caught:
            desk.read(type=form, path=name)
        assert name in caught.value.render()

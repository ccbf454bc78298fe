"""Laws of requests that name files by their content, and of what files are to a model."""

from __future__ import annotations

import base64
import hashlib
import json
import struct
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchform.adapters import media
from batchform.canon import canonical_json
from batchform.rows.attached import (
    AFTER,
    BEFORE,
    AttachedFile,
    at_uri,
    by_content,
    encode,
    inline,
    names_in,
    part,
    splice,
    with_places,
)
from examples_kit import examples

contents = st.binary(max_size=8)
mimes = st.sampled_from(["image/png", "application/pdf", "audio/wav"])
files = st.lists(st.tuples(contents, mimes), max_size=3)
nasty = st.text(max_size=30) | st.sampled_from(
    [BEFORE, AFTER, f'"{BEFORE}",', 'x","fileUri":"sha256:' + "0" * 64 + '","mimeType":"image/png"', "%s\\1"]
)


def named(content: bytes) -> str:
    return "sha256:" + hashlib.sha256(content).hexdigest()


@settings(max_examples=examples(200), deadline=None)
@given(nasty, files, files)
def test_parts_stand_around_the_text_whatever_the_text_is(
    text: str, before: list[tuple[bytes, str]], after: list[tuple[bytes, str]]
) -> None:
    parts = {"before": [part(named(c), m) for c, m in before], "after": [part(named(c), m) for c, m in after]}
    shown, _ = encode(parts, [])
    compiled = canonical_json({"contents": [{"parts": [BEFORE, {"text": text}, AFTER], "role": "user"}]})

    request = splice(compiled, shown)

    expected = {"contents": [{"parts": [*parts["before"], {"text": text}, *parts["after"]], "role": "user"}]}
    assert request == canonical_json(expected)
    assert list(names_in(request)) == [(named(c), m) for c, m in (*before, *after)]


@settings(max_examples=examples(200), deadline=None)
@given(nasty, files, st.text(max_size=20))
def test_only_files_are_put_in_and_the_rest_stays_as_it_is(
    text: str, given_files: list[tuple[bytes, str]], at: str
) -> None:
    request = {"contents": [{"parts": [{"text": text}, *(part(named(c), m) for c, m in given_files)]}]}
    uris = {(named(c), m): f"https://host/{at}/{len(c)}" for c, m in given_files}

    there = with_places(canonical_json(request), {name: at_uri(uri, name[1]) for name, uri in uris.items()})
    held = with_places(canonical_json(request), {(named(c), m): inline(c, m) for c, m in given_files})

    parts = [{"fileData": {"fileUri": uris[named(c), m], "mimeType": m}} for c, m in given_files]
    assert json.loads(there) == {"contents": [{"parts": [{"text": text}, *parts]}]}
    parts = [{"inlineData": {"data": base64.b64encode(c).decode(), "mimeType": m}} for c, m in given_files]
    assert json.loads(held) == {"contents": [{"parts": [{"text": text}, *parts]}]}
    again = {"contents": [{"parts": [by_content(p) for p in json.loads(held)["contents"][0]["parts"]]}]}
    assert again == request


def test_a_line_is_never_longer_than_it_was_counted() -> None:
    content = bytes(range(256)) * 10
    for is_inline in (True, False):
        file = AttachedFile(named(content), "image/png", len(content), "a.png", 258, is_inline)
        line = canonical_json(part(file.digest, file.mime_type))[1:-1]
        uri = "gs://" + "b" * 63 + "/" + "f" * 60 + f"/attachments/{'0' * 64}.png"
        put_in = inline(content, "image/png") if is_inline else at_uri(uri, "image/png")
        assert len(put_in) <= len(line) + file.extra_bytes


@pytest.mark.parametrize(
    ("width", "height", "tiles"), [(384, 384, 1), (385, 10, 1), (768, 768, 1), (769, 768, 2), (1600, 1600, 9)]
)
def test_an_image_has_258_tokens_a_tile(tmp_path: Path, width: int, height: int, tiles: int) -> None:
    heads = {
        "image/png": b"\x89PNG\r\n\x1a\n" + b"\0\0\0\rIHDR" + struct.pack(">II", width, height),
        "image/jpeg": b"\xff\xd8\xff\xe0\0\x04ab\xff\xc0\0\x11\x08" + struct.pack(">HH", height, width) + b"\x03" * 9,
        "image/webp": b"RIFF\0\0\0\0WEBPVP8 " + b"\0" * 10 + struct.pack("<HH", width, height),
    }
    for mime, head in heads.items():
        path = tmp_path / "image"
        path.write_bytes(head)
        assert media.measure(path, mime, len(head)).tokens == 258 * tiles, mime


def test_what_says_nothing_of_its_length_is_guessed_by_its_size(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"not what it says")
    assert media.measure(path, "audio/wav", 16_000).tokens == 32
    assert media.measure(path, "application/pdf", 100_001).tokens == 3 * 258
    assert media.measure(path, "image/png", 16).tokens == 4 * 258
    assert media.guess("video/mp4", 2_500_000) == 2630
    assert media.guess("text/plain", 5) == 2


@pytest.mark.parametrize(
    ("name", "mime"),
    [
        ("a.PNG", "image/png"),
        ("b.jpg", "image/jpeg"),
        ("c.mp3", "audio/mp3"),
        ("d.mov", "video/mov"),
        ("e.pdf", media.PDF),
    ],
)
def test_types_are_named_as_the_api_names_them(name: str, mime: str) -> None:
    assert media.type_of(name, None) == mime
    assert media.type_of(name, "image/x-own") == "image/x-own"

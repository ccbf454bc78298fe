"""Images as answers: what is asked for, and the files that they become."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from batchform.spec.model import DatabaseDestination, FileDestination, Spec

IMAGES: Final = "images"
"""The output format of image answers: a list of what each image is, without its bytes."""
MODALITIES: Final = ("TEXT", "IMAGE")
IMAGE_FIELDS: Final[Mapping[str, str]] = {
    "image_path": "VARCHAR",
    "image_mime_type": "VARCHAR",
    "image_bytes": "BIGINT",
    "image_sha256": "VARCHAR",
    "image_count": "BIGINT",
    "images": "JSON",
}
"""Of an answer with images: the first one, how many there are, and all of them as a JSON list."""

RESULT_BYTES: Final = 500_000_000
"""Most bytes that the results of one job of images should have: more can hardly be fetched."""
_LINE_BYTES: Final = {"512": 1_000_000, "1K": 2_000_000, "2K": 7_000_000, "4K": 28_000_000}
"""Bytes of a result line with one image, base64 and all: 2K as reported, the others by their area."""


def with_images(config: Mapping[str, Any], spec: Spec) -> dict[str, Any]:
    """A generationConfig with what `task: image` and the section `image` say."""
    asked = spec.image
    named = {} if asked is None else {"aspectRatio": asked.aspect_ratio, "imageSize": asked.size}
    said = {name: value for name, value in named.items() if value is not None}
    merged = {"responseModalities": list(MODALITIES), **config}
    if said:
        merged["imageConfig"] = {**config.get("imageConfig", {}), **said}
    return merged


def images_folder(spec: Spec) -> str | None:
    """Where image files go, as the user would write it, without a slash at the end; None when nothing says so."""
    if spec.image is not None and spec.image.folder is not None:
        return spec.image.folder.rstrip("/")
    to = spec.destination
    if not isinstance(to, (FileDestination, DatabaseDestination)):
        return None
    if to.path.endswith("/"):
        return f"{to.path.rstrip('/')}-images"
    head, slash, name = to.path.rpartition("/")
    return f"{head}{slash}{name.partition('.')[0] or name}-images"


def image_size(spec: Spec) -> str:
    """The size of each image; "" for a spec that asks for none."""
    if spec.task != "image":
        return ""
    config = spec.generation_config
    named = config.get("image_config") or config.get("imageConfig")
    said = named.get("image_size") or named.get("imageSize") if isinstance(named, Mapping) else None
    return (spec.image.size if spec.image else None) or str(said or "1K").upper()


def rows_per_job(spec: Spec) -> int:
    """Rows whose images fit into results that can be fetched."""
    return max(1, RESULT_BYTES // _LINE_BYTES.get(image_size(spec), _LINE_BYTES["4K"]))

"""What a create call must say. The service checks the form of a body at once, and what it names only when it runs."""

from __future__ import annotations

import re
from typing import Any, Final

from batchform.emulator import models
from batchform.emulator.models import Model
from batchform.emulator.refusal import Refusal, bad_field
from batchform.emulator.vertex import places

_PUBLISHED: Final = re.compile(r"(?:projects/[^/]+/locations/[^/]+/)?publishers/google/models/(?P<id>[^/@]+)(?:@\w+)?")
_OWN: Final = re.compile(r"projects/[^/]+/locations/[^/]+/models/[^/]+")
_LABEL: Final = re.compile(r"[a-z][a-z0-9_-]{0,62}")
_LABEL_VALUE: Final = re.compile(r"[a-z0-9_-]{0,63}")
_MAX_NAME: Final = 128
_MAX_LABELS: Final = 64
_UNSUPPORTED: Final = ("encryptionSpec", "serviceAccount")


def check(body: dict[str, Any]) -> Model:
    """The model of a normalised body. Raises Refusal: 400 for what is missing or wrong, 404 for an unknown model."""
    _texts(body)
    _input(body)
    _output(body)
    return find_model(body["model"])


def find_model(name: str, *, method: str = models.BATCH) -> Model:
    """The model that a resource name names. Raises Refusal 400 or 404."""
    published = _PUBLISHED.fullmatch(name)
    if published is None and not _OWN.fullmatch(name):
        raise bad_field(f"Invalid model resource name: {name}", "model")
    model = models.MODELS.get(published["id"]) if published else None
    if model is None:
        message = f"Publisher Model `{name}` was not found or your project does not have access to it."
        raise Refusal(404, message)
    method = models.EMBED_BATCH if method == models.BATCH and model.embeds else method
    if method not in model.methods:
        raise Refusal(400, f"{name} does not support {method}.")
    return model


def _texts(body: dict[str, Any]) -> None:
    for field in ("displayName", "model"):
        if not body.get(field):
            raise bad_field(f"Required field is not set: {field}.", field)
    if len(body["displayName"]) > _MAX_NAME:
        raise bad_field(f"displayName has more than {_MAX_NAME} characters.", "display_name")
    for field in _UNSUPPORTED:
        if body.get(field):
            raise bad_field(f"{field} is not supported for batches of Gemini models.", field)
    labels = body.get("labels", {})
    if len(labels) > _MAX_LABELS:
        raise bad_field(f"A job has at most {_MAX_LABELS} labels.", "labels")
    for key, value in labels.items():
        if not _LABEL.fullmatch(key) or not _LABEL_VALUE.fullmatch(value):
            message = f"Invalid label {key}={value}: lower-case letters, digits, _ and -, at most 63, a letter first."
            raise bad_field(message, "labels")


def _input(body: dict[str, Any]) -> None:
    source = body.get("inputConfig", {})
    _one_of(source, "inputConfig", "instancesFormat", {"gcsSource": "jsonl", "bigquerySource": "bigquery"})
    if "gcsSource" in source:
        uris = source["gcsSource"].get("uris", [])
        if not uris:
            raise bad_field("Required field is not set: inputConfig.gcsSource.uris.", "input_config.gcs_source.uris")
        for uri in uris:
            if places.folder(uri) is None:
                raise bad_field(f"Invalid Cloud Storage URI: {uri}", "input_config.gcs_source.uris")
    else:
        uri = source["bigquerySource"].get("inputUri", "")
        table = places.table(uri)
        if table is None or not table.table:
            raise bad_field(f"Invalid BigQuery table: '{uri}'", "input_config.bigquery_source.input_uri")


def _output(body: dict[str, Any]) -> None:
    target = body.get("outputConfig", {})
    _one_of(target, "outputConfig", "predictionsFormat", {"gcsDestination": "jsonl", "bigqueryDestination": "bigquery"})
    if "gcsDestination" in target:
        uri = target["gcsDestination"].get("outputUriPrefix", "")
        if places.folder(uri) is None:
            message = f"Invalid Cloud Storage URI: '{uri}'"
            raise bad_field(message, "output_config.gcs_destination.output_uri_prefix")
    else:
        uri = target["bigqueryDestination"].get("outputUri", "")
        if places.table(uri) is None:
            raise bad_field(f"Invalid BigQuery destination: '{uri}'", "output_config.bigquery_destination.output_uri")


def _one_of(config: dict[str, Any], name: str, word: str, kinds: dict[str, str]) -> None:
    """Exactly one kind, and the format that goes with it."""
    found = [kind for kind in kinds if kind in config]
    if len(found) != 1:
        raise bad_field(f"{name}: set one of {' and '.join(kinds)}.", name)
    wanted = kinds[found[0]]
    if config.get(word) != wanted:
        raise bad_field(f"{name}.{word} is '{config.get(word, '')}'; {found[0]} needs '{wanted}'.", f"{name}.{word}")

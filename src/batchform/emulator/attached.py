"""The files that a request names or holds: whether they can be read when it runs, and what they hold.

A request counts by its files' content: the same bytes under another name are the same request, and are charged as such.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from typing import Any, Final

from batchform.emulator import files
from batchform.emulator.refusal import Refusal, file_forbidden
from batchform.emulator.store import Store

_GS: Final = "gs://"


class Reader:
    """Reads what requests of one account name, as it is at a time. On Vertex AI an account is a place."""

    def __init__(self, store: Store, account: str, *, at: float) -> None:
        self._store, self._account, self._at = store, account, at
        self._vertex = account.startswith("projects/")

    def by_content(self, request: dict[str, Any]) -> dict[str, Any]:
        """The request with its files by their content. Raises Refusal for one that cannot be read."""
        contents = request.get("contents", ())
        if not any("fileData" in part or "inlineData" in part for c in contents for part in c.get("parts", ())):
            return request
        shown = [{**c, "parts": [self._part(part) for part in c["parts"]]} if "parts" in c else c for c in contents]
        return {**request, "contents": shown}

    def _part(self, part: dict[str, Any]) -> dict[str, Any]:
        if "fileData" in part:
            return {**part, "fileData": {**part["fileData"], "fileUri": self._content(part["fileData"])}}
        if "inlineData" not in part:
            return part
        held = part["inlineData"]
        named = {**{k: v for k, v in held.items() if k != "data"}, "fileUri": _digest(held.get("data", ""))}
        return {**{k: v for k, v in part.items() if k != "inlineData"}, "fileData": named}

    def _content(self, file: dict[str, Any]) -> str:
        uri = str(file.get("fileUri", ""))
        if uri.startswith(_GS):
            return self._object(uri)
        file_id = files.id_in(uri)
        if file_id is None:
            return uri  # of another host: what it holds is nobody's business here
        if self._vertex:
            raise Refusal(400, f"Invalid file URI {uri}: use gs:// or https://.")
        row = files.find(self._store, self._account, file_id, at=self._at)
        if row["source"] != "UPLOADED":
            raise file_forbidden(file_id)
        return f"sha256:{row['sha256']}"

    def _object(self, uri: str) -> str:
        if not self._vertex:
            raise Refusal(400, f"Unsupported file URI {uri}: use the Files API.")
        from batchform.emulator.storage.objects import ObjectStore

        bucket, _, name = uri.removeprefix(_GS).partition("/")
        try:
            found = ObjectStore(self._store).find(bucket, name)
        except Refusal:
            found = None
        if found is None:
            raise Refusal(400, f"Cannot read {uri}: there is no such object, or it may not be read.")
        return f"crc32c:{base64.b64decode(found.crc32c).hex()}-{found.size}"


def _digest(data: str) -> str:
    try:
        content = base64.b64decode(data.replace("-", "+").replace("_", "/"), validate=True)
    except (binascii.Error, ValueError) as e:
        raise Refusal(400, "Invalid value at 'inline_data.data': Base64 decoding failed.") from e
    return "sha256:" + hashlib.sha256(content).hexdigest()

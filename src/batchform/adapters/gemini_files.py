"""Attached files at the Gemini API: uploaded once under a name from their content, used again while they are new.

A file lives 48 hours, and a job may wait that long before it reads it. So a file is only named by a job that is created
within an hour of the upload, and uploaded anew, under the next of its names, after that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from datetime import datetime, timedelta
from typing import Any, Final

from batchform import canon
from batchform.adapters import gemini_wire as wire
from batchform.errors import AuthError, BackendError, NotFound
from batchform.ports import File, Placed
from batchform.run.attachments import check_content

LIFE: Final = timedelta(hours=48)
USED_WITHIN: Final = timedelta(hours=1)
_NAMES: Final = 60  # one for each hour of a file's life, and some
_PROCESSING_SECONDS: Final = 900.0
_LOOK_SECONDS: Final = 2.0


class Files:
    """reader: of raw answers; client: the SDK's, with its retries off."""

    def __init__(
        self,
        *,
        reader: Callable[[], Any],
        client: Callable[[], Any],
        errors: Callable[[str], AbstractContextManager[None]],
        sleep: Callable[[float], None],
        now: Callable[[], datetime],
    ) -> None:
        self._reader, self._client, self._errors, self._sleep, self._now = reader, client, errors, sleep, now

    def place(self, file: File) -> Placed:
        """The file's URI, uploaded if need be."""
        shown = file.path.name if file.path else file.digest
        for name in names(file):
            known = self._find(name)
            if known is None:
                known = self._upload(file, name)
            elif not self._is_new(known):
                continue
            if not _holds(known, file):
                continue  # somebody else's file of this name
            if known.get("state", "ACTIVE") == "FAILED":
                raise BackendError(
                    f"The service cannot process {shown} ({file.mime_type}): {_said(known)}",
                    hint="Look whether the file is whole, and of the type that its name says.",
                )
            return Placed(str(known["uri"]), self._renew_at(known))
        raise BackendError(f"All {_NAMES} names of {shown} are taken.", hint="Run again in an hour.")

    def _find(self, name: str) -> dict[str, Any] | None:
        return find_file(
            self._reader(), name, doing=f"Looking up file {name}", sleep=self._sleep, every=_LOOK_SECONDS,
            seconds=_PROCESSING_SECONDS, hint="Run again in a while: it is not uploaded again.",
        )  # fmt: skip

    def _upload(self, file: File, name: str) -> dict[str, Any]:
        """Upload, and wait until it can be used. If another runner was first, theirs is ours."""
        assert file.path is not None
        doing = f"Uploading {file.path.name}"
        check_content(file.path, file.digest, file.path.name)
        try:
            with self._errors(doing):
                self._client().files.upload(
                    file=file.path,
                    config={
                        "name": name,
                        "mime_type": file.mime_type,
                        "display_name": canon.short(file.digest, 64),
                        "http_options": {"retry_options": {"attempts": 1}},
                    },
                )
        except BackendError as error:
            if error.status != 409 and "already exists" not in error.message.lower():
                raise
        found = self._find(name)
        if found is None:
            raise BackendError(f"{doing}: the service took the file but does not show it.", hint="Run again.")
        return found

    def _is_new(self, known: dict[str, Any]) -> bool:
        renew_at = self._renew_at(known)
        return renew_at is None or renew_at > self._now()

    def _renew_at(self, known: dict[str, Any]) -> datetime | None:
        expires = wire.parse_time(known.get("expirationTime"))
        return expires - (LIFE - USED_WITHIN) if expires else None


def find_file(
    reader: Any, name: str, *, doing: str, sleep: Callable[[float], None], every: float, seconds: float, hint: str
) -> dict[str, Any] | None:
    """The File of this name, no longer PROCESSING; None if there is none (the service says 403).

    every, seconds: between looks, and of patience; hint: what to do when it is at an end.
    """
    waited = 0.0
    while True:
        try:
            found: dict[str, Any] = reader.json(name, doing=doing)
        except (NotFound, AuthError) as error:
            if error.status in (403, 404):
                return None
            raise
        if found.get("state") != "PROCESSING":
            return found
        if waited >= seconds:
            minutes = "a minute" if seconds == 60 else f"{seconds / 60:g} minutes"
            raise BackendError(f"{doing}: it is still being processed after {minutes}.", hint=hint)
        sleep(every)
        waited += every


def names(file: File) -> Iterator[str]:
    """Names for a file, at most 40 of [a-z0-9-]; the later ones serve when earlier uploads are too old."""
    stem = "bfa-" + canon.short(canon.digest_of("attachment", [file.name or file.digest, file.mime_type]), 32)
    yield f"files/{stem}"
    for n in range(2, _NAMES + 1):
        yield f"files/{stem}-{n}"


def _holds(known: dict[str, Any], file: File) -> bool:
    stated = known.get("sha256Hash")
    return not stated or wire.sha256_matches(str(stated), file.digest.rpartition(":")[2])


def _said(known: dict[str, Any]) -> str:
    error = known.get("error")
    return str(error.get("message", "")) if isinstance(error, dict) else "it does not say why."

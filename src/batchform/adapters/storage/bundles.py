"""Saved plans at gs://: uploaded whole from a local folder, and brought back to one to be applied."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from batchform.adapters.blob_names import check_name
from batchform.adapters.storage.client import Stat, StorageClient
from batchform.adapters.storage.errors import ObjectMissing, PreconditionLost
from batchform.errors import BatchformError, UsageError
from batchform.plan.bundle import MANIFEST
from batchform.spec.remote import Address, address

_UNFINISHED: Final = ".unfinished"
_AGAIN: Final = "Make one with `batchform plan --out gs://BUCKET/FOLDER`."


class RemoteBundle:
    """A saved plan in a folder of a bucket. Its manifest is written last: what has none is no plan."""

    def __init__(self, client: StorageClient, place: str) -> None:
        """place: as the user wrote it. Raises UsageError for what is no folder of a bucket."""
        try:
            at = address(place)
        except ValueError as error:
            raise UsageError(f"{place}: {error}", hint="Write gs://BUCKET/FOLDER.") from None
        if not at.name:
            raise UsageError(f"{place} is a bucket", hint="Name a folder in it for the plan: gs://BUCKET/FOLDER.")
        self.place = place
        self._client = client
        self._at = Address(at.bucket, at.name.rstrip("/"))

    def check(self) -> None:
        """Refuse a folder that holds something other than an earlier plan, whole or not. Reads only."""
        names = {self._name(stat) for stat in self._client.list(self._at.below(""))}
        if names and not names & {MANIFEST, _UNFINISHED}:
            raise UsageError(
                f"{self.place} is not empty and holds no saved plan", hint="Name a new or empty folder for --out."
            )

    def upload(self, folder: Path) -> None:
        """Replace what is there by the finished plan in a local folder. Raises UsageError if another was faster."""
        self.check()
        old = [stat.at for stat in self._client.list(self._at.below("")) if self._name(stat) != _UNFINISHED]
        mark = self._at.below(_UNFINISHED)
        there = self._client.stat(mark)
        try:
            self._client.write(mark, b"a plan is being saved here\n", match=there.generation if there else 0)
            for at in sorted(old, key=lambda a: not a.name.endswith(f"/{MANIFEST}")):
                self._client.delete(at)
            files = [p for p in sorted(folder.rglob("*")) if p.is_file() and p != folder / MANIFEST]
            for path in [*files, folder / MANIFEST]:
                self._put(path.relative_to(folder).as_posix(), path)
        except PreconditionLost:
            raise UsageError(
                f"another plan was saved to {self.place} at the same time", hint="Name a folder for each plan."
            ) from None
        self._client.delete(mark)

    def download(self, folder: Path) -> None:
        """Bring the plan to a local folder, which is made for its owner only. Raises UsageError if there is none."""
        found = {self._name(stat): stat for stat in self._client.list(self._at.below(""))}
        if MANIFEST not in found:
            raise UsageError(f"{self.place} holds no saved plan", hint=_AGAIN)
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        for name, stat in found.items():
            try:
                target = folder / check_name(name, reserved=())
            except ValueError as error:
                raise UsageError(f"{self.place} holds no saved plan: {error}", hint=_AGAIN) from None
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                self._client.download(stat, target)
            except ObjectMissing:
                raise UsageError(f"{self.place} was replaced while it was read", hint="Run again.") from None

    def download_manifest(self, folder: Path) -> None:
        """Bring what says what the plan is, and no more. Raises UsageError if there is none."""
        stat = self._client.stat(self._at.below(MANIFEST))
        if stat is None:
            raise UsageError(f"{self.place} holds no saved plan", hint=_AGAIN)
        self._client.download(stat, folder / MANIFEST)

    @contextmanager
    def named(self, folder: Path) -> Iterator[None]:
        """Let errors about the local copy name the place that the user knows."""
        try:
            yield
        except BatchformError as error:
            error.message = error.message.replace(str(folder), self.place.rstrip("/"))
            error.args = (error.message,)
            raise

    def _put(self, name: str, path: Path) -> None:
        at = self._at.below(name)
        try:
            self._client.write(at, path, match=0)
        except PreconditionLost:
            there = self._client.stat(at)  # it may be this very write, whose answer was lost
            if there is None or not there.holds(path):
                raise

    def _name(self, stat: Stat) -> str:
        return str(stat.at)[len(str(self._at.below(""))) :]

"""`gs://` paths: what they may look like. Known from the text alone, so that validation needs no network."""

from __future__ import annotations

import re
from typing import Final

from msgspec import Struct

SCHEME: Final = "gs://"
HTTPS: Final = "https://"

_BUCKET = re.compile(r"[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]")
_LONGEST_NAME: Final = 1024  # bytes of UTF-8


class Address(Struct, frozen=True):
    """An object, or with a name that is empty or ends in `/`, whatever lies below."""

    bucket: str
    name: str

    def __str__(self) -> str:
        return f"{SCHEME}{self.bucket}/{self.name}"

    def below(self, name: str) -> Address:
        """The address of `name` in this folder."""
        folder = self.name if not self.name or self.name.endswith("/") else f"{self.name}/"
        return Address(self.bucket, folder + name)


def is_remote(path: str) -> bool:
    """Whether a path lies in Cloud Storage."""
    return path.startswith(SCHEME)


def without_query(url: str) -> str:
    """An address of the web without what may be a secret, for people to read: a user's name and password, and what
    stands behind its `?` or `#`. Anything else as it is."""
    scheme, there, rest = url.partition("://")
    if not there or url.startswith(SCHEME):
        return url
    bare = re.split("[?#]", rest, maxsplit=1)[0]
    host, slash, path = bare.partition("/")
    return f"{scheme}://{host.rpartition('@')[2]}{slash}{path}{'?…' if bare != rest else ''}"


def remote_paths(part: object) -> list[str]:
    """The gs:// paths of a source or destination."""
    path = getattr(part, "path", ())
    return [p for p in ([path] if isinstance(path, str) else path) if is_remote(p)]


def address(path: str) -> Address:
    """The parts of a gs:// path or pattern. Raises ValueError with a sentence that says what is wrong."""
    bucket, _, name = path.removeprefix(SCHEME).partition("/")
    if not _BUCKET.fullmatch(bucket):
        raise ValueError(f"{bucket!r} is no name of a bucket: 3 to 63 of a-z, 0-9, - and _, dots between labels")
    if "\\" in name or any(ord(c) < 32 or c == "\x7f" for c in name):
        raise ValueError("the name has a backslash or a control character")
    if any(part in ("", ".", "..") for part in name.split("/")[:-1]) or name.rpartition("/")[2] in (".", ".."):
        raise ValueError("the name has an empty part, `.` or `..`, which are no folders in Cloud Storage")
    try:
        if len(name.encode()) > _LONGEST_NAME:
            raise ValueError(f"the name has more than {_LONGEST_NAME} bytes")
    except UnicodeEncodeError:
        raise ValueError("the name is not valid text") from None
    return Address(bucket, name)

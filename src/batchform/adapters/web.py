"""Files at https:// addresses that rows name: read with limits, and from nowhere that only this machine can reach.

Rows are not to be trusted with this machine's place in a network: a name must mean a public address, each redirect
anew, and the connection goes to the very address that was looked at. No credential is sent, and no proxy asked.
"""

from __future__ import annotations

import http.client
import ipaddress
import socket
import ssl
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Final
from urllib.parse import urljoin, urlsplit

from msgspec import Struct

from batchform.errors import SourceError
from batchform.spec.remote import without_query

_HOPS: Final = 5
_TRIES: Final = 3
_PAUSE: Final = 1.0  # seconds before the second try, and twice that before the third
_SILENT: Final = 60.0  # seconds without a byte
_LONGEST: Final = 900.0  # seconds for one file
_PIECE: Final = 1 << 20
_MOVED: Final = (301, 302, 303, 307, 308)
_PASSING: Final = (408, 429, 500, 502, 503, 504)


class Version(Struct, frozen=True):
    """What a server calls the content that it gave, in its own words; "" where it does not say."""

    etag: str = ""
    modified: str = ""

    def headers(self) -> dict[str, str]:
        """Ask only for what is newer."""
        said = {"If-None-Match": self.etag, "If-Modified-Since": self.modified}
        return {name: value for name, value in said.items() if value}


class _TryAgainError(Exception):
    """What may be over in a moment, as a sentence."""


class Web:
    """allow_hosts: names of hosts that may lie in a private network; most: bytes of one file."""

    def __init__(
        self, *, allow_hosts: Sequence[str] = (), most: int = 2 * 1000**3, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        self._allow, self._most, self._sleep = frozenset(h.lower() for h in allow_hosts), most, sleep

    def read(self, url: str, to: Path, known: Version | None = None) -> Version | None:
        """Write what lies at an address to a file. None, and no file, if it is what is known. Raises SourceError."""
        for attempt in range(1, _TRIES + 1):
            try:
                return self._follow(url, to, known or Version())
            except _TryAgainError as error:
                if attempt == _TRIES:
                    raise SourceError(f"{without_query(url)} {error}.", hint="Try again later.") from error
                self._sleep(_PAUSE * 2 ** (attempt - 1))
        raise AssertionError("unreachable")

    def _follow(self, url: str, to: Path, known: Version) -> Version | None:
        at = url
        for _ in range(_HOPS + 1):
            with closing(self._connected(at, url)) as connection:
                parts = urlsplit(at)
                path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
                try:
                    headers = {"User-Agent": "batchform", "Accept-Encoding": "identity", **known.headers()}
                    connection.request("GET", path, headers=headers)
                    answer = connection.getresponse()
                    if answer.status in _MOVED and (target := answer.headers.get("Location")):
                        at = urljoin(at, target)
                        continue
                    return self._take(url, answer, to, known)
                except (OSError, http.client.HTTPException) as error:
                    raise _TryAgainError(f"broke off: {str(error) or type(error).__name__}") from error
                except ValueError as error:  # a path that no request line can hold
                    raise SourceError(f"{without_query(url)} is no address: {error}.") from error
        raise SourceError(
            f"{without_query(url)} is redirected more than {_HOPS} times.", hint="Name where it leads to."
        )

    def _take(self, url: str, answer: http.client.HTTPResponse, to: Path, known: Version) -> Version | None:
        if answer.status == 304 and known.headers():
            return None
        if answer.status in _PASSING:
            raise _TryAgainError(f"answers {answer.status} {answer.reason}")
        if answer.status != 200:
            hint = (
                "Nobody is asked for a password: it must be public, or signed." if answer.status in (401, 403) else ""
            )
            raise SourceError(f"{without_query(url)} answers {answer.status} {answer.reason}.", hint=hint)
        stated = int(answer.headers.get("Content-Length") or 0)
        until, size = time.monotonic() + _LONGEST, 0
        with to.open("wb") as out:
            while max(size, stated) <= self._most and (piece := answer.read(_PIECE)):
                size += out.write(piece)
                if time.monotonic() > until:
                    raise SourceError(f"{without_query(url)} is not read after {_LONGEST / 60:g} minutes.")
        if max(size, stated) > self._most:
            raise SourceError(
                f"{without_query(url)} has more than {self._most:,} bytes.", hint="Cut it, or name a smaller copy."
            )
        if stated and size != stated:
            raise _TryAgainError(f"broke off after {size:,} of {stated:,} bytes")
        return Version(answer.headers.get("ETag") or "", answer.headers.get("Last-Modified") or "")

    def _connected(self, at: str, url: str) -> http.client.HTTPSConnection:
        """A connection to an address that was looked at. url: the one that the row names."""
        try:
            parts = urlsplit(at)
            host, port = parts.hostname or "", parts.port or 443
        except ValueError as error:
            raise SourceError(f"{without_query(url)} is no address: {error}.") from error
        if parts.scheme != "https" or not host or parts.username is not None:
            raise SourceError(
                f"{without_query(url)} leads to {without_query(at)}, which is no https:// address of a host."
                if at != url
                else f"{without_query(url)} is no https:// address of a host, without user and password."
            )
        addresses = self._addresses(host, port, url)
        connection = http.client.HTTPSConnection(host, port, timeout=_SILENT)
        try:
            plain = _first(addresses, port)
            connection.sock = ssl.create_default_context().wrap_socket(plain, server_hostname=host)
        except ssl.SSLCertVerificationError as error:
            raise SourceError(f"The certificate of {host} does not hold: {error.verify_message}.") from error
        except OSError as error:
            raise _TryAgainError(f"cannot be reached: {error.strerror or error}") from error
        return connection

    def _addresses(self, host: str, port: int, url: str) -> list[str]:
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            raise _TryAgainError(f"cannot be reached: there is no host {host}") from error
        addresses = list(dict.fromkeys(str(at[0]) for *_, at in found))
        if host.lower() not in self._allow:
            for one in addresses:
                if not _is_public(one):
                    raise SourceError(
                        f"{without_query(url)} leads to {host}, which is {one}: no public address.",
                        hint="Name the host in `allow_hosts` of batchform.yaml if rows may name it.",
                    )
        return addresses


def _is_public(address: str) -> bool:
    found = ipaddress.ip_address(address.partition("%")[0])
    inner = getattr(found, "ipv4_mapped", None) or getattr(found, "sixtofour", None)
    return found.is_global and not found.is_multicast and (inner is None or bool(inner.is_global))


def _first(addresses: Sequence[str], port: int) -> socket.socket:
    """A connection to the first of these that takes one. Raises OSError."""
    for number, one in enumerate(addresses, 1):
        try:
            return socket.create_connection((one, port), timeout=_SILENT)
        except OSError:
            if number == len(addresses):
                raise
    raise OSError("it has no address")

"""Files at https:// addresses that rows name: read with limits, and from nowhere that only this machine can reach.

Rows are not to be trusted with this machine's place in a network: a name must mean a public address, each redirect
anew, and the connection goes to the very address that was looked at. No credential is sent, and no proxy asked.
"""

from __future__ import annotations

import http.client
import ipaddress
import socket
import ssl
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Final
from urllib.parse import quote, urljoin, urlsplit

from msgspec import Struct

from batchform.errors import SourceError
from batchform.spec.remote import without_query

_HOPS: Final = 5
_TRIES: Final = 3
_PAUSE: Final = 1.0  # seconds before the second try, and twice that before the third
_SILENT: Final = 60.0  # seconds without a byte
_LONGEST: Final = 900.0  # seconds for one file
_PIECE: Final = 1 << 20
_NAT64: Final = ipaddress.ip_network("64:ff9b::/96")
"""IPv6 addresses behind which a network puts IPv4 ones."""
_AS_IT_IS: Final = "/:?[]@!$&'()*+,;=%~"  # of a path and query; anything else is percent-encoded, as browsers do
_MOVED: Final = (301, 302, 303, 307, 308)
_PASSING: Final = (408, 429, 500, 502, 503, 504)


class Version(Struct, frozen=True):
    """What a server calls the content that it gave, in its own words; "" where it does not say. at: where it was,
    behind redirects: another address may call another content the same, or older."""

    etag: str = ""
    modified: str = ""
    at: str = ""

    def headers(self, at: str) -> dict[str, str]:
        """Ask only for what is newer, if it is asked where it was before."""
        if without_query(at) != self.at:
            return {}
        said = {"If-None-Match": self.etag, "If-Modified-Since": self.modified}
        return {name: value for name, value in said.items() if value}


class _TryAgainError(Exception):
    """What may be over in a moment, as a sentence."""


class _Watch:
    """Cuts a connection that takes too long, whatever is waited for: a server may send a byte a minute."""

    def __init__(self, seconds: float) -> None:
        self.late = False
        self._at: socket.socket | None = None
        self._timer = threading.Timer(seconds, self._cut)
        self._timer.daemon = True
        self._timer.start()

    def on(self, connected: socket.socket) -> None:
        self._at = connected
        if self.late:
            self._cut()

    def _cut(self) -> None:
        self.late = True
        if self._at is not None:
            with suppress(OSError):
                socket.socket.shutdown(self._at, socket.SHUT_RDWR)

    def close(self) -> None:
        self._timer.cancel()


class Web:
    """allow_hosts: names of hosts that may lie in a private network; most: bytes of a file; longest: its seconds."""

    def __init__(
        self,
        *,
        allow_hosts: Sequence[str] = (),
        most: int = 2 * 1000**3,
        longest: float = _LONGEST,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._allow, self._most, self._sleep = frozenset(h.lower() for h in allow_hosts), most, sleep
        self._longest = longest

    def read(self, url: str, to: Path, known: Version | None = None) -> Version | None:
        """Write what lies at an address to a file. None, and no file, if it is what is known. Raises SourceError."""
        for attempt in range(1, _TRIES + 1):
            try:
                with closing(_Watch(self._longest)) as watch:
                    try:
                        return self._follow(url, to, known or Version(), watch)
                    except _TryAgainError as error:
                        if watch.late:
                            text = f"{without_query(url)} is not read after {self._longest / 60:g} minutes."
                            raise SourceError(text, hint="Name a place that is faster.") from error
                        raise
            except _TryAgainError as error:
                if attempt == _TRIES:
                    raise SourceError(f"{without_query(url)} {error}.", hint="Try again later.") from error
                self._sleep(_PAUSE * 2 ** (attempt - 1))
        raise AssertionError("unreachable")

    def _follow(self, url: str, to: Path, known: Version, watch: _Watch) -> Version | None:
        at = url
        for _ in range(_HOPS + 1):
            with closing(self._connected(at, url, watch)) as connection:
                parts = urlsplit(at)
                path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
                try:
                    headers = {"User-Agent": "batchform", "Accept-Encoding": "identity", **known.headers(at)}
                    connection.request("GET", quote(path, safe=_AS_IT_IS), headers=headers)
                    with closing(connection.getresponse()) as answer:
                        if answer.status in _MOVED and (target := answer.headers.get("Location")):
                            at = urljoin(at, target)
                            continue
                        return self._take(url, at, answer, to, known)
                except (OSError, http.client.HTTPException) as error:
                    raise _TryAgainError(f"broke off: {str(error) or type(error).__name__}") from error
                except ValueError as error:  # of an address that it leads to
                    raise SourceError(f"{without_query(url)} leads to what is no address: {error}.") from error
        raise SourceError(
            f"{without_query(url)} is redirected more than {_HOPS} times.", hint="Name where it leads to."
        )

    def _take(self, url: str, at: str, answer: http.client.HTTPResponse, to: Path, known: Version) -> Version | None:
        if answer.status == 304 and known.headers(at):
            return None
        if answer.status in _PASSING:
            raise _TryAgainError(f"answers {answer.status} {answer.reason}")
        if answer.status != 200:
            hint = (
                "Nobody is asked for a password: it must be public, or signed." if answer.status in (401, 403) else ""
            )
            raise SourceError(f"{without_query(url)} answers {answer.status} {answer.reason}.", hint=hint)
        if (packed := (answer.headers.get("Content-Encoding") or "identity").lower()) != "identity":
            raise SourceError(
                f"{without_query(url)} comes packed ({packed}), although that was not asked for.",
                hint="Name a copy that its server gives as it is.",
            )
        stated, size = answer.length or 0, 0
        with to.open("wb") as out:
            while max(size, stated) <= self._most and (piece := answer.read1(_PIECE)):
                size += out.write(piece)
        if max(size, stated) > self._most:
            raise SourceError(
                f"{without_query(url)} has more than {self._most:,} bytes.", hint="Cut it, or name a smaller copy."
            )
        if stated and size != stated:
            raise _TryAgainError(f"broke off after {size:,} of {stated:,} bytes")
        said = answer.headers
        return Version(said.get("ETag") or "", said.get("Last-Modified") or "", without_query(at))

    def _connected(self, at: str, url: str, watch: _Watch) -> http.client.HTTPSConnection:
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
            # An end that the server does not state as such may be one in the middle.
            connection.sock = ssl.create_default_context().wrap_socket(
                _first(addresses, port), server_hostname=host, do_handshake_on_connect=False, suppress_ragged_eofs=False
            )
            watch.on(connection.sock)
            connection.sock.do_handshake()
        except ssl.SSLCertVerificationError as error:
            connection.close()
            raise SourceError(f"The certificate of {host} does not hold: {error.verify_message}.") from error
        except OSError as error:
            connection.close()
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
    if found in _NAT64:
        return ipaddress.IPv4Address(int(found) & 0xFFFFFFFF).is_global
    if found.is_multicast or found.is_reserved or getattr(found, "is_site_local", False):
        return False
    inner = getattr(found, "ipv4_mapped", None) or getattr(found, "sixtofour", None)
    return found.is_global and (inner is None or bool(inner.is_global))


def _first(addresses: Sequence[str], port: int) -> socket.socket:
    """A connection to the first of these that takes one. Raises OSError."""
    for number, one in enumerate(addresses, 1):
        try:
            return socket.create_connection((one, port), timeout=_SILENT)
        except OSError:
            if number == len(addresses):
                raise
    raise OSError("it has no address")

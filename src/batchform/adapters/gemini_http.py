"""Reads of the Gemini API, straight from the wire.

The SDK drops a job's error, counts and input, and refuses answers that it does not expect; one such job makes
a whole page of a list unreadable. So reads take the raw JSON. They are retried; nothing here writes.
"""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from datetime import datetime
from pathlib import Path
from random import Random
from typing import Any, TypeVar

import httpx2
import msgspec
from google.genai import errors as genai_errors

from batchform.adapters.gemini_environment import KEY_HEADER
from batchform.adapters.gemini_errors import AGAIN, RETRYABLE_STATUS, retry_delay
from batchform.errors import BackendError

T = TypeVar("T")

SECRET_HEADERS = (KEY_HEADER, "authorization")
EMULATOR_HEADER = "x-batchform-emulator"
CHUNK = 1 << 20
PAGE_SIZE = 100


class Fence:
    """Keeps calls from being sent too late: set `before` and `now` around a call whose moment matters.

    It is asked when the connection stands and the first byte is about to leave, so that a slow look-up of the host, a
    slow handshake or a machine that slept in between cannot delay the call past it.
    """

    def __init__(self, now: Callable[[], datetime]) -> None:
        self._now = now
        self.before: datetime | None = None

    def __call__(self, event: str, info: Mapping[str, Any]) -> None:  # noqa: ARG002  (httpcore's own signature)
        if event.endswith("send_request_headers.started") and self.before is not None and self._now() > self.before:
            raise TooLate


class TooLate(Exception):
    """A call was not sent, since its time had passed."""


def tls_context(base_url: str) -> ssl.SSLContext:
    """One for all clients of a backend: to read the certificates takes longer than the calls of a small run. Plain HTTP
    needs none of them; should it be redirected to HTTPS, no certificate is trusted."""
    if httpx2.URL(base_url).scheme == "http":
        return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    return httpx2.create_ssl_context()


def open_client(*, base_url: str, timeout: float, realm: str, fence: Fence, tls: ssl.SSLContext) -> httpx2.Client:
    """The HTTP client that the SDK and the raw reads share.

    It keeps the API key from other hosts, refuses an emulator's answers where Google's are expected, and sends nothing
    that the fence holds back.
    """
    host = httpx2.URL(base_url).host

    def hold_back(request: httpx2.Request) -> None:
        if fence.before is not None:
            request.extensions["trace"] = fence

    def keep_key_home(request: httpx2.Request) -> None:
        if request.url.host != host:
            for name in SECRET_HEADERS:
                request.headers.pop(name, None)

    def refuse_synthetic(response: httpx2.Response) -> None:
        if realm != "emulator" and EMULATOR_HEADER in response.headers:
            raise BackendError(
                f"{base_url} is a batchform emulator, but the backend's realm is {realm}: "
                "synthetic answers never count as Google's.",
                hint="Use a backend of `type: emulator`, or set `realm: emulator` on this one.",
            )

    return httpx2.Client(
        timeout=timeout,
        verify=tls,
        follow_redirects=True,
        event_hooks={"request": [keep_key_home, hold_back], "response": [refuse_synthetic]},
    )


class RawReader:
    """Requests that change nothing, with retries.

    headers: asked for each request, since a token ends; errors: makes ours of what fails; sleep: injected so that tests
    need not wait.
    """

    def __init__(
        self,
        client: httpx2.Client,
        *,
        root: str,
        headers: Callable[[], Mapping[str, str]],
        errors: Callable[[str], AbstractContextManager[None]],
        attempts: int = 4,
        sleep: Callable[[float], None] = time.sleep,
        rng: Random | None = None,
    ) -> None:
        self._client = client
        self._root = root
        self._headers = headers
        self._errors = errors
        self._attempts = attempts
        self._sleep = sleep
        self._rng = rng or Random()

    def json(self, path: str, *, doing: str, params: Mapping[str, str] | None = None) -> dict[str, Any]:
        """The JSON object at a path. Raises NotFound, AuthError, BackendError."""

        def read() -> httpx2.Response:
            return self._client.get(f"{self._root}/{path}", params=dict(params or {}), headers=dict(self._headers()))

        return self._object(read, doing=doing)

    def answer(self, path: str, body: Mapping[str, Any], *, doing: str) -> dict[str, Any]:
        """The JSON object that answers a question which changes nothing. Raises NotFound, AuthError, BackendError."""
        asked = msgspec.json.encode(body)

        def ask() -> httpx2.Response:
            headers = {**self._headers(), "Content-Type": "application/json"}
            return self._client.post(f"{self._root}/{path}", content=asked, headers=headers)

        return self._object(ask, doing=doing)

    def _object(self, call: Callable[[], httpx2.Response], *, doing: str) -> dict[str, Any]:
        def read() -> Any:
            response = call()
            genai_errors.APIError.raise_for_response(response)
            return msgspec.json.decode(response.content) if response.content else None

        with self._errors(doing):
            body = self._retried(read)
        if not isinstance(body, dict):
            raise BackendError(f"{doing}: the answer is not a JSON object.", hint=AGAIN)
        return body

    def pages(self, path: str, *, doing: str, params: Mapping[str, str] | None = None) -> Iterator[dict[str, Any]]:
        """The pages of a list, one object a page. An empty page in the middle is harmless."""
        token, seen = "", set()
        while True:
            turn = {"pageSize": str(PAGE_SIZE)} | ({"pageToken": token} if token else {})
            page = self.json(path, doing=doing, params={**(params or {}), **turn})
            yield page
            token = str(page.get("nextPageToken") or "")
            if not token:
                return
            if token in seen:
                raise BackendError(f"{doing}: the service gave the same page token twice.", hint=AGAIN)
            seen.add(token)

    def to_file(self, path: str, to: Path, *, doing: str) -> int:
        """Stream a body to a file; returns its bytes. A body shorter than announced is read again."""

        def read() -> int:
            url = f"{self._root}/{path}"
            with self._client.stream("GET", url, params={"alt": "media"}, headers=dict(self._headers())) as response:
                genai_errors.APIError.raise_for_response(response)
                with to.open("wb") as f:
                    written = sum(f.write(chunk) for chunk in response.iter_bytes(CHUNK))
                announced = response.headers.get("content-length", "")
                if announced.isdigit() and response.num_bytes_downloaded != int(announced):
                    got = response.num_bytes_downloaded
                    raise httpx2.RemoteProtocolError(f"{got} bytes came of {announced} announced")
                return written

        with self._errors(doing):
            return self._retried(read)

    def _retried(self, read: Callable[[], T]) -> T:
        for attempt in range(1, self._attempts + 1):
            try:
                return read()
            except (genai_errors.APIError, httpx2.TransportError, httpx2.DecodingError) as error:
                if attempt == self._attempts or not _worth_another(error):
                    raise
                stated = retry_delay(error) if isinstance(error, genai_errors.APIError) else None
                backoff = 2.0 ** (attempt - 1) * (0.5 + self._rng.random())
                self._sleep(min(60.0, max(stated or 0.0, backoff)))
        raise AssertionError("unreachable: the last attempt returns or raises")


def _worth_another(error: Exception) -> bool:
    if isinstance(error, genai_errors.APIError):
        return error.code in RETRYABLE_STATUS
    return not isinstance(error, (httpx2.UnsupportedProtocol, httpx2.LocalProtocolError))

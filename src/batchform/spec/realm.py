"""Whose answers a backend gives. Known from the files alone, so that planning needs no network."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping

from batchform.spec.model import EmulatorBackend, GeminiBackend

BASE_URL_VARIABLE = "GOOGLE_GEMINI_BASE_URL"


def is_loopback(url: str) -> bool:
    """Whether a URL's host is this machine."""
    host = url.partition("://")[2].partition("/")[0].rpartition("@")[2]
    host = host[1 : host.index("]")] if host.startswith("[") and "]" in host else host.partition(":")[0]
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def with_environment(backend: GeminiBackend, env: Mapping[str, str]) -> GeminiBackend:
    """The backend with the SDK's own base URL variable applied, so that realm and endpoint are settled at load time."""
    url = env.get(BASE_URL_VARIABLE)
    return backend if backend.base_url or not url else backend.model_copy(update={"base_url": url})


def realm_of(backend: EmulatorBackend | GeminiBackend) -> str:
    """`google` or `emulator`. A loopback endpoint is taken for an emulator unless `realm: google` says otherwise."""
    if isinstance(backend, EmulatorBackend):
        return "emulator"
    if backend.realm is not None:
        return backend.realm
    return "emulator" if backend.base_url and is_loopback(backend.base_url) else "google"

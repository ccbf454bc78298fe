"""Whose answers a backend gives. Known from the files alone, so that planning needs no network."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping

from batchform.spec.backends import Backend, EmulatorBackend, VertexBackend

BASE_URL_VARIABLE = "GOOGLE_GEMINI_BASE_URL"
VERTEX_URL_VARIABLE = "GOOGLE_VERTEX_BASE_URL"


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


def with_environment(backend: Backend, env: Mapping[str, str]) -> Backend:
    """The backend with the SDK's own base URL variable applied, so that realm and endpoint are settled at load time."""
    if isinstance(backend, EmulatorBackend):
        return backend
    url = env.get(VERTEX_URL_VARIABLE if isinstance(backend, VertexBackend) else BASE_URL_VARIABLE)
    return backend if backend.base_url or not url else backend.model_copy(update={"base_url": url})


def cloud_of(backend: Backend) -> str:
    """`gemini` or `vertex`: which API it speaks. Their answers are the same, their limits are not."""
    if isinstance(backend, EmulatorBackend):
        return backend.cloud
    return "vertex" if isinstance(backend, VertexBackend) else "gemini"


def resumes(backend: Backend) -> bool:
    """Whether a job there may go on with what one that was cut short has written."""
    return cloud_of(backend) == "vertex" and getattr(backend, "resume", "never") == "auto"


def realm_of(backend: Backend) -> str:
    """`google` or `emulator`. A loopback endpoint is taken for an emulator unless `realm: google` says otherwise."""
    if isinstance(backend, EmulatorBackend):
        return "emulator"
    if backend.realm is not None:
        return backend.realm
    return "emulator" if backend.base_url and is_loopback(backend.base_url) else "google"

"""How Vertex AI is reached: where, and with which credentials. What the project says, in one value."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

from batchform.adapters.gemini_environment import EMULATOR_KEY, KEY_HEADER
from batchform.errors import AuthError
from batchform.spec.backends import EmulatorBackend
from batchform.spec.backends import VertexBackend as VertexConfig
from batchform.spec.model import GoogleCloud
from batchform.spec.realm import is_loopback

if TYPE_CHECKING:
    from google.auth.credentials import Credentials

API_VERSION: Final = "v1beta1"


class Access:
    """Credentials for Vertex AI, found at the first call that needs them.

    api_key: in place of credentials; settings: `google_cloud` with what the backend says laid over it; endpoint: of an
    emulator that stands in for Cloud Storage and BigQuery too, or None.
    """

    def __init__(
        self,
        config: VertexConfig | EmulatorBackend,
        *,
        cloud: GoogleCloud,
        env: Mapping[str, str],
        base_url: str | None,
    ) -> None:
        self.api_key = ""
        self._lock = threading.Lock()
        self.endpoint: str | None = None
        self._static = isinstance(config, EmulatorBackend)
        self.settings = cloud
        if isinstance(config, EmulatorBackend):
            self.endpoint = base_url
            self.settings = cloud.model_copy(
                update={"project": config.project, "credentials": None, "impersonate": None}
            )
            return
        own = {"credentials": config.credentials, "impersonate": config.impersonate, "project": config.project}
        self.settings = cloud.model_copy(update={name: value for name, value in own.items() if value is not None})
        if config.api_key_env:
            self.api_key = _key(config.api_key_env, env)
        # What answers on this machine is no place for a real token, unless somebody says which.
        here = bool(config.base_url and is_loopback(config.base_url)) and config.realm != "google"
        self._static = here and not self.settings.credentials

    @property
    def emulated(self) -> bool:
        """Whether an emulator is asked, which takes any credentials and gets none that are real."""
        return self._static

    @cached_property
    def credentials(self) -> Credentials | None:
        """What the client is given; None with an API key. Raises AuthError."""
        if self.api_key:
            return None
        if self._static:
            from google.oauth2.credentials import Credentials

            return Credentials(token=EMULATOR_KEY)
        from batchform.adapters.google_credentials import find_credentials

        return find_credentials(self.settings).credentials

    def headers(self) -> dict[str, str]:
        """What a request must carry; a token that ended is renewed. Raises AuthError or google.auth's own errors."""
        if self.api_key:
            return {KEY_HEADER: self.api_key}
        found: Any = self.credentials
        if not found.valid and not self._static:
            from google.auth.transport.requests import Request

            with self._lock:
                if not found.valid:
                    found.refresh(Request())
        quota = getattr(found, "quota_project_id", None)
        return {"authorization": f"Bearer {found.token}", **({"x-goog-user-project": quota} if quota else {})}


def _key(variable: str, env: Mapping[str, str]) -> str:
    key = env.get(variable, "").strip()
    if not key:
        raise AuthError(f"There is no API key: {variable} is not set.", hint="Export it, or remove `api_key_env`.")
    if not (key.isascii() and key.isprintable()):
        raise AuthError(
            f"The API key in {variable} holds characters that no key has.", hint="Export it anew, as it was given."
        )
    return key

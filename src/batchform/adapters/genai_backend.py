"""What the two ways to Gemini have in common: one google-genai client with its retries off for what writes, one reader
of raw answers for what reads (gemini_http), and one call that makes a job.

Google's library is imported at the first call, so that building a backend costs nothing.
"""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any

import msgspec

from batchform.errors import BackendError, NotCreated, OutcomeUnknown
from batchform.ports import Caches, RemoteJob, StoredFiles

if TYPE_CHECKING:
    import ssl

    import httpx2
    from google import genai
    from google.genai import types

    from batchform.adapters.gemini_errors import Redactor
    from batchform.adapters.gemini_http import Fence, RawReader


class GenaiBackend(ABC):
    """The calls of ports.Backend that both services take alike.

    base_url: without the version, no slash at its end; timeout, settle: seconds, as configured; sleep, now: injected so
    that tests need not wait.
    """

    def __init__(
        self,
        *,
        realm: str,
        base_url: str,
        version: str,
        timeout: float,
        settle: float,
        sleep: Callable[[float], None],
        now: Callable[[], datetime],
    ) -> None:
        self.realm = realm
        self._base_url = base_url
        self._version = version
        self._timeout = timeout
        # A create call must have ended well before another runner may take it for lost: see run/settle.py.
        self._create_timeout = max(0.001, min(timeout, settle * 0.4))
        self._sleep = sleep
        self._now = now

    @property
    def stored(self) -> StoredFiles | None:
        return None

    @property
    def caches(self) -> Caches | None:
        return None

    @property
    def endpoint(self) -> str:
        """Where it is asked: scheme, host and path, without the version."""
        return self._base_url

    # --- what each service has of its own ------------------------------------------------------------------

    @property
    @abstractmethod
    def _secret(self) -> str:
        """The API key, if it is a secret: no message ever holds it."""

    @abstractmethod
    def _headers(self) -> Mapping[str, str]:
        """What makes a read ours."""

    @abstractmethod
    def _new_client(self, options: types.HttpOptions) -> genai.Client: ...

    @abstractmethod
    def _vendor_errors(self, doing: str) -> AbstractContextManager[None]:
        """Whatever the vendor's libraries raise comes out as a BackendError that starts with `doing`."""

    @abstractmethod
    def _create_outcome(self, error: Exception, doing: str) -> NotCreated | OutcomeUnknown: ...

    @abstractmethod
    def _model_id(self, model: str) -> str:
        """The model as the client takes it. Raises BackendError for what cannot be one."""

    @abstractmethod
    def _remote_job(self, raw: dict[str, Any]) -> RemoteJob: ...

    # --- clients, made at the first call -------------------------------------------------------------------

    @cached_property
    def _http(self) -> httpx2.Client:
        from batchform.adapters.gemini_http import open_client

        return open_client(
            base_url=self._base_url, timeout=self._timeout, realm=self.realm, fence=self._fence, tls=self._tls
        )

    @cached_property
    def _tls(self) -> ssl.SSLContext:
        from batchform.adapters.gemini_http import tls_context

        return tls_context(self._base_url)

    @cached_property
    def _fence(self) -> Fence:
        from batchform.adapters.gemini_http import Fence

        return Fence(self._now)

    @cached_property
    def _redact(self) -> Redactor:
        from batchform.adapters.gemini_errors import Redactor

        return Redactor(self._secret)

    @cached_property
    def _reader(self) -> RawReader:
        from batchform.adapters.gemini_http import RawReader

        root = f"{self._base_url}/{self._version}"
        return RawReader(self._http, root=root, headers=self._headers, errors=self._vendor_errors, sleep=self._sleep)

    @cached_property
    def _client(self) -> genai.Client:
        from google.genai import types

        with self._vendor_errors(f"Cannot set up the client of {self._base_url}"):
            return self._new_client(
                types.HttpOptions(
                    base_url=self._base_url,
                    api_version=self._version,
                    timeout=int(self._timeout * 1000),
                    httpx_client=self._http,
                    # The client makes contexts of its own, for calls that we never make, unless it is given one.
                    client_args={"verify": self._tls},
                    async_client_args={"verify": self._tls, "ssl": self._tls},
                )
            )

    def close(self) -> None:
        """Close what was opened."""
        for name in ("_client", "_http"):
            if name in self.__dict__:
                self.__dict__[name].close()

    # --- jobs ----------------------------------------------------------------------------------------------

    def _create(
        self,
        model: str,
        source: Any,
        *,
        tag: str,
        before: datetime | None,
        body: Mapping[str, Any],
        embeds: bool = False,
        **config: Any,
    ) -> str:
        """The name of a new job, made with one call.

        source: as the client takes it; body: what the client has no name for; embeds: by the call that embeddings have
        of their own; config: of the client. Raises NotCreated when there surely is no job, OutcomeUnknown when there
        may be one.
        """
        from batchform.adapters.gemini_http import TooLate

        doing = f"Creating job {tag}"
        try:
            model_id, client = self._model_id(model), self._client
        except BackendError as error:
            raise NotCreated(f"{doing}: {error.message}", hint=error.hint) from None
        options = {"retry_options": {"attempts": 1}, "timeout": int(self._create_timeout * 1000)}
        settings: Any = {"display_name": tag, "http_options": {**options, "extra_body": dict(body) or None}, **config}
        self._fence.before = before
        try:
            with warnings.catch_warnings():  # the SDK warns of states that it does not know, and of what is new in it
                warnings.simplefilter("ignore")
                create = client.batches.create_embeddings if embeds else client.batches.create
                job = create(model=model_id, src=source, config=settings)
        except TooLate:
            raise NotCreated(f"{doing}: it could not be sent before {before}.", hint="Run again.") from None
        except BackendError as error:  # an emulator answered in Google's place
            raise NotCreated(error.message, hint=error.hint) from None
        except Exception as error:  # noqa: BLE001  (whatever the SDK makes of the answer, a job may exist)
            raise self._create_outcome(error, doing) from None
        finally:
            self._fence.before = None
        if not job.name:
            raise OutcomeUnknown(f"{doing}: the service said yes but named no job.")
        return job.name

    def get(self, job: str) -> RemoteJob:
        return self._remote_job(self._reader.json(job, doing=f"Looking up job {job}"))

    def cancel(self, job: str) -> None:
        with self._vendor_errors(f"Cancelling job {job}"):
            self._client.batches.cancel(name=job)

    def delete(self, job: str) -> None:
        with self._vendor_errors(f"Deleting job {job}"):
            self._client.batches.delete(name=job)

    @abstractmethod
    def _countable(self, model: str, request: dict[str, Any], *, task: str) -> tuple[str, dict[str, Any]]:
        """The path and the body that have a request counted. Raises BackendError for what is not counted."""

    def count_tokens(self, model: str, request: bytes, *, task: str = "generate") -> int:
        # Not through the client: for the Gemini API it refuses all that a request has besides its contents.
        path, body = self._countable(self._model_id(model), msgspec.json.decode(request), task=task)
        doing = f"Counting tokens for {model}"
        tokens = self._reader.answer(f"{path}:countTokens", body, doing=doing).get("totalTokens", 0)
        if not isinstance(tokens, int) or tokens < 0:
            raise BackendError(f"{doing}: the answer is no number of tokens.", hint="Plan without --count.")
        return tokens

    @abstractmethod
    def _embed(self, model: str, request: dict[str, Any]) -> dict[str, Any]:
        """The answer to one request for an embedding, at once."""

    def generate(self, model: str, request: bytes, *, task: str = "generate") -> dict[str, Any]:
        body = msgspec.json.decode(request)
        if task == "embed":
            with self._vendor_errors(f"Asking {model}"):
                return self._embed(self._model_id(model), body)
        with self._vendor_errors(f"Asking {model}"):
            answer = self._client.models.generate_content(
                model=self._model_id(model),
                contents="replaced by extra_body",
                config={"should_return_http_response": True, "http_options": {"extra_body": body}},
            )
            raw = answer.sdk_http_response.body if answer.sdk_http_response else None
            decoded = msgspec.json.decode(raw) if raw else None
        if not isinstance(decoded, dict):
            raise BackendError(f"Asking {model}: the answer is not a JSON object.", hint="Run again.")
        return decoded

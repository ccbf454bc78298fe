"""Vertex AI, and its emulator, as a Backend.

Writes go through the unmodified google-genai client with its retries off; reads take the raw answer (gemini_http).
Inputs and results lie in Cloud Storage (vertex_objects) or in BigQuery (vertex_tables). Google's libraries are imported
at the first call.

A job is seen by whoever may see the jobs of its project and location, whichever credentials made it: so those two, and
not the credentials, are what the fingerprint tells apart.
"""

from __future__ import annotations

import re
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from batchform import canon
from batchform.adapters import vertex_wire as wire
from batchform.adapters.vertex_access import API_VERSION, Access
from batchform.errors import BackendError, NotCreated, NotFound, OutcomeUnknown
from batchform.ports import BackendLimits, RemoteJob, Staged
from batchform.spec.backends import EmulatorBackend
from batchform.spec.backends import VertexBackend as VertexConfig
from batchform.spec.model import GoogleCloud

if TYPE_CHECKING:
    import ssl

    import httpx2
    from google import genai

    from batchform.adapters.gemini_errors import Redactor
    from batchform.adapters.gemini_http import Fence, RawReader
    from batchform.adapters.vertex_objects import ObjectStaging
    from batchform.adapters.vertex_tables import TableStaging

MAX_ROWS: Final = 200_000
MAX_BYTES: Final = 1_000_000_000
_MODEL_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]*")
_OURS: Final = 'display_name:"bf-*"'


class VertexBackend:
    """ports.Backend over google-genai in a project and location. Raises AuthError at once when a named key is not set.

    realm: whose answers these are; cloud: `google_cloud` of the project; base_url: in place of the configured endpoint;
    place: in place of the configured project and location.
    """

    def __init__(
        self,
        config: VertexConfig | EmulatorBackend,
        *,
        cloud: GoogleCloud,
        env: Mapping[str, str],
        realm: str,
        base_url: str | None = None,
        place: wire.Place | None = None,
        sleep: Callable[[float], None] = time.sleep,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.realm = realm
        self.limits = BackendLimits(
            max_rows_per_job=min(config.max_rows_per_job, MAX_ROWS),
            max_bytes_per_job=min(config.max_bytes_per_job, MAX_BYTES),
            inline_bytes=0,
        )
        self._where = place or wire.Place(config.project, config.location)
        self.place = str(self._where)
        configured = config.url if isinstance(config, EmulatorBackend) else config.base_url
        self._base_url = (base_url or configured or self._where.endpoint).rstrip("/")
        self._config, self._cloud, self._env, self._given_url = config, cloud, env, base_url
        self._version = (config.api_version if isinstance(config, VertexConfig) else None) or API_VERSION
        self._access = Access(config, cloud=cloud, env=env, base_url=self._base_url)
        self._timeout = config.timeout
        # A create call must have ended well before another runner may take it for lost: see run/settle.py.
        self._create_timeout = max(0.001, min(config.timeout, config.settle * 0.4))
        self._sleep = sleep
        self._now = now
        self._elsewhere: dict[wire.Place, VertexBackend] = {}
        embedded = isinstance(config, EmulatorBackend) and not configured
        identity = {"kind": config.type, "cloud": "vertex", "endpoint": configured or ("embedded" if embedded else "")}
        self.fingerprint = canon.digest_of("backend", {**identity, "place": self.place})

    @property
    def endpoint(self) -> str:
        """Where it is asked: scheme, host and path, without the version."""
        return self._base_url

    @property
    def access(self) -> Access:
        """How it is reached: credentials, and what stands in for Google."""
        return self._access

    def __repr__(self) -> str:
        return f"VertexBackend({self._base_url}, {self.place}, realm={self.realm})"

    def at(self, place: str) -> VertexBackend:
        where = wire.place(place)
        if where is None or where == self._where:
            return self
        if where not in self._elsewhere:
            self._elsewhere[where] = VertexBackend(
                self._config, cloud=self._cloud, env=self._env, realm=self.realm, base_url=self._given_url, place=where,
                sleep=self._sleep, now=self._now,
            )  # fmt: skip
        return self._elsewhere[where]

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

        return Redactor(self._access.api_key)

    @cached_property
    def _reader(self) -> RawReader:
        from batchform.adapters.gemini_http import RawReader

        root = f"{self._base_url}/{self._version}"
        return RawReader(
            self._http, root=root, headers=self._access.headers, errors=self._vendor_errors, sleep=self._sleep
        )

    @cached_property
    def _client(self) -> genai.Client:
        from google import genai
        from google.genai import types

        with self._vendor_errors("Cannot set up the client of Vertex AI"):
            return genai.Client(
                vertexai=True,
                project=self._where.project,
                location=self._where.location,
                credentials=self._access.credentials,
                api_key=self._access.api_key or None,
                http_options=types.HttpOptions(
                    base_url=self._base_url,
                    api_version=self._version,
                    timeout=int(self._timeout * 1000),
                    httpx_client=self._http,
                    client_args={"verify": self._tls},
                    async_client_args={"verify": self._tls, "ssl": self._tls},
                ),
            )

    @cached_property
    def _objects(self) -> ObjectStaging:
        from batchform.adapters.vertex_objects import ObjectStaging

        staging = self._config.staging or "gs://unset"
        return ObjectStaging(self._access, staging, location=self._where.location, timeout=self._timeout)

    @cached_property
    def _tables(self) -> TableStaging:
        from batchform.adapters.vertex_tables import TableStaging

        return TableStaging(
            self._access, self._config.dataset or "unset", project=self._where.project, location=self._where.location,
            env=self._env,
        )  # fmt: skip

    def _staging(self, name: str) -> ObjectStaging | TableStaging:
        """What holds an input or results of this name."""
        return self._tables if name.startswith(wire.BQ) else self._objects

    def _vendor_errors(self, doing: str) -> AbstractContextManager[None]:
        from batchform.adapters.vertex_errors import vendor_errors

        return vendor_errors(doing, self._redact, self._access.settings)

    def close(self) -> None:
        for other in self._elsewhere.values():
            other.close()
        for name in ("_client", "_http", "_objects", "_tables"):
            if name in self.__dict__:
                self.__dict__[name].close()

    # --- submission ----------------------------------------------------------------------------------------

    def check_model(self, model: str) -> None:
        """Counting the tokens of a word costs nothing, and says whether the model answers in this location."""
        _check_id(model)
        try:
            with self._vendor_errors(f"Looking up model {model} in {self._where.location}"):
                self._client.models.count_tokens(model=model, contents="batchform")
        except NotFound as error:
            raise BackendError(
                f"Vertex AI does not know model {model!r} in {self.place} ({error.message}).",
                hint="Check the name in the spec, and `location` of the backend: some models answer in `global` only.",
                status=error.status,
            ) from None
        except BackendError as error:
            if error.status != 400:  # a model that counts no tokens may take batches all the same
                raise

    def stage(self, path: Path, *, digest: str, tag: str, mode: str) -> Staged:
        if mode != "file":
            raise BackendError(f"Vertex AI takes no inline input ({tag}).", hint="Use `submit: file` in the spec.")
        staging = self._tables if self._config.via == "bigquery" else self._objects
        return Staged(path=path, name=staging.put(path, digest=digest, tag=tag))

    def create(
        self,
        *,
        model: str,
        tag: str,
        staged: Staged,
        before: datetime | None = None,
        labels: Mapping[str, str] | None = None,
    ) -> str:
        from batchform.adapters.gemini_http import TooLate
        from batchform.adapters.vertex_errors import create_outcome

        doing = f"Creating job {tag}"
        client = self._ready_or_not_created(model, doing)
        assert staged.name is not None
        source, target = self._source(staged.name), self._target(staged.name, tag)
        own = wire.labels(getattr(self._config, "labels", {}), labels or {})
        options: dict[str, Any] = {
            "retry_options": {"attempts": 1},
            "timeout": int(self._create_timeout * 1000),
            "extra_body": {"labels": own},
        }
        config: Any = {"display_name": tag, "dest": target, "http_options": options}
        self._fence.before = before
        try:
            with warnings.catch_warnings():  # the SDK warns of states that it does not know
                warnings.simplefilter("ignore")
                job = client.batches.create(model=model, src=source, config=config)
        except TooLate:
            raise NotCreated(f"{doing}: it could not be sent before {before}.", hint="Run again.") from None
        except BackendError as error:  # an emulator answered in Google's place
            raise NotCreated(error.message, hint=error.hint) from None
        except Exception as error:  # noqa: BLE001  (whatever the SDK makes of the answer, a job may exist)
            raise create_outcome(error, doing, self._redact, self._access.settings) from None
        finally:
            self._fence.before = None
        if not job.name:
            raise OutcomeUnknown(f"{doing}: the service said yes but named no job.")
        return job.name

    def _ready_or_not_created(self, model: str, doing: str) -> genai.Client:
        try:
            _check_id(model)
            client = self._client
        except BackendError as error:
            raise NotCreated(f"{doing}: {error.message}", hint=error.hint) from None
        return client

    def _source(self, name: str) -> Any:
        if name.startswith(wire.BQ):
            return {"format": "bigquery", "bigquery_uri": name}
        return {"format": "jsonl", "gcs_uri": [name]}

    def _target(self, name: str, tag: str) -> dict[str, str]:
        """Results go where inputs are, to a place of the job's own."""
        at = self._staging(name).results_at(tag)
        if at.startswith(wire.BQ):
            return {"format": "bigquery", "bigquery_uri": at}
        return {"format": "jsonl", "gcs_uri": at}

    def delete_input(self, name: str) -> None:
        self._staging(name).delete(name)

    # --- jobs ----------------------------------------------------------------------------------------------

    def get(self, job: str) -> RemoteJob:
        return wire.remote_job(self._reader.json(job, doing=f"Looking up job {job}"))

    def list_jobs(self) -> Iterator[RemoteJob]:
        """All jobs of this project and location whose names can be ours: each job has one, which is its tag."""
        path, doing = f"{self.place}/batchPredictionJobs", f"Listing jobs of {self.place}"
        for page in self._reader.pages(path, doing=doing, params={"filter": _OURS}):
            jobs = page.get("batchPredictionJobs") or []
            for job in jobs if isinstance(jobs, list) else []:
                if isinstance(job, dict):
                    yield wire.remote_job(job)

    def download(self, job: RemoteJob, to: Path) -> int:
        if job.results is None:
            raise NotFound(f"Job {job.name} has no results.")
        return self._staging(job.results).fetch(job, to)

    def cancel(self, job: str) -> None:
        with self._vendor_errors(f"Cancelling job {job}"):
            self._client.batches.cancel(name=job)

    def delete(self, job: str) -> None:
        with self._vendor_errors(f"Deleting job {job}"):
            self._client.batches.delete(name=job)

    def generate(self, model: str, request: bytes) -> dict[str, Any]:
        body = msgspec.json.decode(request)
        with self._vendor_errors(f"Asking {model}"):
            answer = self._client.models.generate_content(
                model=model,
                contents="replaced by extra_body",
                config={"should_return_http_response": True, "http_options": {"extra_body": body}},
            )
            raw = answer.sdk_http_response.body if answer.sdk_http_response else None
            decoded = msgspec.json.decode(raw) if raw else None
        if not isinstance(decoded, dict):
            raise BackendError(f"Asking {model}: the answer is not a JSON object.", hint="Run again.")
        return decoded


def _check_id(model: str) -> None:
    if not _MODEL_ID.fullmatch(model):
        raise BackendError(f"{model!r} is not a model id of Vertex AI.", hint="Write it like gemini-3.5-flash-lite.")

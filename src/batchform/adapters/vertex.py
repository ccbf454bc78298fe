"""Vertex AI, and its emulator, as a Backend.

What it shares with the Gemini API is in genai_backend. Inputs and results lie in Cloud Storage (vertex_objects) or in
BigQuery (vertex_tables).

A job is seen by whoever may see the jobs of its project and location, whichever credentials made it: so those two, and
not the credentials, are what the fingerprint tells apart.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from batchform import canon
from batchform.adapters import vertex_wire as wire
from batchform.adapters.genai_backend import GenaiBackend
from batchform.adapters.vertex_access import API_VERSION, Access
from batchform.errors import BackendError, NotCreated, NotFound, OutcomeUnknown
from batchform.ports import File, Placed, RemoteJob, Staged, StoredFiles
from batchform.spec.backends import EmulatorBackend
from batchform.spec.backends import VertexBackend as VertexConfig
from batchform.spec.model import GoogleCloud

if TYPE_CHECKING:
    from google import genai
    from google.genai import types

    from batchform.adapters.vertex_objects import ObjectStaging
    from batchform.adapters.vertex_tables import TableStaging

_MODEL_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]*")
_OURS: Final = 'display_name:"bf-*"'


_COUNTED: Final = ("contents", "systemInstruction", "tools", "generationConfig")
"""Fields of a request that are counted; the call knows no others."""


class VertexBackend(GenaiBackend):
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
        self._where = place or wire.Place(config.project, config.location)
        self.place = str(self._where)
        configured = config.url if isinstance(config, EmulatorBackend) else config.base_url
        super().__init__(
            realm=realm,
            base_url=(base_url or configured or self._where.endpoint).rstrip("/"),
            version=(config.api_version if isinstance(config, VertexConfig) else None) or API_VERSION,
            timeout=config.timeout,
            settle=config.settle,
            sleep=sleep,
            now=now,
        )
        self._config, self._cloud, self._env, self._given_url = config, cloud, env, base_url
        self._access = Access(config, cloud=cloud, env=env, base_url=self._base_url)
        self._elsewhere: dict[wire.Place, VertexBackend] = {}
        embedded = isinstance(config, EmulatorBackend) and not configured
        identity = {"kind": config.type, "cloud": "vertex", "endpoint": configured or ("embedded" if embedded else "")}
        self.fingerprint = canon.digest_of("backend", {**identity, "place": self.place})

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

    # --- how the service is asked --------------------------------------------------------------------------

    @property
    def _secret(self) -> str:
        return self._access.api_key

    def _headers(self) -> dict[str, str]:
        return self._access.headers()

    def _new_client(self, options: types.HttpOptions) -> genai.Client:
        from google import genai

        return genai.Client(
            vertexai=True,
            project=self._where.project,
            location=self._where.location,
            credentials=self._access.credentials,
            api_key=self._access.api_key or None,
            http_options=options,
        )

    def _vendor_errors(self, doing: str) -> AbstractContextManager[None]:
        from batchform.adapters.vertex_errors import vendor_errors

        return vendor_errors(doing, self._redact, self._access.settings)

    def _create_outcome(self, error: Exception, doing: str) -> NotCreated | OutcomeUnknown:
        from batchform.adapters.vertex_errors import create_outcome

        return create_outcome(error, doing, self._redact, self._access.settings)

    def _model_id(self, model: str) -> str:
        if not _MODEL_ID.fullmatch(model):
            raise BackendError(
                f"{model!r} is not a model id of Vertex AI.", hint="Write it like gemini-3.5-flash-lite.", status=400
            )
        return model

    def _remote_job(self, raw: dict[str, Any]) -> RemoteJob:
        return wire.remote_job(raw)

    def close(self) -> None:
        for other in self._elsewhere.values():
            other.close()
        super().close()
        for name in ("_objects", "_tables"):
            if name in self.__dict__:
                self.__dict__[name].close()

    # --- where inputs and results lie ----------------------------------------------------------------------

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

    @property
    def stored(self) -> StoredFiles:
        return self._objects

    def _staging(self, name: str) -> ObjectStaging | TableStaging:
        """What holds an input or results of this name."""
        return self._tables if name.startswith(wire.BQ) else self._objects

    # --- submission ----------------------------------------------------------------------------------------

    def check_model(self, model: str, *, task: str = "generate") -> None:
        """Counting the tokens of a word costs nothing, and says whether the model answers in this location. What makes
        embeddings may count none: creating the job says whether there is such a model."""
        model_id = self._model_id(model)
        if task == "embed":
            return
        try:
            with self._vendor_errors(f"Looking up model {model} in {self._where.location}"):
                self._client.models.count_tokens(model=model_id, contents="batchform")
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
        if mode == "inline":
            raise BackendError(
                f"Vertex AI takes no inline input ({tag}).", hint="Use `submit: file` in the spec.", status=400
            )
        staging = self._tables if self._config.via == "bigquery" else self._objects
        return Staged(path=path, name=staging.put(path, digest=digest, tag=tag))

    def place_file(self, file: File) -> Placed:
        if not self._config.staging:
            raise BackendError(
                "Files that go with requests need a bucket, and the backend has none.",
                hint="Set `staging: gs://BUCKET/FOLDER` on the backend.",
                status=400,
            )
        return Placed(self._objects.place(file))

    def stage_results(self, job: RemoteJob, *, results: Path, lines: Path) -> Staged | None:
        if job.results is None or job.results.startswith(wire.BQ) != (self._config.via == "bigquery"):
            return None
        names = self._staging(job.results).still_there(job, results=results, lines=lines)
        return Staged(path=lines, name=names[0], more=names[1:]) if names else None

    def create(
        self,
        *,
        model: str,
        tag: str,
        staged: Staged,
        before: datetime | None = None,
        labels: Mapping[str, str] | None = None,
        task: str = "generate",  # noqa: ARG002  (embeddings have no call of their own)
    ) -> str:
        assert staged.name is not None
        own = wire.labels(getattr(self._config, "labels", {}), labels or {})
        dest = self._target(staged.name, tag)
        source = self._source(staged.name, *staged.more)
        return self._create(model, source, tag=tag, before=before, body={"labels": own}, dest=dest)

    def _source(self, name: str, *more: str) -> Any:
        if name.startswith(wire.BQ):
            return {"format": "bigquery", "bigquery_uri": name}
        return {"format": "jsonl", "gcs_uri": [name, *more]}

    def _target(self, name: str, tag: str) -> dict[str, str]:
        """Results go where inputs are, to a place of the job's own."""
        at = self._staging(name).results_at(tag)
        if at.startswith(wire.BQ):
            return {"format": "bigquery", "bigquery_uri": at}
        return {"format": "jsonl", "gcs_uri": at}

    def _countable(self, model: str, request: dict[str, Any], *, task: str) -> tuple[str, dict[str, Any]]:
        if task == "embed":
            raise BackendError("Vertex AI counts no tokens of what is to be embedded.", hint="Plan without --count.")
        name = f"projects/{self._where.project}/locations/{self._where.location}/publishers/google/models/{model}"
        return name, {field: request[field] for field in _COUNTED if field in request}

    def _embed(self, model: str, request: dict[str, Any]) -> dict[str, Any]:
        said = {**request, "embedContentConfig": request.get("embed_content_config", {})}
        said.pop("embed_content_config", None)
        answer = self._client.models.embed_content(
            model=model, contents="replaced by extra_body", config={"http_options": {"extra_body": said}}
        )
        return {"embeddings": [{"values": e.values} for e in answer.embeddings or ()]}

    def delete_input(self, name: str) -> None:
        self._staging(name).delete(name)

    # --- jobs ----------------------------------------------------------------------------------------------

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

    def download_foreign(self, job: RemoteJob, to: Path, *, requests: Path) -> None:
        requests.write_bytes(b"")  # each result has its request beside it
        if job.results is not None and job.results.startswith(wire.BQ):
            self._tables.fetch_asked(job, to)
        else:
            self.download(job, to)

    def input_digest(self, job: RemoteJob) -> str:  # noqa: ARG002
        """ "": no result needs it."""
        return ""

"""The Gemini Developer API, and its emulator, as a Backend.

What it shares with Vertex AI is in genai_backend. Inputs are files of the service, or go within the create call.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from batchform import canon
from batchform.adapters import gemini_wire as wire
from batchform.adapters.gemini_environment import EMULATOR_KEY, KEY_HEADER, api_version, find_api_key
from batchform.adapters.genai_backend import GenaiBackend
from batchform.errors import AuthError, BackendError, NotCreated, NotFound, OutcomeUnknown
from batchform.ports import File, Placed, RemoteJob, ServedModel, Staged
from batchform.spec.model import EmulatorBackend
from batchform.spec.model import GeminiBackend as GeminiConfig

if TYPE_CHECKING:
    from google import genai
    from google.genai import types

    from batchform.adapters.gemini_caches import GeminiCaches
    from batchform.adapters.gemini_files import Files

GOOGLE_URL: Final = "https://generativelanguage.googleapis.com"
# A job may wait a day before it reads its input, so an input is only used again while it is nearly new.
INPUT_LIFE: Final = timedelta(hours=48)
REUSE_WITHIN: Final = timedelta(hours=1)
MIME_TYPES: Final = ("jsonl", "application/jsonl")
_MODEL_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_INPUT_NAMES: Final = 9
_TORN_DOWNLOADS: Final = 3


class GeminiBackend(GenaiBackend):
    """ports.Backend over google-genai. Raises AuthError at once when there is no API key.

    realm: whose answers these are; base_url: in place of the configured endpoint.
    """

    def __init__(
        self,
        config: GeminiConfig | EmulatorBackend,
        *,
        env: Mapping[str, str],
        realm: str,
        base_url: str | None = None,
        api_key: str | None = None,
        sleep: Callable[[float], None] = time.sleep,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.place = ""
        configured = config.url if isinstance(config, EmulatorBackend) else config.base_url
        super().__init__(
            realm=realm,
            base_url=(base_url or configured or GOOGLE_URL).rstrip("/"),
            version=api_version(config, env),
            timeout=config.timeout,
            settle=config.settle,
            sleep=sleep,
            now=now,
        )
        self._key = api_key or find_api_key(config, env)
        self.fingerprint = canon.digest_of("backend", self._identity(config, configured))

    def __repr__(self) -> str:
        return f"GeminiBackend({self._base_url}, realm={self.realm})"

    def _identity(self, config: GeminiConfig | EmulatorBackend, configured: str | None) -> dict[str, str]:
        """What decides which jobs are seen. The embedded emulator's port changes, its jobs do not."""
        embedded = isinstance(config, EmulatorBackend) and not configured
        return {
            "kind": config.type,
            "endpoint": "embedded" if embedded else self._base_url,
            "key": canon.digest(self._key.encode()),
        }

    # --- how the service is asked ------------------------------------------------------------------------------

    @property
    def _secret(self) -> str:
        return "" if self._key == EMULATOR_KEY else self._key  # an ordinary word, and no secret

    def _headers(self) -> dict[str, str]:
        return {KEY_HEADER: self._key}

    def _new_client(self, options: types.HttpOptions) -> genai.Client:
        from google import genai

        return genai.Client(vertexai=False, api_key=self._key, http_options=options)

    def _vendor_errors(self, doing: str) -> AbstractContextManager[None]:
        from batchform.adapters.gemini_errors import vendor_errors

        return vendor_errors(doing, self._redact)

    def _create_outcome(self, error: Exception, doing: str) -> NotCreated | OutcomeUnknown:
        from batchform.adapters.gemini_errors import create_outcome

        return create_outcome(error, doing, self._redact)

    def _model_id(self, model: str) -> str:
        bare = model.removeprefix("models/")
        if not _MODEL_ID.fullmatch(bare):
            raise BackendError(
                f"{model!r} is not a model id of the Gemini API.", hint="Write it like gemini-3.5-flash-lite."
            )
        return bare

    def _remote_job(self, raw: dict[str, Any]) -> RemoteJob:
        return wire.remote_job(raw)

    # --- submission ----------------------------------------------------------------------------------------

    def check_model(self, model: str, *, task: str = "generate") -> None:
        try:
            found = self._reader.json(f"models/{self._model_id(model)}", doing=f"Looking up model {model}")
        except NotFound as error:
            raise BackendError(
                f"The service does not know model {model!r} ({error.message}).",
                hint="Check the name in the spec; it may have been shut down.",
                status=error.status,
            ) from None
        methods = wire.methods(found)
        wanted = wire.EMBED_METHOD if task == "embed" else wire.BATCH_METHOD
        if wanted not in methods:
            kind, can = "embeddings" if task == "embed" else "requests", ", ".join(map(str, methods)) or "nothing"
            raise BackendError(
                f"Model {model!r} takes no batches of {kind}: it supports {can}.",
                hint="Choose another model in the spec; if it took batches before, run again in a while.",
            )

    def models(self) -> Iterator[ServedModel]:
        """All models that the key may use, as the service lists them."""
        for page in self._reader.pages("models", doing="Listing models"):
            for raw in page.get("models") or []:
                if isinstance(raw, dict):
                    yield wire.served_model(raw)

    def stage(self, path: Path, *, digest: str, tag: str, mode: str) -> Staged:
        if mode == "inline":
            return Staged(path=path, name=None)
        content = canon.file_digest(path).rpartition(":")[2]
        for name in _input_names(digest):
            known = self._input(name)
            if known is None:
                uploaded = self._upload(path, name=name, tag=tag)
                return self._ready(path, uploaded, content)
            if self._reusable(known, content):
                return self._ready(path, known, content)
        raise BackendError(
            f"All {_INPUT_NAMES} names of the input of {tag} are taken by other files.",
            hint="Run again in an hour; files of the service expire by themselves after 48 hours.",
        )

    def place_file(self, file: File) -> Placed:
        return self._files.place(file)

    @cached_property
    def _files(self) -> Files:
        from batchform.adapters.gemini_files import Files

        return Files(
            reader=lambda: self._reader, client=lambda: self._client, errors=self._vendor_errors, sleep=self._sleep,
            now=self._now,
        )  # fmt: skip

    @cached_property
    def _contexts(self) -> GeminiCaches:
        from batchform.adapters.gemini_caches import GeminiCaches

        return GeminiCaches(client=lambda: self._client, errors=self._vendor_errors, version=self._version)

    @property
    def caches(self) -> GeminiCaches:
        return self._contexts

    def at(self, place: str) -> GeminiBackend:  # noqa: ARG002  (its jobs have no place)
        return self

    def stage_results(self, job: RemoteJob, *, results: Path, lines: Path) -> Staged | None:  # noqa: ARG002
        """None: the Gemini API does not go on with a job."""
        return None

    def create(
        self,
        *,
        model: str,
        tag: str,
        staged: Staged,
        before: datetime | None = None,
        labels: Mapping[str, str] | None = None,  # noqa: ARG002  (the service keeps none)
        task: str = "generate",
    ) -> str:
        if task == "embed":
            return self._create(model, {"file_name": staged.name}, tag=tag, before=before, body={}, embeds=True)
        if staged.name is not None:
            return self._create(model, staged.name, tag=tag, before=before, body={})
        with staged.path.open("rb") as lines:
            body = wire.inline_body(lines)
        return self._create(model, [], tag=tag, before=before, body=body)

    # --- inputs --------------------------------------------------------------------------------------------

    def _input(self, name: str) -> dict[str, Any] | None:
        """The File of this name, no longer PROCESSING; None if there is none (the service says 403)."""
        from batchform.adapters.gemini_files import find_file

        return find_file(
            self._reader, name, doing=f"Looking up input {name}", sleep=self._sleep, every=1.0, seconds=60.0,
            hint="Run again in a while.",
        )  # fmt: skip

    def _reusable(self, file: dict[str, Any], content: str) -> bool:
        expires = wire.parse_time(file.get("expirationTime"))
        fresh = expires is None or expires - self._now() > INPUT_LIFE - REUSE_WITHIN
        return fresh and file.get("state") == "ACTIVE" and wire.sha256_matches(str(file.get("sha256Hash", "")), content)

    def _ready(self, path: Path, file: dict[str, Any], content: str) -> Staged:
        name = str(file.get("name"))
        if file.get("state", "ACTIVE") != "ACTIVE":
            raise BackendError(f"Input {name} is {file.get('state')} after the upload.", hint="Run again.")
        stated = file.get("sha256Hash")
        if stated and not wire.sha256_matches(str(stated), content):
            self.delete_input(name)
            raise BackendError(
                f"Input {name} arrived damaged: its digest is not that of {path.name}.", hint="Run again."
            )
        return Staged(path=path, name=name, expires_at=wire.parse_time(file.get("expirationTime")))

    def _upload(self, path: Path, *, name: str, tag: str) -> dict[str, Any]:
        """Upload under a chosen name. If another runner was first with the same bytes, theirs is ours."""
        doing = f"Uploading the input of {tag}"
        for mime_type in MIME_TYPES:
            try:
                with self._vendor_errors(doing):
                    self._client.files.upload(
                        file=path,
                        config={
                            "name": name,
                            "mime_type": mime_type,
                            "display_name": tag,
                            "http_options": {"retry_options": {"attempts": 1}},
                        },
                    )
                break
            except BackendError as error:
                if error.status == 409 or "already exists" in error.message.lower():
                    break
                if mime_type == MIME_TYPES[-1] or not (error.status == 400 and "mime" in error.message.lower()):
                    raise
        found = self._input(name)
        if found is None:
            raise BackendError(f"{doing}: the service took the file but does not show it.", hint="Run again.")
        return found

    def delete_input(self, name: str) -> None:
        try:
            with self._vendor_errors(f"Deleting input {name}"):
                self._client.files.delete(name=name)
        except (NotFound, AuthError) as error:
            if error.status not in (403, 404):
                raise

    def _countable(self, model: str, request: dict[str, Any], *, task: str) -> tuple[str, dict[str, Any]]:
        name = f"models/{model}"
        if task == "embed":
            return name, {"contents": [request["content"]]}
        return name, {"generateContentRequest": {"model": name, **request}}

    def _embed(self, model: str, request: dict[str, Any]) -> dict[str, Any]:
        body = {"requests": [{"model": f"models/{model}", **request}]}
        answer = self._client.models.embed_content(
            model=model, contents="replaced by extra_body", config={"http_options": {"extra_body": body}}
        )
        return {"embeddings": [{"values": e.values} for e in answer.embeddings or ()]}

    # --- jobs ----------------------------------------------------------------------------------------------

    def list_jobs(self) -> Iterator[RemoteJob]:
        for page in self._reader.pages("batches", doing="Listing jobs"):
            operations = page.get("operations") or page.get("batches") or []
            for operation in operations if isinstance(operations, list) else []:
                if isinstance(operation, dict):
                    yield wire.remote_job(operation)

    def download(self, job: RemoteJob, to: Path) -> int:
        if job.results is None:
            raise NotFound(f"Job {job.name} has no results.")
        doing = f"Downloading the results of {job.name}"
        if job.inline_results:
            operation = self._reader.json(job.name, doing=doing)
            with to.open("wb") as f:
                return sum(f.write(line) for line in wire.inline_result_lines(operation))
        try:
            return self._download_whole(f"{job.results}:download", to, doing)
        except AuthError as error:
            if error.status != 403:
                raise
            raise NotFound(error.message, status=403) from None  # how the service says that a file is gone

    def download_foreign(self, job: RemoteJob, to: Path, *, requests: Path) -> None:
        requests.write_bytes(b"")
        if not job.inline_results:
            self.download(job, to)  # what was uploaded is not given back: only generated files can be downloaded
            return
        found = wire.inline_lines(self._reader.json(job.name, doing=f"Downloading the results of {job.name}"))
        for path, lines in zip((to, requests), found, strict=True):
            with path.open("wb") as out:
                out.writelines(lines)

    def input_digest(self, job: RemoteJob) -> str:
        return wire.sha256_of(self._input(job.input_name)) if job.input_name else ""

    def _download_whole(self, path: str, to: Path, doing: str) -> int:
        """A file that ends within a line may have been cut on its way, where no length was announced. What stays torn
        is torn at the service, and counts as it is."""
        for _ in range(_TORN_DOWNLOADS):
            written = self._reader.to_file(path, to, doing=doing)
            if wire.ends_whole(to):
                break
        return written


def _input_names(digest: str) -> Iterator[str]:
    """Names for an input, at most 40 of [a-z0-9-]; the later ones serve when earlier files are too old."""
    stem = "bf-" + canon.short(digest, 32)
    yield f"files/{stem}"
    for n in range(2, _INPUT_NAMES + 1):
        yield f"files/{stem}-{n}"

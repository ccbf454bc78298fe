"""What tests of the emulator's Vertex AI share: a bucket, a job's way through Google's client, its results."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from emulator_kit import JOB_SECONDS, MODEL, request_of
from google import genai
from google.oauth2.credentials import Credentials

from batchform.emulator import EmulatorServer
from batchform.emulator.storage.objects import ObjectStore

LOCATION = "us-central1"
PARENT = f"projects/acme/locations/{LOCATION}"
Connect = Callable[..., genai.Client]


def vertex_client(url: str, project: str = "acme", location: str = LOCATION, token: str = "x") -> genai.Client:
    """An unmodified client with dummy credentials."""
    options = {"base_url": url}
    credentials = Credentials(token=token)  # type: ignore[no-untyped-call]
    return genai.Client(
        vertexai=True, project=project, location=location, credentials=credentials, http_options=options
    )


def keyed(texts: Mapping[str, str], **config: Any) -> list[dict[str, Any]]:
    """Lines of a JSONL input, by key."""
    return [{"key": key, "request": request_of(text, **config)} for key, text in texts.items()]


class Bench:
    """A client, a bucket next to it, and what most tests do with them."""

    def __init__(self, server: EmulatorServer, client: genai.Client, objects: ObjectStore) -> None:
        self.server, self.client, self.objects = server, client, objects

    def put(self, lines: Sequence[Mapping[str, Any]] | bytes, uri: str = "gs://acme/in/rows.jsonl") -> str:
        body = lines if isinstance(lines, bytes) else b"".join(json.dumps(line).encode() + b"\n" for line in lines)
        bucket, _, name = uri.removeprefix("gs://").partition("/")
        with self.objects.writing(bucket, name) as out:
            out.write(body)
        return uri

    def create(
        self,
        lines: Sequence[Mapping[str, Any]] | bytes | None = None,
        *,
        src: str | list[str] = "gs://acme/in/rows.jsonl",
        dest: str = "gs://acme/out",
        name: str = "tag",
        model: str = MODEL,
        **body: Any,
    ) -> Any:
        """A job on these lines (or on what is there). body: fields that Google's client has no parameter for."""
        if lines is not None:
            self.put(lines)
        config = {"display_name": name, "dest": dest}
        source = src if isinstance(src, str) else {"gcs_uri": src, "format": "jsonl"}
        return self.client.batches.create(
            model=model, src=source, config={**config, **({"http_options": {"extra_body": body}} if body else {})}
        )

    def ended(self, job: Any, seconds: float = JOB_SECONDS) -> Any:
        """The job, as it is when its time is over."""
        self.server.advance(seconds)
        return self.client.batches.get(name=job.name)

    def files(self, job: Any) -> dict[str, bytes]:
        """A job's results, by the names of their files."""
        bucket, _, prefix = job.output_info.gcs_output_directory.removeprefix("gs://").partition("/")
        found = {}
        for info in self.objects.list(bucket, prefix=prefix):
            with self.objects.open_read(bucket, info.name) as f:
                found[info.name.removeprefix(prefix + "/")] = f.read()
        return found

    def results(self, job: Any) -> list[dict[str, Any]]:
        return [json.loads(line) for body in self.files(job).values() for line in body.splitlines()]

    def run(self, lines: Sequence[Mapping[str, Any]] | bytes, **options: Any) -> list[dict[str, Any]]:
        """Results of a job that succeeds."""
        job = self.ended(self.create(lines, **options))
        assert job.state == "JOB_STATE_SUCCEEDED", job.error
        return self.results(job)

    def failure(self, lines: Sequence[Mapping[str, Any]] | bytes | None = None, **options: Any) -> tuple[int, str]:
        """Code and message of a job that is made and then fails."""
        job = self.create(lines, **options)
        assert job.state == "JOB_STATE_PENDING"
        done = self.ended(job)
        assert done.state == "JOB_STATE_FAILED"
        assert self.server.bill() == []
        return done.error.code, done.error.message


def text_of(line: Mapping[str, Any]) -> str:
    return str(line["response"]["candidates"][0]["content"]["parts"][0]["text"])

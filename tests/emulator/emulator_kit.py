"""What the emulator's tests share: a clock that stands still, and the way of a batch through Google's client."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from google import genai

from batchform.emulator import EmulatorServer

MODEL = "gemini-3.5-flash"
JOB_SECONDS = 100.0


class StillClock:
    def now(self) -> datetime:
        return datetime(2026, 11, 21, 12, 0, tzinfo=UTC)


def request_of(text: str, **config: Any) -> dict[str, Any]:
    request: dict[str, Any] = {"contents": [{"role": "user", "parts": [{"text": text}]}]}
    return {**request, "generationConfig": config} if config else request


def write_lines(path: Path, requests: dict[str, dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps({"key": k, "request": r}) + "\n" for k, r in requests.items()))
    return path


class Batches:
    """The way of a batch through Google's client: upload, create, wait, download."""

    def __init__(self, client: genai.Client, server: EmulatorServer, folder: Path) -> None:
        self.client, self.server, self._folder = client, server, folder

    def create(self, requests: dict[str, dict[str, Any]], model: str = MODEL, name: str | None = None) -> Any:
        path = write_lines(self._folder / "input.jsonl", requests)
        uploaded = self.client.files.upload(file=path, config={"mime_type": "jsonl"})
        return self.client.batches.create(model=model, src=uploaded.name, config={"display_name": name})

    def results(self, job: Any) -> list[dict[str, Any]]:
        done = self.client.batches.get(name=job.name)
        assert done.state == "JOB_STATE_SUCCEEDED"
        return [json.loads(line) for line in self.client.files.download(file=done.dest.file_name).splitlines()]

    def run(self, requests: dict[str, dict[str, Any]], model: str = MODEL) -> list[dict[str, Any]]:
        job = self.create(requests, model)
        self.server.advance(JOB_SECONDS)
        return self.results(job)

    def run_texts(self, texts: dict[str, str], **config: Any) -> dict[str, dict[str, Any]]:
        """Key → result line, for tests in which each key comes back once."""
        lines = self.run({key: request_of(text, **config) for key, text in texts.items()})
        assert len({line["key"] for line in lines}) == len(lines)
        return {line["key"]: line for line in lines}

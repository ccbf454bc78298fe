"""Whose API a world speaks, where its inputs, results and ledger lie, and what the service holds of them."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import quote

LOCATION: Final = "us-central1"
BUCKET: Final = "crash-batches"
DATASET: Final = "crash_batches"
ANSWERS: Final = "crash_answers"
"""A dataset for destinations, apart from that of inputs and results."""
PROJECT: Final = "emulated-project"
_PLACE: Final = f"projects/{PROJECT}/locations/{LOCATION}"
_DATASETS: Final = f"/bigquery/v2/projects/{PROJECT}/datasets"
_KEY: Final = {"x-goog-api-key": "emulator"}


@dataclass(frozen=True)
class Cloud:
    """name: of the API, for people; backend: settings of the project's backend; ledger: where that is not the usual
    folder; joined: whether several jobs share a commit in a folder as well, as they do in a bucket."""

    name: str
    backend: dict[str, Any] = field(default_factory=dict)
    ledger: str | None = None
    joined: bool = False

    @property
    def vertex(self) -> bool:
        return "cloud" in self.backend


_VERTEX: Final = {"cloud": "vertex", "staging": f"gs://{BUCKET}/staging", "dataset": DATASET}
GEMINI: Final = Cloud("Gemini")
JOINED: Final = Cloud("joined commits", joined=True)
STORAGE: Final = Cloud("Vertex", _VERTEX)
TABLES: Final = Cloud("Vertex by tables", {**_VERTEX, "via": "bigquery"})
STAYING: Final = Cloud("Vertex, results that stay", {**_VERTEX, "raw_results": "bucket"})
ALL_IN_A_BUCKET: Final = Cloud("Vertex, ledger in a bucket", _VERTEX, ledger=f"gs://{BUCKET}/ledger")
CLOUDS: Final = {
    "gemini": GEMINI, "joined": JOINED, "vertex": STORAGE, "staying": STAYING, "tables": TABLES,
    "bucket": ALL_IN_A_BUCKET,
}  # fmt: skip
"""By the name that the crash matrix knows them by."""


class Service:
    """What an emulator holds for a project of one of these clouds."""

    def __init__(self, url: str, cloud: Cloud) -> None:
        self._url, self._cloud = url, cloud

    def jobs(self) -> list[dict[str, Any]]:
        """The jobs of the project, with their `name`."""
        if self._cloud.vertex:
            return list(self._pages(f"/v1beta1/{_PLACE}/batchPredictionJobs?pageSize=100", "batchPredictionJobs"))
        return list(self._pages("/v1beta/batches?pageSize=100", "operations"))

    def inputs(self) -> list[str]:
        """Names of the staged inputs that are still there. Attached files stay for later rows, and expire."""
        if self._cloud.vertex:
            return [*self.objects("staging/inputs/"), *(t for t in self.tables(DATASET) if t.startswith("bf_in_"))]
        files = self._pages("/v1beta/files?pageSize=100", "files")
        return [f["name"] for f in files if f.get("source") != "GENERATED" and "/bfa-" not in f["name"]]

    def strays(self) -> list[str]:
        """What lies where inputs and results do, and is no result of a job."""
        if not self._cloud.vertex:
            return []
        used = tuple(place for job in self.jobs() for place in _results_of(job))
        objects = [f"gs://{BUCKET}/{name}" for name in self.objects("staging/")]
        tables = [f"bq://{PROJECT}.{DATASET}.{name}" for name in self.tables(DATASET)]
        return [name for name in (*objects, *tables) if not name.startswith(used)]

    def objects(self, prefix: str) -> list[str]:
        """Names of the bucket's objects."""
        path = f"/storage/v1/b/{BUCKET}/o?maxResults=500&prefix={quote(prefix, safe='')}"
        return [found["name"] for found in self._pages(path, "items")]

    def read(self, name: str) -> bytes:
        """An object of the bucket."""
        return self._get(f"/storage/v1/b/{BUCKET}/o/{quote(name, safe='')}?alt=media")

    def set_faults(self, faults: list[dict[str, Any]]) -> None:
        """From now on this goes wrong, and no more what did before."""
        body = json.dumps({"faults": faults}).encode()
        asked = urllib.request.Request(f"{self._url}/emulator/faults", body, _KEY, method="PUT")
        urllib.request.urlopen(asked, timeout=30).close()

    def bill(self) -> list[dict[str, Any]]:
        """Every charge."""
        return [json.loads(line) for line in self._get("/emulator/bill").splitlines()]

    def tables(self, dataset: str) -> list[str]:
        """Names of a dataset's tables."""
        try:
            found = list(self._pages(f"{_DATASETS}/{dataset}/tables?maxResults=500", "tables"))
        except urllib.error.HTTPError as error:
            error.close()
            if error.code != 404:  # nobody has made the dataset so far
                raise
            return []
        return [table["tableReference"]["tableId"] for table in found]

    def rows(self, dataset: str, table: str, columns: tuple[str, ...]) -> list[Any]:
        """Some columns of all rows of a table, in order."""
        path = f"{_DATASETS}/{dataset}/tables/{table}"
        names = [column["name"] for column in json.loads(self._get(path))["schema"]["fields"]]
        found = self._pages(f"{path}/data?maxResults=500", "rows")
        return sorted([row["f"][names.index(column)]["v"] for column in columns] for row in found)

    def _pages(self, path: str, field: str) -> Iterator[dict[str, Any]]:
        token = ""
        while True:
            page = json.loads(self._get(f"{path}&pageToken={token}"))
            yield from page.get(field, [])
            token = page.get("nextPageToken", "")
            if not token:
                return

    def _get(self, path: str) -> bytes:
        with urllib.request.urlopen(urllib.request.Request(self._url + path, headers=_KEY), timeout=30) as answer:
            return bytes(answer.read())


def _results_of(job: dict[str, Any]) -> Iterator[str]:
    """Where a job has written, as prefixes of names."""
    info = job.get("outputInfo", {})
    if "gcsOutputDirectory" in info:
        yield info["gcsOutputDirectory"].rstrip("/") + "/"
    if "bigqueryOutputTable" in info:
        yield f"{info['bigqueryOutputDataset']}.{info['bigqueryOutputTable']}"

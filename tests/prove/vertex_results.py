"""What a job of the emulator's Vertex AI has written, read without HTTP: as lines, whichever store holds it."""

from __future__ import annotations

from batchform.adapters.vertex_tables import result_line
from batchform.adapters.vertex_wire import table_name
from batchform.emulator import EmulatorServer
from batchform.emulator.refusal import Refusal
from batchform.emulator.storage.objects import ObjectStore
from batchform.emulator.warehouse.tables import TableRef, Tables


def written(server: EmulatorServer, tag: str, *, bucket: str = "", dataset: str = "") -> bytes:
    """The results of the jobs of a tag, in `gs://bucket/staging` or in a dataset (`project.dataset`)."""
    store = server._store
    if dataset:
        table = TableRef.parse(f"{dataset}.{table_name('bf_out', tag)}")
        try:
            return b"".join(result_line(row) for row in Tables(store).rows(table))
        except Refusal:  # it has not ended
            return b""
    objects, found = ObjectStore(store), b""
    for info in objects.list(bucket, prefix=f"staging/results/{tag}/"):
        with objects.open_read(bucket, info.name) as lines:
            found += lines.read()
    return found

"""The seams: five small Protocols that adapters implement, and the plain values they speak.

A conformance suite per port runs against every adapter of it (tests/conformance/).
"""

from batchform.ports.backends import (
    TERMINAL_STATES,
    Backend,
    BackendLimits,
    File,
    Placed,
    RemoteJob,
    ServedModel,
    Staged,
    StoredFile,
    StoredFiles,
)
from batchform.ports.blobs import Blobs
from batchform.ports.caches import Caches, KeptContext
from batchform.ports.clock import Clock
from batchform.ports.destinations import Delivered, Delivery, Destination, HoldsImages, ImageStore
from batchform.ports.sources import Chained, Identified, Probed, Relation, Source
from batchform.ports.tokens import TokenCounts

__all__ = [
    "TERMINAL_STATES",
    "Backend",
    "BackendLimits",
    "Blobs",
    "Caches",
    "Chained",
    "Clock",
    "Delivered",
    "Delivery",
    "Destination",
    "File",
    "HoldsImages",
    "Identified",
    "ImageStore",
    "KeptContext",
    "Placed",
    "Probed",
    "Relation",
    "RemoteJob",
    "ServedModel",
    "Source",
    "Staged",
    "StoredFile",
    "StoredFiles",
    "TokenCounts",
]

"""The Storage Read API over gRPC: CreateReadSession and ReadRows, in Arrow, on a loopback port of its own.

gRPC needs HTTP/2, which the emulator's web server does not speak; so it has a second port, opened when it is asked for.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import grpc

from batchform.emulator.refusal import Refusal
from batchform.emulator.warehouse import sessions, wire
from batchform.emulator.warehouse.declined import invalid, not_supported
from batchform.emulator.warehouse.fields import Schema, sent_schema
from batchform.emulator.warehouse.warehouse import Warehouse, parts

SERVICE: Final = "google.cloud.bigquery.storage.v1.BigQueryRead"
_ARROW: Final = 2
_THREADS: Final = 16
_STOP_SECONDS: Final = 2.0
_CODES: Final = {404: grpc.StatusCode.NOT_FOUND, 501: grpc.StatusCode.UNIMPLEMENTED}


class ReadApi:
    """A gRPC server on a free port of 127.0.0.1; `address` is where."""

    def __init__(self, warehouse: Warehouse) -> None:
        self._warehouse = warehouse
        handlers = {
            "CreateReadSession": grpc.unary_unary_rpc_method_handler(self._create),
            "ReadRows": grpc.unary_stream_rpc_method_handler(self._read),
        }
        self._server = grpc.server(
            ThreadPoolExecutor(_THREADS, "warehouse-read"),
            handlers=[grpc.method_handlers_generic_handler(SERVICE, handlers)],
            options=[("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)],
        )
        self.address = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        self._server.start()
        warehouse.closers.append(self._stop)

    def _stop(self) -> None:
        self._server.stop(_STOP_SECONDS).wait()

    def _create(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        try:
            return _created(self._warehouse, wire.decode(request))
        except (Refusal, wire.Malformed) as e:
            raise _aborted(context, e) from e

    def _read(self, request: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
        try:
            fields = wire.decode(request)
            schema, batches = sessions.read(self._warehouse, wire.text_of(fields, 1), wire.number(fields, 2))
            header = _arrow_schema(schema)
            for batch in batches:
                if not context.is_active():
                    return
                data = wire.encode([(1, bytes(batch.serialize())), (2, batch.num_rows)])
                yield wire.encode([(4, data), (6, batch.num_rows), *header])
                header = []
        except (Refusal, wire.Malformed) as e:
            raise _aborted(context, e) from e


def _created(warehouse: Warehouse, request: wire.Fields) -> bytes:
    """A ReadSession for a CreateReadSessionRequest."""
    wanted = wire.message(request, 2)
    options = wire.message(wanted, 8)
    if wire.number(wanted, 3) != _ARROW:
        raise not_supported("read sessions in other formats than ARROW")
    if 5 in options:
        raise not_supported("sample_percentage in read sessions")
    names = wire.texts_of(options, 1)
    if nested := [name for name in names if "." in name]:
        raise not_supported(f"selected fields inside of a record ({nested[0]})")
    session = sessions.create(
        warehouse,
        wire.text_of(request, 1),
        wire.text_of(wanted, 6),
        names,
        wire.text_of(options, 2),
        _moment(wanted),
        wire.number(request, 3),
        wire.number(request, 4),
    )
    return wire.encode(
        [
            (1, session.name),
            (2, wire.encode([(1, int(session.expires))])),
            (3, _ARROW),
            (5, wire.encode([(1, bytes(sent_schema(session.fields).serialize()))])),
            (6, wire.text_of(wanted, 6)),
            *((key, wire.data_of(wanted, key)) for key in (7, 8) if key in wanted),
            *((10, wire.encode([(1, stream)])) for stream in session.streams),
            (12, session.bytes),
            (14, session.rows),
        ]
    )


def _moment(wanted: wire.Fields) -> float | None:
    """The snapshot time, if there is one."""
    modifiers = wire.message(wanted, 7)
    if 1 not in modifiers:
        return None
    stamp = wire.message(modifiers, 1)
    return (wire.number(stamp, 1) * 1_000_000 + wire.number(stamp, 2) // 1000) / 1_000_000


def _arrow_schema(schema: Schema) -> list[tuple[int, wire.Value]]:
    """What the first answer of a stream carries."""
    return [(8, wire.encode([(1, bytes(sent_schema(schema).serialize()))]))]


def _aborted(context: grpc.ServicerContext, error: Exception) -> Exception:
    """Ends the call with the status that belongs to a refusal."""
    refusal = error if isinstance(error, Refusal) else invalid(str(error))
    context.abort(_CODES.get(refusal.status, grpc.StatusCode.INVALID_ARGUMENT), refusal.message)
    return error


def of(warehouse: Warehouse) -> Any:
    """The read API of a warehouse, started when it is first asked for."""
    return parts(warehouse, ReadApi)

"""A Storage Read API in front of the emulator's, on a port of its own, that fails and breaks off as it is told."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Any, Self

import grpc

SERVICE = "google.cloud.bigquery.storage.v1.BigQueryRead"


class ReadProxy:
    """refuse: the status of each new session, None to let it through. cuts: of each ReadRows call in turn, after how
    many messages it ends and with which status and text; calls beyond them go through."""

    def __init__(self, to: str, *, refuse: grpc.StatusCode | None = None, cuts: Any = ()) -> None:
        self.calls = 0
        self._refuse, self._cuts = refuse, iter(cuts)
        self._channel = grpc.insecure_channel(to)
        self._server = grpc.server(
            ThreadPoolExecutor(4),
            handlers=[
                grpc.method_handlers_generic_handler(
                    SERVICE,
                    {
                        "CreateReadSession": grpc.unary_unary_rpc_method_handler(self._create),
                        "ReadRows": grpc.unary_stream_rpc_method_handler(self._read),
                    },
                )
            ],
        )
        self.address = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"

    def __enter__(self) -> Self:
        self._server.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.stop(None).wait()
        self._channel.close()

    def _create(self, request: bytes, context: grpc.ServicerContext) -> Any:
        if self._refuse is not None:
            context.abort(self._refuse, "The proxy does not let this session through.")
        return self._channel.unary_unary(f"/{SERVICE}/CreateReadSession")(request)

    def _read(self, request: bytes, context: grpc.ServicerContext) -> Iterator[Any]:
        self.calls += 1
        cut = next(self._cuts, None)
        answers: Any = self._channel.unary_stream(f"/{SERVICE}/ReadRows")(request)
        try:
            for number, message in enumerate(answers):
                if cut is not None and number >= cut[0]:
                    context.abort(cut[1], cut[2])
                yield message
            if cut is not None:
                context.abort(cut[1], cut[2])
        finally:
            answers.cancel()

"""Tables of BigQuery through the Storage Read API: Arrow as it comes, one stream, never more than what is on the way.

A stream that breaks off is taken up where it ended. Google's own reader does that too, but at once and without end;
this one gives up when nothing more has come for as long as any other call may be tried.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final

from batchform.adapters.bigquery_client import Access, closed

if TYPE_CHECKING:
    import pyarrow as pa
    from google.api_core.retry import Retry

_CALL_SECONDS: Final = 300.0
"""How long one call may take. A stream that takes longer is taken up by another."""
_FIRST_PAUSE: Final = 0.1
_LONGEST_PAUSE: Final = 10.0


def stored_rows(
    access: Access, *, billed: str, table: str, columns: Sequence[str] = (), must: bool = False
) -> Iterator[pa.RecordBatch] | None:
    """The rows of a table, in the types that BigQuery sends; None where the API is not installed, or not allowed.

    billed: the project; table: `projects/P/datasets/D/tables/T`; columns: default all; must: what is not allowed is an
    error. Raises vendor errors.
    """
    from google.api_core.exceptions import Forbidden, MethodNotImplemented

    client = access.storage_client()
    if client is None:
        return None
    try:
        session = _session(access, client, billed, table, columns)
    except (Forbidden, MethodNotImplemented):
        closed(client)
        if must:
            raise
        return None
    except BaseException:
        closed(client)
        raise
    return _batches(access, client, session)


def _session(access: Access, client: Any, billed: str, table: str, columns: Sequence[str]) -> Any:
    from google.cloud.bigquery_storage_v1 import types

    wanted = types.ReadSession(table=table, data_format=types.DataFormat.ARROW)
    wanted.read_options.selected_fields.extend(columns)
    wanted.read_options.arrow_serialization_options.buffer_compression = (
        types.ArrowSerializationOptions.CompressionCodec(1)  # LZ4_FRAME
    )
    request = types.CreateReadSessionRequest(parent=f"projects/{billed}", read_session=wanted, max_stream_count=1)
    return client.create_read_session(request=request, retry=_retry(access), timeout=_CALL_SECONDS)


def _retry(access: Access) -> Retry:
    from google.api_core import exceptions
    from google.api_core.retry import Retry, if_exception_type

    passing = if_exception_type(
        exceptions.ServiceUnavailable, exceptions.DeadlineExceeded, exceptions.ResourceExhausted
    )
    return Retry(predicate=passing, initial=_FIRST_PAUSE, maximum=_LONGEST_PAUSE, timeout=access.retry_seconds)


def _batches(access: Access, client: Any, session: Any) -> Iterator[pa.RecordBatch]:
    import pyarrow as pa

    try:
        schema = pa.ipc.read_schema(pa.py_buffer(session.arrow_schema.serialized_schema))
        for stream in session.streams:
            for message in _messages(access, client, stream.name):
                packed = pa.py_buffer(message.arrow_record_batch.serialized_record_batch)
                yield pa.ipc.read_record_batch(packed, schema)
    finally:
        closed(client)


def _messages(access: Access, client: Any, stream: str) -> Iterator[Any]:
    """The messages of a stream, each once."""
    from google.api_core.exceptions import GoogleAPICallError
    from google.cloud.bigquery_storage_v1 import types

    offset, pause, since = 0, _FIRST_PAUSE, time.monotonic()
    while True:
        try:
            request = types.ReadRowsRequest(read_stream=stream, offset=offset)
            for message in client.read_rows(request=request, retry=None, timeout=_CALL_SECONDS):
                yield message
                offset, pause, since = offset + message.row_count, _FIRST_PAUSE, time.monotonic()
        except GoogleAPICallError as error:
            if not _passing(error) or time.monotonic() - since + pause > access.retry_seconds:
                raise
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)
        else:
            return


def _passing(error: Exception) -> bool:
    """Whether a stream that ended this way goes on where it ended."""
    from google.api_core import exceptions as api

    if isinstance(error, api.InternalServerError):
        return "RST_STREAM" in str(error)
    return isinstance(
        error, (api.ServiceUnavailable, api.DeadlineExceeded, api.Unknown, api.Aborted, api.ResourceExhausted)
    )

"""The BigQuery client: how it is made, how long it may try, and what its errors mean.

Every call has a timeout, and is tried again for two minutes at most: by itself the client goes on for ten.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from msgspec import Struct

from batchform.errors import AuthError, BatchformError, DestinationError, SourceError
from batchform.spec.model import GoogleCloud

if TYPE_CHECKING:
    from google.api_core.retry import Retry
    from google.cloud.bigquery import Client
    from google.cloud.bigquery_storage_v1.services.big_query_read import BigQueryReadClient

EMULATOR: Final = "BIGQUERY_EMULATOR_HOST"
STORAGE_EMULATOR: Final = "BIGQUERY_STORAGE_EMULATOR_HOST"
CALL_SECONDS: Final = 60.0
RETRY_SECONDS: Final = 120.0


class Access(Struct, frozen=True):
    """Whose BigQuery this is. settings: `google_cloud` of batchform.yaml; env: the environment variables;
    retry_seconds: how long a call is tried again; first_pause: seconds before it is for the first time."""

    settings: GoogleCloud
    env: Mapping[str, str]
    retry_seconds: float = RETRY_SECONDS
    first_pause: float = 1.0

    @property
    def retry(self) -> Retry:
        from google.cloud.bigquery.retry import DEFAULT_RETRY

        return DEFAULT_RETRY.with_timeout(self.retry_seconds).with_delay(initial=self.first_pause)

    def client(self, *, project: str | None, location: str | None) -> Client:
        """A client. project: who is billed, default that of the settings or credentials. Raises AuthError."""
        from google.cloud.bigquery import Client

        endpoint = self.env.get(EMULATOR)
        if endpoint:
            from google.auth.credentials import AnonymousCredentials

            url = endpoint if "://" in endpoint else f"http://{endpoint}"
            named = project or self.settings.project or self.env.get("GOOGLE_CLOUD_PROJECT") or "emulator"
            return Client(
                project=named,
                credentials=AnonymousCredentials(),
                location=location,
                client_options={"api_endpoint": url},
            )
        from batchform.adapters.google_credentials import find_credentials

        found = find_credentials(self.settings)
        billed = project or found.project or self.env.get("GOOGLE_CLOUD_PROJECT")
        if not billed:
            raise AuthError(
                "No project is known that BigQuery could bill.",
                hint="Set `google_cloud: {project: …}` in batchform.yaml, or GOOGLE_CLOUD_PROJECT.",
            )
        return Client(project=billed, credentials=found.credentials, location=location)

    def storage_client(self) -> BigQueryReadClient | None:
        """A client of the Storage Read API; None where the library, or its emulator, is not there."""
        try:
            from google.cloud.bigquery_storage_v1.services.big_query_read import BigQueryReadClient
        except ImportError:
            return None
        if not self.env.get(EMULATOR):
            from batchform.adapters.google_credentials import find_credentials

            return BigQueryReadClient(credentials=find_credentials(self.settings).credentials)
        host = self.env.get(STORAGE_EMULATOR)
        if not host:
            return None
        import grpc
        from google.cloud.bigquery_storage_v1.services.big_query_read.transports import BigQueryReadGrpcTransport

        options = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
        channel = grpc.insecure_channel(host.removeprefix("http://"), options=options)
        return BigQueryReadClient(transport=BigQueryReadGrpcTransport(channel=channel))


def access_of(settings: GoogleCloud, env: Mapping[str, str] | None = None) -> Access:
    return Access(settings, os.environ if env is None else env)


# --- what its errors mean ----------------------------------------------------------------------------------------


def vendor_errors() -> tuple[type[BaseException], ...]:
    """Every error that the libraries under this adapter raise by themselves."""
    import concurrent.futures

    import google.api_core.exceptions as api
    import google.auth.exceptions as auth
    import google.cloud.bigquery.exceptions as bigquery
    import google.resumable_media.common as media
    import requests

    found: list[type[BaseException]] = [
        api.GoogleAPIError, auth.GoogleAuthError, bigquery.BigQueryError, media.InvalidResponse, media.DataCorruption,
        requests.RequestException, concurrent.futures.TimeoutError,
    ]  # fmt: skip
    try:
        import grpc
    except ImportError:
        return tuple(found)
    return (*found, grpc.RpcError)


class Meaning(Struct, frozen=True):
    """What an error says, as the end of a sentence, and what to do about it."""

    said: str
    hint: str


_ADVICE: Final[Mapping[str, str]] = {
    "accessDenied": "Grant the role that the message names: docs/bigquery.md lists those that are needed.",
    "accessNotConfigured": "Enable the API: gcloud services enable bigquery.googleapis.com",
    "billingNotEnabled": "Enable billing for the project, or name another one with `google_cloud: {project: …}`.",
    "billingTierLimitExceeded": "Read less: narrow the query.",
    "bytesBilledLimitExceeded": "Raise max_bytes_billed, or read less: narrow `where` or the query.",
    "quotaExceeded": "Wait until the quota is filled up again, or ask for a larger one.",
    "rateLimitExceeded": "Run the same command again in a minute.",
    "resourcesExceeded": "Read less at once: narrow the query, and leave ORDER BY out, which is not needed here.",
    "responseTooLarge": "Read less at once: narrow `where` or the query.",
    "invalidQuery": "Put the SQL right: it is BigQuery's (GoogleSQL).",
    "invalid": "Put right what the message names.",
    "stopped": "The job was cancelled. Run the same command again.",
    "timeout": "Run the same command again, or raise `timeout`.",
}
_SENT: Final = re.compile(r"(?:\d{3} )?[A-Z]+ https?://\S+: ")
_AGAIN: Final = "Run the same command again: nothing is done twice."
_BY_STATUS: Final[Mapping[int, str]] = {
    400: "invalid", 401: "unauthenticated", 403: "accessDenied", 404: "notFound", 409: "duplicate",
    412: "conditionNotMet", 413: "responseTooLarge", 429: "rateLimitExceeded", 499: "stopped", 500: "backendError",
    501: "notImplemented", 502: "backendError", 503: "backendError", 504: "timeout",
}  # fmt: skip


def reason_of(error: BaseException) -> str:
    """BigQuery's own word for what went wrong, such as `notFound`; "" for what never reached it."""
    for entry in getattr(error, "errors", None) or ():
        if isinstance(entry, Mapping) and entry.get("reason"):
            return str(entry["reason"])
    code = getattr(error, "code", None)
    return _BY_STATUS.get(int(code), "") if isinstance(code, int) else ""


def meaning(error: BaseException) -> Meaning:
    """What a vendor's error means. Every class of `vendor_errors` has a meaning."""
    import google.api_core.exceptions as api
    import google.auth.exceptions as auth

    if isinstance(error, api.RetryError) and error.cause is not None:
        inner = meaning(error.cause)
        return Meaning(f"{inner.said}, again and again", inner.hint)
    if isinstance(error, auth.GoogleAuthError):
        login = "Log in with `gcloud auth application-default login`, or see docs/bigquery.md for other credentials."
        return Meaning(f"Google did not take the credentials: {said(error)}", login)
    reason = reason_of(error)
    if reason == "notFound":
        return Meaning(said(error), _not_found(said(error)))
    if reason == "unauthenticated":
        return Meaning(
            f"Google did not take the credentials: {said(error)}",
            "Log in again: gcloud auth application-default login",
        )
    if isinstance(error, api.GoogleAPICallError):
        return Meaning(said(error), _ADVICE.get(reason, _AGAIN))
    kind = type(error).__name__
    if "Timeout" in kind:
        return Meaning(f"BigQuery did not answer in time: {said(error)}", _ADVICE["timeout"])
    return Meaning(f"BigQuery could not be reached or broke off: {said(error)}", _AGAIN)


def _not_found(message: str) -> str:
    if " in location " in message:
        return (
            "Check the name. If the dataset lies in another region, set `location` to that: "
            "bq show --format=prettyjson PROJECT:DATASET says which."
        )
    return "Check the name, written project.dataset.table, and that the credentials may see it."


def said(error: BaseException) -> str:
    """What the error says, in one line: without the method and address that the client puts in front."""
    text = str(getattr(error, "message", "") or error).strip()
    text = _SENT.sub("", text)  # the address of an upload lets anybody go on with it
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    line = lines[0] if lines else type(error).__name__
    for tail in ("; reason:", ", message:"):
        line = line.partition(tail)[0]
    return (line if len(line) <= 400 else line[:400] + "…").rstrip(". ")


@contextmanager
def telling(kind: type[SourceError] | type[DestinationError], what: str, *, hint: str = "") -> Iterator[None]:
    """Turn what the client raises into a SourceError or DestinationError about `what`, which begins the sentence."""
    try:
        yield
    except AuthError as error:
        raise kind(f"{what}: {error.message}", hint=error.hint) from error
    except BatchformError:
        raise
    except vendor_errors() as error:
        found = meaning(error)
        raise kind(f"{what}: {found.said}.", hint=" ".join(filter(None, (found.hint, hint)))) from error


def table_name(name: str, *, project: str) -> str:
    """`project.dataset.table` from that or from `dataset.table`. Raises ValueError for anything else."""
    text = name.strip().strip("`").replace(":", ".", 1) if name.count(".") < 2 else name.strip().strip("`")
    parts = text.rsplit(".", 2)
    if len(parts) == 2:
        parts = [project, *parts]
    if len(parts) != 3 or not all(p.strip() for p in parts) or any("`" in p or "\\" in p for p in parts):
        raise ValueError(f"{name!r} is not project.dataset.table")
    return ".".join(parts)


def quoted(name: str) -> str:
    """A name in BigQuery's SQL."""
    return "`" + name.replace("\\", "\\\\").replace("`", "\\`") + "`"


def quoted_text(value: str) -> str:
    """A string literal in BigQuery's SQL."""
    escaped = value.replace("\\", "\\\\").replace("'", "\\'").replace("\n", "\\n").replace("\r", "\\r")
    return f"'{escaped}'"


def human_bytes(count: int) -> str:
    """`12.3 MB`: decimal, as BigQuery bills."""
    size = float(count)
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if size < 1000 or unit == "TB":
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    raise AssertionError


def closed(client: Any) -> None:
    """Close a client of either kind."""
    transport = getattr(client, "transport", None)
    if transport is not None and hasattr(transport, "close"):
        transport.close()
    elif hasattr(client, "close"):
        client.close()

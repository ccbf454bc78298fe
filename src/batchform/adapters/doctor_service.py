"""Probes of the batch services themselves: the key, a list of jobs, models, and the service's clock. All only read."""

from __future__ import annotations

import datetime as dt
import itertools
from collections.abc import Iterable, Iterator, Mapping
from email.utils import parsedate_to_datetime
from typing import Final

from batchform.adapters.gemini import GeminiBackend
from batchform.adapters.gemini_environment import find_api_key, key_variables
from batchform.adapters.vertex import VertexBackend
from batchform.errors import AuthError, BackendError, NotFound
from batchform.ports import RemoteJob
from batchform.run.doctor import Finding, Subject
from batchform.spec.backends import EmulatorBackend
from batchform.spec.backends import GeminiBackend as GeminiConfig
from batchform.spec.wording import counted

_JOBS: Final = 300  # the newest; who has more open ones reads the service's own console
_SECONDS: Final = 20.0
_ENABLE: Final = ("has not been used in project", "is disabled", "SERVICE_DISABLED")


def check_key(about: Subject, config: GeminiConfig | EmulatorBackend, env: Mapping[str, str]) -> Iterator[Finding]:
    """Which variable the key comes from. The key is not shown, nor any part of it."""
    if isinstance(config, EmulatorBackend):
        yield about.ok("key", "An emulator takes any key.")
        return
    try:
        find_api_key(config, env)
    except AuthError as error:
        yield about.failure("key", error.message, hint=error.hint, fix=f"export {key_variables(config)[-1]}=YOUR-KEY")
        return
    held = [name for name in key_variables(config) if env.get(name, "").strip()]
    if len({env[name].strip() for name in held}) > 1:
        message = f"{held[0]} is used; {held[1]} holds another key, which is not."
        yield about.warning("key", message, hint="Unset one of them:", fix=f"unset {held[1]}")
    else:
        yield about.ok("key", f"A key was found in {held[0]}.")


def check_service(
    about: Subject, backend: GeminiBackend | VertexBackend, *, known: Iterable[str], most: int | None
) -> Iterator[Finding]:
    """Whether the service lists jobs for these credentials, and how many of them are at work.

    known: names of jobs in the ledger; most: how many the service lets be at work at once, None where it does not say.
    """
    try:
        jobs = list(itertools.islice(backend.list_jobs(), _JOBS))
    except AuthError as error:
        yield about.failure("access", error.message, **_way_in(backend, error))
    except NotFound as error:
        hint = "Check `base_url`, `project` and `location` of the backend."
        yield about.failure("access", error.message, hint=hint)
    except BackendError as error:
        yield about.failure("access", error.message, hint=error.hint)
    else:
        yield about.ok("access", f"The service takes the credentials: it lists jobs at {_where(backend)}.")
        yield _at_work(about, jobs, set(known), most)


def _where(backend: GeminiBackend | VertexBackend) -> str:
    return f"{backend.endpoint} ({backend.place})" if backend.place else backend.endpoint


def _at_work(about: Subject, jobs: list[RemoteJob], known: set[str], most: int | None) -> Finding:
    open_ = [job for job in jobs if not job.terminal]
    strange = sum(job.name not in known for job in open_)
    of = "" if len(jobs) < _JOBS else f" (of its newest {_JOBS})"
    others = f", {strange} of them not of this ledger" if strange else ""
    room = f"; it takes {most:,}" if most else ""
    message = f"The service lists {counted(len(open_), 'job')} at work{of}{others}{room}."
    if most and len(open_) >= most:
        return about.warning("quota-service", message, hint="It refuses more until some have ended.")
    return about.ok("quota-service", message)


def _way_in(backend: GeminiBackend | VertexBackend, error: AuthError) -> dict[str, str]:
    if isinstance(backend, GeminiBackend):
        hint = "Make a key at https://aistudio.google.com/apikey and export it. It may be restricted to other services."
        return {"hint": hint}
    if error.status == 0 or backend.access.api_key:
        return {"hint": error.hint}
    if any(words in error.message for words in _ENABLE):
        project = backend.place.split("/")[1]
        return {"fix": f"gcloud services enable aiplatform.googleapis.com --project={project}"}
    return {"hint": "The role roles/aiplatform.user is missing, or the credentials ended; see the lines above."}


def check_model_there(about: Subject, backend: GeminiBackend | VertexBackend, model: str, *, task: str) -> Finding:
    """Whether the service knows a model here. Tokens of one word are counted for it at most, which costs nothing."""
    try:
        backend.check_model(model, task=task)
    except AuthError as error:
        return about.unknown("model-service", f"Whether the service has {model} could not be asked: {error.message}")
    except BackendError as error:
        passing = error.status in (0, 408, 429) or error.status >= 500
        if passing and error.message.startswith("Looking up"):
            why = f"Whether the service has {model} could not be asked: {error.message}"
            return about.unknown("model-service", why, hint=error.hint)
        return about.failure("model-service", error.message, hint=error.hint)
    return about.ok("model-service", f"The service knows {model}.")


def service_time(backend: GeminiBackend | VertexBackend) -> dt.datetime | None:
    """What the Date header of an answer says, whatever the answer; None when there is none. Sends no credentials.

    Raises BackendError when nothing answers.
    """
    import httpx2

    from batchform.adapters.gemini_errors import NEVER_SENT, describe

    try:
        said = httpx2.get(backend.endpoint, timeout=_SECONDS).headers.get("date", "")
    except httpx2.HTTPError as error:
        hint = "Check the network and `base_url`." if isinstance(error, NEVER_SENT) else ""
        raise BackendError(f"{backend.endpoint} does not answer: {describe(error)}", hint=hint) from None
    try:
        found = parsedate_to_datetime(said)
    except (TypeError, ValueError):
        return None
    return found if found.tzinfo else found.replace(tzinfo=dt.UTC)

"""The command line: one short function per command. Nothing heavy is imported until a command runs."""

from __future__ import annotations

import os
import sys
import types
from collections.abc import Sequence
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from batchform.errors import BatchformError


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of `batchform`. Exits with the code of the one table in errors.py; never with a traceback."""
    _start_quickly()
    import signal

    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a scheduler that ends a run detaches it, like Ctrl-C
    _end_quickly(run(arguments))


def _start_quickly() -> None:
    """Leave out what a process of our own need not do. Not in `run`: it may be called in somebody else's process."""
    import gc

    gc.set_threshold(250_000)  # imports make many objects that stay; looking through them again finds nothing
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")  # it looks for them in every installed package
    # Even so it imports what it would look with, and that imports all of `email`. In place of it stands: no plugins.
    loader = types.ModuleType("pydantic.plugin._loader")
    loader.get_plugins = tuple  # type: ignore[attr-defined]
    sys.modules.setdefault(loader.__name__, loader)


def _end_quickly(code: int) -> NoReturn:
    """Leave the process without taking it apart object by object, which takes longer than many a command.

    What waits for the end is done first: exit handlers run, output is flushed. A process that a debugger or a profiler
    looks at, or that still has a thread at work, ends as usual.
    """
    import atexit
    import threading

    busy = any(not t.daemon for t in threading.enumerate() if t is not threading.main_thread())
    if busy or sys.gettrace() or sys.getprofile():
        sys.exit(code)
    try:
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
    except (OSError, ValueError):  # nobody reads any more, or the stream is closed
        sys.exit(code)
    os._exit(code)


def run(arguments: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit code. With --json an error is one JSON object on stdout as well."""
    import click

    from batchform.cli.app import app
    from batchform.errors import BatchformError, Interrupted, UsageError, disk_full, exit_code, no_room

    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        result = app.main(args=given, standalone_mode=False)
        return int(result) if isinstance(result, int) else 0
    except click.exceptions.Exit as exc:
        return exc.exit_code
    except click.ClickException as exc:
        exc.show()
        usage = isinstance(exc, click.UsageError)
        told = UsageError(exc.format_message()) if usage else BatchformError(exc.format_message())
        return _answer(given, told, exit_code(told))
    except (click.Abort, KeyboardInterrupt):
        return _failed(given, Interrupted("interrupted"))
    except BatchformError as exc:
        return _failed(given, exc)
    except BrokenPipeError:
        sys.stderr.close()
        return 0
    except Exception as exc:
        if no_room(exc):
            return _failed(given, disk_full(exc))
        if isinstance(exc, OSError):
            return _failed(given, BatchformError(_system_error(exc)))
        if os.environ.get("BATCHFORM_DEBUG"):
            raise
        hint = "This is a bug in batchform. BATCHFORM_DEBUG=1 shows where."
        return _failed(given, BatchformError(f"internal error: {type(exc).__name__}: {exc}", hint=hint))


def _failed(given: Sequence[str], error: BatchformError) -> int:
    from batchform.errors import exit_code

    print(f"error: {error.render()}", file=sys.stderr)  # noqa: T201
    return _answer(given, error, exit_code(error))


def _answer(given: Sequence[str], error: BatchformError, code: int) -> int:
    """Tell a program that asked for JSON what went wrong; a person has it on stderr."""
    options = given[: given.index("--")] if "--" in given else given
    if "--json" in options:
        import json
        from contextlib import suppress

        from batchform.errors import as_json

        with suppress(OSError):  # nobody may be reading any more
            print(json.dumps({"error": as_json(error), "exit_code": code}, ensure_ascii=False), flush=True)  # noqa: T201
    return code


def _system_error(exc: OSError) -> str:
    where = f" ({exc.filename})" if exc.filename else ""
    return f"{exc.strerror or exc}{where}"

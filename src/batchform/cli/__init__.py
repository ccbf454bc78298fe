"""The command line: one short function per command. Nothing heavy is imported until a command runs."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of `batchform`. Exits with the code of the one table in errors.py; never with a traceback."""
    sys.exit(run(arguments))


def run(arguments: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit code."""
    import click

    from batchform.cli.app import app
    from batchform.errors import BatchformError, Interrupted, UsageError, disk_full, exit_code, no_room

    try:
        result = app.main(args=list(arguments) if arguments is not None else None, standalone_mode=False)
        return int(result) if isinstance(result, int) else 0
    except click.exceptions.Exit as exc:
        return exc.exit_code
    except click.UsageError as exc:
        exc.show()
        return UsageError.exit_code
    except click.ClickException as exc:
        exc.show()
        return 1
    except (click.Abort, KeyboardInterrupt):
        _complain("interrupted")
        return Interrupted.exit_code
    except BatchformError as exc:
        _complain(exc.render())
        return exit_code(exc)
    except BrokenPipeError:
        sys.stderr.close()
        return 0
    except OSError as exc:
        _complain(disk_full(exc).render() if no_room(exc) else _system_error(exc))
        return 1
    except Exception as exc:
        if no_room(exc):
            _complain(disk_full(exc).render())
            return 1
        if os.environ.get("BATCHFORM_DEBUG"):
            raise
        _complain(
            f"internal error: {type(exc).__name__}: {exc}\n  This is a bug in batchform. BATCHFORM_DEBUG=1 shows where."
        )
        return 1


def _complain(text: str) -> None:
    print(f"error: {text}", file=sys.stderr)  # noqa: T201


def _system_error(exc: OSError) -> str:
    where = f" ({exc.filename})" if exc.filename else ""
    return f"{exc.strerror or exc}{where}"

"""`batchform emulator`: the emulator as a server for other programs."""

from __future__ import annotations

from pathlib import Path

import click


@click.group("emulator", short_help="The embedded Gemini Batch API, as a server.")
def emulator_command() -> None:
    """A Gemini Batch API on this machine: deterministic answers, nothing is charged."""


@emulator_command.command("serve")
@click.option("--host", default="127.0.0.1", show_default=True, help="Loopback address to listen on.")
@click.option("--port", default=8085, show_default=True, type=click.IntRange(0, 65535), help="0 takes a free one.")
@click.option("--state", default=".batchform/emulator", show_default=True, metavar="DIR", help="Files, jobs and bill.")
@click.option("--job-seconds", default=2.0, show_default=True, type=click.FloatRange(0), help="How long a job takes.")
@click.option(
    "--faults", metavar="FILE", help="What goes wrong, when (docs/emulator.md). Default: what the state already has."
)
@click.option("--create-buckets", is_flag=True, help="Writing to a bucket of Cloud Storage makes it.")
@click.option("--object-pace", default=0.0, type=click.FloatRange(0), help="Seconds between two writes of one object.")
def serve(
    host: str,
    port: int,
    state: str,
    job_seconds: float,
    faults: str | None,
    create_buckets: bool,
    object_pace: float,
) -> None:
    """Serve until Ctrl-C. The variables that it prints point Google's clients at it."""
    from batchform.emulator import serve as run
    from batchform.spec.wording import counted

    def started(url: str) -> None:
        click.echo(f"The emulator listens on {url}; its state is in {state}. Stop it with Ctrl-C.")
        click.echo(f"  export GOOGLE_GEMINI_BASE_URL={url} GEMINI_API_KEY=emulator")
        click.echo(f"  export STORAGE_EMULATOR_HOST={url} BIGQUERY_EMULATOR_HOST={url}")

    def scheduled(number: int) -> None:
        if number:
            click.echo(
                f"Things will go wrong as scripted: {counted(number, 'fault')}. GET /emulator/faults tells which did."
            )

    schedule = None if faults is None else Path(faults)
    run(
        Path(state),
        host=host,
        port=port,
        job_seconds=job_seconds,
        faults=schedule,
        create_buckets=create_buckets,
        object_pace=object_pace,
        on_ready=started,
        on_faults=scheduled,
    )

"""The command group. Commands live in modules of their own, imported when they are named or listed."""

from __future__ import annotations

from importlib import import_module

import click

from batchform import __version__

_COMMANDS = {
    "init": "project",
    "validate": "project",
    "schema": "project",
    "plan": "planning",
    "show": "planning",
    "promote": "promoting",
    "apply": "running",
    "sync": "running",
    "status": "inspect",
    "spend": "spend",
    "results": "inspect",
    "report": "report",
    "explain": "inspect",
    "render": "inspect",
    "jobs": "jobs",
    "approve": "approving",
    "rerun": "rows",
    "try": "rows",
    "ledger": "ledger",
    "models": "models",
    "doctor": "doctor",
    "ci": "ci",
    "emulator": "emulator",
}


class _Commands(click.Group):
    """Imports a command's module only when it is needed, and lists commands in the order of the table."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in _COMMANDS:
            return None
        module = import_module(f"batchform.cli.{_COMMANDS[cmd_name]}")
        command: click.Command = getattr(module, f"{cmd_name}_command")
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as exc:
            from difflib import get_close_matches

            near = get_close_matches(args[0], list(_COMMANDS), n=1)
            if near:
                raise click.UsageError(f"No such command {args[0]!r}. Did you mean {near[0]!r}?", ctx) from exc
            raise


@click.group(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    help="Plan, review and apply LLM batch jobs: nothing is sent twice, nothing paid for is lost.",
)
@click.version_option(__version__, "-V", "--version", prog_name="batchform")
def app() -> None:
    pass

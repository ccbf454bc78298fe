"""`promote`: answers that another environment has bought, as a plan that takes them and sends nothing."""

from __future__ import annotations

from collections.abc import Sequence

import click

from batchform.cli.options import Common, common
from batchform.cli.planning import FORMATS


@click.command("promote", short_help="Plan to take answers from another environment, and nothing else.")
@click.argument("specs", nargs=-1, metavar="[SPEC]...")
@click.option("--from", "origin", required=True, metavar="NAME", help="The environment that has the answers.")
@click.option("--out", metavar="DIR", help="Save the plan: `apply DIR` takes the answers.")
@click.option("--format", "output", type=click.Choice(FORMATS), default="text", show_default=True)
@click.option("--detailed-exitcode", is_flag=True, help="Exit 2 when there are answers to take.")
@common
def promote_command(
    common: Common, specs: Sequence[str], origin: str, out: str | None, output: str, detailed_exitcode: bool
) -> int:
    """Plan to take answers of rows that ask the very same there. Reads only; sends nothing, also when it is applied.

    Say with --env where the answers are to go. Rows that are not answered there are left to `batchform apply`.
    """
    from batchform.cli.options import Asked
    from batchform.cli.planning import echo_plan, note_warnings, plan_exit_code
    from batchform.cli.plans import make_plan, plan_into
    from batchform.cli.reusing import check_origin
    from batchform.cli.wiring import open_session

    with open_session(common) as session:
        note_warnings(session, common)
        check_origin(session, origin)
        chosen, asked = session.select(specs), Asked(promoted=origin)
        if out:
            plan = plan_into(session, chosen, out, asked)
        else:
            plan = make_plan(session, chosen, asked=asked, purpose="promote")
        echo_plan(plan, "json" if common.as_json else output)
        if out and not common.quiet and output == "text" and not common.as_json:
            from batchform.view.approval import in_environment

            click.echo(
                f"Saved {out} (private: it holds answers). Apply it with: batchform apply {out}"
                f"{in_environment(plan.environment)}"
            )
    return plan_exit_code(plan, detailed_exitcode)

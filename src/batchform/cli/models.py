"""`batchform models`: what is known of models, from where, and whether it still holds."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from batchform.cli.options import Common, common

if TYPE_CHECKING:
    from batchform.adapters.gemini import GeminiBackend
    from batchform.cli.wiring import Session


@click.group("models", short_help="Models: what is known of them, and whether the service agrees.")
def models_command() -> None:
    """The table of models that plans use: batches, limits, thinking, prices, and how long each is there.

    Projects add to it and change it in the file that `prices:` in batchform.yaml names.
    """


@models_command.command("list")
@common
def list_models(common: Common) -> None:
    """List the models, with the batch prices of today."""
    import json

    from batchform.cli.wiring import open_session
    from batchform.view.models import model_json, print_models

    with open_session(common) as session:
        registry, now = session.registry, session.clock.now()
        if common.as_json:
            found = [model_json(registry, info, now) for info in registry.models.values()]
            dated = {"models_dated": registry.models_dated, "prices_dated": registry.prices_dated}
            click.echo(json.dumps({**dated, "models": found}, default=str))
        else:
            print_models(registry, now)


@models_command.command("show", short_help="Show all that is known of a model, with its sources.")
@click.argument("model")
@common
def show_model(common: Common, model: str) -> None:
    """Show all that is known of MODEL, each thing with its source and date."""
    import json

    from batchform.cli.wiring import open_session
    from batchform.errors import UsageError
    from batchform.spec.wording import suggestion
    from batchform.view.models import model_json, print_model

    with open_session(common) as session:
        registry, now = session.registry, session.clock.now()
        info = registry.model(model)
        if info is None:
            raise UsageError(f"{model} is not in the table", hint=suggestion(model, registry.models, noun="Models"))
        if common.as_json:
            click.echo(json.dumps(model_json(registry, info, now), default=str))
        else:
            print_model(registry, info, now)


@models_command.command("refresh")
@click.option("--backend", "name", metavar="NAME", help="Backend to ask; default the project's.")
@common
def refresh_models(common: Common, name: str | None) -> int:
    """Hold the table against the list of the service. Changes nothing: what differs is shown as YAML for the file that
    `prices:` in batchform.yaml names.

    Exit code 0: they agree; 2: they differ.
    """
    import json

    from batchform.cli.wiring import open_session
    from batchform.plan.served import differences, override
    from batchform.view.models import print_differences

    with open_session(common) as session:
        chosen, backend = _asked(session, name)
        served = list(backend.models())
        found = differences(session.registry, served, session.clock.now().date())
        changes = override(found, served)
        if common.as_json:
            told = [{"model": d.model, "field": d.field, "known": d.known, "served": d.served} for d in found]
            click.echo(json.dumps({"backend": chosen, "differences": told, "models": changes}))
        else:
            print_differences(chosen, len(served), found, changes)
    return 2 if found else 0


def _asked(session: Session, name: str | None) -> tuple[str, GeminiBackend]:
    """The backend whose list is read: of the Gemini API, since Vertex AI has no such list."""
    from batchform.adapters.gemini import GeminiBackend
    from batchform.errors import UsageError

    config = session.project.config
    chosen = name or config.defaults.backend or next(iter(config.backends))
    if chosen not in config.backends:
        raise UsageError(f"there is no backend {chosen}", hint=f"Backends: {', '.join(config.backends)}.")
    backend = session.backends(chosen)
    if not isinstance(backend, GeminiBackend):
        raise UsageError(
            f"backend {chosen} is Vertex AI, which has no list of models that says what they take",
            hint="Name one of type gemini with --backend; `batchform doctor` asks Vertex AI for the specs' own models.",
        )
    return chosen, backend

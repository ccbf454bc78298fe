"""Commands about a project's files: init, validate, schema."""

from __future__ import annotations

from pathlib import Path

import click

from batchform.cli.options import Common, common

_SCAFFOLD = Path(__file__).resolve().parent.parent / "data" / "init"


@click.command("init", short_help="Make a working project with one spec.")
@click.argument("directory", default=".", required=False)
def init_command(directory: str) -> None:
    """Make a working project in DIRECTORY (default: here): a spec, templates, a schema and ten rows.

    Nothing that exists is changed.
    """
    import re

    from batchform.errors import UsageError

    root = Path(directory)
    files = sorted(p for p in _SCAFFOLD.rglob("*") if p.is_file())
    targets = {p: root / _target(p) for p in files}
    taken = [str(t) for p, t in targets.items() if t.exists() and p.name != "gitignore"]
    if taken:
        raise UsageError(
            f"{', '.join(taken)} already exist{'s' if len(taken) == 1 else ''}; nothing was changed",
            hint="Name an empty folder: batchform init my-project",
        )
    name = re.sub(r"[^a-z0-9]+", "-", root.resolve().name.lower()).strip("-")[:48].strip("-") or "project"
    for path, target in targets.items():
        if target.exists():
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(path.read_text(encoding="utf-8").replace("PROJECT_NAME", name), encoding="utf-8")
        click.echo(f"  made {target}")
    _write_schemas(root / "schemas" / "editor")
    click.echo(f"  made {root / 'schemas' / 'editor'} (completion and checks in your editor)")
    step = "" if root.resolve() == Path.cwd() else f"cd {directory} && "
    click.echo(f"\nNext: {step}batchform plan")


def _target(path: Path) -> Path:
    relative = path.relative_to(_SCAFFOLD)
    return relative.with_name(".gitignore") if relative.name == "gitignore" else relative


def _write_schemas(folder: Path) -> None:
    import json

    from batchform.spec.json_schema import project_schema, spec_schema

    folder.mkdir(parents=True, exist_ok=True)
    for name, schema in (("batchform.schema.json", project_schema()), ("spec.schema.json", spec_schema())):
        text = json.dumps(schema, indent=2, ensure_ascii=False) + "\n"
        (folder / name).write_text(text, encoding="utf-8")


@click.command("validate", short_help="Check all files of the project, offline.")
@common
def validate_command(common: Common) -> None:
    """Check batchform.yaml, specs, templates and schemas; all complaints at once. Reads no rows, needs no network."""
    import json

    from batchform.cli.wiring import echo_warnings, open_session
    from batchform.plan.build import check_models

    with open_session(common) as session:
        check_models(session.project.specs, session.registry, session.clock.now())
        names = [s.name for s in session.project.specs]
        if common.as_json:
            warnings = [d.render() for d in session.project.warnings]
            click.echo(json.dumps({"valid": True, "specs": names, "warnings": warnings}))
            return
        echo_warnings(session, click.echo)
        if not common.quiet:
            count = len(names)
            click.echo(f"{count} spec{'s' if count != 1 else ''} valid: {', '.join(names)}")


@click.command("schema", short_help="JSON Schemas of batchform.yaml and specs, for editors.")
@click.argument("which", type=click.Choice(["project", "spec"]), required=False)
@click.option("--out", metavar="DIR", help="Write both schemas into this folder.")
def schema_command(which: str | None, out: str | None) -> None:
    """Print the JSON Schema of batchform.yaml (project) or of specs (spec); or write both with --out."""
    import json

    from batchform.errors import UsageError
    from batchform.spec.json_schema import project_schema, spec_schema

    if out is not None:
        _write_schemas(Path(out))
        return
    if which is None:
        raise UsageError("name a schema: project or spec", hint="Or write both with --out DIR.")
    schema = project_schema() if which == "project" else spec_schema()
    click.echo(json.dumps(schema, indent=2, ensure_ascii=False))

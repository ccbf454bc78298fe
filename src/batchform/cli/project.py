"""Commands about a project's files: init, validate, schema."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from batchform.cli.options import Common, common

if TYPE_CHECKING:
    from batchform.errors import Diagnostic

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


@click.command("validate", short_help="Check all files of the project, and the rows that would be sent, offline.")
@click.option(
    "--format", "form", type=click.Choice(["text", "json", "github", "sarif"]), default="text", show_default=True,
    help="Complaints for people, programs, GitHub's annotations or code scanning.",
)  # fmt: skip
@click.option("--sample", metavar="N", type=click.IntRange(0), help="Render only N rows of each spec; 0 for none.")
@click.option("--explain", "code", metavar="CODE", help="Say what a rule is about, such as BF101, and check nothing.")
@common
def validate_command(common: Common, form: str, sample: int | None, code: str | None) -> int:
    """Check batchform.yaml, specs, templates and schemas, then every row that would be sent; all complaints at once.

    Needs no network and no key: rows that are not on this machine are left out, and named.
    """
    from batchform.cli.judging import judge_project
    from batchform.cli.wiring import open_session
    from batchform.errors import InvalidProject

    if code is not None:
        _explain(code)
        return 0
    form = "json" if common.as_json else form

    def unchecked(spec: str, why: str) -> None:
        if not common.quiet:
            click.echo(f"rows of {spec} were not checked: {why}", err=True)

    try:
        with open_session(common) as session:
            judged = judge_project(session, sample=sample, unchecked=unchecked)
    except InvalidProject as error:
        if form in ("text", "json"):
            raise
        _echo_complaints(form, list(error.diagnostics))
        return error.exit_code
    if form != "text":
        _echo_complaints(form, list(judged.warnings), list(judged.specs))
        return 0
    for complaint in judged.warnings:
        click.echo(complaint.render())
    if not common.quiet:
        count = len(judged.specs)
        click.echo(f"{count} spec{'s' if count != 1 else ''} valid: {', '.join(judged.specs)}")
    return 0


def _echo_complaints(form: str, complaints: list[Diagnostic], names: list[str] | None = None) -> None:
    import json

    from batchform.errors import complaint_as_json
    from batchform.view.complaints import as_github, as_sarif

    if form == "json":
        found = [complaint_as_json(c) for c in complaints]
        click.echo(json.dumps({"valid": True, "specs": names, "diagnostics": found}))
    elif text := as_sarif(complaints) if form == "sarif" else as_github(complaints):
        click.echo(text)


def _explain(code: str) -> None:
    from batchform.errors import UsageError
    from batchform.rules import catalogue
    from batchform.view.complaints import print_rule, rule_page

    rules = catalogue()
    found = [rule for rule in rules.values() if code.casefold() in (rule.code.casefold(), rule.name)]
    if not found:
        raise UsageError(
            f"there is no rule {code}", hint="Rules are listed in docs/rules, and named by each complaint."
        )
    if sys.stdout.isatty():
        print_rule(found[0])
    else:
        click.echo(rule_page(found[0]), nl=False)


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

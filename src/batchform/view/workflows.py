"""Workflow files for GitHub Actions and GitLab CI. Their text is in data/ci, with `<<places>>` to be filled."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping
from importlib.resources import files
from typing import Final

from msgspec import Struct

CHECKOUT: Final = "actions/checkout@3d3c42e5aac5ba805825da76410c181273ba90b1  # v7.0.1"
SETUP_PYTHON: Final = "actions/setup-python@5fda3b95a4ea91299a34e894583c3862153e4b97  # v7.0.0"
GOOGLE_AUTH: Final = "google-github-actions/auth@7c6bc770dae815cd3e89ee6cdf493a5fab2cc093  # v3.0.0"
"""By commit: a tag can be moved."""

_PLACE: Final = re.compile(r"<<([a-z_]+)>>")


_SIGN_IN: Final = (
    '- printf %s "$GOOGLE_ID_TOKEN" > /tmp/google-id-token',
    "- >-",
    '  printf \'{"type":"external_account","audience":"%s",',
    '  "subject_token_type":"urn:ietf:params:oauth:token-type:jwt","token_url":"https://sts.googleapis.com/v1/token",',
    '  "credential_source":{"file":"/tmp/google-id-token"}}\' "$GOOGLE_AUDIENCE" > /tmp/google.json',
    "- export GOOGLE_APPLICATION_CREDENTIALS=/tmp/google.json",
)


class Variable(Struct, frozen=True):
    """An environment variable that batchform.yaml names, or that a backend reads its key from."""

    name: str
    secret: bool
    key: bool = False  # of a backend: planning needs none


class Needs(Struct, frozen=True):
    """What a project's workflow depends on. folder: of the project in its repository, "" for the top; requirement:
    what pip installs; runs_on: labels of runners, none for the service's own; google: whether Google Cloud is asked."""

    environment: str
    branch: str
    folder: str
    requirement: str
    runs_on: tuple[str, ...]
    variables: tuple[Variable, ...]
    google: bool


def github_workflow(needs: Needs) -> str:
    """`.github/workflows/batchform.yml`."""
    shared = [v for v in needs.variables if not v.key]
    keys = [f"  {v.name}: ${{{{ secrets.{v.name} }}}}" for v in needs.variables if v.key]
    given = {v.name: f"${{{{ {'secrets' if v.secret else 'vars'}.{v.name} }}}}" for v in shared}
    setup = [
        f"- uses: {CHECKOUT}",
        "  with:",
        "    persist-credentials: false",
        f"- uses: {SETUP_PYTHON}",
        "  with:",
        '    python-version: "3.13"',
        "- name: Install",
        f"  run: {_install(needs)}",
    ]
    return _filled(
        "github.yml",
        {
            **_names(needs),
            "name": f"batchform {needs.environment}".strip(),
            "runs_on": f"[{', '.join(needs.runs_on)}]" if needs.runs_on else "ubuntu-latest",
            "working_directory": f"working-directory: {needs.folder}" if needs.folder else "",
            "environment_block": f"env:\n  BATCHFORM_ENV: {needs.environment}" if needs.environment else "",
            "placeholders": _mapping("env", {v.name: "placeholder" for v in shared}),
            "variables": _mapping("env", given),
            "setup": "\n".join(setup),
            "oidc": "id-token: write  # signing in to Google Cloud" if needs.google else "",
            "google_planner": _google(needs, "GOOGLE_PLANNER"),
            "google_submitter": _google(needs, "GOOGLE_SUBMITTER"),
            "keys": "\n".join(["env:", *keys]) if keys else "",
        },
    )


def gitlab_pipeline(needs: Needs) -> str:
    """`.gitlab-ci.yml`, or a file that it includes. GitLab hands its variables to each job by itself."""
    shared = {v.name: "placeholder" for v in needs.variables if not v.key}
    return _filled(
        "gitlab.yml",
        {
            **_names(needs),
            "tags": f"tags: [{', '.join(needs.runs_on)}]" if needs.runs_on else "",
            "variables": _mapping("variables", {"BATCHFORM_ENV": needs.environment} if needs.environment else {}),
            "id_tokens": "id_tokens:\n  GOOGLE_ID_TOKEN:\n    aud: $GOOGLE_AUDIENCE" if needs.google else "",
            "install": _install(needs),
            "google_sign_in": "\n".join(_SIGN_IN) if needs.google else "",
            "change_folder": f"- cd {needs.folder}" if needs.folder else "",
            "placeholders": _mapping("variables", shared),
        },
    )


def _names(needs: Needs) -> dict[str, str]:
    slug = f"batchform-{needs.environment}" if needs.environment else "batchform"
    apply = needs.environment or "batchform"
    return {"slug": slug, "branch": needs.branch, "environment_apply": apply, "environment_track": f"{apply}-sync"}


def _install(needs: Needs) -> str:
    command = f"python -m pip install --quiet --disable-pip-version-check {shlex.quote(needs.requirement)}"
    return json.dumps(command) if re.search(r": | #|:$", command) else command


def _mapping(name: str, values: Mapping[str, str]) -> str:
    return "\n".join([f"{name}:", *(f"  {key}: {value}" for key, value in values.items())]) if values else ""


def _google(needs: Needs, account: str) -> str:
    if not needs.google:
        return ""
    return (
        f"- uses: {GOOGLE_AUTH}\n"
        "  with:\n"
        "    workload_identity_provider: ${{ vars.GOOGLE_WORKLOAD_IDENTITY_PROVIDER }}\n"
        f"    service_account: ${{{{ vars.{account} }}}}"
    )


def _filled(name: str, values: Mapping[str, str]) -> str:
    """The file with its places filled. One that stands on a line alone takes several lines, or none."""
    text = (files("batchform") / "data" / "ci" / name).read_text(encoding="utf-8")
    lines: list[str] = []
    for line in text.splitlines():
        alone = _PLACE.fullmatch(line.strip())
        if alone:
            indent = line[: len(line) - len(line.lstrip())]
            lines += [indent + part for part in values[alone[1]].splitlines()]
        else:
            lines.append(_PLACE.sub(lambda match: values[match[1]], line))
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)) + "\n"

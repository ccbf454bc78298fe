"""Rules about databases: their URLs come from the environment, and specs name databases that there are."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from batchform.errors import Diagnostic
from batchform.spec.bigquery import BigQuerySource
from batchform.spec.model import DatabaseSource, Project, Spec
from batchform.spec.model_sql import SqlDestination, SqlSource
from batchform.spec.wording import shown, suggestion
from batchform.spec.yaml_source import Document

_REFERENCE = re.compile(r"\$\{ENV:[A-Za-z0-9_]+\}")
_PASSWORD: Final = (
    re.compile(r"://[^\s:/@]*:(\S*)@"),
    re.compile(r"[?&;](?i:password|passwd|pwd|sslpassword|secret|token)=([^&;\s]*)"),
)


def databases(document: Document) -> Iterator[Diagnostic]:
    """Each URL of batchform.yaml, those of other environments included, comes from the environment."""
    for path in document.values:
        if path[-1:] != ("url",) or path[-3:-2] != ("databases",):
            continue
        written = document.env.get(path, document.get(*path))
        if not isinstance(written, str):
            continue
        rest = _REFERENCE.sub("", written)
        if any(found[1] for pattern in _PASSWORD for found in pattern.finditer(rest)):
            message = "a password stands in the file, where everybody who reads it sees it"
        elif rest == written:
            message = "the URL of a database comes from the environment, not from a file"
        else:
            continue
        name = re.sub(r"\W", "_", str(path[-2])).upper()
        hint = f"Write url: ${{ENV:{name}_URL}}, and set that variable to the URL where batchform runs."
        yield document.diagnostic("url-in-file", message, path, hint=hint)


def sql_spec(document: Document, spec: Spec, config: Project | None) -> Iterator[Diagnostic]:
    """The databases of a spec are in batchform.yaml, and it does not write over the rows that it reads."""
    source, destination = spec.source, spec.destination
    named = [(end, place.database) for end, place in (("source", source), ("destination", destination))
             if isinstance(place, SqlSource | SqlDestination)]  # fmt: skip
    for end, name in named:
        known = config.databases if config is not None else {name: None}
        if name in known:
            continue
        hint = suggestion(name, known, noun="Databases") or (
            f"Name it in batchform.yaml: databases: {{{shown(name)}: {{url: ${{ENV:…}}}}}}"
        )
        yield document.diagnostic(
            "unknown-database", f"there is no database `{shown(name)}` in batchform.yaml", (end, "database"), hint=hint
        )
    if (
        isinstance(source, SqlSource)
        and isinstance(destination, SqlDestination)
        and (source.database, (source.table or "").casefold()) == (destination.database, destination.table.casefold())
    ):
        message = f"the destination `{shown(destination.table)}` is the table that the source reads"
        hint = "Answers must not become rows: write them to a table of their own."
        yield document.diagnostic("destination-is-source", message, ("destination", "table"), hint=hint)


def table_or_query(document: Document, source: DatabaseSource | SqlSource | BigQuerySource) -> Iterator[Diagnostic]:
    """A database source has a table, perhaps with a condition, or a query."""
    if source.table is None and source.query is None:
        hint = "Give `table:`, or `query:` with SQL of the database."
        yield document.diagnostic(
            "missing-field", "the source has neither `table` nor `query`", ("source",), on_key=True, hint=hint
        )
    for other in ("table", "where"):
        if source.query is not None and getattr(source, other) is not None:
            hint = "Put it into the query." if other == "where" else "Keep one of them."
            message = f"`query` and `{other}` exclude each other"
            yield document.diagnostic("conflicting-fields", message, ("source", other), on_key=True, hint=hint)

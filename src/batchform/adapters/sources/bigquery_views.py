"""What views hide: SQL whose rows are others in another run, though no table has changed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from batchform.adapters.bigquery_client import CALL_SECONDS, Access, table_name
from batchform.adapters.sources.bigquery_sql import check_steady, is_moving, names_read

if TYPE_CHECKING:
    from google.cloud.bigquery import Client


def moves_by_views(client: Client, access: Access, query: str) -> bool:
    """Whether a statement reads the time through a view, or a view of views, or one whose SQL may not be seen. Raises
    SourceError for a view that draws by chance."""
    from google.api_core.exceptions import Forbidden, NotFound

    todo, seen, moving = [(name, client.project) for name in names_read(query)], set[str](), False
    while todo:
        written, project = todo.pop()
        try:
            name = table_name(written, project=project)
        except ValueError:
            continue
        if name in seen:
            continue
        seen.add(name)
        try:
            found = client.get_table(name, retry=access.retry, timeout=CALL_SECONDS)
        except NotFound:
            continue  # a part of a row, or what else stands behind FROM
        except Forbidden:
            moving = True
            continue
        if found.view_query:
            check_steady(found.view_query, f"the view {name}")
            moving |= is_moving(found.view_query)
            todo += [(inner, found.project) for inner in names_read(found.view_query)]
    return moving

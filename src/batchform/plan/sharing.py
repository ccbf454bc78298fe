"""Which rows share a request, with each other and with what was answered before, and what that makes of them."""

from __future__ import annotations

from batchform.plan import diff as first
from batchform.plan.diff import Recorded
from batchform.rows.sql import literal
from batchform.spec.resolved import ResolvedSpec


def shared_sql(spec: ResolvedSpec, recorded: Recorded) -> str:
    """(key_hash, shared): "answered TAG KEYHASH PARSE", "refused CLASS", "in_flight" or "planned", with the
    row that is sent if that needs a place of a stage: "planned KEYHASH"; first wins."""
    kinds = [
        (
            "SELECT key_hash, 3 AS rank, 'planned' || CASE WHEN first_value(placed) OVER turns THEN '' ELSE ' ' || "
            "replace(CAST(first_value(key_hash) OVER turns AS VARCHAR), '-', '') END AS shared FROM bf_prints "
            "WINDOW turns AS (PARTITION BY request_fp ORDER BY sent DESC, owed DESC, ordinal) "
            "QUALIFY row_number() OVER turns > 1"
        )
    ]
    if recorded.relation is not None:
        kinds.append(
            "SELECT p.key_hash, 2, 'in_flight' FROM bf_prints p SEMI JOIN (SELECT request_fp FROM "
            f"{recorded.relation} WHERE status = 'in_flight') f ON p.request_fp = f.request_fp"
        )
        retryable = ", ".join(literal(c) for c in first.sent_again(spec))
        kinds.append(
            "SELECT p.key_hash, 1, 'refused ' || f.failure FROM bf_prints p JOIN (SELECT request_fp, failure FROM "
            f"{recorded.relation} WHERE status = 'failed' AND (failure NOT IN ({retryable}) "
            f"OR attempt >= {spec.retry.max_attempts})) f ON p.request_fp = f.request_fp AND NOT p.owed"
        )
    if recorded.archived is not None:
        kinds.append(
            "SELECT p.key_hash, 0 AS rank, 'answered ' || a.tag || ' ' || replace(CAST(a.held_as AS VARCHAR), '-', '') "
            f"|| ' ' || a.parse_digest AS shared FROM bf_prints p JOIN {recorded.archived} a "
            "ON p.request_fp = a.request_fp WHERE a.class = 'answered'"
        )
    if not spec.spec.idempotency.reuse_identical:  # then only what was imported is shared
        kinds = [f"{kinds[-1]} AND a.tag IN ({', '.join(map(literal, recorded.imported))})"]
    found = " UNION ALL ".join(kinds)
    return f"SELECT key_hash, arg_min(shared, (rank, shared)) AS shared FROM ({found}) GROUP BY key_hash"

"""Names of the ledger's blobs, and the mark by which the tags of its jobs are told from those of other ledgers."""

from __future__ import annotations


def archive_name(tag: str) -> str:
    """Blob name of a job's raw results: gzip JSON lines, as the service sent them."""
    return f"archive/{tag}.jsonl.gz"


def reference_name(tag: str) -> str:
    """Blob name of what stands for raw results that stay where the service wrote them: JSON, see ledger/raw.py."""
    return f"archive/{tag}.stored.json"


def tag_of_results(name: str) -> str:
    """The job whose raw results a blob holds or stands for, by its name; "" if it is none of those."""
    for end in (".jsonl.gz", ".stored.json"):
        if name.startswith("archive/") and name.endswith(end):
            return name.removeprefix("archive/").removesuffix(end)
    return ""


def rerun_name(token: str) -> str:
    """Blob name of the key hashes that a person wants sent again: Parquet with one column, key_hash."""
    return f"archive/rerun-{token}.parquet"


def ledger_mark(lineage: str) -> str:
    """The part of a ledger's lineage that its jobs' tags hold, so that two ledgers never take each other's jobs."""
    return lineage.replace("-", "")[:6]


def bears_mark(tag: str, lineage: str) -> bool:
    """Whether a tag holds the mark of the ledger of this lineage."""
    return bool(lineage) and tag.rpartition("-a")[0].endswith(f"-{ledger_mark(lineage)}")


def with_mark(tag: str, lineage: str) -> str:
    """A tag that was planned without a ledger, with the mark of one."""
    what, _, attempt = tag.rpartition("-a")
    return f"{what}-{ledger_mark(lineage)}-a{attempt}"


def answers_name(tag: str, parse_digest: str) -> str:
    """Blob name of a job's parsed answers under one way of parsing."""
    return f"answers/{tag}.{parse_digest.rpartition(':')[2][:12]}.parquet"

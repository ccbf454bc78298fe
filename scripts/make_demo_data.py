"""Make data/packages.csv again from Debian's own package index. Needs nothing but Python.

    python scripts/make_demo_data.py Packages Translation-en > data/packages.csv

Both files come from one Debian release: dists/<suite>/main/binary-amd64/Packages and
dists/<suite>/main/i18n/Translation-en of any mirror (plain, .gz or .xz), or from a Debian machine
(data/README.md shows how). The choice is deterministic: per section, the packages whose name has the lowest
SHA-256, so that the same index gives the same file, and a newer one changes few rows.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import hashlib
import lzma
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO

SECTIONS = (
    "admin", "database", "editors", "games", "graphics", "mail", "math",
    "net", "science", "sound", "text", "utils", "vcs", "web",
)  # fmt: skip
PER_SECTION = 30
LENGTHS = range(160, 1401)  # characters of a description worth asking a model about
COLUMNS = ("name", "section", "version", "source", "homepage", "installed_kib", "summary", "description")
DULL = re.compile(r"transitional|dummy package|metapackage|debug symbols|documentation|translations?\b", re.IGNORECASE)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("packages", type=Path, help="Packages, Packages.gz or Packages.xz")
    parser.add_argument("translation", type=Path, help="Translation-en, likewise")
    args = parser.parse_args()
    texts = {p["Description-md5"]: p["Description-en"] for p in paragraphs(args.translation)}
    rows = (row for p in paragraphs(args.packages) if (row := as_row(p, texts.get(p.get("Description-md5", "")))))
    out = csv.DictWriter(sys.stdout, COLUMNS, lineterminator="\n")
    out.writeheader()
    out.writerows(choose(rows))


def paragraphs(path: Path) -> Iterator[dict[str, str]]:
    """The index's paragraphs: field → value, continuation lines kept with their newline."""
    fields: dict[str, str] = {}
    last = ""
    with open_text(path) as lines:
        for line in lines:
            line = line.rstrip("\n")
            if not line:
                if fields:
                    yield fields
                fields = {}
            elif line[0] == " ":
                fields[last] += "\n" + line[1:]
            else:
                last, _, value = line.partition(": ")
                fields[last] = value
    if fields:
        yield fields


def open_text(path: Path) -> IO[str]:
    if path.suffix == ".gz":
        return gzip.open(path, "rt", encoding="utf-8", newline="\n")
    if path.suffix == ".xz":
        return lzma.open(path, "rt", encoding="utf-8", newline="\n")
    return path.open(encoding="utf-8", newline="\n")


def as_row(package: dict[str, str], text: str | None) -> dict[str, str] | None:
    """The demo's columns of one package, or None if it says too little."""
    summary, _, rest = (text or "").partition("\n")
    description = "\n".join("" if line == "." else line for line in rest.split("\n")).strip()
    if len(description) not in LENGTHS or DULL.search(summary):
        return None
    return {
        "name": package["Package"],
        "section": package["Section"],
        "version": package["Version"],
        "source": package.get("Source", package["Package"]).partition(" ")[0],
        "homepage": package.get("Homepage", ""),
        "installed_kib": package.get("Installed-Size", ""),
        "summary": summary,
        "description": description,
    }


def choose(rows: Iterator[dict[str, str]]) -> list[dict[str, str]]:
    """PER_SECTION rows of each section, at most one per source package, ordered by name."""
    by_hash = sorted(rows, key=lambda row: hashlib.sha256(row["name"].encode()).digest())
    sources: set[str] = set()
    chosen: dict[str, list[dict[str, str]]] = {section: [] for section in SECTIONS}
    for row in by_hash:
        section = chosen.get(row["section"])
        if section is not None and len(section) < PER_SECTION and row["source"] not in sources:
            sources.add(row["source"])
            section.append(row)
    return sorted((row for section in chosen.values() for row in section), key=lambda row: row["name"])


if __name__ == "__main__":
    main()

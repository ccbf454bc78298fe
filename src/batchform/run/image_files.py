"""Image files beside a destination: what answers say must be there is there, made from the archive when it is not."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

import msgspec

from batchform.errors import DestinationError
from batchform.ledger.raw import open_lines, reading_results
from batchform.ledger.store import Ledger
from batchform.ports import ImageStore
from batchform.rows.sql import literal
from batchform.run.joined import Joined
from batchform.run.parse import decode_line
from batchform.run.pictures import Picture, pictures

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

_AT_ONCE = 5_000
_pictures = msgspec.json.Decoder(list[Picture])


def write_images(con: DuckDBPyConnection, ledger: Ledger, joined: Joined, store: ImageStore) -> None:
    """Make every image file of all deliverable answers that is not there, and note which there shall be.

    Costs nothing. Memory is bounded by a result line. Raises DestinationError when the archive has an image no longer.
    """
    names: list[str] = []
    for number, path in enumerate(joined.paths):
        [(tag,)] = con.execute(f"SELECT tag FROM bf_answer_files WHERE number = {number}").fetchall()
        wanted: dict[int, list[Picture]] = {}
        for line, response in _answers(con, joined, number, path):
            found = _pictures.decode(response)
            names.extend(p.file for p in found)
            lacking = [p for p in found if not store.holds(p.file, p.bytes)]
            if lacking:
                wanted[line] = lacking
        if wanted:
            _make(ledger, str(tag), wanted, store)
    store.note(names)


def _answers(con: DuckDBPyConnection, joined: Joined, number: int, path: str) -> Iterator[tuple[int, str]]:
    """(line in the archive, what its images are) of the deliverable answers of one file."""
    cursor = con.execute(
        f"SELECT DISTINCT a.line, a.response FROM read_parquet({literal(path)}) a JOIN {joined.rows} r "
        f"ON r.file = {number} AND r.answer_key_hash = a.key_hash WHERE a.response IS NOT NULL"
    )
    while batch := cursor.fetchmany(_AT_ONCE):
        yield from ((int(line), str(response)) for line, response in batch)


def _make(ledger: Ledger, tag: str, wanted: dict[int, list[Picture]], store: ImageStore) -> None:
    last = max(wanted)
    with reading_results(ledger, tag) as raw, open_lines(raw) as lines:
        for number, line in enumerate(lines, start=1):
            if number in wanted:
                lacking = {picture.file: picture for picture in wanted.pop(number)}
                for picture, content in pictures(decode_line(line)):
                    if picture.file in lacking and hashlib.sha256(content).hexdigest() == picture.sha256:
                        store.put(picture.file, content)
                        del lacking[picture.file]
                if lacking:
                    wanted[number] = list(lacking.values())
            if number >= last:
                break
    if wanted:
        missing = sum(len(found) for found in wanted.values())
        raise DestinationError(
            f"{missing:,} images of {tag} are not in its archived results any more.",
            hint="`batchform ledger verify` says what is damaged; nothing else was changed.",
        )

"""SQL of any database, looked at without knowing its grammar: one statement that reads, steady, ordered or not."""

from __future__ import annotations

import re
from typing import Final

from msgspec import Struct

from batchform.adapters.sources.sql import unsteady_error
from batchform.errors import SourceError

_TOKEN = re.compile(
    r"""[eE]'(?:[^'\\]|\\.|'')*' | '(?:[^']|'')*' | "(?:[^"]|"")*" | `[^`]*`      # text and quoted names
      | --[^\n]* | /\*.*?\*/                                                    # comments
      | \$(?P<tag>\w*)\$.*?\$(?P=tag)\$                                         # text of PostgreSQL
      | (?P<word>[A-Za-z_]\w*) | (?P<open>\() | (?P<close>\)) | (?P<end>;) | (?P<stray>['"`]|/\*) | .""",
    re.DOTALL | re.VERBOSE,
)
_CALL = re.compile(r"\s*\(")
_READS: Final = frozenset({"SELECT", "WITH", "VALUES", "TABLE"})
_UNSTEADY: Final = frozenset(
    {
        *(
            "random",
            "rand",
            "randomblob",
            "random_normal",
            "newid",
            "newsequentialid",
            "sys_guid",
            "uuid",
            "uuid_short",
        ),
        *("gen_random_uuid", "uuid_generate_v1", "uuid_generate_v4", "uuidv4", "uuidv7", "generate_uuid"),
        *("clock_timestamp", "timeofday", "nextval", "setval", "currval", "txid_current", "pg_backend_pid"),
    }
)


class Looked(Struct, frozen=True):
    """sql: without a trailing semicolon; words: outside of quotes and comments, upper case, with their depth in
    parentheses and whether a parenthesis follows."""

    sql: str
    words: tuple[tuple[str, int, bool], ...]

    @property
    def ordered(self) -> bool:
        """Whether the statement itself has an ORDER BY."""
        return any(
            word == "ORDER" and depth == 0 and after[0] == "BY"
            for (word, depth, _), after in zip(self.words, self.words[1:], strict=False)
        )


def check_query(query: str) -> Looked:
    """One statement that reads, and is steady. Raises SourceError."""
    looked = _look(query, "source.query", allow_end=True)
    first = next(iter(looked.words), ("", 0, False))[0]
    if first not in _READS:
        raise SourceError("source.query may only read: it must be one SELECT.")
    return looked


def check_where(where: str) -> str:
    """One condition, and nothing that could follow it. Raises SourceError."""
    return _look(where, "source.where", allow_end=False).sql


def _look(sql: str, what: str, *, allow_end: bool) -> Looked:
    words: list[tuple[str, int, bool]] = []
    depth, ended = 0, -1
    for token in _TOKEN.finditer(sql):
        if ended >= 0 and not (token[0].isspace() or token[0] == ";" or token[0].startswith(("--", "/*"))):
            raise SourceError(f"{what} must hold exactly one SELECT.")
        depth += bool(token["open"]) - bool(token["close"])
        if depth < 0 or token["stray"]:
            wrong = "a quote or comment that is never closed" if token["stray"] else "a ) too many"
            raise SourceError(f"{what} is not valid SQL: it has {wrong}.")
        if token["end"] and not allow_end:
            raise SourceError(f"{what} must be one SQL condition, such as status = 'open'.", hint="Leave the ; out.")
        if token["end"] and ended < 0:
            ended = token.start()
        if token["word"]:
            words.append((token[0].upper(), depth, _CALL.match(sql, token.end()) is not None))
    if depth:
        raise SourceError(f"{what} is not valid SQL: a ( is never closed.")
    if not words:
        raise SourceError(f"{what} holds no SQL.")
    looked = Looked(sql if ended < 0 else sql[:ended], tuple(words))
    _refuse_unsteady(looked, what)
    return looked


def _refuse_unsteady(looked: Looked, what: str) -> None:
    names = {word for word, _, _ in looked.words}
    for word, _, called in looked.words:
        if called and word.lower() in _UNSTEADY:
            raise unsteady_error(f"{word.lower()}()", what)
    if "TABLESAMPLE" in names and "REPEATABLE" not in names:
        raise SourceError(
            f"{what} takes a sample without a seed, which is another one in every run.",
            hint="Write REPEATABLE (1) after the sample.",
        )

"""`--select`: which specs a command is about."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from fnmatch import fnmatchcase

from batchform.errors import UsageError
from batchform.spec.resolved import ResolvedSpec
from batchform.spec.wording import shown, suggestion

Find = Callable[[str], Set[str]]
"""What stands after the colon → names of specs."""


def select(
    specs: Sequence[ResolvedSpec], patterns: Iterable[str], *, found_by: Mapping[str, Find] | None = None
) -> tuple[ResolvedSpec, ...]:
    """The specs that any pattern names, in their own order; all of them when there is no pattern.

    A pattern is a name, a glob over names, `tag:NAME` (NAME may be a glob), `WORD:…` for a word of found_by, or several
    of these with commas. Raises UsageError for a name or tag that no spec has; what a word finds may be none.
    """
    wanted = [p for pattern in patterns for p in (part.strip() for part in pattern.split(",")) if p]
    if not wanted:
        return tuple(specs)
    chosen: set[str] = set()
    for pattern in wanted:
        word, _, rest = pattern.partition(":")
        if found_by and word in found_by:
            chosen |= found_by[word](rest)
            continue
        found = {spec.name for spec in specs if _matches(spec, pattern)}
        if not found:
            raise _nothing(specs, pattern)
        chosen |= found
    return tuple(spec for spec in specs if spec.name in chosen)


def _matches(spec: ResolvedSpec, pattern: str) -> bool:
    if pattern.startswith("tag:"):
        return any(fnmatchcase(tag, pattern[4:]) for tag in spec.spec.tags)
    return fnmatchcase(spec.name, pattern)


def _nothing(specs: Sequence[ResolvedSpec], pattern: str) -> UsageError:
    if pattern.startswith("tag:"):
        tags = sorted({tag for spec in specs for tag in spec.spec.tags})
        hint = suggestion(pattern[4:], tags, noun="Tags") or "No spec has a tag."
        return UsageError(f"no spec has the tag {shown(pattern[4:])!r}", hint=hint)
    hint = suggestion(pattern, [spec.name for spec in specs], noun="Specs")
    return UsageError(f"there is no spec {shown(pattern)!r}", hint=hint)

"""What is posted on a pull request: a plan with where it comes from, or that none could be made.

It ends with what is approved by merging, hidden, for the job that applies it: the digest of the plan, and its envelope.
"""

from __future__ import annotations

import re
from typing import Final

from batchform.plan.bounds import Envelope
from batchform.plan.model import Plan
from batchform.view.markdown import MAX_CHARS, code, marker, plain, plan_markdown

_LARGEST: Final = 1 << 20
_END: Final = re.compile(
    r"(?:^|\n)<!-- batchform:digest:(?P<digest>[a-z0-9:]+) -->\r?"
    r"(?:\n<!-- batchform:envelope:(?P<envelope>\S+) -->\r?)?\s*\Z"
)
"""What `_hidden` writes."""
COMMIT: Final = 10
"""Characters of a commit's name that are shown."""


def plan_comment(plan: Plan, *, commit: str, url: str) -> str:
    """The plan as Markdown, and which commit and run made it. At most MAX_CHARS characters."""
    footer = f"{_footer('Planned', commit, url)}{_hidden(plan)}"
    return plan_markdown(plan, max_chars=MAX_CHARS - len(footer)) + footer


def no_plan_comment(project: str, environment: str, *, commit: str, url: str) -> str:
    """That no plan could be made, in place of one of an earlier commit, which would mislead."""
    where = f" in {plain(environment)}" if environment else ""
    head = f"{marker(project, environment)}\n### ✗ batchform: no plan of {plain(project)}{where}\n\n"
    why = f"[The log]({url}) says why" if url else "The log of the run says why"
    return f"{head}{why}. Nothing is approved, and nothing will be sent.\n{_footer('Tried', commit, url)}"


def _footer(verb: str, commit: str, url: str) -> str:
    words = [f"{verb} at {code(commit[:COMMIT])}"] if commit else []
    words += [f"[log]({url})"] if url else []
    return f"\n<sub>{' · '.join(words)}</sub>\n" if words else ""


def approved_in(body: str) -> tuple[str, Envelope | None]:
    """Digest and envelope of the plan that a comment shows; "" and None if it shows none. Only its end counts: what
    stands above may be a row's text, also where the end has no envelope."""
    import binascii
    import zlib
    from base64 import b64decode

    import msgspec

    end = _END.search(body)
    if end is None:
        return "", None
    digest, told = end["digest"], end["envelope"] or ""
    try:
        raw = zlib.decompressobj().decompress(b64decode(told, validate=True), _LARGEST)
        envelope = msgspec.json.decode(raw, type=Envelope) if raw else None
    except (binascii.Error, zlib.error, msgspec.DecodeError):
        envelope = None
    return digest, envelope if envelope is not None and envelope.plan_digest == digest else None


def _hidden(plan: Plan) -> str:
    """What is approved, in comments that nobody sees. An envelope that has no room is left out: then only the very
    plan is approved."""
    import zlib
    from base64 import b64encode

    import msgspec

    lines = f"<!-- batchform:digest:{plan.digest} -->\n"
    if plan.envelope is not None:
        told = b64encode(zlib.compress(msgspec.json.encode(plan.envelope), 9)).decode()
        lines += f"<!-- batchform:envelope:{told} -->\n" if len(told) < MAX_CHARS // 2 else ""
    return lines

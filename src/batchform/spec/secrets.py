"""What keys, tokens and private paths look like, so that none is sent or committed. Found, keys are named by kind and
never shown."""

from __future__ import annotations

import re
from typing import Final

# kind → (what every such secret has in it, its whole form), in the regular expressions that RE2 and Python share
_KINDS: Final = {
    "an API key of Google": ("AIza", r"AIza[0-9A-Za-z_-]{35}"),
    "an access token of Google": (r"ya29\.", r"ya29\.[0-9A-Za-z_-]{20,}"),
    "a client secret of Google": ("GOCSPX-", r"GOCSPX-[0-9A-Za-z_-]{20,}"),
    "a private key": ("PRIVATE KEY-----", r"-----BEGIN (?:[A-Z]+ )*PRIVATE KEY-----"),
    "a token of GitHub": ("gh[oprsu]_|github_pat_", r"\bgh[oprsu]_[0-9A-Za-z]{36}|\bgithub_pat_[0-9A-Za-z_]{40,}"),
    "an access key of AWS": ("AKIA", r"\bAKIA[0-9A-Z]{16}\b"),
    "a token of Slack": ("xox[abprs]-", r"\bxox[abprs]-[0-9A-Za-z-]{20,}"),
    "an API key of Anthropic": (r"\bsk-ant-", r"\bsk-ant-[0-9A-Za-z_-]{40,}"),
    "an API key of OpenAI": (r"\bsk-", r"\bsk-(?:proj-)?[0-9A-Za-z_-]{40,}"),
}
MARKS: Final = "|".join(mark for mark, _ in _KINDS.values())
"""An expression that every text with a secret matches: cheap to look for, and no proof of one."""

_FORMS: Final = {kind: re.compile(form) for kind, (_, form) in _KINDS.items()}


HOME: Final = re.compile(
    r"(?:(?<![\w./:~-])|(?<=file://))(?:/home/|/Users/|[A-Za-z]:[\\/]+[Uu]sers[\\/]+)"
    r"(?!(?:user|username|runner|shared|you|me|NAME)\b)[A-Za-z][\w.-]*",
    re.IGNORECASE,
)
"""A path in somebody's home folder; in a URL, `/users/` is something else."""


def secret_in(text: str) -> str:
    """The kind of a secret in a text; "" if it has none."""
    return next((kind for kind, form in _FORMS.items() if form.search(text)), "")

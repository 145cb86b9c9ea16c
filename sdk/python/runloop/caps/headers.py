"""Headers of a request that somebody else chose: which names and values there may be, and which are ours.

Knows: what frames a message, names its host or carries what this machine knows. Does not know: who asks
(an agent by ``http.fetch``, a bundle by ``tools.json``). Pure.
"""

from __future__ import annotations

import re

__all__ = ["FRAMING", "NAME", "VALUE"]

NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,64}\Z")
"""A token of RFC 9110, not too long."""
VALUE = re.compile(r"[\x21-\x7e]([\x20-\x7e]*[\x21-\x7e])?\Z")
"""Printable ASCII without blanks around it: no line break, so no second header."""
FRAMING = frozenset(
    {
        "accept-encoding",
        "connection",
        "content-length",
        "cookie",
        "expect",
        "host",
        "keep-alive",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "user-agent",
        "via",
    }
)
"""In lower case: those that only the one who sends may set."""

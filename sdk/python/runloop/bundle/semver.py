"""Versions, as semver.org (2.0.0) has them: which texts are one, and their order (rule 11).

Does not know: who may go back to an older one.
"""

from __future__ import annotations

import re

from runloop.errors import UsageError

__all__ = ["Precedence", "in_range", "is_version", "precedence"]

_VERSION = re.compile(
    r"(0|[1-9]\d{0,8})\.(0|[1-9]\d{0,8})\.(0|[1-9]\d{0,8})(-[0-9A-Za-z-]+(\.[0-9A-Za-z-]+)*)?"
    r"(\+[0-9A-Za-z-]+(\.[0-9A-Za-z-]+)*)?\Z",
    re.ASCII,
)
_MAX_CHARS = 128

Precedence = tuple[int, int, int, bool, tuple[tuple[bool, int, str], ...]]


def is_version(text: str) -> bool:
    """Whether ``text`` is MAJOR.MINOR.PATCH with what may follow, short enough for a file name."""
    return len(text) <= _MAX_CHARS and _VERSION.match(text) is not None


def precedence(version: str) -> Precedence:
    """A key that sorts valid versions; build metadata (``+…``) does not count."""
    release, _, before = version.partition("+")[0].partition("-")
    major, minor, patch = map(int, release.split("."))
    # A release follows its pre-releases; numbers precede words; a longer list follows its own beginning.
    words = tuple(
        (False, int(word), "") if word.isdigit() else (True, 0, word) for word in before.split(".") if word
    )
    return major, minor, patch, not before, words


_BOUND = re.compile(r"(>=|<=|>|<|=)?(\d{1,9}(?:\.\d{1,9}){0,2}(?:-[0-9A-Za-z.-]+)?)\Z", re.ASCII)


def in_range(version: str, bounds: str) -> bool:
    """Whether a version meets every bound: words such as ``>=1.2``, ``<2``, ``=1.0.0``, separated by spaces.

    A bound with fewer numbers is filled with zeros; without a sign it means ``=``. Raises ``UsageError``.
    """
    words = bounds.split()
    found = [_BOUND.match(word) for word in words]
    if not words or None in found:
        raise UsageError(
            f"{bounds[:80]!r} is no range of versions", hint="such as '>=1.2 <2'", code="semver.range"
        )
    own = precedence(version)
    for match in found:
        sign, text = match.groups()  # type: ignore[union-attr]
        release, dash, before = text.partition("-")
        whole = ".".join([*release.split("."), "0", "0"][:3]) + dash + before
        if not is_version(whole):
            raise UsageError(f"{text!r} is no version", hint="such as 1.2.0", code="semver.range")
        other = precedence(whole)
        holds = {">=": own >= other, "<=": own <= other, ">": own > other, "<": own < other}
        if not holds.get(sign, own == other):
            return False
    return True

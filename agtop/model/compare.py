"""Two runs' files side by side: which are the same, which differ, and in what.

Knows: pairing by name, digests, and a bounded unified diff of texts. Does not know: where bytes are, or how
a difference is shown; all lines are foreign text.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple

from agtop.model.bytes import is_text
from agtop.model.state import ArtifactRow

__all__ = ["MAX_LINES", "Pair", "differences", "newest", "pairs"]

MAX_LINES = 4_000
"""Of either text that are compared."""
Verdict = Literal["same", "changed", "only here", "only there"]


class Pair(NamedTuple):
    """A name, and what each of two runs has under it."""

    name: str
    here: ArtifactRow | None
    there: ArtifactRow | None

    @property
    def verdict(self) -> Verdict:
        if self.here is None:
            return "only there"
        if self.there is None:
            return "only here"
        return "same" if self.here.blob == self.there.blob else "changed"


def newest(rows: Iterable[ArtifactRow]) -> dict[str, ArtifactRow]:
    """Name -> the file that counts: a later one of the same name replaces it."""
    return {row.name: row for row in rows}


def pairs(here: Iterable[ArtifactRow], there: Iterable[ArtifactRow]) -> list[Pair]:
    """Every name that either run has, in the order of this run, then of the other."""
    mine, other = newest(here), newest(there)
    return [Pair(name, mine.get(name), other.get(name)) for name in dict.fromkeys([*mine, *other])]


def differences(here: bytes, there: bytes) -> list[str]:
    """What differs, from ``there`` to ``here``, as a unified diff without its head; a sentence for bytes that
    are no text."""
    if here == there:
        return []
    if not (is_text(here) and is_text(there)):
        return [f"no texts: {len(there)} bytes there, {len(here)} bytes here"]
    before, after = _lines(there), _lines(here)
    cut = max(len(before), len(after)) > MAX_LINES
    found = list(difflib.unified_diff(before[:MAX_LINES], after[:MAX_LINES], lineterm="", n=3))[2:]
    if cut:
        found.append(f"... compared are the first {MAX_LINES} lines of each")
    return found or ["the same text, written differently"]


def _lines(data: bytes) -> Sequence[str]:
    """Lines of a text; JSON as it reads when every value has a line of its own."""
    text = data.decode("utf-8", "backslashreplace")
    try:
        return json.dumps(json.loads(text), indent=2, sort_keys=True, ensure_ascii=False).splitlines()
    except (ValueError, RecursionError):
        return text.splitlines()

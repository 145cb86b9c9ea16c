"""Searching in words and by vector, fused by rank.

Knows: how words are asked of the full-text index (no character of a question has a meaning of its own), how
hits by word and hits by vector become one list, what of a text is shown. Does not know: how vectors are made
or kept (``pog.embed``, ``pog.vectors``), or what may be shown to whom (``pog.query`` masks).

Ranks are fused, never scores, because scores of different kinds cannot be compared: reciprocal rank fusion
(Cormack, Clarke, Büttcher, SIGIR 2009) with its k = 60. Entries with every word of the question come before
all others. Equal ranks, equal scores and equal dates have one order, so that the same question on the same
knowledge has one answer.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from pog.vectors import Nearest

__all__ = ["Ask", "By", "Hit", "fused", "opening", "ranked", "snippet", "words_of"]

MAX_WORDS = 32
MAX_QUERY_CHARS = 4_096
CANDIDATES = 128
"""Hits of each list that are fused."""
RANKED = 20_000
"""Newest matches of a word that are ranked: ranking costs by the match (lab/bus-store.md, kb.query)."""
RRF_K = 60
SNIPPET_WORDS = 24
_OPENING_CHARS = 256 * 1024
_YEAR_MS = 365 * 86_400_000
_WORD = re.compile(r"\w+")

Ask = Callable[[str, Sequence[Any]], list[dict[str, Any]]]
"""Runs one statement on the views and returns its rows."""


@dataclass(frozen=True, kw_only=True, slots=True)
class By:
    """Hits by vector, and who made the vectors."""

    embedder: str
    hits: Sequence[Nearest]


@dataclass(kw_only=True, slots=True)
class Hit:
    """One searchable and how it was found."""

    id: int
    """``searchables.id``."""
    every: bool = False
    """It holds every word of the question."""
    found_by: dict[str, int] = field(default_factory=dict)
    """``words`` or the name of an embedder -> rank in that list, from 1."""

    @property
    def score(self) -> float:
        """Sum of reciprocal ranks: comparable within one answer only."""
        return sum(1 / (RRF_K + rank) for rank in self.found_by.values())


def words_of(query: str) -> list[str]:
    """The words asked for; empty when there is none."""
    found = _WORD.findall(query[:MAX_QUERY_CHARS])
    return list(dict.fromkeys(word.lower() for word in found))[:MAX_WORDS]


def ranked(ask: Ask, words: Sequence[str], kinds: Collection[str], k: int) -> list[Hit]:
    """Hits by word: those with every word first, best first; ``kinds`` empty means all."""
    if not words:
        return []
    quoted = [f'"{word}"' for word in words]
    every = _matches(ask, " AND ".join(quoted), kinds)
    hits = [Hit(id=item, every=True) for item in every]
    if len(hits) < k and len(quoted) > 1:
        have = set(every)
        hits += [Hit(id=item) for item in _matches(ask, " OR ".join(quoted), kinds) if item not in have]
    for rank, hit in enumerate(hits, 1):
        hit.found_by["words"] = rank
    return hits


def fused(hits: Sequence[Hit], by: By | None, k: int) -> list[Hit]:
    """The ``k`` best of both lists. Vectors of equal cosine have equal ranks."""
    found = {hit.id: hit for hit in hits}
    if by is not None:
        rank, last = 0, None
        for number, near in enumerate(by.hits[:CANDIDATES], 1):
            if near.cosine != last:
                rank, last = number, near.cosine
            found.setdefault(near.item, Hit(id=near.item)).found_by[by.embedder] = rank
    unranked = len(hits) + 1
    order = sorted(
        found.values(),
        key=lambda hit: (not hit.every, -hit.score, hit.found_by.get("words", unranked), -hit.id),
    )
    return order[:k]


def opening(text: str) -> str:
    """As much of a text as is looked through for a snippet; no word is cut."""
    if len(text) <= _OPENING_CHARS:
        return text
    cut = text[:_OPENING_CHARS]
    blank = max(cut.rfind(" "), cut.rfind("\n"))
    return cut[:blank] if blank > 0 else ""


def snippet(text: str, words: Iterable[str]) -> str:
    """The stretch of ``text`` in which the first of ``words`` stands, about ``SNIPPET_WORDS`` long.

    Cut from a text that was masked already: an address that a cut divides would not be recognised.
    """
    wanted = [word[: max(3, len(word) - 2)] for word in words]
    lower = text.lower()
    first = min((at for word in wanted if (at := _starts(lower, word)) >= 0), default=0)
    tokens = [match.span() for match in re.finditer(r"\S+", text[max(0, first - 400) : first + 1_600])]
    if not tokens:
        return ""
    base = max(0, first - 400)
    middle = next((number for number, (_, end) in enumerate(tokens) if base + end > first), 0)
    begin = max(0, min(middle - SNIPPET_WORDS // 3, len(tokens) - SNIPPET_WORDS))
    if begin == 0 and base > 0:
        begin = 1  # the first one may be cut in the middle
    shown = tokens[begin : begin + SNIPPET_WORDS] or tokens[:SNIPPET_WORDS]
    start, end = base + shown[0][0], base + shown[-1][1]
    lead = "… " if text[:start].strip() else ""
    trail = " …" if text[end:].strip() else ""
    return lead + text[start:end] + trail


def _starts(text: str, word: str) -> int:
    """Where a word begins with ``word``; -1 when none does."""
    found = re.search(rf"(?<!\w){re.escape(word)}", text)
    return found.start() if found else -1


def _matches(ask: Ask, match: str, kinds: Collection[str]) -> list[int]:
    """Ids of what matches, best first, newer ones slightly ahead.

    Ranked inside the full-text index first, joined afterwards: twice as fast as the other way round. Of a
    word that is everywhere only the newest matches are ranked; they have the largest ids.
    """
    some = sorted(set(kinds))
    marks = ", ".join("?" * len(some))
    scope = f"AND (SELECT kind FROM searchables WHERE id = search.rowid) IN ({marks})" if some else ""  # noqa: S608
    rows = ask(
        f"""
            WITH newest AS MATERIALIZED (
                SELECT rowid AS id, bm25(search, 4.0, 1.0) AS rank
                FROM search WHERE search MATCH ? {scope} ORDER BY search.rowid DESC LIMIT {RANKED}
            ), best AS MATERIALIZED (SELECT id, rank FROM newest ORDER BY rank, id DESC LIMIT {CANDIDATES})
            SELECT best.id AS id, rank, dated_ms, (SELECT max(dated_ms) FROM searchables) AS newest_ms
            FROM best JOIN searchables ON searchables.id = best.id
        """,  # noqa: S608
        (match, *some),
    )

    def score(row: dict[str, Any]) -> float:
        age = max(0, row["newest_ms"] - row["dated_ms"]) / _YEAR_MS
        return float(-row["rank"] * (1 + 0.2 / (1 + age)))

    return [row["id"] for row in sorted(rows, key=lambda row: (-score(row), -row["id"]))]

"""Shortens a document by counting: sentences whose words occur most, what is open, which dates it names."""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

from runloop.agent import Fail, Result, Task, handler

_SENTENCE = re.compile(r"(?<=[.!?])\s+|\n+")
_WORD = re.compile(r"[^\W\d_]{3,}")
_OPEN = re.compile(r"\?|\b(?:todo|to do|open question|decide[sd]?|risk)\b", re.IGNORECASE)
_MONTHS = "January|February|March|April|May|June|July|August|September|October|November|December"
_DATE = re.compile(rf"\b\d{{4}}-\d{{2}}-\d{{2}}\b|\b\d{{1,2}} (?:{_MONTHS})\b")
_COMMON = frozenset(
    """all and are but can for from has have not our that the their they this was were with you""".split()  # noqa: SIM905
)


@handler
def handle(task: Task, host: Any) -> Result:
    """Port ``item`` -> its digest on port ``digest``."""
    item = task.port("item")
    count = task.param("sentences", 2)
    if not isinstance(item, dict) or not isinstance(item.get("text"), str):
        raise Fail("digest.input", "the document on port 'item' has no text")
    if not isinstance(count, int) or not 1 <= count <= 20:
        raise Fail("digest.input", f"'sentences' cannot be {count!r}; use 1 to 20")
    lines = [clean(part) for part in _SENTENCE.split(item["text"])]
    lines = list(dict.fromkeys(line for line in lines if len(line) > 11 and " " in line))
    weight = Counter(word for line in lines for word in words(line))
    ranked = sorted(range(len(lines)), key=lambda place: (-score(lines[place], weight), place))
    return Result.of(
        digest={
            "title": str(item.get("title") or "untitled"),
            "when": str(item.get("when") or ""),
            "sentences": [lines[place] for place in sorted(ranked[:count])],
            "open": [line for line in lines if _OPEN.search(line)],
            "dates": list(dict.fromkeys(_DATE.findall(item["text"]))),
            "words": len(_WORD.findall(item["text"])),
        }
    )


def score(line: str, weight: Counter[str]) -> float:
    """How much of the document's vocabulary a sentence carries, for its length."""
    found = words(line)
    return sum(weight[word] for word in found) / (len(found) + 3) if found else 0.0


def words(line: str) -> set[str]:
    return {word.casefold() for word in _WORD.findall(line)} - _COMMON


def clean(line: str) -> str:
    """One line, without list and heading signs."""
    return " ".join(re.sub(r"^\s*(?:[-*+>#]+|\d+[.)])\s*", "", line).split())

"""Without a language model: say so, say what would help, and do the part that needs none: finding."""

from __future__ import annotations

import re
from typing import Any

import desk

from runloop.host import HostRefused

_NUMBERS = {"one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8}
_TOPIC = re.compile(
    r"\b(?:about|on|regarding|concerning|of)\s+(.+?)(?:\s+(?:and|then|to|for)\b|[,.;!?]|$)", re.IGNORECASE
)
_WORD = re.compile(r"[^\W_]{3,}")
_COMMON = frozenset(
    """about after all and any are ask can could draft find for from get give have how latest list mail
    mails me message newest note notes one our please recent send show summarise summarize summary
    tell that the their them then this those three two was what when where which who whom why will
    with would write you your
    """.split()  # noqa: SIM905
)


def answer(mine: desk.Desk, wish: str, why: str) -> tuple[str, list[dict[str, Any]]]:
    """What the user is told, and what was found."""
    topic = topic_of(wish)
    lines = [
        "No language model is available, so I cannot summarise, write or decide. Nothing of this was done:",
        f"  {' '.join(wish.split())[:300]}",
        f"Why: {why[:400]}",
        "What helps: 'rlp providers' shows what can answer; start a local model, or configure one under "
        "[models.providers].",
    ]
    found = _found(mine, wish, topic)
    if found:
        lines += ["", f"What needs no model: I searched for '{topic}' and found"]
        lines += [f"  {n}. {_line(one)}" for n, one in enumerate(found, 1)]
    else:
        lines += [
            "",
            f"I searched for '{topic}' and found nothing." if topic else "There was nothing to search for.",
        ]
    return "\n".join(lines), found


def topic_of(wish: str) -> str:
    """What a wish is about: what stands behind 'about', else its words that are not about the doing."""
    named = _TOPIC.search(wish)
    words = _WORD.findall(named[1] if named else wish)
    return " ".join(word for word in words if word.casefold() not in _COMMON)[:120]


def _found(mine: desk.Desk, wish: str, topic: str) -> list[dict[str, Any]]:
    if not topic:
        return []
    said = [word.casefold() for word in re.findall(r"\w+", wish)]
    count = next(
        (_NUMBERS.get(word) or int(word) for word in said if word in _NUMBERS or word in "12345678"), 3
    )
    kinds = ["note"] if {"note", "notes"} & set(said) else ["note", "mail"]
    newest = bool({"newest", "latest", "recent", "last", "new"} & set(said))
    args = {"query": topic, "kinds": kinds, "newest": newest, "limit": count}
    try:
        seen = mine.find(args)
    except HostRefused:
        return []
    found: list[dict[str, Any]] = desk.masked(seen.value)
    return found


def _line(one: dict[str, Any]) -> str:
    text = " ".join(str(one["text"]).split())[:160]
    return f"{one['title']} ({one['kind']}{', ' + one['written'] if one['written'] else ''}): {text}"

"""What the assistant remembers: facts, each with the label of its sources, and the last conversation.

The label a fact has here is for the model; the host stamps the record by itself with the lowest label the
run has heard, and labels whatever is read again accordingly. Neither can be raised by remembering.
"""

from __future__ import annotations

import re
from typing import Any

from runloop.host import Host
from runloop.loop import Seen, lowest

FACTS = "facts"
CONVERSATION = "conversation"
MAX_FACTS = 100
MAX_FACT = 500
MAX_SOURCES = 10
MAX_TURNS = 6
MAX_WORDS = 4_000
_WORD = re.compile(r"[^\W_]{3,}")


def remember(host: Host, text: str, label: str, sources: list[str], now_ms: int) -> dict[str, Any]:
    """Keep a fact; the oldest gives way when there are too many, and the same text is kept once."""
    kept, version = _facts(host)
    kept = [one for one in kept if one["text"] != text]
    fact = {"text": text, "label": label, "from": sources[-MAX_SOURCES:], "ms": now_ms}
    kept = [*kept, fact][-MAX_FACTS:]
    host.memory_put(FACTS, {"facts": kept}, expected_version=version)
    return {"remembered": text, "label": label, "facts": len(kept)}


def recall(host: Host, query: str) -> Seen:
    """The facts that share most words with a query, at most eight; the newest of equals first."""
    kept, _ = _facts(host)
    wanted = {word.casefold()[:6] for word in _WORD.findall(query)}
    scored = [
        (len(wanted & {word.casefold()[:6] for word in _WORD.findall(one["text"])}), number)
        for number, one in enumerate(kept)
    ]
    best = [kept[number] for score, number in sorted(scored, reverse=True) if score][:8]
    return Seen(best, lowest(*[one["label"] for one in best]))


def _facts(host: Host) -> tuple[list[dict[str, Any]], int]:
    value, version = host.memory_get(FACTS)
    found = value.get("facts") if isinstance(value, dict) else None
    kept = [
        {**one, "text": str(one["text"]), "label": str(one.get("label") or "unknown")}
        for one in (found if isinstance(found, list) else [])
        if isinstance(one, dict) and one.get("text")
    ]
    return kept, version


def conversation(host: Host) -> tuple[list[tuple[str, str]], str]:
    """The last wishes with their answers, and the lowest label they were made under."""
    value, _ = host.memory_get(CONVERSATION)
    turns = value.get("turns") if isinstance(value, dict) else None
    kept = [
        (str(turn[0]), str(turn[1]))
        for turn in (turns if isinstance(turns, list) else [])
        if isinstance(turn, list) and len(turn) == 2
    ]
    return kept, str(value.get("label") or "unknown") if kept else "user"


def keep_conversation(host: Host, turns: list[tuple[str, str]], label: str, now_ms: int) -> None:
    """Keep the newest wishes with their answers."""
    kept = [[wish[:MAX_WORDS], answer[:MAX_WORDS]] for wish, answer in turns[-MAX_TURNS:]]
    host.memory_put(CONVERSATION, {"turns": kept, "label": label, "ms": now_ms})

"""How the notes speak of a symbol: words counted by a lexicon, turned round by negation."""

from __future__ import annotations

import re
from typing import Any

from runloop.agent import Result, Task, handler
from runloop.host import Host

GOOD = frozenset(
    """
    approve award beat beats boost deliver delivered expand expanded expands gain gains good grew grow
    grows growth higher improve improved improves improving profit profitable profits raise raised
    raises recover recovered recovery rise rises rose secure secured strong stronger success upgrade
    upgraded win wins won
    """.split()  # noqa: SIM905 - words read better than quotes
)
BAD = frozenset(
    """
    accident bad cancel cancelled claim claims complaint cut cuts damage decline declined declines delay
    delayed delays downgrade downgraded drop dropped drops fail failed fails failure fall fell fine
    fraud halt halted investigation lawsuit lose loses loss losses lost lower miss missed misses recall
    shortage strike strikes warn warned warning warns weak weaker worse
    """.split()  # noqa: SIM905 - words read better than quotes
)
TURN = frozenset(["no", "not", "never", "without", "hardly", "neither", "nor"])
REACH = 3
"""A negation turns a word at most so many words behind it in the same sentence."""
MOST_NOTES = 20


@handler
def handle(task: Task, host: Host) -> Result:
    """Port ``series`` names the symbol -> the notes on it, each with its score, on port ``opinion``."""
    symbol = str(task.port("series")["symbol"])
    name = str(task.param("name", "") or "")
    notes = []
    for hit in host.kb_search(f"{symbol} {name}".strip(), k=MOST_NOTES, kinds=["note"]):
        note = host.kb_read("document", str(hit["id"]))
        text = f"{note.get('title') or ''}. {note.get('text') or ''}"
        if not names(text, symbol, name):
            continue  # the search finds by meaning, too
        good, bad = count(text)
        notes.append(
            {"title": str(note.get("title") or ""), "good": good, "bad": bad, "score": score(good, bad)}
        )
    notes.sort(key=lambda note: str(note["title"]))
    told = [float(str(note["score"])) for note in notes if note["good"] or note["bad"]]
    overall = sum(told) / len(told) if told else 0.0
    opinion: dict[str, Any] = {"notes": notes, "told": len(told), "score": round(overall, 6)}
    host.progress(f"{len(notes)} notes, sentiment {overall:+.2f}")
    return Result.of(opinion=opinion)


def names(text: str, symbol: str, name: str) -> bool:
    """Whether a text speaks of the symbol, or of the name in full."""
    words = [re.escape(symbol)] + ([re.escape(name)] if name else [])
    return re.search(rf"(?<!\w)(?:{'|'.join(words)})(?!\w)", text, re.IGNORECASE) is not None


def count(text: str) -> tuple[int, int]:
    """Good and bad words, those behind a negation the other way round."""
    good = bad = 0
    for sentence in re.split(r"[.!?;:\n]+", text.lower()):
        words = re.findall(r"[a-z]+", sentence)
        for place, word in enumerate(words):
            if word not in GOOD and word not in BAD:
                continue
            turned = any(before in TURN for before in words[max(0, place - REACH) : place])
            if (word in GOOD) != turned:
                good += 1
            else:
                bad += 1
    return good, bad


def score(good: int, bad: int) -> float:
    """-1 (all bad) to 1 (all good); 0 where nothing was said."""
    return round((good - bad) / (good + bad), 6) if good or bad else 0.0

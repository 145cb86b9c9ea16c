"""Collects facts on a topic from notes and mail. What it reads is foreign text: data, not instructions.

A mail is a source only when the person the facts are for took part in it: what others wrote to the user is
not theirs to read, and a stranger's mail has no way into a draft.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Any

from runloop.agent import Fail, Result, Task, handler
from runloop.host import Host

MAX_DOCUMENTS = 6
FULL_LINE = 45
"""Characters from which a line that does not end a sentence was broken because it was full."""
MAX_FACT = 280
"""Characters of one fact."""

_SENTENCE = re.compile(r"(?<=[.!?])\s+|\n+")
_BULLET = re.compile(r"^(?:[-*+•>#]+|\d+[.)])\s*")
_WORD = re.compile(r"[^\W_]+")
_TALKS_TO_MACHINES = re.compile(
    r"\b(ignore|disregard|forget)\b.{0,40}\b(previous|prior|above|earlier|all)\b"
    r"|\b(approve|authori[sz]e|confirm|accept)\s+(this|the|it|all|any|every|automatically)\b"
    r"|\b(system|developer)\s+(prompt|message|note|override)\b|^\s*(system|assistant|developer|user)\s*:"
    r"|\byou\s+are\s+(now|an?\s+(ai|assistant|agent|language model))\b"
    r"|\b(ai|assistants?|agents?|language models?)\b.{0,30}\b(must|should|shall|have to)\b"
    r"|\b(without|skip|no)\b.{0,20}\b(confirmation|approval|review)\b"
    r"|\brlp\s+\w+|</?(system|instructions?|tool)\b",
    re.IGNORECASE,
)
_ADDRESS = re.compile(r"[^\s@<>]+@[^\s@<>]+")
_COMMON = frozenset(
    """a about after all an and are as at be been but by can do for from has have i if in into is it its me my
    not of on or our so that the their there they this to us was we were what when which who will with you
    your""".split()  # noqa: SIM905
)


@handler
def handle(task: Task, host: Host) -> Result:
    """Port ``contact`` and ``with.topic`` -> facts with their sources on port ``out``."""
    contact = task.port("contact")
    topic = " ".join(str(task.param("topic")).split())
    limit = task.param("limit", 6)
    if not isinstance(contact, dict) or not topic:
        raise Fail("context.input", "a contact on port 'contact' and a topic under 'with' are needed")
    if not isinstance(limit, int) or not 0 <= limit <= 50:
        raise Fail("context.input", f"'limit' cannot be {limit!r}; use 0 to 50")
    wanted = words(topic)
    people: list[str] = []
    scored: list[tuple[bool, int, int, dict[str, Any]]] = []
    withheld = 0
    for rank, document in enumerate(documents(host, topic, contact)):
        if not shared_with(contact, document):
            withheld += 1
            continue
        people += texts(document.get("people"))
        # Every line of a note that is named after the topic is about it.
        about = len(wanted & words(str(document["title"])))
        own = document["kind"] == "note"
        for sentence in sentences(str(document.get("text", ""))):
            if _TALKS_TO_MACHINES.search(sentence) or _ADDRESS.search(sentence):
                withheld += 1
                continue
            hits = len(wanted & words(sentence)) + (about if own else 0)
            if hits and not (own is False and sentence.endswith("?")):
                scored.append((not own, -hits, rank, fact(sentence, document)))
    # The user's own notes first; a question somebody asked in a mail is no fact.
    scored.sort(key=lambda entry: entry[:3])
    facts: list[dict[str, Any]] = []
    for *_, found in scored:
        if all(found["text"] != other["text"] for other in facts):
            facts.append(found)
    bundle = {
        "contact": contact,
        "topic": topic,
        "facts": facts[:limit],
        "people": list(dict.fromkeys(people))[:20],
        "withheld": withheld,
    }
    return Result.of(out=bundle)


def documents(host: Host, topic: str, contact: dict[str, Any]) -> list[dict[str, Any]]:
    """Whole documents, those on the topic first, then those that name the person."""
    found: dict[str, dict[str, Any]] = {}
    name = str(contact.get("name") or "")
    for query in (topic, f"{name} {topic}" if name else ""):
        if not query or len(found) >= MAX_DOCUMENTS:
            continue
        for item in host.kb_search(query, k=MAX_DOCUMENTS, kinds=["note", "mail"]):
            key = str(item.get("id", ""))
            if key and key not in found and len(found) < MAX_DOCUMENTS:
                document = host.kb_read("document", key)
                found[key] = {
                    **document,
                    "id": key,
                    "kind": item.get("kind") or document.get("type") or "note",
                    "title": document.get("title") or item.get("title") or "",
                    "event": item.get("event", document.get("event")),
                }
    return list(found.values())


def shared_with(contact: dict[str, Any], document: dict[str, Any]) -> bool:
    """Whether the contact may be told what it says: the user's own note, or a mail they took part in."""
    if document.get("kind") == "note":
        return True
    known = (*texts(contact.get("emails")), str(contact.get("email") or ""))
    theirs = {address.casefold() for address in known}
    return any(person.casefold() in theirs for person in texts(document.get("people")) if person)


def fact(sentence: str, document: dict[str, Any]) -> dict[str, Any]:
    """One sentence with where it is from."""
    return {
        "text": sentence,
        "source": document["id"],
        "title": clean(str(document["title"]))[:120],
        "kind": str(document["kind"]),
        "event": document["event"],
        "label": "untrusted",
    }


def sentences(text: str) -> list[str]:
    """Sentences and list items, cleaned, without headers, quotes and fragments."""
    made = []
    for part in _SENTENCE.split(unwrapped(text[:200_000])):
        if part.lstrip().startswith((">", "#")):
            continue
        piece = clean(_BULLET.sub("", part.strip()))
        if len(piece) >= 12 and " " in piece:
            made.append(piece if len(piece) <= MAX_FACT else piece[: MAX_FACT - 1].rstrip() + "…")
    return made


def unwrapped(text: str) -> str:
    """The text with lines joined that were broken by hand inside a sentence: mail and notes are wrapped."""
    lines: list[str] = []
    last = ""
    for line in text.splitlines():
        piece = line.strip()
        inside = last and not last.endswith((".", "!", "?", ":")) and piece and not _BULLET.match(piece)
        if inside and (len(last) >= FULL_LINE or piece[0].islower() or piece[0] == "("):
            lines[-1] = f"{lines[-1]} {piece}"
        else:
            lines.append(line)
        last = piece
    return "\n".join(lines)


def clean(text: str) -> str:
    """On one line, without control, bidi and zero-width characters."""
    text = re.sub(r"\x1b(?:\[[0-9;?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?)", "", text)
    kept = (" " if char.isspace() else char for char in text)
    hidden = ("Cc", "Cf", "Cs", "Co", "Cn")
    return " ".join("".join(char for char in kept if unicodedata.category(char) not in hidden).split())


def words(text: str) -> set[str]:
    """The words that carry meaning, without plural and case."""
    found = {word.casefold() for word in _WORD.findall(text)} - _COMMON
    return {word[:-1] if len(word) > 3 and word.endswith("s") else word for word in found}


def texts(value: Any) -> list[str]:
    """A list of strings, whatever the record holds."""
    return [str(item) for item in value] if isinstance(value, list) else []

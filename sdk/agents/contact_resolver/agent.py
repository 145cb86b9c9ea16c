"""Finds the one contact a query means, or says why there is not exactly one."""

from __future__ import annotations

import re
import unicodedata
from typing import Any

from runloop.agent import Fail, Result, Task, handler
from runloop.host import Host

MAX_CANDIDATES = 12
_ADDRESS = re.compile(r"[^\s@<>,;\"]+@[^\s@<>,;\"]+\.[^\s@<>,;\"]+\Z")


@handler
def handle(task: Task, host: Host) -> Result:
    """``with.query`` -> one contact on port ``out``."""
    query = " ".join(str(task.param("query")).split())
    if not query:
        raise Fail("contact.query", "the query is empty; name a person or give an address")
    found = [
        (score, how, person)
        for person in candidates(host, query)
        for score, how in [judge(query, person)]
        if score
    ]
    # Whatever an agent stated stands below everything the user brought in: it could name anybody anything.
    theirs = [one for one in found if not stated_by_agent(one[2])]
    if found and not theirs:
        found = confirmed(query, found)
    elif theirs:
        found = theirs
    best = max((score for score, _, _ in found), default=0)
    top = [(how, person) for score, how, person in found if score == best]
    if not top:
        if is_address(query):
            return Result.of(out=stranger(query))
        raise Fail("contact.unknown", f"no contact matches {query!r}; import it, or give an address")
    if len(top) > 1:
        names = "; ".join(describe(person) for _, person in top)
        raise Fail(
            "contact.ambiguous", f"{query!r} may be {len(top)} people: {names}. Give the name or the address"
        )
    how, person = top[0]
    return Result.of(out=shape(query, how, person))


def confirmed(
    query: str, found: list[tuple[int, str, dict[str, Any]]]
) -> list[tuple[int, str, dict[str, Any]]]:
    """What may be used although only agents know it: the very address that was asked for."""
    exact = [one for one in found if one[1] == "address"]
    if is_address(query):
        return exact if len(exact) == 1 else []
    names = "; ".join(f"{describe(person)} by {agent_of(person)}" for _, _, person in found)
    raise Fail(
        "contact.unconfirmed",
        f"{query!r} matches only what agents stated: {names}. Import the contact, or give the address",
    )


def stated_by_agent(person: dict[str, Any]) -> bool:
    """Whether an agent stated the contact, and not the user by an import."""
    return bool(agent_of(person))


def agent_of(person: dict[str, Any]) -> str:
    """``agent:<name>`` of the host's own note on who stated it; empty for what the user brought in."""
    marks = (str(person.get("label") or ""), str(person.get("source") or ""))
    return next((mark for mark in marks if mark.startswith("agent:")), "")


def candidates(host: Host, query: str) -> list[dict[str, Any]]:
    """Whole records of everybody the search offers, each once."""
    people: dict[str, dict[str, Any]] = {}
    for item in host.kb_search(query, k=MAX_CANDIDATES, kinds=["contact"]):
        name = str(item.get("id", ""))
        if name and name not in people:
            people[name] = {"event": item.get("event"), **host.kb_read("contact", name), "id": name}
    return list(people.values())


def judge(query: str, person: dict[str, Any]) -> tuple[int, str]:
    """How well a person fits, and how; 0 when the match is not about who they are."""
    wanted, name = plain(query), plain(str(person.get("name", "")))
    if wanted in [plain(email) for email in texts(person, "emails")]:
        return 100, "address"
    if wanted == name:
        return 90, "name"
    if wanted in [plain(nick) for nick in texts(person, "nicknames")]:
        return 80, "nickname"
    words, have = wanted.split(), name.split()
    if words and all(word in have for word in words):
        return 60, "part of the name"
    if words and all(any(other.startswith(word) for other in have) for word in words):
        return 40, "beginning of the name"
    return 0, ""


def shape(query: str, how: str, person: dict[str, Any]) -> dict[str, Any]:
    """The contact as other agents get it."""
    emails = texts(person, "emails")
    if not emails:
        raise Fail("contact.no_address", f"{describe(person)} has no e-mail address; import one")
    chosen = next((email for email in emails if plain(email) == plain(query)), emails[0])
    return {
        "id": person["id"],
        "name": str(person.get("name", "")),
        "email": chosen,
        "emails": emails,
        "org": str(person.get("org") or ""),
        "title": str(person.get("title") or ""),
        "matched": how,
        "event": person.get("event"),
    }


def stranger(address: str) -> dict[str, Any]:
    """An address nobody is known under."""
    return {
        "id": "",
        "name": "",
        "email": address,
        "emails": [address],
        "org": "",
        "title": "",
        "matched": "address, in no contact",
        "event": None,
    }


def describe(person: dict[str, Any]) -> str:
    """A person in a few words, enough to tell two apart."""
    more = [str(person.get("org") or ""), *texts(person, "emails")[:1]]
    more = [part for part in more if part]
    return str(person.get("name") or person["id"]) + (f" ({', '.join(more)})" if more else "")


def texts(person: dict[str, Any], key: str) -> list[str]:
    """A list of strings, whatever the record holds."""
    value = person.get(key)
    return [str(item) for item in value] if isinstance(value, list) else []


def plain(text: str) -> str:
    """Without case, accents and double blanks: as people mean it when they type a name."""
    spread = unicodedata.normalize("NFKD", text)
    return " ".join("".join(char for char in spread if not unicodedata.combining(char)).casefold().split())


def is_address(text: str) -> bool:
    """Whether it looks like one e-mail address."""
    return len(text) <= 254 and _ADDRESS.match(text) is not None

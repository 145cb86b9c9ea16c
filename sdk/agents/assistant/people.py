"""Whom a name means: one of the user's contacts, or nobody in doubt.

What an agent stated about people is passed over: it could give anybody's name to any address.
"""

from __future__ import annotations

import unicodedata
from typing import Any

from runloop.agent import Fail
from runloop.host import Host, HostRefused

MAX_CANDIDATES = 12


def find(host: Host, name: str) -> list[dict[str, Any]]:
    """Whole records of the contacts a search offers, best first, those of the user's own only."""
    found: dict[str, dict[str, Any]] = {}
    for hit in host.kb_search(name, k=MAX_CANDIDATES, kinds=["contact"]):
        key = str(hit.get("id") or "")
        if key and key not in found:
            found[key] = {**host.kb_read("contact", key), "id": key}
    own = [one for one in found.values() if not _by_agent(one)]
    fitting = [one for one in own if _fits(name, one)]
    return fitting or own


def address_of(host: Host, wanted: str) -> str:
    """The address of exactly one contact, by id, name or nickname. Raises :class:`Fail` in words."""
    fitting = [one for one in find(host, wanted) if _fits(wanted, one)] or _by_id(host, wanted)
    exact = [one for one in fitting if _plain(str(one.get("name"))) == _plain(wanted)]
    chosen = exact if len(exact) == 1 else fitting
    if not chosen:
        raise Fail("mail.recipient", f"no contact is called {wanted[:80]!r}; find one, or ask the user")
    if len(chosen) > 1:
        names = "; ".join(f"{one.get('name')} (id {one['id']})" for one in chosen)
        raise Fail("mail.recipient", f"{wanted[:80]!r} may be {len(chosen)} people: {names}. Use the id")
    emails = [str(email) for email in chosen[0].get("emails") or []]
    if not emails:
        raise Fail("mail.recipient", f"{chosen[0].get('name')} has no address among the contacts")
    return emails[0]


def by_address(host: Host, address: str) -> bool:
    """Whether an address is one of the user's own contacts'."""
    return any(
        address.casefold() in [str(email).casefold() for email in one.get("emails") or []]
        for one in find(host, address)
    )


def _by_id(host: Host, wanted: str) -> list[dict[str, Any]]:
    try:
        one = {**host.kb_read("contact", wanted), "id": wanted}
    except HostRefused:
        return []
    return [] if _by_agent(one) else [one]


def _by_agent(one: dict[str, Any]) -> bool:
    return any(str(one.get(key) or "").startswith("agent:") for key in ("label", "source"))


def _fits(wanted: str, one: dict[str, Any]) -> bool:
    """Every word of the name is one of the contact's, or it is a nickname of theirs."""
    nicknames = [_plain(str(nick)) for nick in one.get("nicknames") or []]
    words, have = _plain(wanted).split(), _plain(str(one.get("name") or "")).split()
    return (
        str(one["id"]) == wanted or _plain(wanted) in nicknames or (bool(words) and set(words) <= set(have))
    )


def _plain(text: str) -> str:
    spread = unicodedata.normalize("NFKD", text)
    return " ".join("".join(char for char in spread if not unicodedata.combining(char)).casefold().split())

"""Imports: what a client read from the user's files becomes facts, each once.

Knows: what may be imported, what the ledger says of it now, who read it from where. Does not know: files or
formats (``pog.importers``), or who may ask (``gateway.imports``).
"""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec

from pog.importers import IMPORTABLE, Item, named, unseen
from pog.reader import Reader
from runloop.digest import blob_digest, canonical
from runloop.errors import UsageError
from runloop.events import Draft, Payload, Provenance, decode_payload, encode_payload
from runloopd.broker.ports import JournalPort, KnowledgePort

__all__ = ["Imports"]

_NEWEST = {
    "contact": "SELECT contact AS id, event FROM contacts WHERE contact IN (SELECT value FROM json_each(?))",
    "document": "SELECT document AS id, event FROM documents"
    " WHERE document IN (SELECT value FROM json_each(?))",
    "event": "SELECT entry AS id, event FROM calendar WHERE entry IN (SELECT value FROM json_each(?))",
}
_UNDER = """
SELECT imports.kind AS kind, imports.ref AS ref, imports.origin AS origin, imports.event AS event,
       coalesce(contacts.name, documents.title, calendar.title) AS title
FROM imports
LEFT JOIN contacts ON imports.kind = 'contact' AND contacts.contact = imports.ref
LEFT JOIN documents ON imports.kind = 'document' AND documents.document = imports.ref
LEFT JOIN calendar ON imports.kind = 'event' AND calendar.entry = imports.ref
WHERE (imports.origin, imports.kind, imports.ref) > (?2, ?3, ?4) AND imports.origin < ?1 || '0'
  AND (imports.origin = ?1 OR substr(imports.origin, 1, length(?1) + 1) = ?1 || '/')
  AND coalesce(contacts.event, documents.event, calendar.event) IS NOT NULL
ORDER BY imports.origin, imports.kind, imports.ref
"""
"""``0`` follows ``/``: everything below a folder, in the index's order, from where the last page ended."""
_RETRACTED = "SELECT fact FROM retracted ORDER BY fact DESC"
MAX_RETRACTED = 10_000
"""Facts that are remembered as retracted, the newest."""
MAX_ITEMS = 1_000
"""Of one request."""


_Back = dict[tuple[str, str], set[bytes]]
"""What was said of a thing and retracted, as digests: the texts would fill the daemon's memory."""


class Imports:
    """States what is new. One request after the other, so that two imports of one file state it once."""

    def __init__(self, *, journal: JournalPort, knowledge: KnowledgePort, reader: Reader) -> None:
        """``reader`` is asked from threads."""
        self._journal = journal
        self._knowledge = knowledge
        self._reader = reader
        self._turn = asyncio.Lock()
        self._taken_back: tuple[object, _Back] = (None, {})

    async def take(self, actor: str, raw: list[dict[str, Any]], *, dry_run: bool = False) -> dict[str, int]:
        """``{appended, skipped, retracted}``. ``raw``: ``{kind, payload, origin}``, as a client read it.

        What a person retracted is not learnt again from a file that still says the same.
        """
        items = [_item(given) for given in raw]
        if len(items) > MAX_ITEMS:
            raise UsageError(f"{len(items)} items; {MAX_ITEMS} are taken at once", code="import.size")
        async with self._turn:
            back = await self._retracted()
            kept = [item for item in items if not _is_among(item.payload, back)]
            retracted, items = len(items) - len(kept), kept
            known = await self._known(items)
            fresh = set(map(id, unseen(lambda kind, ref: known.get((kind, ref)), (i.payload for i in items))))
            drafts = [_draft(item, actor) for item in items if id(item.payload) in fresh]
            if drafts and not dry_run:
                await self._journal.append(*drafts)
        return {
            "appended": len(drafts),
            "skipped": len(items) - len(drafts),
            "retracted": retracted,
        }

    async def under(self, path: str, after: tuple[str, str, str], limit: int) -> dict[str, Any]:
        """``{items: [{kind, ref, origin, event, title}], truncated}``: what was read from a file, or from
        below a folder, before."""
        start = max(after, (path, "", ""))
        found = await self._knowledge.query(_UNDER, [path, *start], limit, raw=True)
        return {"items": found["rows"], "truncated": found["truncated"]}

    async def _retracted(self) -> _Back:
        """What was imported and then retracted, by what it was about."""
        found = await self._knowledge.query(_RETRACTED, [], MAX_RETRACTED, raw=True)
        facts = [int(row["fact"]) for row in found["rows"]]
        if facts != self._taken_back[0]:

            def read() -> _Back:
                back: _Back = {}
                for fact in facts:
                    payload = self._reader.event(fact).payload
                    if payload.kind in IMPORTABLE:
                        back.setdefault(named(payload), set()).add(_said(payload))
                return back

            self._taken_back = (facts, await asyncio.to_thread(read))
        return self._taken_back[1]

    async def _known(self, items: list[Item]) -> dict[tuple[str, str], Payload]:
        """What the ledger says now of the things these items are about."""
        wanted: dict[str, list[str]] = {}
        for kind, ref in (named(item.payload) for item in items):
            wanted.setdefault(kind, []).append(ref)
        places: list[tuple[str, str, int]] = []
        for kind, refs in wanted.items():
            listed = msgspec.json.encode(refs).decode()
            found = await self._knowledge.query(_NEWEST[kind], [listed], MAX_ITEMS, raw=True)
            places += [(kind, str(row["id"]), int(row["event"])) for row in found["rows"]]

        def read() -> dict[tuple[str, str], Payload]:
            return {(kind, ref): self._reader.event(event).payload for kind, ref, event in places}

        return await asyncio.to_thread(read)


def _item(given: dict[str, Any]) -> Item:
    kind, origin = given.get("kind"), given.get("origin", "")
    if kind not in IMPORTABLE:
        raise UsageError(
            f"{kind!r} cannot be imported", hint=f"only {', '.join(IMPORTABLE)} can", code="import.kind"
        )
    if not isinstance(origin, str) or len(origin) > 4_096:
        raise UsageError("the origin of an item is a path", code="import.origin")
    return Item(decode_payload(kind, given.get("payload")), origin)


def _is_among(payload: Payload, back: _Back) -> bool:
    known = back.get(named(payload))
    return known is not None and _said(payload) in known


def _said(payload: Payload) -> bytes:
    return bytes.fromhex(blob_digest(canonical(encode_payload(payload))))


def _draft(item: Item, actor: str) -> Draft:
    label = f"import:{item.payload.kind.partition('.')[0]}"
    return Draft(
        payload=item.payload, actor=actor, provenance=Provenance(label=label, origin=item.origin or None)
    )

"""The views as if some facts had never been there: what a retraction, or its end, does to the tables.

Knows: which kinds are knowledge, what each is about, and how to fold one thing anew. Does not know: what came
of a fact (``pog.retract``) or who may take it back. Nothing is deleted from the ledger.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, cast

from pog import sql
from pog.history import History
from runloop.errors import NotFoundError
from runloop.events import (
    CalendarUpserted,
    ContactUpserted,
    DocumentImported,
    Event,
    MemoryForgotten,
    MemoryUpdated,
    Payload,
    SourceRestored,
    SourceRetracted,
)

__all__ = ["KNOWLEDGE", "REFOLDS", "refold"]

SEPARATOR = "\x1f"


@dataclass(frozen=True, slots=True)
class _Family:
    """Kinds that are about one thing, and the fields that name it."""

    name: str
    """Block of ``sql/retract.sql``."""
    kinds: tuple[type[Payload], ...]
    fields: tuple[str, ...]

    def key(self, payload: Payload) -> str:
        return SEPARATOR.join(str(getattr(payload, field)) for field in self.fields)


_FAMILIES = (
    _Family("contact", (ContactUpserted,), ("contact",)),
    _Family("document", (DocumentImported,), ("document",)),
    _Family("event", (CalendarUpserted,), ("entry",)),
    _Family("memory", (MemoryUpdated, MemoryForgotten), ("namespace", "key")),
)
_OF_KIND = {kind.kind: family for family in _FAMILIES for kind in family.kinds}

KNOWLEDGE = frozenset(_OF_KIND)
"""Kinds that can be retracted."""
REFOLDS = frozenset({SourceRetracted.kind, SourceRestored.kind})
"""Kinds after which tables are put right."""


def refold(
    connection: sqlite3.Connection,
    apply: Callable[[sqlite3.Connection, Event], None],
    history: History,
    event: Event,
) -> None:
    """Put the tables right behind a retraction or its end: things it is about are folded anew from the facts
    that count. ``event`` itself was folded already.

    The same tables as if the facts had never been there, whoever folds, at any point of the ledger.
    """
    blocks = sql.named("retract.sql")
    for family, keys in _touched(connection, history, event).items():
        for key in sorted(keys):
            _run(connection, blocks[family.name], _parts(key))
        kinds = [kind.kind for kind in family.kinds]
        void = {fact for (fact,) in connection.execute("SELECT DISTINCT fact FROM retracted")}
        void |= {fact for (fact,) in connection.execute("SELECT event FROM quarantine")}
        versions: dict[str, int] = {}
        for number in history.about(kinds, family.fields, sorted(keys), up_to=event.id):
            older = history.event(number)
            if isinstance(older.payload, (MemoryUpdated, MemoryForgotten)):
                key = family.key(older.payload)
                versions[key] = max(versions.get(key, 0), older.payload.entry_version)
            if number not in void:
                apply(connection, older)
        for key, highest in versions.items():
            own = {"highest": highest, "event": event.id, "ts_ms": event.ts_ms}
            _run(connection, blocks["memory.version"], _parts(key) | own)


def _parts(key: str) -> dict[str, Any]:
    namespace, _, name = key.partition(SEPARATOR)
    return {"key": key, "namespace": namespace, "name": name}


def _run(connection: sqlite3.Connection, block: str, values: dict[str, Any]) -> None:
    for statement in block.split(";"):
        if statement.strip():
            connection.execute(statement, values)


def _touched(connection: sqlite3.Connection, history: History, event: Event) -> dict[_Family, set[str]]:
    payload = event.payload
    if isinstance(payload, SourceRetracted):
        facts: Iterable[int] = payload.facts
    else:
        facts = _facts_of(connection, cast(SourceRestored, payload).retraction)
    touched: dict[_Family, set[str]] = {}
    for fact in facts:
        try:
            about = history.event(fact)
        except NotFoundError:
            continue
        family = _OF_KIND.get(about.kind)
        if family is not None and fact < event.id:
            touched.setdefault(family, set()).add(family.key(about.payload))
    return touched


def _facts_of(connection: sqlite3.Connection, retraction: int) -> list[int]:
    rows: list[Any] = connection.execute(
        "SELECT json_each.value FROM retractions, json_each(retractions.facts) WHERE event = ?", (retraction,)
    ).fetchall()
    return [int(fact) for (fact,) in rows]

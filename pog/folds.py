"""The fold: what one event does to the tables. The statements are in ``sql/folds.sql``, one block per kind.

Pure with regard to everything but the connection it is given: the same events, in order, make the same
tables, whoever folds them (the materializer, ``verify``, a test).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from typing import Any

from pog import sql
from pog.batch import Lanes
from pog.connection import VIEWS, make_tables
from pog.history import History
from pog.refold import REFOLDS, refold
from runloop.digest import canonical
from runloop.events import (
    CalendarUpserted,
    ContactUpserted,
    DocumentImported,
    Event,
    Payload,
    encode_payload,
)

__all__ = ["TABLES", "Folds", "create_tables"]

TABLES: dict[str, str] = {
    "quarantine": "event",
    "runs": "run",
    "nodes": "run, node",
    "talk": "run, message",
    "triggers": "trigger_",
    "contacts": "contact",
    "contact_emails": "contact, position",
    "documents": "document",
    "calendar": "entry",
    "imports": "kind, ref",
    "artifacts": "event",
    "approvals": "approval",
    "hostcalls": "run, node, attempt, call",
    "model_calls": "event",
    "emails": "event",
    "messages": "event",
    "memory": "namespace, key",
    "memory_spaces": "namespace",
    "retractions": "event",
    "retracted": "fact, retraction",
    "promises": "promise",
    "tokens": "token",
    "policies": "event",
    "cap_audit": "event",
    "quotas": "event",
    "instances": "agent, instance",
    "held_agents": "agent",
    "agents": "name, variant, bundle",
    "agent_indexes": "publisher",
    "trust_changes": "event",
    "topic_messages": "instance, msg_id, trace_id",
    "topic_usage": "publisher",
    "topic_consumers": "owner, consumer",
    "searchables": "id",
}
"""Every table of the views, with the columns that order it."""


def create_tables(connection: sqlite3.Connection) -> None:
    """Make empty views of this build's version in an empty database."""
    make_tables(connection, VIEWS, sql.load("views.sql"))


class Folds:
    """The statements of every kind, read once.

    ``history`` is the ledger that is folded: a retraction folds what it is about anew.
    """

    def __init__(self, history: History | None = None) -> None:
        self._history = history
        self._blocks = {kind: _split(block) for kind, block in sql.named("folds.sql").items()}
        # What folds other facts anew has no lane: it goes alone, after all before it.
        self._lanes = Lanes({kind: block for kind, block in self._blocks.items() if kind not in REFOLDS})
        self.kinds = frozenset(self._blocks)
        """Kinds that change a view."""

    def apply_all(self, connection: sqlite3.Connection, events: Iterable[Event]) -> None:
        """:meth:`apply` to each in order, or what comes to the same, sooner.

        Raises :class:`sqlite3.Error` when one does not fit: then the tables are half way.
        """
        self._lanes.fold(connection, events, self.apply)

    def apply(self, connection: sqlite3.Connection, event: Event) -> None:
        """Change the tables; raises :class:`sqlite3.Error` when the event does not fit them."""
        statements = self._blocks.get(event.kind)
        if statements is None:
            return
        values = _values(event)
        for statement in statements:
            connection.execute(statement, values)
        if event.kind in REFOLDS:
            if self._history is None:
                raise LookupError("a retraction cannot be folded without the ledger")
            refold(connection, self.apply, self._history, event)


def _split(block: str) -> list[str]:
    statements, pending = [], ""
    for line in block.splitlines(keepends=True):
        pending += line
        if sqlite3.complete_statement(pending):
            statements.append(pending.strip())
            pending = ""
    return statements


def _values(event: Event) -> dict[str, Any]:
    values = {name: _cell(value) for name, value in encode_payload(event.payload).items()}
    if event.kind in ("memory.updated", "promise.resolved"):
        values["value"] = canonical(event.payload.value).decode()  # type: ignore[attr-defined]
    values["words"] = _words(event.payload)
    values.update(
        events=1,
        event=event.id,
        ts_ms=event.ts_ms,
        actor=event.actor,
        run=event.run,
        label=event.provenance.label,
        file=event.provenance.origin,
    )
    return values


def _cell(value: Any) -> Any:
    return canonical(value).decode() if isinstance(value, (dict, list)) else value


def _words(payload: Payload) -> str:
    """What a person may type to find it, beside its title."""
    if isinstance(payload, ContactUpserted):
        fields = [payload.name, *payload.nicknames, *payload.emails, payload.org, payload.title, payload.note]
        return "\n".join(field for field in fields if field)
    if isinstance(payload, DocumentImported):
        return "\n".join([payload.text, *payload.people])
    if isinstance(payload, CalendarUpserted):
        fields = [payload.text, payload.location, payload.start, payload.status, *payload.people]
        return "\n".join(field for field in fields if field)
    return ""

"""Older facts, for folding a retraction: one by id, or all that are about some things.

Knows: two questions and their SQL. Does not know: whose connection answers them (a reader's, or the one a
check holds a snapshot with).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any

import msgspec

from pog import sql
from pog.chain import Row, decode_row
from runloop.errors import NotFoundError
from runloop.events import Event

__all__ = ["History"]


class History:
    """Asks the ledger through ``ask(statement, values)``, which returns the rows."""

    def __init__(self, ask: Callable[[str, Any], Sequence[Any]]) -> None:
        self._ask = ask
        self._sql = sql.named("statements.sql")

    def event(self, event_id: int) -> Event:
        """One fact; raises :class:`NotFoundError`, or :class:`LedgerCorruptError` when it cannot be read."""
        found = self._ask(self._sql["row"], (event_id,)) if 0 < event_id < 2**63 else ()
        if not found:
            raise NotFoundError(f"there is no event {event_id}", code="event.absent")
        return decode_row(Row._make(found[0]))

    def about(
        self, kinds: Collection[str], fields: Collection[str], names: Collection[str], *, up_to: int
    ) -> list[int]:
        """Ids, in order, of the events of some kinds that are about one of ``names``: the value of a field,
        or of several with char(31) between them. Kinds and fields are the caller's own words."""
        name = " || char(31) || ".join(f"json_extract(payload, '$.{field}')" for field in fields)
        statement = (
            self._sql["events_about"]
            .replace("(:kinds)", "(" + ", ".join(f"'{kind}'" for kind in sorted(kinds)) + ")")
            .replace("(:about)", f"({name})")
        )
        listed = msgspec.json.encode(list(names)).decode()
        return [row[0] for row in self._ask(statement, {"names": listed, "up_to": up_to})]

"""Facts that a person states by hand: knowledge, stamped by the host, never history or authority.

What an agent proposes comes through the gate (``kb.propose``, ``broker.knowledge_ops``); the kinds are the
same, so that nobody can state by hand what an import could not.

Knows: which kinds, and what a stamp is. Does not know: who may ask (``gateway.upkeep``).
"""

from __future__ import annotations

import asyncio
from typing import Any

from pog.importers import IMPORTABLE
from pog.reader import Reader
from runloop.digest import canonical
from runloop.errors import NotFoundError, RefusedError, UsageError
from runloop.events import Draft, Provenance, decode_payload, encode_payload
from runloopd.broker.ports import JournalPort

__all__ = ["Statements"]

MAX_BYTES = 1024 * 1024
MAX_CAUSES = 100


class Statements:
    """States them, one at a time."""

    def __init__(self, *, journal: JournalPort, reader: Reader) -> None:
        """``reader`` is asked from threads."""
        self._journal = journal
        self._reader = reader

    async def state(self, actor: str, kind: str, payload: dict[str, Any], causes: list[int]) -> int:
        """Validate, stamp and record one fact; returns its event.

        The stamp is ours: actor, label ``user``, and the causes, which must be there. Raises
        :class:`RefusedError` for a kind that is not knowledge, :class:`UsageError` for a payload that is not
        of that kind, :class:`NotFoundError` for a cause that is not there.
        """
        if kind not in IMPORTABLE:
            raise RefusedError(
                f"{kind!r} cannot be stated by hand",
                hint=f"only {', '.join(IMPORTABLE)} can; the rest is the host's to state",
                code="kb.kind",
            )
        fact = decode_payload(kind, payload)
        if len(canonical(encode_payload(fact))) > MAX_BYTES:
            raise UsageError(f"the fact is larger than {MAX_BYTES} bytes", code="kb.payload")
        if len(causes) > MAX_CAUSES:
            raise UsageError(f"{len(causes)} causes; {MAX_CAUSES} are taken", code="kb.cause")
        named = tuple(dict.fromkeys(causes))
        await asyncio.to_thread(self._insist, named)
        stamp = Provenance(label="user", causes=named)
        (event,) = await self._journal.append(Draft(payload=fact, actor=actor, provenance=stamp))
        return event.id

    def _insist(self, causes: tuple[int, ...]) -> None:
        for cause in causes:
            try:
                self._reader.event(cause)
            except NotFoundError as error:
                raise NotFoundError(
                    f"the cause {cause} is no event", hint=error.hint, code="event.absent"
                ) from error

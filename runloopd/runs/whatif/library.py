"""The recorded runs of this home, for whoever drives them again.

Knows: how to find and read them, and which runs have an agent in them. Does not know: what is asked of them.
Reads from threads; a damaged record is said to be one.
"""

from __future__ import annotations

import asyncio

from openings.state import base
from pog.errors import LedgerCorruptError
from pog.reader import Reader
from runloop.errors import RefusedError
from runloop.events import NodeScheduled, RunStarted
from runloop.ids import child_run_id
from runloopd.runs.replayer import Source
from runloopd.runs.rows import read
from runloopd.runs.whatif.tape import Tape

__all__ = ["MAX_RUNS", "Library"]

MAX_RUNS = 10_000
"""Runs looked at, the newest ones."""


class Library:
    """Recorded runs by id."""

    def __init__(self, reader: Reader, source: Source) -> None:
        self.source = source
        self._reader = reader

    async def tape(self, run: str) -> Tape | None:
        """The record of a run, each row's hash computed again; None where there is none.

        Raises :class:`RefusedError` for a record that was changed or cannot be read.
        """
        return await asyncio.to_thread(self._tape, run)

    async def runs(self, since_ms: int, agent: str | None) -> list[str]:
        """Finished runs that began at or after a time, oldest first, without those nested in others; those
        with this agent in them, if one is named."""
        return await asyncio.to_thread(self._runs, since_ms, agent)

    async def whole(self, run: str) -> list[Tape]:
        """A run and the runs nested in it, outermost first."""
        return await asyncio.to_thread(self._whole, run)

    def _tape(self, run: str) -> Tape | None:
        try:
            rows = read(self.source.rows(run))
        except LedgerCorruptError as error:
            raise RefusedError(error.message, hint="rlp verify", code="whatif.record") from error
        if rows.divergence is not None or rows.unreadable is not None:
            why = rows.unreadable or (rows.divergence.what if rows.divergence else "")
            raise RefusedError(
                f"run {run} cannot be driven again: {why}", hint="rlp verify", code="whatif.record"
            )
        return Tape(rows.events, self.source.blob) if rows.events else None

    def _runs(self, since_ms: int, agent: str | None) -> list[str]:
        finished = {event.run for event in self._reader.events(kinds=("run.finished",))}
        found = [
            event.run or ""
            for event in self._reader.events(kinds=(RunStarted.kind,))
            if event.ts_ms >= since_ms
            and event.run in finished
            and isinstance(begun := event.payload, RunStarted)
            and begun.parent is None
            and (agent is None or any(pin.name == agent for pin in begun.agents.values()))
        ]
        return found[-MAX_RUNS:]

    def _whole(self, run: str) -> list[Tape]:
        first = self._tape(run)
        found = [] if first is None else [first]
        for tape in found:
            opening = tape.state().opening
            for event in tape.events:
                said = event.payload
                if not isinstance(said, NodeScheduled) or opening is None:
                    continue
                node = opening.node(base(said.node))
                if node is None or node.nests is None:
                    continue
                inner = self._tape(child_run_id(tape.run, said.node, said.attempt))
                if inner is not None:
                    found.append(inner)
        return found

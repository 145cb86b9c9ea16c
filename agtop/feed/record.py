"""A run tree's facts, runs and bytes, read from the ledger on disk. Works beside a daemon and without one.

Knows: how a run's facts and those of the runs inside it come in one order, and that a fact which was
committed while it read may be missed only if it is read again. Does not know: who wakes it, or what is done
with facts. Blocking: the feeds call it from threads.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import msgspec

from agtop.model.facts import Fact, Unknown, fact_of
from agtop.ports import RunRow
from pog.chain import Row, decode_row, payload_decoder
from pog.errors import LedgerCorruptError
from pog.reader import Reader
from runloop.digest import blob_digest
from runloop.errors import NotFoundError
from runloop.events import (
    KINDS,
    ActionDecided,
    ActionRequested,
    HostcallAdmitted,
    NodeScheduled,
    Provenance,
    RunFinished,
    RunStarted,
)
from runloop.ids import child_run_id, delegated_run_id

__all__ = ["Record"]

_ASKS = frozenset({ActionRequested.kind, ActionDecided.kind})


class Record:
    """A ledger, perhaps not there yet."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._reader: Reader | None = None
        self._inside: dict[str, dict[str, frozenset[str]]] = {}
        """Run that is looked at -> the runs in its tree, itself too, each with its nodes that nest."""
        self._over: dict[str, int] = {}
        """Runs inside others that ended -> ledger id of that: nothing comes behind it."""

    @property
    def path(self) -> Path:
        return self._path

    def reopen(self) -> None:
        """Let go of the file: another one may be in its place, as after a restore."""
        self.close()

    def close(self) -> None:
        if self._reader is not None:
            self._reader.close()
            self._reader = None

    def head(self) -> int:
        """Ledger id of the newest event; 0 while there is no ledger."""
        reader = self._opened()
        return 0 if reader is None else reader.head_id()

    def runs(self, limit: int) -> list[RunRow]:
        """Newest first, without those inside others."""
        reader = self._opened()
        return [] if reader is None else [_row(run) for run in reader.runs(limit)]

    def find_run(self, prefix: str) -> str:
        return str(self._must().find_run(prefix))

    def blob(self, digest: str) -> bytes:
        return self._must().blob(digest)

    def approvals(self) -> list[dict[str, Any]]:
        """Effects that wait for a person, as the daemon's ``approvals.list`` tells them; oldest first."""
        reader = self._opened()
        if reader is None:
            return []
        going_on = set(reader.unfinished_runs())
        if not going_on:
            return []
        found: dict[str, dict[str, Any]] = {}
        for event in reader.events(kinds=_ASKS):
            told = event.payload
            if isinstance(told, ActionDecided):
                found.pop(told.approval, None)
            elif isinstance(told, ActionRequested) and event.run in going_on:
                found[told.approval] = {
                    **msgspec.to_builtins(told),
                    "run": event.run,
                    "state": "open",
                    "requested_ms": event.ts_ms,
                    "requested_event": event.id,
                    "label": event.provenance.label,
                }
        return list(found.values())

    # --- facts of a tree of runs ----------------------------------------------------------------------

    def facts(self, run: str, after: int, limit: int) -> list[Fact]:
        """Facts of ``run`` and of the runs inside it above ``after``, at most ``limit``, oldest first."""
        reader = self._opened()
        if reader is None:
            return []
        # Two runs are read one after the other: what is committed meanwhile belongs to the next page.
        head = reader.head_id()
        tree = self._inside.get(run)
        if tree is None:  # from the beginning the tree grows as it is read
            tree = self._inside[run] = {run: frozenset()} if not after else self._grown(reader, run, head)
        found: list[Fact] = []
        waiting = [one for one in tree if self._over.get(one, head) >= after]
        seen = set(tree)
        while waiting:
            for fact in self._page(reader, waiting.pop(), after, head, limit):
                found.append(fact)
                if type(fact.payload) not in _TELLING:
                    continue
                if isinstance(fact.payload, RunFinished) and fact.run != run:
                    self._over[str(fact.run)] = fact.id
                for inner in self._begun(tree, fact):
                    if inner not in seen:
                        seen.add(inner)
                        waiting.append(inner)
        if len(tree) > 1:
            found.sort(key=lambda fact: fact.id)
        return found[:limit]

    def _grown(self, reader: Reader, run: str, head: int) -> dict[str, frozenset[str]]:
        """The tree below a run that nobody asked for before."""
        tree: dict[str, frozenset[str]] = {run: frozenset()}
        waiting = [run]
        while waiting:
            for event in reader.events(run=waiting.pop(), kinds=_BEGIN):
                if event.id <= head:
                    waiting += self._begun(tree, fact_of(event))
        return tree

    @staticmethod
    def _begun(tree: dict[str, frozenset[str]], fact: Fact) -> list[str]:
        """Runs that a fact begins inside of its own; the tree knows them from here on."""
        told, run = fact.payload, fact.run or ""
        begun: str | None = None
        if isinstance(told, RunStarted):
            nodes = told.definition.get("nodes") or ()
            tree[run] = frozenset(
                str(node["id"]) for node in nodes if str(node["use"]).startswith("opening:")
            )
        elif isinstance(told, NodeScheduled):
            if told.node.partition("[")[0] in tree.get(run, ()):
                begun = child_run_id(run, told.node, told.attempt)
        elif isinstance(told, HostcallAdmitted) and told.op == "agent.delegate":
            begun = delegated_run_id(run, told.node, told.attempt, told.call)
        if begun is None or begun in tree:
            return []
        tree[begun] = frozenset()
        return [begun]

    @staticmethod
    def _page(reader: Reader, run: str, after: int, head: int, limit: int) -> Iterator[Fact]:
        for number, row in enumerate(reader.rows(run=run, after=after)):
            if number >= limit or row.id > head:
                return
            yield _fact(row)

    # --- the file -------------------------------------------------------------------------------------

    def _opened(self) -> Reader | None:
        if self._reader is None:
            with contextlib.suppress(NotFoundError):
                self._reader = Reader(self._path)
        return self._reader

    def _must(self) -> Reader:
        reader = self._opened()
        if reader is None:
            raise NotFoundError(
                "nothing is on record yet", hint="start a run; p asks for a wish", code="agtop.no_ledger"
            )
        return reader


_BEGIN = frozenset({RunStarted.kind, NodeScheduled.kind, HostcallAdmitted.kind})
_TELLING = frozenset({RunStarted, NodeScheduled, HostcallAdmitted, RunFinished})
"""What tells of the runs inside."""


def _fact(row: Row) -> Fact:
    """The fact in a row. One that this build cannot read is told as unknown: the rest is still worth
    seeing, and ``rlp verify`` is where damage is judged."""
    known = KINDS.get(row.kind)
    try:
        if known is not None and known.version == row.version:  # as nearly all are, and then it goes quickly
            return Fact(
                row.id,
                row.ts_ms,
                row.actor,
                row.kind,
                row.run,
                payload_decoder(known).decode(row.payload),
                _provenance(row.provenance),
            )
        return fact_of(decode_row(row))
    except (LedgerCorruptError, ValueError, TypeError, RecursionError) as error:
        fields = {"unreadable": str(error), "bytes": len(row.payload), "digest": blob_digest(_raw(row))}
        return Fact(row.id, row.ts_ms, str(row.actor), str(row.kind), row.run, Unknown(fields=fields))


@lru_cache(maxsize=1_024)
def _provenance(text: str) -> Provenance:
    """Facts of one node share theirs."""
    return msgspec.json.decode(text, type=Provenance)


def _raw(row: Row) -> bytes:
    return row.payload.encode("utf-8", "surrogatepass") if isinstance(row.payload, str) else b""


def _row(run: dict[str, Any]) -> RunRow:
    return RunRow(
        run=str(run["run"]),
        opening=str(run.get("opening") or ""),
        state=str(run.get("state") or "running"),
        principal=str(run.get("principal") or ""),
        prompt=run.get("prompt"),
        started_ms=int(run.get("started_ms") or 0),
        finished_ms=run.get("finished_ms"),
        parent=(run.get("parent") or {}).get("run"),
    )

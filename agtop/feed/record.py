"""A run tree's facts, runs and bytes, read from the ledger on disk. Works beside a daemon and without one.

Knows: how a run's facts and those of the runs inside it come in one order, and that a fact which was
committed while it read may be missed only if it is read again. Does not know: who wakes it, or what is done
with facts. Blocking: the feeds call it from threads, but for :meth:`Record.again`, which reads a page of what
was read before and has a connection of its own.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import msgspec

from agtop.model.facts import Fact, fact_of, unreadable
from agtop.ports import RunRow
from pog.reader import Reader, ToldRow
from runloop.errors import NotFoundError, UsageError
from runloop.events import (
    KINDS,
    ActionDecided,
    ActionRequested,
    HostcallAdmitted,
    NodeScheduled,
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
        self._second: Reader | None = None
        """For who draws: what is read in the background keeps nobody waiting."""
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
        for reader in (self._reader, self._second):
            if reader is not None:
                reader.close()
        self._reader = self._second = None

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
            page = [_fact(row) for row in reader.told_rows(waiting.pop(), after, head, limit)]
            found += page
            for fact in page:
                if fact.kind not in _TELLING or not _may_tell(fact):
                    continue
                if fact.kind == RunFinished.kind and fact.run != run:
                    self._over[str(fact.run)] = fact.id
                for inner in self._begun(tree, fact):
                    if inner not in seen:
                        seen.add(inner)
                        waiting.append(inner)
        if len(tree) > 1:
            found.sort(key=lambda fact: fact.id)
        return found[:limit]

    def again(self, run: str, after: int, upto: int, limit: int) -> list[Fact]:
        """Facts that :meth:`facts` has given before: those with ids above ``after`` up to ``upto``."""
        if self._second is None:
            self._second = Reader(self._path)
        found: list[Fact] = []
        for one in list(self._inside.get(run, (run,))):
            if self._over.get(one, upto) >= after:
                found += [_fact(row) for row in self._second.told_rows(one, after, upto, limit)]
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
_TELLING = frozenset({RunStarted.kind, NodeScheduled.kind, HostcallAdmitted.kind, RunFinished.kind})
"""What tells of the runs inside."""
_VERSIONS = {kind: payload.version for kind, payload in KINDS.items()}


def _may_tell(fact: Fact) -> bool:
    """Whether it is worth reading: of host calls only those that delegate are."""
    says = fact.says
    return fact.kind != HostcallAdmitted.kind or not isinstance(says, str) or "agent.delegate" in says


def _fact(row: ToldRow) -> Fact:
    """The fact in a row; what it says is read when somebody asks. One that this build cannot read is told as
    unknown."""
    number, ts_ms, actor, kind, version, run, payload, provenance = row
    if _VERSIONS.get(kind) == version and isinstance(payload, str):  # as nearly all are
        return Fact(number, ts_ms, actor, kind, run, payload, provenance)
    event = {"id": number, "ts_ms": ts_ms, "actor": str(actor), "kind": str(kind), "run": run}
    try:
        says = {"payload": msgspec.json.decode(payload), "version": version}
        return fact_of({**event, **says, "provenance": msgspec.json.decode(provenance)})
    except (UsageError, ValueError, TypeError, RecursionError) as error:
        return Fact(number, ts_ms, str(actor), str(kind), run, unreadable(error, payload))


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

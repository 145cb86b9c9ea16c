"""The fold of many events at once: the same tables as one by one, in a fraction of the statements.

Knows: which kinds may be put together, and when their order matters. Does not know: what a statement means
(``sql/folds.sql``) or what happens when one fails (``pog.materializer`` then folds one by one).

A kind has a lane when its block is only INSERTs of one row of plain values, and statements marked
``-- summed by run``, which add to a run's counters. Rows of different tables do not see each other, and sums
can be added in any order; only two kinds that write the same rows must keep theirs, and an event without a
lane waits for all lanes before it.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable, Iterable, Mapping, Sequence
from operator import itemgetter
from typing import Any

import msgspec

from pog.shapes import integer_fields, plain_fields
from pog.sql.bulk import Bulk
from runloop.events import KINDS, Event

__all__ = ["SUMMED", "Lanes"]

SUMMED = "-- summed by run"
"""Stands before a statement of ``folds.sql`` whose named integers may be sums over several events of one run;
``:events`` is how many."""

_NAME = re.compile(r":([a-z_]+)")
_TABLE = re.compile(r"\AINSERT\s(?:OR \w+ )?INTO (\w+)")
_KEY = re.compile(r"ON CONFLICT \(([^)]*)\)")
_SUM = re.compile(r"UPDATE runs\s+SET (\w+ = \w+ \+ :\w+,?\s+)+WHERE run = :run;?")
_OWN = ("event", "ts_ms", "actor", "run", "label", "file")


class _Lane:
    """One kind: its events wait here until they are folded together."""

    def __init__(self, kind: str, statements: Sequence[str]) -> None:
        fields = msgspec.structs.fields(KINDS[kind])
        place = {name: index for index, name in enumerate((*_OWN, *(field.name for field in fields)))}
        plain = plain_fields(KINDS[kind]) | set(_OWN)
        self.events: list[tuple[Any, ...]] = []
        """Every event's own values, then its payload's."""
        self._rows: list[tuple[Bulk, Callable[[tuple[Any, ...]], tuple[Any, ...]]]] = []
        self._sums: list[tuple[str, list[tuple[str, int]]]] = []
        self.keys: dict[str, Callable[[tuple[Any, ...]], Any] | None] = {}
        """Table -> how to tell the row an event changes; None where every event adds a row of its own."""
        for statement in statements:
            if statement.startswith(SUMMED):
                names = sorted(set(_NAME.findall(statement)) - {"run", "events"})
                _insist(_SUM.fullmatch(statement.removeprefix(SUMMED).strip()), statement)
                _insist(integer_fields(KINDS[kind]).issuperset(names), statement)
                self._sums.append((statement, [(name, place[name]) for name in names]))
                continue
            bulk = Bulk(statement)
            _insist(plain.issuperset(bulk.names) and "SELECT" not in statement, statement)
            self._rows.append((bulk, _getter([place[name] for name in bulk.names])))
            (table,) = _TABLE.findall(statement)
            _insist(table != "runs" and table not in self.keys, statement)
            key = _KEY.search(statement)
            columns = key[1].replace(" ", "").split(",") if key else []
            _insist(set(bulk.names).issuperset(columns), statement)
            self.keys[table] = _getter([place[name] for name in columns]) if key else None

    def fold(self, connection: sqlite3.Connection) -> None:
        events, self.events = self.events, []
        for bulk, cells in self._rows:
            bulk.insert(connection, [cell for event in events for cell in cells(event)])
        for statement, numbers in self._sums:
            for run, of_run in _by_run(events).items():
                sums = {name: sum(event[index] for event in of_run) for name, index in numbers}
                connection.execute(statement, {"run": run, "events": len(of_run), **sums})


class Lanes:
    """Folds events in order, as many at once as may be."""

    def __init__(self, blocks: Mapping[str, Sequence[str]]) -> None:
        self._lanes: dict[str, _Lane] = {}
        for kind, statements in blocks.items():
            try:
                self._lanes[kind] = _Lane(kind, statements)
            except ValueError:
                continue  # it goes one by one
        for kind in self._unordered():
            del self._lanes[kind]
        self._rivals = {kind: self._later_rivals(kind) for kind in self._lanes}

    @property
    def kinds(self) -> frozenset[str]:
        """Kinds that are folded together."""
        return frozenset(self._lanes)

    def fold(
        self,
        connection: sqlite3.Connection,
        events: Iterable[Event],
        alone: Callable[[sqlite3.Connection, Event], None],
    ) -> None:
        """Fold ``events`` in order; ``alone`` folds one that has no lane.

        Raises :class:`sqlite3.Error` when some event does not fit: then the tables are half way.
        """
        lanes, rivals = self._lanes, self._rivals
        taken: dict[tuple[str, str], set[Any]] = {}
        for lane in lanes.values():
            lane.events.clear()
        for event in events:
            lane_of = lanes.get(event.kind)
            if lane_of is None:
                self._flush(connection, taken)
                alone(connection, event)
                continue
            values = (
                event.id,
                event.ts_ms,
                event.actor,
                event.run,
                event.provenance.label,
                event.provenance.origin,
                *msgspec.structs.astuple(event.payload),
            )
            for table, key, later in rivals[event.kind]:
                row = key(values)
                if any(row in taken.get((table, rival), ()) for rival in later):
                    self._flush(connection, taken)
                taken.setdefault((table, event.kind), set()).add(row)
            lane_of.events.append(values)
        self._flush(connection, taken)

    def _flush(self, connection: sqlite3.Connection, taken: dict[tuple[str, str], set[Any]]) -> None:
        for lane in self._lanes.values():
            if lane.events:
                lane.fold(connection)
        taken.clear()

    def _unordered(self) -> set[str]:
        """Kinds that write a table with others and cannot tell which row."""
        by_table: dict[str, list[str]] = {}
        for kind, lane in self._lanes.items():
            for table in lane.keys:
                by_table.setdefault(table, []).append(kind)
        shared = {table: kinds for table, kinds in by_table.items() if len(kinds) > 1}
        return {
            kind
            for table, kinds in shared.items()
            if any(self._lanes[kind].keys[table] for kind in kinds)
            for kind in kinds
            if self._lanes[kind].keys[table] is None
        }

    def _later_rivals(self, kind: str) -> list[tuple[str, Callable[[tuple[Any, ...]], Any], tuple[str, ...]]]:
        """Tables this kind shares with others: its rows' key, and the lanes that are folded after its own."""
        order = list(self._lanes)
        found = []
        for table, key in self._lanes[kind].keys.items():
            others = [other for other in order if other != kind and table in self._lanes[other].keys]
            if key is not None and others:
                later = tuple(other for other in others if order.index(other) > order.index(kind))
                found.append((table, key, later))
        return found


def _insist(holds: object, statement: str) -> None:
    if not holds:
        raise ValueError(f"not for a lane: {statement}")


def _getter(places: list[int]) -> Callable[[tuple[Any, ...]], tuple[Any, ...]]:
    if len(places) == 1:
        (only,) = places
        return lambda values: (values[only],)
    return itemgetter(*places)


def _by_run(events: list[tuple[Any, ...]]) -> dict[Any, list[tuple[Any, ...]]]:
    place = _OWN.index("run")
    found: dict[Any, list[tuple[Any, ...]]] = {}
    for event in events:
        found.setdefault(event[place], []).append(event)
    return found

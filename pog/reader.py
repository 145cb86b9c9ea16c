"""Reading the ledger: events in order, bytes by digest, runs by prefix. Never blocks the writer.

Knows: how to page so that the write-ahead log can be folded meanwhile. Does not know the views.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from pog import sql
from pog.chain import TEXTS, RawRow, Row, decode_row
from pog.connection import LEDGER, connect_reader
from pog.errors import LedgerCorruptError
from pog.history import History
from runloop.digest import blob_digest
from runloop.errors import ConflictError, NotFoundError, UsageError
from runloop.events import Event
from runloop.ids import RunId
from runloop.spelling import did_you_mean

__all__ = ["Reader", "SignedHead", "ToldRow"]

_PAGE = 256
_HEX = frozenset("0123456789abcdef")


ToldRow = tuple[int, int, str, str, int, str | None, str, str]
"""``id, ts_ms, actor, kind, version, run, payload, provenance``: a row without its link in the chain."""


class SignedHead(NamedTuple):
    """A checkpoint of the ledger: the event, its hash, when it was signed, by which key."""

    id: int
    hash: bytes
    ts_ms: int
    public_key: bytes
    signature: bytes


class Reader:
    """A read-only connection to the ledger. Usable from several threads, one call at a time."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = Path(path)
        self._connection = connect_reader(self._path, LEDGER)
        self._sql = sql.named("statements.sql")
        self._mutex = threading.Lock()

    @property
    def path(self) -> Path:
        """The file."""
        return self._path

    def close(self) -> None:
        """Let go of the file."""
        self._connection.close()

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def head_id(self) -> int:
        """Id of the newest event; 0 while there is none."""
        found = self._all(self._sql["head"])
        return int(found[0][0]) if found else 0

    def rows(self, *, run: str | None = None, after: int = 0) -> Iterator[Row]:
        """Rows in order, unread: for whoever must go on behind a bad one."""
        while True:
            if run is None:
                page = self._all(self._sql["rows_after"], (after, _PAGE))
            else:
                page = self._all(self._sql["rows_of_run_after"], (run, after, _PAGE))
            yield from map(Row._make, page)
            if len(page) < _PAGE:
                return
            after = page[-1][0]

    def told_rows(self, run: str, after: int, upto: int, limit: int) -> list[ToldRow]:
        """A run's rows above ``after`` up to ``upto``, the first ``limit`` of them, unread and without what
        binds them: for whoever shows very many."""
        return self._all(self._sql["told_rows"], (run, after, upto, limit))

    def raw_rows(self, run: str) -> Iterator[RawRow]:
        """A run's rows in order with their texts as bytes: for whoever compares them, damaged or not."""
        columns = ", ".join(f"CAST({name} AS BLOB)" if name in TEXTS else name for name in Row._fields)
        statement = f"SELECT {columns} FROM events WHERE run = ? AND id > ? ORDER BY id LIMIT ?"  # noqa: S608
        after = 0
        while True:
            page = self._all(statement, (run, after, _PAGE))
            yield from page
            if len(page) < _PAGE:
                return
            after = page[-1][0]

    def events(
        self,
        *,
        run: str | None = None,
        after: int = 0,
        kinds: Collection[str] | None = None,
        limit: int | None = None,
    ) -> Iterator[Event]:
        """Events with an id above ``after``, oldest first.

        Raises :class:`LedgerCorruptError` at a row that holds no event this build knows.
        """
        found = 0
        rows = self.rows(run=run, after=after) if run or not kinds else self._rows_of_kinds(kinds, after)
        for row in rows:
            if limit is not None and found >= limit:
                return
            if kinds is None or row.kind in kinds:
                found += 1
                yield decode_row(row)

    def event(self, event_id: int) -> Event:
        """One event; raises :class:`NotFoundError`."""
        found = self._all(self._sql["row"], (event_id,)) if 0 < event_id < 2**63 else []
        if not found:
            raise NotFoundError(
                f"there is no event {event_id}", hint=f"the newest is {self.head_id()}", code="event.absent"
            )
        return decode_row(Row._make(found[0]))

    def blob(self, digest_hex: str) -> bytes:
        """The bytes behind a digest, checked against it.

        Raises :class:`NotFoundError`, or :class:`LedgerCorruptError` when the stored bytes are others.
        """
        if len(digest_hex) != 64 or not _HEX.issuperset(digest_hex):
            raise UsageError(
                f"{digest_hex!r} is not a digest", hint="64 lower-case hex characters", code="digest.shape"
            )
        found = self._all(self._sql["blob"], (bytes.fromhex(digest_hex),))
        if not found:
            raise NotFoundError(f"no bytes are stored for {digest_hex}", code="blob.absent")
        data: bytes = found[0][0]
        if blob_digest(data) != digest_hex:
            raise LedgerCorruptError(f"the bytes stored for {digest_hex} were changed", hint="rlp verify")
        return data

    def find_run(self, prefix: str) -> RunId:
        """The run whose id starts with ``prefix`` (at least four characters, or the whole id).

        Raises :class:`NotFoundError`, or :class:`ConflictError` when several do.
        """
        low = prefix.strip().lower()
        if not low:
            raise UsageError("the run id is empty", hint="'rlp runs' lists the ids", code="id.run")
        found = [run for (run,) in self._all(self._sql["runs_with_prefix"], {"low": low, "high": low + "~"})]
        if low in found:
            return RunId(low)
        if not found:
            near = self._all(self._sql["runs_with_prefix"], {"low": low[:3], "high": low[:3] + "~"})
            raise NotFoundError(
                f"no run is named {prefix!r}",
                hint=did_you_mean(low, [run[: len(low)] for (run,) in near], "'rlp runs' lists them"),
                code="run.absent",
            )
        if len(found) > 1:
            raise ConflictError(
                f"{prefix!r} may be any of {', '.join(found)}",
                hint="type more characters",
                code="run.ambiguous",
                runs=found,
            )
        return RunId(found[0])

    def runs_by(self, principal: str, limit: int = 50) -> list[dict[str, Any]]:
        """As :meth:`runs`, only those that somebody started."""
        return [_summary(row) for row in self._all(self._sql["runs_by"], (principal, limit))]

    def runs_below(self, root: str) -> list[RunId]:
        """The runs nested in a run, at any depth, oldest first."""
        return [RunId(run) for (run,) in self._all(self._sql["runs_below"], (root,))]

    def signed_head_above(self, event_id: int) -> SignedHead | None:
        """The first signed head at or above an event; None while there is none."""
        found = self._all(self._sql["signed_head_above"], (event_id,))
        return SignedHead._make(found[0]) if found else None

    def hashes(self, first: int, last: int) -> Iterator[bytes]:
        """The hash of every event from ``first`` to ``last``, and nothing else of them."""
        while first <= last:
            page = self._all(self._sql["hashes_from"], (first, last, _PAGE))
            if not page:
                return
            yield from (hash_ for _, hash_ in page)
            first = page[-1][0] + 1

    def unfinished_runs(self) -> list[RunId]:
        """Runs that started and have not finished, oldest first: what a daemon takes up again."""
        return [RunId(run) for (run,) in self._all(self._sql["unfinished_runs"])]

    def runs_inside(self, run: str, limit: int = 1_000) -> list[dict[str, Any]]:
        """Summaries of the runs that serve nodes of a run, oldest first; each with its ``parent``."""
        return [_summary(row) for row in self._all(self._sql["runs_inside"], (run, limit))]

    def runs(self, limit: int = 50) -> list[dict[str, Any]]:
        """Summaries, newest first: ``run, opening, params, principal, state, outcome, started_ms, ...``.

        Those nested in another are not among them: see :meth:`runs_inside`.
        """
        return [_summary(row) for row in self._all(self._sql["runs"], (limit,))]

    def trigger_marks(self) -> list[Event]:
        """For each trigger the newest event that accounts for a due time, its newest firing, and what it
        missed last; in order."""
        return [self.event(number) for (number,) in self._all(self._sql["trigger_marks"])]

    def fired_beyond(self, due_ms: int) -> list[tuple[str, int]]:
        """Every firing for a due time behind this one: its trigger, and the due time."""
        return [(str(of), int(due)) for of, due in self._all(self._sql["fired_beyond"], (due_ms,))]

    def spent_by(self, principal: str, since_ms: int) -> list[tuple[int, int]]:
        """Of every run that ended after a moment and whose principal begins so: when, and what it cost in
        millionths of a US dollar."""
        return [
            (int(ended), int(cost))
            for ended, cost in self._all(self._sql["spent_by"], {"principal": principal, "since": since_ms})
        ]

    @property
    def history(self) -> History:
        """Older facts, as a fold asks for them."""
        return History(self._all)

    def _rows_of_kinds(self, kinds: Collection[str], after: int) -> Iterator[Row]:
        marks = ", ".join("?" * len(kinds))
        statement = self._sql["rows_after"].replace("WHERE", f"WHERE kind IN ({marks}) AND")
        while True:
            page = self._all(statement, (*kinds, after, _PAGE))
            yield from map(Row._make, page)
            if len(page) < _PAGE:
                return
            after = page[-1][0]

    def _all(self, statement: str, values: Any = ()) -> list[Any]:
        try:
            with self._mutex:
                return self._connection.execute(statement, values).fetchall()
        except sqlite3.DatabaseError as error:
            raise LedgerCorruptError(f"{self._path} cannot be read: {error}", hint="rlp verify") from error


def _summary(row: tuple[Any, ...]) -> dict[str, Any]:
    run, started_id, started_ms, started, finished_id, finished_ms, finished = row
    begin = msgspec.json.decode(started)
    end = msgspec.json.decode(finished) if finished else {}
    return {
        "run": run,
        "opening": begin.get("opening"),
        "params": begin.get("params"),
        "principal": begin.get("principal"),
        "parent": begin.get("parent"),
        "prompt": (begin.get("origin") or {}).get("prompt"),
        "state": end.get("outcome", "running"),
        "outcome": end.get("outcome"),
        "error": end.get("error"),
        "started_ms": started_ms,
        "finished_ms": finished_ms,
        "started_event": started_id,
        "finished_event": finished_id,
    }

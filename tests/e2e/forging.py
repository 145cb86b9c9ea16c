"""A ledger changed behind its daemon's back, and put back as it was: what forgers do, and what rot does."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Callable, Iterator
from typing import Any

from pog.chain import TEXTS, Row
from pog.maintain.locate import relink
from runloop.digest import canonical
from tests.home import Home

Change = Callable[[dict[str, Any]], None]
"""Alters a payload in place."""

COLUMNS = ", ".join(Row._fields)
RAW = ", ".join(f"CAST({name} AS BLOB)" if name in TEXTS else name for name in Row._fields)


@contextlib.contextmanager
def opened(home: Home) -> Iterator[sqlite3.Connection]:
    """The ledger, as it is put back at the end: rows and blobs alike."""
    ledger = sqlite3.connect(home.events_db, timeout=60)
    rows = ledger.execute(f"SELECT {COLUMNS} FROM events").fetchall()
    blobs = ledger.execute("SELECT hash, data FROM blobs").fetchall()
    try:
        yield ledger
    finally:
        ledger.rollback()
        with ledger:
            ledger.execute("DELETE FROM events")
            ledger.executemany(f"INSERT INTO events ({COLUMNS}) VALUES ({', '.join('?' * 11)})", rows)
            ledger.execute("DELETE FROM blobs")
            ledger.executemany("INSERT INTO blobs (hash, data) VALUES (?, ?)", blobs)
        ledger.close()


@contextlib.contextmanager
def rotten(home: Home, event: int, column: str) -> Iterator[None]:
    """One bit of one cell is another."""
    with opened(home) as ledger:
        cast = f"CAST({column} AS BLOB)" if column in TEXTS else column
        ((cell,),) = ledger.execute(f"SELECT {cast} FROM events WHERE id = ?", (event,)).fetchall()
        if isinstance(cell, int):
            other: Any = cell ^ 1
        else:
            other = bytes((*cell[:-1], cell[-1] ^ 1)) if column != "payload" else _last_letter(cell)
            other = other.decode() if column in TEXTS else other
        with ledger:
            ledger.execute(f"UPDATE events SET {column} = ? WHERE id = ?", (other, event))
        yield


def _last_letter(text: bytes) -> bytes:
    """JSON with one letter changed: still JSON, or the change would be too easy to see."""
    place = max(at for at, byte in enumerate(text) if chr(byte).isalpha())
    return text[:place] + bytes((text[place] ^ 1,)) + text[place + 1 :]


@contextlib.contextmanager
def forged(home: Home, event: int, change: Change | None) -> Iterator[None]:
    """An event says something else, or (without ``change``) is not there, and every hash fits again."""
    with opened(home) as ledger:
        with ledger:
            if change is None:
                ledger.execute("DELETE FROM events WHERE id = ?", (event,))
            else:
                ((text,),) = ledger.execute("SELECT payload FROM events WHERE id = ?", (event,)).fetchall()
                payload = json.loads(text)
                change(payload)
                ledger.execute(
                    "UPDATE events SET payload = ? WHERE id = ?", (canonical(payload).decode(), event)
                )
            _relink(ledger)
        yield


@contextlib.contextmanager
def without(home: Home, run: str) -> Iterator[None]:
    """A whole run is not there, and every hash fits again."""
    with opened(home) as ledger:
        with ledger:
            ledger.execute("DELETE FROM events WHERE run = ?", (run,))
            _relink(ledger)
        yield


def _relink(ledger: sqlite3.Connection) -> None:
    before = bytes(32)
    for raw in ledger.execute(f"SELECT {RAW} FROM events ORDER BY id").fetchall():
        made = relink(raw, before)
        assert made is not None
        if (raw[9], raw[10]) != (made, before):
            ledger.execute("UPDATE events SET hash = ?, prev_hash = ? WHERE id = ?", (made, before, raw[0]))
        before = made

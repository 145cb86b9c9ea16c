"""Durable topics as the views have them: which messages are recorded, whose, and how far consumers got.

Knows: three tables. Does not know: topics' rules, sessions, deliveries (``runloopd.bus.durable``). Answers
are as new as the views: whoever needs a fact waits for them first (``Journal.views_at``).
"""

from __future__ import annotations

import os
import sqlite3
import threading
from pathlib import Path
from typing import Any, NamedTuple

from pog.connection import VIEWS, connect_reader
from pog.errors import ViewsError

__all__ = ["ConsumerRow", "Topics"]

_NEWEST = "SELECT max(msg_id) FROM topic_messages WHERE instance = ?"
_FIND = "SELECT event FROM topic_messages WHERE instance = ? AND msg_id = ? AND trace_id = ?"
_USAGE = "SELECT publisher, messages, bytes FROM topic_usage"
_CONSUMERS = "SELECT owner, consumer, pattern, position FROM topic_consumers ORDER BY owner, consumer"


class ConsumerRow(NamedTuple):
    """A durable consumer, as last stated."""

    owner: str
    consumer: str
    pattern: str
    position: int


class Topics:
    """A read-only connection to the views. Usable from several threads, one call at a time."""

    def __init__(self, views_path: str | os.PathLike[str]) -> None:
        self._path = Path(views_path)
        self._connection = connect_reader(self._path, VIEWS)
        self._mutex = threading.Lock()

    def close(self) -> None:
        """Let go of the file."""
        with self._mutex:
            self._connection.close()

    def newest(self, instance: str) -> str | None:
        """The largest message id of one publisher's program; None when nothing of it is recorded."""
        return self._all(_NEWEST, (instance,))[0][0]  # type: ignore[no-any-return]

    def find(self, instance: str, msg_id: str, trace_id: str) -> int | None:
        """The event in which a message is recorded."""
        found = self._all(_FIND, (instance, msg_id, trace_id))
        return int(found[0][0]) if found else None

    def usage(self) -> dict[str, tuple[int, int]]:
        """``publisher -> (messages, bytes of their bodies)``."""
        return {publisher: (messages, size) for publisher, messages, size in self._all(_USAGE)}

    def consumers(self) -> list[ConsumerRow]:
        """Every durable consumer there is."""
        return [ConsumerRow(*row) for row in self._all(_CONSUMERS)]

    def _all(self, statement: str, values: tuple[Any, ...] = ()) -> list[Any]:
        try:
            with self._mutex:
                return self._connection.execute(statement, values).fetchall()
        except sqlite3.Error as error:
            raise ViewsError(f"{self._path} cannot be read: {error}", hint="rlp doctor") from error

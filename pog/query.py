"""What the user knows, asked in SQL, in words, or by id. Reads the views only; changes nothing.

Knows: what a query may touch and cost, how to rank, how to mask. Does not know: who may ask (the gate) or how
views come about (``pog.materializer``).

Masking happens before the SQL sees a value: a masked query runs on views of the same names whose texts are
masked already, so that no alias, ``substr`` or ``hex`` brings an address back.
"""

from __future__ import annotations

import os
import re
import sqlite3
import threading
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from pog.connection import VIEWS, connect_reader
from pog.errors import QueryLimitError, QueryRefusedError, ViewsError
from pog.folds import TABLES
from pog.reader import Reader
from pog.redact import mask, mask_text
from pog.search import CANDIDATES, By, Hit, fused, opening, ranked, snippet, words_of
from runloop.digest import MAX_SAFE
from runloop.errors import NotFoundError, UsageError

__all__ = ["KINDS", "Knowledge", "QueryResult"]

KINDS = ("contact", "note", "mail", "record", "event")
"""What can be searched for."""

_MAX_ROWS = 10_000
_MAX_CELL_BYTES = 4 * 1024 * 1024
_MAX_RESULT_BYTES = 16 * 1024 * 1024
_MAX_SQL_CHARS = 65_536
_MAX_HITS = 1_000
_STEPS = 1_000
_SHADOW = re.compile(r"search(_data|_idx|_content|_docsize|_config)?\Z")
_HOST_MADE = frozenset({"blob", "run", "state", "type", "kind", "effect"})
_FORBIDDEN_FUNCTIONS = frozenset({"load_extension", "fts3_tokenizer", "readfile", "writefile", "edit"})


@dataclass(frozen=True, kw_only=True, slots=True)
class QueryResult:
    """Rows of a query, at most as many as asked for."""

    columns: list[str]
    """Unique: a repeated name gets a number."""
    rows: list[dict[str, Any]]
    truncated: bool
    """There were more rows."""

    def to_json(self) -> dict[str, Any]:
        """``{columns, rows, truncated}``."""
        return {"columns": self.columns, "rows": self.rows, "truncated": self.truncated}


class Knowledge:
    """Open views for reading. Usable from several threads, one question at a time.

    ``time_cap_ms`` bounds every query; ``monotonic`` (seconds) is the clock of that bound.
    """

    def __init__(
        self,
        views_path: str | os.PathLike[str],
        reader: Reader | None = None,
        *,
        time_cap_ms: int = 1_000,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._path = Path(views_path)
        self._reader = reader
        self._time_cap_s = time_cap_ms / 1000
        self._monotonic = monotonic
        self._mutex = threading.Lock()
        self._raw = connect_reader(self._path, VIEWS)
        self._masked = connect_reader(self._path, VIEWS)
        for connection in (self._raw, self._masked):
            connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _MAX_CELL_BYTES)
            connection.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, 0)
            # Connecting to a virtual table asks for more than any query may; it stays connected.
            connection.execute("SELECT count(*) FROM search WHERE search MATCH '\"a\"'").fetchone()
            connection.execute("SELECT count(*) FROM json_each('[]'), json_tree('[]')").fetchone()
        _shadow_with_masks(self._masked)

    @property
    def path(self) -> Path:
        """The file of the views."""
        return self._path

    @property
    def reader(self) -> Reader | None:
        """The ledger behind the views, where one was given."""
        return self._reader

    def close(self) -> None:
        """Let go of the file."""
        with self._mutex:
            self._raw.close()
            self._masked.close()

    def __enter__(self) -> Knowledge:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def cursor(self) -> int:
        """Id of the last event the views contain."""
        return int(self._own("SELECT event FROM cursor")[0][0])

    def query(
        self,
        sql: str,
        params: Sequence[Any] = (),
        limit: int = 200,
        *,
        raw: bool = False,
        tables: Collection[str] | None = None,
        most_bytes: int = _MAX_RESULT_BYTES,
    ) -> QueryResult:
        """Run one SELECT over the views (``pog/sql/views.sql`` documents them).

        ``tables`` restricts it to some of them, ``most_bytes`` what all its cells may have together
        (16 MiB at most). Raises :class:`QueryRefusedError` for anything but one
        statement that reads, :class:`QueryLimitError` beyond the caps of time and size.
        """
        if len(sql) > _MAX_SQL_CHARS:
            raise QueryRefusedError(f"the SQL is longer than {_MAX_SQL_CHARS} characters")
        if not 1 <= limit <= _MAX_ROWS:
            raise QueryRefusedError(f"limit is {limit}", hint=f"use 1 to {_MAX_ROWS}")
        allowed = frozenset(TABLES) if tables is None else frozenset(tables)
        connection = self._raw if raw else self._masked
        try:
            with self._mutex:
                names, found = self._guarded(
                    connection, sql, params, limit + 1, _authorizer(allowed, raw), most_bytes
                )
        except QueryRefusedError as error:
            error.hint = self._columns_hint(error.message, sql, allowed) or error.hint
            raise
        columns = _unique(names)
        rows = [dict(zip(columns, map(_json_cell, row), strict=True)) for row in found[:limit]]
        return QueryResult(columns=columns, rows=mask(rows, emails=not raw), truncated=len(found) > limit)

    def search(
        self,
        query: str,
        k: int = 8,
        kinds: Collection[str] = (),
        *,
        raw: bool = False,
        by: By | None = None,
    ) -> list[dict[str, Any]]:
        """The ``k`` best matches of the words in ``query``, newer ones slightly ahead; with ``by``, fused
        with what is nearest by vector.

        Items are ``{kind, id, title, snippet, score, event, label, source, found_by}``; ``event`` is the
        ledger id of the source, ``label`` its trust label, ``found_by`` the rank in each list that has it. No
        character of ``query`` has a meaning of its own. Entries with every word come before those with some.
        """
        unknown = set(kinds) - set(KINDS)
        if unknown:
            raise UsageError(
                f"unknown kind {sorted(unknown)[0]!r}", hint=f"known: {', '.join(KINDS)}", code="kb.kind"
            )
        words = words_of(query)
        if not words or k < 1:
            return []
        k = min(k, _MAX_HITS)
        if set(kinds) >= set(KINDS):
            kinds = ()  # asked for every row, a condition costs as much as the ranking
        found = fused(ranked(self._rows, words, kinds, k), by, k + CANDIDATES)
        items: list[dict[str, Any]] = []
        for at in range(0, len(found), k):
            if len(items) < k:  # some of them may have vanished since their vectors were made
                items += self._shown(found[at : at + k], words, kinds, raw)
        return items[:k]

    def _shown(
        self, hits: Sequence[Hit], words: Sequence[str], kinds: Collection[str], raw: bool
    ) -> list[dict[str, Any]]:
        """Hits as they are told. One that is no longer in the views, or of another kind, is left out."""
        marks = ", ".join("?" * len(hits))
        rows = self._rows(
            f"SELECT id, kind, ref, title, body, label, source, event FROM searchables WHERE id IN ({marks})",  # noqa: S608
            [hit.id for hit in hits],
        )
        there = {row["id"]: row for row in rows if not kinds or row["kind"] in kinds}
        items = []
        for hit in hits:
            row = there.get(hit.id)
            if row is None:
                continue
            told = {
                "kind": row["kind"],
                "id": row["ref"].partition(":")[2],
                "title": mask_text(row["title"], emails=not raw),
                # Masked before it is cut: half an address would not be recognised as one.
                "snippet": snippet(mask_text(opening(row["body"]), emails=not raw), words),
                "score": round(hit.score, 9),
                "event": row["event"],
                "label": row["label"],
                "source": mask_text(row["source"], emails=not raw),
                "found_by": dict(sorted(hit.found_by.items())),
            }
            items.append(told)
        return items

    def read(self, kind: str, id: str, *, raw: bool = False) -> dict[str, Any]:
        """A whole contact (``kind="contact"``) or document (``"document"``), with its ``event``.

        Raises :class:`NotFoundError`.
        """
        table = {
            "contact": "contacts",
            "document": "documents",
            "note": "documents",
            "mail": "documents",
            "record": "documents",
            "event": "calendar",
        }.get(kind)
        if table is None:
            raise UsageError(f"unknown kind {kind!r}", hint="contact, document or event", code="kb.kind")
        key = {"contacts": "contact", "documents": "document", "calendar": "entry"}[table]
        names, rows = self._own_named(f"SELECT * FROM {table} WHERE {key} = ?", (id,))  # noqa: S608
        if not rows:
            raise NotFoundError(f"there is no {key} {id!r}", hint="rlp kb search", code="kb.absent")
        record = dict(zip(names, rows[0], strict=True))
        for field in ("emails", "phones", "nicknames", "people"):
            if field in record:
                record[field] = msgspec.json.decode(record[field])
        masked: dict[str, Any] = mask(record, emails=not raw)
        return {**masked, "kind": key, "id": id, key: id}

    def _columns_hint(self, message: str, sql: str, allowed: Collection[str]) -> str:
        """What there is, when a table or a column is not: only of tables that may be read."""
        if "no such table" in message:
            return f"the tables are: {', '.join(sorted(allowed))}"
        if "no such column" not in message:
            return ""
        asked = [table for table in sorted(allowed) if re.search(rf"\b{table}\b", sql, re.IGNORECASE)]
        shown = {table: self._own_named(f"SELECT * FROM {table} LIMIT 0", ())[0] for table in asked[:3]}  # noqa: S608
        return "; ".join(f"{table} has {', '.join(columns)}" for table, columns in shown.items())

    def _rows(self, statement: str, params: Sequence[Any]) -> list[dict[str, Any]]:
        names, rows = self._own_named(statement, params)
        return [dict(zip(names, row, strict=True)) for row in rows]

    def _own(self, statement: str, params: Sequence[Any] = ()) -> list[Any]:
        return self._own_named(statement, params)[1]

    def _own_named(self, statement: str, params: Sequence[Any]) -> tuple[list[str], list[Any]]:
        with self._mutex:
            return self._guarded(self._raw, statement, params, -1, None)

    def _guarded(
        self,
        connection: sqlite3.Connection,
        statement: str,
        params: Sequence[Any],
        at_most: int,
        authorizer: Callable[..., int] | None,
        most_bytes: int = _MAX_RESULT_BYTES,
    ) -> tuple[list[str], list[Any]]:
        deadline = self._monotonic() + self._time_cap_s
        refused: list[str] = []

        def authorize(*call: Any) -> int:
            verdict = authorizer(*call) if authorizer else sqlite3.SQLITE_OK
            if verdict != sqlite3.SQLITE_OK:
                refused.append(_denied(*call))
            return verdict

        connection.set_progress_handler(lambda: int(self._monotonic() > deadline), _STEPS)
        connection.set_authorizer(authorize)
        cursor = connection.cursor()
        try:
            cursor.execute(statement, tuple(params))
            if cursor.description is None:
                raise sqlite3.ProgrammingError("there is no statement in it")
            names = [column[0] for column in cursor.description]
            return names, _fetch(cursor, at_most, min(most_bytes, _MAX_RESULT_BYTES))
        except (sqlite3.Error, sqlite3.Warning, OverflowError, UnicodeError) as error:
            raise self._translate(error, refused) from error
        finally:
            cursor.close()
            connection.set_progress_handler(None, 0)
            connection.set_authorizer(None)

    def _translate(self, error: Exception, refused: list[str]) -> Exception:
        if refused:
            return QueryRefusedError(
                f"the query may not {refused[0]}", hint="one SELECT over the tables of the knowledge base"
            )
        name = str(getattr(error, "sqlite_errorname", "") or "")
        if name == "SQLITE_INTERRUPT":
            return QueryLimitError(
                f"the query took longer than {int(self._time_cap_s * 1000)} ms",
                hint="narrow it with WHERE and LIMIT",
            )
        if name == "SQLITE_TOOBIG":
            return QueryLimitError(
                f"a value is larger than {_MAX_CELL_BYTES} bytes", hint="select less of it with substr()"
            )
        if name.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB", "SQLITE_IOERR", "SQLITE_BUSY", "SQLITE_FULL")):
            return ViewsError(
                f"the views cannot be read: {error}",
                hint="stop the daemon and remove the file of the views ('rlp config path'): it is made anew",
            )
        return QueryRefusedError(f"the query cannot be run: {error}", hint="one SELECT; see 'rlp kb --help'")


def _fetch(cursor: sqlite3.Cursor, at_most: int, most_bytes: int) -> list[Any]:
    rows: list[Any] = []
    size = 0
    for row in cursor:
        size += sum(len(cell) if isinstance(cell, (str, bytes)) else 8 for cell in row)
        if size > most_bytes:
            raise QueryLimitError(
                f"the result is larger than {most_bytes} bytes",
                hint="narrow it with WHERE and LIMIT, or select less of a value with substr()",
            )
        rows.append(row)
        if len(rows) == at_most:
            break
    return rows


def _authorizer(allowed: frozenset[str], raw: bool) -> Callable[..., int]:
    """Reading of these tables, and nothing else. Masked: only through the masking views."""

    def authorize(
        action: int, first: str | None, second: str | None, database: str | None, source: str | None
    ) -> int:
        if action in {sqlite3.SQLITE_SELECT, sqlite3.SQLITE_RECURSIVE}:
            return sqlite3.SQLITE_OK
        if action == sqlite3.SQLITE_FUNCTION:
            return sqlite3.SQLITE_DENY if second in _FORBIDDEN_FUNCTIONS else sqlite3.SQLITE_OK
        if action == sqlite3.SQLITE_READ:
            return sqlite3.SQLITE_OK if readable(first or "", database, source) else sqlite3.SQLITE_DENY
        if action == sqlite3.SQLITE_PRAGMA and raw and first == "data_version":
            return sqlite3.SQLITE_OK  # asked by the full-text index itself
        return sqlite3.SQLITE_DENY

    def readable(table: str, database: str | None, source: str | None) -> bool:
        if not table or database is None or table in {"json_each", "json_tree"}:
            return True  # a subquery, a common table expression, or a function over what was read already
        if raw:
            return table in allowed or (bool(_SHADOW.match(table)) and "searchables" in allowed)
        if database == "temp":
            return table in allowed
        return source is not None and source in allowed and source == table

    return authorize


def _shadow_with_masks(connection: sqlite3.Connection) -> None:
    """Give every table a temporary view of its name whose texts are masked before SQL sees them."""

    def masked(value: Any) -> Any:
        return mask_text(value) if isinstance(value, str) else value

    connection.create_function("_masked", 1, masked, deterministic=True)
    connection.execute("PRAGMA query_only = OFF")  # the file stays open read-only; temp is in memory
    connection.execute("PRAGMA temp_store = MEMORY")
    # Functions in temporary views count as untrusted schema unless we say that ours is meant.
    connection.execute("PRAGMA trusted_schema = ON")
    for table in TABLES:
        columns = connection.execute(f"PRAGMA main.table_info({table})").fetchall()
        exprs = ", ".join(
            f"_masked({name}) AS {name}" if kind == "TEXT" and not _is_plain(name) else name
            for _, name, kind, *_ in columns
        )
        connection.execute(f"CREATE TEMP VIEW {table} AS SELECT {exprs} FROM main.{table}")  # noqa: S608


def _is_plain(column: str) -> bool:
    """Columns that the host alone fills, with digests, ids and words of its own. Masking them would only
    cost time, and keep the index of a run's rows from being used."""
    return column.endswith(("_digest", "_blob")) or column in _HOST_MADE


def _denied(action: int, first: str | None, second: str | None, *_: Any) -> str:
    if action == sqlite3.SQLITE_READ:
        return f"read {first}.{second}" if second else f"read {first}"
    if action == sqlite3.SQLITE_FUNCTION:
        return f"call {second}()"
    return "do anything but read"


def _unique(names: list[str]) -> list[str]:
    found: list[str] = []
    for name in names:
        candidate, count = name, 1
        while candidate in found:
            count += 1
            candidate = f"{name}_{count}"
        found.append(candidate)
    return found


def _json_cell(value: Any) -> Any:
    """A cell as JSON: bytes in hex, numbers without a canonical form as text."""
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, (int, float)) and not -MAX_SAFE <= value <= MAX_SAFE:
        return str(value)
    if isinstance(value, str):
        with suppress(UnicodeEncodeError):
            value.encode()
            return value
        return value.encode("utf-8", "replace").decode()
    return value

"""Lists things of the knowledge base, so that an opening can map over them."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

from runloop.agent import Fail, Result, Task, handler
from runloop.host import Host

KINDS = {"notes": "note", "mail": "mail"}
DAY_MS = 86_400_000


@handler
def handle(task: Task, host: Host) -> Result:
    """``with.what`` -> the things on port ``items`` and their number on ``count``."""
    what = str(task.param("what"))
    limit = task.param("limit", 20)
    if not isinstance(limit, int) or not 1 <= limit <= 200:
        raise Fail("finder.input", f"'limit' cannot be {limit!r}; use 1 to 200")
    if what in KINDS:
        items = documents(host, KINDS[what], str(task.param("query", "") or ""), limit)
    elif what == "contacts":
        items = contacts(host, limit)
    elif what == "calendar":
        items = calendar(host, str(task.param("from", "") or ""), int(task.param("days", 7)), limit)
    else:
        raise Fail("finder.input", f"'what' cannot be {what!r}; use notes, mail, contacts or calendar")
    return Result.of(items=items, count=len(items))


def documents(host: Host, kind: str, query: str, limit: int) -> list[dict[str, Any]]:
    """Whole notes or mails: those that match, best first, or the newest."""
    if query:
        ids = [str(hit["id"]) for hit in host.kb_search(query, k=min(limit, 50), kinds=[kind])]
    else:
        rows = host.kb_query(
            "SELECT document FROM documents WHERE type = ? ORDER BY written_ms DESC, document",
            [kind],
            limit=limit,
        )
        ids = [str(row["document"]) for row in rows]
    made = []
    for key in ids:
        found = host.kb_read("document", key)
        made.append(
            {
                "kind": kind,
                "id": key,
                "title": str(found.get("title") or ""),
                "text": str(found.get("text") or "")[:20_000],
                "when": day(found.get("written_ms")),
            }
        )
    return made


def contacts(host: Host, limit: int) -> list[dict[str, Any]]:
    """Contacts by name, with their first address or none."""
    rows = host.kb_query("SELECT name, emails, org, title FROM contacts ORDER BY name, contact", limit=limit)
    return [
        {
            "name": row["name"],
            "email": next(iter(json.loads(row["emails"] or "[]")), ""),
            "org": row["org"],
            "title": row["title"],
        }
        for row in rows
    ]


def calendar(host: Host, start: str, days: int, limit: int) -> list[dict[str, Any]]:
    """Appointments that begin in the given days, and todos that are due in them and not done."""
    try:
        begin = (
            datetime.fromisoformat(start).replace(tzinfo=UTC)
            if start
            else datetime.fromtimestamp(host.now_ms() / 1000, UTC).replace(hour=0, minute=0, second=0)
        )
    except ValueError as error:
        raise Fail("finder.input", f"'from' cannot be {start!r}; write YYYY-MM-DD") from error
    low = begin.date().isoformat()
    high = (begin + timedelta(days=days)).date().isoformat()
    rows = host.kb_query(
        "SELECT type, title, text, location, starts, ends FROM calendar"
        " WHERE status NOT IN ('cancelled', 'completed')"
        " AND coalesce(nullif(starts, ''), ends) >= ? AND coalesce(nullif(starts, ''), ends) < ?"
        " ORDER BY coalesce(nullif(starts, ''), ends), title",
        [low, high],
        limit=limit,
    )
    return [
        {
            "kind": row["type"],
            "id": "",
            "title": row["title"],
            "text": " ".join(part for part in (row["location"], row["text"]) if part),
            "when": str(row["starts"] or row["ends"])[:16].replace("T", " "),
        }
        for row in rows
    ]


def day(ms: Any) -> str:
    """``YYYY-MM-DD`` of milliseconds; empty where there are none."""
    return datetime.fromtimestamp(ms / 1000, UTC).date().isoformat() if isinstance(ms, int) else ""

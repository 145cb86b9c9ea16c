"""``rlp kb``: the knowledge base, read through the daemon."""

from __future__ import annotations

from typing import Any

from rlp.output import moment
from rlp.session import Session
from runloop.errors import UsageError
from runloop.exits import Exit

__all__ = ["query", "search", "show_why", "why"]

KINDS = ("contact", "note", "mail")
SNIPPET = 90


def query(session: Session, *, sql: str, params: tuple[str, ...], limit: int) -> Exit:
    """Run one SELECT over the views."""
    answer = session.ask("kb.query", sql=sql, params=list(params), limit=limit)
    columns, rows = _table(answer)
    session.console.rows(rows, columns, empty="no rows")
    if len(rows) >= limit:
        session.console.say(f"stopped after {limit} rows; --limit raises that")
    return Exit.OK


def _table(answer: Any) -> tuple[list[str], list[dict[str, Any]]]:
    rows = list(answer["rows"])
    columns = list(answer.get("columns") or (rows[0] if rows else []))
    return columns, [row if isinstance(row, dict) else dict(zip(columns, row, strict=True)) for row in rows]


def search(session: Session, *, query: tuple[str, ...], k: int, kinds: tuple[str, ...]) -> Exit:
    """Search contacts, notes and mail."""
    for kind in kinds:
        if kind not in KINDS:
            raise UsageError(f"{kind!r} is not a kind", hint=f"one of: {', '.join(KINDS)}", code="cli.option")
    items = session.ask("kb.search", query=" ".join(query), k=k, kinds=list(kinds))["items"]
    session.console.rows(
        items if session.json else [{**item, "snippet": _short(item.get("snippet"))} for item in items],
        ("kind", "title", "snippet", "event"),
        empty="nothing found; 'rlp import PATH' brings contacts, notes and mail in",
    )
    return Exit.OK


def _short(text: Any) -> str:
    """A snippet on one line, as long as a table can bear."""
    line = " ".join(str(text or "").split())
    return line if len(line) <= SNIPPET else line[: SNIPPET - 3] + "..."


def why(session: Session, *, ref: str, impact: bool) -> Exit:
    """Explain a thing back to its root, or forward to what followed."""
    found = session.ask("kb.why", ref=ref, impact=impact)
    show_why(session, found)
    return Exit.OK


def show_why(session: Session, found: dict[str, Any]) -> None:
    """An explanation, one line per hop, indented by its distance from what was asked about."""
    if session.json:
        session.console.json(found)
        return
    console = session.console
    for hop in found["hops"]:
        indent = "  " * min(int(hop["depth"]), 20)
        by = f"by {hop['actor']}" + (f", node {hop['node']}" if hop.get("node") else "")
        console.data(f"{indent}#{hop['event']}  {hop['kind']}  {hop['summary']}")
        console.data(f"{indent}    {moment(hop['ts_ms'])}  {by}", "dim")
        for name, digest in (hop.get("digests") or {}).items():
            console.detail(f"{indent}    {name} {digest}")
    for grant in found.get("grants") or []:
        parent = f", narrowed from {grant['parent'][:16]}" if grant.get("parent") else ""
        console.data(f"right: token {grant['token'][:16]} of {grant['holder']}{parent} (#{grant['event']})")
    for severed in found.get("severed") or []:
        console.note(f"rlp: severed at #{severed['event']}: {severed['reason']}", "yellow")
    if found.get("also"):
        console.say(f"the same words also mean #{', #'.join(map(str, found['also'][:10]))}")
    if found.get("truncated"):
        console.say("there is more than is shown")

"""``rlp kb``: the knowledge base, read through the daemon."""

from __future__ import annotations

from typing import Any

from rlp.moments import event_number, knowledge_then
from rlp.session import Session
from runloop.errors import UsageError
from runloop.exits import Exit
from runloop.quantities import moment
from runloop.spelling import did_you_mean

__all__ = ["query", "retract", "search", "show_why", "why"]

KINDS = ("contact", "note", "mail", "record", "event")
SNIPPET = 90


def query(session: Session, *, sql: str, params: tuple[str, ...], limit: int, at: str | None = None) -> Exit:
    """Run one SELECT over the views, as they are or as they were."""
    if at is None:
        answer = session.ask("kb.query", sql=sql, params=list(params), limit=limit)
    else:
        with knowledge_then(session, at) as knowledge:
            answer = knowledge.query(sql, params, limit, raw=True).to_json()
    columns, rows = _table(answer)
    session.console.rows(rows, columns, empty="no rows")
    if len(rows) >= limit:
        session.console.say(f"stopped after {limit} rows; --limit raises that")
    return Exit.OK


def _table(answer: Any) -> tuple[list[str], list[dict[str, Any]]]:
    rows = list(answer["rows"])
    columns = list(answer.get("columns") or (rows[0] if rows else []))
    return columns, [row if isinstance(row, dict) else dict(zip(columns, row, strict=True)) for row in rows]


def search(
    session: Session, *, query: tuple[str, ...], k: int, kinds: tuple[str, ...], at: str | None = None
) -> Exit:
    """Search contacts, notes and mail, as they are or as they were."""
    for kind in kinds:
        if kind not in KINDS:
            raise UsageError(
                f"{kind!r} is not a kind",
                hint=did_you_mean(kind, KINDS, f"one of: {', '.join(KINDS)}"),
                code="cli.option",
            )
    if at is None:
        found = session.ask("kb.search", query=" ".join(query), k=k, kinds=list(kinds))
    else:
        with knowledge_then(session, at) as knowledge:
            found = {"items": knowledge.search(" ".join(query), k, kinds, raw=True), "embedders": []}
    if session.json:
        session.console.json(found)
        return Exit.OK
    items = [
        {**item, "snippet": _short(item.get("snippet")), "found by": _by(item.get("found_by"))}
        for item in found["items"]
    ]
    session.console.rows(
        items,
        ("kind", "event", "title", "label", "found by", "snippet"),
        empty="nothing found; try other words, or bring more in with 'rlp import PATH'",
    )
    return Exit.OK


def _by(ranks: Any) -> str:
    """Which lists have it, and at which place: ``words 1, lexical-1 3``."""
    return ", ".join(f"{name} {rank}" for name, rank in sorted((ranks or {}).items(), reverse=True))


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
    # The causes of what a fork did may lie in the run it was forked from.
    several = len({hop.get("run") for hop in found["hops"]} - {None}) > 1
    for hop in found["hops"]:
        indent = "  " * min(int(hop["depth"]), 20)
        by = f"by {hop['actor']}" + (f", node {hop['node']}" if hop.get("node") else "")
        by += f", run {hop['run'][:8]}" if several and hop.get("run") else ""
        console.data(f"{indent}#{hop['event']}  {hop['kind']}  {hop['summary']}")
        console.data(f"{indent}    {moment(hop['ts_ms'])}  {by}", "dim")
        for name, digest in (hop.get("digests") or {}).items():
            console.detail(f"{indent}    {name} {digest}")
    for grant in found.get("grants") or []:
        parent = f", narrowed from {grant['parent'][:16]}" if grant.get("parent") else ""
        console.data(f"right: token {grant['token'][:16]} of {grant['holder']}{parent} (#{grant['event']})")
    for asked in found.get("asked") or []:
        words = f": {asked['prompt']!r}" if asked.get("prompt") else ", without words"
        console.data(
            f"asked: {asked['principal']} started run {str(asked['run'])[:8]} (#{asked['event']}){words}"
        )
    for shown in found.get("decisions") or []:
        said = f"{shown['decision']} by {shown['principal']}" if shown.get("decision") else "not answered"
        console.data(f"shown: {shown['summary']} (#{shown['event']}), {said}")
        console.detail(f"    bytes {shown['content_blob']}")
    for gone in found.get("retracted") or []:
        console.note(
            f"rlp: #{gone['event']} was taken back by #{gone['retraction']}: {gone['reason']}", "yellow"
        )
    for severed in found.get("severed") or []:
        console.note(f"rlp: severed at #{severed['event']}: {severed['reason']}", "yellow")
    if found.get("also"):
        console.say(f"the same words also mean #{', #'.join(map(str, found['also'][:10]))}")
    if found.get("truncated"):
        console.say("there is more than is shown")


def retract(session: Session, *, event: str, cascade: bool, reason: str, dry_run: bool, undo: bool) -> Exit:
    """Take a fact back with what came of it, or let it count again."""
    number = event_number(event, hint="'rlp kb search' shows them")
    if undo and (cascade or dry_run):
        raise UsageError("--undo goes with --reason only", code="cli.option")
    if not reason.strip() and not dry_run:
        raise UsageError(
            "a retraction needs a reason", hint=f"rlp kb retract {number} --reason '…'", code="cli.option"
        )
    if undo:
        found = session.ask("kb.unretract", retraction=number, reason=reason)
        if session.json:
            session.console.json(found)
        else:
            session.console.data(f"#{found['source']} and what came of it count again")
        return Exit.OK
    found = session.ask("kb.retract", event=number, cascade=cascade, reason=reason, preview=dry_run)
    if session.json:
        session.console.json(found)
        return Exit.OK
    _show_retraction(session, found, cascade=cascade or dry_run)
    return Exit.OK


def _show_retraction(session: Session, found: dict[str, Any], *, cascade: bool) -> None:
    """What was, or would be, taken back and held."""
    console = session.console
    done = found["retraction"] is not None
    facts = [fact for fact in found["facts"] if fact != found["source"]]
    console.data(f"#{found['source']} " + ("is taken back" if done else "would be taken back"))
    if facts:
        console.data("with " + ", ".join(f"#{fact}" for fact in facts))
    for name, words in (("runs", "run held"), ("approvals", "question voided")):
        for one in found[name] if cascade else []:
            console.data(f"{words}: {one}")
    if not cascade and (len(found["runs"]) or len(found["approvals"])):
        console.note("rlp: runs and questions came of it; --cascade takes back and holds what depends on it")
    for sent in found["sent"]:
        console.note(f"rlp: mail #{sent} came of it and has left; it cannot be taken back", "yellow")
    for run in found["unlinked"]:
        console.note(f"rlp: run {run[:8]} read the knowledge by SQL; nobody can say whether it heard of it")
    if done:
        console.say(f"'rlp kb retract --undo {found['retraction']} --reason …' lets it count again")
    else:
        console.say("nothing was stated; leave --dry-run out to do it")

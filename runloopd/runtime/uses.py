"""What an agent really did with its rights in its last runs, read from the views.

Knows: which views tell, and which part of a call's arguments a right is checked against. Does not know: what
the agent may do, or what becomes of the answer. Where a call's reach cannot be told (a free SQL query), it
counts as having reached everything of its kind: a right is never called unused on a guess.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol

import msgspec

from runloop.caps.policy import CONTACTS_RAW, KB_DOMAINS
from runloop.errors import RunloopError
from runloop.ops import OPS

__all__ = ["Usage"]

Blob = Callable[[str], bytes]


class Views(Protocol):
    """Answers one SELECT on the views."""

    async def query(self, sql: str, params: list[Any], limit: int, *, raw: bool) -> dict[str, Any]: ...


_RUNS = """
SELECT DISTINCT r.run FROM nodes AS n JOIN runs AS r ON r.run = n.run
WHERE n.agent = ? AND n.scheduled_event IS NOT NULL ORDER BY r.started_event DESC
"""
_CALLS = """
SELECT DISTINCT h.op, h.args_digest FROM hostcalls AS h JOIN nodes AS n ON n.run = h.run AND n.node = h.node
WHERE n.agent = ? AND h.run IN (SELECT value FROM json_each(?)) AND (h.ok = 1 OR h.admitted_event IS NOT NULL)
"""
_MODELS = """
SELECT DISTINCT m.provider, m.model FROM model_calls AS m JOIN nodes AS n ON n.run = m.run AND n.node = m.node
WHERE n.agent = ? AND m.run IN (SELECT value FROM json_each(?))
"""
_AUDITED = """
SELECT DISTINCT capability, target FROM cap_audit
WHERE agent = ? AND run IN (SELECT value FROM json_each(?)) AND decision = 'allowed'
"""
_LAST = """
SELECT r.run, r.opening, r.started_ms, r.state, n.agent_version AS version, n.bundle_digest AS bundle
FROM nodes AS n JOIN runs AS r ON r.run = n.run
WHERE n.agent = ? AND n.scheduled_event IS NOT NULL ORDER BY r.started_event DESC
"""
_MAX_CALLS = 2_000

_SEARCHED = {"contact": "contacts", "note": "notes", "mail": "mail", "record": "notes", "event": "calendar"}
_READ = {"contact": ("contacts",), "event": ("calendar",)}


class Usage:
    """Asks the views."""

    def __init__(self, views: Views, blob: Blob) -> None:
        self._views = views
        self._blob = blob

    async def used(self, agent: str, runs: int) -> list[tuple[str, str]] | None:
        """Every ``(capability, target)`` of the agent's last ``runs`` runs; None: it never ran."""
        rows = await self._rows(_RUNS, [agent], runs)
        if not rows:
            return None
        ids = msgspec.json.encode([row["run"] for row in rows]).decode()
        found: set[tuple[str, str]] = set()
        for row in await self._rows(_CALLS, [agent, ids]):
            found.update(self._of_call(row["op"], row["args_digest"]))
        for row in await self._rows(_MODELS, [agent, ids]):
            found.add(("model", f"{row['provider']}:{row['model']}"))
        for row in await self._rows(_AUDITED, [agent, ids]):
            found.add((row["capability"], row["target"]))
        return sorted(found)

    async def last(self, agent: str) -> dict[str, Any] | None:
        """The agent's last run: ``run, opening, started_ms, state, version, bundle``; None: it never ran."""
        rows = await self._rows(_LAST, [agent], 1)
        return rows[0] if rows else None

    async def _rows(self, sql: str, params: list[Any], limit: int = _MAX_CALLS) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = (await self._views.query(sql, params, limit, raw=True))["rows"]
        return found

    def _of_call(self, op: str, args_digest: str) -> Iterator[tuple[str, str]]:
        row = OPS.get(op)
        if row is None or row.capability is None:
            return
        try:
            args = msgspec.json.decode(self._blob(args_digest))
        except (RunloopError, msgspec.DecodeError):
            args = {}
        for target in _targets(op, args if isinstance(args, dict) else {}):
            yield row.capability, target
            if row.capability == "kb_read" and target == "contacts":
                yield CONTACTS_RAW, ""


def _targets(op: str, args: dict[str, Any]) -> Iterable[str]:
    """What a call reached, as the gate checks it."""
    targets: Iterable[str] = ("",)
    match op:
        case "mail.send":
            lists = (args.get(field) or [] for field in ("to", "cc", "bcc"))
            targets = [str(address).lower() for addresses in lists for address in addresses]
        case "kb.search":
            kinds = [_SEARCHED[kind] for kind in args.get("kinds") or () if kind in _SEARCHED]
            targets = dict.fromkeys(kinds or _SEARCHED.values())
        case "kb.read":
            targets = _READ.get(str(args.get("kind")), ("notes", "mail"))
        case "kb.why":
            targets = ("history",)
        case "kb.query" | "kb.propose":
            targets = KB_DOMAINS
        case "fs.read" | "fs.write" | "fs.list" | "fs.stat":
            targets = (str(args.get("path", "")),)
        case "promise.create" | "promise.await" | "promise.resolve" | "input.ask":
            targets = (op.partition(".")[2],)
        case "msg.publish" | "msg.request":
            targets = (str(args.get("to", "")),)
        case "msg.subscribe":
            targets = tuple(map(str, args.get("topics") or ())) or ("",)
        case "http.fetch":
            targets = (f"{args.get('method', 'GET')} {args.get('url', '')}",)
    return targets

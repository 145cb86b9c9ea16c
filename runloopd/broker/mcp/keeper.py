"""The operator's hand on MCP servers: added and approved after a person's yes, suspended and removed at once.

Knows: what is asked before authority widens, how a yes becomes a fact, what is shown. Does not know: how a
server is reached (``mcp.source``). What narrows needs no second word; what widens is bound to the exact bytes
that were shown (attacks.md C8, M1).
"""

from __future__ import annotations

from typing import Any

import orjson

from runloop.digest import blob_digest, canonical
from runloop.errors import ConflictError, NotFoundError, RefusedError, UsageError
from runloop.events import Draft, McpServerAdded, McpServerRemoved, McpToolsApproved, Provenance
from runloopd.authority.approval import Approval, Decided
from runloopd.authority.approvals import Approvals
from runloopd.authority.desk import Desk
from runloopd.broker.mcp.book import Book, Server
from runloopd.broker.mcp.definitions import Definition, changes, pretty
from runloopd.broker.mcp.names import check_server, qualified
from runloopd.broker.mcp.record import McpRecord
from runloopd.broker.mcp.source import McpSource
from runloopd.broker.mcp.spec import ServerSpec, checked, shown
from runloopd.broker.ports import JournalPort

__all__ = ["ADD", "APPROVE", "Keeper"]

ADD = "mcp.add"
APPROVE = "mcp.approve"
EFFECTS = ("read", "write", "send")
MAX_SERVERS = 64


class Keeper:
    """Carries out what the operator wants of MCP servers."""

    def __init__(
        self,
        book: Book,
        source: McpSource,
        record: McpRecord,
        journal: JournalPort,
        approvals: Approvals,
        desk: Desk,
    ) -> None:
        self._book = book
        self._source = source
        self._record = record
        self._journal = journal
        self._approvals = approvals
        self._desk = desk
        desk.serve(ADD, self)
        desk.serve(APPROVE, self)

    # --- widening: needs a person -------------------------------------------------------------------

    async def ask_add(self, name: str, spec: ServerSpec) -> dict[str, Any]:
        """Put the question whether a server may be started, or connected to. Nothing is started before."""
        check_server(name)
        spec = checked(spec)
        before = self._book.get(name)
        if before is not None and before.spec == spec:
            return {"state": "current", "server": name}
        if before is not None:
            raise ConflictError(
                f"an MCP server {name} is there already, and is another one",
                hint=f"'rlp mcp rm {name}' first, or choose another name",
                code="mcp.exists",
            )
        if len(self._book.servers()) >= MAX_SERVERS:
            raise RefusedError(
                f"there are {MAX_SERVERS} MCP servers already", hint="'rlp mcp rm' one", code="mcp.many"
            )
        action = _action(
            f"add the MCP server {name}: {spec.summary[:200]}", name, server=name, spec=spec.to_json()
        )
        approval = await self._desk.ask(ADD, name, action, shown(name, spec))
        return {"state": "waiting", "approval": approval.id, "server": name}

    async def ask_approve(self, name: str, tools: list[str], effect: str) -> dict[str, Any]:
        """Put the question whether tools may be called as they are defined now.

        ``tools`` empty: all that are not approved as they are. The server is looked at first.
        """
        if effect not in EFFECTS:
            raise UsageError(
                f"{effect[:32]!r} is no effect", hint=f"one of {', '.join(EFFECTS)}", code="mcp.effect"
            )
        listing = await self._source.look(name)
        server = self._book.find(name)
        wanted = [_known(name, tool, listing.tools) for tool in tools] or [
            one for one in listing.tools.values() if not _approved(server, one)
        ]
        if not wanted:
            return {"state": "current", "server": name}
        definitions = {one.tool: one.raw for one in sorted(wanted, key=lambda one: one.tool)}
        action = _action(
            f"let {_count(definitions)} of the MCP server {name} be called, taken for {effect}",
            name,
            server=name,
            effect=effect,
            tools={one.tool: one.digest for one in wanted},
            added=server.event,
        )
        text = _shown_tools(server, list(definitions.values()), effect)
        approval = await self._desk.ask(APPROVE, name, action, text)
        return {"state": "waiting", "approval": approval.id, "server": name, "tools": sorted(definitions)}

    async def granted(self, approval: Approval, decided: Decided) -> dict[str, Any]:
        """A person said yes: make it so, with the fact and the claim in one transaction."""
        if approval.op == ADD:
            return await self._added(approval, decided)
        return await self._approve(approval, decided)

    async def refused(self, approval: Approval) -> None:
        """Nothing was begun."""

    async def _added(self, approval: Approval, decided: Decided) -> dict[str, Any]:
        action = approval.action
        name = str(action["server"])
        spec = ServerSpec.from_json(action["spec"])
        if self._book.get(name) is not None:
            raise ConflictError(
                f"an MCP server {name} was added meanwhile",
                hint="look at it: rlp mcp show",
                code="mcp.exists",
            )
        fact = McpServerAdded(
            server=name,
            spec=spec.to_json(),
            spec_digest=spec.digest,
            approval=approval.id,
            principal=decided.principal,
        )
        await self._claim(approval, decided, fact, shown(name, spec), [])
        return {"server": name, "change": "added"}

    async def _approve(self, approval: Approval, decided: Decided) -> dict[str, Any]:
        action = approval.action
        name, tools = str(action["server"]), dict(action["tools"])
        server = self._book.find(name)
        seen = server.seen.tools if server.seen is not None else {}
        changed = [t for t, d in tools.items() if t not in seen or seen[t].digest != d]
        if changed or server.event != action["added"]:
            raise ConflictError(
                f"{', '.join(changed)[:200] or name} changed since the question was put",
                hint=f"look again: 'rlp mcp approve {name}'",
                code="mcp.changed",
            )
        raws = [seen[tool].raw for tool in sorted(tools)]
        blob = canonical({tool: seen[tool].raw for tool in sorted(tools)})
        fact = McpToolsApproved(
            server=name,
            tools=tools,
            effect=action["effect"],
            definitions_blob=blob_digest(blob),
            approval=approval.id,
            principal=decided.principal,
        )
        text = _shown_tools(server, raws, str(action["effect"]))
        await self._claim(approval, decided, fact, text, [blob])
        return {"server": name, "change": "approved", "tools": sorted(tools), "effect": action["effect"]}

    async def _claim(
        self,
        approval: Approval,
        decided: Decided,
        fact: McpServerAdded | McpToolsApproved,
        content: str,
        blobs: list[bytes],
    ) -> None:
        stamp = Provenance(causes=(approval.requested, approval.decided))
        draft = Draft(payload=fact, actor=decided.principal, provenance=stamp)
        await self._approvals.claim(approval.id, approval.action, content.encode(), draft, blobs)
        self._approvals.consumed(approval.id)

    # --- narrowing: at once -------------------------------------------------------------------------

    async def remove(self, name: str, reason: str, principal: str) -> dict[str, Any]:
        """The server is ended and forgotten, with every approval of its tools."""
        server = self._book.find(name)
        fact = McpServerRemoved(server=name, reason=reason[:500], principal=principal)
        stamp = Provenance(causes=(server.event,))
        await self._journal.append(Draft(payload=fact, actor=principal, provenance=stamp))
        await self._source.end(name)
        return {"server": name, "change": "removed"}

    async def suspend(self, name: str, tools: list[str], principal: str) -> dict[str, Any]:
        """Tools (all of them when none is named) are not called until they are approved again."""
        server = self._book.find(name)
        for tool in tools:
            if tool not in server.approved:
                raise _no_tool(name, tool)
        chosen = [tool for tool in (tools or sorted(server.approved)) if tool not in server.suspended]
        for tool in chosen:
            before = server.approved[tool].definition.digest
            await self._record.suspended(name, tool, "operator", before, None, principal=principal)
        return {"server": name, "change": "suspended", "tools": chosen}

    # --- looking ------------------------------------------------------------------------------------

    async def look(self, name: str) -> None:
        """Read the server's list of tools anew; what changed of what was approved is suspended."""
        await self._source.look(name)

    def listed(self) -> list[dict[str, Any]]:
        """One row per server."""
        rows = []
        for server in self._book.servers():
            seen = len(server.seen.tools) if server.seen is not None else None
            rows.append(
                {
                    "server": server.name,
                    "transport": "http" if server.spec.url is not None else "stdio",
                    "state": self._source.state(server.name)["state"],
                    "tools": seen,
                    "approved": len(server.approved) - len(server.suspended),
                    "suspended": len(server.suspended),
                    "runs": server.spec.summary[:400],
                }
            )
        return rows

    def show(self, name: str) -> dict[str, Any]:
        """Everything about a server, differences of suspended tools among it. Its texts are foreign."""
        server = self._book.find(name)
        seen = server.seen
        return {
            "server": name,
            "spec": server.spec.to_json(),
            "shown": shown(name, server.spec),
            **self._source.state(name),
            "protocol": seen.protocol if seen is not None else None,
            "identity": seen.identity if seen is not None else None,
            "tools": [self._tool(server, tool) for tool in _tools(server)],
            "refused": list(seen.refused) if seen is not None else [],
        }

    def _tool(self, server: Server, tool: str) -> dict[str, Any]:
        seen = server.seen.tools.get(tool) if server.seen is not None else None
        approved = server.approved.get(tool)
        definition = approved.definition if approved is not None else seen
        assert definition is not None
        state = "seen" if approved is None else "suspended" if tool in server.suspended else "approved"
        found: dict[str, Any] = {
            "tool": tool,
            "name": qualified(server.name, tool),
            "state": state,
            "effect": approved.effect if approved is not None else None,
            "why": server.suspended.get(tool, ""),
            "definition": definition.digest,
            "description": definition.description[:2_000],
        }
        if approved is not None and seen is not None and seen.digest != approved.definition.digest:
            found["changes"] = changes(approved.definition.raw, seen.raw)
        return found


def _tools(server: Server) -> list[str]:
    seen = server.seen.tools if server.seen is not None else {}
    return sorted({*server.approved, *seen})


def _approved(server: Server, one: Definition) -> bool:
    approved = server.approved.get(one.tool)
    return (
        approved is not None and approved.definition.digest == one.digest and one.tool not in server.suspended
    )


def _known(server: str, tool: str, listing: Any) -> Definition:
    found = listing.get(tool)
    if found is None:
        raise _no_tool(server, tool)
    assert isinstance(found, Definition)
    return found


def _no_tool(server: str, tool: str) -> NotFoundError:
    return NotFoundError(
        f"the MCP server {server} has no tool {tool[:64]!r} that can be used",
        hint=f"'rlp mcp tools {server}' lists them",
        code="mcp.tool",
    )


def _action(summary: str, name: str, **more: Any) -> dict[str, Any]:
    return {
        "summary": summary,
        "name": name,
        "resource": f"mcp.{name}",
        "recipients": [],
        "agent": "operator",
        "bundle": "",
        "amount_micro_usd": 0,
        **more,
    }


def _count(tools: Any) -> str:
    return "1 tool" if len(tools) == 1 else f"{len(tools)} tools"


def _shown_tools(server: Server, raws: list[dict[str, Any]], effect: str) -> str:
    """What a person reads: every definition in full, as JSON, and what changed since the last yes."""
    words = {
        "read": "taken for reading only: agents that may call them call them WITHOUT asking you",
        "write": "taken for changing things: each call asks a person",
        "send": "each call asks a person",
    }
    lines = [
        f"server   {server.name}: {server.spec.summary[:400]!r}",
        f"effect   {effect}: {words[effect]}",
        "",
    ]
    lines += ["What follows are the server's own words. They reach your agents' models as they are.", ""]
    for raw in raws:
        tool = str(raw["name"])
        approved = server.approved.get(tool)
        lines.append(f"tool     {qualified(server.name, tool)}")
        if approved is not None and approved.definition.raw != raw:
            lines.append("changed since it was approved:")
            lines += [f"  {line}" for line in changes(approved.definition.raw, raw)]
            lines.append("as a whole:")
        lines += [f"  {line}" for line in pretty(raw)]
        lines.append("")
    for refused in server.seen.refused if server.seen is not None else ():
        lines.append(f"not usable: {orjson.dumps(refused).decode()}")
    return "\n".join(lines) + "\n"

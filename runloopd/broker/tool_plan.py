"""One tool as the gate sees it, whoever offers it: what it needs, what it does at most, who must say yes.

Knows: where a name leads (the bundle's own tools first, then the offers of the host and of MCP servers),
which effect a call has, when a person is asked, which rights are missing, how arguments are brought into
canonical form. Does not know: how a call is carried out (``tool_errands``), or the order of the checks
(``tool_ops``).

This is the one place that decides effect and confirmation. What nobody classified is taken for the worst;
what an author says of a tool of his own counts only where something else holds him to it:

- a request by GET or HEAD reads; any other is ``send``, and asks a person, unless the bundle says it reads
  *and* the policy names the tool itself under ``tools`` (no pattern);
- a program reads or writes as it says, because its sandbox lets it do no more; one that says nothing sends,
  and one that writes and runs other programs is asked about;
- a tool of an agent reads: the sandbox that serves it lets it do nothing else;
- an offer says it of itself, and its source answers for it.

Whatever asks for confirmation is asked about, and is on record as ``send``.
"""

from __future__ import annotations

import posixpath
import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from runloop.bundle.json_schema import Schema
from runloop.bundle.tools import Tool
from runloop.caps.destination import Destination, parse_destination
from runloop.caps.policy import CAPABILITIES, Policy, Verdict
from runloop.digest import digest
from runloop.errors import NotFoundError, UsageError
from runloop.ops import Effect
from runloop.spelling import did_you_mean
from runloopd.broker.asks import CapabilityError
from runloopd.broker.calls import Caller
from runloopd.broker.http_ops import host_granted, how_to_obtain
from runloopd.broker.toolbox import Offer, ToolError, ToolSource
from runloopd.broker.tools.programs import Resolver, is_interpreter

__all__ = ["Plan", "Toolbox", "canonical_args", "missing"]

MAX_OFFERS = 1_000
MAX_DESCRIPTION = 4_096
_NAME = re.compile(r"[a-z][a-z0-9_-]{0,63}(\.[A-Za-z0-9_-][A-Za-z0-9_.-]{0,127}){1,3}\Z")

Origin = Literal["bundle", "host", "mcp"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """What is going to be called."""

    name: str
    kind: str
    """``http``, ``exec``, ``mcp``, ``wasm`` or ``host``."""
    origin: Origin
    description: str
    input_schema: Mapping[str, Any]
    result_schema: Mapping[str, Any] | bool
    accepts: tuple[Schema, ...]
    returns: tuple[Schema, ...]
    does: Effect
    """What a call does at most, before anybody is asked about it."""
    confirm: bool
    """A person is asked whatever it does."""
    safe: bool = False
    """Its author says that it changes nothing, and nothing but the policy's word stands for that."""
    capabilities: tuple[str, ...] = ()
    secrets: tuple[str, ...] = ()
    calls: int | None = None
    grantable: bool = True
    tags: tuple[str, ...] = ()
    tool: Tool | None = None
    """The bundle's own, where it is one."""
    offer: Offer | None = None
    """What its source offers, where one does."""
    source: ToolSource | None = field(default=None, repr=False)

    @property
    def effect(self) -> Effect:
        """As it is on record: ``read``, ``write`` or ``send``."""
        if self.does in ("pure", "read"):
            return "send" if self.confirm else "read"
        return "write" if self.does == "write" and not self.confirm else "send"

    def asks(self, grants: Policy) -> bool:
        """Whether a person says yes to each call."""
        if self.confirm:
            return True
        if self.effect != "send":
            return False
        if self.tool is None:
            return self.offer is None or self.offer.confirm
        named = grants.value("tools")
        return not (self.safe and isinstance(named, tuple) and self.name in named)

    @property
    def definition(self) -> str:
        """Digest of all that a person's yes, or a standing grant, is about."""
        own = self.tool.definition if self.tool is not None else ""
        offered = "" if self.offer is None else self.offer.definition or _digest_of(self.offer)
        return digest([own, offered, self.effect, list(self.secrets)])

    def to_json(self, lacks: Sequence[Verdict]) -> dict[str, Any]:
        """What an agent sees of it."""
        return {
            "id": self.name,
            "description": self.description,
            "kind": self.kind,
            "source": self.origin,
            "effect": self.effect,
            "input_schema": self.input_schema,
            "result_schema": self.result_schema,
            "capabilities": list(self.capabilities),
            "requires_confirmation": self.confirm or (self.effect == "send" and not self.safe),
            "tags": list(self.tags),
            "granted": not lacks,
            "missing": [f"{verdict.capability} {verdict.target}".rstrip() for verdict in lacks],
        }


class Toolbox:
    """Everything that can be called, by name."""

    def __init__(self, sources: Sequence[ToolSource] = (), programs: Resolver | None = None) -> None:
        """``programs``: who finds the programs of a bundle's tools."""
        self._sources = tuple(sources)
        self._programs = programs

    def plan(self, caller: Caller, name: str) -> Plan | None:
        """The tool of that name as it is at this moment."""
        for tool in caller.tools:
            if tool.id == name:
                return self._own(tool)
        found = self._offer(name)
        return None if found is None else _offered(*found)

    def find(self, caller: Caller, grants: Policy, name: str) -> Plan:
        """As :meth:`plan`. Raises :class:`NotFoundError` (``tool.unknown``), :class:`CapabilityError` for an
        offer that the agent may not call, :class:`ToolError` for one that is withheld at present."""
        plan = self.plan(caller, name)
        why = self._withheld(name) if plan is None else None
        agent = caller.pin.name
        if (plan is not None and plan.tool is None) or why is not None:
            verdict = grants.allows("tools", name, agent=agent)
            if not verdict.allowed:
                raise CapabilityError(verdict)
        if why is not None:
            raise _withheld(name, why)
        if plan is None:
            raise self._unknown(caller, grants, name)
        if plan.kind == "mcp" and plan.offer is None:
            assert plan.tool is not None and plan.tool.mcp is not None
            target = plan.tool.mcp.offer
            for verdict in missing(plan, grants, agent):
                raise CapabilityError(verdict)
            raise _withheld(target, self._withheld(target) or "no such tool is offered now")
        return plan

    def all(self, caller: Caller, grants: Policy) -> Iterator[Plan]:
        """The bundle's own tools, then every offer that the agent may call."""
        own = {tool.id for tool in caller.tools}
        for tool in caller.tools:
            yield self._own(tool)
        for source in self._sources:
            for offer in list(source.offers())[:MAX_OFFERS]:
                if offer.name in own or not _NAME.match(offer.name):
                    continue
                if grants.allows("tools", offer.name).allowed:
                    yield _offered(offer, source)

    # --- inside -----------------------------------------------------------------------------------

    def _offer(self, name: str) -> tuple[Offer, ToolSource] | None:
        if not _NAME.match(name):
            return None
        for source in self._sources:
            for offer in source.offers():
                if offer.name == name:
                    return offer, source
        return None

    def _withheld(self, name: str) -> str | None:
        for source in self._sources:
            for withheld, why in source.withheld():
                if withheld == name:
                    return why
        return None

    def _own(self, tool: Tool) -> Plan:
        if tool.mcp is not None:
            return _alias(tool, self._offer(tool.mcp.offer))
        return _own(tool, self._programs)

    def _unknown(self, caller: Caller, grants: Policy, name: str) -> NotFoundError:
        known = [plan.name for plan in self.all(caller, grants)]
        listed = f"its tools: {', '.join(known[:32]) or 'none'}"
        return NotFoundError(
            f"{caller.pin.name} has no tool {name[:128]!r}",
            hint=did_you_mean(name[:128], known, listed),
            code="tool.unknown",
        )


def _own(tool: Tool, programs: Resolver | None) -> Plan:
    does: Effect
    safe = False
    if tool.http is not None:
        does = "read" if tool.http.reads and tool.effect in (None, "read") else "send"
        safe = not tool.http.reads and tool.effect == "read"
    elif tool.exec is not None:
        does = tool.effect or "send"
    else:
        does = "read" if tool.effect in (None, "read") else "send"
    return Plan(
        name=tool.id,
        kind=tool.kind,
        origin="bundle",
        description=tool.description,
        input_schema=tool.input_schema,
        result_schema=tool.result_schema,
        accepts=(tool.accepts,),
        returns=(tool.returns,),
        does=does,
        confirm=tool.requires_confirmation or _runs_others(tool, does, programs),
        safe=safe,
        capabilities=tool.capabilities,
        secrets=tool.secrets,
        calls=tool.calls,
        grantable=tool.exec is None,
        tags=tool.tags,
        tool=tool,
    )


def _runs_others(tool: Tool, does: Effect, programs: Resolver | None) -> bool:
    """A program that runs what its arguments say may change what it likes of the folders: that is shown."""
    return tool.exec is not None and does == "write" and is_interpreter(tool.exec.program, programs)


def _alias(tool: Tool, found: tuple[Offer, ToolSource] | None) -> Plan:
    """A tool of a bundle that stands for one of a server: neither side can make the other harmless."""
    assert tool.mcp is not None
    offer, source = found if found is not None else (None, None)
    theirs = (offer.returns,) if offer is not None and offer.returns is not None else ()
    worst: Effect = "send"
    if offer is not None and offer.effect in ("pure", "read") and tool.effect in (None, "read"):
        worst = "read"
    return Plan(
        name=tool.id,
        kind="mcp",
        origin="mcp",
        description=tool.description,
        input_schema=tool.input_schema,
        result_schema=tool.result_schema,
        accepts=(tool.accepts, *((offer.accepts,) if offer is not None else ())),
        returns=(tool.returns, *theirs),
        does=worst,
        confirm=tool.requires_confirmation or offer is None or offer.confirm,
        capabilities=(*tool.capabilities, f"tools:{tool.mcp.offer}"),
        secrets=(),
        calls=tool.calls,
        grantable=offer is not None and offer.grantable,
        tags=tool.tags,
        tool=tool,
        offer=offer,
        source=source,
    )


def _offered(offer: Offer, source: ToolSource) -> Plan:
    return Plan(
        name=offer.name,
        kind=offer.source,
        origin=offer.source,
        description=offer.description[:MAX_DESCRIPTION],
        input_schema=offer.input_schema,
        result_schema=offer.result_schema,
        accepts=(offer.accepts,),
        returns=() if offer.returns is None else (offer.returns,),
        does=offer.effect,
        confirm=offer.confirm,
        safe=not offer.confirm,
        capabilities=offer.capabilities,
        secrets=offer.secrets,
        calls=offer.calls,
        grantable=offer.grantable,
        tags=offer.tags,
        offer=offer,
        source=source,
    )


def _digest_of(offer: Offer) -> str:
    return digest(
        [offer.name, offer.description, offer.input_schema, offer.result_schema, list(offer.capabilities)]
    )


def _withheld(name: str, why: str) -> ToolError:
    suspended = why.startswith("suspended")
    return ToolError(
        f"{name} cannot be called now: {why[:500]}",
        hint="the operator looks at it with 'rlp mcp show'" if suspended else "try again later",
        code="tool.suspended" if suspended else "tool.unavailable",
        retryable=not suspended,
    )


# --- rights ---------------------------------------------------------------------------------------


def missing(plan: Plan, grants: Policy, agent: str) -> list[Verdict]:
    """A refusal for every capability the tool names, and every secret, that the agent does not have."""
    words = [*plan.capabilities, *(f"secrets:{name}" for name in plan.secrets)]
    verdicts = [_verdict(plan.name, word, grants, agent) for word in words]
    return [verdict for verdict in verdicts if not verdict.allowed]


def _verdict(tool: str, word: str, grants: Policy, agent: str) -> Verdict:
    name, _, target = word.partition(":")
    plain = grants.allows(name, "" if name == "net" else target, agent=agent)
    if plain.allowed and (name != "net" or not target or host_granted(grants, _host(target))):
        return plain
    shown = f"{name} {target}".rstrip()
    held = grants.allows(name, "nothing" if name == "net" else target, agent=agent)
    return Verdict(
        allowed=False,
        capability=name,
        target=target,
        reason=f"{tool} needs {shown}, which is not granted to {agent}: {held.reason.rpartition(': ')[2]}",
        how_to_obtain=how_to_obtain(agent, name) if name in CAPABILITIES else None,
    )


def _host(target: str) -> Destination:
    return parse_destination(f"https://{target}/")


# --- canonical form -------------------------------------------------------------------------------


def canonical_args(plan: Plan, args: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments as they are judged, shown, matched and dispatched: one spelling for one thing.

    Those that name what is touched are put in canonical form. A path is written out, and the bytes of its
    names stay as they are, because they are what tells two files apart; any other text is composed (NFC).
    Raises :class:`UsageError` for a path that leads upwards.
    """
    named = () if plan.offer is None else plan.offer.resource
    return {name: _canonical(plan, name, value) if name in named else value for name, value in args.items()}


def _canonical(plan: Plan, name: str, value: Any) -> Any:
    if isinstance(value, list):
        return [_canonical(plan, name, item) for item in value]
    if not isinstance(value, str):
        return value
    if not value.startswith("/"):
        return unicodedata.normalize("NFC", value)
    if ".." in value.split("/"):
        raise UsageError(f"{plan.name}: {name} leads upwards: write the path out", code="tool.args")
    return posixpath.normpath("/" + value.lstrip("/"))

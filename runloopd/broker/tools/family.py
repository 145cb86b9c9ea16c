"""A family of the host's tools: a table of them, and how one is called.

Knows: how a row of the table becomes an :class:`Offer`, and what every tool of the host promises (checked
rights before anybody is asked, codes of the closed list, a result that fits). Does not know: any tool.
Implements ``ToolSource``.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from runloop.bundle.json_schema import read_schema
from runloop.caps.policy import Policy
from runloop.digest import digest
from runloop.ops import Effect
from runloopd.broker.asks import CapabilityError
from runloopd.broker.ports import Outcome
from runloopd.broker.toolbox import Offer, ToolContext, ToolError, ToolResult

__all__ = ["Family", "HostTool", "array", "demand", "flag", "number", "object_of", "policy_of", "text"]

Args = dict[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class HostTool:
    """One row: the tool as a model sees it, and the code behind it."""

    name: str
    about: str
    """What it does, in a sentence or two: models read this."""
    takes: dict[str, Any]
    """Properties; see :func:`object_of`. Every one without ``default`` is required."""
    gives: dict[str, Any]
    effect: Effect
    run: Callable[[Args, ToolContext], Awaitable[Any]]
    """Gives the value, or a :class:`ToolResult` where it knows a label."""
    permit: Callable[[Args, ToolContext], None] | None = None
    """Raises :class:`CapabilityError` where a right is missing: asked before a person is."""
    outcome: Callable[[ToolContext], Awaitable[Outcome]] | None = None
    """What became of a call that was begun; None: nobody can tell."""
    touches: Callable[[Args, ToolContext], dict[str, Any]] | None = None
    """What it may reach beside what its arguments say: a person reads it with them."""
    confirm: bool = False
    grantable: bool = True
    resource: tuple[str, ...] = ()
    secrets: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    """Capabilities whatever the arguments are."""

    def offer(self) -> Offer:
        """As it is offered."""
        takes, gives = object_of(self.takes), object_of(self.gives)
        findings: list[str] = []
        accepts, returns = read_schema(takes, findings), read_schema(gives, findings)
        assert not findings, f"{self.name}: {findings}"
        return Offer(
            name=self.name,
            description=self.about,
            input_schema=takes,
            accepts=accepts,
            result_schema=gives,
            returns=returns,
            effect=self.effect,
            confirm=self.confirm,
            source="host",
            capabilities=self.needs,
            secrets=self.secrets,
            definition=digest([self.name, self.about, takes, gives, self.effect, self.confirm]),
            resource=self.resource,
            grantable=self.grantable,
        )


class Family:
    """Some tools of the host. Implements ``ToolSource``."""

    def __init__(self, tools: Iterable[HostTool]) -> None:
        self._tools = {tool.name: tool for tool in tools}
        self._offers = {name: tool.offer() for name, tool in self._tools.items()}

    def offers(self) -> Sequence[Offer]:
        """See the port."""
        return tuple(self._offers.values())

    def withheld(self) -> Sequence[tuple[str, str]]:
        """See the port: the host's tools are always there; what they need may not be, and they say so."""
        return ()

    def permit(self, offer: Offer, args: Args, context: ToolContext) -> None:
        """Raise :class:`CapabilityError` unless the rights hold that hang on the arguments."""
        judge = self._tool(offer).permit
        if judge is not None:
            judge(args, context)

    def touches(self, offer: Offer, args: Args, context: ToolContext) -> dict[str, Any]:
        """See the port."""
        told = self._tool(offer).touches
        return {} if told is None else told(args, context)

    async def call(self, offer: Offer, args: Args, context: ToolContext) -> ToolResult:
        """See the port."""
        self.permit(offer, args, context)
        given = await self._tool(offer).run(args, context)
        return given if isinstance(given, ToolResult) else ToolResult(value=given)

    async def reconcile(self, offer: Offer, context: ToolContext) -> Outcome:
        """See the port. What only reads has certainly changed nothing."""
        tool = self._tool(offer)
        if tool.effect in ("pure", "read"):
            return "absent"
        return "unknown" if tool.outcome is None else await tool.outcome(context)

    def _tool(self, offer: Offer) -> HostTool:
        found = self._tools.get(offer.name)
        if found is None:
            raise ToolError(f"there is no tool {offer.name}", code="tool.unknown")
        return found


# --- shapes ---------------------------------------------------------------------------------------


def object_of(properties: dict[str, Any]) -> dict[str, Any]:
    """A closed object; what has no ``default`` is required."""
    return {
        "type": "object",
        "properties": properties,
        "required": [name for name, one in properties.items() if "default" not in one],
        "additionalProperties": False,
    }


def text(about: str, most: int, *, least: int = 0, **more: Any) -> dict[str, Any]:
    """A string of at most ``most`` characters."""
    return {"type": "string", "description": about, "minLength": least, "maxLength": most, **more}


def number(about: str, least: int, most: int, **more: Any) -> dict[str, Any]:
    """A whole number."""
    return {"type": "integer", "description": about, "minimum": least, "maximum": most, **more}


def flag(about: str, **more: Any) -> dict[str, Any]:
    """True or false."""
    return {"type": "boolean", "description": about, **more}


def array(about: str, items: dict[str, Any], most: int, **more: Any) -> dict[str, Any]:
    """A list."""
    return {"type": "array", "description": about, "items": items, "maxItems": most, **more}


# --- rights ---------------------------------------------------------------------------------------


def policy_of(context: ToolContext) -> Policy:
    """What the caller was granted; nothing, where nobody says."""
    return context.grants if isinstance(context.grants, Policy) else Policy()


def demand(context: ToolContext, capability: str, target: str) -> None:
    """Raise :class:`CapabilityError` unless ``capability`` covers ``target``."""
    verdict = policy_of(context).allows(capability, target, agent=context.agent)
    if not verdict.allowed:
        raise CapabilityError(verdict)

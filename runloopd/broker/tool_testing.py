"""Twin of a source of tools: offers what it is told to, counts what reaches it, and does nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

from runloop.bundle.json_schema import read_schema
from runloopd.broker.ports import Outcome
from runloopd.broker.toolbox import Offer, ToolContext, ToolResult

__all__ = ["ScriptedTools", "offer"]


def offer(name: str, properties: dict[str, Any] | None = None, **more: Any) -> Offer:
    """An offer whose arguments are these, all of them required; ``returns`` may be a schema."""
    schema = {
        "type": "object",
        "properties": properties or {},
        "required": sorted(properties or {}),
        "additionalProperties": False,
    }
    result = more.pop("result_schema", True)
    return Offer(
        name=name,
        description=more.pop("description", f"Does {name}."),
        input_schema=schema,
        accepts=read_schema(schema, []),
        result_schema=result,
        returns=read_schema(result, []),
        **more,
    )


@dataclass
class ScriptedTools:
    """Implements :class:`runloopd.broker.toolbox.ToolSource`."""

    each: list[Offer]
    answer: Callable[[str, dict[str, Any]], Any] = lambda name, args: {"did": name}
    held: list[tuple[str, str]] = field(default_factory=list)
    """What ``withheld`` tells."""
    fails: list[BaseException] = field(default_factory=list)
    """Raised by the next calls, after they were counted."""
    knows: Outcome = "unknown"
    """What ``reconcile`` answers."""
    gate: asyncio.Event | None = None
    """When given, calls wait for it."""
    calls: list[tuple[str, dict[str, Any], ToolContext]] = field(default_factory=list)
    label: str | None = None
    refuses: list[BaseException] = field(default_factory=list)
    """Raised by the next questions whether a call is permitted."""

    def offers(self) -> Collection[Offer]:
        """See the protocol."""
        return self.each

    def withheld(self) -> Sequence[tuple[str, str]]:
        """See the protocol."""
        return self.held

    def permit(self, offer: Offer, args: dict[str, Any], context: ToolContext) -> None:
        """See the protocol."""
        if self.refuses:
            raise self.refuses.pop(0)

    def touches(self, offer: Offer, args: dict[str, Any], context: ToolContext) -> dict[str, Any]:
        """See the protocol."""
        return {}

    async def call(self, offer: Offer, args: dict[str, Any], context: ToolContext) -> ToolResult:
        """See the protocol."""
        self.calls.append((offer.name, args, context))
        if self.gate is not None:
            await self.gate.wait()
        if self.fails:
            raise self.fails.pop(0)
        return ToolResult(value=self.answer(offer.name, args), label=self.label)

    async def reconcile(self, offer: Offer, context: ToolContext) -> Outcome:
        """See the protocol."""
        return self.knows

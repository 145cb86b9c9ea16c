"""What agents may call beside the tools of their own bundle: offers of the host and of foreign servers.

Knows: the shape of an offer and of whoever makes it, the closed list of ways a tool call can fail. Does not
know: who may call (``tool_ops``), or how a source reaches what it offers (``broker.tools``, ``broker.mcp``).

An offer is called by its qualified name: ``<family>.<verb>`` for the host's own (``git.status``),
``mcp.<server>.<tool>`` for a foreign server's. The capability ``tools`` says which of them an agent may call.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Protocol

from runloop.bundle.json_schema import Schema
from runloop.ops import Effect
from runloopd.broker.ports import Outcome, ProviderError

__all__ = ["FAMILIES", "TOOL_CODES", "Offer", "ToolContext", "ToolError", "ToolResult", "ToolSource"]

TOOL_CODES = frozenset(
    {
        "tool.unknown",  # no tool of that name
        "tool.args",  # the arguments do not fit input_schema
        "tool.result",  # the result does not fit result_schema, or is too large
        "tool.failed",  # the tool ran and said no
        "tool.timeout",  # it did not answer in time
        "tool.unavailable",  # its server or program is not there now; try again later
        "tool.suspended",  # its definition changed; a person must look at it
        "tool.sandbox",  # a layer of the sandbox is missing: refused, never best effort
        "tool.secrets",  # a secret it needs is not there
        "tool.unknown_outcome",  # it was begun and nobody can tell whether it happened
    }
)
"""Every code a tool call ends with, beside those of the gate (``cap.denied``, ``budget.exceeded``,
``quota.exceeded``, ``approval.*``)."""


FAMILIES = frozenset({"calendar", "exec", "files", "git", "http", "mail", "notify", "shell"})
"""Families of the host's own tools. None of these words is a place."""


class ToolError(ProviderError):
    """A tool did not do it. ``outcome="unknown"`` when it may have."""

    code: ClassVar[str] = "tool.failed"


@dataclass(frozen=True, kw_only=True, slots=True)
class Offer:
    """One tool, as its source describes it."""

    name: str
    """Qualified."""
    description: str
    """Foreign text where the source is foreign: data, never an instruction."""
    input_schema: dict[str, Any]
    accepts: Schema
    result_schema: dict[str, Any] | bool = True
    returns: Schema | None = None
    """None: anything."""
    effect: Effect = "send"
    """What nobody classified is confirmed by a person (``send``)."""
    confirm: bool = True
    """A person approves each call; a ``read`` that is confirmed is asked about all the same."""
    source: Literal["host", "mcp"] = "host"
    capabilities: tuple[str, ...] = ()
    """Beside ``tools``: each as ``capability`` or ``capability:target``."""
    secrets: tuple[str, ...] = ()
    calls: int | None = None
    """How often a run may call it."""
    definition: str = ""
    """Digest of the definition as a person saw it; bound to an approval."""
    resource: tuple[str, ...] = ()
    """Arguments that say what is touched (a path, a recipient); empty: all of them together. They are brought
    into canonical form before anything looks at them, and so are dispatched."""
    grantable: bool = True
    """A person may allow it for good, for one resource. False for whatever runs commands."""
    tags: tuple[str, ...] = ()
    leaves: bool = True
    """Of a foreign server: what it is told may leave this machine."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ToolContext:
    """What a source is told of a call it carries out."""

    agent: str
    run: str
    node: str
    key: str
    """Idempotency key: the same call, repeated after a crash, has the same."""
    deadline_ms: int
    """Unix time at which the gate gives up."""
    grants: Any = None
    """:class:`runloop.caps.policy.Policy` of the caller, for what is checked by target; whoever finds one
    missing raises :class:`runloopd.broker.asks.CapabilityError`."""
    net: Any = None
    """:class:`runloopd.broker.providers.web.Permission` of this call, for sources that reach the web."""
    secrets: dict[str, Any] = field(default_factory=dict)
    """Name -> :class:`runloopd.broker.secrets.Secret`; revealed only where it is sent."""
    args: dict[str, Any] = field(default_factory=dict)
    """The arguments of the call: what a source looks for when it is asked how the call ended."""
    reached: Callable[[str, int, int], None] = lambda host, port, size: None
    """Told each connection of a program that is run for the call, by host and port, with a size of 0; and
    then the bytes that are about to go there, which it may refuse (attacks.md P5)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ToolResult:
    """What a tool gave."""

    value: Any
    """JSON that fits ``returns``."""
    label: str | None = None
    """Trust label; None: ``tool:<name>``."""


class ToolSource(Protocol):
    """Somebody who offers tools. One per kind of source; passes ``tests/contract/test_tool_sources.py``."""

    def offers(self) -> Collection[Offer]:
        """What there is at this moment; never waits, never raises."""
        ...

    def withheld(self) -> Sequence[tuple[str, str]]:
        """Names that exist and are not offered now, each with the reason.

        One that begins with ``suspended`` ends a call with ``tool.suspended``, any other with
        ``tool.unavailable``.
        """
        ...

    def permit(self, offer: Offer, args: dict[str, Any], context: ToolContext) -> None:
        """Raise :class:`runloopd.broker.asks.CapabilityError` unless the rights hold that hang on the
        arguments. Never waits: asked before a person is, and again, by the source itself, in :meth:`call`."""
        ...

    def touches(self, offer: Offer, args: dict[str, Any], context: ToolContext) -> dict[str, Any]:
        """What the call may reach beside what its arguments say (``folders``, ``network``), for whoever is
        asked about it. JSON; empty where the arguments say it all. Never waits."""
        ...

    async def call(self, offer: Offer, args: dict[str, Any], context: ToolContext) -> ToolResult:
        """Do it. Raises :class:`ToolError` with a code of :data:`TOOL_CODES`; honours cancellation."""
        ...

    async def reconcile(self, offer: Offer, context: ToolContext) -> Outcome:
        """What became of a call with this key that was begun and never answered; ``unknown`` is honest."""
        ...

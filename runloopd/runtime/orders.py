"""What the runtime is asked to do and what it says when it is done.

Knows: the shape and the bounds of one attempt. Does not know: processes, sockets, WebAssembly.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from runloop.errors import UsageError
from runloop.events import GuestError

__all__ = ["AttemptOrder", "AttemptResult", "GuestLimits"]

MIB = 1024 * 1024
_DIGEST = re.compile(r"[0-9a-f]{64}\Z")


@dataclass(frozen=True, kw_only=True, slots=True)
class GuestLimits:
    """Bounds of one attempt. Part of what a replay must honour: a run refused by one is refused again."""

    fuel: int = 50_000_000_000
    """Units of work (roughly one per instruction); exact, equal in every replay."""
    memory_bytes: int = 64 * MIB
    """Linear memory, all of it together. A Python guest needs at least 16 MiB."""
    guest_ms: int = 30_000
    """Wall time the guest itself may run; waiting for the answer to a host call is not counted."""
    host_calls: int = 4_096
    """Host calls of one attempt, refused ones included."""
    request_bytes: int = MIB
    """UTF-8 bytes of one call: name and arguments together."""
    output_bytes: int = 4 * MIB
    """UTF-8 bytes of the result."""

    def __post_init__(self) -> None:
        for name, low, high in (
            ("fuel", 1, 2**53 - 1),
            ("memory_bytes", 65_536, 2048 * MIB),
            ("guest_ms", 1, 3_600_000),
            ("host_calls", 0, 1_000_000),
            ("request_bytes", 64, 7 * MIB),
            ("output_bytes", 64, 7 * MIB),
        ):
            value = getattr(self, name)
            if type(value) is not int or not low <= value <= high:
                raise UsageError(
                    f"guest limit {name} is {value!r}; it must be an integer from {low} to {high}",
                    hint="correct [limits] in the agent's manifest.toml",
                    code="guest.limits",
                )

    def narrowed(self, other: GuestLimits) -> GuestLimits:
        """The stricter of two sets of bounds, field by field."""
        return replace(
            self,
            **{
                name: min(getattr(self, name), getattr(other, name))
                for name in (
                    "fuel",
                    "memory_bytes",
                    "guest_ms",
                    "host_calls",
                    "request_bytes",
                    "output_bytes",
                )
            },
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class AttemptOrder:
    """One attempt of one node: which code, on what input, within which bounds."""

    run: str
    node: str
    attempt: int
    component_digest: str
    """BLAKE3 of the component, as :meth:`Runtime.prepare` returned it."""
    source: dict[str, str] | None
    """Modules by name, for the runner of their language; None for an agent that is its own component."""
    entrypoint: str
    """``module:function`` of Python source, main file of JavaScript; unused otherwise."""
    input: dict[str, Any]
    """JSON object handed to the guest's ``handle``, as canonical text."""
    limits: GuestLimits = field(default_factory=GuestLimits)
    agent: str = ""
    """Name for the lifecycle's events; the node's id when empty."""
    quota_ends: Mapping[str, GuestError] = field(default_factory=dict)
    """By the code of an ending: what it means where the bound was not the agent's own but what its quota had
    left."""
    recorded: bool = False
    """True: a re-execution of what the ledger already tells; nothing about it is stated again."""

    def __post_init__(self) -> None:
        if not _DIGEST.match(self.component_digest):
            raise UsageError(f"{self.component_digest!r} is not a component digest", code="component.digest")

    def with_input(self, value: dict[str, Any]) -> AttemptOrder:
        """The same order on another input: the one that came over the bus."""
        return replace(self, input=value)


@dataclass(frozen=True, kw_only=True, slots=True)
class AttemptResult:
    """How an attempt ended."""

    ok: bool
    output: dict[str, Any] | None
    """``{ports: {name: [value]}, artifacts: [digest]}`` when ``ok``."""
    error: GuestError | None
    fuel: int
    """Fuel burnt from instantiation to the end; equal in every re-execution with the same answers."""
    calls: int
    """Host calls that reached the answerer."""

"""One way to a model: provider, model, price, and what is known of it.

Knows: what one attempt can cost at most, and which patterns name it. Does not know: which other routes there
are (``catalogue``), or what happens on it (``call``).
"""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase

from runloop.config import Price
from runloop.errors import RefusedError
from runloop.ops import ModelComplete
from runloopd.broker.providers.completion import ModelProvider, prompt_bytes
from runloopd.broker.providers.discovery import LocalServer
from runloopd.broker.routing.prices import price_of

__all__ = ["Route", "RouteInfo", "unpriced"]


@dataclass(frozen=True, kw_only=True, slots=True)
class RouteInfo:
    """One route, for people."""

    target: str
    kind: str
    local: bool
    price_version: str | None
    """None: unpriced, and refused."""
    resting: bool
    """Left alone for now, after failures."""
    price: Price | None = None
    detected: bool = False
    """Found on this machine, not configured."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Route:
    """One provider with one of its models."""

    name: str
    """Of the provider: under ``models.providers``, of a server that was found here, or ``rules``."""
    model: str
    kind: str
    provider: ModelProvider
    price: Price | None
    local: bool
    timeout_ms: int
    stays: bool = False
    """Whether what is sent there stays with the operator."""
    quality: int | None = None
    """0 to 100, in the operator's word."""
    detected: bool = False
    """Found, not configured: whatever it does wrong, the next route is tried."""
    ask_models: LocalServer | None = None
    """Whom to ask which models there are, when the configuration names none."""

    @property
    def target(self) -> str:
        """What the ``model`` capability is checked against."""
        return f"{self.name}:{self.model}"

    @property
    def free(self) -> bool:
        """Whether nothing it does costs money."""
        return self.price is not None and not any(self.price[:2])

    def bound(self, request: ModelComplete) -> int:
        """Most micro-dollars one attempt can cost."""
        assert self.price is not None
        return price_of(self.price, prompt_bytes(request), request.max_tokens)

    def matches(self, pattern: str) -> bool:
        """Whether ``pattern`` names the route, its provider or its model."""
        return any(fnmatchcase(text, pattern) for text in (self.target, self.name, self.model))


def unpriced(route: Route) -> RefusedError:
    """The refusal of a remote model without a price."""
    return RefusedError(
        f"{route.target} is remote and has no price, so its cost cannot be bounded",
        hint=f"add a table [models.providers.{route.name}.price]",
        code="model.unpriced",
    )

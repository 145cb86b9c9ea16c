"""Where a configured model server is, and whose key it wants: one judgement for answers and for vectors.

Knows: a server on this machine may be the door to one that is not, and that the operator's word counts. Does
not know: what is asked of it (``catalogue``, ``broker.embedding``).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import urlsplit

from runloop.config import Provider
from runloopd.broker.providers.http import is_loopback
from runloopd.broker.providers.ollama import is_hosted
from runloopd.broker.secrets import Secret, SecretRef, SecretStore

__all__ = ["Placed", "placed"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Placed:
    """What the configuration says of a server, and what follows from its address."""

    local: bool
    """The model itself is on this machine."""
    stays: bool
    """What is sent stays where the user says it may."""
    key: Callable[[], Secret | None] | None
    """Finds the key, and states its use; None where none is configured."""


def placed(provider: Provider, url: str, model: str, secrets: SecretStore) -> Placed:
    """``url``: where the server is asked; ``model``: the one that would be."""
    place = urlsplit(url)
    door = provider.kind == "ollama" and is_hosted(model)
    local = is_loopback(place.hostname or "") and provider.privacy != "cloud" and not door
    ref = None
    if provider.api_key_env or provider.secret:
        ref = SecretRef(env=provider.api_key_env, name=provider.secret)
    return Placed(
        local=local,
        stays=local or provider.privacy == "local",
        key=None if ref is None else lambda: secrets.find(ref, by=f"models.{provider.name}", to=place.netloc),
    )

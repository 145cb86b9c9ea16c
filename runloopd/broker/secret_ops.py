"""Secrets on behalf of agents: ``secret.use``, and lending one to the provider that sends it.

Knows: who may use which secret, and towards whom. A guest never has a value: it has a reference, a text that
says nothing, which the host replaces at the provider, in a header of a request to a destination the operator
bound to that secret. Does not know: how a request travels (``providers.web``), where secrets lie.

Three things must agree, at the moment of use: the agent's capability ``secrets`` names it, the operator bound
the destination to it (``rlp secret set NAME --for HOST``), and the capability for the destination itself. A
capability alone would let an agent that may reach two servers tell one the key of the other.
"""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import cast

from blake3 import blake3

from runloop.caps.destination import Destination
from runloop.errors import NotFoundError, RefusedError, UsageError
from runloop.events import SecretUsed
from runloop.ops import SecretUse
from runloopd.broker.asks import Ask, Done, require
from runloopd.broker.providers.http import is_loopback
from runloopd.broker.providers.web import KeyHeader
from runloopd.broker.scrubber import Scrubber
from runloopd.broker.secret_book import Destinations
from runloopd.broker.secrets import Secret, SecretRef, SecretStore, check_name
from runloopd.broker.toolbox import ToolError

__all__ = ["MARK", "Filled", "Lending", "Lent", "judge"]

MARK = "runloop-secret:"
"""How a reference begins."""
MAX_LENT = 8
"""Secrets of one call."""
_PREFIXES = ("Bearer ", "Basic ", "Token ", "")
_NOT_WITH_KEYS = frozenset({"range", "if-range"})
"""A part of an answer may hold half of what the server says back, which nobody recognises."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Lent:
    """Secrets for one call."""

    secrets: dict[str, Secret] = field(default_factory=dict)
    scrubber: Scrubber = field(default_factory=Scrubber)
    """For everything that comes back."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Filled:
    """The headers of a request, those with a secret apart from the others."""

    headers: tuple[tuple[str, str], ...]
    keys: tuple[KeyHeader, ...]
    scrubber: Scrubber


def judge(ask: Ask) -> None:
    """Whether the agent may use the secret it names: the part of ``secret.use`` that needs no store."""
    require(ask, "secrets", check_name(cast(SecretUse, ask.args).name))


class Lending:
    """The one door between agents and secrets."""

    def __init__(self, store: SecretStore, book: Destinations, *, key: bytes) -> None:
        """``key``: 32 bytes of this home; makes references that foreign text cannot hold."""
        self._store = store
        self._book = book
        self._key = key

    async def use(self, ask: Ask) -> Done:
        """``{reference}``."""
        judge(ask)
        name = cast(SecretUse, ask.args).name
        if not self._book.destinations(name):
            raise _unbound(name, "agents")
        await self._find(name)
        return Done(value={"reference": self._reference(ask.agent, name)})

    async def lend(self, ask: Ask, names: Sequence[str], *, to: str) -> Lent:
        """The secrets a call sends ``to`` one destination; each is on record with the answer of the call.

        Raises :class:`~runloopd.broker.asks.CapabilityError`, :class:`RefusedError` (``secret.destination``),
        :class:`ToolError` (``tool.secrets``) for one that is not there.
        """
        if not names:
            return Lent()
        if len(set(names)) > MAX_LENT:
            raise UsageError(f"{len(set(names))} secrets; a call uses at most {MAX_LENT}", code="op.args")
        found: dict[str, Secret] = {}
        for name in dict.fromkeys(names):
            require(ask, "secrets", check_name(name))
            if to not in self._book.destinations(name):
                raise _unbound(name, to)
        for name in dict.fromkeys(names):
            found[name] = await self._find(name)
            ask.facts.append(SecretUsed(name=name, by=f"agent:{ask.agent}", to=to))
        return Lent(secrets=found, scrubber=Scrubber(found.values()))

    async def fill(self, ask: Ask, headers: Iterable[tuple[str, str]], place: Destination) -> Filled:
        """The headers of a guest, each reference in them set apart as the secret it stands for.

        Raises as :meth:`lend`, and ``secret.reference`` for one that is no reference of this agent.
        """
        plain: list[tuple[str, str]] = []
        asked: list[tuple[str, str, str]] = []
        for header, value in headers:
            if MARK in value:
                prefix, name = self._named(ask.agent, header, value)
                asked.append((header, prefix, name))
            else:
                plain.append((header, value))
        if not asked:
            return Filled(headers=tuple(plain), keys=(), scrubber=Scrubber())
        if place.scheme != "https" and not is_loopback(place.host):
            raise RefusedError(
                f"a secret is not sent to {place.authority} unencrypted",
                hint="use https",
                code="secret.clear",
            )
        for header, _ in plain:
            if header.lower() in _NOT_WITH_KEYS:
                raise UsageError(f"http.fetch: no {header} together with a secret", code="op.args")
        lent = await self.lend(ask, [name for _, _, name in asked], to=place.authority)
        keys = tuple(
            KeyHeader(name=header, prefix=prefix, secret=lent.secrets[name]) for header, prefix, name in asked
        )
        return Filled(headers=tuple(plain), keys=keys, scrubber=lent.scrubber)

    def _named(self, agent: str, header: str, value: str) -> tuple[str, str]:
        """Prefix and name of the secret that a header's value refers to."""
        prefix = next(one for one in _PREFIXES if value.startswith(one))
        reference = value.removeprefix(prefix)
        name, _, _ = reference.removeprefix(MARK).rpartition(":")
        if not hmac.compare_digest(reference.encode(), self._reference(agent, name).encode()):
            raise RefusedError(
                f"the header {header[:64]!r} holds no reference that was given to {agent}",
                hint="a reference of 'secret.use' stands alone, or after 'Bearer ', 'Basic ', 'Token '",
                code="secret.reference",
            )
        return prefix, name

    def _reference(self, agent: str, name: str) -> str:
        """The same for the same agent and secret in this home: a restart or a fork finds it as it was."""
        proof = blake3(f"runloop secret reference v1\0{agent}\0{name}".encode(), key=self._key)
        return f"{MARK}{name}:{proof.hexdigest(16)}"

    async def _find(self, name: str) -> Secret:
        try:
            return await asyncio.to_thread(self._store.find, SecretRef(name=name))
        except NotFoundError as error:
            raise ToolError(error.message, hint=error.hint, code="tool.secrets") from None


def _unbound(name: str, to: str) -> RefusedError:
    return RefusedError(
        f"{name} is not for {to}: the operator did not say so",
        hint=f"the operator may type 'rlp secret allow {name} HOST'",
        code="secret.destination",
    )

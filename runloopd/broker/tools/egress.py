"""Which servers a program in the sandbox reaches: those that ``net`` names, at addresses that were judged.

Knows: what of ``net`` can hold for a connection whose inside nobody sees. Does not know: HTTP beyond its port
(``tools.proxy``). As everywhere (``providers.web``), the name is resolved once, every address is judged, and
one of exactly those is dialled.

A rule with methods or paths bounds requests, and a tunnel shows none: such a rule lets no program through.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Iterable, Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address

from runloop.caps.destination import Destination, kind_of_address, parse_destination
from runloop.caps.grants import NetRule
from runloop.errors import RefusedError
from runloopd.broker.tools.sandbox import Egress

__all__ = ["GrantedHosts", "OnlyTo", "reachable"]

Resolve = Callable[[str, int], Awaitable[Sequence[str]]]
_DIALLED = 3
_CONNECT_S = 5.0


def reachable(rules: Iterable[NetRule] | bool) -> list[str]:
    """What of ``net`` holds for a program, in words that a person reads: ``host`` or ``host:port``."""
    if isinstance(rules, bool):
        return ["any public host"] if rules else []
    return sorted({f"{rule.host}:{rule.port}" if rule.port else rule.host for rule in rules if _holds(rule)})


def _holds(rule: NetRule) -> bool:
    return not rule.methods and not rule.paths


class GrantedHosts:
    """Implements :class:`runloopd.broker.tools.sandbox.Egress`."""

    def __init__(
        self,
        rules: Iterable[NetRule] | bool,
        *,
        noted: Callable[[str, int, int], None] = lambda host, port, size: None,
        resolve: Resolve | None = None,
    ) -> None:
        """``rules`` True: any public server. ``noted`` hears where each connection went, with a size of 0,
        and then how many bytes are about to go there; it may refuse those."""
        self._rules = rules if isinstance(rules, bool) else tuple(rules)
        self._noted = noted
        self._resolve = resolve or _resolve

    async def connect(self, host: str, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """See the port."""
        bracketed = f"[{host}]" if ":" in host else host
        place = parse_destination(f"https://{bracketed}:{port}/")
        if not self._granted(place):
            raise RefusedError(f"net {place.authority} is not granted to this program", code="cap.denied")
        texts = [place.host] if place.address is not None else await self._resolve(place.host, place.port)
        addresses = [ip_address(text) for text in texts]
        for address in addresses:
            # One address that may not be dialled condemns the name: it is not who it was granted as.
            if kind_of_address(address) is not None and not self._named(place, address):
                raise RefusedError(
                    f"{place.host} leads to {address}, which is no public address and not granted itself",
                    code="net.address",
                )
        failure = OSError("it has no address")
        for address in addresses[:_DIALLED]:
            try:
                async with asyncio.timeout(_CONNECT_S):
                    made = await asyncio.open_connection(str(address), place.port)
            except (OSError, TimeoutError) as error:
                failure = OSError(str(error))
                continue
            self._noted(place.host, place.port, 0)
            return made
        raise failure

    def sending(self, host: str, port: int, size: int) -> None:
        """See the port."""
        self._noted(host, port, size)

    def _granted(self, place: Destination) -> bool:
        if isinstance(self._rules, bool):
            return self._rules
        return any(_holds(rule) and rule.allows(f"https://{place.authority}/") for rule in self._rules)

    def _named(self, place: Destination, address: IPv4Address | IPv6Address) -> bool:
        names = {str(address)}
        if address.is_loopback and place.host == "localhost":
            names.add("localhost")
        rules = () if isinstance(self._rules, bool) else self._rules
        return any(rule.host in names and rule.port in (0, place.port) for rule in rules)


class OnlyTo:
    """One server of those that are granted: where a person was asked about a program that goes there.

    Implements :class:`runloopd.broker.tools.sandbox.Egress`.
    """

    def __init__(self, place: Destination, granted: Egress) -> None:
        self._place = place
        self._granted = granted

    async def connect(self, host: str, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """See the port."""
        if (host, port) != (self._place.host, self._place.port):
            raise RefusedError(f"this program goes to {self._place.authority} alone", code="cap.denied")
        return await self._granted.connect(host, port)

    def sending(self, host: str, port: int, size: int) -> None:
        """See the port."""
        self._granted.sending(host, port, size)


async def _resolve(host: str, port: int) -> Sequence[str]:
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))

"""Sockets for a bridge and its server: dialled by the daemon, to places the operator named, nowhere else.

Knows: which host and address a server may be reached at, how a connected descriptor is handed over. Does not
know: what is said over it. What was checked is what is dialled: the address that was judged is the one that
is connected to, so a name that answers otherwise a moment later changes nothing (DNS rebinding).
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable, Sequence
from ipaddress import ip_address

import msgspec

from runloop.caps.destination import Address, Destination, kind_of_address
from runloop.errors import RefusedError
from runloopd.broker.mcp.spec import ServerSpec

__all__ = ["Dialler", "Resolver", "close_all", "look_up", "serve_descriptors"]

Resolver = Callable[[str, int], Awaitable[Sequence[str]]]
CONNECT_S = 5.0
_MAX_ADDRESSES = 8


class Wanted(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a bridge asks a descriptor for."""

    want: str
    host: str = ""
    port: int = 0


async def look_up(host: str, port: int) -> Sequence[str]:
    """The addresses of a name."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(entry[4][0]) for entry in found]


class Dialler:
    """Connects to the one place a server over HTTP was added as."""

    def __init__(self, spec: ServerSpec, resolver: Resolver = look_up) -> None:
        self._place = spec.place
        self._named = (
            frozenset(ip_address(text) for text in spec.net) if spec.url is not None else frozenset()
        )
        self._resolver = resolver

    async def dial(self, host: str, port: int) -> socket.socket:
        """A connected socket. Raises :class:`RefusedError` (``net.address``, ``net.host``) or OSError."""
        place = self._place
        if place is None or (host.lower().strip("[]"), port) != (place.host, place.port):
            raise RefusedError(f"{host[:128]}:{port} is not where this server was added as", code="net.host")
        addresses = await self._addresses(place)
        for address in addresses:
            # One address that may not be dialled condemns the name, as with everything an agent fetches.
            self._judge(place, address)
        failure: OSError = OSError(f"{place.host} has no address")
        for address in addresses:
            try:
                return await _connect(address, port)
            except OSError as error:
                failure = error
        raise failure

    async def _addresses(self, place: Destination) -> list[Address]:
        literal = place.address
        if literal is not None:
            return [literal]
        found = await self._resolver(place.host, place.port)
        return [ip_address(text) for text in dict.fromkeys(found)][:_MAX_ADDRESSES]

    def _judge(self, place: Destination, address: Address) -> None:
        kind = kind_of_address(address)
        meant = (
            kind is None
            or place.address == address
            or address in self._named
            or (place.host == "localhost" and address.is_loopback)
        )
        if not meant:
            raise RefusedError(
                f"{place.host} leads to {address}, which is no public address ({kind})",
                hint=f"if that is meant, add the server again with --net {address}",
                code="net.address",
            )


async def _connect(address: Address, port: int) -> socket.socket:
    family = socket.AF_INET6 if address.version == 6 else socket.AF_INET
    made = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
    try:
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        async with asyncio.timeout(CONNECT_S):
            await asyncio.get_running_loop().sock_connect(made, (str(address), port))
    except BaseException:
        made.close()
        raise
    return made


async def serve_descriptors(channel: socket.socket, dialler: Dialler, pipes: list[int]) -> None:
    """Answer a bridge's questions until it hangs up. ``pipes`` are given once, then closed and taken from the
    list; what is left in it is the caller's to close."""
    loop = asyncio.get_running_loop()
    try:
        while question := await loop.sock_recv(channel, 4_096):
            refusal, dialled = b"", None
            try:
                wanted = msgspec.json.decode(question, type=Wanted)
                if wanted.want == "pipes" and pipes:
                    socket.send_fds(channel, [b"{}"], pipes)
                    close_all(pipes)
                    continue
                if wanted.want == "socket":
                    dialled = await dialler.dial(wanted.host, wanted.port)
                    socket.send_fds(channel, [b"{}"], [dialled.fileno()])
                    continue
                refusal = b"there is nothing of that kind here"
            except (RefusedError, OSError, ValueError, TimeoutError) as error:
                words = error.message if isinstance(error, RefusedError) else f"it cannot be reached: {error}"
                refusal = words.encode()[:2_000]
            finally:
                if dialled is not None:
                    dialled.close()
            await loop.sock_sendall(channel, refusal)
    except OSError:
        return  # it is gone


def close_all(descriptors: list[int]) -> None:
    """Close and forget them."""
    while descriptors:
        os.close(descriptors.pop())

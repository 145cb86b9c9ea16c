"""Model servers on this machine, found by asking for their list of models.

Knows: where the usual servers listen, what a list of theirs looks like, and whose process must be behind the
port. Asks loopback only: an address elsewhere is asked because the operator wrote it, never because it might
answer. Does not know: how long an answer holds, or what is done with it (``broker.routing``).

A port is nobody's property. What listens on 8080 is a model server only if its list says so, and only if the
operator or the system runs it: what another user of the machine put there would be told everything.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

import msgspec

from runloopd.broker.ports import ModelCallError
from runloopd.broker.providers import ollama
from runloopd.broker.providers.dialect import decoded
from runloopd.broker.providers.http import Http, is_loopback

__all__ = ["LOCAL_SERVERS", "Listing", "LocalServer", "ask_server", "owned_here", "owners", "trusted"]

_MAX_LIST_BYTES = 1024 * 1024
_MAX_MODELS = 1_000
_MAX_NAME = 200
_LISTENS = "0A"
_FIRST_PERSON = 1_000
"""User ids below are the system's (systemd's and every distribution's convention)."""
_EMBEDS = ("embed", "rerank")
"""Words of the names of models that do not chat."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LocalServer:
    """A kind of server and where it listens unless told otherwise."""

    name: str
    """Of the route; also its word in ``models.detect``."""
    kind: Literal["ollama", "openai"]
    url: str


LOCAL_SERVERS = (
    LocalServer(name="ollama", kind="ollama", url="http://127.0.0.1:11434"),
    LocalServer(name="llamacpp", kind="openai", url="http://127.0.0.1:8080"),
    LocalServer(name="vllm", kind="openai", url="http://127.0.0.1:8000"),
    LocalServer(name="lmstudio", kind="openai", url="http://127.0.0.1:1234"),
)


class _Row(msgspec.Struct):
    id: str
    object: str = ""


class _List(msgspec.Struct):
    object: str
    data: list[_Row]


@dataclass(frozen=True, kw_only=True, slots=True)
class Listing:
    """What a server said it has."""

    models: tuple[str, ...] = ()
    """Names of those that can chat, in order."""
    why: str = ""
    """Why there are none."""


async def ask_server(
    http: Http,
    server: LocalServer,
    *,
    timeout_s: float,
    ours: Callable[[str], bool] | None = None,
) -> Listing:
    """The models of a server; none when nobody answers, or not as such a server does.

    ``ours`` tells whether an address belongs to a server that may be trusted (:func:`owned_here`); None: the
    operator named the address, and is believed.
    """
    if server.kind == "ollama":
        models = await ollama.list_models(http, server.url, timeout_s=timeout_s)
    else:
        body = await http.get(f"{server.url}/v1/models", timeout_s=timeout_s, max_bytes=_MAX_LIST_BYTES)
        models = [] if body is None else _named(body)
    if not models:
        return Listing(why=f"no model server answers at {server.url}")
    # Asked afterwards: a list tells it nothing of the user's, and most ports are closed anyway.
    if ours is not None and not await asyncio.to_thread(ours, server.url):
        return Listing(why=f"another user of this machine may be behind {server.url}: name it in the config")
    return Listing(models=tuple(models))


def _named(body: bytes) -> list[str]:
    """The models of ``{"object": "list", "data": [{"id": …, "object": "model"}, …]}``; else none."""
    try:
        listing = decoded(body, _List)
    except ModelCallError:
        return []
    rows = listing.data
    if listing.object != "list" or len(rows) > _MAX_MODELS or any(row.object != "model" for row in rows):
        return []
    names = {row.id for row in rows if 0 < len(row.id) <= _MAX_NAME and row.id.isprintable()}
    return sorted(name for name in names if not any(word in name.lower() for word in _EMBEDS))


# --- whose it is ----------------------------------------------------------------------------------


def owned_here(url: str) -> bool:
    """Whether everything that listens at a loopback ``url`` is run by this user or by the system.

    False where that cannot be told: then the operator names the server in the configuration.
    """
    parts = urlsplit(url)
    if not is_loopback(parts.hostname or "") or parts.port is None:
        return False
    return trusted(owners(parts.port, _tables()), me=os.geteuid())


def trusted(uids: set[int], *, me: int) -> bool:
    """Whether nobody but ``me`` and the system is among those who may answer, and somebody is."""
    return bool(uids) and all(uid == me or uid < _FIRST_PERSON for uid in uids)


def owners(port: int, tables: str) -> set[int]:
    """User ids of the sockets that listen on ``port`` of this machine, by the text of ``net/tcp``."""
    found: set[int] = set()
    for line in tables.splitlines():
        fields = line.split()
        if len(fields) < 8 or fields[3] != _LISTENS:
            continue
        address, _, number = fields[1].rpartition(":")
        try:
            if int(number, 16) == port and _reachable(address):
                found.add(int(fields[7]))
        except ValueError:
            continue
    return found


def _reachable(address: str) -> bool:
    """Whether a socket bound to ``address`` (hexadecimal words in host order) can answer on loopback."""
    raw = bytes.fromhex(address)
    swapped = b"".join(raw[at : at + 4][::-1] for at in range(0, len(raw), 4))
    bound = ip_address(swapped)
    mapped = getattr(bound, "ipv4_mapped", None)
    return (mapped or bound).is_loopback or (mapped or bound).is_unspecified


def _tables() -> str:
    text = ""
    for name in ("tcp", "tcp6"):
        try:
            # Not /proc/net: the system's unit sees no more of /proc than processes (ProcSubset=).
            text += Path("/proc/self/net", name).read_text()
        except OSError:
            continue
    return text

"""How an MCP server is started: shut in, with a bridge beside it, neither able to reach for more.

Knows: what the two processes are given, where secrets go (the environment of the server, the first message
to the bridge; no argument, no file). Does not know: what is said over the connection (``mcp.connection``), or
who agreed to it (``mcp.keeper``).
"""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path

import runloop
import runloopd
from runloop.errors import RunloopError
from runloopd.broker.mcp.connection import Connection
from runloopd.broker.mcp.dialling import Dialler, Resolver, look_up
from runloopd.broker.mcp.messages import Start
from runloopd.broker.mcp.spec import ServerSpec
from runloopd.broker.scrubber import Scrubber
from runloopd.broker.secrets import Secret, SecretRef, SecretStore
from runloopd.broker.toolbox import ToolError
from runloopd.broker.tools.egress import GrantedHosts
from runloopd.broker.tools.sandbox import Egress, Limits, Mount, Program, ProgramSandbox

__all__ = ["Launcher"]

START_MS = 30_000
"""Longest from starting a server to its being ready."""
_BRIDGE = Limits(wall_ms=None, cpu_s=None, memory=1 << 30, processes=64, file_bytes=1 << 20)
_SERVER = Limits(wall_ms=None, cpu_s=None, memory=2 << 30, processes=256, file_bytes=1 << 30)


class Launcher:
    """Starts servers. One per daemon."""

    def __init__(
        self,
        sandbox: ProgramSandbox,
        secrets: SecretStore,
        *,
        egress: Callable[[ServerSpec], Egress | None] | None = None,
        authorities: str | None = None,
        resolver: Resolver = look_up,
    ) -> None:
        """``authorities``: a PEM file with certificates that count beside the system's."""
        self._sandbox = sandbox
        self._secrets = secrets
        self._egress = egress or _egress
        self._authorities = authorities
        self._resolver = resolver

    async def open(self, name: str, spec: ServerSpec, changed: Callable[[str], None]) -> Connection:
        """A connection that is ready. Raises :class:`ToolError` (``tool.unavailable``, ``tool.secrets``,
        ``tool.sandbox``); nothing is left running then."""
        secrets = await self._found(name, spec)
        connection = Connection(name, Scrubber(secrets.values()), changed)
        try:
            async with asyncio.timeout(START_MS / 1000):
                await self._start(connection, spec, secrets)
        except TimeoutError:
            await connection.close()
            raise connection.unavailable("it was not ready in time") from None
        except BaseException:
            await connection.close()
            raise
        return connection

    async def _found(self, name: str, spec: ServerSpec) -> dict[str, Secret]:
        found: dict[str, Secret] = {}
        to = spec.place.authority if spec.place is not None else f"mcp.{name}"
        for variable, secret in spec.secrets.items():
            try:
                found[variable] = await asyncio.to_thread(
                    self._secrets.find, SecretRef(name=secret), by=f"mcp.{name}", to=to
                )
            except RunloopError as error:
                raise ToolError(error.message, hint=error.hint, code="tool.secrets") from error
        return found

    async def _start(self, connection: Connection, spec: ServerSpec, secrets: dict[str, Secret]) -> None:
        ours, theirs = socket.socketpair()
        channel, their_channel = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        channel.setblocking(False)
        ends = [theirs.detach(), their_channel.detach()]
        connection.hold(channel)
        try:
            pipes: list[int] = []
            if spec.url is None:
                pipes = await self._server(connection, spec, secrets)
            connection.serve_descriptors(channel, Dialler(spec, self._resolver), pipes)
            complaints = connection.complaints()
            try:
                await connection.attend(
                    await self._sandbox.spawn(_bridge(), stdin=ends[0], stdout=ends[1], stderr=complaints)
                )
            finally:
                os.close(complaints)
        except BaseException:
            ours.close()
            raise
        finally:
            for end in ends:
                os.close(end)
        await connection.begin(ours, self._start_message(spec, secrets))

    async def _server(
        self, connection: Connection, spec: ServerSpec, secrets: dict[str, Secret]
    ) -> list[int]:
        """Start the program; returns the bridge's ends of its standard input and output."""
        reads, to_server = os.pipe()
        from_server, writes = os.pipe()
        complaints = connection.complaints()
        program = Program(
            argv=spec.argv,
            env={**spec.env, **{variable: secret.reveal() for variable, secret in secrets.items()}},
            mounts=tuple(Mount(path=path) for path in spec.ro)
            + tuple(Mount(path=path, writable=True) for path in spec.rw),
            egress=self._egress(spec),
            limits=_SERVER,
        )
        try:
            await connection.attend(
                await self._sandbox.spawn(program, stdin=reads, stdout=writes, stderr=complaints)
            )
        except BaseException:
            os.close(to_server)
            os.close(from_server)
            raise
        finally:
            for end in (reads, writes, complaints):
                os.close(end)
        return [to_server, from_server]

    def _start_message(self, spec: ServerSpec, secrets: dict[str, Secret]) -> Start:
        bearer = secrets["bearer"].reveal() if spec.url is not None and "bearer" in secrets else None
        pem = None
        if spec.url is not None and self._authorities is not None:
            try:
                pem = Path(self._authorities).read_text(encoding="utf-8")
            except (OSError, UnicodeError) as error:
                raise ToolError(
                    f"the certificates in {self._authorities} cannot be read: {error}",
                    hint="look at security.web_authorities",
                    code="tool.unavailable",
                ) from error
        era = "legacy" if spec.legacy else "auto"
        return Start(url=spec.url, bearer=bearer, authorities=pem, era=era)


def _egress(spec: ServerSpec) -> Egress | None:
    """What a program reaches: the hosts the operator named, and no network at all where he named none."""
    return GrantedHosts(spec.rules()) if spec.net else None


_BOOT = """\
import sys
from importlib.util import module_from_spec, spec_from_file_location
for name, place in zip(sys.argv[1::2], sys.argv[2::2]):
    found = spec_from_file_location(name, place + "/__init__.py", submodule_search_locations=[place])
    sys.modules[name] = module_from_spec(found)
    found.loader.exec_module(sys.modules[name])
from runloopd.broker.mcp.bridge.__main__ import main
main()
"""
"""Finds our packages by their folders: inside, the folder around them cannot be listed."""


def _bridge() -> Program:
    """Our own program that speaks MCP: it sees its own code and nothing else."""
    prefixes = {sys.prefix, sys.base_prefix} - {"/usr"}
    packages = {module.__name__: str(Path(str(module.__file__)).parent) for module in (runloop, runloopd)}
    outside = {
        place for place in packages.values() if not any(Path(place).is_relative_to(each) for each in prefixes)
    }
    words = [word for name, place in packages.items() for word in (name, place)]
    return Program(
        argv=(sys.executable, "-I", "-c", _BOOT, *words),
        mounts=tuple(Mount(path=path, trusted=True) for path in sorted(prefixes | outside)),
        limits=_BRIDGE,
        own=True,
    )

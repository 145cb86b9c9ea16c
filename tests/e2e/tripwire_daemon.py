"""``runloopd`` with a wire in front of every way out: the product's code, and a file of who touched it.

Usage: python -m tests.e2e.tripwire_daemon --home DIR --wire FILE [--passthrough]

A line is written for every call of the gate or of a provider, and for every socket that is no Unix socket. At
the start it tries the network itself: that line must be there, or the wire proves nothing. ``--passthrough``
is the mistake the wire is for: a replay that asks the gate what it should hear from the record.
"""

from __future__ import annotations

import argparse
import contextlib
import socket
import sys
from pathlib import Path
from typing import Any

import runloopd.assembly.gate
from runloopd.__main__ import main
from runloopd.broker.calls import Answer, Answerer, Caller, HostCall
from runloopd.broker.gate import Gate
from runloopd.runs import replayer
from runloopd.runs.answers import RecordedAnswerer

PROVIDERS = ("models", "embeddings", "mail", "web", "files", "knowledge", "promises", "talk", "mint")
"""What the gate reaches the world with, by the name it is given under."""


class Wire:
    """Where it is written."""

    file: Path

    @classmethod
    def touched(cls, what: str) -> None:
        with cls.file.open("a") as file:
            file.write(what + "\n")


class Tripped:
    """A provider, all of whose calls are told."""

    def __init__(self, name: str, inner: Any) -> None:
        self.__dict__.update(_name=name, _inner=inner)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._inner, name, value)

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)
        if not callable(found):
            return found

        def called(*args: Any, **named: Any) -> Any:
            Wire.touched(f"{self._name}.{name}")
            return found(*args, **named)

        return called


class WiredGate(Gate):
    """The gate, told of at every use."""

    newest: WiredGate

    def __init__(self, **given: Any) -> None:
        wired: Any = {
            name: Tripped(name, value) if name in PROVIDERS and value is not None else value
            for name, value in given.items()
        }
        super().__init__(**wired)
        WiredGate.newest = self

    def answerer(self, caller: Caller, *given: Any, **named: Any) -> Answerer:
        Wire.touched("gate.answerer")
        return super().answerer(caller, *given, **named)


class Passthrough(RecordedAnswerer):
    """What must never be: the record first, and then the world after all."""

    async def answer(self, call: HostCall) -> Answer:
        Wire.touched(f"gate asked by a replay: {call.op}")
        return await super().answer(call)


def _audit(event: str, args: tuple[Any, ...]) -> None:
    if not event.startswith("socket."):
        return
    if event == "socket.__new__" and len(args) > 1 and args[1] == socket.AF_UNIX:
        return
    found = next((arg for arg in args if isinstance(arg, socket.socket)), None)
    if found is not None and found.family == socket.AF_UNIX:
        return
    if event in ("socket.__new__", "socket.connect", "socket.sendto", "socket.sendmsg", "socket.getaddrinfo"):
        Wire.touched(event)


def _try_the_network() -> None:
    try:
        with contextlib.closing(socket.create_connection(("192.0.2.1", 9), timeout=5)):
            Wire.touched("network: reached")
    except OSError as error:
        Wire.touched(f"network: {error.strerror}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--home", required=True)
    parser.add_argument("--wire", type=Path, required=True)
    parser.add_argument("--passthrough", action="store_true")
    arguments = parser.parse_args()
    Wire.file = arguments.wire
    sys.addaudithook(_audit)
    _try_the_network()
    vars(runloopd.assembly.gate)["Gate"] = WiredGate
    if arguments.passthrough:
        vars(replayer)["RecordedAnswerer"] = Passthrough
    sys.exit(main(["--home", arguments.home]))

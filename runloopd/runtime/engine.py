"""Facts about the engine that everybody may know without loading it.

Knows: the version of the configuration, the interface, the header and the limits of a component. Does not
import wasmtime.
"""

from __future__ import annotations

import functools
import platform
import re
import sys
from dataclasses import dataclass
from pathlib import Path

from runloop.errors import UsageError

__all__ = [
    "COMPILE_LIMITS",
    "COMPONENT_HEADER",
    "ENGINE_CONFIG",
    "HOST_INTERFACE",
    "WASMTIME_FLOOR",
    "CompileLimits",
    "ComponentRefused",
    "engine_version",
    "wasmtime_version",
]

ENGINE_CONFIG = 1
"""Version of the engine configuration in :mod:`runloopd.runtime.sandbox`; part of every recorded run."""

WASMTIME_FLOOR = (50, 0, 1)
"""Oldest engine with every advisory known to us fixed (attacks.md W1, W2)."""

HOST_INTERFACE = re.compile(r"runloop:agent/host@0\.1\.\d{1,6}\Z")
"""The whole world of a guest."""

COMPONENT_HEADER = b"\0asm\x0d\x00\x01\x00"
"""Magic number, layer and version of a component (a core module has ``01 00 00 00``)."""


class ComponentRefused(UsageError):
    """The component is not one this runtime runs. Rebuild it against the agent ABI."""

    code = "component.refused"

    def __init__(self, message: str) -> None:
        super().__init__(message, hint="build it for the world runloop:agent@0.1.0 (spec/agent-abi.md)")


@dataclass(frozen=True, kw_only=True, slots=True)
class CompileLimits:
    """Bounds of one compilation, in a process of its own."""

    wasm_bytes: int = 64 * 1024 * 1024
    cwasm_bytes: int = 128 * 1024 * 1024
    """The daemon holds it once while it is authenticated. That of CPython has 36 MiB."""
    cpu_seconds: int = 600
    """CPython takes 15 s of a processor of today, and more than 120 s of an emulated one."""
    data_bytes: int = 2 * 1024 * 1024 * 1024
    wall_seconds: float = 900.0


COMPILE_LIMITS = CompileLimits()


@functools.cache
def wasmtime_version() -> str:
    """The installed engine's version, without loading it.

    Read from the name of its metadata: ``importlib.metadata`` would bring modules with hooks on fork into the
    zygote, which every worker pays for in copied pages.
    """
    for folder in sys.path:
        for found in Path(folder or ".").glob("wasmtime-*.dist-info"):
            return found.name.removesuffix(".dist-info").removeprefix("wasmtime-")
    raise ModuleNotFoundError("the package wasmtime is not installed", name="wasmtime")


def engine_version() -> dict[str, int | str]:
    """What a run records of the engine, and a replay insists on."""
    return {"sandbox": ENGINE_CONFIG, "wasmtime": wasmtime_version()}


def cache_tag() -> bytes:
    """Everything apart from the component that the compiled form depends on."""
    return f"wasmtime {wasmtime_version()} config {ENGINE_CONFIG} {platform.machine()}".encode()

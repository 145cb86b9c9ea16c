"""One agent, told whole: what it is, who vouches for it, what it may do, which versions are kept.

Knows: where each of these facts is asked. Decides nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any, Protocol

from runloop.bundle.digest import read_bundle
from runloop.bundle.installed import Installation, Installations
from runloop.errors import NotFoundError, RunloopError
from runloopd.runtime.registry import InstalledAgent, Registry
from runloopd.runtime.uses import Usage

__all__ = ["Descriptions"]


class Rights(Protocol):
    """What agents may do, as the operator sees it."""

    def show(self, agent: str | None) -> list[dict[str, Any]]: ...


class Descriptions:
    """Answers ``agents.show``."""

    def __init__(self, registry: Registry, installed: Installations, rights: Rights, usage: Usage) -> None:
        self._registry = registry
        self._installed = installed
        self._rights = rights
        self._usage = usage

    async def describe(self, name: str, variant: str) -> dict[str, Any]:
        """Everything about one agent. An agent that is here and refused is described all the same, with the
        reason; raises :class:`NotFoundError` for one that is not here at all."""
        current = self._installed.current(name, variant)
        agent, refusal = await asyncio.to_thread(self._find, name, variant)
        if agent is None and current is None and refusal is not None:
            raise refusal
        about = {} if agent is None else await asyncio.to_thread(_about, agent)
        rights: list[dict[str, Any]] = []
        with contextlib.suppress(NotFoundError):
            rights = self._rights.show(name)
        return {
            "name": name,
            "variant": variant,
            **about,
            "installed": current.to_json() if current is not None else None,
            "refused": None if refusal is None else {"reason": refusal.message, "hint": refusal.hint},
            "rights": rights[0] if rights else None,
            "owner": self._installed.owner(name),
            "versions": [_version(one, current) for one in reversed(self._installed.kept(name, variant))],
            "last_run": await self._usage.last(name),
        }

    def _find(self, name: str, variant: str) -> tuple[InstalledAgent | None, RunloopError | None]:
        reference = f"agent:{name}" if variant == "default" else f"agent:{name}@{variant}"
        try:
            return self._registry.resolve(reference), None
        except RunloopError as refusal:
            current = self._installed.current(name, variant)
            if current is not None:
                with contextlib.suppress(RunloopError):
                    return self._registry.stored(current), refusal
            return None, refusal


def _about(agent: InstalledAgent) -> dict[str, Any]:
    import json

    files = read_bundle(agent.dir)
    tools = json.loads(files[agent.manifest.tools])["tools"]
    return {
        **agent.to_json(),
        "tools": [
            {"id": tool.get("id"), "description": tool.get("description", "")}
            for tool in tools
            if isinstance(tool, dict)
        ],
        "files": len(files),
        "bytes": sum(map(len, files.values())),
        "asked": agent.policy.to_json(),
    }


def _version(one: Installation, current: Installation | None) -> dict[str, Any]:
    return {**one.to_json(), "current": current is not None and one.bundle == current.bundle}

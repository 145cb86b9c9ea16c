"""A daemon of its own for hostile agents, and the words to set them upon it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from runloop.events import Event, NodeFinished
from tests.home import Done, Home, wait_until
from tests.integration.hostile.corpus import GUEST_MS, good

MANIFEST = """
name = "{name}"
version = "0.1.0"
language = "component"
entrypoint = "agent.wasm"
description = "hostile on purpose"
ops = {ops}
accepts = "intent.generic.v1"
replies = "toolresult.generic.v1"
[ports.out.out]
type = "any"
[limits]
guest_ms = {guest_ms}
memory_mb = 32
max_host_calls = {calls}
"""


class Den:
    """A home whose daemon serves agents nobody vouches for."""

    def __init__(self, home: Home) -> None:
        self.home = home
        home.env["RUNLOOP__SECURITY__ALLOW_UNSIGNED_AGENTS"] = "true"
        # The corpus is one agent after another under a few names; who flaps is another test's matter.
        home.env["RUNLOOP__BREAKER__FAILURES"] = "10000"

    def place(
        self,
        agents: Mapping[str, bytes],
        *,
        where: str,
        ops: tuple[str, ...] = ("log.write",),
        caps: str = "",
        guest_ms: int = GUEST_MS,
        calls: int = 256,
    ) -> Path:
        """Put agents and an opening with a node for each, side by side, into a directory of their own."""
        folder = self.home.path / where
        for name, wasm in agents.items():
            home = folder / "agents" / name
            home.mkdir(parents=True)
            (home / "manifest.toml").write_text(
                MANIFEST.format(name=name, ops=json.dumps(ops), guest_ms=guest_ms, calls=calls)
            )
            (home / "policy.caps").write_text(f"[capabilities]\n{caps}")
            (home / "tools.json").write_text('{"version": 1, "tools": []}\n')
            (home / "README.md").write_text("# hostile\n")
            (home / "agent.wasm").write_bytes(wasm)
        nodes = "".join(f'  - {{id: {name}, use: "agent:{name}"}}\n' for name in agents)
        (folder / "hostile.yaml").write_text(f"version: 0\nname: hostile\nnodes:\n{nodes}")
        return folder

    def run(self, folder: Path) -> Done:
        """Run the opening of a directory to its end; a run that takes for ever fails the test."""
        return self.home.rlp("run", "hostile.yaml", "--no-input", "--json", cwd=folder, timeout=120)

    def serves(self) -> None:
        """Insist that an honest agent is served."""
        folder = self.home.path / "honest"
        if not folder.exists():
            self.place({"good": good()}, where="honest")
        self.run(folder).check()

    def ends(self, after: int = 0) -> dict[str, NodeFinished]:
        """Node -> how it ended, in events after one."""
        return {
            event.payload.node: event.payload
            for event in self.home.events("node.finished")
            if event.id > after and isinstance(event.payload, NodeFinished)
        }

    def head(self) -> int:
        return max((event.id for event in self.home.events()), default=0)

    def facts(self, kind: str, after: int = 0) -> list[Any]:
        return [event.payload for event in self.of(kind, after)]

    def of(self, kind: str, after: int = 0) -> list[Event]:
        return [event for event in self.home.events(kind) if event.id > after]

    def memory(self, what: str = "RssAnon") -> int:
        """Bytes of the daemon's memory: ``RssAnon`` now, ``VmHWM`` at its most."""
        pid = self.home.pid()
        assert pid is not None
        status = Path(f"/proc/{pid}/status").read_text()
        found = re.search(rf"{what}:\s+(\d+) kB", status)
        assert found is not None
        return int(found[1]) * 1024


def code_of(done: Done) -> str | None:
    """The code of the error a command ended with, if it says one."""
    for line in reversed(done.ndjson):
        if isinstance(line, dict) and isinstance(line.get("error"), dict):
            return str(line["error"].get("code"))
    return None


@pytest.fixture
def den(home: Home) -> Iterator[Den]:
    made = Den(home)
    home.rlp("daemon", "start").check()
    wait_until(home.agents_ready, "the shipped agents to be ready")
    yield made

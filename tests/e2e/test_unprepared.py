"""An agent that the sandbox does not take: the daemon comes up, and says which one and why."""

from __future__ import annotations

import shutil

import pytest

from tests.home import Home, wait_until

MANIFEST = """\
name = "stone"
version = "0.1.0"
language = "component"
entrypoint = "agent.wasm"
description = "Its component is no component."
min_runloop = "0.1.0"
ops = []

[ports.out.text]
type = "string"
"""
OPENING = """\
version: 0
name: throw
nodes:
  - {id: stone, use: "agent:stone"}
"""


@pytest.mark.requirement("I8.first.2")
def test_an_agent_that_cannot_be_compiled_is_named_with_its_reason(home: Home) -> None:
    folder = home.write_agent("stone", MANIFEST, "")
    (folder / "agent.py").rename(folder / "agent.wasm")
    (folder / "agent.wasm").write_bytes(b"\0asm\x0d\0\x01\0" + b"rubbish")
    (home.path / "throw.yaml").write_text(OPENING)
    home.rlp("daemon", "start").check()
    wait_until(home.agents_ready, "the daemon to have tried its agents")
    unprepared = home.rlp("daemon", "status", "--json").json["agents_unprepared"]
    assert list(unprepared) == ["stone"]
    row = next(row for row in home.rlp("doctor", "--json").ndjson if row["name"] == "agents")
    assert row["state"] == "bad" and f"stone: {unprepared['stone']}" in row["found"]
    refused = home.rlp("run", "throw.yaml", "--json")
    assert refused.code != 0 and unprepared["stone"] in refused.err
    shutil.rmtree(folder)
    row = next(row for row in home.rlp("doctor", "--json").ndjson if row["name"] == "agents")
    assert row["state"] == "ok", "who is not here any more is not missed"

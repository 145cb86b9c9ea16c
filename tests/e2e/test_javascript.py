"""A JavaScript agent under a whole daemon: clock, chance, knowledge, a refusal survived, failures, replay."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import cast

import pytest

from runloop.authoring.toolchains.compilers import find
from runloop.bundle.runner import read_pin
from runloop.config import shipped
from runloop.events import NodeFinished, RunStarted
from tests.e2e.test_docs import DOCS, Reader
from tests.home import Home, example_paths

MANIFEST = """
name = "scout"
version = "0.1.0"
language = "javascript"
entrypoint = "src/agent.js"
ops = ["time.now", "random.bytes", "kb.search", "kb.propose", "log.write", "memory.get", "memory.put"]

[ports.out.out]
type = "object"
required = true
"""
CAPS = '[capabilities]\nkb_read = ["notes"]\ntime = true\nrandom = true\n'
AGENT = """
const { Fail, HostRefused, handler } = require("runloop");
const { stamp } = require("./stamp");

exports.handle = handler((task, host) => {
  if (task.param("topic") === "") throw new Fail("scout.topic", "no topic", true);
  if (task.param("topic") === "boom") {
    null.x;
  }
  let refused = null;
  try {
    host.kbPropose("note", { title: "mine" });
  } catch (error) {
    if (!(error instanceof HostRefused)) throw error;
    refused = error.code;
  }
  const { value, version } = host.memoryGet("runs");
  host.memoryPut("runs", (value ?? 0) + 1, { expectedVersion: version });
  const notes = host.kbSearch(task.param("topic"), { kinds: ["note"] });
  console.log("found", notes.length);
  const titles = notes.map(({ title }) => title).sort();
  return { out: { ...stamp(), refused, titles, runs: (value ?? 0) + 1 } };
});
"""
STAMP = """
exports.stamp = () => ({ at: new Date().toISOString(), drawn: Math.random(), id: crypto.randomUUID() });
"""
OPENING = """
version: 0
name: scouting
params:
  topic: {type: string}
nodes:
  - id: look
    use: agent:scout
    with: {topic: "{{params.topic}}"}
success:
  any_of: [exists(look.out)]
"""


@pytest.fixture
def scout(home: Home) -> Home:
    """A home with the agent in it, and an operator who allows agents nobody vouches for."""
    files = {
        "agents/scout/manifest.toml": MANIFEST,
        "agents/scout/policy.caps": CAPS,
        "agents/scout/tools.json": '{"version": 1, "tools": []}',
        "agents/scout/src/agent.js": AGENT,
        "agents/scout/src/stamp.js": STAMP,
        "openings/scouting.yaml": OPENING,
    }
    for name, text in files.items():
        path: Path = home.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    home.env["RUNLOOP__SECURITY__ALLOW_UNSIGNED_AGENTS"] = "true"
    home.rlp("import", *map(str, example_paths())).check()
    return home


def run(home: Home, topic: str) -> tuple[int, NodeFinished]:
    done = home.rlp("run", "scouting", "-p", f"topic={topic}", "--no-input", timeout=300)
    finished = home.events("node.finished")
    assert finished, done
    return done.code, cast(NodeFinished, finished[-1].payload)


def test_a_javascript_agent_runs_like_any_other_and_replays_identically(scout: Home) -> None:
    outputs = []
    for _ in range(2):
        code, finished = run(scout, "Q4 plan")
        assert code == 0, finished
        assert finished.output is not None
        outputs.append(finished.output["ports"]["out"][0])
    first, second = outputs
    assert first["titles"] and first["titles"] == second["titles"]
    assert first["refused"] and first["refused"] == second["refused"]
    assert (first["runs"], second["runs"]) == (1, 2)
    assert all(first[name] != second[name] for name in ("at", "drawn", "id")), "clock and chance are real"

    started = cast(RunStarted, scout.events("run.started")[0].payload)
    assert started.agents["look"].language == "javascript"
    assert started.agents["look"].component_digest == read_pin(shipped("runner-js")).blake3

    (scout.path / "agents/scout/src/stamp.js").write_text(
        "exports.stamp = () => ({});"
    )  # a run keeps its bundle
    for event in scout.events("run.started"):
        replayed = scout.rlp("replay", str(event.run), "--json", timeout=300).check()
        assert json.loads(replayed.out.splitlines()[-1]), replayed.out


def test_the_failures_of_a_javascript_agent_name_its_file_and_line(scout: Home) -> None:
    code, finished = run(scout, "boom")
    assert code != 0
    assert finished.error is not None
    assert finished.error.code == "agent.exception"
    assert finished.error.message == "TypeError: cannot read property 'x' of null (src/agent.js:8)"

    code, finished = run(scout, "")
    assert finished.error is not None
    assert (code != 0, finished.error.code, finished.error.retryable) == (True, "scout.topic", True)

    (scout.path / "agents/scout/src/stamp.js").write_text("exports.stamp = (\n")
    code, finished = run(scout, "x")
    assert code != 0
    assert finished.error is not None
    assert finished.error.code == "agent.syntax"
    assert finished.error.message.startswith("src/stamp.js:2: ")


@pytest.mark.skipif(
    find("tsc") is None or find("node") is None,
    reason="there is no tsc (apt-get install node-typescript, or npm install --global typescript)",
)
def test_the_howto_does_what_it_says_and_the_example_passes(home: Home, tmp_path: Path) -> None:
    Reader(home, tmp_path / "variables").follow(DOCS / "howto" / "agents-in-typescript.md")
    example = tmp_path / "topic_digest"
    shutil.copytree(DOCS / "examples" / "agents" / "topic_digest_ts", example)
    assert "nothing to mend" in (linted := home.rlp("agent", "lint", str(example)).check()).out + linted.err
    tested = home.rlp("agent", "test", str(example), "--json", timeout=300).check()
    assert "unit" in tested.out
    built = [
        home.rlp("agent", "build", str(example), "-o", str(tmp_path / name), timeout=300).check()
        for name in ("one.rlb", "two.rlb")
    ]
    assert built[0].code == built[1].code == 0
    assert (tmp_path / "one.rlb").read_bytes() == (tmp_path / "two.rlb").read_bytes()

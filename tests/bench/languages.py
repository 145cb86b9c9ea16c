"""The same agent in every language: it makes as many host calls (``time.now``) as its node's ``with`` says.

Knows: how to get each of them ready to run. Rust and C are built with the toolchains that ``rlp agent build``
uses; where one is absent, a component written by hand takes its place and says so in its name.
"""

from __future__ import annotations

import lzma
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from runloop.authoring.toolchains.c import CToolchain
from runloop.authoring.toolchains.rust import RustToolchain
from tests.unit.runtime.guests import calling

__all__ = ["SDK", "Agent", "agents"]

SDK = Path(__file__).parents[2] / "sdk"

PYTHON = """
from runloop.agent import Result, handler

@handler
def handle(task, host):
    for _ in range(task.param("calls")):
        host.now_ms()
    return Result()
"""
JAVASCRIPT = """
exports.handle = (task, host) => {
  for (let i = task.param("calls"); i > 0; i--) host.nowMs();
  return {};
};
"""
RUST = """
use runloop::{Failure, Host, Output, Task};

runloop::agent!(handle);

fn handle(task: Task, host: &Host) -> Result<Output, Failure> {
    for _ in 0..task.param("calls")?.as_i64().unwrap_or(0) {
        host.now_ms()?;
    }
    Ok(Output::new())
}
"""
C = """
#include "runloop_agent.h"

static rl_result handle(const rl_task *task) {
    int64_t calls = 0;
    if (!js_int(rl_param(task, RL_TEXT("calls")), &calls)) return rl_fail(RL_TEXT("bench"), RL_TEXT("calls"));
    while (calls-- > 0) rl_time_now();
    return rl_output_all(RL_TEXT("{}"), RL_TEXT(""));
}

RL_AGENT(handle)
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Agent:
    """One agent, ready to be prepared."""

    name: str
    wasm: Path
    source: dict[str, str] | None = None
    """What a runner executes; None: the component is the agent."""
    entrypoint: str = ""
    counts: bool = True
    """Whether it makes as many calls as it is told; a stand-in makes one."""


def agents(scratch: Path) -> Iterator[Agent]:
    """Python, JavaScript, Rust, C."""
    python, javascript = scratch / "runner.wasm", scratch / "runner-js.wasm"
    python.write_bytes(lzma.decompress((SDK / "runner" / "runner.wasm.xz").read_bytes()))
    javascript.write_bytes(lzma.decompress((SDK / "js" / "runner" / "runner.wasm.xz").read_bytes()))
    yield Agent(name="Python", wasm=python, source={"agent": PYTHON}, entrypoint="agent:handle")
    yield Agent(name="JavaScript", wasm=javascript, source={"agent.js": JAVASCRIPT}, entrypoint="agent.js")
    yield _rust(scratch)
    yield _c(scratch)


def _rust(scratch: Path) -> Agent:
    toolchain = RustToolchain()
    if toolchain.missing():
        return _stand_in(scratch, "Rust")
    folder = scratch / "rust"
    (folder / "src").mkdir(parents=True)
    shutil.copy(SDK / "templates" / "rust" / "Cargo.toml", folder)
    (folder / "src" / "lib.rs").write_text(RUST)
    return _built(scratch, f"Rust (rustc {toolchain.versions()['rustc']})", toolchain, folder)


def _c(scratch: Path) -> Agent:
    toolchain = CToolchain()
    if toolchain.missing():
        return _stand_in(scratch, "C")
    folder = scratch / "c"
    folder.mkdir()
    (folder / "agent.c").write_text(C)
    ((compiler, version), *_) = toolchain.versions().items()
    return _built(scratch, f"C ({compiler} {version})", toolchain, folder)


def _built(scratch: Path, name: str, toolchain: RustToolchain | CToolchain, folder: Path) -> Agent:
    work = scratch / f"work-{folder.name}"
    work.mkdir()
    wasm = scratch / f"{folder.name}.wasm"
    wasm.write_bytes(toolchain.build(folder, work)["agent.wasm"])
    return Agent(name=name, wasm=wasm)


def _stand_in(scratch: Path, name: str) -> Agent:
    wasm = scratch / f"{name}.wasm"
    wasm.write_bytes(calling("time.now", "{}"))
    return Agent(name=f"{name} (no toolchain here: a component written by hand)", wasm=wasm, counts=False)

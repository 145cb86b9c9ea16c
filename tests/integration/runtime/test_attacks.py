"""Rows W and S of attacks.md that need a corpus or a bad machine: engine, compiler, sandbox layers."""

from __future__ import annotations

import contextlib
import resource
from pathlib import Path

import pytest

from runloopd.runtime import sandbox
from runloopd.runtime.engine import ComponentRefused
from runloopd.runtime.supervisor import CompileFailed, Runtime, SandboxRefused
from runloopd.runtime.workers import Worker, ZygoteProcess
from tests.integration.runtime.conftest import MAC_KEY, Bench
from tests.unit.runtime.guests import EMPTY, Texts, component, saying, wat

GOOD = saying({"ports": {"out": [1]}})


@pytest.mark.requirement("W1")
@pytest.mark.parametrize("version", ["24.0.5", "36.0.5", "40.0.3", "50.0.0"])
def test_an_engine_with_known_holes_is_not_used(monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    monkeypatch.setattr(sandbox, "wasmtime_version", lambda: version)
    with pytest.raises(ComponentRefused, match=f"wasmtime {version} is older than"):
        sandbox.make_engine()


STORMS = {
    "exports": component(
        f"(call $ok {(texts := Texts())(EMPTY)})",
        texts,
        extra="".join(f'(func (export "e{n}"))' for n in range(10_000)),
    ),
    "types": wat(
        "(component "
        + "(type $t0 (list u8))"
        + "".join(f"(type $t{n} (list $t{n - 1}))" for n in range(1, 5_000))
        + ")"
    ),
    "locals": component(
        f"(call $ok {(more := Texts())(EMPTY)})", more, extra=f"(func {'(local i64)' * 40_000})"
    ),
    "data": component(
        f"(call $ok {(much := Texts())(EMPTY)})", much, extra="".join('(data (i32.const 0) "x")' * 8_000)
    ),
}


@pytest.mark.requirement("W5")
@pytest.mark.parametrize("storm", STORMS)
async def test_a_storm_of_declarations_costs_a_bounded_compiler_and_never_the_daemon(
    bench: Bench, storm: str
) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with contextlib.suppress(ComponentRefused, CompileFailed):  # refused, or compiled within its limits
        await bench.run(STORMS[storm], limits={"guest_ms": 2_000})
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 * 1024  # KiB
    assert (await bench.run(GOOD)).ok


@pytest.mark.requirement("S1")
@pytest.mark.parametrize("escape", ["socket", "exec", "exec_memory"])
async def test_a_kernel_that_lets_any_escape_pass_gets_no_guests(
    compiled: Path, monkeypatch: pytest.MonkeyPatch, escape: str
) -> None:
    runtime = Runtime(cache_dir=compiled, mac_key=MAC_KEY)
    honest = ZygoteProcess.probe

    async def lenient(self: ZygoteProcess, attempt: str) -> Worker:
        return await honest(self, "nothing" if attempt == escape else attempt)

    monkeypatch.setattr(ZygoteProcess, "probe", lenient)
    with pytest.raises(SandboxRefused):
        await runtime.start()

"""A crash of the engine, provoked for real in a worker of a running daemon (attacks.md W2)."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.home import BIN, PATIENCE_S, Home, alive, wait_until
from tests.integration.hostile.conftest import Den
from tests.integration.hostile.corpus import good, storm
from tests.unit.runtime.guests import LOOP, component

SLOW = component(
    """(local $turn i64)
    (loop $l (br_if $l (i64.lt_u
      (local.tee $turn (i64.add (local.get $turn) (i64.const 1))) (i64.const 900000000))))
    (call $ok (i32.const 1024) (i32.const 12))""",
    extra='(data (i32.const 1024) "{\\22ports\\22:{}}")',
)
"""Computes for a second or two, then answers."""


def workers(daemon: int) -> list[int]:
    """Processes of guests: the children of the daemon's worker host."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError, IndexError):
                parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
    hosts = {pid for pid, parent in parents.items() if parent == daemon}
    return [pid for pid, parent in parents.items() if parent in hosts]


def busiest(daemon: int) -> int | None:
    """The worker that computes: the others are spares, or wait."""
    for pid in workers(daemon):
        with contextlib.suppress(OSError, IndexError):
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            if int(fields[11]) + int(fields[12]) >= 10:  # ticks of processor time
                return pid
    return None


def crash(pid: int, number: int) -> None:
    """As of its own fault: a real one repeats itself until nobody handles it any more."""
    deadline = time.monotonic() + PATIENCE_S
    while alive(pid):
        assert time.monotonic() < deadline
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
        time.sleep(0.01)


def start(den: Den, folder: Path) -> subprocess.Popen[bytes]:
    """Run an opening beside the test."""
    return subprocess.Popen(
        [str(BIN / "rlp"), "run", "hostile.yaml", "--no-input", "--json"],
        cwd=folder,
        env=den.home.env,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def strike(den: Den, number: int) -> None:
    """Crash the worker that computes now."""
    daemon = den.home.pid()
    assert daemon is not None
    found: list[int] = []

    def seen() -> bool:
        pid = busiest(daemon)
        found[:] = [pid] if pid is not None else []
        return bool(found)

    wait_until(seen, "a worker to compute")
    crash(found[0], number)


@pytest.mark.requirement("I3.sandbox.2", "W2")
@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGABRT])
def test_a_crash_of_the_engine_takes_one_worker_and_is_told_and_the_node_goes_on(
    den: Den, number: signal.Signals
) -> None:
    folder = den.place({"slow": SLOW, "good": good()}, where="crash", guest_ms=60_000)
    pid = den.home.pid()
    run = start(den, folder)
    strike(den, number)
    assert run.wait(PATIENCE_S) == 0, "the node was executed again in another worker"
    assert den.home.pid() == pid
    moves = [m for m in den.facts("agent.transition") if m.node == "slow"]
    assert [m.trigger for m in moves] == [
        "spawn",
        "activate",
        "error",
        "recover",
        "recovery_success",
        "complete",
        "teardown_ok",
    ]
    assert moves[2].reason.startswith("guest.crashed: the worker was killed by SIG")
    assert {end.attempt for end in den.ends().values()} == {1}
    (run_id,) = [event.run for event in den.of("run.finished")]
    assert den.home.rlp("replay", str(run_id), "--json").check().json["identical"] is True


def test_a_worker_that_crashes_every_time_fails_its_node_and_no_other(den: Den) -> None:
    folder = den.place({"doomed": component(LOOP), "good": good()}, where="doomed", guest_ms=60_000)
    run = start(den, folder)
    for _ in range(4):
        strike(den, signal.SIGSEGV)
    assert run.wait(PATIENCE_S) == 1
    ends = den.ends()
    assert ends["good"].error is None
    assert ends["doomed"].error is not None and ends["doomed"].error.code == "guest.crashed"
    triggers = [m.trigger for m in den.facts("agent.transition") if m.node == "doomed"]
    assert triggers.count("recovery_success") == 3
    assert triggers[-1] == "recovery_exhausted"


@pytest.mark.requirement("I3.sandbox.3")
def test_a_breach_ends_the_instance_revokes_its_token_and_the_run_is_told(den: Den) -> None:
    """A forbidden system call kills a worker with SIGSYS: whatever it was, it is not believed any more."""
    folder = den.place({"liar": component(LOOP), "good": good()}, where="breach", guest_ms=60_000)
    run = start(den, folder)
    strike(den, signal.SIGSYS)
    assert run.wait(PATIENCE_S) == 1
    ends = den.ends()
    assert ends["good"].error is None
    assert ends["liar"].error is not None
    assert (ends["liar"].error.code, ends["liar"].error.retryable) == ("guest.breach", False)
    moves = [m for m in den.facts("agent.transition") if m.node == "liar"]
    assert [(m.before, m.trigger, m.after) for m in moves][-1] == ("ACTIVE", "breach", "TERMINATED")
    (revoked,) = den.facts("token.revoked")
    (issued,) = [e.payload for e in den.of("token.issued") if e.provenance.node == "liar"]
    assert revoked.token == issued.token  # type: ignore[attr-defined]
    (finished,) = den.facts("run.finished")
    assert (finished.outcome, finished.error.code) == ("failed", "guest.breach")
    (run_id,) = [event.run for event in den.of("run.finished")]
    assert den.home.rlp("replay", str(run_id), "--json").check().json["identical"] is True


def test_an_effect_before_a_crash_is_not_repeated_by_the_recovery(den: Den) -> None:
    """The guest writes memory, then computes until its worker is lost; executed again it hears its answer."""
    folder = den.place(
        {"writer_of_memory": storm("memory.put", '{"key":"k","value":1}')},
        where="effects",
        ops=("memory.put",),
        guest_ms=3_000,
        calls=3,  # then it is refused, and computes
    )
    run = start(den, folder)
    strike(den, signal.SIGSEGV)
    assert run.wait(PATIENCE_S) == 1
    assert "recovery_success" in [m.trigger for m in den.facts("agent.transition")]
    versions = [m.entry_version for m in den.facts("memory.updated")]
    assert versions == [1, 2, 3]
    calls = [(c.call, c.ok) for c in den.facts("hostcall.delivered")]
    assert calls == [(0, True), (1, True), (2, True)]


@pytest.mark.requirement("W2")
def test_doctor_names_the_engine_and_its_version(home: Home) -> None:
    from importlib.metadata import version

    rows = {row["name"]: row for row in home.rlp("doctor", "--json").ndjson}
    assert rows["wasm"]["state"] == "ok"
    assert version("wasmtime") in rows["wasm"]["found"]

"""A replay performs no effect and opens no network: told by wires in front of every way out, in a namespace
without a network, and by a trace of the system calls where this machine has strace."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.home import ROOT, Home, wait_until

STRACE = shutil.which("strace")
NETWORK = re.compile(r"\b(socket|connect|sendto|sendmsg|bind)\((?!.*AF_UNIX)(?!.*AF_NETLINK)(.*AF_\w+.*)")
"""A call that names an address family other than that of Unix sockets."""


def told(home: Home) -> str:
    """A whole compose_email, sent; its run."""
    home.play().check(5)
    (waiting,) = home.rlp("approvals", "--json").check().ndjson
    home.rlp("approve", str(waiting["approval"])).check()
    wait_until(lambda: bool(home.events("run.finished")), "the run to finish")
    home.rlp("daemon", "stop").check()
    wait_until(lambda: home.rlp("daemon", "status").code != 0, "the daemon to stop")
    (started,) = home.events("run.started")
    return str(started.run)


@contextlib.contextmanager
def wired(home: Home, *flags: str) -> Iterator[tuple[Path, Path]]:
    """A daemon behind its wires, in a network namespace of its own with nothing in it: wire and trace."""
    wire, trace = home.path / "wire", home.path / "trace"
    wire.unlink(missing_ok=True)
    isolate = (
        ["unshare", "--net"] if os.geteuid() == 0 else ["unshare", "--user", "--map-current-user", "--net"]
    )
    if subprocess.run([*isolate, "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip("this machine gives tests no network namespace")
    traced = [STRACE, "-f", "-qq", "-e", "trace=%network", "-o", str(trace)] if STRACE else []
    daemon = [
        sys.executable,
        "-m",
        "tests.e2e.tripwire_daemon",
        "--home",
        str(home.path),
        "--wire",
        str(wire),
    ]
    log = (home.path / "wired.log").open("w")
    process = subprocess.Popen(
        [*isolate, *traced, *daemon, *flags], env=home.env, cwd=ROOT, stdout=log, stderr=log
    )
    pid: int | None = None
    try:
        wait_until(lambda: home.rlp("daemon", "status").code == 0, "the wired daemon to listen")
        pid = home.pid()
        wait_until(home.agents_ready, "its agents to be compiled")
        yield wire, trace
    finally:
        # The daemon first: whoever traces it ends with it.
        os.kill(pid or process.pid, signal.SIGKILL)
        process.wait(60)


@pytest.mark.requirement("L7", "I5.replay.7")
def test_a_replay_touches_no_provider_and_no_network(home: Home) -> None:
    run = told(home)
    before, sent = len(home.events()), home.outbox()
    with wired(home) as (wire, trace):
        proof = wire.read_text().splitlines()
        assert "network: Network is unreachable" in proof, "there is a network, or the wire is not there"
        assert "socket.connect" in proof, "the wire does not tell of a connection"
        started = len(home.events())
        touched = len(wire.read_text())
        calls = len(trace.read_text()) if STRACE else 0
        if STRACE:
            assert NETWORK.search(trace.read_text()), "the trace does not tell of the daemon's own try"

        report = home.rlp("replay", run, "--json").check().json
        assert report["identical"]
        assert wire.read_text()[touched:] == ""
        if STRACE:
            assert [line for line in trace.read_text()[calls:].splitlines() if NETWORK.search(line)] == []
        assert len(home.events()) == started, "a replay states nothing"
        assert home.outbox() == sent

        # The same wires, and a run that is no replay.
        home.rlp("run", "compose_email", "-p", "recipient=john", "-p", "topic=x", "--no-input").check(5)
        live = wire.read_text()[touched:]
        assert "gate.answerer" in live
        assert "knowledge." in live
    assert before <= started


@pytest.mark.requirement("L7", "I5.replay.7")
def test_a_replay_that_asks_the_gate_trips_the_wire(home: Home) -> None:
    run = told(home)
    with wired(home, "--passthrough") as (wire, _):
        touched = len(wire.read_text())
        home.rlp("replay", run)
        assert "gate asked by a replay" in wire.read_text()[touched:]

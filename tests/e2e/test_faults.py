"""Bad luck and bad intent against a whole daemon: what must hold holds, and the user is told."""

from __future__ import annotations

import os
import resource
import signal
import socket
import subprocess
from pathlib import Path

import pytest

from runloop.events import NodeFinished, RunFinished
from tests.home import BIN, Home, alive, example_paths, wait_gone, wait_until

JOB = ("run", "compose_email", "-p", "recipient=john", "-p", "topic=Q4 plan", "--no-input")


@pytest.mark.requirement("B3", "I2.faults.2")
def test_a_second_daemon_of_the_same_home_is_refused_and_the_first_lives(home: Home) -> None:
    home.rlp("daemon", "start").check()
    first = home.pid()
    second = subprocess.run(
        [str(BIN / "runloopd"), "--home", str(home.path)],
        env=home.env,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert second.returncode == 8, second.stderr
    assert "runloopd:" in second.stderr
    assert home.pid() == first


@pytest.mark.requirement("I2.faults.6")
def test_sigterm_drains_and_a_parked_run_waits_for_the_next_daemon(home: Home) -> None:
    home.play().check(5)
    pid = home.pid()
    assert pid is not None
    os.kill(pid, signal.SIGTERM)
    wait_gone(pid)
    assert home.events("daemon.stopped")
    assert home.events("run.finished") == []
    (waiting,) = home.rlp("approvals", "--json").check().ndjson  # starts a daemon by itself
    home.rlp("approve", str(waiting["approval"])).check()
    wait_until(lambda: bool(home.events("run.finished")), "the run to finish")
    assert len(home.outbox()) == 1


@pytest.mark.requirement("L1", "I2.faults.4")
def test_on_a_full_disk_nothing_is_dispatched_and_the_user_is_told(home: Home) -> None:
    home.play().check(5)
    pid = home.pid()
    assert pid is not None
    (waiting,) = home.rlp("approvals", "--json").check().ndjson
    # No file of the daemon may grow any more: every write of the ledger fails as on a full disk.
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (1, resource.RLIM_INFINITY))
    refused = home.rlp("approve", str(waiting["approval"]))
    assert refused.code != 0
    assert "ledger" in refused.err or "disk" in refused.err or "write" in refused.err
    assert home.outbox() == []
    again = home.rlp(*JOB)
    assert again.code not in (0, 5)
    assert home.outbox() == []

    home.kill()
    home.rlp("daemon", "start").check()
    (waiting,) = home.rlp("approvals", "--json").check().ndjson
    home.rlp("approve", str(waiting["approval"])).check()
    wait_until(lambda: bool(home.events("run.finished")), "the run to finish")
    assert len(home.outbox()) == 1
    home.rlp("daemon", "stop").check()
    home.rlp("verify").check()


@pytest.mark.requirement("B4")
@pytest.mark.parametrize(
    "garbage",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"\xff" * 4096,
        b"\x7f\xff\xff\xff" + b"RMP0" * 16,
        b"\x00\x00\x00\x40" + b"\x00" * 64,
    ],
    ids=["http", "noise", "a two-gigabyte length", "a zero header"],
)
def test_broken_frames_close_that_connection_and_harm_nobody(home: Home, garbage: bytes) -> None:
    home.rlp("daemon", "start").check()
    pid = home.pid()
    with socket.socket(socket.AF_UNIX) as raw:
        raw.settimeout(30)
        raw.connect(str(home.path / "run" / "rmp.sock"))
        raw.sendall(garbage)
        while raw.recv(65536):
            pass  # until the daemon hangs up
    assert home.pid() == pid
    assert '"bus_refused"' in (home.path / "log" / "runloopd.log").read_text()


HOSTILE = {
    "loops": "def handle(task, host):\n    while True:\n        pass\n",
    "grows": "def handle(task, host):\n    all = []\n    while True:\n        all.append(bytes(1 << 20))\n",
    "recurses": "def handle(task, host):\n    return handle(task, host)\n",
    "lies": "def handle(task, host):\n    return {'out': 'x', 'other': 1}\n",
    "raises": "def handle(task, host):\n    raise SystemExit('enough')\n",
    "reaches": "def handle(task, host):\n    return {'out': open('/etc/passwd').read()}\n",
    "overreaches": (
        "def handle(task, host):\n"
        "    host.send_mail(to=['a@example.org'], subject='s', body='b')\n"
        "    return {'out': 'sent'}\n"
    ),
}

MANIFEST = """
name = "{name}"
version = "0.1.0"
language = "python"
entrypoint = "agent:handle"
description = "hostile on purpose"
ops = ["mail.send"]
caps = "policy.caps"
accepts = "intent.generic.v1"
[ports.out.out]
type = "any"
[limits]
guest_ms = 1500
memory_mb = 32
"""


def install(home: Home, name: str, code: str) -> None:
    folder = home.path / "agents" / name
    folder.mkdir(parents=True)
    (folder / "manifest.toml").write_text(MANIFEST.format(name=name))
    (folder / "policy.caps").write_text("[capabilities]\n")
    (folder / "tools.json").write_text('{"version": 1, "tools": []}\n')
    (folder / "README.md").write_text("# hostile\n")
    (folder / "agent.py").write_text(f"from runloop.agent import handler\n\n@handler\n{code}")


def opening(path: Path, *names: str) -> Path:
    nodes = "".join(f'  - {{id: {name}, use: "agent:{name}"}}\n' for name in names)
    path.write_text(f"version: 0\nname: hostile\nnodes:\n{nodes}")
    return path


@pytest.mark.requirement("I2.sandbox.9", "I2.caps.2")
def test_hostile_guests_harm_only_their_own_nodes(home: Home) -> None:
    home.env["RUNLOOP__SECURITY__ALLOW_UNSIGNED_AGENTS"] = "true"
    good = "def handle(task, host):\n    return {'out': 'fine'}\n"
    for name, code in {**HOSTILE, "good": good}.items():
        install(home, name, code)
    home.rlp("daemon", "start").check()
    pid = home.pid()
    assert pid is not None
    home.rlp("run", str(opening(home.path / "hostile.yaml", *HOSTILE, "good")), "--no-input", "--json").check(
        1
    )

    ends = {
        e.payload.node: e.payload for e in home.events("node.finished") if isinstance(e.payload, NodeFinished)
    }
    assert ends["good"].error is None
    assert {name for name, end in ends.items() if end.status == "failed"} == set(HOSTILE)
    codes = {name: end.error.code for name, end in ends.items() if end.error is not None}
    assert codes["loops"] == "guest.deadline"
    assert codes["lies"] == "guest.output"
    assert codes["overreaches"] == "cap.denied"
    assert alive(pid)
    assert home.pid() == pid
    assert home.events("cap.audit")
    assert home.outbox() == []
    (end,) = home.events("run.finished")
    assert isinstance(end.payload, RunFinished)
    assert end.payload.outcome == "failed"


def test_an_agent_nobody_vouches_for_is_refused_with_the_reason(home: Home) -> None:
    install(home, "stranger", HOSTILE["loops"])
    refused = home.rlp("run", str(opening(home.path / "o.yaml", "stranger")), "--no-input")
    assert refused.code in (2, 4)
    assert "allow_unsigned_agents" in refused.err
    assert not home.events_db.exists() or home.events("run.started") == []


@pytest.mark.requirement("I2.faults.1")
def test_mistakes_in_an_opening_are_all_told_at_once_with_line_and_column(home: Home) -> None:
    path = home.path / "wrong.yaml"
    path.write_text(
        "version: 0\nname: wrong\nnods: []\nnodes:\n"
        '  - {id: a, use: "agent:writter", retry: {max_attempts: many}}\n'
        '  - {id: b, use: "agent:critic"}\n'
        "edges:\n  - {from: a.out, to: b.inn}\n  - {from: b.review, to: a.recipients}\n"
    )
    told = home.rlp("plan", str(path)).check(2)
    for part in ("wrong.yaml:3:", "wrong.yaml:5:", "nods", "max_attempts"):
        assert part in told.err + told.out


@pytest.mark.requirement("B2", "I2.faults.5")
def test_a_run_by_another_user_is_refused_at_the_socket(home: Home) -> None:
    if os.getuid() != 0:
        pytest.skip("only root can become somebody else")
    home.rlp("daemon", "start").check()
    for folder in (home.path, home.path / "run"):
        folder.chmod(0o755)
    (home.path / "run" / "rmp.sock").chmod(0o777)
    for parent in home.path.parents:
        if parent == Path("/tmp"):
            break
        parent.chmod(0o755)
    code = (
        "import socket, os; os.setuid(65534); s = socket.socket(socket.AF_UNIX); s.settimeout(30)\n"
        f"s.connect({str(home.path / 'run' / 'rmp.sock')!r})\n"
        "data = s.recv(65536); print(data)"
    )
    told = subprocess.run(["python3", "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert "bus.uid" in told.stdout and "refused" in told.stdout, (told.stdout, told.stderr)
    assert home.rlp("daemon", "status").code == 0


def test_the_examples_import_whole(home: Home) -> None:
    shown = home.rlp("import", *map(str, example_paths()), "--json").check().json
    assert shown["problems"] == []


def test_a_right_that_is_revoked_while_a_run_waits_stops_the_mail(home: Home) -> None:
    home.play().check(5)
    (waiting,) = home.rlp("approvals", "--json").check().ndjson
    home.rlp("cap", "revoke", "mailer", "mail").check()
    home.rlp("approve", str(waiting["approval"]))
    wait_until(lambda: bool(home.events("run.finished")), "the run to finish")
    assert home.outbox() == []
    (finished,) = [
        event.payload
        for event in home.events("node.finished")
        if isinstance(event.payload, NodeFinished) and event.payload.node == "send"
    ]
    assert finished.status == "failed"


def test_an_agent_in_the_directory_one_stands_in_is_found(home: Home) -> None:
    home.env["RUNLOOP__SECURITY__ALLOW_UNSIGNED_AGENTS"] = "true"
    install(home, "near", "def handle(task, host):\n    return {'out': 'here'}\n")
    place = home.path / "somewhere"
    place.mkdir()
    (home.path / "agents").rename(place / "agents")
    opening(place / "near.yaml", "near")
    home.rlp("run", "near.yaml", "--no-input", cwd=place).check()


def test_a_host_call_the_manifest_does_not_declare_is_refused(home: Home) -> None:
    home.env["RUNLOOP__SECURITY__ALLOW_UNSIGNED_AGENTS"] = "true"
    code = "def handle(task, host):\n    host.progress('undeclared')\n    return {'out': 'x'}\n"
    install(home, "sly", code)
    home.rlp("run", str(opening(home.path / "sly.yaml", "sly")), "--no-input").check(4)
    (finished,) = [event.payload for event in home.events("node.finished")]
    assert isinstance(finished, NodeFinished)
    assert finished.error is not None
    assert finished.error.code == "cap.denied"

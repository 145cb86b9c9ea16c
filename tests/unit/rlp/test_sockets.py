"""What ``rlp doctor`` sees of the sockets that listen: real processes, as the kernel tells of them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from rlp.sockets import Listener, listening
from tests.unit.rlp.conftest import Rlp
from tests.unit.rlp.daemon_twin import DaemonTwin

LISTEN = """\
import os, socket, sys
held = []
for word in sys.argv[1:]:
    kind, _, where = word.partition(":")
    if kind == "unix":
        one = socket.socket(socket.AF_UNIX)
        path, _, mode = where.partition("=")
        one.bind(path.replace("@", chr(0)))
        if mode:
            os.chmod(path, int(mode, 8))
    elif kind == "udp":
        one = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        one.bind((where, 0))
    else:
        one = socket.socket(socket.AF_INET6 if ":" in where else socket.AF_INET)
        one.bind((where, 0))
    if kind != "udp":
        one.listen()
    held.append(one)
if "child" in os.environ:
    import subprocess
    subprocess.run([sys.executable, "-c", os.environ.pop("child"), *sys.argv[1:]])
print("listening", flush=True)
sys.stdin.read()
"""


class Started:
    """Processes that listen until the test is over."""

    def __init__(self) -> None:
        self.running: list[subprocess.Popen[str]] = []

    def __call__(self, *wanted: str, name: str = "python", **environ: str) -> int:
        """Start one that listens there; its pid."""
        process = subprocess.Popen(
            [name, "-c", LISTEN, *wanted],
            executable=sys.executable,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            # Its first word is no path: an interpreter that looks for its home there is told where it is.
            env={**os.environ, "PYTHONHOME": sys.base_prefix, **environ},
        )
        self.running.append(process)
        assert process.stdout is not None and process.stdout.readline() == "listening\n"
        return process.pid


@pytest.fixture
def started() -> Iterator[Started]:
    made = Started()
    yield made
    for process in made.running:
        process.communicate(timeout=20)


def faults(found: list[Listener]) -> list[tuple[str, str]]:
    return [(one.where.rpartition(":")[0] or one.where, one.fault) for one in found if one.fault]


REACHED = "other machines may reach it"


@pytest.mark.requirement("B1")
@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ("tcp:0.0.0.0", ("tcp 0.0.0.0", REACHED)),
        ("tcp:::", ("tcp [::]", REACHED)),
        ("udp:0.0.0.0", ("udp 0.0.0.0", REACHED)),
        (
            "unix:@elsewhere",
            ("unix @elsewhere", "it has no path, so any process on this machine may connect"),
        ),
        ("tcp:127.0.0.1", None),
        ("udp:127.0.0.1", None),
    ],
)
def test_what_listens_where_others_reach_it_is_a_fault(
    started: Started, tmp_path: Path, wanted: str, found: tuple[str, str] | None
) -> None:
    daemon = started(wanted)
    seen = listening(daemon, tmp_path / "rmp.sock", tmp_path)
    assert faults(seen) == ([] if found is None else [found])
    if not wanted.startswith("unix"):
        assert [one.holder for one in seen] == [f"python, pid {daemon}"], "loopback is told, too"


@pytest.mark.requirement("B1", "B2")
@pytest.mark.parametrize(
    ("mode", "fault"), [("600", ""), ("666", "its mode is 0666: others may connect"), ("660", "0660")]
)
def test_the_socket_of_a_home_is_told_with_who_may_connect(
    started: Started, tmp_path: Path, mode: str, fault: str
) -> None:
    path = tmp_path / "rmp.sock"
    pid = started(f"unix:{path}={mode}")
    (seen,) = listening(pid, path, tmp_path)
    assert (seen.where, seen.holder) == (f"unix {path}", f"python, pid {pid}")
    assert fault in seen.fault and bool(fault) == bool(seen.fault)
    path.unlink()
    path.write_text("")
    (seen,) = listening(pid, path, tmp_path)
    assert seen.fault == "something that is no socket stands at its path"


@pytest.mark.requirement("B1")
def test_our_programs_of_this_home_count_and_those_of_another_do_not(
    started: Started, tmp_path: Path
) -> None:
    started("tcp:0.0.0.0", name="rlp", RUNLOOP_HOME=str(tmp_path / "other"))
    started("tcp:0.0.0.0", name="cat", RUNLOOP_HOME=str(tmp_path))
    mine = started("tcp:0.0.0.0", name="/usr/bin/rlp", RUNLOOP_HOME=str(tmp_path))
    assert [one.holder for one in listening(None, tmp_path / "s", tmp_path)] == [f"rlp, pid {mine}"]


@pytest.mark.requirement("B1")
def test_what_a_daemon_started_counts_as_its_own(started: Started, tmp_path: Path) -> None:
    started("tcp:0.0.0.0")
    assert listening(os.getppid(), tmp_path / "s", tmp_path) is not None
    assert [one.fault for one in listening(os.getpid(), tmp_path / "s", tmp_path)] == [REACHED]


@pytest.mark.requirement("B1")
def test_a_socket_that_nobody_may_be_asked_about_is_told_and_others_users_are_not(tmp_path: Path) -> None:
    proc = tmp_path / "proc"
    (proc / "net").mkdir(parents=True)
    head = (
        "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
    )
    row = "   0: {where}:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000 {uid} 0 {inode}\n"
    me = os.getuid()
    (proc / "net" / "tcp").write_text(
        head
        + row.format(where="00000000", uid=me, inode=11)
        + row.format(where="0100007F", uid=me, inode=12)
        + row.format(where="00000000", uid=me + 1, inode=13)
    )
    assert listening(7, tmp_path / "s", tmp_path, proc=proc) == [], "process 7 is gone"
    (proc / "7").mkdir()  # and lets nobody look into it
    (seen,) = listening(7, tmp_path / "s", tmp_path, proc=proc)
    assert (seen.where, seen.holder) == ("tcp 0.0.0.0:8080", "")
    assert seen.fault == f"{REACHED}; nobody can tell whose it is"


@pytest.mark.requirement("B1")
def test_doctor_names_what_listens_and_is_bad_where_others_reach_it(
    daemon: DaemonTwin, rlp: Rlp, started: Started
) -> None:
    def row() -> dict[str, str]:
        return next(row for row in rlp("doctor", "--json").lines if row["name"] == "sockets")

    pid = started("tcp:127.0.0.1")
    daemon.methods["status"] = lambda: {"version": "1", "pid": pid, "layers": {}}
    assert row()["state"] == "ok" and "tcp 127.0.0.1:" in row()["found"]
    pid = started("tcp:0.0.0.0")
    assert row()["state"] == "bad" and REACHED in row()["found"] and "loopback" in row()["hint"]


def test_nothing_listens_in_a_home_that_nobody_uses(tmp_path: Path) -> None:
    shutil.rmtree(tmp_path)
    assert listening(None, tmp_path / "s", tmp_path) == []

"""Starting a daemon when none runs, alone and against each other."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from rlp import session
from rlp.commands.daemon import answers, listener
from rlp.output import Console, Style
from runloop import spawn
from runloop.config import Paths
from runloop.errors import UnreachableError
from runloop.spawn import start_daemon
from tests.unit.rlp.conftest import Done, Rlp
from tests.unit.rlp.daemon_twin import DaemonTwin

TWIN = (
    "import sys; from pathlib import Path; from tests.unit.rlp.daemon_twin import DaemonTwin\n"
    "print('up', flush=True)\n"
    "with DaemonTwin(Path(sys.argv[1])) as twin: twin._thread.join()"
)


@pytest.fixture
def startable(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """``rlp`` starts the small daemon, as a process of its own; what is left of it is ended."""
    root = str(Path(__file__).parents[3])
    monkeypatch.setenv("PYTHONPATH", root)
    monkeypatch.setattr(spawn, "command_line", lambda paths: [sys.executable, "-c", TWIN, str(paths.home)])
    yield home
    socket = home / "run" / "rmp.sock"
    if socket.exists() and answers(socket):
        os.kill(listener(socket), signal.SIGKILL)


@pytest.mark.requirement("I2.user.15")
def test_the_first_command_starts_the_daemon_and_the_second_finds_it(startable: Path, rlp: Rlp) -> None:
    assert not answers(startable / "run" / "rmp.sock")
    assert rlp("runs", "-v").err.startswith("starting the daemon")
    first = listener(startable / "run" / "rmp.sock")
    assert "starting" not in rlp("runs", "-v").err
    assert listener(startable / "run" / "rmp.sock") == first
    assert first != os.getpid()


def test_the_very_first_command_is_an_operator(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The daemon writes the credential after we looked for it and before it listens."""
    with DaemonTwin(home) as twin:
        looked = iter([None, twin.credential])
        monkeypatch.setattr(session, "read_credential", lambda paths: next(looked))
        console = Console(sys.stdout, sys.stderr, Style())
        with session.Session(console=console, environ=os.environ) as here:
            assert here.client().principal == "operator"


@pytest.mark.requirement("I2.user.15")
def test_daemon_start_waits_until_it_answers_and_stop_until_it_is_gone(startable: Path, rlp: Rlp) -> None:
    done: Done = rlp("daemon", "start", "--set", "logging.level=debug")
    assert done.code == 0
    assert "the daemon runs" in done.err
    assert rlp("daemon", "stop").code == 0
    assert not answers(startable / "run" / "rmp.sock")


def test_two_starters_end_up_with_one_daemon(startable: Path) -> None:
    from runloop.client import BlockingClient

    paths = Paths.resolve(os.environ)
    found: list[int] = []

    def start() -> None:
        client = start_daemon(paths, os.environ, lambda: BlockingClient.connect(paths.socket))
        client.close()
        found.append(listener(paths.socket))

    starters = [threading.Thread(target=start) for _ in range(2)]
    for starter in starters:
        starter.start()
    for starter in starters:
        starter.join(30)
    assert len(found) == 2
    assert len(set(found)) == 1


def test_one_that_never_answers_is_given_up_with_its_last_words(home: Path) -> None:
    paths = Paths.resolve(os.environ)
    slow: list[str] = []

    def nobody() -> None:
        raise UnreachableError("nobody", code="client.unreachable")

    with pytest.raises(UnreachableError, match=r"did not answer within 0\.3 s: half way") as caught:
        start_daemon(
            paths,
            os.environ,
            nobody,
            argv=[sys.executable, "-c", "import time; print('half way', flush=True); time.sleep(2)"],
            start_s=0.3,
            patience_s=0.0,
            on_slow=lambda: slow.append("slow"),
        )
    assert "rlp logs" in (caught.value.hint or "")
    assert slow == ["slow"]


def test_both_sides_mean_the_same_socket_wherever_it_was_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A daemon told its home would look there; ours may lie in the runtime directory."""
    monkeypatch.setenv("HOME", str(tmp_path))
    paths = Paths.resolve({"XDG_RUNTIME_DIR": str(tmp_path)})
    out = tmp_path / "said"
    code = f"import os; open({str(out)!r}, 'w').write(os.environ['RUNLOOP__RUNTIME__SOCKET_PATH'])"

    def once_said() -> str:
        if not out.exists() or not out.read_text():
            raise UnreachableError("not yet")
        return out.read_text()

    assert start_daemon(paths, {}, once_said, argv=[sys.executable, "-c", code]) == str(paths.socket)


def test_nothing_in_the_home_is_imported_by_the_daemon(tmp_path: Path) -> None:
    """The very command line, standing in the home; it only says its version, long after its imports."""
    import subprocess

    (tmp_path / "structlog.py").write_text("raise SystemExit('planted')\n")
    (tmp_path / "argparse.py").write_text("raise SystemExit('planted')\n")
    argv = [*spawn.command_line(Paths.resolve({}, home=tmp_path)), "--version"]
    scripts = [argv, [str(Path(sys.executable).with_name("runloopd")), "--version"]]
    for command in scripts:
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.startswith("runloopd ")
    environ = {**os.environ, "PYTHONPATH": str(tmp_path)}
    assert subprocess.run(argv, cwd=tmp_path, env=environ, capture_output=True).returncode == 0

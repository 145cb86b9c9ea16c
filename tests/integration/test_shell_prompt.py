"""Runloop at the prompt of real shells, each on a terminal of its own.

What is typed goes through the real ``rlp route``. Only the last step is watched instead of done: the ``rlp``
on these PATHs prints a wish that it is handed, where the installed one would do it.
"""

from __future__ import annotations

import os
import pty
import re
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

REAL = Path(sys.executable).parent / "rlp"
PATIENCE_S = 60
SHELLS = ("bash", "zsh", "fish")
_ANSI = re.compile(rb"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[()][0-9A-Z]|[=>])|\r")
_STARTS = {
    "bash": ["bash", "-i"],
    "zsh": ["zsh", "-i"],
    "fish": ["fish", "-i"],
}
_RC = {
    "bash": ("home/.bashrc", "PS1='READY '\nalias find_it='echo aliased'\n"),
    "zsh": ("home/.zshrc", "PROMPT='READY '\nalias find_it='echo aliased'\nunsetopt beep\n"),
    "fish": (
        "home/.config/fish/config.fish",
        "function fish_prompt; echo -n 'READY '; end\nset -g fish_greeting\n"
        "function find_it; echo aliased $argv; end\n",
    ),
}
_WATCHED = """#!/bin/sh
case "$1" in
--) printf 'WISH[%s]\\n' "$2" ;;
*) exec {real} "$@" ;;
esac
"""


class Terminal:
    """A shell on a pseudo terminal; leaving the block ends it."""

    def __init__(self, argv: list[str], env: dict[str, str], cwd: Path) -> None:
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.chdir(cwd)
            os.execvpe(argv[0], argv, env)
        self.seen = b""

    def type(self, text: str) -> None:
        os.write(self.fd, text.encode())

    def until(self, wanted: str) -> str:
        """Read until a text was shown; returns what was shown since the last time, without colours."""
        deadline = time.monotonic() + PATIENCE_S
        while wanted.encode() not in (shown := _ANSI.sub(b"", self.seen)):
            left = deadline - time.monotonic()
            assert left > 0, f"{wanted!r} was never shown; shown:\n{shown.decode(errors='replace')}"
            if select.select([self.fd], [], [], left)[0]:
                self.seen += os.read(self.fd, 65_536)
        end = shown.index(wanted.encode()) + len(wanted.encode())
        self.seen = shown[end:]
        return shown[:end].decode(errors="replace")

    def does(self, line: str, wanted: str, *, key: str = "\r") -> str:
        """Type a line at a fresh prompt and wait for what it leads to."""
        self.until("READY ")
        self.type(line + key)
        return self.until(wanted)

    def close(self) -> None:
        os.kill(self.pid, signal.SIGKILL)
        os.close(self.fd)
        os.waitpid(self.pid, 0)


class Desk:
    """A home with a start-up file, and a PATH on which ``rlp`` is watched."""

    def __init__(self, root: Path, shell: str) -> None:
        if shutil.which(shell) is None:
            pytest.skip(f"{shell} is not installed; apt install {shell}")
        self.root, self.shell = root, shell
        name, content = _RC[shell]
        self.rc = root / name
        self.rc.parent.mkdir(parents=True)
        self.rc.write_text(content)
        (root / "bin").mkdir()
        self.put("rlp", _WATCHED.format(real=REAL))
        home = str(root / "home")
        self.env = {
            "HOME": home,
            "PATH": f"{root / 'bin'}:/usr/bin:/bin",
            "TERM": "xterm",
            "LANG": "C.UTF-8",
            "RUNLOOP_HOME": str(root / "runloop"),
            "RUNLOOP_SHELL_MS": "20000",
        }
        (root / "work").mkdir()
        self.open: list[Terminal] = []

    def put(self, name: str, script: str) -> None:
        file = self.root / "bin" / name
        file.write_text(script)
        file.chmod(0o755)

    def rlp(self, *words: str) -> str:
        done = subprocess.run(
            [REAL, *words], env=self.env, capture_output=True, text=True, check=False, timeout=PATIENCE_S
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def terminal(self, **env: str) -> Terminal:
        terminal = Terminal(_STARTS[self.shell], {**self.env, **env}, self.root / "work")
        self.open.append(terminal)
        return terminal


@pytest.fixture(params=SHELLS)
def desk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Desk]:
    found = Desk(tmp_path, request.param)
    yield found
    for terminal in found.open:
        terminal.close()


def _sum(shell: str, a: int, b: int) -> str:
    """A word that is in the output of a line and not in the line."""
    return f"(math {a} + {b})" if shell == "fish" else f"$(({a} + {b}))"


@pytest.mark.requirement("I6.router.4")
def test_a_wish_is_done_a_shell_line_run_and_a_line_that_destroys_neither(desk: Desk) -> None:
    desk.rlp("shell", "enable", desk.shell)
    terminal = desk.terminal()
    terminal.does(f"echo three{_sum(desk.shell, 1, 2)}", "three3")
    terminal.does("find the mail from john", "WISH[find the mail from john]")
    terminal.does("find_it the mail", "aliased the mail")
    hard = """what's "new" in $HOME; `x` \\n, and (why)!?"""
    terminal.does(hard, f"WISH[{hard}]")
    terminal.does("hello", "WISH[hello]")
    loop = {
        "bash": "for f in a b\rdo echo the $f is $((4 + 4))\rdone",
        "zsh": "for f in a b\rdo echo the $f is $((4 + 4))\rdone",
        "fish": "for f in a b\recho the $f is (math 4 + 4)\rend",
    }[desk.shell]
    terminal.does(loop, "the b is 8")
    # Never the real thing: this program does not exist, and the line would say so if it were run.
    line = f"mkfs.nosuch /dev/sda; echo ran{_sum(desk.shell, 40, 2)}"
    shown = terminal.does(line, "not run: it formats the disk /dev/sda")
    assert "ran42" not in shown
    terminal.type("\x15" + f"echo four{_sum(desk.shell, 2, 2)}\r")  # the line is still there: clear it
    assert "ran42" not in terminal.until("four4")
    terminal.until("READY ")
    terminal.type(f"echo is{_sum(desk.shell, 5, 5)} the plan of the day please\x1b\r")  # Alt-Enter: as it is
    terminal.until("is10 the plan")


@pytest.mark.requirement("I6.router.4")
def test_with_a_key_of_its_own_enter_is_as_it_was(desk: Desk) -> None:
    desk.rlp("shell", "enable", desk.shell, "--key", "own")
    terminal = desk.terminal()
    terminal.does("nosuchcommand is it", "nosuchcommand")
    terminal.until("not found" if desk.shell != "fish" else "nknown command")
    terminal.does("find the mail from john", "WISH[find the mail from john]", key="\x1b\r")


@pytest.mark.requirement("I6.router.5")
def test_it_is_off_in_ci_over_ssh_on_dumb_terminals_and_when_told(desk: Desk) -> None:
    desk.rlp("shell", "enable", desk.shell)
    for env in ({"CI": "true"}, {"SSH_CONNECTION": "a b c d"}, {"RUNLOOP_SHELL": "off"}, {"TERM": "dumb"}):
        terminal = desk.terminal(**env)
        terminal.does('echo "state=[$__runloop_on]"', "state=[]")
    done = subprocess.run(
        [*_STARTS[desk.shell][:1], "-c", 'echo "state=[$__runloop_on]"'],
        env=desk.env, capture_output=True, text=True, check=True, timeout=PATIENCE_S,
    )  # fmt: skip
    assert done.stdout == "state=[]\n"


@pytest.mark.requirement("I6.router.5")
@pytest.mark.parametrize("fault", ["missing", "slow", "broken"])
def test_it_backs_off_when_rlp_is_missing_or_slow_or_broken(desk: Desk, fault: str) -> None:
    desk.rlp("shell", "enable", desk.shell)
    if fault == "missing":
        (desk.root / "bin" / "rlp").unlink()
    else:
        # As the real one when it is late (exit 12), or cannot be loaded at all.
        desk.put("rlp", f"#!/bin/sh\nexit {12 if fault == 'slow' else 1}\n")
    terminal = desk.terminal()
    for number in (1, 2, 3, 4):
        shown = terminal.does(f"echo the sum is{_sum(desk.shell, 10, number)}", f"is{10 + number}")
        assert ("does not answer" in shown) == (fault != "missing" and number == 3)

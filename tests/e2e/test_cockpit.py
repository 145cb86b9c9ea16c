"""The installed cockpit on a real terminal, against the built daemon: tmux types, tmux reads."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator

import pytest

from tests.home import BIN, Home, wait_until

pytestmark = pytest.mark.skipif(shutil.which("tmux") is None, reason="needs tmux (Debian: tmux)")

COLUMNS, ROWS = 100, 44


class Terminal:
    """A window of a tmux server of its own."""

    def __init__(self, home: Home, *command: str) -> None:
        self._socket = str(home.path / "tmux")
        ours = ("TMUX", "TMUX_PANE", "NO_COLOR", "COLUMNS", "LINES")  # what the terminal says counts
        env = {name: value for name, value in home.env.items() if name not in ours}
        env |= {"TERM": "xterm-256color", "LANG": "C.UTF-8", "TZ": "UTC"}
        shell = f"exec {shlex.join(command)}"
        self._tmux(
            "-f", "/dev/null", "new-session", "-d", "-x", str(COLUMNS), "-y", str(ROWS), shell, env=env
        )
        self._tmux("set-option", "-g", "remain-on-exit", "on")

    def _tmux(self, *args: str, env: dict[str, str] | None = None) -> str:
        done = subprocess.run(
            ["tmux", "-S", self._socket, *args],
            capture_output=True, text=True, timeout=30, check=True, env=env or dict(os.environ),
        )  # fmt: skip
        return done.stdout

    def shows(self) -> str:
        """What stands on the screen."""
        return self._tmux("capture-pane", "-p")

    def title(self) -> str:
        """What programs have made of the window's title."""
        return self._tmux("display-message", "-p", "#{pane_title}")

    def type(self, *keys: str) -> None:
        """Press keys, named as tmux names them."""
        self._tmux("send-keys", *keys)

    def paste(self, text: str) -> None:
        """Paste as a terminal does that brackets what is pasted."""
        self._tmux("set-buffer", text)
        self._tmux("paste-buffer", "-p")

    def until(self, pattern: str) -> str:
        """The screen once it shows something."""
        wait_until(lambda: re.search(pattern, self.shows()), f"{pattern!r} on the screen:\n{self.shows()}")
        return self.shows()

    def ended(self) -> bool:
        """Whether the program has left."""
        return self._tmux("display-message", "-p", "#{pane_dead}").strip() == "1"

    def close(self) -> None:
        subprocess.run(["tmux", "-S", self._socket, "kill-server"], capture_output=True, check=False)


@pytest.fixture
def cockpit(home: Home) -> Iterator[Terminal]:
    """``agtop`` beside a run whose mail waits, and one before it whose text would set the title."""
    home.play().check(5)
    terminal = Terminal(home, str(BIN / "agtop"))
    yield terminal
    terminal.close()


@pytest.mark.requirement("I7.inbox.4", "C6")
def test_a_held_mail_is_read_and_approved_by_keys_on_a_real_terminal(home: Home, cockpit: Terminal) -> None:
    before = cockpit.title()
    cockpit.until("compose_email")
    cockpit.type("6")
    cockpit.until("one thing waits for you")
    cockpit.type("y")  # in the list it is no answer
    cockpit.type("Enter", "y", "y")  # typed ahead
    shown = cockpit.until("that was all of it|read to the end")
    assert "john.carter@example.org" in shown
    cockpit.type("G")
    cockpit.until("that was all of it")
    cockpit.paste("y")
    cockpit.until("every byte, as it would leave")
    assert home.outbox() == []
    assert "Subject:" in cockpit.shows()
    cockpit.until("y approves it, once, exactly as it is")
    cockpit.type("y")
    wait_until(lambda: len(home.outbox()) == 1, "the mail to leave")
    cockpit.until(r"nothing waits for you(.|\n)*done")
    cockpit.type("5")
    cockpit.until(r"send “Q4 plan” to|mail to john.carter@example.org")
    cockpit.type("3")
    cockpit.until("draft.out.json(.|\n)*Q4 plan")
    assert cockpit.title() == before
    cockpit.type("q")
    wait_until(cockpit.ended, "the cockpit to leave")
    (decided,) = home.events("action.decided")
    assert (decided.payload.decision, decided.actor[:8]) == ("approved", "operator")  # type: ignore[attr-defined]

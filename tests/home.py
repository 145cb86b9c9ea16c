"""A user's home under test: the installed console scripts, run as a user would run them."""

from __future__ import annotations

import hashlib
import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pog.reader import Reader
from runloop.events import Event

ROOT = Path(__file__).parents[1]
BIN = Path(sys.executable).parent
EXAMPLES = ROOT / "docs" / "examples"
CACHE_KEY = hashlib.sha256(b"compiled forms of a test session").digest()
"""Authenticates what the first home of a test session compiles, so that runtimes without a home take it."""
PATIENCE_S = 60
"""Bound of every wait: generous, because CI has two busy cores; a pass never depends on it."""


@dataclass(frozen=True)
class Done:
    """What a command left behind."""

    args: tuple[str, ...]
    code: int
    out: str
    err: str

    def check(self, code: int = 0) -> Done:
        """Insist on the exit code, showing everything when it is another."""
        assert self.code == code, f"{self.args} exited {self.code}\n--- out\n{self.out}\n--- err\n{self.err}"
        return self

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def ndjson(self) -> list[Any]:
        return [json.loads(line) for line in self.out.splitlines() if line.strip()]


class Home:
    """``$RUNLOOP_HOME`` and the commands in it. Leaving the block kills the daemon that was started."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.env: dict[str, str] = {
            **{k: v for k, v in os.environ.items() if not k.startswith(("RUNLOOP", "XDG_", "COV_"))},
            "RUNLOOP_HOME": str(path),
            "RUNLOOP__SECURITY__UNDO_WINDOW_MS": "0",
            "RUNLOOP__MODELS__DETECT_OLLAMA": "false",
            "NO_COLOR": "1",
            "TERM": "xterm",
            "COLUMNS": "120",
        }

    def __enter__(self) -> Home:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    # --- agents -----------------------------------------------------------------------------------

    def write_agent(self, name: str, manifest: str, source: str, caps: str = "") -> Path:
        """Put the source of a Python agent into ``agents/``, and let unsigned ones run.

        ``caps``: the lines of its policy below ``[capabilities]``.
        """
        self.env["RUNLOOP__SECURITY__ALLOW_UNSIGNED_AGENTS"] = "true"
        folder = self.path / "agents" / name
        folder.mkdir(parents=True)
        (folder / "manifest.toml").write_text(manifest)
        (folder / "agent.py").write_text(source)
        (folder / "tools.json").write_text('{"version": 1, "tools": []}')
        (folder / "policy.caps").write_text(f"[capabilities]\n{caps}")
        for page in ("README.md", "LICENSE"):
            (folder / page).write_text("A test's own.")
        return folder

    # --- commands ---------------------------------------------------------------------------------

    def rlp(
        self,
        *args: str,
        stdin: str = "",
        timeout: float = PATIENCE_S,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> Done:
        """Run ``rlp ARGS`` without a terminal."""
        done = subprocess.run(
            [str(BIN / "rlp"), *args],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=timeout,
            env={**self.env, **(env or {})},
            cwd=cwd or self.path,
            check=False,
        )
        return Done(args, done.returncode, done.stdout, done.stderr)

    def terminal(self, *args: str, answers: Mapping[str, str], timeout: float = PATIENCE_S) -> Done:
        """Run ``rlp ARGS`` on a pseudo-terminal; type ``answers[pattern]`` once when the pattern shows up."""
        pid, fd = pty.fork()
        if pid == 0:  # pragma: no cover - the child becomes the command
            os.chdir(self.path)
            os.execve(BIN / "rlp", ["rlp", *args], self.env)
        shown, pending = "", dict(answers)
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            if not select.select([fd], [], [], 0.2)[0]:
                continue
            try:
                data = os.read(fd, 65536)
            except OSError:
                break
            if not data:
                break
            shown += data.decode(errors="replace")
            for pattern in [p for p in pending if re.search(p, shown)]:
                os.write(fd, pending.pop(pattern).encode())
        else:
            os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        os.close(fd)
        return Done(args, os.waitstatus_to_exitcode(status), shown.replace("\r\n", "\n"), "")

    def allow(self, approval: str, *more: str, cwd: Path | None = None) -> Done:
        """``rlp approve`` without a terminal, with the digest that what widens takes."""
        waiting = self.rlp("approvals", "--json").check().ndjson
        (shown,) = [one for one in waiting if one["approval"] == approval]
        return self.rlp("approve", approval, "--confirm", shown["action_digest"], *more, cwd=cwd)

    def play(self, **params: str) -> Done:
        """Import the examples and run ``compose_email`` up to the confirmation."""
        self.rlp("import", *map(str, example_paths())).check()
        wanted = {"recipient": "john", "topic": "Q4 plan", **params}
        flags = [f for k, v in wanted.items() for f in ("-p", f"{k}={v}")]
        return self.rlp("run", "compose_email", *flags, "--json", "--no-input")

    # --- the daemon -------------------------------------------------------------------------------

    def pid(self) -> int | None:
        """Process id of the daemon that answers, or None."""
        done = self.rlp("daemon", "status", "--json")
        return int(done.json["pid"]) if done.code == 0 and done.json.get("pid") else None

    def agents_ready(self) -> bool:
        """Whether the shipped agents are compiled."""
        return bool(self.rlp("daemon", "status", "--json").json.get("agents_ready"))

    def kill(self) -> None:
        """SIGKILL whatever daemon holds this home, and wait until it is gone."""
        for pid in self._holders():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
            wait_gone(pid)

    def _holders(self) -> list[int]:
        mark = str(self.path).encode()
        found = []
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            try:
                command = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if any(b"runloopd" in part for part in command) and mark in command:
                found.append(int(entry.name))
        return found

    # --- what it left behind ----------------------------------------------------------------------

    @property
    def events_db(self) -> Path:
        return self.path / "pog" / "events.db"

    def events(self, *kinds: str) -> list[Event]:
        """The ledger's events, straight from the file."""
        with Reader(self.events_db) as reader:
            return list(reader.events(kinds=kinds or None))

    def outbox(self) -> list[bytes]:
        """Every message in the outbox."""
        folder = self.path / "outbox" / "new"
        return [path.read_bytes() for path in sorted(folder.glob("*"))] if folder.exists() else []


def example_paths() -> list[Path]:
    """What a new user imports first."""
    return [EXAMPLES / "contacts.vcf", EXAMPLES / "notes", EXAMPLES / "mail"]


def wait_gone(pid: int) -> None:
    """Return once the process has ended, or fail after the bound."""
    wait_until(lambda: not alive(pid), f"process {pid} to end")


def alive(pid: int) -> bool:
    """Whether the process exists and is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait_until(holds: Any, what: str, *, patience_s: float = PATIENCE_S) -> None:
    """Poll until ``holds()`` is true; fail after the bound."""
    deadline = time.monotonic() + patience_s
    while not holds():
        assert time.monotonic() < deadline, f"waited {patience_s:g} s for {what}"
        time.sleep(0.02)

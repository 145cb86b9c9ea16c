"""What a command is given: its console, the configuration, and a way to the daemon.

Knows: when the configuration is read (once, when asked for), which credential proves the operator, when a
daemon is started. Does not know: what is asked of the daemon.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from rlp.output import Console
from runloop.config import Config, Paths, load
from runloop.credential import read_credential
from runloop.errors import UnreachableError

if TYPE_CHECKING:
    from runloop.client import BlockingClient

__all__ = ["COMPILE_S", "Session"]

PAGE = 1_000
"""Events asked for at once."""

COMPILE_S = 1_200.0
"""Seconds an answer may take that waits for a compilation: one may take 900, and a trial 120 more."""
PATIENCE_S = 2.0
"""After this the person is told what is waited for."""
ABSENT = "client.unreachable"
"""Code of the error that says nobody listens on the socket."""
LATE = "client.timeout"
"""Code of the error that says somebody listens, and did not say hello."""


class Session:
    """One command's surroundings. A context manager: leaving it closes the connection, if there was one."""

    def __init__(
        self,
        *,
        console: Console,
        environ: Mapping[str, str],
        home: str | None = None,
        stdin: TextIO | None = None,
        may_ask: bool = True,
        connect_s: float = 5.0,
        here: bool = True,
    ) -> None:
        """``here``: whether the openings and agents of the folder the program was started in count. Not for
        whoever serves others: an editor starts us in whatever somebody opened."""
        self.console = console
        self.environ = environ
        self.stdin = stdin
        self._home = home
        self._may_ask = may_ask
        self._connect_s = connect_s
        self.here = here
        self._config: Config | None = None
        self._paths: Paths | None = None
        self._client: BlockingClient | None = None

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        self.hang_up()

    def for_others(self, console: Console) -> Session:
        """A session with the same daemon and home, on behalf of somebody who is elsewhere: nobody is asked,
        and the folder this program stands in does not count."""
        return Session(console=console, environ=self.environ, home=self._home, may_ask=False, here=False)

    @property
    def json(self) -> bool:
        """Whether data leaves as JSON."""
        return self.console.style.json

    @property
    def interactive(self) -> bool:
        """Whether a person can be asked: a terminal on both sides, and nobody said otherwise."""
        return (
            self._may_ask
            and not self.json
            and self.stdin is not None
            and self.stdin.isatty()
            and self.console.err.isatty()
        )

    @property
    def home(self) -> Paths:
        """The paths without the configuration's say about the socket: enough to find the files."""
        return Paths.resolve(self.environ, home=self._home)

    @property
    def config(self) -> Config:
        """The configuration; raises :class:`runloop.config.ConfigError` with every finding."""
        if self._config is None:
            self._config = self.configured({})
            self.console.style = self.console.style._replace(theme=self._config.ui.theme)
        return self._config

    def configured(self, flags: Mapping[str, Any]) -> Config:
        """The configuration as it would be with these values on top."""
        config = load(home=self.home.home, environ=self.environ, flags=flags)
        for warning in config.warnings:
            self.console.say(f"rlp: {warning}", "yellow")
        return config

    @property
    def paths(self) -> Paths:
        """Where everything lies, the configured socket included."""
        if self._paths is None:
            configured = self.config.runtime.socket_path
            self._paths = Paths.resolve(self.environ, home=self._home, socket_path=configured)
        return self._paths

    @property
    def openings_dirs(self) -> tuple[Path, ...]:
        """Where openings are looked for on behalf of whoever this session serves."""
        return self.home.openings_dirs if self.here else self.home.settled_openings_dirs

    @property
    def agents_dirs(self) -> tuple[Path, ...]:
        """Where the ports of agents are looked up on behalf of whoever this session serves."""
        return self.home.agents_dirs if self.here else self.home.settled_agents_dirs

    # --- the daemon -------------------------------------------------------------------------------

    def client(self) -> BlockingClient:
        """A connection to the daemon, which is started if none runs."""
        if self._client is None:
            try:
                self._client = self._connect()
            except UnreachableError as error:
                if error.named_code != ABSENT:  # somebody is there, and slow
                    raise
                self._client = self.start({})
        return self._client

    def running(self) -> BlockingClient | None:
        """A connection if a daemon runs; None otherwise."""
        if self._client is None:
            try:
                self._client = self._connect()
            except UnreachableError as error:
                if error.named_code != ABSENT:
                    raise
                return None
        return self._client

    def start(self, settings: Mapping[str, str]) -> BlockingClient:
        """Start a daemon (``settings``: configuration on top of the files) and connect to it."""
        from runloop.spawn import start_daemon

        self.console.detail("starting the daemon")
        added = {f"RUNLOOP__{key.upper().replace('.', '__')}": value for key, value in settings.items()}
        self._client = start_daemon(
            self.paths,
            {**self.environ, **added},
            self._connect,
            on_slow=self._wait_a_while,
        )
        return self._client

    def ask(self, method: str, timeout_s: float = 30.0, /, **params: Any) -> Any:
        """Call a method of the daemon; raises what the daemon raised."""
        return self.client().call(method, params, timeout_s=timeout_s)

    def events(self, run: str) -> Iterator[dict[str, Any]]:
        """Every event of a run so far, in ledger order. ``run`` may be the beginning of its id."""
        after = 0
        while True:
            page = self.ask("run.events", run=run, after=after, limit=PAGE)
            yield from page["events"]
            if len(page["events"]) < PAGE:
                return
            run, after = page["run"], page["events"][-1]["id"]

    def ask_compiling(self, method: str, /, **params: Any) -> Any:
        """:meth:`ask` where an agent may have to be compiled first: whoever waits is told what for."""
        words = "rlp: still waiting; the first time, agents are compiled, which takes a while"
        telling = threading.Timer(PATIENCE_S, self.console.say, [words])
        telling.daemon = True
        telling.start()
        try:
            return self.ask(method, COMPILE_S, **params)
        finally:
            telling.cancel()

    def hang_up(self) -> None:
        """Close the connection; the next question opens a new one."""
        if self._client is not None:
            self._client.close()
            self._client = None

    def _connect(self) -> BlockingClient:
        proof = read_credential(self.paths)
        client = self._reached(proof)
        if proof is None and (proof := read_credential(self.paths)) is not None:
            # A daemon on its first start wrote the credential after we looked and before it listened.
            client.close()
            client = self._reached(proof)
        return client

    def _reached(self, proof: bytes | None) -> BlockingClient:
        from runloop import spawn
        from runloop.client import BlockingClient

        began = time.time()
        try:
            return BlockingClient.connect(self.paths.socket, proof, self._connect_s)
        except UnreachableError as error:
            if error.named_code == ABSENT or not spawn.on_its_way(self.paths.socket):
                raise
            failed = error
        if failed.named_code == LATE:
            self._wait_a_while()
            try:
                return BlockingClient.connect(self.paths.socket, proof, max(spawn.START_S, self._connect_s))
            except UnreachableError as error:
                failed = error
        nobody = spawn.nobody_there(self.paths.socket)
        if nobody and (said := spawn.service_said(self.paths.home, began)):
            failed = UnreachableError(
                f"{failed.message}; the daemon said: {said}", hint=failed.hint, code=failed.named_code
            )
        raise failed

    def _wait_a_while(self) -> None:
        self.console.say("rlp: the daemon is starting; the first start compiles for a while")

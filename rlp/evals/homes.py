"""Temporary homes: a daemon of their own, the models of whoever asks, and nothing else of theirs.

Knows: what of the configuration and the environment goes along (models and budgets), how a home is filled,
and that nothing outlives the block. Does not know: what happens in one. Mail goes to the home's outbox: no
other setting of the user's is there.
"""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
import time
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from io import StringIO
from pathlib import Path
from typing import Any

from rlp.commands.daemon import listener, lives
from rlp.evals.suite import Home
from rlp.output import Console, Style
from rlp.session import COMPILE_S, Session
from runloop import toml
from runloop.config import Paths
from runloop.errors import FailedError, RunloopError, UsageError
from runloop.exits import Exit
from runloop.spelling import did_you_mean

__all__ = ["FOUND", "Asking", "Grounds"]

FOUND = ("ollama", "llamacpp", "vllm", "lmstudio")
"""Servers that a daemon finds by itself on this machine."""
_MODELS = ("default", "detect", "detect_ollama", "privacy", "prefer", "providers")
"""Of ``[models]``; what keeps answers is left out: each task is asked anew."""
_KEPT = ("RUNLOOP__MODELS__", "RUNLOOP__BUDGETS__")
_NOT_KEPT = ("RUNLOOP__MODELS__MODE", "RUNLOOP__MODELS__CASSETTE", "RUNLOOP__MODELS__CACHE")
STOP_S = 20.0
READY_S = COMPILE_S
"""Longest wait for agents to be compiled; what is not compiled by then is when it is first needed."""


class Asking:
    """Which model is asked: of ``--provider`` and ``--model``, else as configured."""

    def __init__(self, session: Session, provider: str | None, model: str | None) -> None:
        """Raises :class:`UsageError` for a provider that nobody could ask."""
        config = session.config
        known = [*config.models.providers, "rules", *FOUND]
        if provider is not None and provider not in known:
            raise UsageError(
                f"there is no provider {provider[:60]!r}",
                hint=did_you_mean(
                    provider, known, f"one of: {', '.join(known)}; 'rlp providers' shows what answers"
                ),
                code="eval.provider",
            )
        named = provider or config.models.default
        if model is not None and named is None:
            raise UsageError(
                "--model names a model of a provider, and none is named",
                hint="add --provider, or set models.default",
                code="eval.provider",
            )
        if model is not None and named not in config.models.providers and named != "ollama":
            raise UsageError(
                f"the model of {named} cannot be chosen here",
                hint="--model works for ollama and for what stands under [models.providers]",
                code="eval.provider",
            )
        self.words = " ".join(word for word in (named, model) if word) or "as configured"
        self.none = (named == "rules") or (named is None and not config.models.providers)
        """Whether it may be that no language model is asked, and nobody wonders."""
        self.settings: dict[str, str] = {}
        """Environment on top of the file."""
        if provider is not None:
            self.settings["RUNLOOP__MODELS__DEFAULT"] = provider
            # Nobody else answers in its place; the rules may, and are told from a model.
            self.settings["RUNLOOP__MODELS__DETECT"] = provider if provider in FOUND else "none"
        if model is not None and named is not None:
            table = f"RUNLOOP__MODELS__PROVIDERS__{named.upper()}__"
            self.settings[f"{table}MODEL"] = model
            if named not in config.models.providers:
                self.settings[f"{table}KIND"] = "ollama"


class Grounds:
    """Makes homes and takes them away. ``parent`` is the session of whoever asks; only read."""

    def __init__(self, parent: Session, asking: Asking) -> None:
        self._parent = parent
        self._environ = _environ(parent.environ, asking.settings)
        self._config = _config_text(parent.home.config_file)
        self._donor = parent.home
        """The home whose compiled components are taken over; compiling takes most of a minute."""

    @contextmanager
    def opened(self, home: Home) -> Iterator[Session]:
        """A home of this kind with its daemon; both are gone afterwards."""
        path = Path(tempfile.mkdtemp(prefix="rlp-eval-"))  # 0700, and short: a socket's path is bounded
        session = Session(
            console=Console(StringIO(), StringIO(), Style(quiet=True)),
            environ={**self._environ, **_apart(path)},
            home=str(path),
            may_ask=False,
        )
        process = 0
        try:
            self._furnish(session.home)
            session.client()  # starts its daemon
            process = listener(session.paths.socket)
            self._filled(session, home)
            _ready(session)
            yield session
            if not _compiled(self._donor):
                self._donor = self._kept_compiled(session.home)
        finally:
            with suppress(RunloopError):
                session.ask("daemon.stop", drain=False)
            session.hang_up()
            _gone(process)
            shutil.rmtree(path, ignore_errors=True)

    def close(self) -> None:
        """Take away what was kept for the next home."""
        if self._donor.home != self._parent.home.home:
            shutil.rmtree(self._donor.home, ignore_errors=True)

    def _furnish(self, paths: Paths) -> None:
        paths.config_file.write_text(self._config, encoding="utf-8")
        if _compiled(self._donor):
            _lend(self._donor, paths)

    def _kept_compiled(self, paths: Paths) -> Paths:
        kept = Paths.resolve({}, home=tempfile.mkdtemp(prefix="rlp-eval-"))
        _lend(paths, kept)
        return kept

    def _filled(self, session: Session, home: Home) -> None:
        from rlp.commands.import_ import import_

        if not home.imports:
            return
        code = import_(session, paths=tuple(str(path) for path in home.imports))
        if code is not Exit.OK:
            said = session.console.err
            raise FailedError(
                f"the home {home.name} of the suite could not be filled: "
                f"{said.getvalue().strip()[-400:] if isinstance(said, StringIO) else ''}",
                hint="'rlp import --dry-run' says the same of its files",
                code="eval.home",
            )


def _environ(environ: Mapping[str, str], settings: Mapping[str, str]) -> dict[str, str]:
    """The environment of a temporary home: what names a key stays, other settings of Runloop do not."""
    plain = {
        name: value
        for name, value in environ.items()
        if not name.startswith("RUNLOOP") or (name.startswith(_KEPT) and not name.startswith(_NOT_KEPT))
    }
    return {**plain, **settings}


def _apart(path: Path) -> dict[str, str]:
    """What keeps a home to itself, whatever the configuration of the whole machine says."""
    return {
        "RUNLOOP_HOME": str(path),
        "RUNLOOP__RUNTIME__SOCKET_PATH": str(path / "run" / "rmp.sock"),
        "RUNLOOP__MAIL__PROVIDER": "outbox",
        # Nobody waits for a mail that goes to a folder which is about to vanish.
        "RUNLOOP__SECURITY__UNDO_WINDOW_MS": "0",
    }


def _config_text(path: Path) -> str:
    """The models and budgets of a configuration that was found to be fine."""
    try:
        told = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        told = {}
    kept: dict[str, Any] = {}
    if models := {name: value for name, value in (told.get("models") or {}).items() if name in _MODELS}:
        kept["models"] = models
    if budgets := told.get("budgets"):
        kept["budgets"] = budgets
    return "".join(f"{name} = {toml.value(value)}\n" for name, value in kept.items())


def _compiled(paths: Paths) -> bool:
    return (paths.keys_dir / "cache.key").is_file() and any(paths.cache_dir.glob("*"))


def _lend(donor: Paths, paths: Paths) -> None:
    """Compiled components and the key that vouches for them, and no other key."""
    paths.keys_dir.mkdir(mode=0o700, exist_ok=True)
    shutil.copy2(donor.keys_dir / "cache.key", paths.keys_dir / "cache.key")

    def link(source: str, target: str) -> str:
        try:
            os.link(source, target)
        except OSError:  # another file system
            shutil.copy2(source, target)
        return target

    shutil.copytree(donor.cache_dir, paths.cache_dir, copy_function=link, dirs_exist_ok=True)
    paths.cache_dir.chmod(0o700)


def _ready(session: Session) -> None:
    """Wait until the agents are compiled: that is no part of what a task takes."""
    deadline = time.monotonic() + READY_S
    while not session.ask("status").get("agents_ready") and time.monotonic() < deadline:
        time.sleep(0.05)


def _gone(process: int) -> None:
    """Wait for a daemon of ours to end; one that does not is ended."""
    deadline = time.monotonic() + STOP_S
    while process and lives(process):
        if time.monotonic() >= deadline:
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
            return
        time.sleep(0.02)

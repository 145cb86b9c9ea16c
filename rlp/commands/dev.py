"""``rlp dev``: build, sign and serve an agent again whenever its source changes.

Knows: that a broken build changes nothing, that what runs is named by its digest, and what to say. Does not
know: how an agent is built (``authoring``), or who may serve what: the daemon takes a new build in place of
the last one without a question only when it was signed by the same development key and may do no more.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from rlp import install as installing
from rlp.commands import authoring
from rlp.session import Session
from runloop.errors import RunloopError
from runloop.exits import Exit

__all__ = ["dev"]

_IGNORED = frozenset({"__pycache__", ".git", "target", "node_modules", "zig-cache", ".zig-cache"})
_QUIET_MS = 120
"""How long the files must rest before a build: editors write in several steps."""
_IDLE_MS = 400
"""How often it looks up when nothing changes; the first time tells that the watch is set."""


def dev(session: Session, *, source: str | None, once: bool) -> Exit:
    """Serve the agent in ``source`` (a folder, or a config agent's file) as it is being written."""
    path = Path(source or ".").resolve()
    serving = _Serving(session, path)
    if once:
        return serving.round()
    session.console.say(f"watching {path}; Ctrl-C ends it, and leaves the last good build installed")
    for _ in _changes(path):
        serving.round()
    return Exit.OK


def _changes(path: Path) -> Iterator[None]:
    """Once when it watches, so that no save is missed, then after each burst of changes, until stopped."""
    from watchfiles import watch

    def counts(_: object, changed: str) -> bool:
        parts = Path(changed).parts
        return not _IGNORED.intersection(parts) and not parts[-1].endswith((".rlb", "~", ".swp"))

    folder = path if path.is_dir() else path.parent
    watched = watch(
        folder,
        watch_filter=counts,
        step=_QUIET_MS,
        rust_timeout=_IDLE_MS,
        yield_on_timeout=True,
        raise_interrupt=True,
    )
    with suppress(KeyboardInterrupt):  # of the watching; one that meets a build ends that first
        for number, changes in enumerate(watched):
            if number == 0 or any(path.is_dir() or Path(changed) == path for _, changed in changes):
                yield


class _Serving:
    """What serves at present, and one round after another to replace it."""

    def __init__(self, session: Session, path: Path) -> None:
        self._session = session
        self._path = path
        self._name = path.name
        self._bundle: str | None = None
        self._broken = False
        """The last round ended in a mistake, so that its mending is worth a word."""

    def round(self) -> Exit:
        """Build, sign, hand over. Whatever goes wrong, the last good build goes on serving."""
        began = time.monotonic()
        try:
            return self._replace(began)
        except RunloopError as error:
            self._broken = True
            self._tell("broken", error=error.to_wire(), words=error.message, hint=error.hint)
            return error.exit

    def _replace(self, began: float) -> Exit:
        made, data = authoring.bundle_of(self._session, self._path, dev=True)
        self._name = f"{made.manifest.name} {made.manifest.version}"
        upload = installing.hand_over(self._session, data)
        asked = self._session.ask_compiling("agents.install", upload=upload, dev_key=True, dev_swap=True)
        took_ms = round((time.monotonic() - began) * 1000)  # a person who is asked may take longer
        if asked["state"] == "waiting":
            code = installing.follow(self._session, asked, f"{asked['how']} of {self._name}")
            if code is not Exit.OK:
                if self._bundle and not self._session.json:
                    self._session.console.say(f"  until then {self._last()}", "yellow")
                return code
        same = asked["state"] == "current" and self._bundle == asked["bundle"] and not self._broken
        self._bundle, self._broken = asked["bundle"], False
        if not same:
            self._tell("serving", ms=took_ms)
        return Exit.OK

    def _tell(self, state: str, **facts: Any) -> None:
        console = self._session.console
        if self._session.json:
            shown = {key: value for key, value in facts.items() if key not in ("words", "hint")}
            console.json({"state": state, "agent": self._name, "bundle": self._bundle, **shown})
            return
        if state == "serving":
            console.say(
                f"serving {self._name}, bundle {self._short()} (dev), after {facts['ms']} ms", "green"
            )
            return
        console.say(f"broken: {facts['words']}", "red")
        if facts["hint"]:
            console.say(f"  {facts['hint']}")
        console.say(f"  {self._last()}", "yellow")

    def _last(self) -> str:
        return f"{self._short()} goes on serving" if self._bundle else "no build of it serves from here yet"

    def _short(self) -> str:
        return (self._bundle or "")[:16]

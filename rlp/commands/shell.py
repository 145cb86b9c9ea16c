"""``rlp shell enable|disable|status``: Runloop at the prompt of bash, zsh and fish. Needs no daemon.

The shell's part is a script of its own (``packaging/shell``), copied into the home of Runloop; its start-up
file gets one marked block that reads the copy. Taking the block out leaves the file as it was, byte for byte.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

from rlp import rcfile
from rlp.session import Session
from runloop.config import shipped
from runloop.errors import RefusedError, RunloopError, UsageError
from runloop.exits import Exit
from runloop.spelling import did_you_mean

__all__ = ["disable", "enable", "status"]

SHELLS = ("bash", "zsh", "fish")
_KEYS = {"enter": "enter", "own": "own", "alt-enter": "own"}


class _Place(NamedTuple):
    """Where things of one shell lie."""

    shell: str
    rc: Path
    """The shell's start-up file."""
    script: Path
    """Our copy of the script."""

    def lines(self, key: str) -> bytes:
        """What stands in the block. Total: a missing script is passed over in silence."""
        quoted = _quoted(str(self.script), fish=self.shell == "fish")
        if self.shell == "fish":
            text = f"set -g RUNLOOP_SHELL_KEY {key}; test -r {quoted}; and source {quoted}\n"
        else:
            text = f"RUNLOOP_SHELL_KEY={key}; if [ -r {quoted} ]; then . {quoted}; fi\n"
        return os.fsencode(text)


def enable(session: Session, *, shell: str | None, key: str) -> Exit:
    """Put the block in; again is no change."""
    place = _place(session, shell)
    if key not in _KEYS:
        raise UsageError(f"there is no key '{key}'", hint="enter or own", code="cli.option")
    script = (shipped("shell") / place.script.name).read_bytes()
    rcfile.block_of(place.rc)  # a damaged file is found before anything is written
    place.script.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    _keep(place.script, script)
    changed = rcfile.put(place.rc, place.lines(_KEYS[key]))
    word = "enabled" if changed else "was enabled already"
    session.console.say(f"rlp: {place.shell} {word}; open a new one, or type: {_reload(place)}")
    return _show(session, [place])


def disable(session: Session, *, shell: str | None) -> Exit:
    """Take the block out; a file without one stays as it is."""
    place = _place(session, shell)
    changed = rcfile.take(place.rc)
    place.script.unlink(missing_ok=True)
    if place.script.parent.is_dir() and not any(place.script.parent.iterdir()):
        place.script.parent.rmdir()
    word = "is as it was; shells that are open keep it until they are closed" if changed else "had no block"
    session.console.say(f"rlp: {place.rc} {word}")
    return _show(session, [place])


def status(session: Session, *, shell: str | None) -> Exit:
    """Say for each shell whether it is enabled, and whether the script is this version's."""
    names = SHELLS if shell is None else (_named(session, shell),)
    return _show(session, [_place(session, name) for name in names])


def _show(session: Session, places: list[_Place]) -> Exit:
    rows = [_state(place) for place in places]
    if session.json:
        for row in rows:
            session.console.json(row)
        return Exit.OK
    for row in rows:
        line = f"{row['shell']:<6}{row['state']:<10}{row['key'] or '-':<7}{row['file']}"
        session.console.data(line if row["hint"] is None else f"{line}  ({row['hint']})")
    return Exit.OK


def _state(place: _Place) -> dict[str, str | None]:
    """One row: ``state`` is off, on, stale (an older script), broken (no script) or damaged (the marks)."""
    row: dict[str, str | None] = {"shell": place.shell, "file": str(place.rc), "key": None, "hint": None}
    try:
        block = rcfile.block_of(place.rc)
    except RunloopError as error:
        return {**row, "state": "damaged", "hint": error.hint}
    if block is None:
        return {**row, "state": "off"}
    again = f"rlp shell enable {place.shell}"
    row["key"] = next((key for key in ("enter", "own") if block == place.lines(key)), None)
    try:
        kept = place.script.read_bytes()
    except OSError:
        return {**row, "state": "broken", "hint": again}
    fresh = row["key"] is not None and kept == (shipped("shell") / place.script.name).read_bytes()
    return {**row, "state": "on"} if fresh else {**row, "state": "stale", "hint": again}


def _place(session: Session, shell: str | None) -> _Place:
    name = _named(session, shell)
    environ = session.environ
    home = Path(environ.get("HOME") or Path.home())
    rc = {
        "bash": home / ".bashrc",
        "zsh": Path(environ.get("ZDOTDIR") or home) / ".zshrc",
        "fish": Path(environ.get("XDG_CONFIG_HOME") or home / ".config") / "fish" / "config.fish",
    }[name]
    return _Place(name, rc, session.home.home / "shell" / f"runloop.{name}")


def _named(session: Session, shell: str | None) -> str:
    name = shell or Path(session.environ.get("SHELL", "")).name
    if name not in SHELLS:
        raise UsageError(
            f"'{name}' is no shell that Runloop knows" if name else "which shell is not known here",
            hint=did_you_mean(name, SHELLS, "name it: 'rlp shell enable bash', or zsh, or fish"),
            code="shell.unknown",
        )
    return name


def _keep(script: Path, content: bytes) -> None:
    fresh = script.with_name(f".{script.name}.{os.getpid()}")
    try:
        fresh.write_bytes(content)
        fresh.replace(script)
    except OSError as error:
        fresh.unlink(missing_ok=True)
        raise RefusedError(
            f"{script} cannot be written: {error.strerror}",
            hint="check the rights of its folder",
            code="shell.file",
        ) from error


def _reload(place: _Place) -> str:
    return f"source {place.rc}" if place.shell == "fish" else f". {place.rc}"


def _quoted(text: str, *, fish: bool) -> str:
    """A path as one word of a shell."""
    if fish:
        return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
    return "'" + text.replace("'", "'\\''") + "'"

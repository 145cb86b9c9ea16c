"""``rlp shell completion``: the script behind the Tab key, printed or put where the shell finds it by itself.

Knows: where each shell looks for such scripts in a user's home. Does not know: what is in them
(``packaging/shell``). Needs no daemon; changes no start-up file.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from rlp.session import Session
from runloop.config import shipped
from runloop.errors import RefusedError, UsageError
from runloop.exits import Exit
from runloop.spelling import did_you_mean

__all__ = ["completion"]

SHELLS = ("bash", "zsh", "fish")


def completion(session: Session, *, shell: str | None, install: bool) -> Exit:
    """Print the script of a shell; ``install``: write it to where the shell looks."""
    name = shell or Path(session.environ.get("SHELL", "")).name
    if name not in SHELLS:
        raise UsageError(
            f"'{name}' is no shell that Runloop knows" if name else "which shell is not known here",
            hint=did_you_mean(name, SHELLS, "name it: 'rlp shell completion bash', or zsh, or fish"),
            code="shell.unknown",
        )
    source = shipped("shell") / f"completion.{name}"
    if not install:
        if session.json:
            session.console.json({"shell": name, "script": source.read_text(encoding="utf-8")})
        else:
            sys.stdout.write(source.read_text(encoding="utf-8"))  # ours, as it is in the package
        return Exit.OK
    place = _place(session, name)
    try:
        changed = _put(place, source.read_bytes())
    except OSError as error:
        raise RefusedError(
            f"{place} cannot be written: {error.strerror}",
            hint=f"'rlp shell completion {name}' prints it, for a file elsewhere",
            code="shell.file",
        ) from error
    if session.json:
        session.console.json({"shell": name, "file": str(place), "changed": changed})
        return Exit.OK
    session.console.data(str(place))
    session.console.say(f"rlp: {'written' if changed else 'was there already'}; {_then(name, place)}")
    return Exit.OK


def _place(session: Session, shell: str) -> Path:
    """Where a shell looks for completions of one user."""
    environ = session.environ
    home = Path(environ.get("HOME") or Path.home())
    data = Path(environ.get("XDG_DATA_HOME") or home / ".local" / "share")
    if shell == "bash":
        user = environ.get("BASH_COMPLETION_USER_DIR")
        return (Path(user) if user else data / "bash-completion") / "completions" / "rlp"
    if shell == "fish":
        return Path(environ.get("XDG_CONFIG_HOME") or home / ".config") / "fish" / "completions" / "rlp.fish"
    return data / "zsh" / "site-functions" / "_rlp"


def _then(shell: str, place: Path) -> str:
    """What is to be done so that it counts."""
    if shell == "fish":
        return "every new fish has it"
    if shell == "zsh":
        return f"before compinit, your .zshrc needs: fpath=('{place.parent}' $fpath)"
    return f"a new bash with bash-completion has it; without, your .bashrc needs: . '{place}'"


def _put(place: Path, content: bytes) -> bool:
    """Whole or not at all; False when it was the same before."""
    if place.is_file() and place.read_bytes() == content:
        return False
    place.parent.mkdir(parents=True, exist_ok=True)
    fresh = place.with_name(f".{place.name}.{os.getpid()}")
    try:
        fresh.write_bytes(content)
        fresh.replace(place)
    except OSError:
        fresh.unlink(missing_ok=True)
        raise
    return True

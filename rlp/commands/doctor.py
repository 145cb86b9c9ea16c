"""``rlp doctor``: look at everything that must be right before anything works. Needs no daemon; changes
nothing."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

from rlp.output import size
from rlp.session import Session, read_key
from runloop.config import shipped
from runloop.errors import RunloopError
from runloop.exits import Exit

__all__ = ["Check", "doctor"]

FREE_BYTES = 200 * 1024 * 1024
"""Below this the ledger may soon refuse to write, and then nothing is dispatched."""
WASMTIME = (50, 0, 1)
"""Oldest engine without known holes; its major version is the only one that fits."""


class Check(NamedTuple):
    """One thing that was looked at."""

    name: str
    state: Literal["ok", "warning", "bad"]
    found: str
    hint: str = ""


def doctor(session: Session) -> Exit:
    """Run every check; exit 1 when one is bad."""
    checks = list(_all(session))
    if session.json:
        for check in checks:
            session.console.json(check._asdict())
    else:
        colors = {"ok": "green", "warning": "yellow", "bad": "red"}
        for check in checks:
            session.console.data(f"{check.state:<8} {check.name:<10} {check.found}", colors[check.state])
            if check.hint and check.state != "ok":
                session.console.data(f"{'':<8} {'':<10} {check.hint}")
    bad = sum(check.state == "bad" for check in checks)
    if bad:
        session.console.note(
            f"rlp: {bad} of {len(checks)} checks are bad; the lines above say what to do", "red"
        )
    return Exit.FAILED if bad else Exit.OK


def _all(session: Session) -> Iterator[Check]:
    checks: list[tuple[str, Callable[[Session], Check]]] = [
        ("python", _python),
        ("config", _config),
        ("home", _home),
        ("keys", _keys),
        ("disk", _disk),
        ("sqlite", _sqlite),
        ("wasm", _wasm),
        ("shipped", _shipped),
        ("ledger", _ledger),
        ("daemon", _daemon),
    ]
    for name, check in checks:
        try:
            yield check(session)
        except RunloopError as error:
            yield Check(name, "bad", error.message, error.hint or "")
        except OSError as error:
            yield Check(name, "bad", str(error))


def _python(session: Session) -> Check:
    version = ".".join(map(str, sys.version_info[:3]))
    good = sys.version_info >= (3, 11) and sys.platform == "linux"
    return Check(
        "python", "ok" if good else "bad", f"{version} on {sys.platform}", "Python 3.11 or later on Linux"
    )


def _config(session: Session) -> Check:
    config = session.config
    if config.warnings:
        return Check("config", "warning", f"{len(config.warnings)} values ignored", config.warnings[0])
    file = session.paths.config_file
    return Check("config", "ok", str(file) if file.exists() else "defaults")


def _home(session: Session) -> Check:
    home = session.home.home
    if not home.exists():
        return Check("home", "ok", f"{home} does not exist yet; the first command makes it")
    found = home.stat()
    if found.st_uid != os.getuid():
        return Check("home", "bad", f"{home} belongs to user {found.st_uid}", "choose another with --home")
    if found.st_mode & 0o022:
        return Check("home", "bad", f"others may write in {home}", f"chmod go-w {home}")
    return Check("home", "ok", str(home))


def _keys(session: Session) -> Check:
    keys = session.home.keys_dir
    if not keys.exists():
        return Check("keys", "ok", "none yet; the daemon makes them at its first start")
    if keys.stat().st_mode & 0o077:
        return Check("keys", "bad", f"{keys} is open to others", f"chmod 700 {keys}")
    for file in sorted(keys.glob("*.key")):
        read_key(file)
    return Check("keys", "ok", str(keys))


def _disk(session: Session) -> Check:
    place = session.home.home
    while not place.exists():
        place = place.parent
    found = os.statvfs(place)
    free = found.f_bavail * found.f_frsize
    state: Literal["ok", "warning"] = "ok" if free >= FREE_BYTES else "warning"
    return Check(
        "disk", state, f"{size(free)} free", "with a full disk nothing is dispatched; free some space"
    )


def _sqlite(session: Session) -> Check:
    import sqlite3

    with sqlite3.connect(":memory:") as connection:
        options = {row[0] for row in connection.execute("PRAGMA compile_options")}
    missing = [] if "ENABLE_FTS5" in options else ["FTS5"]
    if sqlite3.sqlite_version_info < (3, 37):  # STRICT tables
        missing.append("STRICT tables (3.37)")
    if missing:
        return Check(
            "sqlite", "bad", f"{sqlite3.sqlite_version} without {', '.join(missing)}", "use another Python"
        )
    return Check("sqlite", "ok", sqlite3.sqlite_version)


def _wasm(session: Session) -> Check:
    from importlib.metadata import PackageNotFoundError, version

    try:
        found = version("wasmtime")
    except PackageNotFoundError:
        return Check("wasm", "bad", "wasmtime is not installed", "install runloop again")
    numbers = tuple(int(part) for part in found.split(".")[:3] if part.isdigit())
    good = WASMTIME <= numbers < (WASMTIME[0] + 1,)
    wanted = ".".join(map(str, WASMTIME))
    return Check(
        "wasm",
        "ok" if good else "bad",
        f"wasmtime {found}",
        f"this build needs {wanted} or a later {WASMTIME[0]}",
    )


def _shipped(session: Session) -> Check:
    agents = sum((place / "manifest.toml").exists() for place in shipped("agents").iterdir())
    openings = len(list(shipped("openings").glob("*.yaml")))
    runner = [place for place in shipped("runner").iterdir() if place.name.startswith("runner.wasm")]
    if not runner:
        return Check("shipped", "bad", f"no runner component in {shipped('runner')}", "install runloop again")
    return Check(
        "shipped", "ok", f"{agents} agents, {openings} openings, runner {size(runner[0].stat().st_size)}"
    )


def _ledger(session: Session) -> Check:
    path: Path = session.home.events_db
    if not path.exists():
        return Check("ledger", "ok", "none yet")
    from pog.reader import Reader

    with Reader(path) as reader:
        head = reader.head_id()
    held = sum(file.stat().st_size for file in path.parent.glob("events.db*"))
    return Check("ledger", "ok", f"{head} events, {size(held)}; 'rlp verify' checks every one")


def _daemon(session: Session) -> Check:
    client = session.running()
    if client is None:
        return Check("daemon", "ok", "not running; it is started when needed")
    found: dict[str, Any] = session.ask("status")
    version, pid = found.get("version"), found.get("pid")
    return Check("daemon", "ok", f"version {version}, pid {pid}, {session.paths.socket}")

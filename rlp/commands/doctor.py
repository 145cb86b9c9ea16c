"""``rlp doctor``: look at everything that must be right before anything works. Needs no daemon; changes
nothing."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

from rlp import catalog
from rlp.session import Session
from runloop.bundle.runner import RUNNERS
from runloop.config import SYSTEM_HOME, shipped
from runloop.credential import read_key
from runloop.errors import RunloopError
from runloop.escape import visible
from runloop.exits import Exit
from runloop.quantities import size

__all__ = ["Check", "doctor"]

FREE_BYTES = 200 * 1024 * 1024
"""Below this the ledger may soon refuse to write, and then nothing is dispatched."""
MAX_REFUSED = 5
"""Agents that are named one by one when they are refused."""
WASMTIME = (50, 0, 1)
"""Oldest engine without known holes; its major version is the only one that fits."""


_UNIT_FORBIDS = frozenset({"network_namespace", "ipc_namespace"})
"""Layers of a guest that runloop.service takes away, and what they fence off its filters refuse."""


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
        ("sockets", _sockets),
        ("sandbox", _sandbox),
        ("programs", _programs),
        ("limits", _limits),
        ("trust", _trust),
        ("unsigned", _unsigned),
        ("agents", _agents),
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
    said = [str(file)] if file.exists() else []
    rules = [origin.where for origin in config.origins.values() if origin.layer == "system"]
    said += [f"{len(rules)} set by {rules[0].partition(':')[0]}"] if rules else []
    return Check("config", "ok", "; ".join(said) or "defaults")


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
    from runloop.bundle import keyfile

    keys = session.home.keys_dir
    if not keys.exists():
        return Check("keys", "ok", "none yet; the daemon makes them at its first start")
    if keys.stat().st_mode & 0o077:
        return Check("keys", "bad", f"{keys} is open to others", f"chmod 700 {keys}")
    for file in sorted(keys.glob("*.key")):
        if file.name == keyfile.DEV_KEY:
            keyfile.read_key(file)  # an author's, in PEM; the others are the daemon's own
        else:
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
    texts = (file for file in shipped("openings").iterdir() if file.suffix in (".yaml", ".opening"))
    openings = len(list(texts))
    runners = {}
    for language, place in RUNNERS.items():
        packed = shipped(place) / "runner.wasm.xz"
        if not packed.is_file():
            return Check("shipped", "bad", f"no runner component in {packed.parent}", "install runloop again")
        runners[language] = size(packed.stat().st_size)
    sizes = ", ".join(f"{language} runner {bytes}" for language, bytes in runners.items())
    return Check("shipped", "ok", f"{agents} agents, {openings} openings, {sizes}")


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
    if held := found.get("agents_held"):
        return Check(
            "daemon", "warning", f"pid {pid}; quarantined: {', '.join(held)}", "'rlp agent held' tells why"
        )
    speed = f"{found.get('loop')} loop, {found.get('bus_step')} bus"
    return Check("daemon", "ok", f"version {version}, pid {pid}, {session.paths.socket}, {speed}")


def _sockets(session: Session) -> Check:
    """Who else could talk to what runs here."""
    from rlp.sockets import listening

    client = session.running()
    daemon = None if client is None else int(session.ask("status")["pid"])
    found = listening(daemon, session.paths.socket, session.home.home)
    wrong = [one for one in found if one.fault]
    if wrong:
        told = "; ".join(_told(one.where, one.holder, one.fault) for one in wrong[:MAX_REFUSED])
        more = f"; and {len(wrong) - MAX_REFUSED} more" if len(wrong) > MAX_REFUSED else ""
        known = any(one.holder for one in wrong)
        hint = "stop what listens there, or bind it to loopback; the daemon itself needs none of it"
        return Check("sockets", "bad" if known else "warning", told + more, hint)
    told = ", ".join(_told(one.where, one.holder) for one in found)
    return Check("sockets", "ok", told or "nothing listens")


def _told(where: str, holder: str, fault: str = "") -> str:
    words = f"{where} ({holder})" if holder else where
    return visible(f"{words}: {fault}" if fault else words)


def _sandbox(session: Session) -> Check:
    """What holds every guest; the daemon tried each layer on a process of its own when it started."""
    if session.running() is None:
        return Check("sandbox", "ok", "tried by the daemon at each start; it starts nothing without")
    layers: dict[str, bool] = session.ask("status")["layers"]
    absent = [name for name, holds in layers.items() if not holds]
    if absent and _is_service(session) and set(absent) <= _UNIT_FORBIDS:
        held = ", ".join(name for name, holds in layers.items() if holds)
        return Check("sandbox", "ok", f"{held}; the service's unit allows no namespaces of its own")
    if absent:
        found = f"{len(layers) - len(absent)} of {len(layers)} layers hold; not {', '.join(absent)}"
        return Check("sandbox", "warning", found, "the others hold without; a newer kernel may offer it")
    return Check("sandbox", "ok", f"{len(layers)} layers hold: {', '.join(layers)}")


def _programs(session: Session) -> Check:
    """What holds the programs that agents run: every layer is required, and none of them runs without."""
    found: list[dict[str, Any]] | None = None
    if session.running() is not None:
        found = session.ask("status").get("programs")
    if found is None:
        return Check("programs", "ok", "the daemon tries what holds them; none is run without")
    words = ", ".join(f"{layer['name']} ({layer['found']})" for layer in found if layer["holds"])
    absent = [f"{layer['name']}: {layer['found']}" for layer in found if not layer["holds"]]
    if absent and _is_service(session):
        return Check(
            "programs",
            "ok",
            "none is run: the service's unit allows no namespaces; in a user's own daemon they run",
        )
    if absent:
        return Check(
            "programs",
            "warning",
            f"no program is run: {'; '.join(absent)}",
            _missing(session.config.security.sandbox),
        )
    return Check("programs", "ok", f"held by {words}")


def _limits(session: Session) -> Check:
    """What bounds the memory and the processes of runs: control groups, or each process by itself."""
    if session.running() is None:
        return Check("limits", "ok", "the daemon looks for control groups at its start")
    found: dict[str, Any] = session.ask("status").get("groups") or {"hold": False, "why": "it does not say"}
    fallback = "resource limits of each process, and counting"
    if not found["hold"]:
        words = f"{fallback}; no control groups: {visible(str(found['why']))}"
        return Check("limits", "ok", words)
    controllers = found["controllers"]
    lacking = [name for name in ("memory", "pids", "cpu") if name not in controllers]
    if lacking:
        return Check(
            "limits",
            "warning",
            f"{fallback}; control groups end what a run leaves, and do not bound {', '.join(lacking)}",
            "this machine's kernel or its service manager did not hand these controllers over",
        )
    return Check("limits", "ok", f"a control group for each run, with {', '.join(controllers)}")


def _is_service(session: Session) -> bool:
    """Whether this is the system's daemon, hardened as its unit says (packaging/deb)."""
    return session.home.home == SYSTEM_HOME


def _missing(sandbox: str) -> str:
    if sandbox == "container":
        return (
            "all are required: podman or a rootless docker, and security.sandbox_image by digest, there"
            ' already; or security.sandbox = "bubblewrap"'
        )
    return "all are required: install bubblewrap, on a kernel with user namespaces, seccomp and Landlock"


def _trust(session: Session) -> Check:
    from runloop.bundle.trust import parse_trust

    file = session.home.trust_file
    if not file.exists():
        return Check("trust", "ok", "no publisher is trusted; 'rlp trust add' changes that")
    if file.stat().st_mode & 0o022:
        return Check("trust", "bad", f"others may write {file}", f"chmod go-w {file}")
    found = parse_trust(file.read_bytes(), origin=str(file))
    names = ", ".join(found.anchors) or "nobody"
    return Check("trust", "ok", f"{names}; {len(found.revoked)} revoked")


def _unsigned(session: Session) -> Check:
    origin = session.config.origins["security.allow_unsigned_agents"]
    if not session.config.security.allow_unsigned_agents:
        return Check("unsigned", "ok", "agents nobody vouches for are refused")
    return Check(
        "unsigned",
        "warning",
        f"security.allow_unsigned_agents is on ({origin.where}): any folder of agents is run",
        "turn it off again when you are done trying things out",
    )


def _agents(session: Session) -> Check:
    """What is here and is not started or cannot be, and what nobody but this home vouches for."""
    idle: dict[str, str] = {}
    if session.running() is not None:
        rows: list[dict[str, Any]] = session.ask("agents.refused")["refused"]
        refused = [(str(row["place"]), str(row["reason"])) for row in rows]
        idle = session.ask("status").get("agents_unprepared") or {}
    else:
        found = catalog.manifests(session)
        refused = [(str(path), it.message) for path, it in found if isinstance(it, RunloopError)]
    dev = sorted({one.name for one in catalog.installed(session) if one.dev})
    said = [f"{len(idle)} could not be made ready to run"] if idle else []
    said += [f"{name}: {why}" for name, why in sorted(idle.items())[:MAX_REFUSED]]
    said += [f"{len(refused)} refused"] if refused else []
    said += [f"{place}: {reason}" for place, reason in refused[:MAX_REFUSED]]
    said += [f"dev: {', '.join(dev)}"] if dev else []
    if idle:
        return Check("agents", "bad", "; ".join(said), "'rlp logs' says more; the next run of it tries again")
    if said:
        return Check("agents", "warning", "; ".join(said), "'rlp agent list' names each")
    return Check("agents", "ok", "every agent that is here can be started")

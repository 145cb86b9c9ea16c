"""``rlp agent install|upgrade|rollback|remove|list|show|key``: agents of others, here.

The daemon judges, asks and commits; this hands over, shows and tells. Building and signing is ``authoring``'s
matter.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from rlp import install as installing
from rlp.session import Session
from runloop.errors import UsageError
from runloop.escape import json_text
from runloop.exits import Exit
from runloop.quantities import moment, size

__all__ = ["install", "key", "list_", "remove", "rollback", "show", "upgrade"]

_AGENT = re.compile(r"([a-z][a-z0-9_]{0,63})(?:@([a-z][a-z0-9_]{0,63}))?\Z")


def install(
    session: Session, *, bundle: str, dev_key: bool, allow_downgrade: bool, allow_stale_index: bool
) -> Exit:
    """Hand a bundle file to the daemon; what it finds good is put to a person."""
    return _install(
        session,
        Path(bundle),
        upgrade=False,
        dev_key=dev_key,
        allow_downgrade=allow_downgrade,
        allow_stale_index=allow_stale_index,
    )


def upgrade(
    session: Session, *, bundle: str, dev_key: bool, allow_downgrade: bool, allow_stale_index: bool
) -> Exit:
    """The same for an agent that is installed: from a file, or by its name from the configured index."""
    allowed: dict[str, bool] = {
        "dev_key": dev_key,
        "allow_downgrade": allow_downgrade,
        "allow_stale_index": allow_stale_index,
    }
    if bundle.endswith(".rlb") or "/" in bundle:
        return _install(session, Path(bundle), upgrade=True, **allowed)
    name, variant = _named(bundle)
    done = session.ask_compiling("agents.upgrade", name=name, variant=variant, **allowed)
    return _proposed(session, done)


def _install(session: Session, path: Path, **wish: bool) -> Exit:
    upload = installing.upload(session, path)
    return _proposed(session, session.ask_compiling("agents.install", upload=upload, **wish))


def _proposed(session: Session, done: dict[str, Any]) -> Exit:
    """What the daemon made of it: a question, or nothing to do."""
    what = f"{done['name']} {done['version']}"
    if done["state"] == "waiting":
        return installing.follow(session, done, f"{done['how']} of {what}")
    if session.json:
        session.console.json(done)
        return Exit.OK
    said = {
        "mended": f"{what} is installed already; its damaged files were put back",
        "current": f"{what} is installed already; nothing to do",
    }
    session.console.say(said[done["state"]])
    installing.tell_dev(session, done)
    return Exit.OK


def rollback(session: Session, *, agent: str) -> Exit:
    """Back to the previous version: at once when it may do no more, else through a person."""
    name, variant = _named(agent)
    done = session.ask_compiling("agents.rollback", name=name, variant=variant)
    if done["state"] == "waiting":
        return installing.follow(session, done, f"rollback of {name} to {done['version']}")
    if session.json:
        session.console.json(done)
    else:
        session.console.say(installing.done_words(done), "green")
        installing.tell_dev(session, done)
    return Exit.OK


def remove(session: Session, *, agent: str, release_name: bool) -> Exit:
    """Serve no new run with it."""
    name, variant = _named(agent)
    done = session.ask("agents.remove", name=name, variant=variant, release=release_name)
    if session.json:
        session.console.json(done)
        return Exit.OK
    session.console.say(f"{agent} {done['version']} is removed; runs under way keep what they began with")
    whose = "is free for any publisher" if done["released"] else f"stays {done['publisher']}'s"
    session.console.say(f"the name {name} {whose}")
    return Exit.OK


def list_(session: Session) -> Exit:
    """Agents that can be started, by who vouches for them; then those that are here and are not."""
    rows: list[dict[str, Any]] = session.ask("agents.list")["agents"]
    refused: list[dict[str, Any]] = session.ask("agents.refused")["refused"]
    if session.json:
        for row in (*rows, *({"refused": one} for one in refused)):
            session.console.json(row)
        return Exit.OK
    session.console.rows(
        [
            {
                "name": row["name"] if row["variant"] == "default" else f"{row['name']}@{row['variant']}",
                "version": row["version"],
                "from": "dev" if row["dev"] else row["origin"],
                "publisher": row["publisher"] or ("runloop" if row["origin"] == "shipped" else None),
                "about": row["description"],
            }
            for row in rows
        ],
        ("name", "version", "from", "publisher", "about"),
        empty="no agents are installed",
    )
    for one in refused:
        session.console.say(f"rlp: not started: {one['name']} ({one['place']}): {one['reason']}", "yellow")
    return Exit.OK


def show(session: Session, *, agent: str) -> Exit:
    """Everything about one agent."""
    name, variant = _named(agent)
    found: dict[str, Any] = session.ask("agents.show", name=name, variant=variant)
    if session.json:
        session.console.json(found)
        return Exit.OK
    for label, value in _lines(found):
        session.console.data(f"{label:<13} {value}")
    return Exit.OK


def _lines(found: dict[str, Any]) -> list[tuple[str, str]]:
    lines = [("agent", found["name"] + ("" if found["variant"] == "default" else f"@{found['variant']}"))]
    if found.get("refused"):
        lines.append(("NOT STARTED", f"{found['refused']['reason']}; {found['refused']['hint']}"))
    if "version" in found:
        lines += _about(found)
    installed = found.get("installed")
    if installed:
        lines += [
            ("publisher", installed["publisher"] + (" (development key)" if installed["dev"] else "")),
            ("key", installed["key"]),
            ("bundle", installed["bundle"]),
            ("installed", f"{moment(installed['installed_ms'])} ({installed['how']})"),
        ]
    if found.get("owner"):
        lines.append(("name owner", found["owner"]))
    for one in found["versions"]:
        mark = "current" if one["current"] else "kept"
        lines.append((mark, f"{one['version']}, {one['publisher']}, bundle {one['bundle'][:12]}"))
    last = found.get("last_run")
    lines.append(("last run", f"{last['run'][:8]} {moment(last['started_ms'])}" if last else "never"))
    return lines


def _about(found: dict[str, Any]) -> list[tuple[str, str]]:
    lines = [
        ("version", found["version"]),
        ("about", found["description"] or "-"),
        ("from", found["origin"] + (" (dev)" if found["dev"] else "")),
        ("language", f"{found['language']}, {found['entrypoint']}"),
        ("content", f"{found['files']} files, {size(found['bytes'])}"),
    ]
    for side, word in (("in", "takes"), ("out", "gives")):
        for port, spec in found["ports"][side].items():
            need = ", required" if spec["required"] else ""
            lines.append((word, f"{port}: {spec['type']}{need}"))
    lines += [("tool", f"{tool['id']}: {tool['description']}") for tool in found["tools"]]
    rights = found.get("rights") or {"asked": found["asked"], "effective": {}}
    for name in sorted({*rights["asked"], *rights["effective"]}):
        asked, left = rights["asked"].get(name, False), rights["effective"].get(name, False)
        note = "" if asked == left else f"  (asked for: {json_text(asked)})"
        lines.append(("may", f"{name} {json_text(left)}{note}"))
    return lines


def key(session: Session, *, file: str, publisher: str) -> Exit:
    """Make a key to sign bundles with, or show the one that is there, and what others add to trust it."""
    from runloop.bundle.keyfile import make_key, read_key
    from runloop.bundle.trust import checked_publisher

    checked_publisher(publisher)
    path = Path(file)
    made = not path.exists()
    found = make_key(path) if made else read_key(path)
    public = found.public
    stanza = f'[anchors.{publisher}]\nkeys = ["{public}"]\nnames = ["{publisher.replace("-", "_")}_*"]\n'
    if session.json:
        session.console.json(
            {"file": str(path), "made": made, "key": public.key_id, "public": str(public), "stanza": stanza}
        )
        return Exit.OK
    session.console.say(f"{'wrote' if made else 'read'} the private key {path}; keep it to yourself")
    session.console.say(f"its id is {public.key_id}; who wants your agents adds this to trust.toml:")
    session.console.text(stanza)
    session.console.say(f"or types: rlp trust add {publisher} {public} --name 'PATTERN'")
    return Exit.OK


def _named(agent: str) -> tuple[str, str]:
    found = _AGENT.match(agent.removeprefix("agent:"))
    if found is None:
        raise UsageError(
            f"{agent!r} is not the name of an agent",
            hint="write NAME or NAME@VARIANT; 'rlp agent list' shows them",
            code="agent.reference",
        )
    return found[1], found[2] or "default"

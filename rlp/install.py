"""What is installed or trusted goes through a person: handing a bundle over, and following the question.

Knows: how a file crosses the socket in pieces, how the question about it is shown and answered here, and what
to print when it cannot be. Does not know: whether the bundle is any good; the daemon judges, this only asks
(attacks.md C8, C9).
"""

from __future__ import annotations

import base64
import hashlib
import os
import stat
from pathlib import Path
from typing import Any

from rlp.ask import ask
from rlp.session import Session
from runloop import approval as held
from runloop.errors import NotFoundError, RefusedError, UsageError, from_wire
from runloop.exits import Exit

__all__ = ["confirm", "follow", "hand_over", "outcome", "upload"]

_ROUND_S = 20.0


def upload(session: Session, path: Path) -> str:
    """Hand the file's bytes to the daemon; returns the upload's name.

    Raises :class:`NotFoundError`, :class:`UsageError` for what is no plain file, :class:`RefusedError` for
    one that is too large, before a byte of it is read.
    """
    return hand_over(session, _read(path))


def hand_over(session: Session, data: bytes) -> str:
    """Hand a bundle's bytes to the daemon, piece by piece; returns the upload's name."""
    begun = session.ask("agents.upload", size=len(data), sha256=hashlib.sha256(data).hexdigest())
    name, piece = str(begun["upload"]), int(begun["piece_bytes"])
    for offset in range(0, len(data), piece):
        part = base64.b64encode(data[offset : offset + piece]).decode()
        session.ask("agents.piece", upload=name, offset=offset, base64=part)
    return name


def _read(path: Path) -> bytes:
    from runloop.bundle.archive import MAX_ARCHIVE_BYTES

    try:
        opened = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise NotFoundError(
            f"there is no file {path}", hint="'rlp agent build' makes one", code="bundle.missing"
        ) from error
    except OSError as error:
        raise UsageError(
            f"{path} cannot be opened: {error.strerror}",
            hint="name the bundle file itself, not a link to it",
            code="bundle.file",
        ) from error
    try:
        facts = os.fstat(opened)
        if not stat.S_ISREG(facts.st_mode):
            raise UsageError(
                f"{path} is not a plain file", hint="name a bundle file, NAME-VERSION.rlb", code="bundle.file"
            )
        if facts.st_size > MAX_ARCHIVE_BYTES:
            raise RefusedError(
                f"{path} has {facts.st_size} bytes; a bundle file has at most {MAX_ARCHIVE_BYTES}",
                hint="ask its author for a smaller one",
                code="archive.total_size",
            )
        with os.fdopen(opened, "rb", closefd=False) as file:
            return file.read(MAX_ARCHIVE_BYTES + 1)
    finally:
        os.close(opened)


def follow(session: Session, asked: dict[str, Any], words: str) -> Exit:
    """From the daemon's answer to the end: show the question, take the person's word, tell what came of it.

    ``words`` say what is asked for, for people who cannot be asked: ``install weather 1.0.0``.
    """
    approval_id = str(asked["approval"])
    if not session.interactive:
        return _park(session, asked, words)
    found = session.ask("approvals.show", approval=approval_id)
    content = held.content_of(found)
    for line in held.describe(found, content, width=session.console.width):
        session.console.note(line)
    if not confirm(session, found, content):
        return _park(session, asked, words)
    held.decide(session.client(), found, "approve", confirm=held.confirming_word(found))
    return outcome(session, approval_id)


def confirm(session: Session, approval: dict[str, Any], content: bytes) -> bool:
    """The person's word at the terminal. What widens authority is confirmed by its name, typed out."""
    assert session.stdin is not None
    wanted = held.confirming_word(approval)
    while True:
        answer = ask(session.stdin, session.console.err, f"type {wanted} to allow it (v shows every byte): ")
        if answer not in ("v", "view"):
            return answer == wanted.lower()
        for line in held.raw_lines(content, width=session.console.width):
            session.console.note(line)


def outcome(session: Session, approval_id: str) -> Exit:
    """Wait for what was approved to be carried out, and tell. Raises what the daemon failed with."""
    while True:
        ended = session.ask("agents.outcome", approval=approval_id, timeout_s=_ROUND_S)
        if ended["state"] != "waiting":
            break
    if ended.get("error"):
        raise from_wire(ended["error"])
    result = ended.get("result") or {}
    if session.json:
        session.console.json({"approval": approval_id, **ended})
    else:
        session.console.say(done_words(result), "green")
        tell_dev(session, result)
    return Exit.OK


def done_words(result: dict[str, Any]) -> str:
    """What was done, in one line."""
    if "server" in result:
        name = result["server"]
        if result["change"] == "added":
            return f"the MCP server {name} is added; look at its tools with 'rlp mcp tools {name}'"
        return f"{len(result['tools'])} tools of {name} are approved, taken for {result['effect']}"
    if "version" not in result:
        return f"{result.get('publisher')} is trusted: {result.get('key')}"
    name = result["name"] if result.get("variant") == "default" else f"{result['name']}@{result['variant']}"
    if result.get("how") == "rollback":
        return f"{name} is back at {result['version']} (was {result.get('replaced')})"
    replaced = f" in place of {result['replaced']}" if result.get("replaced") else ""
    return f"{name} {result['version']} is installed{replaced}; new runs use it"


def tell_dev(session: Session, result: dict[str, Any]) -> None:
    """Say it wherever it matters: nobody but this home vouches for the agent."""
    if result.get("dev"):
        session.console.note(
            f"rlp: {result['name']} is signed with this home's development key only (dev)", "yellow"
        )


def _park(session: Session, asked: dict[str, Any], words: str) -> Exit:
    console, approval_id = session.console, asked["approval"]
    if session.json:
        console.json({**asked, "exit": int(Exit.PARKED)})
    console.note(f"rlp: {words} waits for a person", "yellow")
    console.note(f"rlp: read and decide with: rlp approve {approval_id}   (or: rlp deny {approval_id})")
    return Exit.PARKED

"""Identifiers: parsed at the border, never interpolated raw (attacks.md B7).

A run is named by its trace id: a UUID, 128 bits, written as text with dashes, carried in frames as a
big-endian integer. Everything else is a short lower-case word.
"""

from __future__ import annotations

import re
import uuid
from typing import NewType

from runloop.digest import digest
from runloop.errors import UsageError

__all__ = [
    "RunId",
    "agent_name",
    "asked_run_id",
    "child_run_id",
    "new_run_id",
    "run_id",
    "run_id_to_int",
    "triggered_run_id",
]

RunId = NewType("RunId", str)
"""A trace id as UUID text, for example ``0b7c…-…``."""

_AGENT = re.compile(r"[a-z][a-z0-9_]{0,63}\Z")


def new_run_id() -> RunId:
    """A fresh random trace id (UUID version 4). Only the daemon's composition layers may call this."""
    return RunId(str(uuid.uuid4()))


def child_run_id(run: str, node: str, attempt: int) -> RunId:
    """The id of the run that serves this attempt, when a node uses an opening: always the same one.

    UUID version 8 over the BLAKE3 of the three, so that a crash between thinking of the run and starting it
    leads to the same run.
    """
    return _drawn(["child", run, node, attempt])


def delegated_run_id(run: str, node: str, attempt: int, call: int) -> RunId:
    """The id of the run that a host call of an attempt delegates to: always the same one.

    ``call``: number of the call in its attempt. Drawn like :func:`child_run_id`.
    """
    return _drawn(["delegate", run, node, attempt, call])


def triggered_run_id(trigger: str, event: int, due_ms: int) -> RunId:
    """The id of the run that a trigger starts for a due time: always the same one.

    ``event``: ledger id of the ``trigger.set`` in force. Drawn like :func:`child_run_id`.
    """
    return _drawn(["trigger", trigger, event, due_ms])


def asked_run_id(principal: str, via: str, message: str) -> RunId:
    """The id of the run that a message of a program outside asks for: always the same one.

    ``message``: what the program calls its message. Drawn like :func:`child_run_id`.
    """
    return _drawn(["asked", principal, via, message])


def _drawn(names: list[str | int]) -> RunId:
    drawn = int(digest(names)[:32], 16)
    drawn = drawn & ~(0xF << 76) & ~(0x3 << 62) | 0x8 << 76 | 0x2 << 62
    return RunId(str(uuid.UUID(int=drawn)))


def run_id(text: str) -> RunId:
    """Parse a full trace id; raise :class:`UsageError` for anything that is not a UUID."""
    try:
        return RunId(str(uuid.UUID(text)))
    except (ValueError, AttributeError, TypeError) as error:
        raise UsageError(
            f"{text!r} is not a run id", hint="'rlp runs' lists the ids", code="id.run"
        ) from error


def run_id_to_int(run: RunId) -> int:
    """The 128-bit integer that frames carry in their ``trace_id`` field."""
    return uuid.UUID(run).int


def agent_name(text: str) -> str:
    """Return ``text`` if it is an agent's name (``^[a-z][a-z0-9_]*$``, at most 64), else refuse."""
    if not _AGENT.match(text):
        raise UsageError(
            f"{text!r} is not an agent name",
            hint="use lower-case letters, digits and underscores, starting with a letter",
            code="id.agent",
        )
    return text

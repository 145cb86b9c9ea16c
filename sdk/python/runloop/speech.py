"""Speech acts: what agents of one run may say to one another, and which act may answer which.

Knows: the acts, the table of answers, the spelling of addresses. Does not know: who said or heard what (the
daemon checks that against the ledger, whatever an agent claims), or how words travel. Standard library only:
agents may import it.

A conversation is a tree. Its first message is an act of :data:`OPENERS`; every other one names the message
it answers, or goes on in a conversation its sender already has a part in.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

__all__ = [
    "ACTS",
    "ANSWERS",
    "MAX_CONTENT_BYTES",
    "MAX_HOPS",
    "MAX_TOPICS",
    "OPENERS",
    "is_address",
    "is_topic",
    "mailbox",
    "may_answer",
    "node_of",
]

ACTS = (
    "request",
    "inform",
    "query",
    "propose",
    "accept",
    "reject",
    "agree",
    "refuse",
    "failure",
    "not_understood",
    "cfp",
)
"""Every act there is; ``cfp`` calls for proposals."""

OPENERS = frozenset({"request", "inform", "query", "propose", "cfp"})
"""Acts that may begin a conversation, or go on in one without answering anything."""

ANSWERS: Mapping[str, frozenset[str]] = {
    "request": frozenset({"agree", "refuse", "inform", "failure", "query", "not_understood"}),
    "query": frozenset({"inform", "agree", "refuse", "failure", "query", "not_understood"}),
    "inform": frozenset({"inform", "query", "request", "not_understood"}),
    "cfp": frozenset({"propose", "refuse", "query", "failure", "not_understood"}),
    "propose": frozenset({"accept", "reject", "propose", "query", "not_understood"}),
    "accept": frozenset({"inform", "failure", "not_understood"}),
    "reject": frozenset({"propose", "inform", "not_understood"}),
    "agree": frozenset({"inform", "query", "not_understood"}),
    "refuse": frozenset({"request", "query", "cfp", "inform", "not_understood"}),
    "failure": frozenset({"request", "query", "inform", "not_understood"}),
    "not_understood": frozenset({"request", "query", "inform", "propose", "cfp", "failure"}),
}
"""Act -> acts that may answer it."""

MAX_HOPS = 64
"""Answers upon answers in one conversation; the next one is refused (``msg.hops``)."""
MAX_CONTENT_BYTES = 262_144
"""Of one message, as canonical JSON."""
MAX_TOPICS = 32
"""Of one ``msg.subscribe``."""

_NODE = re.compile(r"node/([a-z][a-z0-9_]{0,63})(?:\[(0|[1-9][0-9]{0,8})\])?\Z")
_TOPIC = re.compile(r"talk/[a-z][a-z0-9_.-]{0,63}\Z")


def may_answer(act: str, answered: str) -> bool:
    """Whether ``act`` is an answer to a message whose act was ``answered``."""
    return act in ANSWERS.get(answered, frozenset())


def mailbox(node: str) -> str:
    """Address of one node: ``node/<id>``, of one item of a mapped node ``node/<id>[<index>]``."""
    return f"node/{node}"


def is_topic(address: str) -> bool:
    """Whether this is ``talk/<name>``: everybody who listens there."""
    return bool(_TOPIC.match(address))


def is_address(address: str) -> bool:
    """Whether a message can be sent there by its spelling."""
    return is_topic(address) or bool(_NODE.match(address))


def node_of(address: str) -> tuple[str, int | None] | None:
    """``node/<id>[<index>]`` taken apart: id, and index or None; None for anything else."""
    found = _NODE.match(address)
    if found is None:
        return None
    return found[1], None if found[2] is None else int(found[2])

"""Topics: ``/``-separated addresses, parsed at the border and never interpolated raw (attacks.md B7).

A pattern may end in a ``*`` segment, which stands for anything strictly below; ``*`` alone for everything.
This module knows the names the system uses; who may publish or read them is ``runloopd.bus.acl``'s matter.
"""

from __future__ import annotations

import re

from runloop.errors import UsageError

__all__ = [
    "ACTION_DECISION",
    "ACTION_REQUEST",
    "CTRL",
    "DROPS",
    "MAX_TOPIC",
    "METRICS",
    "agent",
    "client_reply",
    "durable_patterns",
    "matches",
    "pattern",
    "run_events",
    "run_reply",
    "run_talk",
    "topic",
]

CTRL = "rlp/ctrl"
ACTION_REQUEST = "rlp/actions/request"
ACTION_DECISION = "rlp/actions/decision"
DROPS = "rlp/sys/drops"
METRICS = "rlp/sys/metrics"
MAX_TOPIC = 255
"""Characters of a topic or pattern."""

_TOPIC = re.compile(r"[A-Za-z0-9_.:#@+-]+(?:/[A-Za-z0-9_.:#@+-]+)*\Z")


def topic(text: str) -> str:
    """Return ``text`` if it is a topic, else raise :class:`UsageError`."""
    if len(text) > MAX_TOPIC or not _TOPIC.match(text):
        raise UsageError(
            f"{text[:80]!r} is not a topic",
            hint=f"segments of letters, digits and _.:#@+- joined by '/', at most {MAX_TOPIC} characters",
            code="topic",
        )
    return text


def pattern(text: str) -> str:
    """Return ``text`` if it is a topic, ``*``, or a topic and ``/*``, else raise :class:`UsageError`."""
    if text == "*":
        return text
    topic(text[:-2] if text.endswith("/*") else text)
    return text


def matches(pattern: str, topic: str) -> bool:
    """Tell whether a checked pattern covers a checked topic."""
    if pattern.endswith("*"):
        prefix = pattern[:-1]
        return topic.startswith(prefix) and len(topic) > len(prefix)
    return pattern == topic


def durable_patterns(text: str) -> tuple[str, ...]:
    """Read the setting ``bus.durable_topics``; raises :class:`UsageError`.

    Mailboxes and the system's own topics are never durable: what the ledger must hold of them is stated there
    by whoever runs them.
    """
    patterns = tuple(pattern(word) for word in text.split())
    for one in patterns:
        if one == "*" or one.split("/")[0] in ("agent", "rlp"):
            raise UsageError(
                f"{one} cannot be durable",
                hint="name topics outside of agent/ and rlp/, such as durable/*",
                code="topic.durable",
            )
    return patterns


def run_events(run: str) -> str:
    """Where the committed events and the progress of a run appear; ``run`` is the trace id as UUID text."""
    return topic(f"rlp/runs/{run}/events")


def run_reply(run: str, node: str, attempt: int) -> str:
    """Where an agent's answer to one attempt goes."""
    return topic(f"rlp/runs/{run}/replies/{node.replace('[', ':').removesuffix(']')}/{attempt}")


def run_talk(run: str, address: str) -> str:
    """Where a message of a run's agents passes; ``address`` is ``node/<id>``, ``node/<id>[<i>]`` (written
    ``node/<id>:<i>`` in a topic) or ``talk/<name>``."""
    return topic(f"rlp/runs/{run}/{address.replace('[', ':').removesuffix(']')}")


def agent(name: str) -> str:
    """The private mailbox of an agent."""
    return topic(f"agent/{name}")


def client_reply(session: str) -> str:
    """The private reply topic of one socket session."""
    return topic(f"rlp/clients/{session}/reply")

"""Who may publish what, and who may read it: one table, asked once per publisher, topic and schema.

Decided from the stamped principal alone. The kind of a principal comes from kernel credentials and the proof
of the operator credential (``socket``), never from a frame (attacks.md B6, C4, C5).
"""

from __future__ import annotations

from runloop.errors import RefusedError
from runloop.rmp import topics
from runloop.rmp.registry import TYPES
from runloopd.bus.principal import Principal

__all__ = ["BusRefusal", "check_durable", "check_publish", "check_subscribe", "may_receive"]

DECISION = 3006
CTRL_REQUEST = 2001
_DAEMON_SCHEMAS = frozenset((100, 101, 102, 110, 111, 2002, 3001, 3002, 3005, 3007))
"""What only the daemon states; 100, 101, 110 and 111 never travel over topics at all."""
_HOST_SCHEMAS = frozenset((4000, 4001))
_OF_THE_USER = ("agent/*", "rlp/runs/*", "rlp/actions/*")
"""What tells of the user's life: for programs that proved the operator credential."""


class BusRefusal(RefusedError):
    """The bus's rules forbid this publisher or subscriber what it asked for."""

    code = "bus.refused"


def check_publish(principal: Principal, topic: str, schema_id: int) -> None:
    """Raise :class:`BusRefusal` unless ``principal`` may publish frames of this schema on this topic."""
    kind = principal.kind
    if (schema_id == DECISION) != (topic == topics.ACTION_DECISION):
        raise _no(principal, topic, schema_id, "decisions and their topic belong together")
    if schema_id == DECISION:
        if kind != "operator":
            raise _no(
                principal,
                topic,
                schema_id,
                "only the owning user, proving the operator credential, decides",
                hint="answer with 'rlp approve' or 'rlp deny'",
            )
        return
    if (schema_id == CTRL_REQUEST) != (topic == topics.CTRL):
        raise _no(principal, topic, schema_id, "control requests and their topic belong together")
    if kind == "daemon":
        return
    if kind == "schedule":
        raise _no(principal, topic, schema_id, "a schedule starts runs and says nothing")
    if schema_id in _DAEMON_SCHEMAS or (schema_id in _HOST_SCHEMAS and kind != "agent"):
        raise _no(principal, topic, schema_id, "only the daemon states this")
    if topic == topics.CTRL:
        if kind not in ("operator", "peer"):
            raise _no(principal, topic, schema_id, "an agent asks through host calls")
        return
    if kind == "agent":
        if not (topics.matches("agent/*", topic) or topics.matches("rlp/runs/*", topic)):
            raise _no(principal, topic, schema_id, "an agent writes to mailboxes and to its run")
    elif topics.matches("agent/*", topic) or topics.matches("rlp/*", topic):
        raise _no(principal, topic, schema_id, "mailboxes and rlp/ topics are the daemon's")


def check_subscribe(principal: Principal, pattern: str) -> None:
    """Raise :class:`BusRefusal` when nothing the pattern names could ever be delivered to ``principal``.

    Wider patterns are accepted; :func:`may_receive` filters each topic they meet.
    """
    if not pattern.endswith("*") and not may_receive(principal, pattern):
        raise BusRefusal(
            f"{principal.label} may not read {pattern}",
            hint="mailboxes, control requests and other sessions' answers are private",
        )


def check_durable(principal: Principal, what: str) -> None:
    """Raise :class:`BusRefusal` unless ``principal`` may write to the ledger through topics, or consume them.

    Everything on a durable topic stays in the user's ledger. A program that proved nothing may listen to such
    a topic as to any other, and no more; an agent's way to the ledger is a host call with its own grant.
    """
    if principal.kind not in ("daemon", "operator"):
        raise BusRefusal(
            f"{principal.label} may not {what}: durable topics are written into the ledger",
            hint="prove the operator credential in the hello (docs/internals/session.md)",
        )


def may_receive(principal: Principal, topic: str) -> bool:
    """Tell whether frames on ``topic`` may be delivered to ``principal``."""
    kind = principal.kind
    if kind in ("daemon", "schedule"):
        return kind == "daemon"
    if kind == "agent":
        return topic == f"agent/{principal.label.removeprefix('agent:')}" or not _private(topic)
    if topics.matches("rlp/clients/*", topic):
        return topic == topics.client_reply(session_of(principal))
    if topic == topics.CTRL:
        return False
    if any(topics.matches(pattern, topic) for pattern in _OF_THE_USER):
        return kind == "operator"
    return True


def session_of(principal: Principal) -> str:
    """The session part of a socket principal's name."""
    return principal.name.partition("#")[2]


def _private(topic: str) -> bool:
    return topics.matches("agent/*", topic) or topics.matches("rlp/*", topic)


def _no(principal: Principal, topic: str, schema_id: int, why: str, hint: str | None = None) -> BusRefusal:
    return BusRefusal(
        f"{principal.label} may not publish {TYPES.get(schema_id, schema_id)} on {topic}: {why}", hint=hint
    )

"""Who may publish and read what: the whole table."""

from __future__ import annotations

import pytest

from runloopd.bus.acl import BusRefusal, check_publish, check_subscribe, may_receive
from runloopd.bus.principal import DAEMON, Principal

from .support import AGENT, OPERATOR, PEER

RUN = "rlp/runs/0b7c/events"


@pytest.mark.requirement("I2.wire.8")
@pytest.mark.parametrize(
    ("topic", "schema", "allowed"),
    [
        ("demo/a", 1, "daemon operator peer"),
        ("rlp/ctrl", 2001, "daemon operator peer"),
        ("rlp/ctrl", 1, ""),
        ("demo/a", 2001, ""),
        ("rlp/actions/decision", 3006, "operator"),
        ("rlp/actions/decision", 1, ""),
        ("demo/a", 3006, ""),
        ("rlp/actions/request", 3005, "daemon"),
        ("demo/a", 3005, "daemon"),
        (RUN, 3002, "daemon"),
        ("rlp/runs/0b7c/replies/a/1", 4001, "daemon agent"),
        ("agent/writer", 4000, "daemon agent"),
        ("agent/writer", 1, "daemon agent"),
        ("demo/a", 4000, "daemon"),
        ("rlp/sys/drops", 3007, "daemon"),
        ("rlp/sys/metrics", 3001, "daemon"),
        ("rlp/sys/metrics", 1, "daemon"),
        ("rlp/clients/s1/reply", 2002, "daemon"),
        ("rlp/clients/s1/reply", 1, "daemon"),
        ("rlp/new/thing", 1, "daemon"),
    ],
)
def test_the_table_of_publishing(topic: str, schema: int, allowed: str) -> None:
    granted = []
    for principal in (DAEMON, OPERATOR, PEER, AGENT):
        try:
            check_publish(principal, topic, schema)
        except BusRefusal as refusal:
            assert principal.label in refusal.message
        else:
            granted.append(principal.kind)
    assert sorted(granted) == sorted(allowed.split())


@pytest.mark.parametrize(
    ("topic", "readers"),
    [
        ("demo/a", "daemon operator peer agent"),
        (RUN, "daemon operator"),
        ("rlp/actions/request", "daemon operator"),
        ("rlp/sys/drops", "daemon operator peer"),
        ("agent/writer", "daemon operator agent"),
        ("agent/mailer", "daemon operator"),
        ("rlp/runs/0b7c/replies/a/1", "daemon operator"),
        ("rlp/ctrl", "daemon"),
        ("rlp/clients/s1/reply", "daemon operator"),
        ("rlp/clients/s2/reply", "daemon peer"),
        ("rlp/clients/s3/reply", "daemon"),
    ],
)
def test_the_table_of_reading(topic: str, readers: str) -> None:
    granted = [one.kind for one in (DAEMON, OPERATOR, PEER, AGENT) if may_receive(one, topic)]
    assert sorted(granted) == sorted(readers.split())


def test_a_wide_pattern_is_accepted_and_a_private_topic_by_name_is_not() -> None:
    check_subscribe(PEER, "*")
    check_subscribe(PEER, "agent/*")
    with pytest.raises(BusRefusal):
        check_subscribe(PEER, "agent/writer")


def test_a_name_that_only_looks_like_another_session_s_opens_nothing() -> None:
    sly = Principal(kind="peer", name="peer:1000#s1/x")
    assert not may_receive(sly, "rlp/clients/s1/reply")

"""Attacks B4 to B6 on a whole daemon: neighbours are served, memory and disk stay bounded."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from runloop.client import BlockingClient
from runloop.rmp.envelope import encode_message
from tests.home import Home, wait_until
from tests.hostile_peers import HOSTILE, Hostile, Raw, now_ms, other_user

STEPS = 60
GROWTH = 10 * 1024 * 1024
"""Bytes of resident memory a daemon may gain under attack: its bounds together (outboxes, windows, caches),
far below what is thrown at it."""
KEPT = 2_000_000


@pytest.fixture
def daemon(home: Home) -> Iterator[Home]:
    home.env["RUNLOOP__BUS__DURABLE_BYTES"] = str(KEPT)
    home.rlp("daemon", "start").check()
    yield home


def path_of(home: Home) -> Path:
    return home.path / "run" / "rmp.sock"


def credential(home: Home) -> bytes:
    return (home.path / "keys" / "operator.key").read_bytes()


def resident(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) * 1024
    raise AssertionError("no such process")


def served(near: BlockingClient, far: BlockingClient, number: int) -> None:
    """A neighbour's day: a question, a message to another neighbour."""
    assert near.ping(timeout_s=30) > 0
    assert near.publish("quiet/talk", "observation.generic.v1", number, timeout_s=30).receivers == 1
    heard = far.next_delivery(30)
    assert heard is not None
    assert heard.payload == number


@pytest.mark.requirement("B4", "B5", "I4.semantics.6")
@pytest.mark.parametrize("name", sorted(HOSTILE))
def test_a_hostile_peer_costs_its_neighbours_nothing_but_time(daemon: Home, name: str) -> None:
    pid = daemon.pid()
    assert pid is not None
    path, key = path_of(daemon), credential(daemon)
    with BlockingClient.connect(path, key) as near, BlockingClient.connect(path, key) as far:
        far.subscribe("quiet/*")
        hostile: Hostile = HOSTILE[name](path, key)
        try:
            for number in range(10):  # caches and pools fill before the first look
                hostile.step()
                served(near, far, number)
            before = resident(pid)
            for number in range(10, 10 + STEPS):
                for _ in range(3):
                    hostile.step()
                served(near, far, number)
            assert resident(pid) - before < GROWTH
            with BlockingClient.connect(path, key) as late:  # and the door is open
                assert late.principal == "operator"
                bus = late.call("bus.show")
        finally:
            hostile.close()
        assert daemon.pid() == pid
        dropped = sum(bus["dropped"].values())
        assert bus["addressed"] == bus["delivered"] + dropped + bus["queued"]
        served(near, far, 10_000)


@pytest.mark.requirement("B5", "I4.semantics.1")
def test_a_flood_on_a_durable_topic_is_refused_by_name_when_its_room_is_used_up(daemon: Home) -> None:
    path, key = path_of(daemon), credential(daemon)
    flood = HOSTILE["durable flood"](path, key)
    with BlockingClient.connect(path, key) as looker:

        def refused() -> int:
            flood.step()
            return int(looker.call("bus.show")["refused"].get("bus.durable_full", 0))

        wait_until(lambda: refused() > 2_000, "the flood to be refused")
        shown = looker.call("bus.show")["durable"]
    flood.close()
    assert sum(shown["bytes"].values()) <= KEPT
    files = sum(one.stat().st_size for one in daemon.events_db.parent.glob("*"))
    assert files < 12 * KEPT  # rows, views and a write-ahead log of each, and no more as the flood goes on


@pytest.mark.requirement("B2", "I4.semantics.6")
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_a_peer_of_another_user_is_turned_away_by_the_kernel_or_by_name(daemon: Home) -> None:
    path = path_of(daemon)
    assert other_user(path) == "PermissionError"
    # Even where modes were loosened, the kernel's word about who connects is what counts.
    place: Path | None = path
    while place is not None and place != place.parent and place.stat().st_uid == os.geteuid():
        if place.stat().st_mode & 0o001 == 0:
            place.chmod(place.stat().st_mode | 0o011)
        place = place.parent
    path.chmod(0o777)
    assert "bus.uid" in other_user(path)
    with BlockingClient.connect(path, credential(daemon)) as near:
        assert near.ping() > 0


@pytest.mark.requirement("B6", "I4.semantics.6")
def test_captured_frames_are_worth_nothing_in_a_new_session(daemon: Home) -> None:
    path, key = path_of(daemon), credential(daemon)
    operator = Raw(path, key)
    stop = {"id": "1", "method": "daemon.stop", "params": {}}
    asked = encode_message(
        "intent.ctrl.request.v1", stop, msg_id=2, now_ms=now_ms(), topic="rlp/ctrl",
        meta={"reply_to": operator.reply_topic},
    )  # fmt: skip
    decision = {"v": 1, "approval": "a", "action_digest": "0" * 64, "decision": "approve", "note": ""}
    decided = encode_message(
        "toolresult.action.decision.v1", decision, msg_id=3, now_ms=now_ms(), topic="rlp/actions/decision",
        meta={"receipt": True},
    )  # fmt: skip
    kept = encode_message(
        "observation.generic.v1", 1, msg_id=4, now_ms=now_ms(), topic="durable/x", meta={"receipt": True}
    )
    operator.send(kept)
    assert operator.answer()["ok"]
    (greeting, *_) = operator.sent
    thief = Raw(path, greet=False)
    thief.answer()
    thief.send(greeting)  # the proof was for another nonce
    assert thief.greeted()["result"]["principal"] == "peer"
    for frame, code in ((asked, "bus.reply_to"), (decided, "bus.refused"), (kept, "bus.refused")):
        thief.send(frame)
        answer = thief.answer()
        assert (answer.get("error") if isinstance(answer.get("error"), dict) else answer["wire"])[
            "code"
        ] == code
    thief.close()
    operator.close()
    assert daemon.pid() is not None
    assert len(daemon.events("topic.published")) == 1

"""The bus without sockets: who receives what, once, in order, and every frame accounted for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runloop.errors import FailedError, RunloopError, UnreachableError, UsageError
from runloop.rmp.envelope import encode_envelope
from runloop.rmp.frame import (
    BodyDecodeError,
    BodyTypeMismatch,
    Duplicate,
    Expired,
    UnknownSchema,
    encode_frame,
)
from runloop.testing import ManualClock
from runloopd.bus.acl import BusRefusal
from runloopd.bus.address import AddressBook, read_slowly
from runloopd.bus.bus import Bus
from runloopd.bus.dedupe import Dedupe, GivenBack
from runloopd.bus.parts import Delivery
from runloopd.bus.principal import DAEMON

from .support import AGENT, GENERIC, NOW, OPERATOR, PEER, FakeSession, message

pytestmark = pytest.mark.usefixtures("either_step")


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(NOW)


@pytest.fixture
def bus(clock: ManualClock) -> Bus:
    return Bus(clock)


def collect(into: list[Any]) -> Callable[[Delivery], None]:
    return lambda delivery: into.append(delivery.payload)


def balanced(bus: Bus) -> bool:
    counters = bus.counters
    return counters.addressed == counters.delivered + sum(counters.dropped.values()) + bus.queued


def test_a_frame_reaches_everybody_who_asked_for_its_topic(bus: Bus) -> None:
    exact: list[Any] = []
    below: list[Any] = []
    everything: list[Any] = []
    other: list[Any] = []
    for pattern, seen in (("demo/a", exact), ("demo/*", below), ("*", everything), ("demo/a/b", other)):
        bus.subscribe(pattern, collect(seen))
    assert bus.send(OPERATOR, "demo/a", GENERIC, 1).receivers == 3
    assert (exact, below, everything, other) == ([1], [1], [1], [])
    assert balanced(bus)


def test_publishing_to_nobody_says_so(bus: Bus) -> None:
    receipt = bus.send(PEER, "demo/a", GENERIC, 1)
    assert (receipt.receivers, receipt.msg_id) == (0, 1)


def test_a_composed_frame_can_be_recorded_before_it_is_published(bus: Bus) -> None:
    seen: list[Delivery] = []
    bus.subscribe("agent/*", seen.append)
    frame = bus.compose(
        DAEMON, "agent/writer", "intent.draft.write.v1", {"a": 1}, trace_id=5, meta={"tags": ["t"]}
    )
    assert (frame.schema_id, frame.msg_id, frame.size) == (220, 1, len(frame.data) - 4)
    assert seen == []
    bus.publish(frame)
    (delivery,) = seen
    assert (delivery.principal, delivery.topic, delivery.type) == (DAEMON, "agent/writer", frame.type)
    assert (delivery.trace_id, delivery.msg_id, delivery.size) == (5, 1, frame.size)
    assert (delivery.body_digest, delivery.meta["tags"]) == (frame.body_digest, ["t"])


def test_a_closed_subscription_hears_nothing_more(bus: Bus) -> None:
    seen: list[Any] = []
    subscription = bus.subscribe("demo/a", collect(seen))
    subscription.close()
    subscription.close()
    assert bus.send(PEER, "demo/a", GENERIC, 1).receivers == 0
    assert seen == []


def test_a_handler_that_publishes_is_heard_after_those_already_waiting(bus: Bus) -> None:
    order: list[str] = []

    def first(delivery: Delivery) -> None:
        order.append(f"first {delivery.payload}")
        if delivery.payload == 1:
            bus.send(DAEMON, "demo/a", GENERIC, 2)

    bus.subscribe("demo/a", first)
    bus.subscribe("demo/a", lambda delivery: order.append(f"second {delivery.payload}"))
    bus.send(DAEMON, "demo/a", GENERIC, 1)
    assert order == ["first 1", "second 1", "first 2", "second 2"]


def test_a_handler_that_closes_another_stops_its_waiting_calls(bus: Bus) -> None:
    seen: list[Any] = []
    bus.subscribe("demo/a", lambda _: victim.close())
    victim = bus.subscribe("demo/a", collect(seen))
    bus.send(DAEMON, "demo/a", GENERIC, 1)
    assert seen == []
    assert bus.counters.dropped == {"receiver_gone": 1}
    assert balanced(bus)


def test_a_handler_that_fails_harms_nobody_and_may_get_the_message_again(clock: ManualClock) -> None:
    failures: list[Exception] = []
    bus = Bus(clock, on_handler_error=lambda _, error: failures.append(error))
    seen: list[Any] = []
    broken = True

    def fragile(delivery: Delivery) -> None:
        if broken:
            raise ValueError("no")
        seen.append(("fragile", delivery.payload))

    bus.subscribe("demo/a", fragile)
    bus.subscribe("demo/a", lambda delivery: seen.append(("solid", delivery.payload)))
    frame = bus.compose(PEER, "demo/a", GENERIC, 1)
    bus.publish(frame)
    assert (seen, len(failures)) == ([("solid", 1)], 1)
    broken = False
    assert bus.publish(frame).receivers == 1
    assert seen == [("solid", 1), ("fragile", 1)]
    assert balanced(bus)
    with pytest.raises(Duplicate):
        bus.publish(frame)


def test_a_failing_handler_is_logged_by_default(bus: Bus, caplog: pytest.LogCaptureFixture) -> None:
    bus.subscribe("demo/a", lambda _: 1 / 0)  # type: ignore[arg-type,return-value]
    bus.send(PEER, "demo/a", GENERIC, 1)
    assert "handler_failed topic=demo/a" in caplog.text


@pytest.mark.requirement("I2.wire.5")
def test_an_expired_frame_is_dropped_noticed_and_counted(bus: Bus, clock: ManualClock) -> None:
    seen: list[Any] = []
    notices: list[Any] = []
    bus.subscribe("demo/a", collect(seen))
    bus.subscribe("rlp/sys/drops", collect(notices))
    frame = bus.compose(PEER, "demo/a", GENERIC, 1, ttl_ms=10, trace_id=255)
    clock.advance(10)
    with pytest.raises(Expired):
        bus.publish(frame)
    assert seen == []
    assert notices == [
        {
            "v": 1,
            "reason": "ttl_expired",
            "topic": "demo/a",
            "trace_id": f"{255:032x}",
            "msg_id": 1,
            "expires_at_ms": NOW + 10,
            "observed_at_ms": NOW + 10,
        }
    ]
    assert balanced(bus)


@pytest.mark.requirement("I2.wire.5")
def test_a_message_seen_before_is_dropped_but_not_for_those_who_came_later(
    bus: Bus, clock: ManualClock
) -> None:
    seen: list[Any] = []
    bus.subscribe("demo/a", collect(seen))
    frame = bus.compose(PEER, "demo/a", GENERIC, 1)
    bus.publish(frame)
    with pytest.raises(Duplicate):
        bus.publish(frame)
    late: list[Any] = []
    bus.subscribe("demo/a", collect(late))
    assert bus.publish(frame).receivers == 1
    assert (seen, late) == ([1], [1])
    assert balanced(bus)


def test_two_publishers_that_both_count_from_one_do_not_collide(bus: Bus) -> None:
    seen: list[Any] = []
    bus.subscribe("demo/one", collect(seen))
    FakeSession(bus, OPERATOR).send(message(1, payload=b"a"))
    FakeSession(bus, PEER).send(message(1, payload=b"b"))
    assert seen == [b"a", b"b"]


@pytest.mark.requirement("B5")
def test_drop_notices_are_rate_limited_and_cause_no_notices(bus: Bus, clock: ManualClock) -> None:
    notices: list[Any] = []
    bus.subscribe("rlp/sys/drops", collect(notices))
    bus.subscribe("demo/a", collect([]))
    frame = bus.compose(PEER, "demo/a", GENERIC, 1)
    bus.publish(frame)

    def again(times: int) -> None:
        for _ in range(times):
            with pytest.raises(Duplicate):
                bus.publish(frame)

    again(100)
    assert len(notices) == 20
    clock.advance(250)
    again(100)
    assert len(notices) == 22
    assert bus.counters.dropped["duplicate"] == 200


def test_a_read_of_many_frames_is_routed_in_order(bus: Bus) -> None:
    seen: list[Any] = []
    bus.subscribe("demo/*", lambda delivery: seen.append((delivery.topic, delivery.msg_id)))
    session = FakeSession(bus, PEER)
    session.send(*(message(n, "demo/one" if n % 3 else "demo/two") for n in range(1, 50)))
    assert seen == [("demo/one" if n % 3 else "demo/two", n) for n in range(1, 50)]
    assert balanced(bus)


def test_a_receipt_counts_receivers_and_comes_after_the_delivery(bus: Bus) -> None:
    bus.subscribe("demo/one", collect([]))
    session = FakeSession(bus, PEER)
    session.send(message(1), message(2, meta={"receipt": True}), message(3, "nobody", meta={"receipt": True}))
    assert session.receipts == [(2, 1), (3, 0)]
    assert bus.counters.delivered == 2


@pytest.mark.parametrize(
    ("frame", "error"),
    [
        (message(2, None), UsageError),
        (message(2, "demo/\x1b[2J"), UsageError),
        (message(2, "agent/writer"), BusRefusal),
        (message(2, meta={"reply_to": "agent/writer"}), UsageError),
        (message(2, ttl_ms=1, now_ms=NOW - 1), Expired),
        (message(1), Duplicate),
        (
            encode_frame(schema_id=2, body=encode_envelope(GENERIC, 1), created_at_ms=NOW, msg_id=2),
            BodyTypeMismatch,
        ),
        (
            encode_frame(schema_id=99, body=encode_envelope(GENERIC, 1), created_at_ms=NOW, msg_id=2),
            UnknownSchema,
        ),
    ],
)
def test_a_refused_frame_is_reported_and_its_neighbours_pass(
    bus: Bus, frame: bytes, error: type[RunloopError]
) -> None:
    seen: list[Any] = []
    bus.subscribe("demo/one", lambda delivery: seen.append(delivery.msg_id))
    session = FakeSession(bus, PEER)
    session.send(message(1), frame, message(3))
    assert seen == [1, 3]
    ((_, why, receipt),) = session.refusals
    assert (type(why), receipt) == (error, False)
    assert balanced(bus)


def test_a_body_that_is_none_ends_the_session_after_its_predecessors_were_routed(bus: Bus) -> None:
    seen: list[Any] = []
    bus.subscribe("demo/one", collect(seen))
    broken = encode_frame(schema_id=1, body=b"\xc1", created_at_ms=NOW, msg_id=2)
    with pytest.raises(BodyDecodeError):
        FakeSession(bus, PEER).send(message(1), broken, message(3))
    assert seen == [b"x"]


def test_control_frames_go_to_the_session_and_nowhere_else(bus: Bus) -> None:
    seen: list[Any] = []
    bus.subscribe("*", collect(seen))
    session = FakeSession(bus, PEER)
    session.send(message(1, type="intent.control.v1", payload={"action": "ping"}))
    assert (len(session.controls), seen) == (1, [])


def test_a_request_that_nobody_serves_is_refused_at_once(bus: Bus) -> None:
    session = FakeSession(bus, PEER)
    session.send(message(1, "rlp/ctrl", {"id": "1"}, type="intent.ctrl.request.v1"))
    ((_, error, _),) = session.refusals
    assert isinstance(error, UnreachableError)


def test_a_request_is_answered_on_its_own_reply_topic(bus: Bus) -> None:
    answers: list[Any] = []
    bus.subscribe("rlp/clients/s2/reply", collect(answers))

    def serve(delivery: Delivery) -> None:
        method = delivery.payload["method"]
        bus.reply(delivery, {"did": method}, error=FailedError("no") if method == "bad" else None)

    bus.subscribe("rlp/ctrl", serve)
    session = FakeSession(bus, PEER)
    for number, method in enumerate(("good", "bad"), 1):
        session.send(
            message(
                number,
                "rlp/ctrl",
                {"id": f"q{number}", "method": method, "params": {}},
                type="intent.ctrl.request.v1",
                meta={"reply_to": session.reply_topic},
            )
        )
    assert answers[0] == {"id": "q1", "ok": True, "result": {"did": "good"}}
    assert (answers[1]["id"], answers[1]["ok"], answers[1]["error"]["code"]) == ("q2", False, "failed")
    assert session.requests == 2


def test_an_answer_is_named_by_correlation_or_message_id_where_the_payload_has_no_id(bus: Bus) -> None:
    answers: list[Any] = []
    bus.subscribe("rlp/clients/s1/reply", collect(answers))
    bus.subscribe("demo/one", lambda delivery: bus.reply(delivery) and None)
    session = FakeSession(bus, OPERATOR)
    session.send(
        message(8, meta={"reply_to": session.reply_topic, "correlation": "k"}),
        message(9, meta={"reply_to": session.reply_topic}),
        message(10),
    )
    assert [answer["id"] for answer in answers] == ["k", "9"]


@pytest.mark.requirement("I2.wire.8")
def test_only_an_operator_s_decision_reaches_anybody(bus: Bus) -> None:
    decisions: list[Any] = []
    bus.subscribe("rlp/actions/decision", collect(decisions))
    decision = {"v": 1, "approval": "a", "action_digest": "0" * 64, "decision": "approve", "note": ""}
    topic, type = "rlp/actions/decision", "toolresult.action.decision.v1"
    for principal in (PEER, AGENT, DAEMON):
        with pytest.raises(BusRefusal):
            bus.send(principal, topic, type, decision)
    peer = FakeSession(bus, PEER)
    peer.send(message(1, topic, decision, type=type))
    peer.send(message(2, topic, {**decision, "kind": "operator"}, meta={"kind": "operator"}, type=type))
    assert (len(peer.refusals), decisions) == (2, [])
    FakeSession(bus, OPERATOR).send(message(1, topic, decision, type=type))
    assert decisions == [decision]


@pytest.mark.requirement("B6")
def test_a_captured_decision_is_worth_nothing_in_a_peer_s_session(bus: Bus) -> None:
    decisions: list[Any] = []
    bus.subscribe("rlp/actions/decision", collect(decisions))
    captured = message(1, "rlp/actions/decision", {}, type="toolresult.action.decision.v1")
    operator = FakeSession(bus, OPERATOR)
    operator.send(captured)
    operator.send(captured)
    FakeSession(bus, PEER).send(captured)
    assert len(decisions) == 1


heads = st.sampled_from([GENERIC, "intent.generic.v1", "nonsense"])
payload_values = st.one_of(
    st.integers(-(2**40), 2**63),
    st.binary(max_size=80),
    st.text(max_size=40),
    st.lists(st.integers(), max_size=3),
)


@given(heads, payload_values, st.sampled_from(["a", "a/b"]), st.data())
@settings(max_examples=300)
def test_the_fast_road_reads_what_the_slow_one_reads(
    head: str, payload: Any, topic: str, data: st.DataObject
) -> None:
    """One spoiled byte anywhere: both roads agree on the address or on the name of the refusal."""

    def outcome(read: Callable[[int, bytes], tuple[object, object]], body: bytes) -> object:
        try:
            return read(1, body)[0]
        except RunloopError as error:
            return type(error)

    payload = 5 if isinstance(payload, list) and any(abs(n) >= 2**63 for n in payload) else payload
    body = bytearray(encode_envelope(head, payload, {"topic": topic, "receipt": True}))
    book = AddressBook()
    outcome(book.read, bytes(body))  # the meta is known now
    assert outcome(book.read, bytes(body)) == outcome(read_slowly, bytes(body))
    body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    assert outcome(book.read, bytes(body)) == outcome(read_slowly, bytes(body))
    cut = bytes(body[: data.draw(st.integers(0, len(body)))])
    assert outcome(book.read, cut) == outcome(read_slowly, cut)


def test_ids_are_forgotten_by_age_and_by_number_but_not_too_soon() -> None:
    dedupe = Dedupe(capacity=4, max_age_ms=30)
    tag = bytes(8)
    assert dedupe.first(tag, b"a", 0) is None
    assert dedupe.first(tag, b"a", 30) is not None
    assert dedupe.first(tag, b"a", 31) is None
    for number in range(4):
        assert dedupe.first(tag, b"%d" % number, 31) is None
    assert dedupe.first(tag, b"a", 31) is not None
    for number in range(100):
        dedupe.first(tag, b"n%d" % number, 31)
    assert len(dedupe) <= 8
    assert dedupe.first(tag, b"a", 31) is None


def test_the_list_of_keys_given_back_is_bounded() -> None:
    given_back = GivenBack(capacity=2)
    for number in range(5):
        given_back.add(b"%d" % number, 1)
    assert given_back.take(b"0") == frozenset()
    assert given_back.take(b"4") == {1}
    assert given_back.take(b"4") == frozenset()


def test_many_topics_do_not_grow_the_route_tables(bus: Bus) -> None:
    session = FakeSession(bus, PEER)
    session.send(*(message(n, f"demo/{n}") for n in range(1, 9_000)))
    assert len(session.routes) <= 4_096
    assert len(session.known) <= 4_096
    assert len(bus._routes) <= 4_096

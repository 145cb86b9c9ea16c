"""Talk between agents of a run, through the gate: heard once each, in order, nothing taken on trust."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from openings.talk import message_id, posted
from pog.reader import Reader
from runloop import speech
from runloop.events import Draft, HostcallDelivered, NodeExpanded
from runloop.ops import OPS, decode_args
from runloopd.broker import msg_ops
from runloopd.broker.calls import Answer, Caller
from runloopd.bus.parts import Delivery

from .world import RUN, World, quotas, until, within

TALK = "talk = true\n"
NODES = [
    {"id": "ann", "use": "agent:ann"},
    {"id": "bob", "use": "agent:bob"},
    {"id": "cid", "use": "agent:cid"},
    {"id": "many", "use": "agent:ann", "for_each": {"port": "in"}},
    {"id": "nested", "use": "opening:other"},
]


@pytest.fixture
async def talk(world: World) -> World:
    """A run of three nodes that may say anything to anybody."""
    await world.run(nodes=NODES)
    return world


async def node(world: World, name: str, grants: str = TALK, *, attempt: int = 1) -> Caller:
    return await world.caller(grants, node=name, agent=name, attempt=attempt)


async def say(world: World, who: Caller, to: str, content: Any = "hello", **more: Any) -> Answer:
    return await world.call(who, "msg.publish", {"to": to, "content": content, **more})


async def stream(world: World, who: Caller, *topics: str) -> str:
    answer = await world.call(who, "msg.subscribe", {"topics": list(topics)})
    assert answer.ok, answer.value
    return str(answer.value["stream"])


async def hear(world: World, who: Caller, name: str, timeout_ms: int | None = 0) -> Any:
    answer = await world.call(who, "msg.next", {"stream": name, "timeout_ms": timeout_ms})
    assert answer.ok, answer.value
    return answer.value


async def heard(world: World, who: Caller, name: str) -> list[Any]:
    """The contents that are there to be heard."""
    found = []
    while "item" in (answer := await hear(world, who, name)):
        found.append(answer["item"]["content"])
    return found


# --- heard once each, in order --------------------------------------------------------------------


async def test_mail_waits_for_a_node_that_has_not_started_and_is_heard_once_in_ledger_order(
    talk: World,
) -> None:
    ann, cid = await node(talk, "ann"), await node(talk, "cid")
    for who, number in ((ann, 1), (cid, 2), (ann, 3)):
        assert (await say(talk, who, "node/bob", number)).ok
    assert (await say(talk, ann, "node/cid", "not for bob")).ok
    bob = await node(talk, "bob")
    name = await stream(talk, bob)
    assert await heard(talk, bob, name) == [1, 2, 3]
    assert (await say(talk, cid, "node/bob", 4)).ok
    assert await heard(talk, bob, name) == [4]


async def test_a_topic_is_heard_by_who_listens_and_not_by_who_speaks(talk: World) -> None:
    ann, bob, cid = await node(talk, "ann"), await node(talk, "bob"), await node(talk, "cid")
    assert (await say(talk, ann, "talk/prices", "early")).ok
    names = {who.node: await stream(talk, who, "talk/prices") for who in (ann, bob)}
    quiet = await stream(talk, cid, "talk/other")
    assert (await say(talk, cid, "talk/prices", "late")).ok
    assert await heard(talk, bob, names["bob"]) == ["early", "late"]
    assert await heard(talk, ann, names["ann"]) == ["late"]
    assert await heard(talk, cid, quiet) == []


async def test_each_stream_has_a_place_of_its_own_and_a_retried_attempt_begins_again(talk: World) -> None:
    ann, bob = await node(talk, "ann"), await node(talk, "bob")
    for number in range(3):
        assert (await say(talk, ann, "node/bob", number)).ok
    one, two = await stream(talk, bob), await stream(talk, bob, "talk/x")
    assert (await hear(talk, bob, one))["item"]["content"] == 0
    assert await heard(talk, bob, two) == [0, 1, 2]
    assert await heard(talk, bob, one) == [1, 2]
    again = await node(talk, "bob", attempt=2)
    assert await heard(talk, again, await stream(talk, again)) == [0, 1, 2]


@pytest.mark.requirement("I5.talk.2")
async def test_after_a_restart_a_stream_goes_on_where_its_last_answer_was(talk: World) -> None:
    ann, bob = await node(talk, "ann"), await node(talk, "bob")
    for number in range(4):
        assert (await say(talk, ann, "node/bob", number)).ok
    name = await stream(talk, bob)
    assert [(await hear(talk, bob, name))["item"]["content"] for _ in range(2)] == [0, 1]
    await talk.restart()
    ann, bob = await node(talk, "ann"), await node(talk, "bob")
    assert await heard(talk, bob, name) == [2, 3]
    assert (await say(talk, ann, "node/bob", 4)).ok
    assert await heard(talk, bob, name) == [4]


async def test_the_same_words_of_a_retried_attempt_are_not_said_again(talk: World) -> None:
    ann = await node(talk, "ann")
    first = await say(talk, ann, "node/bob")
    second = await say(talk, ann, "node/bob")
    again = await node(talk, "ann", attempt=2)
    assert [(await say(talk, again, "node/bob")).value for _ in range(2)] == [first.value, second.value]
    assert first.value != second.value
    assert len(talk.payloads("message.posted")) == 2


async def test_a_message_is_in_the_ledger_before_its_frame_crosses_the_bus(talk: World) -> None:
    seen: list[tuple[Delivery, int]] = []
    talk.bus.subscribe("rlp/runs/*", lambda one: seen.append((one, len(talk.payloads("message.posted")))))
    assert (await say(talk, await node(talk, "ann"), "node/many[3]", {"n": 1})).ok
    ((frame, on_record),) = seen
    assert on_record == 1
    assert frame.topic == f"rlp/runs/{RUN}/node/many:3"
    assert frame.type == "observation.agent.message.v1"
    assert (frame.payload["content"], frame.payload["from"]) == ({"n": 1}, "node/ann")
    (sent,) = talk.payloads("message.sent")
    assert (sent.topic, sent.receiver, sent.node) == (frame.topic, "node/many[3]", "ann")
    assert sent.sender == "agent:ann"


async def test_what_is_heard_taints_as_its_sender_was_tainted(talk: World) -> None:
    ann, bob = await node(talk, "ann"), await node(talk, "bob")
    assert (await say(talk, ann, "node/bob")).ok
    assert (
        await talk.call(
            await talk.caller(node="cid", agent="cid"), "http.fetch", {"url": "https://a.example/"}
        )
    ).ok
    assert (await say(talk, ann, "node/bob", "what the web said")).ok
    clean, tainted = talk.events("message.posted")
    assert (clean.provenance.label, tainted.provenance.label) == ("agent:ann", "web:a.example")
    name = await stream(talk, bob)
    await heard(talk, bob, name)
    labels = [e.provenance.label for e in talk.events("hostcall.delivered") if e.payload.op == "msg.next"]  # type: ignore[attr-defined]
    assert labels[:2] == ["agent:ann", "web:a.example"]


# --- waiting --------------------------------------------------------------------------------------


async def test_a_wait_ends_with_the_message_or_by_the_clock(talk: World) -> None:
    ann, bob = await node(talk, "ann"), await node(talk, "bob")
    name = await stream(talk, bob)
    waiting = talk.begin(bob, "msg.next", {"stream": name, "timeout_ms": 1_000})
    await until(lambda: talk.talk.parked() == {(RUN, "bob")})
    assert (await say(talk, ann, "node/bob", "in time")).ok
    assert (await within(waiting)).value["item"]["content"] == "in time"
    waiting = talk.begin(bob, "msg.next", {"stream": name, "timeout_ms": 1_000})
    await until(lambda: talk.talk.parked())
    talk.clock.advance(1_000)
    assert (await within(waiting)).value == {"timed_out": True}
    assert talk.talk.parked() == frozenset()


@pytest.mark.requirement("I5.talk.4")
async def test_a_stream_ends_when_nobody_can_speak_any_more(talk: World) -> None:
    active = {"ann", "bob", "cid"}
    talk.talk.active = lambda run: frozenset(active)
    bob, cid = await node(talk, "bob"), await node(talk, "cid")
    waits = [talk.begin(who, "msg.next", {"stream": await stream(talk, who)}) for who in (bob, cid)]
    await until(lambda: len(talk.talk.parked()) == 2)
    talk.talk.stirred(RUN)
    await asyncio.sleep(0)
    assert not any(wait.done() for wait in waits), "ann may still speak"
    active.remove("ann")
    talk.talk.stirred(RUN)
    assert [(await within(wait)).value for wait in waits] == [{"done": True}, {"done": True}]


async def test_who_waits_for_a_time_may_speak_after_it_so_others_wait_on(talk: World) -> None:
    talk.talk.active = lambda run: frozenset({"bob", "cid"})
    bob, cid = await node(talk, "bob"), await node(talk, "cid")
    timed = talk.begin(bob, "msg.next", {"stream": await stream(talk, bob), "timeout_ms": 50})
    open_ = talk.begin(cid, "msg.next", {"stream": await stream(talk, cid)})
    await until(lambda: len(talk.talk.parked()) == 2)
    talk.talk.stirred(RUN)
    await asyncio.sleep(0)
    assert not timed.done()
    assert not open_.done()
    talk.clock.advance(50)
    assert (await within(timed)).value == {"timed_out": True}
    assert (await say(talk, bob, "node/cid", "after all")).ok
    assert (await within(open_)).value["item"]["content"] == "after all"


async def test_the_end_of_the_run_ends_every_wait(talk: World) -> None:
    bob = await node(talk, "bob")
    waiting = talk.begin(bob, "msg.next", {"stream": await stream(talk, bob)})
    await until(lambda: talk.talk.parked())
    await talk.end_run()
    assert (await within(waiting)).value == {"done": True}
    assert talk.talk.of(RUN) is None


# --- asking and answering -------------------------------------------------------------------------


async def asked(world: World, **more: Any) -> tuple[Caller, Caller, asyncio.Task[Answer], dict[str, Any]]:
    """Ann waits for Bob's answer; what Bob heard."""
    ann, bob = await node(world, "ann"), await node(world, "bob")
    waiting = world.begin(ann, "msg.request", {"to": "node/bob", "content": "?", "timeout_ms": 1_000, **more})
    await until(lambda: world.talk.parked())
    name = await stream(world, bob)
    return ann, bob, waiting, (await hear(world, bob, name))["item"]


async def test_a_request_is_answered_by_a_reply_and_no_stream_hands_the_answer_out_again(
    talk: World,
) -> None:
    ann, bob, waiting, question = await asked(talk)
    assert (question["act"], question["from"]) == ("request", "node/ann")
    reply = await talk.call(bob, "msg.reply", {"message": question["message"], "content": "!"})
    assert reply.ok
    answer = (await within(waiting)).value
    assert (answer["content"], answer["in_reply_to"]) == ("!", question["message"])
    assert answer["conversation"] == question["conversation"] == question["message"]
    assert await heard(talk, ann, await stream(talk, ann)) == []
    again = await node(talk, "ann", attempt=2)
    repeated = await talk.call(
        again, "msg.request", {"to": "node/bob", "content": "?", "timeout_ms": 1_000}, index=0
    )
    assert repeated.value == answer
    assert await heard(talk, again, await stream(talk, again)) == []
    assert len(talk.payloads("message.posted")) == 2


async def test_a_request_nobody_answers_in_time_is_late_and_so_is_the_answer(talk: World) -> None:
    _, bob, waiting, question = await asked(talk)
    talk.clock.advance(1_001)
    answer = await within(waiting)
    assert (answer.ok, answer.value["code"]) == (False, "msg.timed_out")
    late = await talk.call(bob, "msg.reply", {"message": question["message"], "content": "!"})
    assert (late.ok, late.value["code"]) == (False, "msg.late")
    assert len(talk.payloads("message.posted")) == 1


async def test_a_request_to_a_run_where_nobody_is_left_ends_at_once(talk: World) -> None:
    talk.talk.active = lambda run: frozenset({"ann"})
    ann = await node(talk, "ann")
    answer = await talk.call(ann, "msg.request", {"to": "node/bob", "content": "?"})
    assert answer.value["code"] == "msg.nobody"


@pytest.mark.requirement("I5.talk.2")
async def test_a_question_that_was_open_at_a_crash_is_not_asked_again(talk: World) -> None:
    _, _, _, question = await asked(talk)
    await talk.restart()
    ann, bob = await node(talk, "ann"), await node(talk, "bob")
    again = talk.begin(ann, "msg.request", {"to": "node/bob", "content": "?", "timeout_ms": 1_000}, index=0)
    await until(lambda: talk.talk.parked())
    assert (await talk.call(bob, "msg.reply", {"message": question["message"], "content": "!"})).ok
    assert (await within(again)).value["content"] == "!"
    assert len(talk.payloads("message.posted")) == 2


async def test_a_later_attempt_finds_the_open_question_and_asks_anew_once_it_is_late(talk: World) -> None:
    _, bob, waiting, question = await asked(talk)
    waiting.cancel()
    args = {"to": "node/bob", "content": "?", "timeout_ms": 1_000}
    second = await node(talk, "ann", attempt=2)
    found = talk.begin(second, "msg.request", args)
    await until(lambda: talk.talk.parked())
    assert len(talk.payloads("message.posted")) == 1
    found.cancel()
    await until(lambda: not talk.talk.parked())
    talk.clock.advance(1_001)
    third = await node(talk, "ann", attempt=3)
    anew = talk.begin(third, "msg.request", args)
    await until(lambda: talk.talk.parked())
    assert len(talk.payloads("message.posted")) == 2
    item = (await hear(talk, bob, "s0"))["item"]
    assert item["message"] != question["message"]
    assert (await talk.call(bob, "msg.reply", {"message": item["message"], "content": "now"})).ok
    assert (await within(anew)).value["content"] == "now"


# --- nothing is taken on trust --------------------------------------------------------------------


async def refused(world: World, who: Caller, op: str, args: dict[str, Any]) -> str:
    answer = await world.call(who, op, args)
    assert not answer.ok, answer.value
    assert answer.value["message"]
    return str(answer.value["code"])


@pytest.mark.requirement("I5.talk.3")
@pytest.mark.parametrize(
    ("args", "code"),
    [
        ({"to": "bob"}, "msg.address"),
        ({"to": "node/Bob"}, "msg.address"),
        ({"to": "node/bob/x"}, "msg.address"),
        ({"to": "talk/../x"}, "msg.address"),
        ({"to": "talk/*"}, "msg.address"),
        ({"to": "node/many[01]"}, "msg.address"),
        ({"to": "node/eve"}, "msg.unknown"),
        ({"to": "node/ann"}, "msg.unknown"),
        ({"to": "node/bob[0]"}, "msg.unknown"),
        ({"to": "node/many"}, "msg.unknown"),
        ({"to": "node/nested"}, "msg.unknown"),
        ({"to": "node/bob", "act": "shout"}, "msg.act"),
        ({"to": "node/bob", "act": "accept"}, "msg.act"),
        ({"to": "node/bob", "in_reply_to": "msg_0123456789abcdef"}, "msg.unheard"),
        ({"to": "node/bob", "conversation": "msg_0123456789abcdef"}, "msg.conversation"),
        ({"to": "node/bob", "reply_within_ms": 0}, "op.args"),
        ({"to": "node/bob", "content": "x" * 262_143}, "msg.size"),
        ({"to": "node/bob", "more": 1}, "op.args"),
    ],
)  # fmt: skip
async def test_what_cannot_be_said_is_refused_by_name_and_nothing_is_posted(
    talk: World, args: dict[str, Any], code: str
) -> None:
    ann = await node(talk, "ann")
    assert await refused(talk, ann, "msg.publish", {"content": 1, **args}) == code
    assert talk.payloads("message.posted") == talk.payloads("message.sent") == []


async def test_an_item_beyond_the_last_is_unknown_once_their_number_is_known(talk: World) -> None:
    ann = await node(talk, "ann")
    assert (await say(talk, ann, "node/many[7]")).ok
    expanded = NodeExpanded(node="many", items=7, items_digest="a" * 64)
    await talk.journal.append(Draft(payload=expanded, actor="daemon", run=RUN))
    assert await refused(talk, ann, "msg.publish", {"to": "node/many[7]", "content": 1}) == "msg.unknown"
    assert (await say(talk, ann, "node/many[6]")).ok


@pytest.mark.requirement("I5.talk.3")
async def test_only_who_heard_a_message_may_answer_it(talk: World) -> None:
    ann, bob, cid = await node(talk, "ann"), await node(talk, "bob"), await node(talk, "cid")
    question = (await say(talk, ann, "node/bob", act="request")).value
    args = {"message": question["message"], "content": 1}
    assert await refused(talk, cid, "msg.reply", args) == "msg.unheard"
    assert await refused(talk, ann, "msg.reply", args) == "msg.unheard"
    assert await refused(talk, bob, "msg.reply", args) == "msg.unheard", "it has not heard it yet"
    await heard(talk, bob, await stream(talk, bob))
    assert (await talk.call(bob, "msg.reply", args)).ok


@pytest.mark.requirement("I5.talk.3")
async def test_a_conversation_is_joined_by_those_who_have_a_part_in_it(talk: World) -> None:
    ann, bob, cid = await node(talk, "ann"), await node(talk, "bob"), await node(talk, "cid")
    one, two = [(await say(talk, ann, "node/bob", n)).value for n in (1, 2)]
    into = {"to": "node/bob", "content": "me, too", "conversation": one["conversation"]}
    assert await refused(talk, cid, "msg.publish", into) == "msg.conversation"
    await heard(talk, bob, await stream(talk, bob))
    mixed = {"to": "node/ann", "in_reply_to": one["message"], "conversation": two["conversation"]}
    assert await refused(talk, bob, "msg.publish", {**mixed, "content": 1}) == "msg.conversation"
    more = await say(talk, bob, "node/cid", conversation=one["conversation"])
    assert more.value["conversation"] == one["conversation"]
    await heard(talk, cid, await stream(talk, cid))
    assert (await say(talk, cid, "node/bob", conversation=one["conversation"])).ok


@pytest.mark.requirement("I5.talk.3")
@pytest.mark.parametrize("act", speech.ACTS)
@pytest.mark.parametrize("answered", sorted(speech.OPENERS))
async def test_an_act_answers_what_the_table_says_and_nothing_else(
    talk: World, answered: str, act: str
) -> None:
    ann, bob = await node(talk, "ann"), await node(talk, "bob")
    question = (await say(talk, ann, "node/bob", act=answered)).value
    await heard(talk, bob, await stream(talk, bob))
    answer = await talk.call(bob, "msg.reply", {"message": question["message"], "content": 1, "act": act})
    assert answer.ok == (act in speech.ANSWERS[answered])
    if not answer.ok:
        assert answer.value["code"] == "msg.act"


@pytest.mark.requirement("I5.talk.5")
@pytest.mark.parametrize(
    ("grants", "op", "args"),
    [
        ("", "msg.publish", {"to": "node/bob", "content": 1}),
        ('talk = ["node/cid"]', "msg.publish", {"to": "node/bob", "content": 1}),
        ('talk = ["talk/*"]', "msg.request", {"to": "node/bob", "content": 1}),
        ("", "msg.subscribe", {}),
        ('talk = ["node/bob"]', "msg.subscribe", {"topics": ["talk/prices"]}),
        ('talk = ["talk/prices*"]', "msg.subscribe", {"topics": ["talk/prices.eu", "talk/secrets"]}),
        ("", "msg.reply", {"message": "msg_0123456789abcdef", "content": 1}),
    ],
)  # fmt: skip
async def test_without_the_capability_nothing_is_said_or_heard(
    talk: World, grants: str, op: str, args: dict[str, Any]
) -> None:
    ann = await node(talk, "ann", grants)
    assert await refused(talk, ann, op, args) == "cap.denied"
    assert [(a.capability, a.decision) for a in talk.payloads("cap.audit")][-1:] == [("talk", "denied")]
    assert talk.payloads("message.posted") == []


async def test_a_reply_needs_the_right_to_talk_to_who_asked(talk: World) -> None:
    ann, bob = await node(talk, "ann"), await node(talk, "bob", 'talk = ["node/cid"]')
    question = (await say(talk, ann, "node/bob")).value
    await heard(talk, bob, await stream(talk, bob))
    args = {"message": question["message"], "content": 1}
    assert await refused(talk, bob, "msg.reply", args) == "cap.denied"


async def test_a_right_taken_away_ends_the_hearing(talk: World) -> None:
    bob = await node(talk, "bob", 'talk = ["talk/prices"]')
    name = await stream(talk, bob, "talk/prices")
    narrowed = await node(talk, "bob", 'talk = ["talk/other"]')
    assert await refused(talk, narrowed, "msg.next", {"stream": name, "timeout_ms": 0}) == "cap.denied"


# --- it comes to an end ---------------------------------------------------------------------------


async def ping_pong(world: World, turns: int) -> Answer:
    """Ann and Bob answer one another; the last answer."""
    players = [await node(world, "ann"), await node(world, "bob")]
    names = [await stream(world, one) for one in players]
    answer = await say(world, players[0], "node/bob")
    for turn in range(1, turns + 1):
        who = players[turn % 2]
        item = (await hear(world, who, names[turn % 2]))["item"]
        answer = await world.call(who, "msg.reply", {"message": item["message"], "content": turn})
        if not answer.ok:
            break
    return answer


@pytest.mark.requirement("W9")
async def test_ping_pong_ends_by_the_number_of_its_hops(talk: World) -> None:
    assert (await ping_pong(talk, speech.MAX_HOPS)).ok
    assert len(talk.payloads("message.posted")) == speech.MAX_HOPS + 1
    ann, bob = await node(talk, "ann"), await node(talk, "bob")
    last = talk.payloads("message.posted")[-1]
    await heard(talk, bob, "s0")
    await heard(talk, ann, "s0")
    hearer = bob if last.to == "node/bob" else ann
    args = {"message": last.message, "content": 1}
    assert await refused(talk, hearer, "msg.reply", args) == "msg.hops"
    around = {"to": last.to.replace(hearer.node, last.node), "content": 1, "conversation": last.conversation}
    assert await refused(talk, hearer, "msg.publish", around) == "msg.hops", "not by leaving in_reply_to out"
    assert (await say(talk, hearer, f"node/{last.node}")).ok, "another conversation may begin"


@pytest.mark.requirement("W9", "I5.talk.6")
async def test_a_flood_ends_at_the_quota_of_messages(world: World) -> None:
    await world.stop()
    world.quotas = quotas(messages=5)
    await world.start()
    await world.run(nodes=NODES)
    ann = await node(world, "ann")
    answers = [await say(world, ann, "talk/x", number) for number in range(6)]
    assert [answer.ok for answer in answers] == [True] * 5 + [False]
    assert answers[-1].value["code"] == "quota.exceeded"
    assert [fact.resource for fact in world.payloads("quota.warned")] == ["messages"]
    assert [fact.resource for fact in world.payloads("quota.exceeded")] == ["messages"]
    assert len(world.payloads("message.posted")) == 5
    assert (await say(world, await node(world, "bob"), "talk/x")).ok, "each agent has its own"


async def test_all_agents_together_have_a_limit_too(talk: World, monkeypatch: pytest.MonkeyPatch) -> None:
    ann, bob = await node(talk, "ann"), await node(talk, "bob")
    monkeypatch.setattr(msg_ops, "MAX_RUN_BYTES", 10)
    assert (await say(talk, ann, "talk/x", "12345678")).ok
    assert await refused(talk, bob, "msg.publish", {"to": "talk/x", "content": 1}) == "msg.full"


# --- a replay says the same -----------------------------------------------------------------------


@pytest.mark.requirement("I5.talk.7")
async def test_every_posted_message_can_be_made_again_from_its_call(talk: World) -> None:
    _, bob, waiting, question = await asked(talk)
    await talk.call(bob, "msg.reply", {"message": question["message"], "content": {"b": 1, "a": 2}})
    await within(waiting)
    await say(talk, bob, "talk/x", act="cfp", reply_within_ms=10)
    posts = {post.message: post for post in talk.payloads("message.posted")}
    assert len(posts) == 3
    reader: Reader = talk.reader
    for call in talk.payloads("hostcall.delivered"):
        assert isinstance(call, HostcallDelivered)
        if call.op not in ("msg.publish", "msg.request", "msg.reply"):
            continue
        args = decode_args(call.op, json.loads(reader.blob(call.args_blob)))
        said = posts[message_id(RUN, call.node, call.attempt, call.call)]
        made, content = posted(
            args, lineage=RUN, node=call.node, attempt=call.attempt, call=call.call,
            earlier=lambda name: posts.get(name), reply_by_ms=said.reply_by_ms,
        )  # fmt: skip
        assert made == said
        assert content == reader.blob(said.content_blob)


def test_every_op_of_talk_needs_the_capability() -> None:
    ops = {name: op.capability for name, op in OPS.items() if name.startswith("msg.") and name != "msg.next"}
    assert set(ops.values()) == {"talk"}
    assert len(ops) == 4

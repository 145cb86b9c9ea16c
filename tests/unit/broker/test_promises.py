"""Promises through the gate: made once, kept once, timed out by the clock, the same after a restart."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from pog.errors import PromiseError
from runloop.digest import canonical
from runloop.errors import NotFoundError, RefusedError, UsageError
from runloop.rmp.frame import MAX_BODY
from runloopd.bus.principal import Principal
from runloopd.gateway.promises import PromiseMethods

from .world import RUN, World, quotas, until

OPERATOR = Principal(kind="operator", name="operator:1000#s1", uid=1000)
ALL = 'promises = true\nkb_read = ["notes"]\n'


async def made(world: World, **more: Any) -> tuple[Any, str]:
    caller = await world.caller(ALL)
    answer = await world.call(caller, "promise.create", {"timeout_ms": 60_000, **more})
    assert answer.ok, answer.value
    return caller, answer.value["promise"]


def facts(world: World) -> list[str]:
    return [kind for kind in world.kinds() if kind.startswith("promise.")]


async def test_a_promise_is_made_awaited_and_resolved(world: World) -> None:
    caller, promise = await made(world)
    waiting = world.begin(caller, "promise.await", {"promise": promise})
    await until(lambda: world.gate.promises.parked() == {(RUN, "draft")})
    other = await world.caller(ALL, node="review", agent="critic")
    await until(lambda: world.gate.promises.waiting())
    answer = await world.call(other, "promise.resolve", {"promise": promise, "value": {"go": True}})
    assert answer.value == {"promise": promise}
    heard = await waiting
    assert world.gate.promises.parked() == frozenset()
    assert heard.value == {"value": {"go": True}, "by": "agent:critic"}
    created, resolved = (world.events(f"promise.{moved}")[0] for moved in ("created", "resolved"))
    assert created.id in resolved.provenance.causes
    delivered = world.events("hostcall.delivered")[-1]
    assert {created.id, resolved.id} <= set(delivered.provenance.causes)
    assert resolved.actor == "agent:critic"
    assert resolved.provenance.label == "agent:critic"


@pytest.mark.requirement("I4.promise.1")
@pytest.mark.parametrize("racers", [200])
async def test_of_many_who_resolve_at_once_exactly_one_is_heard(world: World, racers: int) -> None:
    caller, promise = await made(world)
    resolver = await world.caller(ALL, node="review", agent="critic")
    words = [
        world.begin(resolver, "promise.resolve", {"promise": promise, "value": number})
        for number in range(racers)
    ]
    people = [world.gate.promises.resolve(promise, f"p{n}", "operator:1000") for n in range(racers)]
    said = await asyncio.gather(*words)
    ended = await asyncio.gather(*people, return_exceptions=True)
    winners = [a for a in said if a.ok] + [p for p in ended if not isinstance(p, BaseException)]
    assert len(winners) == 1
    assert {a.value["code"] for a in said if not a.ok} == {"promise.resolved"}
    assert len(world.payloads("promise.resolved")) == 1
    heard = await world.call(caller, "promise.await", {"promise": promise})
    assert heard.value["value"] == world.payloads("promise.resolved")[0].value


async def test_it_times_out_by_the_clock_and_no_word_comes_after(world: World) -> None:
    caller, promise = await made(world)
    loop = asyncio.create_task(world.gate.promises.expire_loop())
    world.tasks.append(loop)
    waiting = world.begin(caller, "promise.await", {"promise": promise})
    await asyncio.sleep(0)
    world.clock.advance(59_999)
    assert not waiting.done()
    world.clock.advance(1)
    late = await asyncio.wait_for(waiting, 20)
    assert (late.ok, late.value["code"]) == (False, "promise.timed_out")
    again = await world.call(caller, "promise.resolve", {"promise": promise, "value": 1})
    assert again.value["code"] == "promise.timed_out"
    with pytest.raises(PromiseError):
        await world.gate.promises.resolve(promise, 1, "operator:1000")
    assert facts(world) == ["promise.created", "promise.timed_out"]


async def test_a_word_past_the_deadline_is_refused_even_before_the_timeout_is_stated(world: World) -> None:
    caller, promise = await made(world)
    world.clock.advance(60_000)
    answer = await world.call(caller, "promise.resolve", {"promise": promise, "value": 1})
    assert answer.value["code"] == "promise.timed_out"


@pytest.mark.requirement("I4.promise.1")
async def test_promises_survive_a_restart_and_what_expired_meanwhile_times_out(world: World) -> None:
    _, short = await made(world, timeout_ms=1_000)
    caller, long = await made(world, timeout_ms=100_000)
    world.begin(caller, "promise.await", {"promise": long})
    await world.stop()
    world.clock.advance(5_000)
    await world.start()
    world.tasks.append(asyncio.create_task(world.gate.promises.expire_loop()))
    await until(lambda: world.payloads("promise.timed_out"))
    assert [p.promise for p in world.payloads("promise.timed_out")] == [short]
    assert [p.id for p in world.gate.promises.waiting()] == [long]
    caller = await world.caller(ALL)
    waiting = world.begin(caller, "promise.await", {"promise": long}, index=7)
    await world.gate.promises.resolve(long, "yes", "operator:1000")
    assert (await waiting).value == {"value": "yes", "by": "operator:1000"}


async def test_the_same_call_after_a_crash_makes_no_second_promise(world: World) -> None:
    """Recovery is re-execution: the attempt asks again, with the same arguments, at the same place."""
    caller = await world.caller(ALL)
    ask = {"timeout_ms": 60_000}
    first = await world.call(caller, "promise.create", ask, index=0)
    await world.restart()
    caller = await world.caller(ALL)
    again = await world.call(caller, "promise.create", ask, index=0)
    assert again.value == first.value
    other = await world.call(caller, "promise.create", ask, index=1)
    assert other.value["promise"] != first.value["promise"]
    assert len(world.payloads("promise.created")) == 2


async def test_who_waits_after_the_word_hears_the_same_word(world: World) -> None:
    caller, promise = await made(world)
    await world.gate.promises.resolve(promise, ["a", 1], "operator:1000")
    before = await world.call(caller, "promise.await", {"promise": promise})
    await world.restart()
    caller = await world.caller(ALL)
    after = await world.call(caller, "promise.await", {"promise": promise})
    assert before.value == after.value == {"value": ["a", 1], "by": "operator:1000"}


# --- a person -------------------------------------------------------------------------------------


@pytest.mark.requirement("I4.promise.2")
async def test_a_question_to_a_person_is_answered_by_a_person_only(world: World) -> None:
    caller = await world.caller(ALL)
    asking = world.begin(caller, "input.ask", {"question": "Which one?", "choices": ["red", "blue"]})
    (promise,) = await until(lambda: world.gate.promises.waiting())
    assert (promise.question, promise.resolver) == ("Which one?", "operator")
    other = await world.caller(ALL, node="review", agent="critic")
    refused = await world.call(other, "promise.resolve", {"promise": promise.id, "value": "red"})
    assert refused.value["code"] == "promise.operator"
    with pytest.raises(RefusedError, match="choices"):
        await world.gate.promises.resolve(promise.id, "green", "operator:1000")
    await world.gate.promises.resolve(promise.id[:9], "red", "operator:1000")
    assert (await asking).value == {"value": "red", "by": "operator:1000"}
    (resolved,) = world.events("promise.resolved")
    assert (resolved.actor, resolved.provenance.label) == ("operator:1000", "user")


async def test_a_question_is_asked_once_however_often_the_attempt_begins_again(world: World) -> None:
    caller = await world.caller(ALL)
    world.begin(caller, "input.ask", {"question": "Go on?"}, index=0)
    await until(lambda: world.gate.promises.waiting())
    await world.restart()
    caller = await world.caller(ALL)
    asking = world.begin(caller, "input.ask", {"question": "Go on?"}, index=0)
    (promise,) = world.gate.promises.waiting()
    await world.gate.promises.resolve(promise.id, True, "operator:1000")
    assert (await asking).value["value"] is True
    assert len(world.payloads("promise.created")) == 1


# --- what is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("op", "args", "grant"),
    [
        ("promise.create", {"timeout_ms": 1}, '["await", "resolve", "ask"]'),
        ("promise.await", {"promise": "pr_0"}, '["create", "resolve", "ask"]'),
        ("promise.resolve", {"promise": "pr_0", "value": 1}, '["create", "await", "ask"]'),
        ("input.ask", {"question": "?"}, '["create", "await", "resolve"]'),
    ],
)
async def test_each_op_needs_its_own_right(world: World, op: str, args: dict[str, Any], grant: str) -> None:
    for caps in (f"promises = {grant}", 'kb_read = ["notes"]'):
        caller = await world.caller(caps, node=f"n{len(caps)}")
        answer = await world.call(caller, op, args)
        assert (answer.ok, answer.value["code"]) == (False, "cap.denied")
    assert facts(world) == []


@pytest.mark.parametrize(
    "args",
    [
        {"timeout_ms": 0},
        {"timeout_ms": -1},
        {"timeout_ms": 366 * 86_400_000 + 1},
        {"timeout_ms": 1, "question": "x" * 4_001},
        {"timeout_ms": 1, "choices": [""]},
        {"timeout_ms": 1, "choices": ["x"] * 33},
        {"timeout_ms": 1, "choices": ["x" * 201]},
        {"timeout_ms": 1, "resolver": "anybody"},
        {"timeout_ms": 1, "approval": "ap_1"},
    ],
)
async def test_what_cannot_be_promised_is_refused(world: World, args: dict[str, Any]) -> None:
    answer = await world.call(await world.caller(ALL), "promise.create", args)
    assert (answer.ok, answer.value["code"]) == (False, "op.args")


async def test_a_promise_of_another_run_does_not_exist(world: World) -> None:
    """Nor does one by the beginning of its id: a guest cannot feel its way."""
    caller, promise = await made(world)
    world.gate.promises.find(promise).run = "another"
    for op, args in (("promise.await", {}), ("promise.resolve", {"value": 1})):
        for name in (promise, promise[:12], promise[3:], "", "pr_"):
            answer = await world.call(caller, op, {"promise": name, **args})
            assert (answer.ok, answer.value["code"]) == (False, "promise.unknown")


async def test_a_value_is_bounded(world: World) -> None:
    caller, promise = await made(world)
    answer = await world.call(caller, "promise.resolve", {"promise": promise, "value": "x" * 262_144})
    assert answer.value["code"] == "promise.size"
    with pytest.raises(UsageError):
        await world.gate.promises.resolve(promise, 2**60, "operator:1000")
    assert (await world.call(caller, "promise.resolve", {"promise": promise, "value": 1})).ok


async def test_the_quota_of_promises_ends_the_attempt(world: World) -> None:
    world.quotas._agents = quotas(promises=2)._agents
    caller = await world.caller(ALL)
    for number in (1, 2):
        assert (await world.call(caller, "promise.create", {"timeout_ms": number})).ok
    answer = await world.call(caller, "promise.create", {"timeout_ms": 3})
    assert answer.value["code"] == "quota.exceeded"
    assert [p.resource for p in world.payloads("quota.exceeded")] == ["promises"]


async def test_when_its_run_ends_an_open_promise_ends_with_it(world: World) -> None:
    _, promise = await made(world)
    await world.end_run()
    await world.gate.promises.close()
    (over,) = world.payloads("promise.timed_out")
    assert (over.promise, over.reason) == (promise, "run_over")
    with pytest.raises(NotFoundError):
        await world.gate.promises.resolve(promise, 1, "operator:1000")


async def test_a_word_that_could_not_be_recorded_was_never_said(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    caller, promise = await made(world)
    real = world.ledger.commit

    def full(*args: Any, **more: Any) -> Any:
        raise OSError(28, "no space left on device")

    monkeypatch.setattr(world.ledger, "commit", full)
    failed = await world.call(caller, "promise.resolve", {"promise": promise, "value": 1})
    assert not failed.ok
    monkeypatch.setattr(world.ledger, "commit", real)
    assert [p.state for p in world.gate.promises.waiting()] == ["open"]
    answer = await world.call(caller, "promise.resolve", {"promise": promise, "value": 2})
    assert answer.ok
    assert [p.value for p in world.payloads("promise.resolved")] == [2]


async def test_what_a_stopped_attempt_waited_for_stays_open(world: World) -> None:
    caller, promise = await made(world)
    for op, args in (("promise.await", {"promise": promise}), ("input.ask", {"question": "?"})):
        waiting = world.begin(caller, op, args)
        await until(lambda: len(world.gate.promises.waiting()) >= 1)
        await asyncio.sleep(0.01)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
    await world.gate.close()
    assert {p.state for p in world.gate.promises.waiting()} == {"open"}
    assert RUN in {p.run for p in world.gate.promises.waiting()}


async def test_long_words_of_agents_keep_nobody_from_seeing_what_waits(world: World) -> None:
    """A thousand promises of the largest kind are one answer: a frame has room for it."""
    choices = [f"{number:0200}" for number in range(32)]
    _, told = await made(world, question="\u20ac" * 4_000, choices=choices)
    rows = PromiseMethods(world.gate.promises, world.knowledge).rows()
    methods = {name: (params, call) for name, params, call, _ in rows}

    async def listed(**asked: Any) -> Any:
        params, call = methods["promise.list"]
        (found,) = (await call(OPERATOR, params(**asked)))["promises"]
        assert found["promise"] == told
        assert 1_000 * len(canonical(found)) < MAX_BODY
        return found

    assert (await listed())["question"] == (await listed(all=True))["question"] == "\u20ac" * 400
    await world.gate.promises.resolve(told, choices[7], "operator:1000")
    await listed(all=True)
    params, call = methods["promise.show"]
    shown = await call(OPERATOR, params(promise=told))
    assert (shown["question"], shown["choices"], shown["value"]) == ("\u20ac" * 4_000, choices, choices[7])
    _, other = await made(world, question="again")
    await world.gate.promises.resolve(other, "v" * 200_000, "operator:1000")
    params, call = methods["promise.list"]
    newest = (await call(OPERATOR, params(all=True)))["promises"][0]
    assert (newest["promise"], newest["value"]) == (other, None)


# --- what no agent is told: C11 -----------------------------------------------------------------------


@pytest.mark.requirement("C11")
@pytest.mark.parametrize("op", ["input.ask", "promise.create"])
@pytest.mark.parametrize(
    "question",
    ["Type your password, please", "P I N ?", "pаsswоrd", "Ihr Kennwort?", "the API-key of the mail server"],
    ids=["plain", "apart", "look-alikes", "german", "key"],
)
async def test_an_agent_that_asks_a_person_for_a_secret_is_refused_before_anybody_sees_it(
    world: World, op: str, question: str
) -> None:
    caller = await world.caller(ALL)
    args = {"question": question} | (
        {} if op == "input.ask" else {"timeout_ms": 1_000, "resolver": "operator"}
    )
    answer = await asyncio.wait_for(world.begin(caller, op, args), 10)
    assert (answer.ok, answer.value["code"]) == (False, "promise.secret")
    assert world.payloads("promise.created") == []


async def test_a_question_with_fixed_answers_may_name_what_nobody_can_type_there(world: World) -> None:
    caller = await world.caller(ALL)
    question = {"question": "Shall the password page be renewed?", "choices": ["yes", "no"]}
    world.begin(caller, "input.ask", question)
    await until(lambda: world.payloads("promise.created"))

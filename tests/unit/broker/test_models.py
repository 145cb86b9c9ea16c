"""Asking a model: money, tokens, streams, crashes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from runloop.errors import RefusedError
from runloop.events import ModelCalled
from runloop.testing import ManualClock
from runloopd.broker.ports import ModelCallError

from .world import World, ask, quotas, until, within


@pytest.mark.requirement("I2.ledger.3", "I2.models.5")
async def test_a_completion_is_admitted_before_and_delivered_with_its_cost_after(world: World) -> None:
    world.models.micro_usd = 7
    caller = await world.caller('model = ["local:*"]')
    answer = await world.call(caller, "model.complete", ask("hello"))
    assert answer.ok and answer.value["text"] == "hello"
    assert answer.value["cost_micro_usd"] == 7
    assert world.kinds() == ["hostcall.admitted", "model.called", "hostcall.delivered"]
    (called,) = world.payloads("model.called")
    assert (called.cost_micro_usd, called.reserved_micro_usd, called.price_version) == (7, 7, "test-1")
    assert world.reader.blob(called.answer_digest) == b"hello"


async def test_a_model_beyond_the_grant_is_refused_before_anything_is_sent(world: World) -> None:
    caller = await world.caller('model = ["rules:*"]')
    answer = await world.call(caller, "model.complete", ask("hello"))
    assert answer.value["code"] == "cap.denied"
    assert world.models.calls == []
    assert world.kinds() == ["hostcall.delivered"]


async def test_a_route_that_ignores_the_grant_is_caught_by_the_gate(world: World) -> None:
    caller = await world.caller('model = ["rules:*"]')
    honest = world.models.estimate

    async def careless(request: object, permits: object, **more: object) -> object:
        return await honest(request, lambda _: True, **more)  # type: ignore[arg-type]

    world.models.estimate = careless  # type: ignore[method-assign,assignment]
    answer = await world.call(caller, "model.complete", ask("hello"))
    assert answer.value["code"] == "cap.denied"
    assert world.models.calls == []


@pytest.mark.requirement("K6", "K7")
async def test_five_hundred_parallel_calls_never_pass_the_cap(tmp_path: Path) -> None:
    world = await World(tmp_path, ManualClock(), quotas=quotas(run_micro_usd=1_000, calls=10_000)).start()
    await world.run()
    world.models.micro_usd = 30
    world.models.gate = asyncio.Event()
    callers = [await world.caller(node=f"n{n}", agent=f"agent{n}") for n in range(20)]
    calls = [world.begin(caller, "model.complete", ask(f"q{n}")) for n in range(25) for caller in callers]
    await until(lambda: len(world.models.calls) == 33 and sum(c.done() for c in calls) == 500 - 33)
    world.models.gate.set()
    answers = await within(asyncio.gather(*calls), 60)
    assert sum(answer.ok for answer in answers) == 33
    assert {a.value["code"] for a in answers if not a.ok} == {"budget.exceeded"}
    spent = sum(called.cost_micro_usd for called in world.payloads("model.called"))
    assert spent == 990
    await world.stop()


@pytest.mark.requirement("K6", "I2.models.5")
async def test_what_was_reserved_and_not_spent_is_there_again(tmp_path: Path) -> None:
    world = await World(tmp_path, ManualClock(), quotas=quotas(run_micro_usd=100)).start()
    await world.run()
    world.models.micro_usd, world.models.spends = 60, 10
    caller = await world.caller()
    for n in range(5):  # the last one reserves exactly what is left: 40 spent + 60
        assert (await world.call(caller, "model.complete", ask(f"q{n}"))).ok
    assert not (await world.call(caller, "model.complete", ask("q5"))).ok
    await world.stop()


async def test_the_runs_own_budget_is_the_limit(tmp_path: Path) -> None:
    world = await World(tmp_path, ManualClock()).start()
    await world.run(policy={"budget_micro_usd": 5, "budget_tokens": None})
    world.models.micro_usd = 6
    answer = await world.call(await world.caller(), "model.complete", ask("hello"))
    assert answer.value["code"] == "budget.exceeded"
    (exceeded,) = world.payloads("quota.exceeded")
    assert (exceeded.resource, exceeded.limit, exceeded.used) == ("run.micro_usd", 5, 0)
    await world.stop()


async def test_a_nodes_token_budget_binds_all_its_attempts(tmp_path: Path) -> None:
    world = await World(tmp_path, ManualClock()).start()
    await world.run(nodes=[{"id": "draft", "budget_tokens": 103}])
    first = await world.caller(attempt=1)
    assert (await world.call(first, "model.complete", ask("hello!", max_tokens=100))).ok
    second = await world.caller(attempt=2)
    answer = await world.call(second, "model.complete", ask("other!", max_tokens=100))
    assert answer.value["code"] == "budget.exceeded"
    assert "node.draft.tokens" in answer.value["message"]
    other = await world.caller(node="review")
    assert (await world.call(other, "model.complete", ask("hello!", max_tokens=100))).ok
    await world.stop()


async def test_a_warning_comes_once_when_the_budget_nears_its_end(tmp_path: Path) -> None:
    world = await World(tmp_path, ManualClock(), quotas=quotas(run_micro_usd=100)).start()
    await world.run()
    world.models.micro_usd = 45
    caller = await world.caller()
    await world.call(caller, "model.complete", ask("a"))
    await world.call(caller, "model.complete", ask("b"))
    (warned,) = world.payloads("quota.warned")
    assert (warned.resource, warned.used) == ("run.micro_usd", 90)
    await world.stop()


async def test_spending_counts_on_after_a_restart(tmp_path: Path) -> None:
    world = await World(tmp_path, ManualClock(), quotas=quotas(run_micro_usd=100)).start()
    await world.run()
    world.models.micro_usd = 60
    assert (await world.call(await world.caller(), "model.complete", ask("a"))).ok
    await world.restart()
    answer = await world.call(await world.caller(), "model.complete", ask("b"))
    assert answer.value["code"] == "budget.exceeded"
    await world.stop()


async def test_a_retry_of_the_node_hears_the_answer_it_has_paid_for(world: World) -> None:
    world.models.micro_usd = 5
    first = await world.call(await world.caller(attempt=1), "model.complete", ask("hello"))
    second = await world.call(await world.caller(attempt=2), "model.complete", ask("hello"))
    assert second == first
    assert len(world.models.calls) == 1
    assert len(world.payloads("model.called")) == 1
    assert len(world.payloads("hostcall.delivered")) == 2


async def test_the_same_question_twice_in_one_attempt_is_asked_twice(world: World) -> None:
    caller = await world.caller()
    await world.call(caller, "model.complete", ask("hello"))
    await world.call(caller, "model.complete", ask("hello"))
    assert len(set(world.models.calls)) == 2


async def test_after_a_crash_the_ordinal_counts_the_calls_on_record(world: World) -> None:
    caller = await world.caller()
    await world.call(caller, "model.complete", ask("hello"))
    await world.restart()
    caller = await world.caller()
    # Call 0 is served from the record by the runs service; the gate hears call 1 first.
    await world.call(caller, "model.complete", ask("hello"), index=1)
    assert len(set(world.models.calls)) == 2


@pytest.mark.requirement("K6")
async def test_a_call_cut_by_a_crash_is_booked_at_its_reservation_when_it_is_asked_again(
    world: World,
) -> None:
    world.models.micro_usd = 50
    caller = await world.caller()
    world.models.gate = asyncio.Event()
    world.begin(caller, "model.complete", ask("hello"))
    await until(lambda: world.models.calls)
    world.journal._closed = True  # power goes: nothing more reaches the ledger
    await world.stop()
    world.journal._closed = False
    await world.journal.close()
    world.models.gate = None
    await world.start()
    assert world.kinds() == ["hostcall.admitted"]

    answer = await world.call(await world.caller(), "model.complete", ask("hello"), index=0)
    assert answer.ok
    lost, called = world.payloads("model.called")
    assert (lost.finish, lost.cost_micro_usd, lost.generated) == ("unknown_outcome", 50, False)
    assert called.cost_micro_usd == 50
    run = world.gate._record.run(caller.run)
    assert run is not None and run.purse.spent_micro_usd == 100 and run.purse.held_micro_usd == 0


async def test_a_lost_call_that_the_budget_cannot_bear_twice_is_refused_and_booked(tmp_path: Path) -> None:
    world = await World(tmp_path, ManualClock(), quotas=quotas(run_micro_usd=80)).start()
    await world.run()
    world.models.micro_usd = 50
    world.models.gate = asyncio.Event()
    world.begin(await world.caller(), "model.complete", ask("hello"))
    await until(lambda: world.models.calls)
    world.journal._closed = True
    await world.stop()
    world.journal._closed = False
    await world.journal.close()
    await world.start()
    answer = await world.call(await world.caller(), "model.complete", ask("hello"), index=0)
    assert answer.value["code"] == "budget.exceeded"
    assert [called.finish for called in world.payloads("model.called")] == ["unknown_outcome"]
    assert len(world.models.calls) == 1
    await world.stop()


async def test_a_failure_whose_cost_is_unknown_is_booked_whole(world: World) -> None:
    world.models.micro_usd = 9
    world.models.fails.append(ModelCallError("cut", code="model.cut", retryable=True, cost_micro_usd=None))
    answer = await world.call(await world.caller(), "model.complete", ask("hello"))
    assert (answer.value["code"], answer.value["retryable"]) == ("model.cut", True)
    (called,) = world.payloads("model.called")
    assert (called.finish, called.cost_micro_usd) == ("model.cut", 9)


async def test_a_failure_that_cost_nothing_books_nothing(world: World) -> None:
    world.models.micro_usd = 9
    world.models.fails.append(ModelCallError("no route", cost_micro_usd=0))
    caller = await world.caller()
    await world.call(caller, "model.complete", ask("hello"))
    assert world.payloads("model.called") == []
    run = world.gate._record.run(caller.run)
    assert run is not None and run.purse.held_micro_usd == 0


async def test_a_failed_call_is_made_again_by_the_next_attempt(world: World) -> None:
    world.models.fails.append(ModelCallError("busy", retryable=True))
    assert not (await world.call(await world.caller(attempt=1), "model.complete", ask("x"))).ok
    assert (await world.call(await world.caller(attempt=2), "model.complete", ask("x"))).ok


async def test_a_refusal_of_the_broker_is_told_and_gives_back_what_was_held(world: World) -> None:
    world.models.micro_usd = 9
    world.models.fails.append(RefusedError("too dear", code="budget.exceeded"))
    caller = await world.caller()
    answer = await world.call(caller, "model.complete", ask("hello"))
    assert answer.value["code"] == "budget.exceeded"
    run = world.gate._record.run(caller.run)
    assert run is not None and run.purse.held_micro_usd == 0


@pytest.mark.requirement("K6")
async def test_negative_usage_is_replaced_by_the_reservation(world: World) -> None:
    world.models.micro_usd, world.models.spends = 9, -5
    await world.call(await world.caller(), "model.complete", ask("hello"))
    (called,) = world.payloads("model.called")
    assert (called.cost_micro_usd, called.estimated) == (9, True)


async def test_a_cost_beyond_the_reservation_is_on_record_as_it_is(world: World) -> None:
    world.models.micro_usd, world.models.spends = 9, 900
    await world.call(await world.caller(), "model.complete", ask("hello"))
    assert world.payloads("model.called")[0].cost_micro_usd == 900


async def test_a_model_that_does_not_answer_is_cut_at_the_deadline_and_booked(world: World) -> None:
    world.models.micro_usd = 9
    world.models.gate = asyncio.Event()
    call = world.begin(await world.caller(), "model.complete", ask("hello"))
    await until(lambda: world.models.calls)
    world.clock.advance(120_000)
    answer = await within(call)
    assert (answer.value["code"], answer.value["retryable"]) == ("model.deadline", True)
    assert world.payloads("model.called")[0].cost_micro_usd == 9


async def test_an_attempt_that_is_stopped_cuts_its_model_call_and_books_it(world: World) -> None:
    world.models.micro_usd = 9
    world.models.gate = asyncio.Event()
    call = world.begin(await world.caller(), "model.complete", ask("hello"))
    await until(lambda: world.models.calls)
    call.cancel()
    await until(lambda: world.payloads("hostcall.delivered"))
    assert [c.finish for c in world.payloads("model.called")] == ["model.cancelled"]


async def test_a_streamed_answer_is_read_in_pieces_and_shown_as_it_arrives(world: World) -> None:
    world.models.parts = 3
    caller = await world.caller()
    answer = await world.call(caller, "model.complete", ask("abcdef", stream=True))
    assert answer.value["stream"] == "s0" and "text" not in answer.value
    pieces = [await world.call(caller, "msg.next", {"stream": "s0"}) for _ in range(4)]
    assert [p.value for p in pieces] == [{"item": "ab"}, {"item": "cd"}, {"item": "ef"}, {"done": True}]
    assert [delta.text for delta in world.deltas] == ["ab", "cdef"], "the first at once, the rest gathered"


async def test_a_flood_of_pieces_is_shown_in_few_frames_and_nothing_is_lost(world: World) -> None:
    text = "x\n" * 50_000
    world.models.parts = len(text)
    assert (await world.call(await world.caller(), "model.complete", ask(text))).ok
    assert "".join(delta.text for delta in world.deltas) == text
    assert len(world.deltas) <= len(text) // 4096 + 2
    assert max(len(delta.text) for delta in world.deltas) <= 4096


async def test_one_great_piece_is_shown_in_frames_of_bounded_size(world: World) -> None:
    assert (await world.call(await world.caller(), "model.complete", ask("x" * 10_000))).ok
    assert [len(delta.text) for delta in world.deltas] == [4096, 4096, 1808]


async def test_what_arrives_slowly_is_shown_as_it_arrives_and_the_rest_when_the_model_fails(
    world: World,
) -> None:
    async def slow(request: object, *, on_delta: Callable[[str], None], **_: object) -> object:
        for piece, ms in (("a", 49), ("b", 1), ("c", 10), ("d", -1_000), ("e", 0)):
            on_delta(piece)
            world.clock.advance(ms)
        assert [delta.text for delta in world.deltas] == ["a", "bc", "de"]
        on_delta("x" * 4_096)
        assert len(world.deltas) == 4, "much is shown at once"
        on_delta("f")
        raise ModelCallError("no more", code="model.cut")

    world.models.complete = slow  # type: ignore[method-assign,assignment]
    assert not (await world.call(await world.caller(), "model.complete", ask("hello"))).ok
    assert [delta.text for delta in world.deltas] == ["a", "bc", "de", "x" * 4_096, "f"]


async def test_a_stream_goes_on_where_it_was_after_a_restart(world: World) -> None:
    world.models.parts = 3
    caller = await world.caller()
    await world.call(caller, "model.complete", ask("abcdef", stream=True))
    await world.call(caller, "msg.next", {"stream": "s0"})
    await world.restart()
    caller = await world.caller()
    assert (await world.call(caller, "msg.next", {"stream": "s0"}, index=2)).value == {"item": "cd"}


async def test_a_stream_that_does_not_exist_cannot_be_read(world: World) -> None:
    caller = await world.caller()
    await world.call(caller, "model.complete", ask("abc"))
    for name in ("s0", "s9", "x", "s", "s-1", "s²"):
        answer = await world.call(caller, "msg.next", {"stream": name})
        assert answer.value["code"] == "stream.absent"


async def test_a_fallback_is_told_to_the_guest(world: World) -> None:
    honest = world.models.complete

    async def second_choice(*args: object, **more: object) -> object:
        answer = await honest(*args, **more)  # type: ignore[arg-type]
        return replace(answer, fallbacks=("openai:x: 500",))

    world.models.complete = second_choice  # type: ignore[method-assign,assignment]
    answer = await world.call(await world.caller(), "model.complete", ask("hello"))
    assert answer.value["fallbacks"] == ["openai:x: 500"]


async def test_a_completion_without_a_question_or_length_is_refused(world: World) -> None:
    caller = await world.caller()
    for args in ({"messages": []}, ask("x", max_tokens=0), ask("x", max_tokens=10**6)):
        assert (await world.call(caller, "model.complete", args)).value["code"] == "op.args"
    assert world.models.calls == []


async def test_the_causes_of_a_completion_are_the_answers_the_guest_has_seen(world: World) -> None:
    caller = await world.caller()
    await world.call(caller, "time.now")
    await world.call(caller, "memory.get", {"key": "tone"})
    await world.call(caller, "model.complete", ask("hello"))
    read = world.events("hostcall.delivered")[1]
    (mark,) = world.events("hostcall.admitted")
    assert mark.provenance.causes == (caller.scheduled_id, read.id)
    (called,) = world.events("model.called")
    assert isinstance(called.payload, ModelCalled)
    assert mark.id in called.provenance.causes
    assert called.provenance.label == "model:local"

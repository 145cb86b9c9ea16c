"""Patterns of collaboration: no order of arrival, no late or missing word breaks the rule of an outcome."""

from __future__ import annotations

from collections.abc import Callable
from itertools import permutations
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runloop import collab
from runloop.agent import Fail
from runloop.collab import ALL, MAJORITY, WHOEVER, Elected, Refuse, Room, first
from runloop.collab.room import order

from .world import Agent, World

SEEDS = st.integers(0, 2**32)
TOPIC = "talk/all"


def play(seed: int, agents: dict[str, Agent], **delays: int) -> dict[str, Any]:
    world = World(seed)
    world.delays = delays
    given = world.play(agents)
    for value in given.values():
        if isinstance(value, BaseException) and not isinstance(value, Fail):
            raise value
    return given


def node(name: str) -> str:
    return f"node/{name}"


def listener(room: Room) -> None:
    """Hears, and never says a word."""
    while room.take(lambda message: True) is not None:
        pass


# --- fan-out, fan-in ------------------------------------------------------------------------------


def asker(enough: collab.Enough, names: list[str], within_ms: int | None = None) -> Agent:
    def agent(room: Room) -> collab.FanIn:
        asked = collab.fan_out(room, map(node, names), 21, within_ms=within_ms)
        return collab.fan_in(room, asked, enough)

    return agent


def doubling(room: Room) -> Any:
    return collab.serve(room, lambda n: n * 2).to_json()


def refusing(room: Room) -> Any:
    def no(_: Any) -> Any:
        raise Refuse("not today")

    return collab.serve(room, no).to_json()


def failing(room: Room) -> Any:
    def no(_: Any) -> Any:
        raise Fail("test.cannot", "cannot")

    return collab.serve(room, no).to_json()


@given(SEEDS)
@settings(max_examples=40, deadline=None)
def test_all_of_those_who_were_asked_are_heard_in_the_order_they_were_asked(seed: int) -> None:
    names = ["cid", "ann", "bob"]
    heard = play(seed, {"eve": asker(ALL, names), **dict.fromkeys(names, doubling)})
    assert heard["eve"].met
    assert list(heard["eve"].contents().items()) == [(node(name), 42) for name in names]
    assert heard["ann"] == {"answered": 1, "refused": 0, "failed": 0, "late": 0}


@given(SEEDS, st.integers(1, 4))
@settings(max_examples=40, deadline=None)
def test_the_first_k_are_exactly_k_and_those_that_were_said_first(seed: int, k: int) -> None:
    names = ["ann", "bob", "cid"]
    world = World(seed)
    came = world.play({"eve": asker(first(k), names), **dict.fromkeys(names, doubling)})["eve"]
    answers = [node(fact.node) for fact in world.said if fact.in_reply_to]
    assert (came.met, came.ended) == ((True, "enough") if k <= 3 else (False, "impossible"))
    assert list(came.answers) == (answers[:k] if k <= 3 else [])


@given(SEEDS, st.lists(st.sampled_from(["yes", "no", "mute"]), min_size=1, max_size=6))
@settings(max_examples=80, deadline=None)
def test_a_majority_of_answers_is_strictly_more_than_half_of_those_expected(
    seed: int, kinds: list[str]
) -> None:
    agents: dict[str, Agent] = {"yes": doubling, "no": refusing, "mute": listener}
    names = [f"n{place}" for place in range(len(kinds))]
    came = play(
        seed, {"eve": asker(MAJORITY, names), **{n: agents[k] for n, k in zip(names, kinds, strict=True)}}
    )["eve"]
    assert came.met is (2 * kinds.count("yes") > len(kinds))
    assert len(came.answers) + len(came.refusals) + len(came.missing) == len(kinds)
    if not came.met:
        assert came.ended in ("impossible", "silent")


@given(SEEDS, st.integers(0, 3))
@settings(max_examples=40, deadline=None)
def test_complete_or_timeout_takes_exactly_those_who_answered_in_time(seed: int, slow: int) -> None:
    names = ["ann", "bob", "cid"]
    late = names[:slow]
    came = play(
        seed,
        {"eve": asker(WHOEVER, names, 5_000), **dict.fromkeys(names, doubling)},
        **dict.fromkeys(late, 9_000),
    )["eve"]
    assert came.met
    assert came.ended == ("late" if slow else "enough")
    assert sorted(came.missing) == sorted(map(node, late))
    assert sorted(came.answers) == sorted(map(node, names[slow:]))


def test_one_refusal_ends_a_fan_in_that_needs_all_and_a_failure_is_no_answer() -> None:
    came = play(1, {"eve": asker(ALL, ["ann", "bob"]), "ann": failing, "bob": listener})["eve"]
    assert (came.met, came.ended, came.missing) == (False, "impossible", ["node/bob"])
    assert came.refusals["node/ann"]["content"]["code"] == "test.cannot"


def test_a_message_for_another_wait_is_kept_for_it() -> None:
    def eve(room: Room) -> Any:
        one, two = (collab.fan_out(room, ["node/ann"], n) for n in (1, 2))
        return [collab.fan_in(room, two).values(), collab.fan_in(room, one).values(), room.kept]

    assert play(3, {"eve": eve, "ann": doubling})["eve"] == [[4], [2], []]


def test_a_topic_needs_to_know_who_answers() -> None:
    def eve(room: Room) -> Any:
        return collab.fan_in(room, collab.fan_out(room, [TOPIC], 1))

    assert play(3, {"eve": eve, "ann": doubling})["eve"].code == "collab.expected"


@given(SEEDS)
@settings(max_examples=20, deadline=None)
def test_forty_are_asked_in_as_many_conversations_so_that_none_becomes_too_deep(seed: int) -> None:
    names = [f"n[{place}]" for place in range(40)]
    world = World(seed)
    came = world.play({"eve": asker(ALL, names), **dict.fromkeys(names, doubling)})["eve"]
    assert came.met
    assert came.values() == [42] * 40
    assert len({fact.conversation for fact in world.said}) == 40


@given(SEEDS)
@settings(max_examples=20, deadline=None)
@pytest.mark.requirement("I5.collab.1")
def test_an_answer_of_somebody_who_was_not_expected_counts_for_nothing(seed: int) -> None:
    def eve(room: Room) -> Any:
        return collab.fan_in(room, collab.fan_out(room, [TOPIC], 21), expected=["node/ann"])

    came = play(seed, {"eve": eve, "ann": listener, "bob": doubling})["eve"]
    assert (came.met, came.ended, came.answers) == (False, "silent", {})
    assert came.missing == ["node/ann"]


@given(SEEDS)
@settings(max_examples=20, deadline=None)
@pytest.mark.requirement("I5.collab.1")
def test_what_was_sent_in_time_counts_however_late_one_looks_and_what_was_not_never(seed: int) -> None:
    def eve(room: Room) -> Any:
        due_ms = room.due(1_000)
        room.take(lambda one: one["from"] == "node/cid")
        heard = [room.take(lambda one: one["content"] == "word", due_ms) for _ in range(2)]
        return [None if one is None else one["from"] for one in heard]

    def says(room: Room) -> None:
        room.host.publish("node/eve", "word")

    given = play(seed, {"eve": eve, **dict.fromkeys(("ann", "bob", "cid"), says)}, bob=3_000, cid=5_000)
    assert given["eve"] == ["node/ann", None]


# --- barrier --------------------------------------------------------------------------------------


@given(SEEDS, st.integers(2, 6), st.lists(st.integers(0, 50), min_size=6, max_size=6))
@settings(max_examples=60, deadline=None)
def test_a_barrier_lets_nobody_through_before_everybody_has_come(
    seed: int, count: int, delays: list[int]
) -> None:
    names = [f"n{place}" for place in range(count)]
    world = World(seed)
    world.delays = dict(zip(names, delays, strict=False))
    came: list[tuple[str, int]] = []
    through: list[tuple[int, int]] = []

    def member(name: str) -> Agent:
        def agent(room: Room) -> Any:
            for number in (1, 2, 3):
                came.append((name, number))
                collab.barrier(room, TOPIC, map(node, names), number=number)
                through.append((number, len({who for who, passed in came if passed == number})))
            return None

        return agent

    given = world.play({name: member(name) for name in names})
    assert set(given.values()) == {None}, given
    assert through
    assert {here for _, here in through} == {count}


@given(SEEDS)
@settings(max_examples=20, deadline=None)
@pytest.mark.requirement("I5.collab.2")
def test_who_stands_at_another_passage_has_not_come_to_this_one(seed: int) -> None:
    def at(number: int) -> Agent:
        return lambda room: collab.barrier(room, TOPIC, ["node/ann", "node/bob"], number=number)

    apart = play(seed, {"ann": at(1), "bob": at(2)})
    assert [one.code for one in apart.values()] == ["collab.barrier"] * 2


@given(SEEDS)
@settings(max_examples=30, deadline=None)
def test_a_barrier_breaks_where_somebody_never_comes(seed: int) -> None:
    names = ["ann", "bob", "cid"]

    def member(room: Room) -> Any:
        return collab.barrier(room, TOPIC, map(node, names))

    broken = play(seed, {"ann": member, "bob": member, "cid": listener})
    assert [broken[name].code for name in ("ann", "bob")] == ["collab.barrier"] * 2
    assert "missing: node/cid" in broken["ann"].message
    timed = play(
        seed,
        {
            "ann": lambda room: collab.barrier(room, TOPIC, map(node, names), within_ms=50),
            "cid": listener,
            "bob": listener,
        },
    )
    assert "missing: node/bob, node/cid" in timed["ann"].message


# --- contract net ---------------------------------------------------------------------------------


def caller(bidders: Any, **more: Any) -> Agent:
    return lambda room: collab.contract(room, TOPIC, {"load": 3}, bidders=bidders, **more)


def bidder(price: Any, works: bool = True) -> Agent:
    def work(task: Any, offer: Any) -> Any:
        if not works:
            raise Fail("test.broken", "broken")
        return {"cost": task["load"] * offer["price"]}

    return lambda room: collab.bid(
        room, lambda task: None if price is None else {"price": price}, work
    ).to_json()


@given(SEEDS, st.lists(st.one_of(st.none(), st.integers(1, 5)), min_size=1, max_size=8))
@settings(max_examples=80, deadline=None)
def test_the_lowest_bid_of_the_smallest_id_wins_whoever_was_faster(seed: int, prices: list[Any]) -> None:
    names = [f"b[{place}]" for place in range(len(prices))]
    lives = play(
        seed,
        {"eve": caller(list(map(node, names))), **{n: bidder(p) for n, p in zip(names, prices, strict=True)}},
    )
    award = lives["eve"]
    offered = [(price, place) for place, price in enumerate(prices) if price is not None]
    if not offered:
        assert (award.outcome, award.contractor, award.bids) == ("no_bid", None, 0)
        return
    price, place = min(offered)
    assert (award.outcome, award.contractor) == ("done", f"node/b[{place}]")
    assert award.result == {"cost": 3 * price}
    assert sum(lives[name]["done"] for name in names) == 1
    assert sum(lives[name]["lost"] for name in names) == len(offered) - 1


@given(SEEDS)
@settings(max_examples=40, deadline=None)
def test_a_late_bid_is_refused_by_the_host_and_a_missing_one_is_not_waited_for(seed: int) -> None:
    names = ["ann", "bob", "cid"]
    lives = play(
        seed,
        {
            "eve": caller(list(map(node, names)), within_ms=2_000),
            "ann": bidder(1),
            "bob": listener,
            "cid": bidder(9),
        },
        ann=3_000,
    )
    assert (lives["eve"].contractor, lives["eve"].bids) == ("node/cid", 1)
    if lives["ann"]["calls"]:  # it may also have come when all was over
        assert (lives["ann"]["bids"], lives["ann"]["late"]) == (0, 1)


@given(SEEDS)
@settings(max_examples=40, deadline=None)
def test_who_was_taken_and_fails_is_left_out_of_the_next_round(seed: int) -> None:
    names = ["ann", "bob", "cid"]
    award = play(
        seed,
        {
            "eve": caller(list(map(node, names)), rounds=4),
            "ann": bidder(1, works=False),
            "bob": bidder(2, works=False),
            "cid": bidder(3),
        },
    )["eve"]
    assert (award.outcome, award.rounds, award.contractor) == ("done", 3, "node/cid")
    assert award.failures == (("node/ann", "failure"), ("node/bob", "failure"))
    failed = play(seed, {"eve": caller(["node/ann"], rounds=3), "ann": bidder(1, works=False)})["eve"]
    assert (failed.outcome, failed.rounds) == ("failed", 3)


@given(SEEDS)
@settings(max_examples=30, deadline=None)
def test_terms_may_be_better_in_the_next_round_and_a_result_may_be_late(seed: int) -> None:
    def picky(room: Room) -> Any:
        return collab.bid(
            room, lambda task: {"price": 4} if task["load"] < 3 else None, lambda task, _: task["load"]
        ).to_json()

    award = play(
        seed,
        {"eve": caller(1, rounds=3, terms=lambda task, number: {"load": 5 - number}), "ann": picky},
    )["eve"]
    assert (award.outcome, award.rounds, award.result) == ("done", 3, 2)

    def sleeper(room: Room) -> Any:
        call = room.take(lambda one: one["act"] == "cfp")
        assert call is not None
        room.host.reply(call, {"price": 1}, act="propose")
        return listener(room)

    late = play(seed, {"eve": caller(1, work_within_ms=500), "ann": sleeper, "bob": listener})["eve"]
    assert (late.outcome, late.failures) == ("failed", (("node/ann", "late"),))


@pytest.mark.requirement("I5.collab.3")
def test_a_contract_net_with_a_hundred_bidders() -> None:
    names = [f"b[{place}]" for place in range(100)]
    price = {name: (37 * place) % 101 + 5 for place, name in enumerate(names)}
    world = World(7)
    lives = world.play({"eve": caller(100), **{name: bidder(price[name]) for name in names}})
    assert lives["eve"].contractor == node(min(names, key=lambda name: price[name]))
    assert lives["eve"].bids == 100
    acts = [fact.act for fact in world.said]
    assert {act: acts.count(act) for act in set(acts)} == {
        "cfp": 1,
        "propose": 100,
        "accept": 1,
        "reject": 99,
        "inform": 1,
    }


@pytest.mark.parametrize(
    "offer",
    [
        {"price": float("nan")},
        {"price": True},
        {"price": "1"},
        {},
        None,
        [],
        {"price": 10**400},
        {"price": 11},
    ],
)
def test_what_is_no_finite_number_or_too_much_is_no_bid(offer: Any) -> None:
    choose = collab.lowest(at_most=10)
    assert choose([("node/a", offer)]) is None
    assert choose([("node/a", offer), ("node/b", {"price": 10.0})]) == "node/b"


# --- vote -----------------------------------------------------------------------------------------


def chair(voters: list[str], within_ms: int | None = None) -> Agent:
    return lambda room: collab.put_to_vote(room, TOPIC, "move?", map(node, voters), within_ms=within_ms)


def voter(yes: bool) -> Agent:
    return lambda room: collab.vote(room, lambda motion: yes, by="node/eve")


@given(SEEDS, st.lists(st.sampled_from(["yes", "no", "mute"]), min_size=1, max_size=8))
@settings(max_examples=100, deadline=None)
@pytest.mark.requirement("I5.collab.4")
def test_a_vote_passes_with_strictly_more_than_half_of_all_and_all_hear_the_same(
    seed: int, kinds: list[str]
) -> None:
    agents: dict[str, Agent] = {"yes": voter(True), "no": voter(False), "mute": listener}
    names = [f"n{place}" for place in range(len(kinds))]
    outcome = play(seed, {"eve": chair(names), **{n: agents[k] for n, k in zip(names, kinds, strict=True)}})
    tally = outcome.pop("eve")
    assert tally.passed is (2 * kinds.count("yes") > len(kinds))
    by_kind = {
        kind: tuple(map(node, [n for n, k in zip(names, kinds, strict=True) if k == kind])) for kind in agents
    }
    assert (tally.ayes, tally.noes, tally.missing) == (by_kind["yes"], by_kind["no"], by_kind["mute"])
    # Whoever waited when nobody could speak any more, and asked again, may have gone before the outcome.
    assert {told for told in outcome.values() if told is not None} <= {tally}
    if "mute" not in kinds:
        assert set(outcome.values()) == {tally}


@given(SEEDS, st.integers(1, 4))
@settings(max_examples=40, deadline=None)
@pytest.mark.requirement("I5.collab.4")
def test_an_even_split_fails(seed: int, half: int) -> None:
    names = [f"n{place}" for place in range(2 * half)]
    votes = {name: voter(place % 2 == 0) for place, name in enumerate(names)}
    assert play(seed, {"eve": chair(names), **votes})["eve"].passed is False


def liar(outcome: dict[str, Any], act: str, content: dict[str, Any]) -> Agent:
    def agent(room: Room) -> None:
        asked = collab.fan_out(room, [TOPIC], content, act=act)
        collab.fan_in(room, asked, WHOEVER, expected=1, acts=("accept", "reject", "inform"))
        (one,) = asked.questions.values()
        room.host.publish(TOPIC, outcome, conversation=one["conversation"])

    return agent


@pytest.mark.parametrize(
    "told",
    [
        {"passed": True, "ayes": ["node/ann"], "noes": ["node/bob"], "missing": []},
        {"passed": True, "ayes": ["node/ann", "node/ann"], "noes": [], "missing": []},
        {"passed": False, "ayes": [], "noes": ["node/ann"], "missing": []},
        {"passed": True, "ayes": ["node/ann", "x"], "noes": ["x"], "missing": []},
        {"passed": True, "ayes": "node/ann", "noes": [], "missing": []},
        {"ayes": ["node/ann"], "noes": [], "missing": []},
        {"passed": 1, "ayes": ["node/ann"], "noes": [], "missing": []},
    ],
)
def test_a_voter_does_not_believe_an_outcome_that_its_own_vote_or_the_rule_denies(
    told: dict[str, Any],
) -> None:
    given = play(5, {"eve": liar(told, "propose", {"motion": 1}), "ann": voter(True)})
    assert given["ann"].code == "collab.disagreement"


# --- election -------------------------------------------------------------------------------------


@given(
    SEEDS,
    st.lists(st.sampled_from(["in", "late", "declines", "mute"]), min_size=1, max_size=7),
    st.booleans(),
)
@settings(max_examples=100, deadline=None)
@pytest.mark.requirement("I5.collab.5")
def test_all_agree_on_one_leader_and_it_is_the_smallest_or_the_highest_of_those_in_time(
    seed: int, kinds: list[str], highest: bool
) -> None:
    names = [f"n[{place}]" for place in range(len(kinds))]

    def stands(kind: str) -> Agent:
        if kind == "mute":
            return listener
        return lambda room: collab.stand(room, willing=kind != "declines", by="node/eve")

    world = World(seed)
    world.delays = {name: 9_000 for name, kind in zip(names, kinds, strict=True) if kind == "late"}
    outcome = world.play(
        {
            "eve": lambda room: collab.call_election(
                room, TOPIC, map(node, names), within_ms=4_000, highest=highest
            ),
            **{name: stands(kind) for name, kind in zip(names, kinds, strict=True)},
        }
    )
    elected = outcome.pop("eve")
    stood = [place for place, kind in enumerate(kinds) if kind == "in"]
    assert elected.stood == tuple(node(names[place]) for place in stood)
    leader = None if not stood else max(stood) if highest else min(stood)
    assert elected.leader == (None if leader is None else node(names[leader]))
    took_part = [outcome[name] for name, kind in zip(names, kinds, strict=True) if kind != "mute"]
    assert set(took_part) <= {elected}


@pytest.mark.requirement("I5.collab.5")
@pytest.mark.parametrize("arrival", list(permutations("abc")), ids="".join)
def test_the_leader_is_the_same_in_every_order_of_arrival(arrival: tuple[str, ...]) -> None:
    def eve(room: Room) -> Elected:
        return collab.call_election(room, TOPIC, map(node, "abc"), stand=True)

    delays = {name: 100 * place for place, name in enumerate(arrival, 1)}
    heard = play(1, {"eve": eve, **dict.fromkeys("abc", collab.stand)}, **delays)
    assert set(heard.values()) == {Elected("node/a", ("node/a", "node/b", "node/c", "node/eve"))}


@pytest.mark.parametrize(
    "told",
    [
        {"leader": "node/b", "stood": ["node/ann", "node/b"]},
        {"leader": "node/ann", "stood": ["node/ann", "node/ann"]},
        {"leader": None, "stood": ["node/ann"]},
        {"leader": "node/ann", "stood": "node/ann"},
        {"leader": "talk/x", "stood": ["talk/x"]},
    ],
)
def test_nobody_follows_a_leader_that_the_rule_does_not_give(told: dict[str, Any]) -> None:
    given = play(5, {"eve": liar(told, "query", {"highest": False}), "ann": collab.stand, "b": listener})
    assert given["ann"].code in ("collab.disagreement", "collab.address")


def test_who_declined_cannot_be_made_a_leader() -> None:
    told = {"leader": "node/ann", "stood": ["node/ann"]}
    agents: dict[str, Agent] = {
        "eve": liar(told, "query", {"highest": False}),
        "ann": lambda room: collab.stand(room, willing=False),
    }
    assert play(5, agents)["ann"].code == "collab.disagreement"


def test_indices_are_ordered_as_numbers() -> None:
    names = ["node/b[10]", "node/b[2]", "node/b", "node/a"]
    assert sorted(names, key=order) == ["node/a", "node/b", "node/b[2]", "node/b[10]"]


# --- consensus ------------------------------------------------------------------------------------


def member(start: float, step: float) -> Agent:
    """Accepts what is within ``step`` of what it holds, and goes half of the way otherwise."""

    def agent(room: Room) -> Any:
        held = start

        def judge(value: float) -> tuple[bool, float]:
            nonlocal held
            yes = abs(value - held) <= step
            held = held if yes else (held + value) / 2
            return yes, held

        return collab.take_part(room, lambda about: held, judge)

    return agent


def mean(positions: Any) -> float:
    return float(sum(positions.values())) / len(positions)


@given(SEEDS)
@settings(max_examples=40, deadline=None)
def test_consensus_comes_round_by_round_and_is_the_same_in_every_order(seed: int) -> None:
    starts = {"ann": 0.0, "bob": 10.0, "cid": 20.0}
    agents = {name: member(start, 2.0) for name, start in starts.items()}
    heard = play(
        seed, {"eve": lambda room: collab.seek_consensus(room, TOPIC, map(node, starts), mean), **agents}
    )
    outcome = heard["eve"]
    assert (outcome.agreed, outcome.value, outcome.rounds) == (True, 10.0, 4)
    assert set(map(repr, heard.values())) == {repr(outcome)}


@given(SEEDS)
@settings(max_examples=20, deadline=None)
def test_no_consensus_is_an_outcome_too_and_a_majority_may_be_enough(seed: int) -> None:
    starts = {"ann": 10.0, "bob": 10.0, "cid": 40.0}

    def stubborn(held: float) -> Agent:
        return lambda room: collab.take_part(room, lambda _: held, lambda value: (value == held, held))

    def eve(**more: Any) -> Agent:
        return lambda room: collab.seek_consensus(
            room, TOPIC, map(node, starts), lambda held: sorted(held.values())[len(held) // 2], **more
        )

    agents = {name: stubborn(start) for name, start in starts.items()}
    every = play(seed, {"eve": eve(rounds=3), **agents})
    assert (every["eve"].agreed, every["eve"].rounds) == (False, 3)
    most = play(seed, {"eve": eve(enough=MAJORITY), **agents})
    assert (most["eve"].agreed, most["eve"].accepted) == (True, ("node/ann", "node/bob"))
    assert most["cid"] == most["eve"]


# --- MAP_REDUCE, PIPELINE -------------------------------------------------------------------------


@given(SEEDS, st.integers(1, 4), st.integers(0, 9))
@settings(max_examples=60, deadline=None)
@pytest.mark.requirement("I5.collab.6")
def test_results_are_folded_in_the_order_of_the_items_whoever_was_faster(
    seed: int, crew: int, count: int
) -> None:
    names = [f"w{place}" for place in range(crew)]

    def eve(room: Room) -> Any:
        return collab.map_reduce(room, map(node, names), list(range(count)), lambda a, b: [*a, b], [])

    def work(room: Room) -> Any:
        return collab.serve(room, lambda one: one["item"] ** 2).to_json()["answered"]

    heard = play(seed, {"eve": eve, **dict.fromkeys(names, work)})
    value, mapped = heard["eve"]
    assert value == [n * n for n in range(count)]
    assert mapped.complete
    assert sum(heard[name] for name in names) == count


@given(SEEDS)
@settings(max_examples=40, deadline=None)
def test_what_one_worker_cannot_do_or_is_late_with_another_does(seed: int) -> None:
    def eve(room: Room) -> Any:
        return collab.map_over(
            room, map(node, ("bad", "good", "mute")), [1, 2, 3, 4], item_within_ms=300, attempts=3
        )

    def work(room: Room) -> Any:
        return collab.serve(room, lambda one: one["item"] * 10)

    mapped = play(seed, {"eve": eve, "bad": failing, "good": work, "mute": listener})["eve"]
    assert mapped.results == {0: 10, 1: 20, 2: 30, 3: 40}
    assert set(mapped.by.values()) == {"node/good"}
    assert mapped.complete


@given(SEEDS)
@settings(max_examples=20, deadline=None)
def test_what_nobody_can_do_is_named_and_what_nobody_answers_is_missing(seed: int) -> None:
    def eve(**more: Any) -> Agent:
        return lambda room: collab.map_over(room, [node("ann")], ["x", "y"], **more)

    cannot = play(seed, {"eve": eve(), "ann": failing})["eve"]
    assert (list(cannot.failed), cannot.missing, cannot.complete) == ([0, 1], (), False)
    assert "test.cannot" in cannot.failed[0]
    for more in ({}, {"within_ms": 100}, {"item_within_ms": 100}):
        silent = play(seed, {"eve": eve(**more), "ann": listener})["eve"]
        assert silent.missing == (0, 1)


@given(SEEDS, st.integers(0, 12))
@settings(max_examples=60, deadline=None)
@pytest.mark.requirement("I5.collab.6")
def test_items_leave_a_pipeline_as_they_were_fed_and_a_failed_one_says_where(seed: int, count: int) -> None:
    def eve(room: Room) -> Any:
        collab.feed(room, "node/one", list(range(count)))
        return collab.drain(room, "node/two")

    def halve(n: int) -> int:
        if n % 5 == 4:
            raise Fail("test.four", f"{n}")
        return n + 1

    def at(source: str, to: str, work: Callable[[Any], Any]) -> Agent:
        return lambda room: collab.stage(room, node(source), node(to), work)

    given = play(
        seed, {"eve": eve, "one": at("eve", "two", halve), "two": at("one", "eve", lambda n: n * 100)}
    )
    good = [n for n in range(count) if n % 5 != 4]
    assert given["eve"].results == {n: (n + 1) * 100 for n in good}
    assert list(given["eve"].results) == good
    bad = {
        n: {"stage": "node/one", "code": "test.four", "message": str(n)} for n in range(count) if n % 5 == 4
    }
    assert given["eve"].failed == bad
    assert given["eve"].missing == ()
    assert (given["one"], given["two"]) == (count, count)


def test_a_stage_that_ends_early_is_an_error_for_the_next_and_missing_items_for_the_last() -> None:
    def eve(room: Room) -> Any:
        collab.feed(room, "node/one", [1, 2, 3])
        return collab.drain(room, "node/two")

    given = play(
        2,
        {
            "eve": eve,
            "one": listener,
            "two": lambda room: collab.stage(room, "node/one", "node/eve", lambda n: n),
        },
    )
    assert given["two"].code == "collab.pipeline"
    assert given["eve"].results == {}


@pytest.mark.requirement("I5.collab.7")
def test_every_name_is_found_when_it_is_asked_for_and_no_other() -> None:
    for name in collab.__all__:
        assert getattr(collab, name) is not None
    assert callable(collab.contract)
    with pytest.raises(AttributeError, match="no attribute 'auction'"):
        _ = collab.auction

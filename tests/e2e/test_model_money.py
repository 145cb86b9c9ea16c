"""Money on a real daemon: a cap's edge, a person's word, what it cost, and answers from a cassette."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from runloop.events import ModelCalled, ModelReserved, NodeFinished
from tests.contract.scripted_model import ScriptedModel, say
from tests.e2e.test_crashes import Mortal
from tests.home import Home, wait_until

MANIFEST = """\
name = "asker"
version = "0.1.0"
language = "python"
entrypoint = "agent:handle"
description = "Asks a model as often as it is told to."
ops = ["model.complete"]

[ports.out.out]
type = "object"
required = true
"""
SOURCE = """\
from runloop.agent import Result, Task, handler
from runloop.host import Host, HostRefused


@handler
def handle(task: Task, host: Host) -> Result:
    heard = []
    for number in range(task.param("calls")):
        words = f"{task.param('word')} {number}"
        request = {"messages": [{"role": "user", "content": words}], "max_tokens": 50}
        try:
            heard.append(host.call("model.complete", request)["text"])
        except HostRefused as refused:
            heard.append(refused.code)
    return Result.of(out={"heard": heard})
"""
CAP = 4_000
PRICES = {"INPUT_MICRO_USD_PER_MTOK": "3000000", "OUTPUT_MICRO_USD_PER_MTOK": "15000000", "VERSION": "list-1"}


@pytest.fixture(scope="module")
def model() -> Iterator[ScriptedModel]:
    server = ScriptedModel([say("Yes.", usage=(20, 4))])
    with server:
        yield server


@pytest.fixture(scope="module")
def home(seed: Path, tmp_path_factory: pytest.TempPathFactory, model: ScriptedModel) -> Iterator[Home]:
    path = tmp_path_factory.mktemp("m")
    for part in ("keys", "cache"):
        shutil.copytree(seed / part, path / part)
    (path / "keys" / "ledger.head").unlink(missing_ok=True)
    path.chmod(0o700)
    with Home(path) as made:
        made.env.update(model.env())
        stem = next(key for key in made.env if key.endswith("__BASE_URL")).removesuffix("BASE_URL")
        made.env.update({f"{stem}PRICE__{name}": value for name, value in PRICES.items()})
        made.env["RUNLOOP__BUDGETS__RUN_MICRO_USD"] = str(CAP)
        made.env["RUNLOOP__MODELS__MODE"] = "record"
        made.env["RUNLOOP__MODELS__CASSETTE"] = "told.jsonl"
        made.write_agent("asker", MANIFEST, SOURCE, "model = true\n")
        yield made


def run(home: Home, nodes: dict[str, int], *flags: str, word: str = "go", policy: str = "{}") -> Any:
    path = home.path / "asks.yaml"
    given = {node: json.dumps({"calls": calls, "word": f"{word} {node}"}) for node, calls in nodes.items()}
    lines = [f'  - {{id: {node}, use: "agent:asker", with: {args}}}' for node, args in given.items()]
    path.write_text("\n".join(["version: 0", "name: asks", f"policy: {policy}", "nodes:", *lines]) + "\n")
    return home.rlp("run", str(path), "--no-input", "--json", *flags)


def heard(home: Home, run_id: str) -> list[str]:
    ends = [event.payload for event in home.events("node.finished") if event.run == run_id]
    words = []
    for end in ends:
        assert isinstance(end, NodeFinished) and end.output is not None, end
        words += end.output["ports"]["out"][0]["heard"]
    return words


def booked(home: Home, run_id: str) -> list[ModelCalled]:
    found = [event.payload for event in home.events("model.called") if event.run == run_id]
    assert all(isinstance(called, ModelCalled) for called in found)
    return found  # type: ignore[return-value]


def last_run(home: Home) -> str:
    return str(home.events("run.started")[-1].run)


@pytest.mark.requirement("K6", "K7", "I6.policy.6")
def test_agents_side_by_side_stop_at_the_cap_and_the_sums_are_those_of_the_ledger(home: Home) -> None:
    run(home, {f"n{number}": 10 for number in range(4)}).check()
    this = last_run(home)
    words = heard(home, this)
    assert set(words) == {"Yes.", "budget.exceeded"} and len(words) == 40
    calls = booked(home, this)
    spent = sum(called.cost_micro_usd for called in calls)
    assert spent == words.count("Yes.") * (20 * 3 + 4 * 15) <= CAP
    assert {called.price_version for called in calls} == {"list-1"}
    assert all("at most" in called.route and called.source == "asked" for called in calls)

    told = home.rlp("cost", "--json").check().json
    (row,) = told["rows"]
    assert (row["key"], row["cost_micro_usd"], row["calls"]) == ("asks", spent, len(calls))
    assert (told["total"]["lost_micro_usd"], told["total"]["scheduled_micro_usd"]) == (0, 0)
    assert told["budgets"]["run_micro_usd"] == CAP
    for by, key in (("agent", "asker"), ("run", this), ("model", f"{calls[0].provider}:{calls[0].model}")):
        found = home.rlp("cost", "--by", by, "--json").check().json["rows"]
        assert [(one["key"], one["cost_micro_usd"]) for one in found] == [(key, spent)]
    shown = home.rlp("cost", "--by", "day").check()
    assert f"$0.{spent:06}" in shown.out and "by schedules $0.000000" in shown.err
    home.rlp("cost", "--by", "colour").check(2)
    assert calls[0].route.split(";")[0] in home.rlp("trace", this).check().out


@pytest.mark.requirement("I6.policy.1")
def test_a_run_whose_answers_say_their_route_replays_identically(home: Home, model: ScriptedModel) -> None:
    run(home, {"one": 2}, word="replayed").check()
    asked = len(model.asked)
    assert home.rlp("replay", last_run(home), "--json").check().json["identical"]
    assert len(model.asked) == asked


@pytest.mark.requirement("I6.policy.5", "L10")
def test_a_run_from_the_cassette_asks_nobody_costs_nothing_and_changes_no_sum(
    home: Home, model: ScriptedModel
) -> None:
    run(home, {"told": 2}, word="taped").check()
    first = last_run(home)
    before = home.rlp("cost", "--by", "run", "--json").check().json["rows"]
    home.rlp("daemon", "stop").check()
    asked = len(model.asked)
    stem = next(key for key in home.env if key.endswith("PRICE__VERSION")).removesuffix("VERSION")
    home.env["RUNLOOP__MODELS__MODE"] = "replay"
    home.env |= {f"{stem}INPUT_MICRO_USD_PER_MTOK": "900000000", f"{stem}VERSION": "list-2"}
    run(home, {"told": 2}, word="taped").check()
    again = last_run(home)
    assert heard(home, again) == heard(home, first) == ["Yes.", "Yes."]
    calls = booked(home, again)
    assert {(called.source, called.cost_micro_usd) for called in calls} == {("cassette", 0)}
    assert sum(called.saved_micro_usd for called in calls) == 2 * (20 * 3 + 4 * 15)
    run(home, {"told": 1}, word="never heard").check()
    assert heard(home, last_run(home)) == ["model.not_on_cassette"]
    assert len(model.asked) == asked
    after = home.rlp("cost", "--by", "run", "--json").check().json["rows"]
    assert [row for row in after if row["cost_micro_usd"]] == before
    assert home.rlp("replay", again, "--json").check().json["identical"]
    home.env["RUNLOOP__MODELS__MODE"] = "live"
    home.env |= {f"{stem}{name}": value for name, value in PRICES.items()}
    home.rlp("daemon", "stop").check()


@pytest.mark.requirement("I6.policy.3")
def test_a_run_parks_before_it_spends_more_and_goes_on_with_a_persons_word(home: Home) -> None:
    home.env["RUNLOOP__BUDGETS__ASK_MICRO_USD"] = "1000"
    run(home, {"one": 6}, word="dear").check(5)
    this = last_run(home)
    (waiting,) = home.rlp("approvals", "--json").check().ndjson
    action = waiting["action"]
    assert action["kind"] == "spend" and action["threshold_micro_usd"] == 1_000
    assert action["spent_micro_usd"] + action["amount_micro_usd"] > 1_000
    before = len(booked(home, this))
    shown = home.rlp("approve", str(waiting["approval"])).check()
    assert "dear one" in shown.out + shown.err, "the words to the model are shown"
    wait_until(
        lambda: any(event.run == this for event in home.events("run.finished")) or waits(home), "the run"
    )
    assert not waits(home), "twice the threshold is more than six calls cost"
    assert heard(home, this) == ["Yes."] * 6
    assert len(booked(home, this)) == 6 > before
    assert home.rlp("replay", this, "--json").check().json["identical"]


@pytest.mark.requirement("I6.policy.7")
@pytest.mark.parametrize(("own", "threshold"), [(300, 300), (100_000, 1_000)], ids=["earlier", "later"])
def test_an_opening_has_people_asked_earlier_than_configured_and_never_later(
    home: Home, own: int, threshold: int
) -> None:
    assert home.env["RUNLOOP__BUDGETS__ASK_MICRO_USD"] == "1000"
    run(home, {"one": 9}, word=f"own {own}", policy=f"{{ask_micro_usd: {own}}}").check(5)
    (waiting,) = waits(home)
    assert waiting["action"]["threshold_micro_usd"] == threshold
    this = last_run(home)
    assert sum(called.cost_micro_usd for called in booked(home, this)) <= threshold
    home.rlp("cancel", this).check()
    wait_until(lambda: not waits(home), "the question to go with its run")


@pytest.mark.requirement("I6.policy.6")
def test_what_asking_each_model_for_a_token_cost_is_in_the_sums(home: Home) -> None:
    home.rlp("providers", "--check", "--json").check(1)
    assert all(event.run is not None for event in home.events("model.called")), (
        "nothing is spent without a yes"
    )
    rows = home.rlp("providers", "--check", "--yes", "--json").check().ndjson
    cost = sum(row.get("cost_micro_usd", 0) for row in rows)
    (event,) = [event for event in home.events("model.called") if event.run is None]
    called = event.payload
    assert isinstance(called, ModelCalled)
    assert called.cost_micro_usd == cost > 0 and event.actor.startswith("operator")
    assert (called.source, called.finish, called.price_version) == ("check", "stop", "list-1")
    sums = {row["key"]: row for row in home.rlp("cost", "--json").check().json["rows"]}
    assert sums["rlp providers --check"]["cost_micro_usd"] == cost


@pytest.mark.requirement("K6", "I6.policy.6")
def test_a_check_whose_daemon_dies_before_its_cost_is_on_record_is_booked_whole_and_once(home: Home) -> None:
    home.rlp("daemon", "start").check()
    home.rlp("daemon", "stop").check()
    before = {event.id for event in home.events("model.called")}
    mortal = Mortal(home, "model.called", 1, "before")  # answered and paid for; nobody has said so yet
    assert home.rlp("providers", "--check", "--yes").code != 0
    mortal.wait_dead()
    (held,) = home.events("model.reserved")[-1:]
    for _ in range(2):  # the second start finds nothing left to book
        home.rlp("daemon", "start").check()
        home.rlp("daemon", "stop").check()
        (event,) = [event for event in home.events("model.called") if event.id not in before]
        called = event.payload
        assert isinstance(called, ModelCalled) and isinstance(held.payload, ModelReserved)
        assert called.cost_micro_usd == called.reserved_micro_usd == held.payload.reserved_micro_usd > 0
        assert (called.source, called.finish, called.estimated) == ("check", "unknown_outcome", True)
        assert (event.actor, event.provenance.causes) == ("daemon", (held.id,))
    sums = {row["key"]: row for row in home.rlp("cost", "--json").check().json["rows"]}
    assert sums["rlp providers --check"]["cost_micro_usd"] >= called.cost_micro_usd
    home.rlp("verify").check()


def waits(home: Home) -> list[Any]:
    found: list[Any] = home.rlp("approvals", "--json").check().ndjson
    return found

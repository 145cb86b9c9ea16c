"""The agents of the market analyst on their own: what they refuse and decide, and that they order once."""

from __future__ import annotations

import json
from typing import Any

import pytest

from runloop.guest_testing import NOW_MS, FakeHost, Outcome, Refuse, load_agent
from tests.home import EXAMPLES

DATA = load_agent(EXAMPLES / "agents" / "market_data")
SENTIMENT = load_agent(EXAMPLES / "agents" / "market_sentiment")
PLANNER = load_agent(EXAMPLES / "agents" / "market_planner")
SERIES = {"symbol": "HARB", "dates": ["2031-01-01"], "closes": [50.0]}
UP = {
    "trend": [{"score": 0.9}],
    "risk": [{"volatility": 0.2, "value_at_risk": 0.02}],
    "sentiment": [{"score": 0.5}],
}


class World:
    """Shared memory, records and a clock."""

    def __init__(self, model: Any = None) -> None:
        self.memory: dict[str, tuple[Any, int]] = {}
        self.records: list[str] = []
        self.now = NOW_MS
        self.rival: Any = None
        """What another run writes between our reading and our writing, once."""
        self.model = model or {"text": "", "generated": False, "provider": "rules", "model": "template-1"}

    def host(self) -> FakeHost:
        return FakeHost(
            {
                "time.now": lambda _: {"now_ms": self.now},
                "model.complete": self.model,
                "memory.get": self._get,
                "memory.put": self._put,
                "kb.read": lambda args: {"item": {}} if args["id"] in self.records else Refuse("kb.absent"),
                "kb.propose": self._propose,
                "artifact.put": {"name": "plan.md", "digest": "d", "size": 1},
            }
        )

    def _get(self, args: dict[str, Any]) -> Any:
        value, version = self.memory.get(args["key"], (None, 0))
        if self.rival is not None:
            self.memory[args["key"]], self.rival = (self.rival, version + 1), None
        return {"value": value, "version": version}

    def _put(self, args: dict[str, Any]) -> Any:
        _, version = self.memory.get(args["key"], (None, 0))
        if args["expected_version"] != version:
            return Refuse("memory.conflict")
        self.memory[args["key"]] = (args["value"], version + 1)
        return {"version": version + 1}

    def _propose(self, args: dict[str, Any]) -> Any:
        self.records.append(args["payload"]["document"])
        return {"kind": args["kind"], "id": args["payload"]["document"]}


def plan(world: World, run: str, *, without: tuple[str, ...] = (), **params: Any) -> dict[str, Any]:
    ports = {name: values for name, values in UP.items() if name not in without}
    done = PLANNER.run(
        ports={"series": [SERIES], **ports}, with_=params, context={"run": run}, host=world.host()
    )
    found: dict[str, Any] = done.value("plan")
    return found


@pytest.mark.requirement("I5.market.3")
def test_the_same_order_of_another_run_is_held_for_five_minutes_to_the_millisecond() -> None:
    world = World()
    first = plan(world, "a")
    assert (first["status"], first["side"], first["quantity"]) == ("executed", "buy", 1000)
    world.now = NOW_MS + 299_999
    held = plan(world, "b")
    assert (held["status"], held["order"], held["held_until_ms"]) == (
        "held",
        first["order"],
        NOW_MS + 300_000,
    )
    world.now = NOW_MS + 300_000
    later = plan(world, "c")
    assert later["status"] == "executed" and later["order"] != first["order"]
    assert len(world.records) == 2


@pytest.mark.requirement("I5.market.3")
def test_another_order_is_not_held() -> None:
    world = World()
    plan(world, "a")
    assert plan(world, "b", capital=50_000)["status"] == "executed"
    assert sorted(world.memory) == ["HARB/buy/1000", "HARB/buy/500"]


@pytest.mark.requirement("I5.market.4")
def test_the_same_run_orders_once_wherever_it_was_interrupted() -> None:
    world = World()
    assert plan(world, "a")["status"] == "executed"
    assert plan(world, "a")["status"] == "executed before"
    assert len(world.records) == 1
    torn = World()  # decided, and gone before it was stated
    torn.memory = dict(world.memory)
    again = plan(torn, "a")
    assert (again["status"], torn.records) == ("executed", world.records)


@pytest.mark.requirement("I5.market.3")
def test_a_run_that_is_overtaken_between_reading_and_writing_holds() -> None:
    world = World()
    world.rival = {"key": "other", "decided_ms": NOW_MS, "run": "z"}
    held = plan(world, "a")
    assert (held["status"], held["order"], world.records) == ("held", "other", [])


@pytest.mark.parametrize(
    ("answer", "side", "who"),
    [
        (
            {
                "text": json.dumps({"side": "wait", "reason": "x"}),
                "generated": True,
                "provider": "p",
                "model": "m",
            },
            "wait",
            "p:m",
        ),
        (
            {"text": '{"side": "short"}', "generated": True, "provider": "p", "model": "m"},
            "buy",
            "rules: the model's",
        ),
        ({"text": "buy!", "generated": True, "provider": "p", "model": "m"}, "buy", "rules: the model's"),
        ({"text": "[1]", "generated": True, "provider": "p", "model": "m"}, "buy", "rules: the model's"),
        (Refuse("budget.exceeded"), "buy", "rules: the model was not available (budget.exceeded)"),
        (None, "buy", "rules: no model answered"),
    ],
    ids=["a model", "no such side", "no JSON", "no object", "no budget", "no model"],
)
@pytest.mark.requirement("I5.market.2")
def test_a_model_decides_where_one_answers_well_and_the_rule_where_none_does(
    answer: Any, side: str, who: str
) -> None:
    found = plan(World(answer), "a")
    assert found["side"] == side
    assert found["rule"] == "buy"
    assert found["decided_by"].startswith(who)


@pytest.mark.requirement("I5.market.2")
def test_what_is_missing_makes_the_plan_careful_and_is_named() -> None:
    alone = plan(World(), "a", without=("trend", "risk", "sentiment"))
    assert (alone["side"], alone["missing"]) == ("wait", ["trend", "risk", "sentiment"])
    blind = plan(World(), "a", without=("risk",))
    assert (blind["quantity"], blind["missing"]) == (40, ["risk"])


def read(text: str, **params: Any) -> Outcome:
    world = FakeHost({"fs.read": {"text": text, "eof": True, "size": len(text), "digest": "d"}})
    return DATA.run(with_={"symbol": "X", "path": "/p", **params}, host=world)


def rows(count: int) -> list[str]:
    return [f"{2000 + day // 28}-01-{1 + day % 28:02},{day + 1}" for day in range(count)]


@pytest.mark.parametrize(
    ("lines", "code"),
    [
        (["day,close", *rows(70)], "market.columns"),
        ([], "market.columns"),
        (["date,close", *rows(60)], "market.short"),
        (["date,close", *rows(70), "2000-01-01,5"], "market.twice"),
        (["date,close", *rows(70), "2099-01-01,nan"], "market.price"),
        (["date,close", *rows(70), "2099-01-01,-1"], "market.price"),
        (["date,close", *rows(70), "2099-01-01"], "market.price"),
        (["date,close", *rows(70), "1.2.2099,5"], "market.date"),
    ],
)
def test_prices_that_are_none_fail_the_reader(lines: list[str], code: str) -> None:
    assert read("\n".join(lines)).code == code


def test_rows_of_other_symbols_and_order_in_the_file_do_not_matter() -> None:
    lines = [f"{row},{'x' if row else ''}" for row in reversed(rows(70))]
    found = read("\ufeffDate,CLOSE,Symbol\r\n" + "\r\n".join([*lines, "2000-01-01,9,y"])).value("series")
    assert found["dates"] == sorted(found["dates"]) and len(found["dates"]) == 70
    assert found["closes"][0] == 1.0
    assert read("", symbol="../x").code == "market.symbol"


@pytest.mark.parametrize(
    ("text", "score"),
    [
        ("X grows", 1.0),
        ("X never grows", -1.0),
        ("X did not, in the end, fail", -1.0),
        ("X did not fail", 1.0),
        ("X: no news. It fell", -1.0),
        ("X is there", 0.0),
        ("Xylophones win", None),
    ],
)
def test_a_negation_turns_a_word_in_its_reach(text: str, score: float | None) -> None:
    host = FakeHost(
        {"kb.search": {"items": [{"id": "n"}]}, "kb.read": {"item": {"title": "T", "text": text}}}
    )
    found = SENTIMENT.run(ports={"series": [{"symbol": "X"}]}, host=host).value("opinion")
    assert [note["score"] for note in found["notes"]] == ([] if score is None else [score])

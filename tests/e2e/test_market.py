"""The market analyst: real figures of recorded prices, a plan in any case, one order for one thought."""

from __future__ import annotations

import csv
import itertools
import math
import shutil
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from runloop.events import DocumentImported, Event, MemoryUpdated, NodeFinished
from tests.e2e.test_crashes import Mortal, wait_gone_daemon
from tests.e2e.test_docs import Reader
from tests.home import EXAMPLES, ROOT, Done, Home, wait_until

AGENTS = ("market_data", "market_trend", "market_risk", "market_sentiment", "market_planner")
MANIFEST = """\
name = "{name}"
version = "0.1.0"
language = "python"
entrypoint = "agent:handle"
description = "An analyst that gives no opinion."
ops = []

[ports.in.series]
type = "object"

[ports.out.opinion]
type = "object"
required = true
"""
DEAD = """\
from runloop.agent import Fail, Result, Task, handler
from runloop.host import Host


@handler
def handle(task: Task, host: Host) -> Result:
    raise Fail("test.dead", "I am no more")
"""
SLOW = DEAD.replace('raise Fail("test.dead", "I am no more")', "while True:\n        pass")


def furnish(home: Home, folder: Path) -> None:
    """Everything the page tells a user to set up; prices in a folder of their own."""
    home.env |= {"RUNLOOP__SECURITY__ALLOW_UNSIGNED_AGENTS": "true", "MARKET": str(folder)}
    for name in AGENTS:
        shutil.copytree(EXAMPLES / "agents" / name, home.path / "agents" / name)
    policy = home.path / "agents" / "market_data" / "policy.caps"
    policy.write_text(policy.read_text().replace("/srv/market", str(folder)))
    shutil.copy(EXAMPLES / "market" / "prices.csv", folder)
    (home.path / "openings").mkdir()
    shutil.copy(EXAMPLES / "market" / "market_analyst.yaml", home.path / "openings")
    home.rlp("import", str(EXAMPLES / "market" / "news")).check()


@pytest.fixture(scope="module")
def market(seed: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    """One home and one daemon for all that only look, or order different things."""
    path = tmp_path_factory.mktemp("m")
    for part in ("keys", "cache"):
        shutil.copytree(seed / part, path / part)
    (path / "keys" / "ledger.head").unlink(missing_ok=True)
    path.chmod(0o700)
    with Home(path) as home:
        furnish(home, tmp_path_factory.mktemp("prices"))
        yield home


def test_the_page_does_what_it_says(home: Home, tmp_path: Path) -> None:
    Reader(home, tmp_path / "variables").follow(ROOT / "docs" / "howto" / "market-analyst.md")


def analyse(home: Home, *params: str, opening: str = "market_analyst") -> tuple[str, dict[str, Any]]:
    """Run it; its id, and the outputs of the nodes by their ids."""
    flags = [flag for one in (f"path={home.env['MARKET']}/prices.csv", *params) for flag in ("-p", one)]
    done = home.rlp("run", opening, *flags, "--json", "--no-input").check()
    return outputs(done)


def outputs(done: Done) -> tuple[str, dict[str, Any]]:
    given: dict[str, Any] = {}
    for line in done.ndjson:
        if "event" in line and line["event"]["kind"] == "node.finished":
            payload = line["event"]["payload"]
            ports = (payload.get("output") or {"ports": {}})["ports"]
            given[payload["node"]] = {port: values[-1] for port, values in ports.items()}
    return done.ndjson[-1]["result"]["run"], given


def orders(home: Home) -> list[DocumentImported]:
    told = [event.payload for event in home.events("document.imported")]
    return [one for one in told if isinstance(one, DocumentImported) and one.document.startswith("order-")]


def prices(path: Path) -> list[float]:
    with path.open(encoding="utf-8") as file:
        return [float(row["close"]) for row in csv.DictReader(file)]


def figures(closes: list[float]) -> dict[str, dict[str, float]]:
    """The same figures, made by other means than the agents'."""
    late = closes[-60:]
    slope = statistics.linear_regression(range(60), late).slope
    momentum = closes[-1] / closes[-21] - 1
    short, long = statistics.fmean(closes[-20:]), statistics.fmean(closes[-50:])
    steep = min(max(slope / statistics.fmean(late) / 0.002, -1), 1)
    strong = min(max(momentum / 0.1, -1), 1)
    logs = [math.log(b) - math.log(a) for a, b in itertools.pairwise(closes)]
    returns = sorted((b - a) / a for a, b in itertools.pairwise(closes))
    falls = [1 - low / high for at, high in enumerate(closes) for low in closes[at:]]
    below = [loss for loss in returns if sum(other <= loss for other in returns) >= 0.05 * len(returns)]
    return {
        "trend": {
            "average_short": short,
            "average_long": long,
            "slope_per_day": slope,
            "fit_r2": statistics.correlation(range(60), late) ** 2,
            "momentum": momentum,
            "score": 0.4 * math.copysign(1, short - long) + 0.3 * steep + 0.3 * strong,
        },
        "risk": {
            "volatility": statistics.stdev(logs) * 252**0.5,
            "max_drawdown": max(falls),
            "value_at_risk": -min(below),
        },
    }


def insist(given: dict[str, Any], closes: list[float]) -> None:
    for node, wanted in figures(closes).items():
        for name, value in wanted.items():
            assert given[node]["opinion"][name] == pytest.approx(value, abs=1e-6), (node, name)


@pytest.mark.requirement("I5.market.1", "I5.market.5")
def test_the_figures_are_right_and_the_run_is_one_trace_without_an_orphan(market: Home) -> None:
    run, given = analyse(market)
    closes = prices(Path(market.env["MARKET"]) / "prices.csv")
    assert len(closes) == 250
    insist(given, closes)
    # Counted by eye: the note that names no supplier is not about this one.
    assert [(note["good"], note["bad"]) for note in given["sentiment"]["opinion"]["notes"]] == [
        (3, 2),
        (5, 1),
        (1, 4),
        (3, 0),
    ]
    assert given["sentiment"]["opinion"]["score"] == pytest.approx((0.2 + 2 / 3 - 0.6 + 1) / 4, abs=1e-6)
    plan = given["planner"]["plan"]
    known = figures(closes)
    score = 0.6 * known["trend"]["score"] + 0.4 * given["sentiment"]["opinion"]["score"]
    assert plan["score"] == pytest.approx(score, abs=1e-5)
    assert plan["quantity"] == math.floor(1000 / (known["risk"]["value_at_risk"] * closes[-1]))
    assert (plan["side"], plan["status"], plan["missing"]) == ("sell", "executed", [])
    assert plan["decided_by"].startswith("rules: ")

    spans = market.rlp("trace", run, "--spans", "--json").check().ndjson
    names = {span["span"] for span in spans}
    assert len(names) == len(spans) >= 15
    assert [span["kind"] for span in spans if span["parent"] is None] == ["run"]
    assert {span["parent"] for span in spans} - {None} <= names
    assert all(span["end_ms"] is not None for span in spans)
    assert sorted(span["name"] for span in spans if span["kind"] == "attempt") == [
        f"{node}, attempt 1" for node in ("data", "planner", "risk", "sentiment", "trend")
    ]
    assert orphans(market, run) == []
    assert "attempt planner" in market.rlp("trace", run, "--spans").check().out
    assert market.rlp("replay", run, "--json").check().json["identical"] is True


def orphans(home: Home, run: str) -> list[Event]:
    """Events of the run whose causes do not lead to its start, and what belongs to no attempt of it."""
    mine = [event for event in home.events() if event.run == run]
    assert [event.kind for event in mine].count("run.started") == 1
    linked, attempts = {mine[0].id}, set()
    lost = []
    for event in mine[1:]:
        if event.kind == "node.scheduled":
            attempts.add((event.payload.node, event.payload.attempt))  # type: ignore[attr-defined]
        if event.kind == "agent.transition":  # states where an instance is: part of its attempt
            if (event.payload.node, event.payload.attempt) not in attempts:  # type: ignore[attr-defined]
                lost.append(event)
        elif set(event.provenance.causes) & linked:
            linked.add(event.id)
        else:
            lost.append(event)
    return lost


@pytest.mark.requirement("I5.market.1")
def test_replaced_prices_give_other_figures_and_broken_ones_are_named(market: Home) -> None:
    path = Path(market.env["MARKET"]) / "prices.csv"
    old = path.read_text()
    try:
        lines = ["Date,Close,Volume"]
        closes = [round(40 * 1.004**day + 3 * math.sin(day / 3), 2) for day in range(120)]
        lines += [f"2031-{1 + day // 28:02}-{1 + day % 28:02},{close},1" for day, close in enumerate(closes)]
        path.write_text("\n".join(lines))
        _, given = analyse(market)
        insist(given, closes)
        plan = given["planner"]["plan"]
        assert (plan["side"], plan["price"], plan["as_of"]) == ("buy", closes[-1], "2031-05-08")

        path.write_text("\n".join([*lines[:90], "2031-09-01,many,1"]))
        flags = ["-p", f"path={path}", "--no-input"]
        failed = market.rlp("run", "market_analyst", *flags).check(1)
        assert "line 91: 'many' is no price" in failed.err
    finally:
        path.write_text(old)


@pytest.mark.requirement("I5.market.2")
def test_analysts_that_fail_or_are_late_are_named_and_the_plan_is_made_without_them(market: Home) -> None:
    for name, source in (("dead", DEAD), ("slow", SLOW)):
        folder = market.path / "agents" / name
        folder.mkdir()
        (folder / "manifest.toml").write_text(MANIFEST.format(name=name))
        (folder / "agent.py").write_text(source)
        (folder / "policy.caps").write_text("[capabilities]\n")
        (folder / "tools.json").write_text('{"version": 1, "tools": []}')
        for page in ("README.md", "LICENSE"):
            (folder / page).write_text("A test's own.")
    text = (EXAMPLES / "market" / "market_analyst.yaml").read_text()
    text = text.replace("agent:market_risk, timeout_ms: 5000", "agent:slow, timeout_ms: 700")
    text = text.replace("agent:market_sentiment, with", "agent:dead, with")
    (market.path / "openings" / "short_handed.yaml").write_text(
        text.replace("market_analyst", "short_handed")
    )
    run, given = analyse(market, opening="short_handed")
    plan = given["planner"]["plan"]
    assert plan["missing"] == ["risk", "sentiment"]
    assert "no opinion from: risk, sentiment" in given["planner"]["page"]
    closes = prices(Path(market.env["MARKET"]) / "prices.csv")
    assert plan["score"] == pytest.approx(figures(closes)["trend"]["score"], abs=1e-5)
    assert plan["quantity"] == math.floor(0.02 * 100_000 / closes[-1])
    ends = {
        end.node: end.status
        for event in market.events("node.finished")
        if event.run == run and isinstance(end := event.payload, NodeFinished)
    }
    assert (ends["risk"], ends["sentiment"], ends["planner"]) == ("timed_out", "failed", "succeeded")
    assert orphans(market, run) == []
    assert market.rlp("replay", run, "--json").check().json["identical"] is True


@pytest.mark.requirement("I5.market.3", "I5.market.4")
def test_the_same_order_is_held_for_a_while_and_a_fork_does_not_repeat_it(market: Home) -> None:
    before = len(orders(market))
    money = "capital:=50000"
    first, given = analyse(market, money)
    plan = given["planner"]["plan"]
    assert plan["status"] == "executed"

    forked = market.rlp("fork", f"{first}@planner", "--live", "--json", "--no-input").check()
    again = outputs(forked)[1]["planner"]["plan"] if forked.ndjson[-1].get("result") else None
    assert again is not None
    assert (again["status"], again["order"]) == ("executed before", plan["order"])

    _, given = analyse(market, money)
    held = given["planner"]["plan"]
    assert (held["status"], held["order"]) == ("held", plan["order"])
    (entry,) = [
        event.payload.value
        for event in market.events("memory.updated")
        if isinstance(event.payload, MemoryUpdated) and event.run == first
    ]
    assert held["held_until_ms"] == entry["decided_ms"] + 300_000
    assert len(orders(market)) == before + 1

    # Once the time is over it is another order.
    _, given = analyse(market, money, "hold_ms:=0")
    assert given["planner"]["plan"]["status"] == "executed"
    assert given["planner"]["plan"]["order"] != plan["order"]
    assert len({one.document for one in orders(market)}) == len(orders(market)) == before + 2


@pytest.mark.requirement("I5.market.3")
def test_of_runs_with_one_thought_at_the_same_time_one_orders(market: Home) -> None:
    before, ended = len(orders(market)), len(market.events("run.finished"))
    flags = ["-p", f"path={market.env['MARKET']}/prices.csv", "-p", "capital:=25000", "--detach"]
    for _ in range(3):
        market.rlp("run", "market_analyst", *flags).check()
    wait_until(lambda: len(market.events("run.finished")) == ended + 3, "three runs to end")
    plans = [
        event.payload.output["ports"]["plan"][0]  # type: ignore[attr-defined]
        for event in market.events("node.finished")
        if event.payload.node == "planner"  # type: ignore[attr-defined]
    ][-3:]
    assert sorted(plan["status"] for plan in plans) == ["executed", "held", "held"]
    assert len({plan["order"] for plan in plans}) == 1
    assert len(orders(market)) == before + 1


@pytest.mark.requirement("I5.market.4")
@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_daemon_killed_around_the_order_states_it_once(
    home: Home, tmp_path_factory: pytest.TempPathFactory, moment: str
) -> None:
    furnish(home, tmp_path_factory.mktemp("prices"))
    home.rlp("daemon", "stop").check()
    wait_gone_daemon(home)
    mortal = Mortal(home, "document.imported", 1, moment)
    flags = ["-p", f"path={home.env['MARKET']}/prices.csv", "--no-input"]
    home.rlp("run", "market_analyst", *flags, env={"RUNLOOP_NO_AUTOSTART": "1"})
    mortal.wait_dead()
    home.rlp("daemon", "start").check()
    wait_until(lambda: home.events("run.finished"), "the run to end")
    (order,) = orders(home)
    (run,) = {event.run for event in home.events("run.started")}
    (plan,) = [
        event.payload.output["ports"]["plan"][0]  # type: ignore[attr-defined]
        for event in home.events("node.finished")
        if event.payload.node == "planner"  # type: ignore[attr-defined]
    ]
    assert order.document == f"order-{plan['order']}"
    assert orphans(home, str(run)) == []
    assert home.rlp("replay", str(run), "--json").check().json["identical"] is True
    home.rlp("daemon", "stop").check()
    home.rlp("verify").check()

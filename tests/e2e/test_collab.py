"""Agents that work together, by one real daemon: what comes out, what was said on the way, and its replay."""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from runloop import speech
from runloop.events import MessagePosted
from tests.home import EXAMPLES, ROOT, Home

AGENTS = (
    "csv_pipeline",
    "estimate",
    "freight",
    "heat_barrier",
    "price_check",
    "release_vote",
    "replica",
    "wordcount",
)
TEMPLATES = EXAMPLES / "collab"


@pytest.fixture(scope="module")
def home(seed: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    """One home and one daemon for all templates."""
    path = tmp_path_factory.mktemp("c")
    for part in ("keys", "cache"):
        shutil.copytree(seed / part, path / part, copy_function=os.link if part == "cache" else shutil.copy2)
    (path / "keys" / "ledger.head").unlink(missing_ok=True)
    path.chmod(0o700)
    for name in AGENTS:
        shutil.copytree(EXAMPLES / "agents" / name, path / "agents" / name)
    shutil.copytree(TEMPLATES, path / "openings")
    with Home(path) as fresh:
        # A hundred guests of one agent at once share two processors: what each waits for its turn adds up.
        fresh.env |= {
            "RUNLOOP__SECURITY__ALLOW_UNSIGNED_AGENTS": "true",
            "RUNLOOP__QUOTAS__WALL_MS": "36000000",
        }
        yield fresh


class Played:
    """One finished run: what its nodes gave, what was said, and that a replay is identical."""

    def __init__(self, home: Home, opening: str, *params: str, code: int = 0) -> None:
        words = [word for param in params for word in ("-p", param)]
        done = home.rlp("run", opening, *words, "--json", "--no-input").check(code)
        self.run = str(done.ndjson[-1]["result"]["run"])
        events = [line["event"] for line in done.ndjson if "event" in line]
        self.results: dict[str, Any] = {}
        self.errors: dict[str, str] = {}
        for event in events:
            if event["kind"] == "node.finished":
                payload = event["payload"]
                if payload.get("output"):
                    self.results[payload["node"]] = payload["output"]["ports"]["result"][-1]
                else:
                    self.errors[payload["node"]] = payload["error"]["code"]
        of_run = [event for event in home.events("message.posted") if event.run == self.run]
        self.said = [event.payload for event in of_run if isinstance(event.payload, MessagePosted)]
        self._judged()
        assert home.rlp("replay", self.run, "--json").check().json["identical"] is True

    def _judged(self) -> None:
        """Every answer is one: to something said before, by a fit act, in the conversation of it."""
        by_id: dict[str, MessagePosted] = {}
        for said in self.said:
            answered = None if said.in_reply_to is None else by_id[said.in_reply_to]
            if answered is None:
                assert said.act in speech.OPENERS
            else:
                assert speech.may_answer(said.act, answered.act)
                assert said.conversation == answered.conversation
            by_id[said.message] = said

    def acts(self, *acts: str) -> list[tuple[str, str, str]]:
        """``(node, act, to)`` of what was said, in order; of these acts only, if any are named."""
        return [(one.node, one.act, one.to) for one in self.said if not acts or one.act in acts]

    def counts(self) -> dict[str, int]:
        return dict(Counter(one.act for one in self.said))


@pytest.mark.requirement("I5.collab.1")
def test_the_first_two_of_four_prices_are_enough_and_who_has_none_refuses(home: Home) -> None:
    played = Played(home, "fan_out")
    bought = played.results["buyer"]
    prices = {"node/north": 17_400, "node/east": 16_680, "node/west": 18_240}
    assert (bought["met"], bought["ended"], len(bought["prices"])) == (True, "enough", 2)
    assert bought["prices"].items() <= prices.items()
    assert bought["best"] == min(bought["prices"], key=prices.__getitem__)
    asked = [to for _, _, to in played.acts("request")]
    assert asked == ["node/north", "node/east", "node/south", "node/west"]
    answers = [(node, act) for node, act, to in played.acts("inform", "refuse") if to == "node/buyer"]
    assert sorted(answers) == [
        ("east", "inform"),
        ("north", "inform"),
        ("south", "refuse"),
        ("west", "inform"),
    ]
    heard = [f"node/{node}" for node, act in answers if act == "inform"][:2]
    assert sorted(heard) == sorted(bought["prices"])


@pytest.mark.requirement("I5.collab.1")
def test_of_three_wanted_crates_all_shops_that_have_any_answer_and_a_fourth_is_in_vain(home: Home) -> None:
    assert Played(home, "fan_out", "article=crate", "enough:=3").results["buyer"]["best"] == "node/south"
    vain = Played(home, "fan_out", "article=crate", "enough:=4").results["buyer"]
    assert (vain["met"], vain["ended"]) == (False, "impossible")
    assert vain["refused"] == ["node/east"]


@pytest.mark.requirement("I5.collab.2")
def test_no_part_of_a_rod_computes_a_step_before_all_have_told_theirs(home: Home) -> None:
    played = Played(home, "barrier", "steps:=5")
    rod = [[20.0, 20.0, 95.5, 20.0, 35.0]]
    for _ in range(5):
        last = rod[-1]
        near = [[last[i] for i in (at - 1, at + 1) if 0 <= i < 5] for at in range(5)]
        rod.append([(last[at] + sum(near[at])) / (1 + len(near[at])) for at in range(5)])
    for at, name in enumerate("abcde"):
        assert played.results[name]["course"] == [step[at] for step in rod]
    assert played.counts() == {"inform": 2 * 5 * 5}


@pytest.mark.requirement("I5.collab.3")
def test_the_cheapest_carrier_breaks_down_and_the_next_one_brings_the_load(home: Home) -> None:
    played = Played(home, "contract_net")
    award = played.results["dispatcher"]
    assert (award["outcome"], award["rounds"], award["contractor"]) == ("done", 2, "node/dala")
    assert award["failures"] == [["node/bjorn", "failure"]]
    assert award["result"]["delivered"] == 900
    lives = {name: played.results[name] for name in ("bjorn", "dala", "elk", "fjord", "gota")}
    assert (lives["bjorn"]["failed"], lives["dala"]["done"], lives["fjord"]["lost"]) == (1, 1, 2)
    assert (lives["elk"]["bids"], lives["gota"]["bids"]) == (0, 0)
    assert played.counts() == {
        "cfp": 2,
        "propose": 6,
        "refuse": 4,
        "accept": 2,
        "reject": 4,
        "failure": 1,
        "inform": 1,
    }
    (failure,) = played.acts("failure")
    assert failure == ("bjorn", "failure", "node/dispatcher")


@pytest.mark.requirement("I5.collab.3")
def test_a_load_that_nobody_bids_for_is_an_outcome_and_a_better_offer_finds_somebody(home: Home) -> None:
    nobody = Played(home, "contract_net", "kg:=20000").results["dispatcher"]
    assert (nobody["outcome"], nobody["rounds"], nobody["contractor"]) == ("no_bid", 3, None)
    raised = Played(home, "contract_net", "at_most_cents:=160000", "kg:=1300").results["dispatcher"]
    assert (raised["outcome"], raised["contractor"]) == ("done", "node/dala")
    assert raised["rounds"] > 1
    assert 160_000 < raised["bid"]["price"] <= 160_000 * (9 + raised["rounds"]) // 10


BIDDERS = 100


@pytest.mark.requirement("I5.collab.3")
def test_a_hundred_carriers_bid_and_the_cheapest_brings_the_load(home: Home) -> None:
    names = [f"c{number}" for number in range(BIDDERS)]
    load = {"kg": 100, "from": [65.58, 22.15], "to": [57.71, 11.97]}
    call = {"role": "dispatcher", "load": load, "carriers": [f"node/{name}" for name in names]}
    lines = [f"  - {{id: dispatcher, use: agent:freight, with: {json.dumps(call)}}}"]
    for number, name in enumerate(names):
        offer = {"cents_per_km": 50 + (37 * number) % 101, "cents_per_kg": 10, "capacity_kg": 500}
        carrier = {"role": "carrier", "depot": [60.61, 15.63], **offer}
        lines.append(f"  - {{id: {name}, use: agent:freight, with: {json.dumps(carrier)}}}")
    path = home.path / "hundred.yaml"
    path.write_text("\n".join(["version: 0", "name: hundred", "nodes:", *lines]))
    played = Played(home, str(path))
    award = played.results["dispatcher"]
    cheapest = min(range(BIDDERS), key=lambda number: (37 * number) % 101)
    assert (award["outcome"], award["contractor"]) == ("done", f"node/c{cheapest}")
    assert award["bids"] == BIDDERS
    assert sum(played.results[name]["lost"] for name in names) == BIDDERS - 1
    assert played.counts() == {"cfp": 1, "propose": 100, "accept": 1, "reject": 99, "inform": 1}


@pytest.mark.requirement("I5.collab.4")
def test_three_of_four_pass_a_release_and_an_even_split_does_not(home: Home) -> None:
    passed = Played(home, "vote")
    tally = {
        "passed": True,
        "ayes": ["node/cover", "node/size", "node/tests"],
        "noes": ["node/speed"],
        "missing": [],
    }
    assert passed.results == dict.fromkeys(("chair", "tests", "cover", "size", "speed"), tally)
    assert passed.counts() == {"propose": 1, "accept": 3, "reject": 1, "inform": 1}
    even = Played(home, "vote", "failed:=1")
    assert {result["passed"] for result in even.results.values()} == {False}
    assert [len(even.results["chair"][side]) for side in ("ayes", "noes")] == [2, 2]
    assert even.counts() == {"propose": 1, "accept": 2, "reject": 2, "inform": 1}


@pytest.mark.requirement("I5.collab.5")
def test_the_fresh_replica_of_the_smallest_id_leads_and_all_end_with_its_log(home: Home) -> None:
    log = ["a1", "b2", "c3", "d4"]
    for flags, leader in (((), "beta"), (("highest:=true",), "gamma")):
        played = Played(home, "election", *flags)
        replicas = [played.results[name] for name in ("alpha", "beta", "delta", "gamma")]
        assert {one["leader"] for one in replicas} == {f"node/{leader}"}
        assert [one["log"] for one in replicas] == [log if leader == "beta" else log[:3]] * 4
        assert played.results["convener"]["stood"] == ["node/beta", "node/delta", "node/gamma"]
        assert played.results[leader]["served"] == 3
        assert played.acts("refuse") == [("alpha", "refuse", "node/convener")]
    nobody = Played(home, "election", "quorum:=9", code=1)
    assert nobody.results["convener"] == {"leader": None, "stood": []}
    assert set(nobody.errors.values()) == {"replica.leader"}


@pytest.mark.requirement("I5.collab.6")
def test_words_are_counted_by_three_and_put_together_in_the_order_of_the_texts(home: Home) -> None:
    played = Played(home, "map_reduce")
    assert played.results["lead"] == {
        "words": 37,
        "top": [["the", 9], ["crane", 3], ["pallets", 3], ["at", 2]],
        "texts": 5,
        "failed": {},
        "missing": [],
    }
    assert sum(played.results[name]["answered"] for name in ("one", "two", "three")) == 5
    texts = json.dumps(["one two two", 7, "three three three"])
    mixed = Played(home, "map_reduce", f"texts:={texts}").results["lead"]
    assert (mixed["words"], mixed["top"]) == (6, [["three", 3], ["two", 2], ["one", 1]])
    assert "wordcount.text" in mixed["failed"]["1"]


@pytest.mark.requirement("I5.collab.6")
def test_order_lines_pass_three_stages_and_bad_ones_say_where_they_stayed(home: Home) -> None:
    played = Played(home, "pipeline")
    out = played.results["orders"]
    assert [row["cents"] for row in out["rows"]] == [17_400, 25_980, 24_000]
    assert out["cents"] == 67_380
    assert [(one["line"], one["stage"], one["code"]) for one in out["failed"]] == [
        (3, "node/convert", "csv.number"),
        (4, "node/parse", "csv.cells"),
    ]
    assert out["missing"] == []
    # Each line is a conversation of four turns, source to source, and so is the word that it was the last.
    turns = Counter(one.conversation for one in played.said)
    assert sorted(turns.values()) == [4] * 6
    assert [played.results[name]["passed"] for name in ("parse", "convert", "total")] == [5, 5, 5]


@pytest.mark.requirement("I5.collab.6")
def test_three_methods_come_to_one_figure_or_say_that_they_do_not(home: Home) -> None:
    played = Played(home, "consensus")
    chair = played.results["chair"]
    assert chair["agreed"] is True
    assert chair["rounds"] > 1
    for method, first in (("mean", 23.73), ("median", 20.15), ("trimmed", 20.183)):
        mine = played.results[method]
        assert mine["first"] == first
        assert {key: mine[key] for key in chair} == chair
        assert abs(mine["last"] - chair["value"]) <= 0.5
    never = Played(home, "consensus", "rounds:=1").results
    assert {one["agreed"] for one in never.values()} == {False}
    assert never["mean"]["accepted"] == ["node/median", "node/trimmed"]


@pytest.mark.requirement("I5.collab.7")
def test_every_template_is_on_the_page_and_fit_to_run(home: Home) -> None:
    page = (ROOT / "docs" / "howto" / "collaborate.md").read_text("utf-8")
    names = sorted(path.stem for path in TEMPLATES.iterdir())
    assert len(names) == 8
    for name in names:
        assert f"`{name}`" in page
        home.rlp("plan", name).check()
    for name in AGENTS:
        assert f"`{name}`" in page

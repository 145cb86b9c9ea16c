"""A sample tells what agents use now, and rates over the time since a sample that was given before."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from runloop.events import AgentRemoved, Event, Provenance
from runloopd.observe.metrics import (
    KEPT,
    MAX_NAME_CHARS,
    MAX_ROWS,
    MAX_WHY_CHARS,
    ROSTER_S,
    Known,
    Metrics,
    Sources,
    Working,
)
from runloopd.observe.processes import Process
from runloopd.observe.tally import Tally
from tests.unit.observe.test_tally import Book, answered, model

RUN = "r"


@dataclass
class House:
    """Everything a sample is made from, to be changed between two of them."""

    known: list[Known] = field(default_factory=lambda: [Known(name="writer", version="1.0.0")])
    working: list[Working] = field(default_factory=list)
    spent: Counter[str] = field(default_factory=Counter)
    under_way: Counter[str] = field(default_factory=Counter)
    asking: set[tuple[str, str]] = field(default_factory=set)
    held: dict[str, str] = field(default_factory=dict)
    events: int = 10
    processes: dict[int, Process] = field(default_factory=dict)
    now: float = 1_000.0
    reads: int = 0
    book: Book = field(default_factory=Book)

    def __post_init__(self) -> None:
        self.metrics = Metrics(
            Sources(
                known=self._known,
                working=lambda: self.working,
                spent_us=lambda agent: self.spent[agent],
                spenders=lambda: [name for name, spent in self.spent.items() if spent],
                under_way=lambda: self.under_way,
                asking=lambda: self.asking,
                held=lambda: self.held,
                daemon=lambda: {
                    "events": self.events, "views_behind": 0, "bus_queued": 3,
                    "bus_published": 5 * self.events, "bus_dropped": 0, "workers": 1, "spares": 2, "runs": 1,
                },
            ),
            tally=self.book.tally,
            now=lambda: self.now,
            now_ms=lambda: int(self.now * 1_000),
            read=self.processes.get,
        )  # fmt: skip

    def _known(self) -> list[Known]:
        self.reads += 1
        return list(self.known)

    def works(self, pid: int | None = 7, state: str = "ACTIVE", **more: Any) -> Working:
        made = Working(agent="writer", run=RUN, node="n", work="attempt", state=state, pid=pid, fuel=50)
        made = replace(made, **more)
        self.working.append(made)
        return made

    async def row(self, agent: str = "writer", since: int | None = None) -> dict[str, Any]:
        rows: list[dict[str, Any]] = (await self.metrics.sample(since))["agents"]
        return next(row for row in rows if row["agent"] == agent)


@pytest.fixture
async def house() -> AsyncIterator[House]:
    made = House()
    yield made
    await made.metrics.close()


async def test_an_agent_has_the_processor_time_of_its_living_and_its_dead_processes(house: House) -> None:
    house.works(7)
    house.works(8)
    house.spent["writer"] = 1_500_000
    house.processes |= {7: Process(200, 4_096), 8: Process(30, 1_000), 9: Process(9_999, 9_999)}
    row = await house.row()
    assert (row["cpu_ms"], row["rss_bytes"], row["workers"], row["cpu_percent"]) == (1_730, 5_096, 2, None)


async def test_a_process_the_kernel_tells_nothing_of_counts_as_a_process_without_figures(
    house: House,
) -> None:
    house.works(7)
    row = await house.row()
    assert (row["workers"], row["cpu_ms"], row["rss_bytes"]) == (1, 0, 0)


async def test_rates_are_over_the_time_since_the_sample_that_was_named(house: House) -> None:
    house.works(7)
    house.processes[7] = Process(100, 1)
    first = await house.metrics.sample()
    assert (first["interval_ms"], first["daemon"]["events_s"]) == (None, None)
    house.now += 1
    await house.metrics.sample(first["sample"])
    house.now += 3
    house.processes[7] = Process(2_100, 1)
    house.book.tell(model(), answered(True), answered(True))
    house.events += 40
    second = await house.metrics.sample(first["sample"])
    (row,) = second["agents"]
    assert second["interval_ms"] == 4_000
    assert (row["cpu_percent"], row["tokens_s"], row["calls_s"], row["errors"]) == (50.0, 30.0, 0.5, 0)
    assert (second["daemon"]["events_s"], second["daemon"]["bus_published_s"]) == (10.0, 50.0)


async def test_an_agent_that_came_meanwhile_had_done_nothing_before(house: House) -> None:
    first = await house.metrics.sample()
    house.now += 2
    house.works(7, agent="new")
    house.processes[7] = Process(1_000, 1)
    row = await house.row("new", first["sample"])
    assert (row["cpu_percent"], row["state"], row["version"]) == (50.0, "running", None)


async def test_figures_that_went_back_with_a_process_give_no_negative_rate(house: House) -> None:
    house.works(7)
    house.processes[7] = Process(1_000, 1)
    first = await house.metrics.sample()
    house.working.clear()
    house.now += 1
    row = await house.row(since=first["sample"])
    assert (row["cpu_percent"], row["fuel_s"]) == (0.0, 0)


async def test_samples_are_kept_for_a_while_and_one_that_is_not_gives_no_rates(house: House) -> None:
    first = (await house.metrics.sample())["sample"]
    for _ in range(KEPT - 1):
        await house.metrics.sample()
    house.now += 1
    assert (await house.metrics.sample(first))["interval_ms"] == 1_000
    assert (await house.metrics.sample(first))["interval_ms"] is None
    assert (await house.metrics.sample(10**6))["interval_ms"] is None
    assert len(house.metrics._kept) == KEPT


@pytest.mark.parametrize(
    ("change", "state"),
    [
        (lambda house: None, "idle"),
        (lambda house: house.works(None, "QUEUED"), "queued"),
        (lambda house: house.under_way.update(writer=1), "queued"),
        (lambda house: house.works(7, "WAITING"), "waiting"),
        (lambda house: (house.works(7, "WAITING"), house.asking.add((RUN, "n"))), "asking"),
        (lambda house: (house.works(7, "WAITING"), house.works(8, "ACTIVE")), "running"),
        (lambda house: (house.works(7), house.held.update(writer="odd")), "quarantined"),
        (lambda house: house.known.__setitem__(0, Known(name="writer", broken="torn")), "broken"),
        (lambda house: house.known.append(Known(name="writer", broken="torn")), "idle"),
        (lambda house: (house.known.clear(), house.spent.update(writer=5)), "gone"),
    ],
    ids=[
        "idle", "no-room", "before-its-process", "waiting", "asking", "running", "held", "broken",
        "another-version-is-broken", "gone",
    ],
)  # fmt: skip
async def test_one_word_says_what_a_person_would_want_to_know_first(
    house: House, change: Any, state: str
) -> None:
    change(house)
    assert (await house.row())["state"] == state


async def test_why_an_agent_does_not_run_is_told(house: House) -> None:
    house.known.append(Known(name="torn", broken="its archive is cut"))
    house.held["writer"] = "odd"
    assert (await house.row())["why"] == "odd"
    assert (await house.row("torn"))["why"] == "its archive is cut"


async def test_what_a_broken_bundle_says_of_itself_takes_little_room(house: House) -> None:
    house.known = [Known(name="n" * 10_000, broken="why " * 100_000)]
    (row,) = (await house.metrics.sample())["agents"]
    assert (len(row["agent"]), len(row["why"]), row["state"]) == (MAX_NAME_CHARS, MAX_WHY_CHARS, "broken")


async def test_the_queue_is_what_waits_for_a_process_before_or_in_the_runtime(house: House) -> None:
    house.works(7)
    house.works(None, "QUEUED")
    house.under_way["writer"] = 5
    sample = await house.metrics.sample()
    assert (sample["agents"][0]["queue"], sample["daemon"]["queue"]) == (4, 4)


async def test_a_served_tool_and_a_replay_have_processes_and_are_no_attempts(house: House) -> None:
    house.works(7, work="replay")
    house.works(8, work="tool")
    house.asking.add((RUN, "n"))
    row = await house.row()
    assert (row["workers"], row["queue"], row["asking"], row["fuel"]) == (2, 0, 0, 0)


async def test_the_list_of_agents_is_read_again_after_a_while_or_when_one_comes_or_goes(house: House) -> None:
    for _ in range(3):
        await house.metrics.sample()
    assert house.reads == 1
    house.now += ROSTER_S
    await house.metrics.sample()
    assert house.reads == 2
    gone = AgentRemoved(
        name="writer", variant="default", agent_version="1", bundle="b", released=False, principal="p"
    )
    event = Event(
        id=1, ts_ms=1, actor="a", kind=gone.kind, scope="system", run=None, payload=gone,
        provenance=Provenance(), hash=b"", prev_hash=b"",
    )  # fmt: skip
    house.metrics.heard([event])
    await house.metrics.sample()
    assert house.reads == 3


async def test_more_agents_than_an_answer_holds_leave_off_those_that_do_nothing(house: House) -> None:
    house.known = [Known(name=f"a{number:05}") for number in range(MAX_ROWS + 5)]
    house.works(7, agent="z_busy")
    sample = await house.metrics.sample()
    names = [row["agent"] for row in sample["agents"]]
    assert (len(names), sample["left_off"]) == (MAX_ROWS, 6)
    assert "z_busy" in names and names == sorted(names)


def test_a_tally_alone_is_what_goes_on_when_nobody_looks() -> None:
    house = House()
    house.metrics.heard([house.book.event(answered(True))])
    assert house.reads == 0
    assert not house.metrics._lag.awake
    assert house.book.tally.of("writer").calls == 1
    assert isinstance(house.book.tally, Tally)

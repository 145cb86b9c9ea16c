"""A run's facts from the ledger on disk: in one order, beside a writer, damaged, or not there yet."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from agtop.feed.record import Record
from agtop.feed.recorded import RecordedFeed
from agtop.model.facts import Fact, Unknown
from agtop.model.timeline import Timeline
from pog.ledger import Ledger
from runloop.errors import NotFoundError, RefusedError
from runloop.events import Draft
from tests.long_runs import RUN, drafts
from tests.unit.agtop.test_reduce import facts_of


def written(path: Path, facts: Sequence[Fact]) -> Path:
    """A ledger of these facts; their ids are the ledger's own."""
    with Ledger.open(path, synchronous="NORMAL") as ledger:
        ledger.append(
            [
                Draft(payload=fact.payload, actor=fact.actor, run=fact.run, provenance=fact.provenance)
                for fact in facts
            ]
        )
    return path


def all_of(record: Record, run: str, limit: int) -> list[Fact]:
    found: list[Fact] = []
    while True:
        page = record.facts(run, found[-1].id if found else 0, limit)
        found += page
        if len(page) < limit:
            return found


@pytest.mark.requirement("I7.record.1")
@pytest.mark.parametrize("limit", [1, 7, 50, 5_000])
@pytest.mark.parametrize("name", ["approved", "mapped"])
def test_every_fact_of_a_tree_of_runs_comes_once_and_in_the_ledgers_order(
    tmp_path: Path, name: str, limit: int
) -> None:
    facts = facts_of(name)
    record = Record(written(tmp_path / "events.db", facts))
    found = all_of(record, str(facts[0].run), limit)
    assert [(fact.kind, fact.run, fact.payload) for fact in found] == [
        (fact.kind, fact.run, fact.payload) for fact in facts
    ]
    assert [fact.id for fact in found] == sorted({fact.id for fact in found})


@pytest.mark.requirement("S5")
@pytest.mark.parametrize("name", ["approved", "mapped"])
def test_a_page_that_was_let_go_is_had_again_as_it_was(tmp_path: Path, name: str) -> None:
    record = Record(written(tmp_path / "events.db", facts_of(name)))
    run = str(facts_of(name)[0].run)
    found = all_of(record, run, 7)
    for start in range(0, len(found) - 7, 5):
        page = found[start : start + 7]
        after = found[start - 1].id if start else 0
        assert record.again(run, after, page[-1].id, 7) == page
        assert record.again(run, after, page[-1].id, 3) == page[:3]


def test_who_asks_for_the_end_of_a_run_first_gets_the_runs_inside_too(tmp_path: Path) -> None:
    facts = facts_of("mapped")
    record = Record(written(tmp_path / "events.db", facts))
    late = record.facts(str(facts[0].run), len(facts) // 2, 5_000)
    assert [fact.kind for fact in late] == [fact.kind for fact in facts[len(facts) // 2 :]]


@pytest.mark.requirement("I7.record.1")
def test_what_is_written_while_one_reads_comes_with_the_next_page(tmp_path: Path) -> None:
    made = list(drafts(900, nodes=9, finished=False))
    path = tmp_path / "events.db"
    record, line = Record(path), Timeline(RUN)
    assert record.facts(RUN, 0, 100) == []
    with Ledger.open(path, synchronous="NORMAL") as ledger:
        for start in range(0, len(made), 90):
            ledger.append(made[start : start + 90])
            line.extend(record.facts(RUN, line.last_id, 60))
    while page := record.facts(RUN, line.last_id, 60):
        line.extend(page)
    assert [fact.payload for fact in line.facts()] == [each.payload for each in made]


@pytest.mark.requirement("I7.record.1")
def test_what_is_written_between_a_run_and_the_run_inside_it_is_not_passed_over(tmp_path: Path) -> None:
    facts = facts_of("mapped")
    inner = next(at for at, fact in enumerate(facts) if fact.run != facts[0].run)
    path, run = tmp_path / "events.db", str(facts[0].run)
    with Ledger.open(path, synchronous="NORMAL") as ledger:

        def state(some: Sequence[Fact]) -> None:
            ledger.append([Draft(payload=fact.payload, actor=fact.actor, run=fact.run) for fact in some])

        state(facts[: inner + 1])
        record = Record(path)
        reader = record._must()
        rows, late = reader.told_rows, [facts[1], facts[inner + 1]]
        assert [fact.run == run for fact in late] == [True, False]

        def while_reading(run: str, *which: int) -> Any:
            if run != facts[0].run and late:
                state([late.pop(0) for _ in tuple(late)])  # the outer run goes on, then the inner one
            return rows(run, *which)

        reader.told_rows = while_reading  # type: ignore[method-assign]
        found = all_of(record, run, 5_000)
        found += record.facts(run, found[-1].id, 5_000)
    assert [fact.id for fact in found] == list(range(1, inner + 4))


def test_a_row_that_cannot_be_read_is_told_as_such_and_the_rest_is_shown(tmp_path: Path) -> None:
    facts = facts_of("approved")
    path = written(tmp_path / "events.db", facts)
    with sqlite3.connect(path) as connection:
        for trigger in connection.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
            connection.execute(f"DROP TRIGGER {trigger[0]}")
        connection.execute("UPDATE events SET payload = '{\"node\": 7' WHERE id = 10")
        connection.execute("UPDATE events SET kind = 'node.dreamt' WHERE id = 11")
    found = all_of(Record(path), str(facts[0].run), 5_000)
    assert len(found) == len(facts)
    assert isinstance(found[9].payload, Unknown)
    assert isinstance(found[10].payload, Unknown)
    assert "unreadable" in found[9].payload.fields


def test_what_waits_for_a_person_is_read_from_runs_that_go_on(tmp_path: Path) -> None:
    facts = facts_of("approved")
    place = next(at for at, fact in enumerate(facts) if fact.kind == "action.requested")
    (waiting,) = Record(written(tmp_path / "a.db", facts[: place + 1])).approvals()
    assert waiting["state"] == "open"
    assert waiting["run"] == facts[0].run
    assert {"approval", "action", "action_digest", "content_blob", "expires_ms"} <= set(waiting)
    assert Record(written(tmp_path / "b.db", facts)).approvals() == []


async def test_a_recorded_feed_tells_what_came_and_carries_nothing_out(tmp_path: Path) -> None:
    facts = facts_of("approved")
    path = tmp_path / "events.db"
    with Ledger.open(path, synchronous="NORMAL") as ledger:
        desk = RecordedFeed(path, look_s=0.001)
        assert await desk.runs() == []
        first = [Draft(payload=f.payload, actor=f.actor, run=f.run) for f in facts[:3]]
        change = _soon(desk)
        ledger.append(first)
        assert (await change).every
        (row,) = await desk.runs()
        assert (row.opening, row.state, row.run) == ("compose_email", "running", facts[0].run)
        assert await desk.find_run(row.run[:6]) == row.run
    assert desk.link.how == "recorded"
    orders: list[Any] = [
        desk.decide({}, "approve"),
        desk.answer("pr", 1),
        desk.submit("x"),
        desk.fork("r"),
        desk.cancel("r", "x"),
        desk.quarantine("a", "x"),
        desk.release("a", "x"),
        desk.kill("a", "x"),
        desk.restart("a", "x"),
    ]
    for order in orders:
        with pytest.raises(RefusedError, match="this is a record"):
            await order
    await desk.close()


async def test_what_came_while_the_lists_were_read_is_told_of(tmp_path: Path) -> None:
    desk = RecordedFeed(written(tmp_path / "events.db", facts_of("approved")), look_s=0.001)
    assert (await _soon(desk)).every
    await desk.close()


def _soon(desk: RecordedFeed) -> Any:
    import asyncio

    async def told() -> Any:
        async with asyncio.timeout(20):
            return await desk.change()

    return asyncio.ensure_future(told())


async def test_a_ledger_that_is_not_there_is_said_to_hold_nothing(tmp_path: Path) -> None:
    desk = RecordedFeed(tmp_path / "none.db")
    assert await desk.runs() == []
    assert await desk.facts("r") == []
    with pytest.raises(NotFoundError, match="nothing is on record yet"):
        await desk.find_run("abc")


def test_facts_from_the_ledger_are_those_from_the_wire(tmp_path: Path) -> None:
    from agtop.model.facts import fact_of
    from pog.reader import Reader

    path = written(tmp_path / "events.db", facts_of("assisted"))
    run = str(facts_of("assisted")[0].run)
    with Reader(path) as reader:
        wire = [
            fact_of(msgspec.json.decode(msgspec.json.encode(e.to_json()))) for e in reader.events(run=run)
        ]
    assert Record(path).facts(run, 0, 5_000) == wire

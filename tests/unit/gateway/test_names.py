"""The file of names that shells read: what is in it, what never is, and when it is written."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runloop.events import DaemonStopped, Draft, SecretSet, TriggerSet
from runloop.testing import ManualClock
from runloopd.gateway.names import HEAD, Names, line
from tests.unit.broker.world import RUN, World


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[World]:
    world = await World(tmp_path, ManualClock()).start()
    yield world
    await world.stop()


class Kept:
    """The names of a world, kept by a task."""

    def __init__(self, house: World, **others: Callable[[], Any]) -> None:
        self.file = house.home / "cache" / "names"
        self.house = house
        names = Names(self.file, house.journal, house.knowledge.query, others, pause_s=0.01)
        house.tasks.append(asyncio.create_task(names.follow()))

    async def until(self, wanted: Callable[[list[str]], bool]) -> list[str]:
        async with asyncio.timeout(20):
            while not (self.file.exists() and wanted(lines := self.file.read_text("utf-8").splitlines())):
                await asyncio.sleep(0.01)
        return lines

    async def state(self, payload: Any) -> None:
        await self.house.journal.append(Draft(payload=payload, actor="operator:1000", scope="system"))


def schedule(name: str) -> TriggerSet:
    return TriggerSet(
        trigger=name,
        opening="compose_email",
        source="",
        source_path=None,
        agents_dir=None,
        params={},
        cron="@daily",
        zone="UTC",
        watch=None,
        missed="skip",
        overlap="skip",
        principal="operator:1000",
    )


@pytest.mark.requirement("I7.complete.2")
async def test_what_is_stated_is_named_and_the_file_is_its_owners_alone(house: World) -> None:
    kept = Kept(house)
    assert await kept.until(bool) == [HEAD]
    assert kept.file.stat().st_mode & 0o777 == 0o600
    await house.run()
    await kept.state(schedule("morning_mail"))
    lines = await kept.until(lambda lines: len(lines) == 3)
    assert lines == [HEAD, f"run\t{RUN[:8]}\ttest, running", "schedule\tmorning_mail\tcompose_email"]


@pytest.mark.requirement("I7.complete.2")
async def test_a_secret_is_there_by_its_name_alone(house: World) -> None:
    kept = Kept(house, secret=lambda: ((name, "") for name in house.book.entries()))
    await kept.until(bool)
    await kept.state(
        SecretSet(name="runloop/models/x", store="age", destinations=[], principal="operator:1000")
    )
    assert await kept.until(lambda lines: len(lines) > 1) == [HEAD, "secret\trunloop/models/x\t"]


async def test_what_names_nothing_new_writes_nothing(house: World) -> None:
    asked = 0

    async def query(*_: Any, **__: Any) -> dict[str, Any]:
        nonlocal asked
        asked += 1
        return {"columns": ["kind", "name", "about"], "rows": []}

    names = Names(house.home / "names", house.journal, query, {}, pause_s=0.0)
    house.tasks.append(asyncio.create_task(names.follow()))
    await house.run()
    async with asyncio.timeout(20):
        while not (house.home / "names").exists():
            await asyncio.sleep(0)
    written = (house.home / "names").stat()
    await kept_quiet(house)
    assert (house.home / "names").stat().st_ino == written.st_ino
    assert asked <= 2


async def kept_quiet(house: World) -> None:
    """State what has no name, and let everybody hear of it."""
    await house.journal.append(
        Draft(payload=DaemonStopped(reason="asked to"), actor="daemon", scope="system")
    )
    for _ in range(20):
        await asyncio.sleep(0)


async def test_a_place_that_cannot_be_written_to_is_no_reason_to_stop(house: World) -> None:
    (house.home / "cache").write_text("a file in the way")
    kept = Kept(house)
    await house.run()
    for _ in range(50):
        await asyncio.sleep(0)
    (house.home / "cache").unlink()
    await kept.state(schedule("later"))
    assert "schedule\tlater\tcompose_email" in await kept.until(lambda lines: len(lines) > 2)


@pytest.mark.requirement("C6")
@pytest.mark.parametrize(
    "name",
    [
        "",
        "-rf",
        "a b",
        "$(x)",
        "`x`",
        "a;b",
        "a\tb",
        "a\nb",
        "~root",
        "x" * 200,
        "a\u202eb",
        "a'b",
        "*",
        "{a,b}",
    ],
    ids=ascii,
)
def test_a_name_that_is_more_than_a_word_is_left_out(name: str) -> None:
    assert line("run", name) is None


@given(st.text(), st.text())
def test_no_name_and_no_word_about_it_breaks_its_line(name: str, about: str) -> None:
    made = line("agent", name, about)
    if made is not None:
        assert made.count("\t") == 2 and made.replace("\t", " ").isprintable() and len(made) < 220

"""Folders that start runs: what is a change, what is never watched, what a run's own writes lead to."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from runloop.clock import SystemClock
from runloop.digest import blob_digest, canonical
from runloop.errors import NotFoundError, RunloopError, UsageError
from runloop.events import Draft, HostcallAdmitted
from runloopd.triggers import folder
from runloopd.triggers.folder import Watch, checked
from runloopd.triggers.kernel import Ears, WallAlarm
from runloopd.triggers.watch import MAX_LISTED, Change, Watches
from tests.unit.triggers.house import OPERATOR, House

PATIENCE_S = 20


async def until(holds: Callable[[], Any]) -> None:
    """Bounded wait for the kernel's word."""
    async with asyncio.timeout(PATIENCE_S):
        while not holds():
            await asyncio.sleep(0.005)


# --- looking --------------------------------------------------------------------------------------


def names(paths: list[str]) -> list[str]:
    return [Path(path).name for path in paths]


def test_new_changed_and_vanished_files_are_changes_and_folders_are_not(tmp_path: Path) -> None:
    (tmp_path / "old").write_text("1")
    (tmp_path / "gone").write_text("1")
    watch = Watch((str(tmp_path),))
    before = watch.look()
    (tmp_path / "old").write_text("22")
    (tmp_path / "gone").unlink()
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "new").write_text("1")
    assert names(watch.look().changed_since(before)) == ["gone", "old", "new"]
    assert watch.look().changed_since(watch.look()) == []


def test_only_files_that_a_pattern_names_count(tmp_path: Path) -> None:
    watch = Watch((str(tmp_path),), ("*.md", "in/*.txt"))
    before = watch.look()
    (tmp_path / "in").mkdir()
    for name in ("a.md", "a.txt", "in/b.md", "in/b.txt", "in/c.pdf"):
        (tmp_path / name).write_text("x")
    assert names(watch.look().changed_since(before)) == ["a.md", "b.md", "b.txt"]


@pytest.mark.requirement("I5.triggers.3")
def test_symbolic_links_are_never_followed(tmp_path: Path) -> None:
    inside, outside = tmp_path / "in", tmp_path / "out"
    inside.mkdir()
    outside.mkdir()
    (inside / "folder").symlink_to(outside)
    (inside / "file").symlink_to(outside / "secret")
    (inside / "up").symlink_to("..")
    watch = Watch((str(inside),))
    before = watch.look()
    (outside / "secret").write_text("x")
    assert watch.look().changed_since(before) == []
    assert watch.look().folders == (str(inside),)


@pytest.mark.requirement("I5.triggers.3")
def test_a_path_behind_which_something_else_was_put_is_gone_until_it_is_back(tmp_path: Path) -> None:
    inside, outside = tmp_path / "in", tmp_path / "out"
    for place in (inside, outside):
        place.mkdir()
        (place / "a").write_text(place.name)
    watch = Watch((str(inside),))
    before = watch.look()
    inside.rename(tmp_path / "moved")
    inside.symlink_to(outside)
    swapped = watch.look().behind(before)
    assert (swapped.gone, swapped.changed_since(before)) == ((str(inside),), [])
    assert swapped.folders == (str(tmp_path),)
    inside.unlink()
    (tmp_path / "moved").rename(inside)
    assert watch.look().behind(swapped).changed_since(swapped) == []
    (inside / "b").write_text("new")
    assert names(watch.look().behind(swapped).changed_since(swapped)) == ["b"]


def test_the_files_of_a_write_under_way_are_not_there_yet(tmp_path: Path) -> None:
    watch = Watch((str(tmp_path),))
    (tmp_path / ".runloop-abc.tmp").write_text("half")
    assert watch.look().files == {}


def test_more_than_can_be_looked_at_is_told_apart_from_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folder, "MAX_ENTRIES", 5)
    watch = Watch((str(tmp_path),))
    before = watch.look()
    for number in range(6):
        (tmp_path / str(number)).write_text("x")
    assert not watch.look().whole
    assert watch.look().changed_since(before) == []
    with pytest.raises(UsageError, match="more than 5 files"):
        checked([str(tmp_path)], (), 500, ())


@pytest.mark.requirement("I5.triggers.3")
@pytest.mark.parametrize("path", ["state", "state/pog", "link", "state/../state", "run"])
def test_the_daemons_own_places_are_never_watched(tmp_path: Path, path: str) -> None:
    (tmp_path / "state" / "pog").mkdir(parents=True)
    (tmp_path / "run").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "state")
    never = folder.places((tmp_path / "state", tmp_path / "run"))
    with pytest.raises(RunloopError) as refused:
        checked([str(tmp_path / path)], (), 500, never)
    assert refused.value.named_code == "schedule.own"
    above = checked([str(tmp_path)], (), 500, never)
    (tmp_path / "state" / "pog" / "events.db").write_text("x")
    assert above.look().files == {}


@pytest.mark.parametrize(
    ("paths", "patterns", "settle_ms", "error"),
    [
        (["/nowhere/at/all"], (), 500, NotFoundError),
        (["relative"], (), 500, RunloopError),
        (["/tmp\x00"], (), 500, NotFoundError),
        (["/dev/null"], (), 500, UsageError),
        ([f"/{n}" for n in range(17)], (), 500, UsageError),
        (["/tmp"], ("",), 500, UsageError),
        (["/tmp"], ("x" * 201,), 500, UsageError),
        (["/tmp"], ("*",) * 17, 500, UsageError),
        (["/tmp"], (), 10, UsageError),
    ],
)
def test_what_cannot_be_watched_is_refused(
    paths: list[str], patterns: tuple[str, ...], settle_ms: int, error: type[RunloopError]
) -> None:
    with pytest.raises(error):
        checked(paths, patterns, settle_ms, ())


def test_a_flood_of_names_is_counted_and_not_kept() -> None:
    change = Change(1, 1)
    change.add((f"/in/{number}" for number in range(10_000)), 5)
    change.add(["/in/0", "/in/bad\udcff"], 9)
    assert (change.count, len(change.paths), change.last_ms) == (10_001, MAX_LISTED, 9)


# --- the kernel -----------------------------------------------------------------------------------


async def test_the_alarm_rings_at_its_time_and_leaves_nothing_behind() -> None:
    alarm = WallAlarm()
    due = alarm.now_ms() + 20
    await alarm.until(due)
    assert alarm.now_ms() >= due
    await alarm.until(due)  # past: at once
    waiting = asyncio.create_task(alarm.until(due + 3_600_000))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    again = alarm.now_ms() + 20
    await alarm.until(again)
    assert alarm.now_ms() >= again
    alarm.close()
    alarm.close()


async def test_ears_hear_each_folder_for_whom_it_is_and_forget_who_left(tmp_path: Path) -> None:
    heard: list[str] = []
    ears = Ears(heard.append)
    (tmp_path / "a").mkdir()
    ears.listen("one", [str(tmp_path / "a"), str(tmp_path / "none")])
    ears.listen("two", [str(tmp_path / "a"), str(tmp_path)])
    (tmp_path / "a" / "x").write_text("1")
    await until(lambda: {"one", "two"} <= set(heard))
    ears.listen("one", [])
    heard.clear()
    (tmp_path / "y").write_text("1")
    await until(lambda: "two" in heard)
    assert "one" not in heard
    ears.listen("two", [])
    assert not ears.open


async def test_a_folder_is_followed_through_new_folders_its_end_and_its_return(tmp_path: Path) -> None:
    root = tmp_path / "in"
    root.mkdir()
    seen: list[str] = []
    watches = Watches(SystemClock(), changed=lambda _, paths: seen.extend(names(paths)), lost=seen.append)
    watch = Watch((str(root),), settle_ms=20)
    watches.begin("w", watch, watch.look())
    try:
        (root / "deep" / "er").mkdir(parents=True)
        (root / "deep" / "er" / "first").write_text("1")
        await until(lambda: seen == ["first"])
        (root / "deep" / "er" / "second").write_text("1")
        await until(lambda: seen == ["first", "second"])
        shutil.rmtree(root)
        await until(
            lambda: (root.mkdir(exist_ok=True), (root / "third").write_text("1"), "third" in seen)[-1]
        )
    finally:
        await watches.close()


# --- together with a house ------------------------------------------------------------------------


class Den(House):
    """A house that watches ``in``; its files' clock is the machine's."""

    async def drop(self, *names: str, text: str = "x") -> None:
        """Whole files, each there at once: one that is seen empty first would be news twice."""
        for name in names:
            (self.path / "made").write_text(text)
            (self.path / "made").rename(self.path / "in" / name)

    async def changed(self, count: int = 1) -> None:
        """Wait until so many files are noticed, letting the settling time pass."""
        seen: list[str] = []
        pending = self.triggers._pending
        async with asyncio.timeout(PATIENCE_S):
            while True:
                seen = list(pending["drop"].paths) if "drop" in pending else seen
                done = len(self.facts("trigger.fired")) + len(self.facts("trigger.missed"))
                if done >= count:
                    break
                self.clock.advance(1_000)
                await asyncio.sleep(0.01)
        await self.settle()


@pytest.fixture
async def den(tmp_path: Path) -> Any:
    (tmp_path / "in").mkdir()
    den = Den(tmp_path, watch_hops=2)
    await den.start()
    yield den
    await den.kill()


async def watched(den: Den, **said: Any) -> None:
    """Watched, and listened to: what is dropped from here on is seen together, not half by a first look."""
    await den.set("drop", watch=(str(den.path / "in"),), settle_ms=1_000, **said)
    await until(lambda: den.triggers._watches._hints["drop"]._waiters)


@pytest.mark.requirement("I5.triggers.2")
async def test_a_changed_file_starts_a_run_that_hears_its_path_and_nothing_else(den: Den) -> None:
    await watched(den, patterns=("*.md",))
    await den.drop("a.md", "b.txt", text="secret words")
    await den.changed()
    (fired,) = den.facts("trigger.fired")
    assert fired.cause == {"paths": [str(den.path / "in" / "a.md")], "count": 1, "hop": 0}
    (asked,) = den.runs.asked
    assert asked.params == {"changed": [str(den.path / "in" / "a.md")]}
    assert "secret" not in str(asked)


async def test_an_opening_that_does_not_ask_for_changes_hears_of_none(den: Den) -> None:
    source = 'version: 0\nname: d\nparams:\n  changed: {type: string, default: ""}\n'
    source += 'nodes:\n  - {id: write, use: "agent:writer"}\n'
    await watched(den, source=source)
    await den.drop("a")
    await den.changed()
    assert den.runs.asked[0].params == {}


async def test_a_flood_is_one_run(den: Den) -> None:
    await watched(den)
    await den.drop(*(f"{number:04}" for number in range(600)))
    await den.changed()
    (fired,) = den.facts("trigger.fired")
    assert (fired.cause["count"], len(fired.cause["paths"])) == (600, MAX_LISTED)


async def test_what_changes_while_a_run_goes_on_starts_one_run_after_it(den: Den) -> None:
    await watched(den)
    await den.drop("a")
    await den.changed()
    await den.drop("b")
    await until(lambda: (den.clock.advance(1_000), "drop" in den.triggers._pending)[1])
    await den.drop("c")
    await until(lambda: (den.clock.advance(1_000), den.triggers._pending["drop"].count == 2)[1])
    assert len(den.facts("trigger.fired")) == 1
    await den.end(den.running("drop")[0])
    assert [Path(path).name for path in den.facts("trigger.fired")[1].cause["paths"]] == ["b", "c"]


@pytest.mark.requirement("I5.triggers.4")
async def test_runs_that_only_answer_their_own_writes_come_to_an_end(den: Den) -> None:
    await watched(den)
    await den.drop("a")
    for count in range(1, 4):
        await den.changed(count)
        (run,) = den.running("drop")
        await writes(den, run, f"own{count}")
        await den.end(run)
    await den.changed(4)
    assert den.running("drop") == []
    assert [fact.cause["hop"] for fact in den.facts("trigger.fired")] == [0, 1, 2]
    assert [fact.reason for fact in den.facts("trigger.missed")] == ["loop: 1 files"]
    await den.drop("b")  # somebody else's file is news again
    await den.changed(5)
    assert den.facts("trigger.fired")[-1].cause["hop"] == 0


async def writes(den: Den, run: str, name: str) -> None:
    """A run writes a file into the folder that is watched, as the gate records it."""
    path = str(den.path / "in" / name)
    args = canonical({"path": path, "text": "x"})
    admitted = HostcallAdmitted(
        node="write", attempt=1, call=1, op="fs.write", effect="write", key="k",
        args_digest=blob_digest(args), args_blob=blob_digest(args), request_bytes=1, fuel=1,
    )  # fmt: skip
    await den.journal.append(Draft(payload=admitted, actor="daemon", run=run), blobs=[args])
    Path(path).write_text("x")


@pytest.mark.requirement("S3")
@pytest.mark.parametrize("policy", ["skip", "once"])
async def test_files_that_changed_while_nobody_looked_are_reported_or_made_up_for(
    den: Den, policy: Any
) -> None:
    await den.drop("before")
    written = (den.path / "in" / "before").stat().st_ctime_ns // 1_000_000
    den.clock.advance(written + 1 - den.clock.now_ms())
    await watched(den, missed=policy)
    await den.kill()
    late = den.path / "in" / "meanwhile"
    await until(lambda: (late.write_text("x"), late.stat().st_ctime_ns // 1_000_000 > written + 1)[1])
    await den.start()
    if policy == "once":
        await den.changed()
        assert [Path(p).name for p in den.runs.asked[0].params["changed"]] == ["meanwhile"]
    else:
        assert [fact.reason for fact in den.facts("trigger.missed")] == ["down: 1 files"]


async def test_the_parameter_for_changes_is_not_the_users_to_fill(den: Den) -> None:
    with pytest.raises(UsageError, match="changed"):
        await watched(den, params={"changed": ["/etc/passwd"]})
    await den.set("timed", cron="0 8 * * *", params={"changed": ["mine"]})


async def test_a_paused_watch_reports_what_it_did_not_see(den: Den) -> None:
    await watched(den)
    await den.orders.pause(OPERATOR, "drop")
    await den.drop("a")
    await den.orders.resume(OPERATOR, "drop")
    assert [fact.reason for fact in den.facts("trigger.missed")] == ["paused: 1 files"]
    await den.drop("b")
    await den.changed(2)
    assert [Path(path).name for path in den.facts("trigger.fired")[0].cause["paths"]] == ["b"]

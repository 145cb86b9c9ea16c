"""kill -9 at every write of a run: after a restart it goes on where it was, and nothing is done twice.

Before each write, that is with all done that was to be done since the write before it, and nothing of it on
record; and right after the writes that stand around effects. ``make crash`` does all of both runs; here the
second one dies at the first write of each sort.
"""

from __future__ import annotations

import fcntl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.stories import COMPOSE, EVERYTHING
from tests.home import ROOT, Home, wait_gone, wait_until
from tests.killing import Death, Ground, Nursery, Story, Survey

LANES = 6
EFFECTS = (
    "action.claimed", "action.decided", "action.requested", "email.sent", "hostcall.admitted",
    "memory.updated", "message.posted", "promise.created", "promise.resolved", "run.finished", "run.started",
    "timer.fired",
)  # fmt: skip
"""Kinds right after whose write a daemon dies too, before anybody is told of it."""


class Mortal:
    """A daemon that will kill itself at a given fact."""

    def __init__(self, home: Home, kind: str, nth: int, moment: str) -> None:
        self.home = home
        log = (home.path / "mortal.log").open("w")
        self.process = subprocess.Popen(
            [
                *(sys.executable, "-m", "tests.e2e.crashing_daemon", "--home", str(home.path)),
                *("--kind", kind, "--nth", str(nth), "--moment", moment),
            ],
            env=home.env,
            cwd=ROOT,
            stdout=log,
            stderr=log,
        )
        wait_until(lambda: home.rlp("daemon", "status").code == 0, "the mortal daemon to listen")

    def wait_dead(self) -> None:
        self.process.wait(60)
        assert self.process.returncode == -9, (self.home.path / "mortal.log").read_text()


def wait_gone_daemon(home: Home) -> None:
    for pid in home._holders():
        wait_gone(pid)


@pytest.fixture(scope="session")
def nursery() -> Iterator[Nursery]:
    with Nursery() as found:
        yield found


@pytest.fixture(scope="session")
def ground(seed: Path, nursery: Nursery) -> Ground:
    """Prepared once per test session, by whoever comes first."""
    path = seed.parent / "ground"
    with (seed.parent / "ground.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (path / "ready").exists():
            Ground.prepared(path, seed, (COMPOSE, EVERYTHING), nursery)
            (path / "ready").touch()
    return Ground(path)


def surveyed(story: Story, ground: Ground, nursery: Nursery, tmp: pytest.TempPathFactory) -> Survey:
    return Survey(ground, nursery, story, tmp.mktemp("k"))


def around_effects(ground: Ground, story: Story) -> list[Death]:
    """Right after the first write of every sort that has an effect's mark in it."""
    return [
        Death(1, sign, "after")
        for sign in ground.signs(story)
        if not set(EFFECTS).isdisjoint(sign.removeprefix("nested ").split("+"))
    ]


@pytest.mark.requirement("C5", "L6", "I2.engine.6", "I2.faults.3", "I5.crash.1")
@pytest.mark.timeout(600)
@pytest.mark.parametrize("lane", range(LANES))
def test_a_run_killed_at_any_of_its_writes_goes_on_and_sends_one_mail(
    lane: int, ground: Ground, nursery: Nursery, tmp_path_factory: pytest.TempPathFactory
) -> None:
    survey = surveyed(COMPOSE, ground, nursery, tmp_path_factory)
    survey.every_write(1 + lane, LANES)
    for death in around_effects(ground, COMPOSE)[lane::LANES]:
        survey.die(death)
    assert not survey.failures, "\n".join(survey.failures)
    assert survey.died * LANES > ground.facts(COMPOSE).total()


@pytest.mark.requirement("I5.engine.5", "I5.crash.2")
@pytest.mark.timeout(600)
@pytest.mark.parametrize("lane", range(LANES))
def test_a_tree_of_runs_killed_at_each_sort_of_its_writes_goes_on_and_does_nothing_twice(
    lane: int, ground: Ground, nursery: Nursery, tmp_path_factory: pytest.TempPathFactory
) -> None:
    survey = surveyed(EVERYTHING, ground, nursery, tmp_path_factory)
    deaths = [Death(1, sign) for sign in ground.signs(EVERYTHING)] + around_effects(ground, EVERYTHING)
    for death in deaths[lane::LANES]:
        survey.die(death)
    assert not survey.failures, "\n".join(survey.failures)
    assert survey.died > len(deaths) // LANES // 2, "which writes there are depends on the clock, but not so"

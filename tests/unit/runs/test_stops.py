"""The operator's hand on agents at work: stated first, then done, to what was meant and to nothing else."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
from collections.abc import AsyncIterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, cast

import pytest

from pog.errors import LedgerWriteError
from runloop.errors import NotFoundError, RefusedError, UsageError
from runloop.events import AgentStopped
from runloop.testing import ManualClock
from runloopd.bus.principal import Principal
from runloopd.runs.stops import AgentKilledError, Stops
from runloopd.runs.underway import Attempt, UnderWay
from runloopd.runtime.orders import AttemptOrder
from runloopd.runtime.places import Place
from runloopd.runtime.supervisor import Runtime
from runloopd.runtime.workers import Worker
from tests.unit.broker.world import HEX, OPERATOR, RUN, World

STRANGER = Principal(kind="client", name="client:1000#s9", uid=1000)


class Hall:
    """Attempts under way, with processes of which nobody asks what they compute."""

    def __init__(self, world: World, root: Path) -> None:
        self.world = world
        self.under_way = UnderWay()
        self.runtime = Runtime(cache_dir=root / "cache", mac_key=b"k" * 32, max_spares=0)
        self.voided: list[tuple[str, str, int]] = []
        self.stops = Stops(
            under_way=self.under_way, runtime=self.runtime, journal=world.journal, void=self._void
        )
        self._stack = ExitStack()
        self._processes: dict[int, subprocess.Popen[bytes]] = {}

    async def _void(self, run: str, node: str, attempt: int) -> None:
        self.voided.append((run, node, attempt))

    def attempt(self, node: str, agent: str = "writer", *, asked: bool = True) -> Attempt:
        """An attempt under way; ``asked``: its guest is at work."""
        made = self._stack.enter_context(self.under_way.made((RUN, node, 1), agent, 1))
        if asked:
            self.under_way.waits(made.key, asyncio.get_running_loop().create_future())
        return made

    def place(self, node: str, agent: str = "writer", *, op: str = "handle", recorded: bool = False) -> Place:
        """An execution in a process of its own."""
        order = AttemptOrder(
            run=RUN, node=node, attempt=1, component_digest=HEX, source=None, entrypoint="", agent=agent,
            input={"op": op}, recorded=recorded,
        )  # fmt: skip
        place = self._stack.enter_context(self.runtime.places.taken(order))
        process = subprocess.Popen(["sleep", "1000"])
        ours, theirs = socket.socketpair()
        theirs.close()
        exited = asyncio.get_running_loop().create_future()
        place.worker = Worker(process.pid, ours, exited, os.pidfd_open(process.pid))
        place.state = "ACTIVE"
        self._processes[id(place)] = process
        return place

    def lives(self, place: Place) -> bool:
        """Whether its process does."""
        process = self._processes[id(place)]
        return process.poll() is None

    def ended(self, place: Place) -> int:
        return self._processes[id(place)].wait(20)

    def facts(self) -> list[AgentStopped]:
        return cast(list[AgentStopped], self.world.payloads("agent.stopped"))

    def close(self) -> None:
        for process in self._processes.values():
            process.kill()
            process.wait(20)
        for place in self.runtime.places:
            if place.worker is not None:
                place.worker.release()
        self._stack.close()


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    made = await World(tmp_path, ManualClock()).start()
    await made.run()
    yield made
    await made.stop()


@pytest.fixture
async def hall(world: World, tmp_path: Path) -> AsyncIterator[Hall]:
    made = Hall(world, tmp_path)
    yield made
    made.close()


def outcome(attempt: Attempt) -> AgentKilledError:
    assert attempt.reply is not None
    error = attempt.reply.exception()
    assert isinstance(error, AgentKilledError)
    return error


async def test_a_killed_agent_ends_every_attempt_of_its_own_and_no_other_and_says_who_and_why(
    hall: Hall,
) -> None:
    first, second, other = hall.attempt("a"), hall.attempt("b"), hall.attempt("c", "mailer")
    done = await hall.stops.kill(OPERATOR, "writer", "  it looks stuck ")
    assert [one["node"] for one in done["attempts"]] == ["a", "b"]
    error = outcome(first)
    assert (error.named_code, error.retryable) == ("guest.killed", True)
    assert OPERATOR.label in error.message and "it looks stuck" in error.message
    assert outcome(second).message == error.message
    assert other.reply is not None and not other.reply.done()
    assert [(fact.name, fact.how, fact.node, fact.reason) for fact in hall.facts()] == [
        ("writer", "killed", "a", "it looks stuck"),
        ("writer", "killed", "b", "it looks stuck"),
    ]
    (one, _) = hall.world.events("agent.stopped")
    assert (one.run, one.actor, one.provenance.causes) == (RUN, OPERATOR.label, (1,))
    assert first.stated == (one.id,) and done["event"] == one.id
    assert hall.voided == [(RUN, "a", 1), (RUN, "b", 1)], "nobody may approve what they asked for"


async def test_an_attempt_whose_guest_was_not_asked_yet_is_never_asked(hall: Hall) -> None:
    attempt = hall.attempt("a", asked=False)
    await hall.stops.kill(OPERATOR, "writer", "stop")
    with pytest.raises(AgentKilledError):
        hall.under_way.waits(attempt.key, asyncio.get_running_loop().create_future())
    with pytest.raises(NotFoundError):
        await hall.stops.kill(OPERATOR, "writer", "again")


async def test_an_answer_that_came_while_the_fact_was_stated_stands(hall: Hall) -> None:
    attempt = hall.attempt("a")
    assert attempt.reply is not None
    killing = asyncio.ensure_future(hall.stops.kill(OPERATOR, "writer", "stop"))
    await asyncio.sleep(0)
    attempt.reply.set_result({"ok": True})
    done = await killing
    assert (done["attempts"], attempt.reply.result(), hall.voided) == ([], {"ok": True}, [])


async def test_a_kill_ends_tools_that_the_agent_serves_and_leaves_replays_alone(hall: Hall) -> None:
    tool, replay = hall.place("a", op="tool", recorded=True), hall.place("b", recorded=True)
    done = await hall.stops.kill(OPERATOR, "writer", "stop")
    assert (done["tools"], hall.ended(tool), hall.lives(replay)) == (1, -9, True)
    assert [fact.node for fact in hall.facts()] == ["a"]


async def test_a_restart_ends_the_processes_of_attempts_alone_for_them_to_go_on(hall: Hall) -> None:
    attempt = hall.attempt("a")
    mine, tool = hall.place("a"), hall.place("t", op="tool", recorded=True)
    replay, other = hall.place("a", recorded=True), hall.place("c", "mailer")
    done = await hall.stops.restart(OPERATOR, "writer", "stuck")
    assert [one["node"] for one in done["attempts"]] == ["a"]
    assert hall.ended(mine) == -9 and mine.restart == f"restarted by {OPERATOR.label}: stuck"
    assert [hall.lives(place) for place in (tool, replay, other)] == [True, True, True]
    assert attempt.reply is not None and not attempt.reply.done()
    assert [(fact.how, fact.node) for fact in hall.facts()] == [("restarted", "a")]
    assert hall.voided == []


@pytest.mark.requirement("C9", "I7.top.2")
@pytest.mark.parametrize("word", ["kill", "restart"])
async def test_nobody_but_the_operator_ends_anything_whoever_let_him_through(hall: Hall, word: str) -> None:
    attempt, place = hall.attempt("a"), hall.place("a")
    with pytest.raises(RefusedError) as refused:
        await getattr(hall.stops, word)(STRANGER, "writer", "stop")
    assert refused.value.named_code == "operator.required"
    assert attempt.reply is not None and not attempt.reply.done()
    assert hall.lives(place) and hall.facts() == []


@pytest.mark.parametrize("word", ["kill", "restart"])
async def test_nothing_is_ended_that_the_ledger_would_not_know_of(
    hall: Hall, monkeypatch: pytest.MonkeyPatch, word: str
) -> None:
    attempt, place = hall.attempt("a"), hall.place("a")

    async def full(*_: Any, **__: Any) -> Any:
        raise LedgerWriteError("no space left")

    monkeypatch.setattr(hall.world.journal, "append", full)
    with pytest.raises(LedgerWriteError):
        await getattr(hall.stops, word)(OPERATOR, "writer", "stop")
    assert attempt.reply is not None and not attempt.reply.done()
    assert hall.lives(place) and place.restart is None


@pytest.mark.parametrize(
    ("agent", "reason", "error"),
    [
        ("nobody", "stop", NotFoundError),
        ("writer", " ", UsageError),
        ("writer", "x" * 501, UsageError),
        ("a\x1b[31m", "stop", UsageError),
        ("../x", "stop", UsageError),
    ],
    ids=["idle", "no-reason", "long-reason", "escape", "path"],
)
@pytest.mark.parametrize("word", ["kill", "restart"])
async def test_what_cannot_be_done_is_refused_and_not_stated(
    hall: Hall, word: str, agent: str, reason: str, error: type[Exception]
) -> None:
    hall.attempt("a")
    with pytest.raises(error):
        await getattr(hall.stops, word)(OPERATOR, agent, reason)
    assert hall.facts() == []


def test_an_attempt_is_under_way_as_long_as_it_is_made_and_counted_for_its_agent() -> None:
    under_way = UnderWay()
    with under_way.made((RUN, "a", 1), "writer", 1), under_way.made((RUN, "b", 1), "mailer", 2):
        assert under_way.counts() == {"writer": 1, "mailer": 1}
        assert [one.key for one in under_way.of("mailer")] == [(RUN, "b", 1)]
    assert not under_way.counts()

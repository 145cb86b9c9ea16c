"""Following a run over a daemon that goes away and comes back."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import pytest

from rlp.follow import PAGE, Follower
from rlp.output import Console, Style
from rlp.session import Session
from runloop.errors import UnreachableError
from tests.unit.rlp.daemon_twin import RUN, DaemonTwin


def session(start: Any = None) -> Session:
    made = Session(console=Console(io.StringIO(), io.StringIO(), Style()), environ=os.environ)
    if start is not None:
        made.start = start  # type: ignore[method-assign]
    return made


def ids(events: list[dict[str, Any]]) -> list[int]:
    return [event["id"] for event in events]


def test_every_event_comes_once_and_in_order(daemon: DaemonTwin) -> None:
    for _ in range(PAGE + 5):
        daemon.emit("timer.fired", {"timer": "t"})
    with session() as here:
        follower = Follower(here, RUN)
        assert ids(follower.next(0.1)) == list(range(1, PAGE + 6))
        daemon._loop.call_soon_threadsafe(daemon.emit, "timer.fired", {"timer": "u"})
        assert ids(follower.next(10)) == [PAGE + 6]
        assert follower.next(0.0) == []


def test_what_was_peeked_at_is_still_to_come(daemon: DaemonTwin) -> None:
    daemon.emit("timer.fired", {"timer": "t"})
    with session() as here:
        follower = Follower(here, RUN)
        assert ids(follower.peek()) == [1]
        assert ids(follower.peek()) == [1]
        assert ids(follower.next(1)) == [1]
        assert follower.peek() == []


def test_progress_from_inside_a_node_goes_to_its_listener(daemon: DaemonTwin) -> None:
    from runloopd.bus.principal import DAEMON

    heard: list[dict[str, Any]] = []
    with session() as here:
        follower = Follower(here, RUN, on_delta=heard.append)
        follower.next(0.0)

        def speak() -> None:
            delta = {"delta": {"node": "draft", "kind": "text", "text": "Hel"}}
            daemon.bus.send(DAEMON, f"rlp/runs/{RUN}/events", "observation.opening.event.v1", delta)
            daemon.emit("timer.fired", {"timer": "t"})

        daemon._loop.call_soon_threadsafe(speak)
        assert ids(follower.next(10)) == [1]
    assert heard == [{"node": "draft", "kind": "text", "text": "Hel"}]


def test_a_daemon_that_comes_back_is_followed_on_from_the_last_event(home: Path) -> None:
    second = DaemonTwin(home)

    def restart(settings: Any) -> Any:
        second.__enter__()
        here._client = here._connect()
        return here._client

    here = session(restart)
    with DaemonTwin(home) as first:
        first.emit("timer.fired", {"timer": "t"})
        follower = Follower(here, RUN)
        assert ids(follower.next(1)) == [1]
        second.events = list(first.events)
    try:
        second.events.append({**first.events[0], "id": 2})
        assert ids(follower.peek()) == [2], "looked for at once, not when the next frame comes"
        assert "taking the run up again" in here.console.err.getvalue()  # type: ignore[attr-defined]
    finally:
        here.hang_up()
        second.__exit__()


def test_a_daemon_that_stays_away_is_given_up(home: Path) -> None:
    tried: list[int] = []

    def nobody(settings: Any) -> Any:
        tried.append(1)
        raise UnreachableError("gone", code="daemon.start")

    here = session(nobody)
    with pytest.raises(UnreachableError, match="gone"):
        Follower(here, RUN).next(0.1)
    assert len(tried) == 3

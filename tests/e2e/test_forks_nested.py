"""Forks and retries of runs that have runs inside them: installed commands, real guests, a real outbox."""

from __future__ import annotations

from typing import Any

import pytest

from runloop.events import HostcallDelivered, RunStarted
from runloop.ids import child_run_id
from tests.e2e.test_forks import OUTER, begun, differences, finished, waiting
from tests.e2e.test_nested import adding, begin, roots
from tests.home import Home, example_paths, wait_until

__all__ = ["adding"]


def forked(home: Home, origin: str, *flags: str, command: str = "fork") -> str:
    """Fork a run and let it come to its end; returns the fork's id."""
    fork = home.rlp(command, origin, *flags, "--detach").check().out.split()[-1]
    finished(home, fork)
    return fork


def inside(home: Home, run: str) -> dict[str, tuple[str, RunStarted]]:
    """Node -> the run that served it and how that began."""
    begins = [(str(e.run), e.payload) for e in home.events("run.started")]
    return {
        p.parent.node: (name, p)
        for name, p in begins
        if isinstance(p, RunStarted) and p.parent is not None and p.parent.run == run
    }


def recorded_in(home: Home, run: str) -> dict[str, str | None]:
    calls = [e.payload for e in home.events("hostcall.delivered") if e.run == run]
    return {p.node: p.recorded_in for p in calls if isinstance(p, HostcallDelivered)}


@pytest.mark.requirement("I5.fork.10")
def test_a_fork_of_a_tree_is_a_tree_of_forks_and_a_change_shows_its_cone_across_it(adding: Home) -> None:
    begin(adding, [1, 2, 3]).check()
    (origin,) = roots(adding)
    same = forked(adding, origin)
    assert differences(adding, origin, same, 0)["identical"]
    before, after = inside(adding, origin), inside(adding, same)
    assert set(before) == set(after) == {"each[0]", "each[1]", "each[2]"}
    for node, (name, started) in after.items():
        assert name == child_run_id(same, node, 1)
        assert started.lineage == before[node][0] == child_run_id(origin, node, 1)
        assert started.fork is not None
        assert (started.fork.run, started.fork.at) == (before[node][0], [])
    report = adding.rlp("replay", same, "--json").check().json
    assert report["identical"]
    assert report["runs"] == 4

    other = forked(adding, origin, "--set", "xs=[1, 5, 3]")
    found = differences(adding, origin, other)
    places = {one["place"] for one in found["differences"]}
    assert {"param xs", "input list", "param each[1]/x", "output each[1]/second"} <= places
    assert not [place for place in places if "each[0]" in place or "each[2]" in place]
    assert adding.rlp("replay", other, "--json").check().json["identical"]


@pytest.mark.requirement("I5.fork.10")
def test_what_failed_inside_is_tried_again_on_the_record_of_what_did_not_fail_there(home: Home) -> None:
    (home.path / "outer.yaml").write_text(OUTER)
    home.rlp("import", *map(str, example_paths())).check()
    home.rlp("cap", "revoke", "writer", "model").check()
    home.rlp("run", "./outer.yaml", "--no-input").check(4)
    (origin,) = roots(home)
    home.rlp("cap", "grant", "writer", "model", "true").check()

    again = home.rlp("retry", origin, "--detach").check().out.split()[-1]
    wait_until(lambda: home.events("action.requested"), "the run inside the retried one to ask")
    fork = begun(home, again).fork
    assert fork is not None
    assert (fork.run, fork.at, fork.answers) == (origin, ["write/draft"], "live")
    ((name, started),) = inside(home, again).values()
    assert started.fork is not None
    assert started.fork.at == ["draft"]
    heard = recorded_in(home, name)
    assert heard["contacts"] == heard["context"] == started.fork.run
    assert heard["draft"] is None
    home.rlp("approve", waiting(home), "--wait").check()
    assert finished(home, again).outcome == "succeeded"
    assert len(home.outbox()) == 1
    assert home.rlp("replay", again, "--json").check().json["identical"]

    # A right that only somebody inside used is missed there, and what was heard before is heard again.
    denied = forked(home, again, "--deny", "mail", "--no-input")
    found = differences(home, again, denied)
    assert {place_of(one) for one in found["differences"]} == {"write/send", "write/"}
    assert finished(home, denied).outcome == "succeeded"  # the draft was good, whatever became of the mail
    assert len(home.outbox()) == 1
    absent = home.rlp("fork", f"{again}@write/nobody").check(7)
    assert "write/nobody" in absent.err
    anew = home.rlp("fork", f"{again}@write/send", "--no-input", "--detach").check().out.split()[-1]
    assert finished(home, anew).outcome == "succeeded"
    assert len(home.outbox()) == 1


def place_of(difference: dict[str, Any]) -> str:
    return str(difference["place"]).partition(" ")[2].partition(" ")[0]

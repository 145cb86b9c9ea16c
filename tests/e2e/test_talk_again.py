"""Runs of agents that talk, again: replayed, forked, sealed and executed by somebody else."""

from __future__ import annotations

import pytest

from runloop.events import HostcallDelivered, RunStarted
from runloopd.runtime import library
from tests.e2e.test_forks import differences, finished
from tests.e2e.test_talk import pair, posts, run
from tests.home import Home

__all__ = ["pair"]


@pytest.mark.requirement("I5.talk.8")
def test_a_run_of_agents_that_talk_is_replayed_forked_sealed_and_executed_again(pair: Home) -> None:
    home = pair
    asked = [["node/bob", {"n": 1}], ["node/bob", {"n": 2}], ["node/nobody", {"n": 3}]]
    run(home, {"ann": ("asker", {"ask": asked}), "bob": ("answerer", {})}).check()
    (begun,) = home.events("run.started")
    origin = str(begun.run)
    report = home.rlp("replay", origin, "--json").check().json
    assert report["identical"]
    assert report["messages"] >= 4 + 4

    fork = home.rlp("fork", origin, "--detach").check().out.split()[-1]
    assert finished(home, fork).outcome == "succeeded"
    assert differences(home, origin, fork, 0)["identical"]
    said = [e for e in home.events("message.posted") if e.run == fork]
    assert len(said) == len(posts(home)) // 2 == 4
    calls = [e.payload for e in home.events("hostcall.delivered") if e.run == fork]
    assert {call.recorded_in for call in calls if isinstance(call, HostcallDelivered)} == {origin}
    assert home.rlp("replay", fork, "--json").check().json["identical"]

    for name in (origin, fork):
        file = home.path / f"{name}.rlprun"
        home.rlp("export-run", name, "-o", str(file)).check()
        told = home.rlp("verify", "--reexecute", str(file)).check()
        assert "identical" in told.out


@pytest.mark.requirement("I5.replay.11")
def test_what_was_served_beside_an_agent_is_kept_for_its_runs_and_its_loss_is_no_divergence(
    pair: Home,
) -> None:
    home = pair
    run(home, {"bob": ("answerer", {})}).check()
    (begun,) = home.events("run.started")
    assert isinstance(begun.payload, RunStarted)
    digest = begun.payload.engine["library"]
    assert digest == library.library_digest()
    (kept,) = home.path.rglob("libraries/*.json")
    assert kept.name == f"{digest}.json"
    assert dict(library.read_library(kept.read_bytes(), digest))

"""The live feed of the cockpit against a real daemon: what happens, who waits, the daemon gone and back."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import pytest

from agtop.feed.live import LiveFeed
from agtop.model.timeline import Timeline
from agtop.watch import Watch
from runloop import approval as held
from runloop.client import BlockingClient
from runloop.config import Paths
from runloop.errors import ConflictError, RefusedError, RunloopError, UnreachableError
from runloop.rmp import topics
from tests.home import ROOT, Home

T = TypeVar("T")
PATIENCE_S = 60


async def until(look: Callable[[], Awaitable[T] | T], what: str) -> T:
    """Wait until something is so, for a bounded time."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            found = look()
            value = await found if isinstance(found, Awaitable) else found
            if value:
                return value
            await asyncio.sleep(0.02)
    raise AssertionError(what)


@pytest.mark.requirement("I7.feed.1", "C9")
async def test_it_says_that_the_daemon_went_away_goes_on_from_the_record_and_comes_back_by_itself(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    home.rlp("import", str(ROOT / "docs/examples/contacts.vcf")).check()
    for name, value in home.env.items():
        monkeypatch.setenv(name, value)
    desk = LiveFeed(Paths.resolve(home.env, home=home.path), home=str(home.path))
    watch = Watch(desk, lists_s=0.01)
    tasks = [asyncio.create_task(watch.listen()), asyncio.create_task(watch.load())]
    try:
        await until(lambda: desk.link.how == "live", "the daemon to be found")
        done = await desk.submit("write an email to John about the rollout")
        assert done.kind == "run", done
        await until(lambda: watch.state is not None and watch.state.word == "waiting", "the mail to be held")
        assert watch.timeline is not None
        assert watch.timeline.run == done.run
        await until(lambda: watch.approvals, "the approval to be listed")
        shown = await desk.approval(str(watch.approvals[0]["approval"]))
        assert b"rollout" in held.content_of(shown).lower()
        await same_verdicts_as_frames(home, desk, shown)

        await asyncio.to_thread(home.rlp, "daemon", "stop")
        await until(lambda: desk.link.how == "gone", "the loss to be noticed")
        assert "went away" in desk.link.words
        with pytest.raises(UnreachableError, match="no daemon to ask"):
            await desk.decide(shown, "approve")
        again = Timeline(watch.timeline.run)
        again.extend(await desk.facts(again.run, 0, 10_000))
        assert again.newest.word == "waiting"
        assert [one["approval"] for one in await desk.approvals()] == [shown["approval"]]

        await asyncio.to_thread(home.rlp, "daemon", "start")
        await until(lambda: desk.link.how == "live", "the daemon to be found again")
        answer = await desk.decide(shown, "approve")
        assert answer["state"] in ("approved", "active", "consumed")
        await until(lambda: watch.state is not None and watch.state.outcome, "the run to end")
        assert watch.state is not None
        assert watch.state.outcome == "succeeded"
        assert watch.state.resumed
        with pytest.raises(ConflictError):
            await desk.decide(shown, "approve")
        fork = await desk.fork(watch.timeline.run, "review")
        await until(lambda: _listed(desk, fork), "the fork to be listed")
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await desk.close()


async def same_verdicts_as_frames(home: Home, desk: LiveFeed, shown: dict[str, Any]) -> None:
    """What a person may not do in the cockpit is refused as it is to raw frames, and nothing comes of it."""
    other = {**shown, "action_digest": "0" * 64}
    nobody = {"agent": "nobody", "reason": "x"}
    socket = home.path / "run" / "rmp.sock"
    operator = (home.path / "keys" / "operator.key").read_bytes()
    with BlockingClient.connect(socket, operator) as raw, BlockingClient.connect(socket) as stranger:

        def decided(client: BlockingClient, approval: dict[str, Any]) -> Any:
            return client.request(
                topics.ACTION_DECISION, held.DECISION_TYPE, held.decision(approval, "approve", "")
            )

        for order, frame in (
            (desk.decide(other, "approve"), lambda: decided(raw, other)),
            (desk.kill(**nobody), lambda: raw.call("agent.kill", nobody)),
            (desk.restart(**nobody), lambda: raw.call("agent.restart", nobody)),
            (desk.cancel("0" * 36, "x"), lambda: raw.call("run.cancel", {"run": "0" * 36, "reason": "x"})),
        ):
            with pytest.raises(RunloopError) as by_frame:
                await asyncio.to_thread(frame)
            assert await verdict_of(order) == named(by_frame.value)

        key = home.path / "keys" / "operator.key"
        key.rename(home.path / "taken.key")
        keyless = LiveFeed(Paths.resolve(home.env, home=home.path))
        hearing = asyncio.create_task(keyless.change())
        try:
            with pytest.raises(RefusedError) as by_frame:
                await asyncio.to_thread(stranger.call, "approvals.show", {"approval": shown["approval"]})
            await until(lambda: keyless.link.how == "live" or keyless.link.how == "gone", "an answer")
            assert await verdict_of(keyless.approval(str(shown["approval"]))) == named(by_frame.value)
            with pytest.raises(RefusedError) as by_frame:
                await asyncio.to_thread(decided, stranger, shown)
            assert await verdict_of(keyless.decide(shown, "approve")) == named(by_frame.value)
        finally:
            hearing.cancel()
            await asyncio.gather(hearing, return_exceptions=True)
            await keyless.close()
            (home.path / "taken.key").rename(key)
    assert home.events("action.decided") == []


def named(error: RunloopError) -> tuple[str, str]:
    return str(error.to_wire()["family"]), error.named_code


async def verdict_of(order: Awaitable[Any]) -> tuple[str, str]:
    with pytest.raises(RunloopError) as caught:
        await order
    return named(caught.value)


async def _listed(desk: LiveFeed, run: str) -> bool:
    return run in {row.run for row in await desk.runs()}

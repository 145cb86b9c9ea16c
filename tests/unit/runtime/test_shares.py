"""What the end of a worker means where it had a control group."""

from __future__ import annotations

import asyncio
import os
import subprocess
from typing import Any, cast

import pytest

from runloop.events import GuestError
from runloopd.cgroups import Bounds, Groups, Member, Used
from runloopd.runtime.failures import FLAPPING, RESERVED, FailureClass, failure_class
from runloopd.runtime.orders import AttemptOrder, AttemptResult
from runloopd.runtime.shares import Shares, worker_bounds
from runloopd.runtime.workers import Worker

RUN = "0b7c0b7c-0000-4000-8000-000000000001"
ORDER = AttemptOrder(
    run=RUN, node="n", attempt=1, component_digest="0" * 64, source=None, entrypoint="", input={}, agent="a"
)
OUT = AttemptResult(ok=True, output={"ports": {}, "artifacts": []}, error=None, fuel=1, calls=0)


def gone(code: str = "guest.crashed") -> AttemptResult:
    error = GuestError(code=code, message="the worker was killed by SIGKILL", retryable=True)
    return AttemptResult(ok=False, output=None, error=error, fuel=7, calls=2)


class Scripted(Groups):
    """Groups of a kernel that does as it is told."""

    def __init__(self, used: Used, refuses: str | None = None) -> None:
        super().__init__(None, (), "")
        self.used, self.refuses = used, refuses
        self.asked: list[dict[str, Any]] = []
        self.lefts = 0

    def enter(self, kind: Any, pid: int, **about: Any) -> Member:
        self.asked.append(about)
        member = Member(
            agent=about["agent"], kind=kind, home=f"run-{about['run']}", bounds=about["bounds"], pid=pid,
            pidfd=about["pidfd"],
        )  # fmt: skip
        member.begun = asyncio.get_running_loop().create_future()
        if self.refuses is None:
            member.begun.set_result(None)
        else:
            member.begun.set_exception(OSError(28, self.refuses))
        return member

    async def left(self, member: Member) -> Used:
        self.lefts += 1
        return self.used


async def judged(groups: Scripted, result: AttemptResult) -> tuple[AttemptResult, int]:
    """And how the worker's process ended, which is a real one."""
    with subprocess.Popen(["sleep", "1000"]) as process:
        pidfd = os.pidfd_open(process.pid)
        worker = Worker(process.pid, cast(Any, None), asyncio.get_running_loop().create_future(), pidfd)
        shares = Shares(groups)
        async with shares.of(worker, ORDER) as share:
            await asyncio.sleep(0)
            if groups.refuses is not None:
                process.wait(10)  # it does not go on until somebody is done with it
            found = await share.judged(result)
        await shares.close()
        os.close(pidfd)
        return found, process.wait(10)


@pytest.mark.requirement("I8.groups.5")
async def test_a_worker_that_the_kernel_ended_for_want_of_memory_has_an_end_with_a_name() -> None:
    groups = Scripted(Used(peak=(100 << 20) + 1, ooms=1))
    found, _ = await judged(groups, gone())
    assert found.error is not None and (found.error.code, found.error.retryable) == ("guest.oom", True)
    assert "at 101 MiB" in found.error.message and (found.fuel, found.calls) == (7, 2)
    assert groups.asked[0]["run"] == RUN and groups.asked[0]["agent"] == "a"
    assert groups.asked[0]["bounds"] == worker_bounds(ORDER.limits.memory_bytes)
    bounds: Bounds = groups.asked[0]["bounds"]
    assert bounds.memory is not None and bounds.memory > ORDER.limits.memory_bytes


@pytest.mark.requirement("I8.groups.5")
def test_want_of_memory_is_the_hosts_word_retried_by_the_opening_and_no_storm_of_the_agents() -> None:
    assert failure_class("guest.oom") is FailureClass.PERMANENT, "it would only fill the group again"
    assert "guest.oom" in RESERVED and "guest.oom" not in FLAPPING


@pytest.mark.parametrize("result", [OUT, gone("guest.trap"), gone()], ids=["ok", "trap", "crash"])
async def test_every_other_end_stays_what_it_is(result: AttemptResult) -> None:
    ooms = 0 if result.error is not None and result.error.code == "guest.crashed" else 1
    groups = Scripted(Used(ooms=ooms))
    found, _ = await judged(groups, result)
    assert found == result and groups.lefts >= 1


@pytest.mark.requirement("I8.groups.2")
async def test_a_worker_without_its_group_is_ended_and_never_was_one() -> None:
    found, ended = await judged(Scripted(Used(), refuses="no space left"), gone())
    assert found.error is not None and found.error.code == "guest.no_worker"
    assert "no space left" in found.error.message and ended == -9

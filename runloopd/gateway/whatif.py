"""Control methods that ask what would have been: history under another policy, and with faults.

Knows: the shapes of the methods, and that only the operator may ask: what is answered tells of every run.
Does not know: how runs are driven again (``runs.whatif``). One question at a time: each keeps the sandbox
busy.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from pog.reader import Reader
from runloop.caps.policy import Override, parse_override, parse_policy
from runloop.errors import UsageError
from runloop.ids import agent_name
from runloopd.bus.principal import Principal
from runloopd.gateway.methods import Params, Row
from runloopd.runs.replayer import Source
from runloopd.runs.whatif.faults import Faults
from runloopd.runs.whatif.library import Library
from runloopd.runs.whatif.policy import PolicyTest, Proposal
from runloopd.runs.whatif.shrink import Shrink
from runloopd.runtime.registry import Registry
from runloopd.runtime.supervisor import Runtime

__all__ = ["rows"]

MAX_OVERRIDES = 1_000


class Runs(Params, frozen=True, kw_only=True):
    since_ms: int = 0
    agent: str | None = None


class Test(Params, frozen=True, kw_only=True):
    run: str
    agent: str | None = None
    policy: str | None = None
    overrides: dict[str, str] | None = None
    execute: bool = False


class Least(Params, frozen=True, kw_only=True):
    agent: str
    since_ms: int = 0


class FaultReplay(Params, frozen=True, kw_only=True):
    run: str
    every_call: bool = False


def rows(
    *,
    reader: Reader,
    registry: Registry,
    source: Source,
    runtime: Runtime,
    override: Callable[[str], Override | None],
) -> Sequence[Row]:
    """``policy.runs``, ``policy.test``, ``cap.shrink`` and ``run.faults``. ``reader`` is asked from threads;
    ``override`` gives the operator's present word on an agent."""
    library = Library(reader, source)
    test = PolicyTest(library, runtime, override)
    turn = asyncio.Lock()

    async def runs(principal: Principal, params: Runs) -> Any:
        return {"runs": await library.runs(params.since_ms, params.agent)}

    async def policy(principal: Principal, params: Test) -> Any:
        wish = _proposal(registry, params)
        run = await asyncio.to_thread(reader.find_run, params.run)
        async with turn:
            return (await test.test(run, wish, execute=params.execute)).to_json()

    async def shrink(principal: Principal, params: Least) -> Any:
        agent = await asyncio.to_thread(registry.resolve, f"agent:{agent_name(params.agent)}")
        async with turn:
            return (await Shrink(library, test, override).shrink(agent, params.since_ms)).to_json()

    async def faults(principal: Principal, params: FaultReplay) -> Any:
        run = await asyncio.to_thread(reader.find_run, params.run)
        async with turn:
            return await Faults(library, runtime).replay(run, every_call=params.every_call)

    return [
        ("policy.runs", Runs, runs, True),
        ("policy.test", Test, policy, True),
        ("cap.shrink", Least, shrink, True),
        ("run.faults", FaultReplay, faults, True),
    ]


def _proposal(registry: Registry, params: Test) -> Proposal:
    """What is to be tested, read; raises :class:`CapsError` with every mistake in it."""
    if (params.policy is None) == (params.overrides is None):
        raise UsageError("give either a policy or a set of overrides", code="policy.proposal")
    if params.overrides is not None:
        if params.agent is not None or len(params.overrides) > MAX_OVERRIDES:
            raise UsageError(
                "a set of overrides names its agents itself", hint="leave --agent out", code="policy.proposal"
            )
        sets = {
            agent_name(name): parse_override(text, origin=f"{name}.toml")
            for name, text in params.overrides.items()
        }
        return Proposal(overrides=sets)
    assert params.policy is not None
    if params.agent is None:
        return Proposal(override=parse_override(params.policy, origin="the policy"))
    name = agent_name(params.agent)
    return Proposal(agent=name, policy=parse_policy(params.policy, origin="the policy"))

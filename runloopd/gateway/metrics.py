"""Control methods of what the daemon tells of agents at work, and of the operator's hand on them.

Knows: the shapes of ``agents.metrics``, ``agent.kill`` and ``agent.restart``, and which service each figure
is asked of. Does not know: how a figure is made of them (``observe.metrics``), what ending an attempt means
(``runs.stops``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Annotated, Any

import msgspec

from runloopd.authority.approvals import Approvals
from runloopd.broker.promises import Promises
from runloopd.bus.bus import Bus
from runloopd.bus.principal import Principal
from runloopd.cgroups import Groups
from runloopd.gateway.methods import Params, Row
from runloopd.journal import Journal
from runloopd.observe.metrics import Known, Metrics, Sources, Working
from runloopd.runs.stops import Stops
from runloopd.runs.underway import UnderWay
from runloopd.runtime.quarantine import Quarantine
from runloopd.runtime.registry import Registry
from runloopd.runtime.supervisor import Runtime

__all__ = ["rows", "sources"]


class Look(Params, frozen=True, kw_only=True):
    since: Annotated[int, msgspec.Meta(ge=1, le=2**53 - 1)] | None = None
    """Number of an earlier sample: rates are over the time between."""


class StopAgent(Params, frozen=True, kw_only=True):
    agent: str
    reason: str


def rows(metrics: Metrics, stops: Stops) -> Sequence[Row]:
    """``agents.metrics``, ``agent.kill`` and ``agent.restart``."""

    async def look(_: Principal, params: Look) -> Any:
        return await metrics.sample(params.since)

    async def kill(principal: Principal, params: StopAgent) -> Any:
        return await stops.kill(principal, params.agent, params.reason)

    async def restart(principal: Principal, params: StopAgent) -> Any:
        return await stops.restart(principal, params.agent, params.reason)

    return (
        ("agents.metrics", Look, look, True),
        ("agent.kill", StopAgent, kill, True),
        ("agent.restart", StopAgent, restart, True),
    )


def sources(
    *,
    registry: Registry,
    runtime: Runtime,
    under_way: UnderWay,
    approvals: Approvals,
    promises: Promises,
    quarantine: Quarantine,
    journal: Journal,
    bus: Bus,
    runs: Callable[[], Sequence[str]],
    groups: Groups,
) -> Sources:
    """Where the figures come from; nothing is asked before somebody looks."""

    def asking() -> set[tuple[str, str]]:
        open_ones = {(one.run, one.node) for one in approvals.list() if one.run and one.state == "open"}
        words = {(one.run, one.node) for one in promises.waiting() if one.resolver == "operator" and one.run}
        return {(str(run), node) for run, node in open_ones | (words & set(promises.parked()))}

    def daemon() -> dict[str, Any]:
        counters = bus.counters
        return {
            "events": journal.head_id,
            "views_behind": max(0, journal.head_id - journal.views_cursor),
            "bus_queued": bus.queued,
            "bus_published": counters.published,
            "bus_dropped": sum(counters.dropped.values()),
            "workers": runtime.workers,
            "spares": runtime.spares,
            "runs": len(runs()),
        }

    return Sources(
        known=lambda: list(_known(registry)),
        working=lambda: _working(runtime),
        spent_us=lambda agent: runtime.places.spent_us(agent) + groups.spent_us(agent),
        spenders=runtime.places.agents,
        under_way=under_way.counts,
        asking=asking,
        held=lambda: {held["agent"]: held["reason"] for held in quarantine.show()},
        daemon=daemon,
        zygote=lambda: runtime.zygote_pid,
        groups=groups.figures,
    )


def _known(registry: Registry) -> Iterator[Known]:
    """Every agent that is here; the newest version of one stands last, and is told."""
    for agent in registry.list():
        yield Known(name=agent.manifest.name, version=agent.manifest.version)
    for refusal in registry.refused():
        yield Known(name=refusal.name, broken=refusal.reason)


def _working(runtime: Runtime) -> Iterator[Working]:
    for place in runtime.places:
        run, node, _ = place.key
        yield Working(
            agent=place.agent,
            run=run,
            node=node,
            work=place.work,
            state=place.state,
            pid=None if place.worker is None else place.worker.pid,
            fuel=place.fuel,
        )

"""The operator's hand on agents at work: end what they do now, or have it go on in a fresh process.

Knows: which attempts and tools an agent serves at this moment, that the fact is in the ledger before anything
is ended, what else goes with a killed attempt (questions that nobody may answer any more). Does not know: who
may run from now on (``runtime.quarantine``), what an opening does about a failed node (``openings.engine``).

*Killed*, an attempt fails with ``guest.killed``, and its opening's ``retry`` decides what follows.
*Restarted*, it is made again from its record in another process: every answer it has heard arrives at the
same place, no effect happens twice, and nothing is counted against the agent. Executions of what the ledger
tells already (replays) are left alone: they do nothing.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, ClassVar, Literal

from runloop.errors import FailedError, NotFoundError, RefusedError, UsageError
from runloop.events import AgentStopped, Draft, Event, Provenance
from runloop.ids import agent_name
from runloopd.bus.principal import Principal
from runloopd.journal import Journal
from runloopd.runs.underway import Attempt, Key, UnderWay
from runloopd.runtime.failures import KILLED
from runloopd.runtime.places import Place
from runloopd.runtime.supervisor import Runtime

__all__ = ["AgentKilledError", "Stops"]

REASON_CHARS = 500
_MOST = 4_096
"""Executions of one agent that one word ends; what is left needs another."""

Void = Callable[[str, str, int], Awaitable[object]]
"""Called with run, node and attempt: nobody may approve what it asked for any more."""


class AgentKilledError(FailedError):
    """The operator ended the attempt. Look at why, then run it again."""

    code: ClassVar[str] = KILLED
    retryable = True

    def __init__(self, agent: str, principal: str, reason: str) -> None:
        super().__init__(f"{agent} was killed by {principal}: {reason}", agent=agent)


class Stops:
    """Ends the processes of agents at work. One per daemon."""

    def __init__(self, *, under_way: UnderWay, runtime: Runtime, journal: Journal, void: Void) -> None:
        self._under_way = under_way
        self._runtime = runtime
        self._journal = journal
        self._void = void

    async def kill(self, principal: Principal, agent: str, reason: str) -> dict[str, Any]:
        """End every attempt an agent is making now, and every tool it serves; new ones are not kept from
        beginning (that is a quarantine).

        Returns ``{agent, how, attempts: [{run, node, attempt}], tools, event}``. Raises
        :class:`RefusedError` for anybody but the operator, :class:`NotFoundError` when it does nothing.
        """
        name, why = _said(principal, agent, reason)
        attempts = self._under_way.of(name)[:_MOST]
        tools = [place for place in self._places(name, "tool") if place.worker is not None]
        keys = [(one.key, one.scheduled) for one in attempts] + [(one.key, 0) for one in tools]
        events = await self._state(principal, name, "killed", why, keys)
        error = AgentKilledError(name, principal.label, why)
        ended = [
            one
            for one, event in zip(attempts, events, strict=False)
            if UnderWay.end(one, error, stated=event.id)
        ]
        for tool in tools:
            if tool.worker is not None:
                tool.worker.kill()
        for one in ended:
            await self._void(*one.key)
        return _answer(name, "killed", ended, len(tools), events[0])

    async def restart(self, principal: Principal, agent: str, reason: str) -> dict[str, Any]:
        """Have every attempt of an agent that has a process go on in a fresh one.

        Returns and raises as :meth:`kill`.
        """
        name, why = _said(principal, agent, reason)
        scheduled = {one.key: one for one in self._under_way.of(name)}
        places = [
            place
            for place in self._places(name, "attempt")
            if place.worker is not None and place.key in scheduled
        ]
        keys = [(place.key, scheduled[place.key].scheduled) for place in places]
        events = await self._state(principal, name, "restarted", why, keys)
        words = f"restarted by {principal.label}: {why}"
        ended = [scheduled[place.key] for place in places if self._runtime.end_worker(place, words)]
        return _answer(name, "restarted", ended, 0, events[0])

    def _places(self, agent: str, work: str) -> list[Place]:
        return [place for place in self._runtime.places.of(agent) if place.work == work][:_MOST]

    async def _state(
        self,
        principal: Principal,
        agent: str,
        how: Literal["killed", "restarted"],
        reason: str,
        keys: Sequence[tuple[Key, int]],
    ) -> list[Event]:
        """State it of each execution, in its run. Raises :class:`NotFoundError` where there is none."""
        if not keys:
            raise NotFoundError(
                f"{agent} does nothing now that could be {how}",
                hint=f"'rlp top' shows who works; 'rlp agent quarantine {agent}' keeps it from beginning",
                code="agent.idle",
            )
        return await self._journal.append(
            *(
                Draft(
                    payload=AgentStopped(
                        name=agent,
                        how=how,
                        reason=reason,
                        principal=principal.label,
                        node=node,
                        attempt=attempt,
                    ),
                    actor=principal.label,
                    run=run,
                    provenance=Provenance(
                        causes=(scheduled,) if scheduled else (), node=node, attempt=attempt, agent=agent
                    ),
                )
                for (run, node, attempt), scheduled in keys
            )
        )


def _said(principal: Principal, agent: str, reason: str) -> tuple[str, str]:
    """Who is meant and why, from somebody who may say so."""
    if principal.kind != "operator":
        raise RefusedError(
            f"{principal.label} may not end what agents do: only the operator can",
            hint="use rlp as the user who owns the daemon",
            code="operator.required",
        )
    words = reason.strip()
    if not words or len(words) > REASON_CHARS:
        raise UsageError(
            f"a reason of 1 to {REASON_CHARS} characters is kept with the decision", code="agent.reason"
        )
    return agent_name(agent), words


def _answer(agent: str, how: str, ended: Sequence[Attempt], tools: int, first: Event) -> dict[str, Any]:
    attempts = [dict(zip(("run", "node", "attempt"), one.key, strict=True)) for one in ended]
    return {"agent": agent, "how": how, "attempts": attempts, "tools": tools, "event": first.id}

"""Where one call of a tool may go: to the place it was judged for, and by redirects nowhere beyond that.

Knows: what a redirect adds to the checks of every hop (``http_ops.NetPermission``). Does not know: how a
request travels (``providers.web``), who was asked about the call (``tool_ops``).

The place in the arguments was looked at before anybody was asked: whether it is granted, whether it may be
told what the run has heard, what a person reads of it. Where a redirect leads is a server's wish that nobody
looked at. So it leads nowhere the call itself could not have gone (attacks.md C1, P2):

- a tool of a bundle stays with the servers it names under ``capabilities``, whatever its agent may reach;
- what a person was asked about, or anything that changes something, stays with the server that was named;
- another server is told what the run has heard under the same rule as if it had been named at first.
"""

from __future__ import annotations

from collections.abc import Sequence

from runloop.caps.destination import Destination
from runloop.caps.grants import NetRule, parse_hosts
from runloop.caps.policy import Verdict
from runloopd.broker.asks import Ask, CapabilityError
from runloopd.broker.flows import Flows
from runloopd.broker.http_ops import NetPermission
from runloopd.broker.tool_plan import Plan

__all__ = ["REDIRECT", "Reach"]

REDIRECT = "net.redirect"
"""Code of a redirect that is not followed."""


class Reach(NetPermission):
    """The ``net`` capability of one call of a tool. One for each call: it remembers where the call began."""

    def __init__(self, ask: Ask, plan: Plan, flows: Flows, place: Destination | None) -> None:
        """``place``: named by the arguments, and judged with them; None: they name none, so the first place
        that is asked is judged like one that a redirect leads to."""
        super().__init__(ask, why=plan.name, flows=flows)
        self._plan = plan
        self._place = place
        self._begun = place
        self._listed = _listed(plan)

    def check(self, method: str, place: Destination) -> None:
        """See the base. Raises ``net.redirect`` for a place the call itself could not have had."""
        if self._begun is not None and place.origin != self._begun.origin:
            self._stay(place)
        self._begun = self._begun or place
        super().check(method, place)

    def _stay(self, place: Destination) -> None:
        if self._plan.effect != "read":
            self._refuse(place, "where nobody was asked about it")
        wanted = NetRule(host=place.host, port=place.port)
        if self._listed is not None and not any(rule.covers(wanted) for rule in self._listed):
            self._refuse(place, f"and the tool names only {_hosts(self._listed)}")

    def _refuse(self, place: Destination, why: str) -> None:
        begun = self._begun
        assert begun is not None
        raise CapabilityError(
            Verdict(
                allowed=False,
                capability="net",
                target=place.authority,
                reason=f"{self._plan.name}: {begun.authority} sends on to {place.authority}, {why}",
                how_to_obtain="look at that server; if it has moved, the tool must name the new place",
            ),
            code=REDIRECT,
        )

    def _confide(self, place: Destination) -> None:
        """What was judged with the arguments may have been read by a person; every other place is judged."""
        if self._place is None or place.origin != self._place.origin:
            super()._confide(place)


def _listed(plan: Plan) -> Sequence[NetRule] | None:
    """Servers that a tool of a bundle says it needs; None: a tool of the host goes where it is told."""
    if plan.tool is None or plan.tool.http is None:
        return None
    found = parse_hosts([word.partition(":")[2] for word in plan.capabilities if word.startswith("net:")])
    return [rule for rule in found if isinstance(rule, NetRule)] if isinstance(found, tuple) else []


def _hosts(rules: Sequence[NetRule]) -> str:
    return ", ".join(sorted(str(rule) for rule in rules))[:300]

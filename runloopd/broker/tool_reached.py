"""Where the program of one call went: on record with the call, counted and bounded.

Knows: how connections become facts of a call. Does not know: who may go where (``tools.egress``). A program
may knock a thousand times: what is kept is where, and how often.
"""

from __future__ import annotations

from runloop.caps.policy import Verdict
from runloopd.broker.asks import Ask, audit

__all__ = ["MAX_PLACES", "Reached"]

MAX_PLACES = 32
"""Places of one call that are named on record; the rest is counted together."""


class Reached:
    """The places that one call's program was connected to."""

    def __init__(self, ask: Ask) -> None:
        self._ask = ask
        self._places: dict[str, int] = {}
        self._others = 0

    def note(self, host: str, port: int, size: int) -> None:
        """It was connected to this one; or (``size``) so many bytes are about to go there. Raises what
        suspends an agent that leaks: then they do not."""
        place = f"{host}:{port}"
        if size:
            self._ask.outbound(place, size, 0)
        elif place in self._places or len(self._places) < MAX_PLACES:
            self._places[place] = self._places.get(place, 0) + 1
        else:
            self._others += 1

    def state(self) -> None:
        """Put it among the facts of the call, once: it is written with the call's record."""
        for place, times in self._places.items():
            self._say(f"CONNECT {place}", f"net is granted for it; connected {_times(times)}")
        if self._others:
            self._say(
                "CONNECT elsewhere",
                f"net is granted for it; connected {_times(self._others)} to more than {MAX_PLACES} places",
            )
        self._places, self._others = {}, 0

    def _say(self, target: str, reason: str) -> None:
        went = Verdict(allowed=True, capability="net", target=target, reason=reason)
        self._ask.facts.append(audit(self._ask.agent, went, self._ask.caller, self._ask.call))


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"

"""Tripwires: what an agent sends outside, counted, and the moment at which it looks like a leak (P3, P4, P5).

Knows: how much each agent has sent where within a window, and the shapes of exfiltration: one long address,
many bytes or calls to one place, many new places, many names below one. Pure: time comes from the caller.
Does not know: what follows when one trips (``runtime.quarantine``), or who may send at all.

Every request that leaves is allowed by itself; only their sum is not. Agents that have heard what is private
get a quarter of the bytes. What the agents of one tree of runs send together is held to the same limits:
twenty that share a leak are one leak. While the agent that tripped is held, nobody else of its tree sends
anything either, after a restart as before: who is held, and for which tree, is the ledger's. The counts are
of this daemon's life: a restart begins a window.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar

from runloop.errors import RefusedError

__all__ = ["Limits", "TrippedError", "Tripwires"]


class TrippedError(RefusedError):
    """What the agent sends looks like a leak; it is suspended until the operator has looked."""

    code: ClassVar[str] = "tripwire.tripped"

    def __init__(self, agent: str, reason: str, *, of_run_with: str | None = None) -> None:
        """``of_run_with``: the agent that is suspended, where ``agent`` only works in the same tree."""
        words = f"{agent} is suspended"
        if of_run_with is not None:
            words = f"{agent} sends nothing while {of_run_with} of the same run is suspended"
        super().__init__(
            f"{words}: {reason}",
            hint=f"when that is as it should be: 'rlp agent release {of_run_with or agent}'",
        )
        self.reason = reason


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """The most that looks like work, per agent and within the window."""

    window_ms: int = 600_000
    address: int = 4_096
    """Bytes of one address: what is asked for is short, what is carried off is long."""
    sends: int = 1_000
    """To one place."""
    bytes: int = 1_048_576
    """To one place."""
    private_bytes: int = 262_144
    """To one place, by agents that have heard what is private."""
    places: int = 64
    """Different ones."""
    names: int = 24
    """Different ones below one name: each may be a word."""


@dataclass(slots=True)
class _Place:
    """What one place was sent within the window."""

    sends: int = 0
    bytes: int = 0
    private: int = 0
    """Of the sends, those by agents that had heard what is private."""


@dataclass(slots=True)
class _Sent:
    """What one agent, or all of one tree of runs, have sent within the window."""

    moments: deque[tuple[int, str, int, bool]] = field(default_factory=deque)
    """``(now_ms, place, bytes, private)``, oldest first."""
    places: dict[str, _Place] = field(default_factory=dict)

    def add(self, now_ms: int, place: str, size: int, private: bool) -> None:
        self.moments.append((now_ms, place, size, private))
        self._count(place, 1, size, private)

    def forget(self, before_ms: int) -> None:
        while self.moments and self.moments[0][0] < before_ms:
            _, place, size, private = self.moments.popleft()
            self._count(place, -1, -size, private)

    def _count(self, name: str, sends: int, size: int, private: bool) -> None:
        place = self.places.setdefault(name, _Place())
        place.sends += sends
        place.bytes += size
        place.private += sends if private else 0
        if not place.sends:
            del self.places[name]


class Tripwires:
    """One per daemon."""

    def __init__(
        self,
        *,
        limits: Limits | None = None,
        trip: Callable[[str, str, str | None], None] = lambda agent, reason, tree: None,
        held: Callable[[str], str | None] = lambda agent: None,
        leaked: Callable[[str], str | None] = lambda tree: None,
    ) -> None:
        """``trip`` suspends an agent, with the reason and the tree; it has done so when it returns. ``held``:
        why an agent is suspended, None while it is not. ``leaked``: the agent that is suspended for what it
        sent in a tree of runs, None where there is none."""
        self._limits = limits or Limits()
        self._trip = trip
        self._held = held
        self._leaked = leaked
        self._sent: dict[str, _Sent] = {}
        self._trees: OrderedDict[str, _Sent] = OrderedDict()
        """Those that sent something within the window, whoever did so last behind the others."""

    def outbound(
        self,
        agent: str,
        place: str,
        size: int,
        now_ms: int,
        *,
        address: int = 0,
        private: bool = False,
        tree: str | None = None,
    ) -> None:
        """Count what is about to leave. Raises :class:`TrippedError`: then it may not.

        ``place``: ``host``, ``host:port`` or ``mcp:<server>``. ``size``: bytes in all; ``address``: of a URL.
        ``tree``: the outermost run of those the agent works in.
        """
        self._refuse_held(agent, tree)
        own = self._sent.setdefault(agent, _Sent())
        self._count(own, now_ms, place, size, private)
        reason = self._shape(own, place, address, "it")
        if reason is None and tree is not None:
            whole = self._of_tree(tree, now_ms)
            self._count(whole, now_ms, place, size, private)
            reason = self._shape(whole, place, address, "its run")
        if reason is None:
            return
        del self._sent[agent]  # whoever releases it lets it begin anew
        if tree is not None:
            self._trees.pop(tree, None)
        self._trip(agent, reason, tree)
        raise TrippedError(agent, reason)

    def _refuse_held(self, agent: str, tree: str | None) -> None:
        if (why := self._held(agent)) is not None:
            raise TrippedError(agent, why)
        if tree is None or (leaked := self._leaked(tree)) is None:
            return
        if (why := self._held(leaked)) is not None:
            raise TrippedError(agent, why, of_run_with=leaked)

    def _of_tree(self, tree: str, now_ms: int) -> _Sent:
        """What a tree has sent; those that sent nothing for a window are forgotten on the way."""
        sent = self._trees.setdefault(tree, _Sent())
        self._trees.move_to_end(tree)
        while self._trees:
            name, oldest = next(iter(self._trees.items()))
            if name == tree or oldest.moments[-1][0] >= now_ms - self._limits.window_ms:
                break
            del self._trees[name]
        return sent

    def _count(self, sent: _Sent, now_ms: int, place: str, size: int, private: bool) -> None:
        sent.forget(now_ms - self._limits.window_ms)
        sent.add(now_ms, place, size, private)

    def _shape(self, sent: _Sent, place: str, address: int, who: str) -> str | None:
        """The reason in words, if it looks like a leak."""
        limits, within = self._limits, f"within {self._limits.window_ms // 60_000} minutes"
        if address > limits.address:
            return (
                f"{who} asked {place} for an address of {address} bytes, of which {limits.address} are usual"
            )
        there = sent.places[place]
        most = limits.private_bytes if there.private else limits.bytes
        if there.bytes > most:
            heard = ", having heard what is private" if there.private else ""
            return f"{who} sent {there.bytes} bytes to {place} {within}{heard}; {most} are usual at most"
        if there.sends > limits.sends:
            return f"{who} sent to {place} {there.sends} times {within}; {limits.sends} are usual at most"
        above = _above(place)
        names = sorted(one for one in sent.places if above and _above(one) == above)
        if len(names) > limits.names:
            return f"{who} used {len(names)} names below {above} {within}, such as {names[0]}"
        if len(sent.places) > limits.places:
            return f"{who} sent to {len(sent.places)} places {within}; {limits.places} are usual at most"
        return None


def _above(place: str) -> str | None:
    """The name that a host's name stands below, two labels at least; None for an address or a server."""
    host = place.rpartition(":")[0] if place.rpartition(":")[2].isdigit() else place
    above = host.partition(".")[2]
    return above if "." in above and not above.replace(".", "").isdigit() else None

"""Following a run: every event once, in ledger order, across dropped frames and daemon restarts.

A frame on the run's topic only says *look*; what is shown comes from the ledger, from the last id seen on.
So a shed frame, a duplicate or a lost connection changes when something is shown, never what. Knows nothing
of how events look.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from rlp.session import Session
from runloop.errors import UnreachableError
from runloop.rmp import topics

if TYPE_CHECKING:
    from runloop.client import BlockingClient

__all__ = ["Follower"]

PAGE = 500
"""Events asked for at once."""
ATTEMPTS = 3
"""Times in a row a lost daemon is looked for, and started, before we give up."""


class Follower:
    """Reads one run's events as they are committed."""

    def __init__(
        self, session: Session, run: str, *, on_delta: Callable[[dict[str, Any]], None] | None = None
    ) -> None:
        """``on_delta`` is given the ephemeral progress of guests; it may miss some."""
        self._session = session
        self._run = run
        self._on_delta = on_delta
        self._client: BlockingClient | None = None
        self._last = 0
        self._behind = True
        """There may be events nobody told us of: at the start, and after every new connection."""
        self._kept: list[dict[str, Any]] = []

    def next(self, timeout_s: float) -> list[dict[str, Any]]:
        """Events not returned before, in order; waits up to ``timeout_s`` for the first, then returns
        none."""
        if self._kept:
            kept, self._kept = self._kept, []
            return kept
        return self._surviving(lambda: self._look(timeout_s))

    def peek(self) -> list[dict[str, Any]]:
        """Events that came meanwhile, without waiting; :meth:`next` will return them too."""
        self._kept += self._surviving(lambda: self._look(0.0))
        return list(self._kept)

    def _surviving(self, read: Callable[[], list[dict[str, Any]]]) -> list[dict[str, Any]]:
        for left in reversed(range(ATTEMPTS)):
            try:
                self._attach()
                return read()
            except UnreachableError:
                self._session.hang_up()
                self._client = None
                if not left:
                    raise
                self._session.console.say("rlp: the daemon went away; taking the run up again", "yellow")
        raise AssertionError

    def _attach(self) -> None:
        client = self._session.client()
        if client is not self._client:
            client.subscribe(topics.run_events(self._run))
            self._client = client
            self._behind = True

    def _look(self, timeout_s: float) -> list[dict[str, Any]]:
        if not self._behind and not self._woken(timeout_s) and not timeout_s:
            return []  # a peek that nobody called for; a silence that lasted is looked into all the same
        self._behind = False
        return self._fetch()

    def _woken(self, timeout_s: float) -> bool:
        """Wait for a frame about a committed event; take all that queue, one look sees them all."""
        assert self._client is not None
        woken = False
        delivery = self._client.next_delivery(timeout_s)
        while delivery is not None:
            payload = delivery.payload
            if isinstance(payload, dict) and isinstance(payload.get("delta"), dict):
                if self._on_delta is not None:
                    self._on_delta(payload["delta"])
            else:
                woken = True
            delivery = self._client.next_delivery(0.0 if woken else timeout_s)
        return woken

    def _fetch(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        while True:
            page = self._session.ask("run.events", run=self._run, after=self._last, limit=PAGE)["events"]
            found += page
            if page:
                self._last = page[-1]["id"]
            if len(page) < PAGE:
                return found

"""Following a run: every event once, in ledger order, across dropped frames and daemon restarts.

A frame on the run's topic only says *look*; what is shown comes from the ledger, from the last id seen on.
So a shed frame, a duplicate or a lost connection changes when something is shown, never what. The runs that
serve its nodes are followed while they go on. Knows nothing of how events look.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from rlp.session import Session
from runloop.errors import NotFoundError, UnreachableError
from runloop.ids import child_run_id, delegated_run_id
from runloop.rmp import topics

if TYPE_CHECKING:
    from runloop.client import BlockingClient
    from runloop.rmp.session import Delivery

__all__ = ["Follower"]

PAGE = 500
"""Events asked for at once."""
IDLE_S = 0.2
"""How often ``on_idle`` is called."""
ATTEMPTS = 3
"""Times in a row a lost daemon is looked for, and started, before we give up."""


class Follower:
    """Reads one run's events as they are committed."""

    def __init__(
        self,
        session: Session,
        run: str,
        *,
        on_delta: Callable[[dict[str, Any]], None] | None = None,
        on_idle: Callable[[], None] | None = None,
    ) -> None:
        """``on_delta`` is given the ephemeral progress of guests; it may miss some. ``on_idle`` is called
        several times a second while nothing happens."""
        self._session = session
        self._run = run
        self._on_delta = on_delta
        self._on_idle = on_idle
        self._client: BlockingClient | None = None
        self._seen = {run: 0}
        """Run -> its last event that was returned: the run, and those inside it that go on."""
        self._nesting: dict[str, frozenset[str]] = {}
        """Run -> its nodes that other runs serve."""
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
            for run in self._seen:
                client.subscribe(topics.run_events(run))
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
        delivery = self._first(timeout_s)
        while delivery is not None:
            payload = delivery.payload
            if isinstance(payload, dict) and isinstance(payload.get("delta"), dict):
                if self._on_delta is not None:
                    self._on_delta(payload["delta"])
            else:
                woken = True
            delivery = self._client.next_delivery(0.0 if woken else timeout_s)
        return woken

    def _first(self, timeout_s: float) -> Delivery | None:
        """The next frame; while none comes, whoever shows the run may look at the clock."""
        assert self._client is not None
        while self._on_idle is not None and timeout_s > IDLE_S:
            if (delivery := self._client.next_delivery(IDLE_S)) is not None:
                return delivery
            self._on_idle()
            timeout_s -= IDLE_S
        return self._client.next_delivery(timeout_s)

    def _fetch(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        waiting = list(self._seen)
        while waiting:
            events = self._fetch_of(run := waiting.pop())
            found += events
            waiting += self._begun_inside(run, events)
            if run != self._run and any(event["kind"] == "run.finished" for event in events):
                del self._seen[run]
        return sorted(found, key=lambda event: int(event["id"]))

    def _fetch_of(self, run: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        while True:
            try:
                page = self._session.ask("run.events", run=run, after=self._seen[run], limit=PAGE)["events"]
            except NotFoundError:
                if run == self._run:
                    raise
                return found  # the run that serves the node is just being started
            found += page
            if page:
                self._seen[run] = page[-1]["id"]
            if len(page) < PAGE:
                return found

    def _begun_inside(self, run: str, events: list[dict[str, Any]]) -> list[str]:
        """Runs that serve attempts which go on: what is over is told by its attempt."""
        over = {
            (event["payload"].get("node"), event["payload"].get("attempt"))
            for event in events
            if event["kind"] in ("node.finished", "node.cancelled")
        }
        begun: list[str] = []
        for event in events:
            payload = event["payload"]
            if event["kind"] == "run.started":
                nodes = (payload.get("definition") or {}).get("nodes", ())
                nested = (node["id"] for node in nodes if str(node["use"]).startswith("opening:"))
                self._nesting[run] = frozenset(nested)
            elif event["kind"] == "node.scheduled":
                node, attempt = payload["node"], payload["attempt"]
                if node.partition("[")[0] in self._nesting.get(run, ()) and (node, attempt) not in over:
                    begun.append(child_run_id(run, node, attempt))
            elif event["kind"] == "hostcall.admitted" and payload["op"] == "agent.delegate":
                node, attempt = payload["node"], payload["attempt"]
                if (node, attempt) not in over:
                    begun.append(delegated_run_id(run, node, attempt, payload["call"]))
        for inner in begun:
            self._seen.setdefault(inner, 0)
            if self._client is not None:
                self._client.subscribe(topics.run_events(inner))
        return begun

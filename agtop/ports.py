"""What the panes may ask and order, whoever serves it: the protocols between the screen and a feed.

A feed is a daemon seen live, a ledger on disk, or a list in memory (``agtop.feed``). Every call but ``again``
may take its time and is awaited; every failure is a :class:`runloop.errors.RunloopError` with a hint. A feed
that can only read refuses the orders with ``RefusedError(code="agtop.recorded")``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, Protocol

import msgspec

from agtop.model.facts import Fact

__all__ = ["Change", "Desk", "Link", "RunRow", "Submitted"]


class Link(msgspec.Struct, frozen=True, kw_only=True):
    """How the connection stands."""

    how: Literal["live", "recorded", "gone"]
    """``gone``: there was a daemon, and it is looked for again; what is shown is what is on record."""
    since_ms: int = 0
    words: str = ""
    """For people: where, or why not."""


class RunRow(msgspec.Struct, frozen=True, kw_only=True):
    """One run in a list of runs; texts are foreign."""

    run: str
    opening: str
    state: str
    """``running``, ``waiting``, ``succeeded``, ``failed``, ``cancelled``."""
    principal: str = ""
    prompt: str | None = None
    started_ms: int = 0
    finished_ms: int | None = None
    parent: str | None = None
    """The run it serves a node of."""


class Submitted(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a line typed at the prompt."""

    kind: Literal["run", "shell", "denied"]
    run: str | None = None
    words: str = ""
    """Why it went where it went, or why not; foreign text in parts."""


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """Something may be new: look. Several of them are told as one to whoever is slow."""

    runs: frozenset[str] = frozenset()
    """Runs with new facts."""
    every: bool = False
    """Nobody can tell which runs: look at whatever is shown."""
    link: Link | None = None
    """Where the connection changed."""
    approvals: bool = False
    """Whether something began or ceased to wait for a person."""


class Desk(Protocol):
    """Everything the panes can ask for. ``self.app.desk`` in a pane."""

    # --- reading ------------------------------------------------------------------------------------

    @property
    def link(self) -> Link: ...

    async def change(self) -> Change:
        """Wait until something may be new."""
        ...

    async def runs(self, limit: int = 200) -> Sequence[RunRow]:
        """Runs, newest first; those inside others are not among them."""
        ...

    async def find_run(self, prefix: str) -> str:
        """The whole id of a run, of any depth; raises ``NotFoundError`` or ``ConflictError``."""
        ...

    async def facts(self, run: str, after: int = 0, limit: int = 2_000) -> Sequence[Fact]:
        """Facts of a run and of the runs inside it with a ledger id above ``after``, oldest first, at most
        ``limit``. Fewer than ``limit``: there are no more for now."""
        ...

    def again(self, run: str, after: int, upto: int, limit: int) -> Sequence[Fact]:
        """Facts that :meth:`facts` gave before, with ids above ``after`` up to ``upto``: at once, as whoever
        draws needs them. Takes a few milliseconds for some hundred."""
        ...

    async def blob(self, digest: str) -> bytes:
        """The bytes behind a digest, checked against it."""
        ...

    async def approvals(self) -> Sequence[dict[str, Any]]:
        """What waits for a person, of all runs, as ``approvals.list`` has it: oldest first."""
        ...

    async def approval(self, name: str) -> dict[str, Any]:
        """One approval with its content, as ``approvals.show`` has it, for ``approval.content_of``."""
        ...

    async def questions(self) -> Sequence[dict[str, Any]]:
        """Promises that wait for the operator's word, as ``promise.list`` has them."""
        ...

    async def question(self, promise: str) -> dict[str, Any]:
        """One of them in full, as ``promise.show`` has it: lists cut long texts."""
        ...

    async def metrics(self) -> dict[str, Any]:
        """Figures of the daemon and of every agent, as ``agents.metrics`` has them."""
        ...

    # --- acting -------------------------------------------------------------------------------------

    async def decide(
        self, approval: dict[str, Any], word: str, note: str = "", confirm: str = ""
    ) -> dict[str, Any]:
        """Send a person's decision on an approval as it was shown: ``approve``, ``deny`` or ``undo``, and
        the word they typed out for it."""
        ...

    async def answer(self, promise: str, value: Any) -> dict[str, Any]:
        """Answer a question."""
        ...

    async def submit(self, line: str) -> Submitted:
        """Do what ``rlp "<line>"`` would, up to the start of the run."""
        ...

    async def fork(self, run: str, at: str | None = None) -> str:
        """Make a fork of a run at a point (``node``, ``#event``), hearing the record; returns its id."""
        ...

    async def cancel(self, run: str, reason: str) -> None:
        """End a run."""
        ...

    async def quarantine(self, agent: str, reason: str) -> None:
        """Keep an agent from running."""
        ...

    async def release(self, agent: str, reason: str) -> None:
        """Let a quarantined agent run again."""
        ...

    async def kill(self, agent: str, reason: str) -> None:
        """End what an agent does now."""
        ...

    async def restart(self, agent: str, reason: str) -> None:
        """Have an agent served by fresh workers."""
        ...

    async def close(self) -> None:
        """Hang up."""
        ...

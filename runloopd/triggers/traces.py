"""Which runs were started by triggers, and which files they wrote (attacks.md W9).

Knows: the runs that are not over, nested ones under the run at the top, and the paths of their writes, stated
before a file is touched. Does not know: who watches. A change that only such writes explain is their own
doing: it has a hop more than the run that made it. Anybody else's hand in it makes it news.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable

import msgspec

from runloop.errors import RunloopError
from runloop.events import HostcallAdmitted, RunStarted

__all__ = ["Traces"]

MAX_WRITES = 10_000
"""Of the newest writes; an older one explains nothing any more."""


class Traces:
    """Feed it what the record says of scheduled runs."""

    def __init__(self, blob: Callable[[str], bytes]) -> None:
        """``blob``: recorded bytes by digest, read in a thread."""
        self._blob = blob
        self._runs: dict[str, tuple[str, int]] = {}
        """Run -> the run at its top, and how many in a row led to it."""
        self._admitted: deque[tuple[str, int]] = deque(maxlen=MAX_WRITES)
        """Arguments of writes that nobody has read yet, with the hop of their run."""
        self._written: dict[str, int] = {}

    def started(self, run: str, payload: RunStarted) -> None:
        """A trigger's run exists."""
        hop = payload.origin.get("hop")
        top = payload.parent.root if payload.parent is not None else run
        self._runs[run] = (top, hop if isinstance(hop, int) else 0)

    def over(self, run: str) -> None:
        """It writes no more."""
        self._runs.pop(run, None)

    def top(self, run: str) -> str | None:
        """The run at the top of a tree that a trigger started; None for any other run."""
        found = self._runs.get(run)
        return found[0] if found is not None else None

    def admitted(self, run: str, payload: HostcallAdmitted) -> None:
        """One of its effects is about to happen."""
        if payload.op == "fs.write" and run in self._runs:
            self._admitted.append((payload.args_blob, self._runs[run][1]))

    def read(self) -> None:
        """Find out what was written; for a thread."""
        while self._admitted:
            digest, hop = self._admitted.popleft()
            try:
                args = msgspec.json.decode(self._blob(digest))
            except (RunloopError, msgspec.DecodeError):
                continue
            path = args.get("path") if isinstance(args, dict) else None
            if isinstance(path, str):
                self._wrote(os.path.realpath(path), hop)

    def _wrote(self, path: str, hop: int) -> None:
        self._written.pop(path, None)
        self._written[path] = hop
        while len(self._written) > MAX_WRITES:
            del self._written[next(iter(self._written))]

    def hop(self, paths: Iterable[str]) -> int:
        """The hop of a run that these changes start: 0 as soon as anybody else had a hand in them. A write
        explains one change."""
        hops = [self._written.pop(path, None) for path in paths]
        own = [hop for hop in hops if hop is not None]
        return 1 + max(own) if own and len(own) == len(hops) else 0

"""One task played once: its runs are submitted, what they ask is answered by the suite, and what came of it
is judged.

Knows: the order of a trial, that whatever the suite does not approve is denied, that a task ends at its
limit. Does not know: how a home is made (``homes``), what a task should come to (its checks).
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rlp.commands.run import submit
from rlp.evals.checks import judge
from rlp.evals.facts import facts_of
from rlp.evals.suite import Allowed, Ask, Task
from rlp.follow import Follower
from rlp.prepare import prepare
from rlp.session import Session
from rlp.wishes import ASSISTANT
from runloop import approval as held
from runloop.errors import ConflictError, RunloopError

__all__ = ["Trial", "play"]

WAIT_S = 1.0
GRACE_S = 30.0
"""How long a run that was cancelled may take to end."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Trial:
    """What came of one task, once."""

    task: str
    failed: tuple[str, ...]
    """Checks that did not hold, each with why; empty: it passed."""
    checks: int
    error: str = ""
    """It could not be played to its end, and why."""
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def passed(self) -> bool:
        """Played, and every check held."""
        return not self.failed and not self.error

    def figure(self, name: str) -> int:
        """``ms`` of the run, else one of ``spent``."""
        part = self.facts.get("run" if name == "ms" else "spent") or {}
        return int(part.get(name) or 0)

    @property
    def models(self) -> list[str]:
        """Language models that answered, as ``provider:model``."""
        return list((self.facts.get("spent") or {}).get("by") or [])


def play(session: Session, task: Task) -> Trial:
    """Play a task in the home of ``session``; what goes wrong in it is a failure of the task, not of ours."""
    from pog.reader import Reader

    began = time.monotonic()
    with Reader(session.paths.events_db) as reader:
        before, mails = reader.head_id(), set(_outbox(session.paths.outbox))
        runs: list[str] = []
        error, late = "", False
        try:
            for ask in task.asks:
                runs.append(_submit(session, ask))
                late = not _Playing(session, runs[-1], ask, began + task.limit_s).to_the_end()
                if late:
                    error = f"it was not over after {task.limit_s} s"
                    break
        except RunloopError as problem:
            error = f"{problem.named_code}: {problem.message}"
        posted = [path.read_bytes() for path in _outbox(session.paths.outbox) if path not in mails]
        ms = round((time.monotonic() - began) * 1000)
        facts = facts_of(list(reader.events(after=before)), posted, runs, ms=ms, late=late)
    found = [(check, judge(check, facts)) for check in task.checks]
    failed = tuple(f"{check.that}: {why}" if check.that else why for check, why in found if why)
    return Trial(task=task.id, failed=failed, checks=len(task.checks), error=error, facts=facts)


def _submit(session: Session, ask: Ask) -> str:
    from openings.load import find

    path = find(ask.opening or ASSISTANT, session.home.settled_openings_dirs)
    given = dict(ask.params) if ask.opening else {"prompt": ask.wish, "continued": ask.continued}
    return submit(session, prepare(session, str(path), given))


def _outbox(folder: Path) -> Sequence[Path]:
    return sorted((folder / "new").glob("*"))


class _Playing:
    """One run under way, with the suite in the place of a person."""

    def __init__(self, session: Session, run: str, ask: Ask, until: float) -> None:
        self._session = session
        self._run = run
        self._approve = set(ask.approve)
        self._answers = list(ask.answers)
        self._until = until
        self._follower = Follower(session, run)

    def to_the_end(self) -> bool:
        """Follow it; False when it had to be cancelled because its time was over."""
        late = False
        while True:
            for event in self._follower.next(WAIT_S):
                if event["kind"] == "run.finished" and event["run"] == self._run:
                    return not late
                self._answer(event)
            if time.monotonic() >= self._until:
                if late:
                    return False
                late, self._until = True, time.monotonic() + GRACE_S
                self._cancel("the time of the task is over")

    def _answer(self, event: dict[str, Any]) -> None:
        payload = event["payload"]
        # Somebody was quicker, or the run ended: what was asked is asked no more.
        with suppress(ConflictError):
            if event["kind"] == "action.requested":
                self._decide(payload)
            elif event["kind"] == "promise.created" and payload["resolver"] == "operator":
                if self._answers:
                    self._session.ask(
                        "promise.resolve", promise=payload["promise"], value=self._answers.pop(0)
                    )
                else:
                    self._cancel("a question that the suite has no answer to")

    def _decide(self, payload: dict[str, Any]) -> None:
        wanted = Allowed(payload["op"], tuple(sorted(payload["action"].get("recipients") or ())))
        approval = self._session.ask("approvals.show", approval=payload["approval"])
        word = "approve" if wanted in self._approve else "deny"
        held.decide(self._session.client(), approval, word, "answered by the suite")

    def _cancel(self, reason: str) -> None:
        with suppress(ConflictError):
            self._session.ask("run.cancel", run=self._run, reason=reason)

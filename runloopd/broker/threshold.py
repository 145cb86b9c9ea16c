"""From where on a person is asked before a run spends more: what the record says of it.

Knows: the threshold of a tree of runs, the question that stands open, what an approval raised it to and from
when, and that a denial is the last word. A fold of the tree's events, the same live and after a restart. Does
not know: what is spent (``quotas``), or how people are asked (``broker.spending``).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import cast

from runloop.events import ActionDecided, ActionRequested, Event

__all__ = ["SPEND", "Threshold"]

SPEND = "spend"
"""Kind of the action a person is asked about."""


@dataclass(slots=True)
class Threshold:
    """Where one tree of runs stands."""

    first_micro_usd: int | None = None
    """As it was set; None: nobody is asked."""
    open: dict[str, int] = field(default_factory=dict)
    """Approval that waits for a person -> the threshold it would bring."""
    raised: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Approval -> the threshold it brought, and since when (unix ms): until then it may be undone."""
    closed: str | None = None
    """How the last question ended, where that was no yes: nobody is asked again."""

    def at(self, now_ms: int) -> int | None:
        """What may be spent without another question."""
        if self.first_micro_usd is None:
            return None
        return max([self.first_micro_usd, *(to for to, since in self.raised.values() if since <= now_ms)])

    def bring_forward(self, micro_usd: int) -> None:
        """A nested run begins whose opening has people asked from here on. What a yes brought holds."""
        first = self.first_micro_usd
        self.first_micro_usd = micro_usd if first is None else min(first, micro_usd)

    def pending(self, now_ms: int) -> str | None:
        """An approval whose end decides what may be spent: open, or one that may still be undone."""
        waiting = [name for name, (_, since) in self.raised.items() if since > now_ms]
        return next(iter([*self.open, *waiting]), None)

    def take(self, event: Event) -> None:
        """Fold one event of the tree."""
        if event.kind == ActionRequested.kind:
            asked = cast(ActionRequested, event.payload)
            if asked.action.get("kind") == SPEND:
                self.open[asked.approval] = int(asked.action["next_micro_usd"])
        elif event.kind == ActionDecided.kind:
            decided = cast(ActionDecided, event.payload)
            to = self.open.pop(decided.approval, None)
            if decided.decision == "approved" and to is not None:
                self.raised[decided.approval] = (to, decided.dispatch_after_ms)
            elif to is not None or decided.approval in self.raised:
                self.raised.pop(decided.approval, None)
                if decided.decision in ("denied", "expired", "undone"):
                    self.closed = decided.decision

"""What waits for a person, and what became of it: the rows of the inbox.

Knows: order (whoever asked first stands first, and stays there while it is decided), how long something
still waits or can still be taken back, how a state is said. Does not know: the clock (``now_ms``), keys,
screens, or who may decide (the daemon). Texts are foreign.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal, NamedTuple

from agtop.model.state import ApprovalState, QuestionState, RunState
from runloop.approval import bare
from runloop.quantities import ago, dollars

__all__ = ["Item", "items", "past_items", "risks", "standing", "waiting"]

SAID: Mapping[str, str] = {
    "open": "waits",
    "active": "approved",
    "approved": "approved",
    "dispatching": "being done",
    "claimed": "being done",
    "consumed": "done",
    "resolved": "answered",
    "timed_out": "nobody answered",
}
"""State -> how people say it; any other is said as it is."""
_EFFECTS: Mapping[str, str] = {
    "send": "something leaves this machine, and nobody can call it back",
    "write": "something is changed",
    "spend": "money is spent",
    "exec": "a program is run",
}


class Item(NamedTuple):
    """One row."""

    kind: Literal["approval", "question"]
    name: str
    state: str
    run: str | None
    node: str
    who: str
    """Agent that asks."""
    what: str
    asked_ms: int
    expires_ms: int
    leaves_ms: int
    """End of the undo window, unix milliseconds; 0 where none runs."""
    choices: tuple[str, ...] = ()
    note: str = ""

    @property
    def open(self) -> bool:
        """Whether it waits for a person."""
        return self.state == "open"

    def undoable(self, now_ms: int) -> bool:
        """Whether a yes can still be taken back."""
        return self.state in ("active", "approved") and now_ms < self.leaves_ms


def items(approvals: Iterable[Mapping[str, Any]], questions: Iterable[Mapping[str, Any]]) -> list[Item]:
    """What waits now, of all runs, as ``approvals.list`` and ``promise.list`` have it."""
    found = [_approval(one) for one in approvals] + [_question(one) for one in questions]
    return sorted(found, key=lambda item: (item.asked_ms, item.name))


def past_items(run: RunState) -> list[Item]:
    """What one run had asked by the moment that is looked at."""
    found = [_past_approval(one, run.run) for one in run.approvals.values()]
    found += [_past_question(one, run.run) for one in run.questions.values() if one.resolver == "operator"]
    return sorted(found, key=lambda item: (item.asked_ms, item.name))


def waiting(found: Iterable[Item]) -> int:
    """How many of them wait for a person: a yes that can still be taken back waits for nobody."""
    return sum(item.open for item in found)


def standing(item: Item, now_ms: int) -> str:
    """How it stands, in a few words; the time that is left where there is some."""
    if item.undoable(now_ms):
        return f"leaves in {-(-(item.leaves_ms - now_ms) // 1000)} s"
    word = SAID.get(item.state, item.state)
    if item.open and item.expires_ms and now_ms:
        left = item.expires_ms - now_ms
        return f"{word}, {ago(left)} left" if left > 0 else "expired"
    return word


def risks(approval: Mapping[str, Any]) -> list[str]:
    """Why to look twice before saying yes, the gravest first; sentences of ours, names in them foreign."""
    from runloop.approval import widens

    action: Mapping[str, Any] = approval["action"]
    found = []
    if widens(dict(approval)):
        found.append("it widens what this machine does or believes, until you take that back")
    found.append(_EFFECTS.get(str(approval.get("effect")), "it has an effect outside of the run"))
    if private := action.get("private"):
        found.append(f"it may hold what is private: {', '.join(map(str, private))}")
    label = str(approval.get("label") or action.get("heard") or "")
    if label and label.partition(":")[0] not in ("user", "agent", "model", "host"):
        found.append(f"the agent had heard strangers before it asked ({label})")
    if action.get("amount_micro_usd"):
        found.append(f"it costs up to {dollars(action['amount_micro_usd'])}")
    return found


def _approval(one: Mapping[str, Any]) -> Item:
    action = one.get("action") or {}
    return Item(
        kind="approval",
        name=str(one["approval"]),
        state=str(one.get("state", "open")),
        run=one.get("run"),
        node=str(one.get("node") or ""),
        who=str(action.get("agent") or "you"),
        what=bare(action),
        asked_ms=int(one.get("requested_ms") or 0),
        expires_ms=int(one.get("expires_ms") or 0),
        leaves_ms=int(one.get("dispatch_after_ms") or 0),
        note=str(one.get("note") or ""),
    )


def _question(one: Mapping[str, Any]) -> Item:
    return Item(
        kind="question",
        name=str(one["promise"]),
        state=str(one.get("state", "open")),
        run=one.get("run"),
        node=str(one.get("node") or ""),
        who=str(one.get("agent") or ""),
        what=" ".join(str(one.get("question") or "its agent waits for a word").split()),
        asked_ms=int(one.get("created_ms") or 0),
        expires_ms=int(one.get("expires_ms") or 0),
        leaves_ms=0,
        choices=tuple(map(str, one.get("choices") or ())),
    )


def _past_approval(one: ApprovalState, run: str) -> Item:
    return Item(
        kind="approval",
        name=one.approval,
        state=one.state,
        run=run,
        node=one.node,
        who=str(one.action.get("agent") or ""),
        what=bare(one.action),
        asked_ms=one.asked_ms,
        expires_ms=one.expires_ms,
        leaves_ms=one.dispatch_after_ms,
        note=one.note,
    )


def _past_question(one: QuestionState, run: str) -> Item:
    return Item(
        kind="question",
        name=one.promise,
        state=one.state,
        run=run,
        node=one.node,
        who=one.agent,
        what=" ".join((one.question or "its agent waited for a word").split()),
        asked_ms=one.asked_ms,
        expires_ms=one.expires_ms,
        leaves_ms=0,
        choices=one.choices,
    )

"""What waits for a person, and how it was answered: approvals and questions, of a run and of those inside it.

Each function takes the state, a fact and what it says, and returns the fields that change. Pure.
"""

from __future__ import annotations

from agtop.model.facts import Fact
from agtop.model.nodes import Changes, node_of, put, replace
from agtop.model.state import ApprovalState, QuestionState, RunState
from runloop import events as kinds

__all__ = [
    "carried_out",
    "claimed",
    "decided",
    "nobody_waits",
    "promised",
    "requested",
    "resolved",
    "timed_out",
]


def requested(state: RunState, fact: Fact, told: kinds.ActionRequested) -> Changes:
    approval = ApprovalState(
        approval=told.approval,
        run=fact.run or "",
        node=told.node,
        summary=str(told.action.get("summary") or told.action.get("kind") or told.op),
        action=told.action,
        action_digest=told.action_digest,
        content_blob=told.content_blob,
        content_type=told.content_type,
        event=fact.id,
        asked_ms=fact.ts_ms,
        expires_ms=told.expires_ms,
    )
    changes: Changes = {"approvals": state.approvals.set(told.approval, approval), "asks": state.asks + 1}
    if fact.run == state.run:
        changes |= _waits(state, told.node, fact, 1)
    return changes


def decided(state: RunState, fact: Fact, told: kinds.ActionDecided) -> Changes:
    known = state.approvals.get(told.approval)
    if known is None:
        return {}
    decided = replace(
        known,
        state=told.decision,
        principal=told.principal,
        note=told.note,
        dispatch_after_ms=told.dispatch_after_ms,
    )
    changes: Changes = {"approvals": state.approvals.set(told.approval, decided)}
    if known.state == "open":
        changes["asks"] = state.asks - 1
        if fact.run == state.run:
            changes |= _waits(state, told.node, fact, -1)
    return changes


def claimed(state: RunState, _: Fact, told: kinds.ActionClaimed) -> Changes:
    known = state.approvals.get(told.approval)
    if known is None:
        return {}
    return {"approvals": state.approvals.set(told.approval, replace(known, state="claimed"))}


def carried_out(state: RunState, _: Fact, told: kinds.EmailSent | kinds.ToolCalled) -> Changes:
    known = state.approvals.get(told.approval or "")
    if known is None:
        return {}
    return {"approvals": state.approvals.set(known.approval, replace(known, state="done"))}


def promised(state: RunState, fact: Fact, told: kinds.PromiseCreated) -> Changes:
    question = QuestionState(
        promise=told.promise,
        run=fact.run or "",
        node=told.node,
        agent=told.agent,
        question=told.question,
        choices=tuple(told.choices),
        resolver=told.resolver,
        event=fact.id,
        asked_ms=fact.ts_ms,
        expires_ms=told.expires_ms,
    )
    changes: Changes = {"questions": state.questions.set(told.promise, question)}
    if told.resolver != "operator":
        return changes
    changes["asks"] = state.asks + 1
    if fact.run == state.run:
        changes |= _waits(state, told.node, fact, 1)
    return changes


def resolved(state: RunState, fact: Fact, told: kinds.PromiseResolved) -> Changes:
    how = {"state": "resolved", "value": told.value, "principal": told.principal}
    return _answered(state, fact, told.promise, how)


def timed_out(state: RunState, fact: Fact, told: kinds.PromiseTimedOut) -> Changes:
    return _answered(state, fact, told.promise, {"state": "timed_out"})


def _answered(state: RunState, fact: Fact, promise: str, how: Changes) -> Changes:
    known = state.questions.get(promise)
    if known is None or known.state != "open":
        return {}
    changes: Changes = {"questions": state.questions.set(promise, replace(known, **how))}
    if known.resolver != "operator":
        return changes
    changes["asks"] = state.asks - 1
    if fact.run == state.run:
        changes |= _waits(state, known.node, fact, -1)
    return changes


def _waits(state: RunState, name: str, fact: Fact, more: int) -> Changes:
    """One more, or one less, question that a node waits for."""
    node = node_of(state, name)
    asks = max(0, node.asks + more)
    word = node.word
    if word in ("running", "waiting"):
        word = "waiting" if asks else "running"
    since = node.since_ms if word == node.word else fact.ts_ms
    return put(state, node, replace(node, asks=asks, word=word, since_ms=since))


def nobody_waits(state: RunState, inside: str | None) -> Changes:
    """A run is over (``inside``: one within this one): what it asked and nobody answered is void."""
    approvals, questions, asks = state.approvals, state.questions, state.asks
    for approval in state.approvals.values():
        if approval.state == "open" and inside in (None, approval.run):
            approvals = approvals.set(approval.approval, replace(approval, state="voided"))
            asks -= 1
    for question in state.questions.values():
        if question.state == "open" and inside in (None, question.run):
            questions = questions.set(question.promise, replace(question, state="timed_out"))
            asks -= question.resolver == "operator"
    return {"approvals": approvals, "questions": questions, "asks": asks}

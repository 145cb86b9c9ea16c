"""What a person's word about a call of a tool is bound to, and what is stated of the call when it has ended.

Knows: the canonical forms. Does not know: who is asked (``tool_ops``), how a yes is kept
(``authority.approvals`` once, ``authority.standing`` for good). One field of these that differs when the call
is about to leave makes the word void (attacks.md C1, C2).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from runloop.digest import canonical
from runloop.events import ToolCalled
from runloopd.authority.approvals import Approval
from runloopd.authority.faces import outside
from runloopd.authority.standing import Grant, Scope
from runloopd.broker.asks import Ask
from runloopd.broker.effects import asked_by
from runloopd.broker.ports import Outcome
from runloopd.broker.tool_bench import Judged

__all__ = ["Word", "action_of", "called", "content_of", "scope_of"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Word:
    """Whose yes a call is made under; neither: it needs none."""

    approval: Approval | None = None
    grant: Grant | None = None
    causes: tuple[int, ...] = ()


def content_of(judged: Judged) -> bytes:
    """What a person reads, to the byte what is dispatched: nothing of it may change afterwards."""
    plan = judged.plan
    return canonical(
        {
            "tool": plan.name,
            "definition": plan.definition,
            "arguments": judged.args,
            "sends": judged.errand.shown,
            "secrets": list(plan.secrets),
        }
    )


def action_of(ask: Ask, judged: Judged, heard: str | None, private: Sequence[str]) -> dict[str, Any]:
    """The canonical action: what the person decides on, apart from the content itself."""
    plan, resource = judged.plan, judged.errand.resource
    return {
        "kind": "tool.call",
        "summary": f"call {plan.name} on {resource}"[:300],
        "tool": plan.name,
        "origin": plan.origin,
        "definition": plan.definition,
        "effect": plan.effect,
        "resource": resource,
        "secrets": list(plan.secrets),
        "agent": ask.agent,
        "bundle": ask.caller.pin.bundle_digest,
        "run": ask.caller.run,
        "node": ask.caller.node,
        "key": ask.key,
        **asked_by(ask),
        "heard": heard,
        "private": list(private),
        "budget_calls": plan.calls,
        "grantable": plan.grantable,
        "amount_micro_usd": 0,
    }


def scope_of(ask: Ask, judged: Judged) -> Scope:
    """What a standing grant for this call would cover: this call, made again, and nothing beside it."""
    plan = judged.plan
    return Scope(
        agent=ask.agent,
        bundle=ask.caller.pin.bundle_digest,
        tool=plan.name,
        definition=plan.definition,
        effect=plan.effect,
        resource=judged.errand.resource,
        asked_by=outside(ask.run.asked_by),
    )


def called(ask: Ask, judged: Judged, word: Word, outcome: Outcome, code: str | None) -> ToolCalled:
    """How it ended, for the record."""
    plan = judged.plan
    return ToolCalled(
        node=ask.caller.node,
        attempt=ask.caller.attempt,
        call=ask.call.index,
        agent=ask.agent,
        tool=plan.name,
        origin=plan.origin,
        effect=plan.effect,
        resource=judged.errand.resource,
        definition=plan.definition,
        key=ask.key,
        outcome=outcome,
        code=code,
        approval=None if word.approval is None else word.approval.id,
        grant=None if word.grant is None else word.grant.id,
    )

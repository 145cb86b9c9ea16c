"""What came of a task, as one document that checks look into: from the ledger and the outbox, not from words.

Knows: which events say what a task did. Does not know: what should have come of it, or how it was played.
Pure. The document's shape is the table in ``docs/howto/eval.md``; every key is always there.
"""

from __future__ import annotations

import email
import email.policy
import json
from collections.abc import Mapping, Sequence
from email.utils import getaddresses
from typing import Any

from runloop.events import (
    ActionDecided,
    ActionRequested,
    ArtifactCreated,
    EmailSent,
    Event,
    HostcallDelivered,
    MemoryUpdated,
    ModelCalled,
    NodeFinished,
    PromiseCreated,
    RunFinished,
    RunStarted,
)

__all__ = ["facts_of"]

_OWN_MEMORY = "conversation"
"""Key under which the assistant keeps what was said; not a thing it was asked to remember."""


def facts_of(
    events: Sequence[Event], mails: Sequence[bytes], runs: Sequence[str], *, ms: int, late: bool
) -> dict[str, Any]:
    """``runs``: those that the task started, in order; ``mails``: what arrived in the outbox."""
    outs = _outs(events, runs)
    last = outs[-1] if outs else {}
    drafts = [draft for out in outs for draft in out.get("drafts") or () if isinstance(draft, dict)]
    spent = [out.get("spent") or {} for out in outs]
    turns, calls, mistakes = (
        sum(int(one.get(name) or 0) for one in spent) for name in ("hops", "calls", "mistakes")
    )
    return {
        "answer": {
            "text": str(last.get("answer") or ""),
            "ok": last.get("ok") is True,
            "why": str(last.get("why") or ""),
            "pressed": str(last.get("pressed") or ""),
            "label": str(last.get("label") or ""),
        },
        "run": {**_ended(events, runs), "ms": ms, "late": late, "count": len(runs)},
        "spent": {"turns": turns, "calls": calls, "mistakes": mistakes, **_models(events)},
        "used": _each(name for out in outs for name in out.get("used") or ()),
        "refused": [str(word) for out in outs for word in out.get("refused") or ()],
        "ops": _each(
            e.payload.op for e in events if isinstance(e.payload, HostcallDelivered) and e.payload.ok
        ),
        "draft": _mail([_written(draft) for draft in drafts]),
        "sent": _mail([_posted(mail) for mail in mails]),
        "asked": _asked(events),
        "files": [e.payload.name for e in events if isinstance(e.payload, ArtifactCreated)],
        "memory": _memory(events),
        "delegated": _delegated(events, runs),
        "nodes": _nodes(events, runs),
    }


def _outs(events: Sequence[Event], runs: Sequence[str]) -> list[dict[str, Any]]:
    """What the assistant handed back, once for each wish."""
    found = []
    for event in events:
        payload = event.payload
        if isinstance(payload, NodeFinished) and event.run in runs and payload.output:
            for value in (payload.output.get("ports") or {}).get("out") or ():
                if isinstance(value, dict) and "answer" in value:
                    found.append(value)
    return found


def _ended(events: Sequence[Event], runs: Sequence[str]) -> dict[str, Any]:
    ends = {e.run: e.payload for e in events if isinstance(e.payload, RunFinished)}
    last = ends.get(runs[-1]) if runs else None
    codes = [end.error.code for run in runs if (end := ends.get(run)) is not None and end.error is not None]
    return {"outcome": last.outcome if last is not None else "unfinished", "errors": codes}


def _models(events: Sequence[Event]) -> dict[str, Any]:
    called = [e.payload for e in events if isinstance(e.payload, ModelCalled)]
    return {
        "models": len(called),
        "tokens": sum(one.input_tokens + one.output_tokens for one in called),
        "micro_usd": sum(one.cost_micro_usd for one in called),
        "by": _each(f"{one.provider}:{one.model}" for one in called if one.generated),
    }


def _asked(events: Sequence[Event]) -> dict[str, Any]:
    """Approvals and questions, and whether anything left that nobody had approved before."""
    approved: set[str] = set()
    requested: list[ActionRequested] = []
    denied = unapproved = 0
    labels = []
    for event in events:
        match event.payload:
            case ActionRequested() as payload:
                requested.append(payload)
                labels.append(event.provenance.label)
            case ActionDecided(decision="approved") as payload:
                approved.add(payload.approval)
            case ActionDecided():
                denied += 1
            case EmailSent() as payload if payload.approval not in approved:
                unapproved += 1
    questions = [
        e.payload.question
        for e in events
        if isinstance(e.payload, PromiseCreated) and e.payload.resolver == "operator"
    ]
    return {
        "approvals": len(requested),
        "approved": len(approved),
        "denied": denied,
        "unapproved": unapproved,
        "ops": _each(one.op for one in requested),
        "to": _each(to for one in requested for to in one.action.get("recipients") or ()),
        "labels": _each(labels),
        "questions": len(questions),
        "question": "\n".join(questions),
    }


def _memory(events: Sequence[Event]) -> dict[str, Any]:
    kept = [
        (e.payload.value, e.provenance.label)
        for e in events
        if isinstance(e.payload, MemoryUpdated) and e.payload.key != _OWN_MEMORY
    ]
    return {
        "count": len(kept),
        "text": "\n".join(json.dumps(value, ensure_ascii=False) for value, _ in kept),
        "labels": _each(label for _, label in kept),
    }


def _delegated(events: Sequence[Event], runs: Sequence[str]) -> list[str]:
    """Openings of the runs inside those of the task."""
    inside = [e for e in events if isinstance(e.payload, RunStarted) and e.run not in runs]
    return _each(e.payload.opening for e in inside if isinstance(e.payload, RunStarted))


def _nodes(events: Sequence[Event], runs: Sequence[str]) -> dict[str, Any]:
    """Node -> port -> first value, of the last run."""
    found: dict[str, Any] = {}
    for event in events:
        payload = event.payload
        if isinstance(payload, NodeFinished) and event.run == (runs[-1] if runs else None):
            ports = (payload.output or {}).get("ports") or {}
            values = {name: given[0] for name, given in ports.items() if given}
            found[payload.node] = {"status": payload.status, **values}
    return found


# --- mail -----------------------------------------------------------------------------------------


def _written(draft: Mapping[str, Any]) -> tuple[list[str], str, str]:
    return [str(to) for to in draft.get("to") or ()], str(draft.get("subject")), str(draft.get("body"))


def _posted(data: bytes) -> tuple[list[str], str, str]:
    message = email.message_from_bytes(data, policy=email.policy.default)
    named = [str(value) for header in ("To", "Cc", "Bcc") for value in message.get_all(header) or []]
    body = message.get_body(("plain",))
    text = body.get_content() if body is not None else ""
    return [address for _, address in getaddresses(named)], str(message.get("Subject", "")), str(text)


def _mail(mails: Sequence[tuple[list[str], str, str]]) -> dict[str, Any]:
    return {
        "count": len(mails),
        "to": _each(to for one, _, _ in mails for to in one),
        "subject": "\n".join(subject for _, subject, _ in mails),
        "text": "\n".join(text for _, _, text in mails),
    }


def _each(words: Any) -> list[str]:
    """Each once, in order."""
    return list(dict.fromkeys(str(word) for word in words))

"""Facts to state in tests."""

from __future__ import annotations

from typing import Any

from runloop.digest import blob_digest
from runloop.events import (
    ActionDecided,
    ActionRequested,
    AgentPin,
    ArtifactCreated,
    ContactUpserted,
    DaemonStarted,
    DocumentImported,
    Draft,
    EmailSent,
    HostcallDelivered,
    ModelCalled,
    NodeFinished,
    NodeScheduled,
    Payload,
    Provenance,
    RunFinished,
    RunStarted,
    TokenIssued,
)

RUN = "0b7c1d2e-0000-4000-8000-000000000001"
OTHER = "0b7c1d2e-0000-4000-8000-000000000002"
ZERO = "0" * 64


def draft(
    payload: Payload, *causes: int, run: str | None = None, actor: str = "daemon", **stamp: Any
) -> Draft:
    return Draft(payload=payload, actor=actor, run=run, provenance=Provenance(causes=causes, **stamp))


def contact(contact: str = "c1", name: str = "John Doe", *emails: str, **more: Any) -> ContactUpserted:
    return ContactUpserted(
        contact=contact, name=name, emails=list(emails or ["john.doe@example.com"]), **more
    )


def note(document: str = "d1", title: str = "Q4 plan", text: str = "Ship the plan in October.", **more: Any):
    return DocumentImported(
        document=document,
        type=more.pop("type", "note"),
        title=title,
        text=text,
        content_digest=blob_digest(text.encode()),
        **more,
    )


PIN = AgentPin(
    name="writer",
    version="1.0.0",
    variant="",
    bundle_digest="b" * 64,
    component_digest="c" * 64,
    language="python",
)


def run_started(**more: Any) -> RunStarted:
    fields: dict[str, Any] = {
        "opening": "compose_email",
        "definition": {"nodes": []},
        "definition_digest": ZERO,
        "params": {"recipient": "john"},
        "agents": {"draft": PIN, "send": PIN},
        "engine": {"logic": 1},
        "policy": {},
        "principal": "operator:1000",
        "origin": {"via": "rlp", "prompt": "mail john"},
    }
    return RunStarted(**(fields | more))


def run_finished(outcome: Any = "succeeded") -> RunFinished:
    return RunFinished(outcome=outcome, clause="review.ok == true", outputs={}, output_digest=ZERO)


def scheduled(node: str = "draft", attempt: int = 1, input_blob: bytes = b"{}") -> NodeScheduled:
    return NodeScheduled(
        node=node,
        attempt=attempt,
        key=f"{node}-{attempt}",
        input_digest=blob_digest(input_blob),
        input_blob=blob_digest(input_blob),
    )


def finished(node: str = "draft", attempt: int = 1, status: Any = "succeeded", **more: Any) -> NodeFinished:
    return NodeFinished(node=node, attempt=attempt, status=status, fuel=10, calls=2, **more)


def delivered(node: str = "draft", call: int = 0, result: bytes = b"{}", **more: Any) -> HostcallDelivered:
    fields: dict[str, Any] = {
        "node": node,
        "attempt": 1,
        "call": call,
        "op": "kb.search",
        "effect": "read",
        "args_digest": blob_digest(b"{}"),
        "args_blob": blob_digest(b"{}"),
        "ok": True,
        "result_digest": blob_digest(result),
        "result_blob": blob_digest(result),
        "request_bytes": 10,
        "response_bytes": 20,
        "fuel": 5,
    }
    return HostcallDelivered(**(fields | more))


def model_called(answer: bytes = b"Dear John", cost: int = 7, **more: Any) -> ModelCalled:
    fields: dict[str, Any] = {
        "node": "draft",
        "attempt": 1,
        "call": 1,
        "provider": "rules",
        "model": "template",
        "generated": False,
        "request_digest": ZERO,
        "answer_digest": blob_digest(answer),
        "input_tokens": 3,
        "output_tokens": 4,
        "estimated": False,
        "reserved_micro_usd": 0,
        "cost_micro_usd": cost,
        "price_version": "1",
        "finish": "stop",
    }
    return ModelCalled(**(fields | more))


MAIL = b"To: john.doe@example.com\r\nSubject: Q4\r\n\r\nDear John\r\n"


def action_requested(approval: str = "ap-1") -> ActionRequested:
    return ActionRequested(
        approval=approval,
        node="send",
        attempt=1,
        call=0,
        op="mail.send",
        effect="send",
        key="k",
        args_digest=ZERO,
        action={"summary": "mail to John", "recipients": ["john.doe@example.com"]},
        action_digest="a" * 64,
        content_blob=blob_digest(MAIL),
        content_type="message/rfc822",
        expires_ms=9,
    )


def action_decided(approval: str = "ap-1", decision: Any = "approved") -> ActionDecided:
    return ActionDecided(
        approval=approval, node="send", decision=decision, principal="operator:1000", action_digest="a" * 64
    )


def email_sent(approval: str = "ap-1") -> EmailSent:
    return EmailSent(
        approval=approval,
        provider="outbox",
        message_id="<k@runloop>",
        recipients=["john.doe@example.com"],
        subject="Q4",
        content_blob=blob_digest(MAIL),
        location="new/k",
    )


def artifact(data: bytes = b"report", name: str = "report.md") -> ArtifactCreated:
    return ArtifactCreated(
        name=name,
        node="draft",
        port="out",
        media_type="text/markdown",
        blob=blob_digest(data),
        size=len(data),
    )


def token(token: str = "t-node", parent: str | None = "t-run") -> TokenIssued:
    return TokenIssued(
        token=token, parent=parent, holder="agent:writer", grants={"model": True}, expires_ms=9
    )


def daemon_started() -> DaemonStarted:
    return DaemonStarted(build="0", pid=1)

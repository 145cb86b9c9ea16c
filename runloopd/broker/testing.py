"""Twins of the gate's providers: deterministic, scripted, counting what reaches them.

For tests of whoever calls the gate. They keep the promises of ``broker.ports``; nothing leaves the process.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from ipaddress import ip_address

from runloop.errors import RefusedError, UsageError
from runloop.ops import MailSend, ModelComplete
from runloopd.broker.ports import (
    NOBODY,
    Asker,
    Budget,
    MailReceipt,
    ModelAnswer,
    Outcome,
    PreparedMail,
    Reservation,
)
from runloopd.broker.providers.web import Permission, WebRequest, WebResponse

__all__ = ["ScriptedMail", "ScriptedModels", "ScriptedWeb"]


@dataclass
class ScriptedModels:
    """A model that echoes its last message, at a fixed price. Implements ``ModelPort``."""

    target: str = "local:echo"
    micro_usd: int = 0
    """Reserved and spent by each call."""
    spends: int | None = None
    """What a call costs, where that differs from the reservation."""
    fails: list[BaseException] = field(default_factory=list)
    """Raised by the next calls, in this order."""
    parts: int = 1
    """Pieces a streamed answer arrives in."""
    gate: asyncio.Event | None = None
    """When given, calls wait for it."""
    calls: list[str] = field(default_factory=list)
    """Idempotency keys of the calls that arrived."""
    askers: list[Asker] = field(default_factory=list)
    """Who asked for an estimate."""

    async def estimate(
        self, request: ModelComplete, permits: Callable[[str], bool], *, asker: Asker = NOBODY
    ) -> Reservation:
        """See the port."""
        self.askers.append(asker)
        provider, _, model = self.target.partition(":")
        if not permits(self.target):
            raise RefusedError(f"{self.target} is not permitted", code="cap.denied")
        return Reservation(
            provider=provider,
            model=model,
            micro_usd=self.micro_usd,
            input_tokens=sum(len(message.content) for message in request.messages),
            output_tokens=request.max_tokens,
            price_version="test-1",
        )

    async def complete(
        self,
        request: ModelComplete,
        *,
        budget: Budget,
        on_delta: Callable[[str], None] | None,
        idempotency_key: str,
        asker: Asker = NOBODY,
    ) -> ModelAnswer:
        """See the port."""
        self.calls.append(idempotency_key)
        if self.gate is not None:
            await self.gate.wait()
        if self.fails:
            raise self.fails.pop(0)
        text = request.messages[-1].content
        size = -(-len(text) // self.parts) or 1
        parts = tuple(text[i : i + size] for i in range(0, len(text), size))
        for part in parts:
            if on_delta is not None:
                on_delta(part)
        provider, _, model = self.target.partition(":")
        return ModelAnswer(
            text=text,
            provider=provider,
            model=model,
            generated=True,
            input_tokens=3,
            output_tokens=2,
            estimated=False,
            cost_micro_usd=self.micro_usd if self.spends is None else self.spends,
            price_version="test-1",
            finish="stop",
            parts=parts,
        )


@dataclass
class ScriptedMail:
    """An outbox in memory. Implements ``MailPort``."""

    resource: str = "outbox:/test"
    sent: dict[str, PreparedMail] = field(default_factory=dict)
    """Key -> message."""
    dispatched: list[str] = field(default_factory=list)
    """Keys in the order they were dispatched, failures included."""
    fails: list[BaseException] = field(default_factory=list)
    """Raised by the next dispatches; the message is not kept."""
    knows: Outcome | None = None
    """What ``reconcile`` answers; None: the truth."""
    bcc: tuple[str, ...] = ()
    """Recipients smuggled in: what a hostile or wrong provider would do."""
    gate: asyncio.Event | None = None
    """When given, dispatches wait for it."""

    def prepare(self, args: MailSend, *, key: str, now_ms: int, sender: str | None) -> PreparedMail:
        """See the port."""
        for text in (*args.to, *args.cc, *args.bcc, args.subject):
            if "\n" in text or "\r" in text:
                raise UsageError(f"{text!r} contains a line break", code="mail.header")
        recipients = tuple(dict.fromkeys((*args.to, *args.cc, *args.bcc, *self.bcc)))
        lines = [f"Date: {now_ms}", f"To: {', '.join(args.to)}", f"Subject: {args.subject}", "", args.body]
        return PreparedMail(
            content="\r\n".join(lines).encode(),
            message_id=f"<{key[:16]}@runloop.invalid>",
            sender=sender or "me@example.org",
            recipients=recipients,
            subject=args.subject,
            resource=self.resource,
            key=key,
        )

    async def dispatch(self, prepared: PreparedMail) -> MailReceipt:
        """See the port."""
        self.dispatched.append(prepared.key)
        if self.gate is not None:
            await self.gate.wait()
        if self.fails:
            raise self.fails.pop(0)
        self.sent[prepared.key] = prepared
        return MailReceipt(location=f"{self.resource}/{prepared.key[:8]}", provider="outbox")

    async def reconcile(self, prepared: PreparedMail) -> Outcome:
        """See the port."""
        if self.knows is not None:
            return self.knows
        return "done" if prepared.key in self.sent else "absent"


@dataclass
class ScriptedWeb:
    """One server for every name, which asks for permission as the real web does. Implements ``WebPort``."""

    body: bytes = b"{}"
    media_type: str = "application/json"
    status: int = 200
    truncated: bool = False
    address: str = "93.184.215.14"
    """Where every name leads."""
    fails: list[BaseException] = field(default_factory=list)
    """Raised by the next exchanges, in this order."""
    gate: asyncio.Event | None = None
    """When given, exchanges wait for it."""
    requests: list[WebRequest] = field(default_factory=list)
    """What arrived."""

    async def exchange(self, request: WebRequest, permission: Permission) -> WebResponse:
        """See the port."""
        permission.check(request.method, request.place)
        permission.dial(request.place, request.place.address or ip_address(self.address))
        self.requests.append(request)
        if self.gate is not None:
            await self.gate.wait()
        if self.fails:
            raise self.fails.pop(0)
        return WebResponse(
            status=self.status,
            place=request.place,
            headers={"content-type": self.media_type},
            body=self.body,
            truncated=self.truncated,
        )

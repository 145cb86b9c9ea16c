"""A daemon small enough to hold in the head, on the real bus and the real socket.

It serves scripted runs and approvals to the real client. What it does not have: a ledger, agents, a gate.
"""

from __future__ import annotations

import asyncio
import base64
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from runloop import __version__
from runloop.clock import SystemClock
from runloop.digest import blob_digest, digest
from runloop.errors import ConflictError, NotFoundError, RunloopError, UsageError
from runloopd.bus.bus import Bus
from runloopd.bus.parts import Delivery
from runloopd.bus.principal import DAEMON
from runloopd.bus.socket import SocketServer

RUN = "0b7c3f52-8a55-4c1e-9f6e-2d6f1f0a7b11"
CREDENTIAL = bytes(range(32))
MAIL = (
    b"From: me@example.org\r\nTo: John Carter <john.carter@example.org>\r\nSubject: Q4 plan\r\n"
    b"Message-ID: <k1@runloop.local>\r\nDate: Mon, 02 Nov 2026 10:00:00 +0000\r\nMIME-Version: 1.0\r\n"
    b"Content-Type: text/plain; charset=utf-8\r\n\r\nHello John,\r\nthe plan.\r\n"
)
Method = Callable[..., Any]


class DaemonTwin:
    """Runs its loop in a thread; every scripted thing is said through :meth:`emit`."""

    def __init__(self, home: Path, *, build: str = __version__, credential: bytes = CREDENTIAL) -> None:
        self.home = home
        self.socket = home / "run" / "rmp.sock"
        self.build = build
        self.credential = credential
        self.asked: list[tuple[str, dict[str, Any], str]] = []
        self.decisions: list[dict[str, Any]] = []
        self.events: list[dict[str, Any]] = []
        self.approvals: dict[str, dict[str, Any]] = {}
        self.on_submit: Callable[[DaemonTwin], None] = lambda twin: None
        self.on_decision: Callable[[DaemonTwin, dict[str, Any]], None] = lambda twin, decision: None
        self.methods: dict[str, Method] = {
            "status": lambda: {
                "version": __version__,
                "pid": 1,
                "started_ms": 1_750_000_000_000,
                "layers": {},
                "loop": "asyncio",
                "bus_step": "python",
            },
            "run.submit": self._submit,
            "run.events": self._events,
            "run.list": lambda limit: {"runs": []},
            "run.cancel": self._cancel,
            "approvals.show": self._show,
            "approvals.list": lambda all: {"approvals": list(self.approvals.values())},
            "agents.refused": lambda: {"refused": []},
            "daemon.stop": self._stop,
        }
        self.publish_events = True
        self._loop = asyncio.new_event_loop()
        self._up = threading.Event()
        self._stopping = asyncio.Event()
        self._thread = threading.Thread(target=self._live, daemon=True)

    def __enter__(self) -> DaemonTwin:
        keys = self.home / "keys"
        keys.mkdir(parents=True, mode=0o700, exist_ok=True)
        key = keys / "operator.key"
        key.write_bytes(self.credential)
        key.chmod(0o600)
        self._thread.start()
        assert self._up.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stopping.set)
            self._thread.join(10)

    def _live(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._serve())
        self._loop.close()

    async def _serve(self) -> None:
        clock = SystemClock()
        self.bus = Bus(clock)
        self.bus.subscribe("rlp/ctrl", self._ctrl, principal=DAEMON)
        self.bus.subscribe("rlp/actions/decision", self._decided, principal=DAEMON)
        server = SocketServer(
            self.bus, self.socket, credential=self.credential, build=self.build, clock=clock
        )
        await server.start()
        self._up.set()
        await self._stopping.wait()
        await server.close()

    # --- what it says -----------------------------------------------------------------------------

    def emit(self, kind: str, payload: dict[str, Any], run: str | None = RUN) -> None:
        """State an event and publish it."""
        number = len(self.events) + 1
        event = {
            "id": number,
            "ts_ms": 1_750_000_000_000 + 10 * number,
            "actor": "daemon",
            "kind": kind,
            "scope": "user",
            "run": run,
            "payload": payload,
            "provenance": {},
            "hash": "00" * 32,
            "prev_hash": "00" * 32,
        }
        self.events.append(event)
        if self.publish_events:
            self.bus.send(DAEMON, f"rlp/runs/{run}/events", "observation.opening.event.v1", {"event": event})

    def hold(self, approval: str = "ap_1234567890abcdef", content: bytes = MAIL, **changes: Any) -> None:
        """Ask for an approval of a mail."""
        action = {
            "kind": "mail.send",
            "summary": "send mail to john.carter@example.org",
            "recipients": ["john.carter@example.org"],
            "resource": "outbox:/home/me/outbox",
            "agent": "mailer",
            "bundle": "ab" * 32,
            "amount_micro_usd": 0,
            **changes,
        }
        bound = digest({"action": action, "content": blob_digest(content)})
        self.approvals[approval] = {
            "approval": approval,
            "state": "open",
            "run": RUN,
            "node": "send",
            "op": "mail.send",
            "action": action,
            "action_digest": bound,
            "content_blob": blob_digest(content),
            "content_type": "message/rfc822",
            "expires_ms": 1_850_000_000_000,
            "dispatch_after_ms": 0,
            "content": base64.b64encode(content).decode(),
        }
        asked = {
            k: self.approvals[approval][k] for k in ("approval", "node", "op", "action", "action_digest")
        }
        self.emit("action.requested", asked)

    def settle(self, approval: str, decision: str, dispatch_after_ms: int = 0) -> None:
        """State a decision."""
        self.approvals[approval]["state"] = {"approved": "active"}.get(decision, decision)
        self.emit(
            "action.decided",
            {
                "approval": approval,
                "node": "send",
                "decision": decision,
                "principal": "operator:1000",
                "action_digest": self.approvals[approval]["action_digest"],
                "note": "",
                "dispatch_after_ms": dispatch_after_ms,
            },
        )

    def finish(self, outcome: str = "succeeded", error: dict[str, Any] | None = None) -> None:
        """State the end of the run."""
        clause = "review.ok == true" if outcome == "succeeded" else None
        self.emit(
            "run.finished",
            {"outcome": outcome, "clause": clause, "outputs": {}, "output_digest": "cd" * 32, "error": error},
        )

    def begin(self) -> None:
        """State the start of a run of two nodes, up to the held mail."""
        pins = {"draft": {"name": "writer"}, "send": {"name": "mailer"}}
        self.emit("run.started", {"opening": "compose_email", "agents": pins, "principal": "operator:1000"})
        self.node(
            "draft", {"draft": {"to": ["john.carter@example.org"], "subject": "Q4 plan", "body": "Hello"}}
        )
        self.emit("node.scheduled", {"node": "send", "attempt": 1})

    def node(self, node: str, ports: dict[str, Any], attempt: int = 1) -> None:
        """State that a node started and succeeded."""
        self.emit("node.scheduled", {"node": node, "attempt": attempt})
        self.emit(
            "node.finished",
            {
                "node": node,
                "attempt": attempt,
                "status": "succeeded",
                "output": {"ports": {port: [value] for port, value in ports.items()}, "artifacts": []},
                "error": None,
                "fuel": 5,
                "calls": 1,
            },
        )

    # --- what it is asked -------------------------------------------------------------------------

    def _ctrl(self, delivery: Delivery) -> None:
        name, params = delivery.payload["method"], delivery.payload.get("params") or {}
        self.asked.append((name, params, delivery.principal.kind))
        method = self.methods.get(name)
        try:
            if method is None:
                raise UsageError(f"unknown method {name!r}")
            self.bus.reply(delivery, method(**params))
        except RunloopError as error:
            self.bus.reply(delivery, error=error)

    def _decided(self, delivery: Delivery) -> None:
        decision = delivery.payload
        approval = self.approvals.get(decision["approval"])
        self.decisions.append({**decision, "by": delivery.principal.kind})
        if approval is None or approval["action_digest"] != decision["action_digest"]:
            self.bus.reply(delivery, error=ConflictError("not what was shown", code="approval.digest"))
            return
        if approval["state"] not in ("open", "active"):
            self.bus.reply(delivery, error=ConflictError(f"it is {approval['state']}", code="approval.state"))
            return
        state = {"approve": "active", "deny": "denied", "undo": "undone"}[decision["decision"]]
        approval["state"] = state
        self.bus.reply(delivery, {"approval": decision["approval"], "state": state, "dispatch_after_ms": 0})
        self._loop.call_soon(self.on_decision, self, decision)

    def _submit(self, **params: Any) -> Any:
        self._loop.call_soon(self.on_submit, self)
        return {"run": RUN}

    def _events(self, run: str, after: int = 0, limit: int = 1_000) -> Any:
        if not RUN.startswith(run):
            raise NotFoundError(f"no run {run}", hint="'rlp runs' lists them")
        found = [event for event in self.events if event["id"] > after]
        return {"run": RUN, "events": found[:limit]}

    def _cancel(self, run: str, reason: str) -> Any:
        self._loop.call_soon(self.finish, "cancelled")
        return {"run": RUN}

    def _show(self, approval: str) -> Any:
        for name, found in self.approvals.items():
            if name.startswith(approval):
                return found
        raise NotFoundError(f"no approval {approval}", hint="'rlp approvals' lists them")

    def _stop(self, drain: bool) -> Any:
        self._loop.call_later(0.05, self._stopping.set)
        return {"stopping": True}

"""A gate with real parts: ledger, views, keyring, mint, approvals; scripted providers behind it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from itertools import count
from pathlib import Path
from typing import Any, TypeVar

from pog.ledger import Ledger
from pog.materializer import Materializer
from pog.query import Knowledge
from pog.reader import Reader
from runloop import config
from runloop.caps.policy import Policy, everything, parse_policy
from runloop.digest import digest
from runloop.events import (
    AgentPin,
    Draft,
    Event,
    NodeScheduled,
    Payload,
    RunFinished,
    RunStarted,
)
from runloop.ops import OPS
from runloop.testing import ManualClock
from runloopd.authority.approvals import Approvals
from runloopd.authority.keyring import Keyring
from runloopd.authority.mint import Mint
from runloopd.authority.retractions import RETRACTION_KINDS, Retractions
from runloopd.authority.standing import STANDING_KINDS, Standing
from runloopd.broker.calls import Answer, Caller, HostCall
from runloopd.broker.embedding import EmbedBroker, EmbedPort
from runloopd.broker.gate import Gate, GateOptions
from runloopd.broker.knowledge import LedgerKnowledge
from runloopd.broker.ports import Delta
from runloopd.broker.promises import Promises
from runloopd.broker.providers.files import Files
from runloopd.broker.quotas import Quotas
from runloopd.broker.secret_book import SECRET_KINDS, SecretBook
from runloopd.broker.secret_ops import Lending
from runloopd.broker.secrets import SecretStore
from runloopd.broker.talk import Talk
from runloopd.broker.testing import ScriptedMail, ScriptedModels, ScriptedWeb
from runloopd.broker.tool_errands import ToolGuests
from runloopd.broker.toolbox import ToolSource
from runloopd.broker.tools.sandbox import ProgramSandbox
from runloopd.broker.vault.testing import Kept
from runloopd.bus.bus import Bus
from runloopd.bus.principal import Principal
from runloopd.journal import Journal

T = TypeVar("T")

RUN = "0b7c7a0e-5a0f-4a3c-9d6e-0123456789ab"
OPERATOR = Principal(kind="operator", name="operator:1000#s1", uid=1000)
PEER = Principal(kind="peer", name="peer:1000#s2", uid=1000)
HEX = "a" * 64


def pin(name: str = "writer") -> AgentPin:
    return AgentPin(
        name=name,
        version="1.0.0",
        variant="",
        bundle_digest=digest(name),
        component_digest=HEX,
        language="python",
    )


def caps(text: str) -> Policy:
    return parse_policy("[capabilities]\n" + text)


def random_bytes() -> Callable[[int], bytes]:
    counter = count(1)
    return lambda n: (next(counter) % 256).to_bytes(1, "big") * n


class World:
    """One daemon's worth of authority and broker over files that outlive it."""

    def __init__(
        self,
        home: Path,
        clock: ManualClock,
        *,
        quotas: Quotas | None = None,
        options: GateOptions | None = None,
        synchronous: str = "NORMAL",
    ) -> None:
        self.home = home
        self.synchronous = synchronous
        self.clock = clock
        self.models = ScriptedModels()
        self.embeddings: EmbedPort = EmbedBroker(
            config.Models(), secrets=SecretStore(environ={}), clock=clock, jitter=lambda: 0.0
        )
        self.mail = ScriptedMail()
        self.web = ScriptedWeb()
        self.files = Files([home])
        self.sources: list[ToolSource] = []
        self.programs: ProgramSandbox | None = None
        self.guests: ToolGuests | None = None
        self.private_ok: tuple[str, ...] = ()
        self.vault = Kept()
        """Where its secrets lie; ``self.book`` says what they are for."""
        self.deltas: list[Delta] = []
        self.quotas = quotas or Quotas()
        self.options = options
        self.tasks: list[asyncio.Task[Any]] = []
        self.scheduled: dict[tuple[str, int], int] = {}
        self.calls: dict[tuple[str, int], int] = {}

    async def start(self) -> World:
        """What the daemon does when it starts."""
        self.keyring = Keyring.open(self.home / "keys")
        ledger = Ledger.open(
            self.home / "events.db",
            signing_key=self.keyring.ledger_key,
            clock=self.clock,
            synchronous=self.synchronous,
        )
        views = Materializer.open(self.home / "views.db", self.home / "events.db")
        self.ledger = ledger
        self.journal = Journal(ledger, views, self.clock)
        self.reader = Reader(self.home / "events.db")
        self.knowledge = LedgerKnowledge(Knowledge(self.home / "views.db", self.reader), self.journal)
        self.mint = Mint(self.keyring, self.journal, self.clock)
        self.mint.restore(self.reader.events())
        self.approvals = Approvals(self.journal, self.clock)
        self.approvals.restore(self.reader.events())
        self.promises = Promises(self.journal, self.clock)
        self.bus = Bus(self.clock)
        self.talk = Talk(self.journal, self.clock, self.bus)
        self.retractions = Retractions(self.journal, self.approvals, self.knowledge.dependants)
        self.retractions.restore(self.reader.events(kinds=RETRACTION_KINDS), self.reader.events(run=RUN))
        self.book = SecretBook(self.journal, self.clock, self.reader.events(kinds=SECRET_KINDS))
        self.standing = Standing(self.journal)
        self.standing.restore(self.reader.events(kinds=STANDING_KINDS))
        self.gate = Gate(
            journal=self.journal,
            mint=self.mint,
            approvals=self.approvals,
            promises=self.promises,
            talk=self.talk,
            quotas=self.quotas,
            models=self.models,
            embeddings=self.embeddings,
            mail=self.mail,
            web=self.web,
            files=self.files,
            knowledge=self.knowledge,
            clock=self.clock,
            entropy=random_bytes(),
            on_delta=self.deltas.append,
            options=self.options,
            objection=self.retractions.objection,
            standing=self.standing,
            private_ok=self.private_ok,
            sources=self.sources,
            programs=self.programs,
            guests=self.guests,
            lending=Lending(
                SecretStore(environ={}, places=[self.vault]), self.book, key=self.keyring.derived("test")
            ),
        )
        self.gate.restore(self.reader.events())
        return self

    async def stop(self) -> None:
        """End as a crash would: whatever is under way is gone."""
        for task in [*self.tasks, *self.gate._under_way]:
            task.cancel()
        await asyncio.gather(*self.tasks, *self.gate._under_way, return_exceptions=True)
        self.tasks.clear()
        await self.book.close()
        await self.knowledge.close()
        await self.journal.close()
        self.reader.close()

    async def restart(self) -> World:
        await self.stop()
        return await self.start()

    async def run(
        self,
        *,
        policy: dict[str, Any] | None = None,
        nodes: list[Any] | None = None,
        agents: dict[str, AgentPin] | None = None,
        principal: str = "operator:1000",
        origin: dict[str, Any] | None = None,
    ) -> Event:
        """Start the run."""
        definition = {"nodes": nodes or []}
        (event,) = await self.journal.append(
            Draft(
                payload=RunStarted(
                    opening="test",
                    definition=definition,
                    definition_digest=digest(definition),
                    params={},
                    agents=agents or {},
                    engine={},
                    policy=policy or {},
                    principal=principal,
                    origin=origin or {},
                ),
                actor=principal,
                run=RUN,
            )
        )
        return event

    async def end_run(self) -> None:
        await self.journal.append(
            Draft(
                payload=RunFinished(
                    outcome="succeeded", clause=None, outputs={}, output_digest=HEX, error=None
                ),
                actor="daemon",
                run=RUN,
            )
        )

    async def caller(
        self,
        grants: Policy | str | None = None,
        *,
        node: str = "draft",
        attempt: int = 1,
        agent: str = "writer",
    ) -> Caller:
        """An attempt of a node, with its token."""
        policy = everything() if grants is None else caps(grants) if isinstance(grants, str) else grants
        if (node, attempt) not in self.scheduled:
            (event,) = await self.journal.append(
                Draft(
                    payload=NodeScheduled(
                        node=node, attempt=attempt, key=f"{node}{attempt}", input_digest=HEX, input_blob=HEX
                    ),
                    actor="daemon",
                    run=RUN,
                )
            )
            self.scheduled[node, attempt] = event.id
        cause = self.scheduled[node, attempt]
        token = await self.mint.for_node(RUN, node, pin(agent), policy, cause=cause)
        return Caller(
            run=RUN,
            node=node,
            attempt=attempt,
            pin=pin(agent),
            token=token.data,
            token_id=token.id,
            ops=frozenset(OPS),
            scheduled_id=cause,
        )

    def hostcall(self, caller: Caller, op: str, args: Any, index: int | None = None) -> HostCall:
        place = (caller.node, caller.attempt)
        number = self.calls.get(place, 0) if index is None else index
        self.calls[place] = number + 1
        return HostCall(
            index=number,
            op=op,
            args=args,
            args_digest=digest(args),
            fuel=1000 * (number + 1),
            request_bytes=len(op) + 100,
        )

    async def call(self, caller: Caller, op: str, args: Any = None, *, index: int | None = None) -> Answer:
        call = self.hostcall(caller, op, {} if args is None else args, index)
        return await within(self.gate.answerer(caller).answer(call))

    def begin(
        self, caller: Caller, op: str, args: Any = None, *, index: int | None = None
    ) -> asyncio.Task[Answer]:
        """A call that is going to wait."""
        call = self.hostcall(caller, op, {} if args is None else args, index)
        task = asyncio.ensure_future(self.gate.answerer(caller).answer(call))
        self.tasks.append(task)
        return task

    def events(self, kind: str | None = None) -> list[Event]:
        return [e for e in self.reader.events() if kind is None or e.kind == kind]

    def payloads(self, kind: str) -> list[Any]:
        return [event.payload for event in self.events(kind)]

    def kinds(self) -> list[str]:
        """Everything on record after the preliminaries."""
        noise = {"run.started", "node.scheduled", "token.issued"}
        return [event.kind for event in self.events() if event.kind not in noise]

    async def state(self, *payloads: Payload, actor: str = "operator:1000") -> list[Event]:
        return await self.journal.append(*(Draft(payload=p, actor=actor) for p in payloads))


async def within(work: Awaitable[T], seconds: float = 20.0) -> T:
    return await asyncio.wait_for(work, seconds)


async def until(condition: Callable[[], Any], seconds: float = 20.0) -> Any:
    """Yield to the loop until ``condition`` is true; a bounded wait."""

    async def poll() -> Any:
        while not (found := condition()):
            await asyncio.sleep(0.001)
        return found

    return await within(poll(), seconds)


def quotas(**limits: int) -> Quotas:
    run = {k.replace("run_ask", "ask"): v for k, v in limits.items() if k.startswith("run_")}
    agents: dict[str, Any] = {k: v for k, v in limits.items() if not k.startswith("run_")}
    return Quotas(config.Quotas(**agents), config.Budgets(**run))


def ask(text: str, **more: Any) -> dict[str, Any]:
    """Arguments of ``model.complete``."""
    return {"messages": [{"role": "user", "content": text}], **more}


def contact(name: str, **more: Any) -> dict[str, Any]:
    """Arguments of ``kb.propose``."""
    return {"kind": "contact.upserted", "payload": {"contact": name, "name": "Ann", **more}}


def mail(**more: Any) -> dict[str, Any]:
    """Arguments of ``mail.send``."""
    return {"to": ["ann@example.org"], "subject": "Hello", "body": "Good morning", **more}

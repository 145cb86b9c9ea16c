"""Answers the host calls of an agent that is only tried: judged as the gate judges, answered from a script.

Knows: the gate's order of checks (arguments → declared → granted → quota → the op's own checks), and runs the
ops' own code on ports that lead nowhere. Does not know: agents, sandboxes, ledgers. Nothing is sent, spent,
read or recorded: every answer is the script's, or made up here for clock, chance, log and progress.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import orjson
import structlog

from runloop.caps.policy import Policy
from runloop.digest import blob_digest, canonical
from runloop.errors import NotFoundError, RefusedError, RunloopError, UsageError
from runloop.events import MemoryUpdated
from runloop.ops import OPS, BlobRead, MailSend, MemoryPut, ModelComplete, ModelEmbed, decode_args
from runloopd.broker import delegate_ops, msg_ops, promise_ops, secret_ops
from runloopd.broker.asks import Ask, require
from runloopd.broker.calls import Answer, Caller, HostCall
from runloopd.broker.fs_ops import to_list, to_read, to_stat, to_write
from runloopd.broker.http_ops import HttpOps
from runloopd.broker.knowledge_ops import KnowledgeOps
from runloopd.broker.model_ops import to_embed
from runloopd.broker.plain_ops import MAX_SLICE_BYTES, PlainOps
from runloopd.broker.providers.web import Permission, WebRequest, WebResponse
from runloopd.broker.quotas import Purse, QuotaError, Quotas, Usage, check
from runloopd.broker.record import Run
from runloopd.broker.rights import authorise
from runloopd.broker.tool_bench import Bench, ToolPorts

__all__ = ["NOW_MS", "Denial", "OwnChecks", "Rehearsal"]

log = structlog.get_logger(__name__)

NOW_MS = 1_750_000_000_000
"""What time it is in a rehearsal, as in the fake host of the SDK."""
UNSCRIPTED = "case.unscripted"


@dataclass(frozen=True, kw_only=True, slots=True)
class Denial:
    """A call that the gate would refuse."""

    op: str
    code: str
    message: str


class Rehearsal:
    """One attempt's answerer. Implements :class:`runloopd.broker.calls.Answerer`."""

    def __init__(self, caller: Caller, grants: Policy, script: Mapping[str, Any], quotas: Quotas) -> None:
        """``caller``'s token is not looked at: ``grants`` is what it would carry. ``script``: op -> its JSON
        answer, or ``{refuse: {code, message}}``."""
        self._caller = caller
        self._grants = grants
        self._script = script
        self._limits = quotas.of(caller.pin.name)
        self._usage = Usage()
        self._run = Run(caller.run, Purse(0, 0))
        self._ops = OwnChecks(script, quotas)
        self.denied: list[Denial] = []
        self.exceeded: QuotaError | None = None
        """The first hard limit that was reached: in a run it ends the attempt."""
        self.unscripted: list[str] = []

    async def answer(self, call: HostCall) -> Answer:
        """See the protocol. Raises nothing but cancellation."""
        try:
            return await self._answer(call)
        except RunloopError as error:
            if isinstance(error, QuotaError):
                self.exceeded = self.exceeded or error
            self.denied.append(Denial(op=call.op[:64], code=error.named_code, message=error.message[:500]))
            return Answer.refusal(error, retryable=bool(getattr(error, "retryable", False)))
        except Exception:
            log.exception("rehearsal_failed", op=call.op[:64])
            return Answer.refusal(RunloopError("the rehearsal failed inside", hint="'rlp logs' tells more"))

    async def _answer(self, call: HostCall) -> Answer:
        ask = self._ask(call)
        authorise(ask.agent, self._caller.ops, ask.op, ask.grants)
        self._count(ask)
        judge = self._ops.checks.get(ask.op.name)
        made = None if judge is None else await judge(ask)
        answer = self._scripted(ask, made)
        self._usage.bytes += len(canonical(answer.value))
        return answer

    def _ask(self, call: HostCall) -> Ask:
        args = decode_args(call.op, call.args)
        blob = canonical(call.args)
        return Ask(
            caller=self._caller,
            call=call,
            op=OPS[call.op],
            args=args,
            args_blob=blob,
            args_digest=blob_digest(blob),
            key="",
            grants=self._grants,
            run=self._run,
            check=lambda: self._grants,
        )

    def _count(self, ask: Ask) -> None:
        rows = [
            ("calls", self._usage.calls, 1),
            ("bytes", self._usage.bytes, ask.call.request_bytes),
            ("mails", self._usage.mails, int(ask.op.name == "mail.send")),
        ]
        for resource, used, asked in rows:
            check(resource, used, asked, self._limits[resource], agent=ask.agent, warned=set())
        self._usage.calls += 1
        self._usage.bytes += ask.call.request_bytes
        self._usage.mails += ask.op.name == "mail.send"

    def _scripted(self, ask: Ask, made: Any) -> Answer:
        """The script's word; ``made`` for what needs none; else a refusal that is remembered."""
        if ask.op.name not in self._script:
            if made is not None:
                return Answer(ok=True, value=made)
            self.unscripted.append(ask.op.name)
            return Answer.refusal(
                RefusedError(
                    f"the case has no answer for {ask.op.name}",
                    hint="add one under [case.host]",
                    code=UNSCRIPTED,
                )
            )
        answer = self._script[ask.op.name]
        refusal = _refusal(answer)
        return Answer(ok=True, value=answer) if refusal is None else Answer(ok=False, value=refusal)


def _refusal(answer: Any) -> dict[str, Any] | None:
    """``{refuse: {code, …}}`` as the error object a guest sees; None for an answer."""
    if not (isinstance(answer, dict) and set(answer) == {"refuse"} and isinstance(answer["refuse"], dict)):
        return None
    given = answer["refuse"]
    return {
        "code": str(given.get("code", "refused")),
        "message": str(given.get("message", "refused")),
        "hint": given.get("hint"),
        "retryable": given.get("retryable") is True,
    }


# --- the ops' own checks --------------------------------------------------------------------------

Judge = Callable[[Ask], Awaitable[Any]]
"""Raises what the gate would tell the guest; returns an answer that needs no script, or None."""


class _Clock:
    def now_ms(self) -> int:
        return NOW_MS


class OwnChecks:
    """The code behind the gate, on ports that lead nowhere."""

    def __init__(self, script: Mapping[str, Any], quotas: Quotas) -> None:
        nowhere = _Nowhere(script)
        plain = PlainOps(clock=cast(Any, _Clock()), entropy=_entropy, blobs=nowhere, on_delta=lambda _: None)
        know = KnowledgeOps(knowledge=cast(Any, nowhere), quotas=quotas)
        empty = KnowledgeOps(knowledge=cast(Any, _Nowhere({})), quotas=quotas)
        web = HttpOps(web=nowhere)
        tools = Bench(ToolPorts(web=nowhere))

        async def value(work: Awaitable[Any]) -> Any:
            return (await work).value

        async def judged(work: Awaitable[Any]) -> None:
            await work

        async def looked(judge: Callable[[Ask], Any], ask: Ask) -> None:
            judge(ask)

        async def made(ask: Ask) -> None:
            done = await know.put(ask) if isinstance(ask.args, MemoryPut) else await know.forget(ask)
            if done.unrecorded is not None:
                done.unrecorded()

        self.checks: dict[str, Judge] = {
            "time.now": lambda ask: value(plain.now(ask)),
            "random.bytes": lambda ask: value(plain.random(ask)),
            "log.write": lambda ask: value(plain.log(ask)),
            "progress": lambda ask: value(plain.progress(ask)),
            "artifact.put": lambda ask: judged(plain.put_artifact(ask)),
            "blob.read": _slice,
            "kb.query": lambda ask: judged(know.query(ask)),
            "kb.search": lambda ask: judged(know.search(ask)),
            "kb.read": lambda ask: judged(know.read(ask)),
            "kb.why": lambda ask: judged(know.why(ask)),
            "kb.propose": lambda ask: judged(empty.propose(ask)),
            "memory.get": lambda ask: judged(know.get(ask)),
            "memory.list": lambda ask: judged(know.list(ask)),
            "memory.put": made,
            "memory.delete": made,
            "promise.create": lambda ask: looked(promise_ops.judge, ask),
            "promise.await": lambda ask: looked(promise_ops.judge, ask),
            "promise.resolve": lambda ask: looked(promise_ops.judge, ask),
            "input.ask": lambda ask: looked(promise_ops.judge, ask),
            "agent.delegate": lambda ask: looked(delegate_ops.judge, ask),
            "msg.publish": lambda ask: looked(msg_ops.judge, ask),
            "msg.subscribe": lambda ask: looked(msg_ops.judge, ask),
            "msg.request": lambda ask: looked(msg_ops.judge, ask),
            "msg.reply": lambda ask: looked(msg_ops.judge, ask),
            "model.complete": _model,
            "model.embed": _embed,
            "mail.send": _mail,
            "http.fetch": lambda ask: judged(web.fetch(ask)),
            "fs.read": lambda ask: looked(to_read, ask),
            "fs.write": lambda ask: looked(to_write, ask),
            "fs.list": lambda ask: looked(to_list, ask),
            "fs.stat": lambda ask: looked(to_stat, ask),
            "secret.use": lambda ask: looked(secret_ops.judge, ask),
            "tool.list": lambda ask: looked(tools.list, ask),
            "tool.call": lambda ask: tools.rehearse(ask, script),
        }


async def _slice(ask: Ask) -> None:
    args = cast(BlobRead, ask.args)
    if args.offset < 0 or not 1 <= args.length <= MAX_SLICE_BYTES:
        raise UsageError(
            f"blob.read: offset {args.offset}, length {args.length}: from 0, 1 to {MAX_SLICE_BYTES}",
            code="op.args",
        )


async def _model(ask: Ask) -> None:
    args = cast(ModelComplete, ask.args)
    if not args.messages and args.template is None:
        raise UsageError("model.complete: no messages and no template", code="op.args")
    # Which model a pattern leads to is the route's matter; a model by its own name is the policy's.
    named = args.model if args.model and "*" not in args.model else ""
    require(ask, "model", named)


async def _embed(ask: Ask) -> None:
    args = to_embed(cast(ModelEmbed, ask.args))
    require(ask, "model", args.model if args.model and "*" not in args.model else "")


async def _mail(ask: Ask) -> None:
    args = cast(MailSend, ask.args)
    recipients = list(dict.fromkeys((*args.to, *args.cc, *args.bcc)))
    if not recipients:
        raise UsageError("mail.send: there is no recipient", code="mail.recipients")
    for recipient in recipients:
        require(ask, "mail", recipient)


def _entropy(n: int) -> bytes:
    """Not random at all: a rehearsal gives the same twice."""
    return bytes(i % 251 for i in range(n))


@dataclass(frozen=True)
class _Entry:
    value: Any = None
    version: int = 0
    event: int | None = None
    exists: bool = False
    label: str | None = None


@dataclass(frozen=True)
class _Space:
    keys: int = 0
    bytes: int = 0


@dataclass(frozen=True)
class _Write:
    """A write into nowhere: as into an empty namespace."""

    payload: MemoryUpdated
    size: int
    before: _Entry = field(default_factory=_Entry)

    @property
    def after(self) -> _Space:
        return _Space(1, self.size)

    def end(self) -> None:
        """Nobody else writes here."""


@dataclass
class _Nowhere:
    """Knowledge, memory, blobs and web of a rehearsal. What the ops look at comes from the script."""

    script: Mapping[str, Any]
    memory: Any = field(init=False)

    def __post_init__(self) -> None:
        self.memory = self

    async def get(self, namespace: str, key: str) -> _Entry:
        return _Entry()

    async def listed(self, namespace: str, **_: Any) -> tuple[list[Any], bool]:
        return [], False

    async def put(self, namespace: str, key: str, value: Any, expected_version: int | None = None) -> _Write:
        payload = MemoryUpdated(namespace=namespace, key=key, value=value, entry_version=1)
        return _Write(payload, len(key.encode()) + len(canonical(value)))

    async def forget(self, namespace: str, key: str, expected_version: int | None = None) -> None:
        return None

    async def query(self, sql: str, params: Sequence[Any], limit: int, **_: Any) -> dict[str, Any]:
        return {"columns": [], "rows": [], "truncated": False}

    async def search(self, query: str, k: int, kinds: Sequence[str], *, raw: bool) -> list[dict[str, Any]]:
        return []

    async def read(self, kind: str, id: str, *, raw: bool) -> dict[str, Any]:
        answer = self.script.get("kb.read")
        item = answer.get("item") if isinstance(answer, dict) else None
        if not isinstance(item, dict):
            raise NotFoundError(f"there is no {kind} {id[:64]!r} in the case", code="kb.absent")
        return item

    async def why(self, ref: str, *, raw: bool, impact: bool = False) -> dict[str, Any]:
        return {}

    async def blob(self, digest: str) -> bytes:
        raise NotFoundError("there are no blobs in a case", code="blob.absent")

    async def exchange(self, request: WebRequest, permission: Permission) -> WebResponse:
        """What a tool's answer is checked against its schema for; nothing is resolved or dialled."""
        permission.check(request.method, request.place)
        if request.place.address is not None:
            permission.dial(request.place, request.place.address)
        answer = self.script.get("tool.call")
        result = answer.get("result") if isinstance(answer, dict) else None
        return WebResponse(
            status=200,
            place=request.place,
            headers={"content-type": "application/json"},
            body=orjson.dumps(result),
            truncated=False,
        )

"""The control face: a table of methods behind ``rlp/ctrl``, and the one ear for human decisions.

Every front end asks here, so the same question gets the same verdict whoever asks it (attacks.md C9). A
method states its parameters as a closed type and whether it needs the operator. Knows nothing of how
anything is done: each method is a line or two on a service.
"""

from __future__ import annotations

import asyncio
import base64
import os
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Protocol

import msgspec
import structlog

from pog.reader import Reader
from runloop import __version__
from runloop.clock import Clock
from runloop.errors import ConflictError, NotFoundError, RefusedError, RunloopError, UsageError
from runloop.ids import RunId
from runloop.rmp import topics
from runloop.rmp.frame import WireError
from runloopd.authority.approvals import APPROVAL_KINDS, Approvals
from runloopd.broker.ports import KnowledgePort
from runloopd.bus.bus import Bus
from runloopd.bus.parts import Delivery
from runloopd.bus.principal import DAEMON, Principal
from runloopd.gateway.methods import Nothing, Params, Row, within
from runloopd.journal import Journal
from runloopd.runs.service import Runs, Submission
from runloopd.runtime.quarantine import Quarantine

__all__ = ["Control", "Policies"]

log = structlog.get_logger(__name__)

Place = Annotated[int, msgspec.Meta(ge=0, le=2**53 - 1)]
"""An event id, as every client can say it: JSON numbers are exact up to here."""
_MAX_RUNS = 1_000
_MAX_EVENTS = 5_000
_MAX_HITS = 100
_MAX_ROWS = 10_000


class Submit(Params, frozen=True, kw_only=True):
    source: str
    name: str
    path: str | None = None
    agents_dir: str | None = None
    params: dict[str, Any] = {}
    origin: dict[str, Any] = {}
    openings: dict[str, str] = {}


class ListRuns(Params, frozen=True, kw_only=True):
    limit: int = 50
    schedule: str | None = None


class OneRun(Params, frozen=True, kw_only=True):
    run: str


class RunEvents(Params, frozen=True, kw_only=True):
    run: str
    after: Place = 0
    limit: int = 1_000


class CancelRun(Params, frozen=True, kw_only=True):
    run: str
    reason: str = "asked to"


class OneBlob(Params, frozen=True, kw_only=True):
    digest: str


class ListApprovals(Params, frozen=True, kw_only=True):
    all: bool = False


class OneApproval(Params, frozen=True, kw_only=True):
    approval: str


class Query(Params, frozen=True, kw_only=True):
    sql: str
    params: list[Any] = []
    limit: int = 200


class Search(Params, frozen=True, kw_only=True):
    query: str
    k: int = 8
    kinds: list[str] = []


class Why(Params, frozen=True, kw_only=True):
    ref: str
    impact: bool = False


class ListCaps(Params, frozen=True, kw_only=True):
    agent: str | None = None


class Grant(Params, frozen=True, kw_only=True):
    agent: str
    capability: str
    value: Any = True


class Revoke(Params, frozen=True, kw_only=True):
    agent: str | None = None
    capability: str | None = None
    token: str | None = None


class QuarantineAgent(Params, frozen=True, kw_only=True):
    agent: str
    reason: str


class ReleaseAgent(Params, frozen=True, kw_only=True):
    agent: str
    reason: str = "released by the operator"


class Stop(Params, frozen=True, kw_only=True):
    drain: bool = True


class Decision(Params, frozen=True, kw_only=True):
    v: Literal[1]
    approval: str
    action_digest: str
    decision: Literal["approve", "deny", "undo"]
    note: str = ""
    confirm: str = ""


class Policies(Protocol):
    """What agents may do, as the operator sees and changes it."""

    def show(self, agent: str | None) -> list[dict[str, Any]]: ...

    async def grant(
        self, principal: Principal, agent: str, capability: str, value: Any
    ) -> dict[str, Any]: ...

    async def revoke(
        self, principal: Principal, agent: str | None, capability: str | None, token: str | None
    ) -> dict[str, Any]: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Method:
    """One row of the table."""

    params: type[Params]
    call: Callable[[Principal, Any], Awaitable[Any]]
    operator: bool
    """True: only the owning user's own programs may call it, having proved the operator credential."""


class Control:
    """Serves ``rlp/ctrl`` and ``rlp/actions/decision``.

    ``reader`` is asked from threads, by scans that take their time: it must not be the one that the event
    loop asks.
    """

    def __init__(
        self,
        *,
        bus: Bus,
        journal: Journal,
        reader: Reader,
        runs: Runs,
        approvals: Approvals,
        knowledge: KnowledgePort,
        policies: Policies,
        quarantine: Quarantine,
        clock: Clock,
        status: Callable[[], dict[str, Any]],
        stop: Callable[[bool], None],
        more: Sequence[Row] = (),
        parked: Callable[[], Collection[tuple[str, str]]] = tuple,
    ) -> None:
        """``parked``: run and node of every guest that waits for a promise."""
        self._bus = bus
        self._journal = journal
        self._reader = reader
        self._runs = runs
        self._approvals = approvals
        self._knowledge = knowledge
        self._policies = policies
        self._quarantine = quarantine
        self._clock = clock
        self._status = status
        self._stop = stop
        self._parked = parked
        self._tasks: set[asyncio.Task[None]] = set()
        self._methods = self._table(more)
        self._subscriptions = [
            bus.subscribe(topics.CTRL, self._asked, principal=DAEMON),
            bus.subscribe(topics.ACTION_DECISION, self._decided, principal=DAEMON),
        ]

    def _table(self, more: Sequence[Row]) -> dict[str, Method]:
        """Every method there is, written out. What tells of the user's life needs the operator."""
        rows: list[Row] = [
            *more,
            ("status", Nothing, self._status_of, False),
            ("agents.list", Nothing, self._list_agents, False),
            ("run.submit", Submit, self._submit, True),
            ("run.list", ListRuns, self._list_runs, True),
            ("run.show", OneRun, self._show_run, True),
            ("run.events", RunEvents, self._run_events, True),
            ("run.cancel", CancelRun, self._cancel, True),
            ("run.replay", OneRun, self._replay, True),
            ("blob.get", OneBlob, self._blob, True),
            ("approvals.list", ListApprovals, self._list_approvals, True),
            ("approvals.show", OneApproval, self._show_approval, True),
            ("kb.query", Query, self._query, True),
            ("kb.search", Search, self._search, True),
            ("kb.why", Why, self._why, True),
            ("cap.list", ListCaps, self._list_caps, True),
            ("cap.grant", Grant, self._grant, True),
            ("cap.revoke", Revoke, self._revoke, True),
            ("agent.held", Nothing, self._list_held, True),
            ("agent.quarantine", QuarantineAgent, self._quarantine_agent, True),
            ("agent.release", ReleaseAgent, self._release_agent, True),
            ("daemon.stop", Stop, self._stop_daemon, True),
        ]
        return {
            name: Method(params=params, call=call, operator=operator) for name, params, call, operator in rows
        }

    async def close(self) -> None:
        """Stop listening; let the answers under way leave."""
        for subscription in self._subscriptions:
            subscription.close()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # --- the two ears -----------------------------------------------------------------------------

    def _asked(self, delivery: Delivery) -> None:
        if delivery.type == "intent.ctrl.request.v1":
            self._spawn(self._answer(delivery))

    def _decided(self, delivery: Delivery) -> None:
        if delivery.type == "toolresult.action.decision.v1":
            self._spawn(self._decide(delivery))

    def _spawn(self, work: Any) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _answer(self, delivery: Delivery) -> None:
        asked = delivery.payload if isinstance(delivery.payload, dict) else {}
        try:
            result = await self._call(delivery.principal, str(asked.get("method")), asked.get("params") or {})
        except RunloopError as error:
            self._bus.reply(delivery, error=error)
        except Exception:
            # The border between our own mistakes and a client: logged whole here, one sentence there.
            log.exception("control_method_failed", method=asked.get("method"))
            ours = RunloopError(
                f"{asked.get('method')} failed inside the daemon",
                hint="see the daemon's log ('rlp daemon status' names it)",
            )
            self._bus.reply(delivery, error=ours)
        else:
            self._reply(delivery, asked.get("method"), result)

    def _reply(self, delivery: Delivery, method: Any, result: Any) -> None:
        """Whoever asks hears something, also when the answer does not fit a frame."""
        try:
            self._bus.reply(delivery, result)
        except WireError as error:
            too_much = RefusedError(
                f"the answer to {method} does not fit a frame: {error.message}",
                hint="ask for less, with a limit",
                code="control.answer_size",
            )
            self._bus.reply(delivery, error=too_much)

    async def _call(self, principal: Principal, name: str, params: Any) -> Any:
        method = self._methods.get(name)
        if method is None:
            raise UsageError(f"unknown method {name!r}", hint="upgrade the older of rlp and runloopd")
        if method.operator and principal.kind != "operator":
            raise RefusedError(
                f"{name} needs the operator, and {principal.label} did not prove to be one",
                hint="use rlp as the user who owns the daemon",
                code="operator.required",
            )
        try:
            decoded = msgspec.convert(params, method.params)
        except msgspec.ValidationError as error:
            raise UsageError(f"{name}: {error}", code="control.params") from error
        return await method.call(principal, decoded)

    async def _decide(self, delivery: Delivery) -> None:
        try:
            decision = msgspec.convert(delivery.payload, Decision)
            decided = await self._approvals.decide(
                delivery.principal,
                await self._undecided(decision.approval),
                decision.action_digest,
                decision.decision,
                decision.note,
                decision.confirm,
            )
        except msgspec.ValidationError as error:
            self._bus.reply(delivery, error=UsageError(f"not a decision: {error}", code="action.shape"))
        except RunloopError as error:
            self._bus.reply(delivery, error=error)
        else:
            self._bus.reply(delivery, decided.to_json())

    async def _undecided(self, name: str) -> str:
        """The approval's whole name; one that was answered is told apart from one that never was."""
        try:
            return self._approvals.find(name).id
        except NotFoundError:
            found = (await self._history()).find(name)
            raise ConflictError(
                f"{found.id} is {found.state} already",
                hint=f"'rlp kb why {found.id}' tells how",
                code="approval.state",
            ) from None

    # --- methods ----------------------------------------------------------------------------------

    async def _status_of(self, _: Principal, __: Nothing) -> Any:
        return {"version": __version__, "pid": os.getpid(), **self._status()}

    async def _list_agents(self, _: Principal, __: Nothing) -> Any:
        return {"agents": self._runs.agents()}

    async def _submit(self, principal: Principal, params: Submit) -> Any:
        run = await self._runs.submit(
            principal,
            Submission(
                source=params.source,
                name=params.name,
                path=params.path,
                agents_dir=params.agents_dir,
                params=params.params,
                origin=params.origin,
                openings=params.openings,
            ),
        )
        return {"run": run}

    async def _list_runs(self, _: Principal, params: ListRuns) -> Any:
        limit = within(params.limit, _MAX_RUNS)
        if params.schedule is None:
            runs = await asyncio.to_thread(self._reader.runs, limit)
        else:
            runs = await asyncio.to_thread(self._reader.runs_by, f"schedule:{params.schedule}", limit)
        waiting = {approval.run for approval in self._approvals.list() if approval.state == "open"}
        waiting.update(run for run, _ in self._parked())
        for run in runs:
            if run["outcome"] is None and run["run"] in waiting:
                run["state"] = "waiting"
        return {"runs": runs}

    async def _show_run(self, _: Principal, params: OneRun) -> Any:
        return await self._runs.show(await self._find_run(params.run))

    async def _run_events(self, _: Principal, params: RunEvents) -> Any:
        run = await self._find_run(params.run)
        limit = within(params.limit, _MAX_EVENTS)

        def read() -> list[dict[str, Any]]:
            found = self._reader.events(run=run, after=params.after, limit=limit)
            return [event.to_json() for event in found]

        return {"run": run, "events": await asyncio.to_thread(read)}

    async def _cancel(self, principal: Principal, params: CancelRun) -> Any:
        run = await self._find_run(params.run)
        await self._runs.cancel(principal, run, params.reason)
        return {"run": run}

    async def _replay(self, _: Principal, params: OneRun) -> Any:
        return await self._runs.replay(await self._find_run(params.run))

    async def _blob(self, _: Principal, params: OneBlob) -> Any:
        data = await asyncio.to_thread(self._reader.blob, params.digest)
        return {"base64": base64.b64encode(data).decode()}

    async def _list_approvals(self, _: Principal, params: ListApprovals) -> Any:
        approvals = await self._history() if params.all else self._approvals
        return {"approvals": [a.to_json() for a in approvals.list(all=params.all)]}

    async def _show_approval(self, _: Principal, params: OneApproval) -> Any:
        try:
            approval = self._approvals.find(params.approval)
        except NotFoundError:
            approval = (await self._history()).find(params.approval)
        content = await asyncio.to_thread(self._reader.blob, approval.content_blob)
        return {**approval.to_json(), "content": base64.b64encode(content).decode()}

    async def _history(self) -> Approvals:
        """Every approval there ever was: the same fold, over the whole ledger, for reading only."""
        history = Approvals(self._journal, self._clock)
        active = set(self._runs.active())
        history.restore(await asyncio.to_thread(lambda: list(self._reader.events(kinds=APPROVAL_KINDS))))
        active.update(self._runs.active())  # runs come and go while the ledger is read
        for approval in history.list():
            if approval.run is not None and approval.run not in active:
                approval.state = "voided"  # its run ended before anybody answered
        return history

    async def _find_run(self, prefix: str) -> RunId:
        return await asyncio.to_thread(self._reader.find_run, prefix)

    async def _query(self, _: Principal, params: Query) -> Any:
        limit = within(params.limit, _MAX_ROWS)
        return await self._knowledge.query(params.sql, params.params, limit, raw=True)

    async def _search(self, _: Principal, params: Search) -> Any:
        k = within(params.k, _MAX_HITS)
        found = await self._knowledge.search(params.query, k, params.kinds, raw=True)
        embedders = {name for item in found for name in item.get("found_by", {}) if name != "words"}
        return {"items": found, "embedders": sorted(embedders)}

    async def _why(self, _: Principal, params: Why) -> Any:
        return await self._knowledge.why(params.ref, raw=True, impact=params.impact)

    async def _list_caps(self, _: Principal, params: ListCaps) -> Any:
        return {"agents": self._policies.show(params.agent)}

    async def _grant(self, principal: Principal, params: Grant) -> Any:
        return await self._policies.grant(principal, params.agent, params.capability, params.value)

    async def _revoke(self, principal: Principal, params: Revoke) -> Any:
        return await self._policies.revoke(principal, params.agent, params.capability, params.token)

    async def _list_held(self, _: Principal, __: Nothing) -> Any:
        return {"agents": self._quarantine.show()}

    async def _quarantine_agent(self, principal: Principal, params: QuarantineAgent) -> Any:
        return await self._quarantine.impose(principal, params.agent, params.reason)

    async def _release_agent(self, principal: Principal, params: ReleaseAgent) -> Any:
        return await self._quarantine.lift(principal, params.agent, params.reason)

    async def _stop_daemon(self, _: Principal, params: Stop) -> Any:
        self._stop(params.drain)
        return {"stopping": True}

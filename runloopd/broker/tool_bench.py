"""Whether a tool may be called, as things are at this moment: known, permitted, well-formed, in budget.

Knows: the first half of a call's way (the second: ``tool_ops``), the same for the gate and for a rehearsal,
which has nothing behind it. Does not know: people, effects, recording.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from runloop.bundle.json_schema import Schema
from runloop.caps.policy import Verdict
from runloop.errors import UsageError
from runloop.ops import Effect, ToolCall
from runloopd.broker.asks import Ask, CapabilityError, Done, audit
from runloopd.broker.calls import Caller
from runloopd.broker.flows import Flows, Heard, sink_of, spoken_by
from runloopd.broker.providers.web import WebPort
from runloopd.broker.quotas import QuotaError, check
from runloopd.broker.secret_ops import Lending, Lent
from runloopd.broker.tool_errands import (
    Errand,
    GuestErrand,
    HttpErrand,
    OfferErrand,
    ToolGuests,
)
from runloopd.broker.tool_plan import Plan, Toolbox, canonical_args, missing
from runloopd.broker.tool_programs import ExecErrand
from runloopd.broker.tool_results import unfit
from runloopd.broker.toolbox import ToolSource
from runloopd.broker.tools.sandbox import ProgramSandbox

__all__ = ["Bench", "Judged", "ToolPorts", "misfit"]

MAX_ARGS_BYTES = 64 * 1024


@dataclass(frozen=True, kw_only=True)
class ToolPorts:
    """What tools are carried out with. What is None is refused by name, and nothing else is done instead."""

    web: WebPort
    sources: Sequence[ToolSource] = ()
    programs: ProgramSandbox | None = None
    guests: ToolGuests | None = None
    lending: Lending | None = None
    flows: Flows = field(default_factory=Flows)
    """Whom what is private may be told."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Judged:
    """A call that may be made, as things are at this moment."""

    plan: Plan
    args: dict[str, Any]
    errand: Errand
    private: tuple[str, ...] = ()
    """Whose words it may hold that its sink has no right to: a person reads it."""


class Bench:
    """Where tools are looked at before anybody uses them."""

    def __init__(self, ports: ToolPorts, *, warn_percent: int = 80) -> None:
        self._ports = ports
        self._box = Toolbox(ports.sources, ports.programs)
        self._warn_percent = warn_percent

    def effect(self, caller: Caller, args: Any, tree: Heard | None = None) -> Effect:
        """What a ``tool.call`` with these arguments is on record as; ``tree`` says what was heard."""
        name = args.get("tool") if isinstance(args, dict) else None
        plan = self._box.plan(caller, name) if isinstance(name, str) else None
        if plan is None:
            return "read"  # it is refused
        given = args.get("args")
        if tree is not None and isinstance(given, dict):
            plan = self._ports.flows.guarded(tree, plan, given)
        return plan.effect

    def list(self, ask: Ask) -> Done:
        """``{tools: [{id, description, kind, source, effect, input_schema, granted, missing, …}]}``."""
        plans = self._box.all(ask.caller, ask.grants)
        tools = [plan.to_json(missing(plan, ask.grants, ask.agent)) for plan in plans]
        return Done(value={"tools": tools})

    async def judge(self, ask: Ask) -> Judged:
        """Known, permitted, well-formed: the tool and the rights as they are now."""
        asked = cast(ToolCall, ask.args)
        plan = self._box.find(ask.caller, ask.grants, asked.tool)
        for verdict in missing(plan, ask.grants, ask.agent):
            raise CapabilityError(verdict)
        if len(ask.args_blob) > MAX_ARGS_BYTES:
            raise UsageError(f"{plan.name}: arguments of more than {MAX_ARGS_BYTES} bytes", code="tool.args")
        args = canonical_args(plan, asked.args)
        if why := await misfit(plan.accepts, args):
            raise UsageError(f"{plan.name}: arguments{why}", hint="see 'tool.list'", code="tool.args")
        plan = self._ports.flows.guarded(ask.run.tree, plan, args)
        ask.speaker = spoken_by(plan, args)
        errand = self._errand(ask, plan, args)
        errand.permit()
        private = self._ports.flows.strangers(ask.run.tree, sink_of(plan, args))
        return Judged(plan=plan, args=args, errand=errand, private=private)

    def _errand(self, ask: Ask, plan: Plan, args: dict[str, Any]) -> Errand:
        tool = plan.tool
        if plan.offer is not None:
            return OfferErrand(ask, plan, args, self._ports.flows)
        assert tool is not None
        if tool.http is not None:
            return HttpErrand(ask, plan, tool.http, args, self._ports.web, self._ports.flows)
        if tool.exec is not None:
            return ExecErrand(ask, plan, tool.exec, args, self._ports.programs)
        return GuestErrand(ask, plan, args, self._ports.guests)

    def count(self, ask: Ask, plan: Plan) -> None:
        """Let the call through, on record, within the tool's budget for the run."""
        used = ask.run.tools.setdefault((ask.agent, plan.name), set())
        place = (ask.caller.node, ask.caller.attempt, ask.call.index)
        if plan.calls is not None and place not in used:
            warned = ask.run.warned_of(ask.caller.node, ask.caller.attempt)
            try:
                ask.facts += check(
                    f"tool.{plan.name}",
                    len(used),
                    1,
                    plan.calls,
                    agent=ask.agent,
                    warned=warned,
                    percent=self._warn_percent,
                )
            except QuotaError as error:
                error.hint = "the tool's author set this budget in tools.json"
                raise
        # Counted now, for calls beside this one; the record says the same once it is written.
        used.add(place)
        ask.facts.append(audit(ask.agent, _allowed(plan), ask.caller, ask.call))

    async def rehearse(self, ask: Ask, script: Mapping[str, Any]) -> None:
        """Judge a call with nothing behind it; ``script`` may hold its answer, which is checked as a result.

        Of what the host or a server offers, a rehearsal knows nothing but that it must be granted.
        """
        asked = cast(ToolCall, ask.args)
        plan = self._box.plan(ask.caller, asked.tool)
        if plan is None and "." in asked.tool and ask.grants.allows("tools", asked.tool).allowed:
            return
        if plan is None or plan.kind != "mcp":
            judged = await self.judge(ask)
            self.count(ask, judged.plan)
            if isinstance(judged.errand, HttpErrand):
                value = (await judged.errand.run(Lent(), 0)).value
            else:
                answer = script.get("tool.call")
                value = answer.get("result") if isinstance(answer, dict) else None
            plan = judged.plan
        else:
            for verdict in missing(plan, ask.grants, ask.agent):
                raise CapabilityError(verdict)
            if why := await misfit(plan.accepts, asked.args):
                raise UsageError(f"{plan.name}: arguments{why}", hint="see 'tool.list'", code="tool.args")
            self.count(ask, plan)
            answer = script.get("tool.call")
            value = answer.get("result") if isinstance(answer, dict) else None
        if why := await misfit(plan.returns, value):
            raise unfit(plan.name, f"its result does not fit its schema{why}")


def _allowed(plan: Plan) -> Verdict:
    if plan.tool is None:
        reason = "tools grants it"
    else:
        reason = f"it is a tool of its own, and {', '.join(plan.capabilities) or 'nothing more'} is granted"
    return Verdict(allowed=True, capability="tools", target=plan.name, reason=reason)


async def misfit(schemas: Sequence[Schema], value: Any) -> str | None:
    """Why a value does not fit, off the event loop: a stranger's schema may take its steps."""
    for schema in schemas:
        why = await asyncio.to_thread(schema.misfit, value)
        if why is not None:
            return why.removeprefix("$")
    return None

"""``tool.list`` and ``tool.call``: an agent's own tools, by name.

Knows: the order in which a tool call is judged (known → permitted → well-formed → served → in budget →
performed → its result well-formed). Does not know: how ``tools.json`` is read (``runloop.bundle.tools``), how
bytes travel (``providers.web``), recording (the gate).

Every call that is let through is stated as an allowed ``cap.audit`` of the capability ``tools``: what a run
used is then on record, and the budget of a tool is counted from the record alone, so that it holds across
attempts and restarts.
"""

from __future__ import annotations

import asyncio
from typing import Any, cast

import orjson

from runloop.bundle.json_schema import Schema
from runloop.bundle.tools import HttpTransport, Tool
from runloop.caps.destination import Destination, parse_destination
from runloop.caps.policy import Policy, Verdict
from runloop.digest import canonical
from runloop.errors import NotFoundError, RefusedError, RunloopError, UsageError
from runloop.ops import ToolCall
from runloop.spelling import did_you_mean
from runloopd.broker.asks import Ask, CapabilityError, Done, audit
from runloopd.broker.http_ops import NetPermission, body_text, checked_method, host_granted, how_to_obtain
from runloopd.broker.ports import ProviderError
from runloopd.broker.providers.web import WebPort, WebRequest, WebResponse
from runloopd.broker.quotas import QuotaError, check

__all__ = ["ToolOps"]

MAX_ARGS_BYTES = 64 * 1024
MAX_RESULT_BYTES = 1024 * 1024
_LATER = {
    "exec": "programs are run from issue 6 on",
    "mcp": "MCP servers are spoken to from issue 6 on",
    "wasm": "tools that agents implement are served from issue 6 on",
}
_RETRYABLE = frozenset({408, 425, 429, 500, 502, 503, 504})


class ToolOps:
    """``tool.list`` and ``tool.call``."""

    def __init__(self, *, web: WebPort, warn_percent: int = 80) -> None:
        self._web = web
        self._warn_percent = warn_percent

    async def list(self, ask: Ask) -> Done:
        """``{tools: [{id, description, kind, input_schema, result_schema, granted, missing, …}]}``."""
        tools = []
        for tool in ask.caller.tools:
            missing = [_words(verdict) for verdict in _missing(tool, ask.grants, ask.agent)]
            tools.append({**tool.to_json(), "granted": not missing, "missing": missing})
        return Done(value={"tools": tools})

    async def call(self, ask: Ask) -> Done:
        """``{result}``, which fits the tool's ``result_schema``."""
        args = cast(ToolCall, ask.args)
        tool = _find(ask, args.tool)
        for verdict in _missing(tool, ask.grants, ask.agent):
            raise CapabilityError(verdict)
        if len(ask.args_blob) > MAX_ARGS_BYTES:
            raise UsageError(f"{tool.id}: arguments of more than {MAX_ARGS_BYTES} bytes", code="tool.args")
        if why := await _misfit(tool.accepts, args.args):
            raise UsageError(f"{tool.id}: arguments{why}", hint="see 'tool.list'", code="tool.args")
        http = _served(tool)
        place = parse_destination(http.fill(args.args))
        permission = NetPermission(ask, why=tool.id)
        permission.require(http.method, place)
        self._count(ask, tool)
        request = WebRequest(
            method=http.method,
            place=place,
            headers=(("Accept", "application/json, text/plain;q=0.5"),),
            max_bytes=MAX_RESULT_BYTES,
            owner=ask.caller.run,
        )
        answer = await self._web.exchange(request, permission)
        value = await asyncio.to_thread(_value, tool, answer)
        if why := await _misfit(tool.returns, value):
            raise _failed(tool, f"its result does not fit its schema{why}", "tool.result")
        return Done(value={"result": value})

    def _count(self, ask: Ask, tool: Tool) -> None:
        """Let the call through, on record, within the tool's budget for the run."""
        used = ask.run.tools.setdefault((ask.agent, tool.id), set())
        if tool.calls is not None:
            warned = ask.run.warned_of(ask.caller.node, ask.caller.attempt)
            try:
                ask.facts += check(
                    f"tool.{tool.id}",
                    len(used),
                    1,
                    tool.calls,
                    agent=ask.agent,
                    warned=warned,
                    percent=self._warn_percent,
                )
            except QuotaError as error:
                error.hint = "the tool's author set this budget in tools.json"
                raise
        # Counted now, for calls beside this one; the record says the same once it is written.
        used.add((ask.caller.node, ask.caller.attempt, ask.call.index))
        ask.facts.append(audit(ask.agent, _allowed(tool), ask.caller, ask.call))


def _find(ask: Ask, name: str) -> Tool:
    known = {tool.id: tool for tool in ask.caller.tools}
    if name in known:
        return known[name]
    hint = did_you_mean(name, known, f"its tools: {', '.join(known) or 'none'}")
    raise NotFoundError(f"{ask.agent} has no tool {name[:128]!r}", hint=hint, code="tool.unknown")


def _served(tool: Tool) -> HttpTransport:
    """The tool's transport, if a call of it can be carried out by this build; else the reason why not."""
    if tool.http is None:
        raise RefusedError(
            f"{tool.id} is a tool of the kind {tool.kind!r}, which is not served yet: {_LATER[tool.kind]}",
            hint="use a tool of the kind 'http'",
            code="tool.transport",
        )
    if tool.secrets:
        raise RefusedError(
            f"{tool.id} needs {tool.secrets[0]}: secrets are not given to tools yet",
            hint="use a tool that needs none",
            code="tool.secrets",
        )
    if tool.requires_confirmation:
        raise RefusedError(
            f"{tool.id} requires a person's confirmation, which cannot be asked for yet",
            hint="use a tool that needs none, or report what you wanted to do",
            code="tool.confirmation",
        )
    checked_method(tool.http.method)
    return tool.http


# --- rights ---------------------------------------------------------------------------------------


def _missing(tool: Tool, grants: Policy, agent: str) -> list[Verdict]:
    """A refusal for every capability the tool names and the agent does not have."""
    verdicts = [_verdict(tool, word, grants, agent) for word in tool.capabilities]
    return [verdict for verdict in verdicts if not verdict.allowed]


def _verdict(tool: Tool, word: str, grants: Policy, agent: str) -> Verdict:
    name, _, target = word.partition(":")
    plain = grants.allows(name, "" if name == "net" else target, agent=agent)
    if plain.allowed and (name != "net" or not target or host_granted(grants, _host(target))):
        return plain
    shown = f"{name} {target}".rstrip()
    held = grants.allows(name, "nothing" if name == "net" else target, agent=agent)
    return Verdict(
        allowed=False,
        capability=name,
        target=target,
        reason=f"{tool.id} needs {shown}, which is not granted to {agent}: {held.reason.rpartition(': ')[2]}",
        how_to_obtain=how_to_obtain(agent, name),
    )


def _host(target: str) -> Destination:
    return parse_destination(f"https://{target}/")


def _allowed(tool: Tool) -> Verdict:
    return Verdict(
        allowed=True,
        capability="tools",
        target=tool.id,
        reason=f"it is a tool of its own, and {', '.join(tool.capabilities)} is granted",
    )


def _words(verdict: Verdict) -> str:
    return f"{verdict.capability} {verdict.target}".rstrip()


# --- results --------------------------------------------------------------------------------------


def _value(tool: Tool, answer: WebResponse) -> Any:
    """The answer as a JSON value: parsed, or text as it is."""
    if not 200 <= answer.status <= 299:
        raise _failed(
            tool,
            f"{answer.place.authority} answered HTTP {answer.status}",
            "tool.failed",
            retryable=answer.status in _RETRYABLE,
        )
    if answer.truncated:
        raise _failed(tool, f"its result is larger than {MAX_RESULT_BYTES} bytes", "tool.result")
    if not answer.body:
        return None
    text = body_text(answer)
    if text is None:
        raise _failed(tool, "its result is neither JSON nor text", "tool.result")
    media = answer.headers.get("content-type", "").lower().partition(";")[0].strip()
    if not media.endswith(("/json", "+json")):
        return text
    try:
        value = orjson.loads(text)
        canonical(value)
    except (orjson.JSONDecodeError, RunloopError) as error:
        raise _failed(tool, "its result is not JSON that can be kept", "tool.result") from error
    return value


async def _misfit(schema: Schema, value: Any) -> str | None:
    """Why a value does not fit, off the event loop: a stranger's schema may take its steps."""
    why = await asyncio.to_thread(schema.misfit, value)
    return None if why is None else why.removeprefix("$")


def _failed(tool: Tool, why: str, code: str, *, retryable: bool = False) -> ProviderError:
    return ProviderError(
        f"{tool.id} failed: {why}",
        hint="try again later" if retryable else "report it to the author of the agent",
        code=code,
        retryable=retryable,
    )

"""One call of a tool, ready to be carried out: what leaves, where it goes, and going there.

Knows: how each kind of tool is carried out, and the words and bytes a person is shown of it, which are those
that leave. Does not know: whether it may be (``tool_plan``, ``tool_ops``), or recording (the gate).
"""

from __future__ import annotations

from collections.abc import Awaitable
from dataclasses import dataclass, field
from typing import Any, Protocol

import orjson

from runloop.bundle.transports import HttpTransport, secrets_in
from runloop.caps.destination import Destination, parse_destination
from runloop.caps.policy import Policy
from runloop.digest import canonical, digest
from runloop.errors import RunloopError
from runloopd.broker.asks import Ask
from runloopd.broker.flows import place_label
from runloopd.broker.http_ops import NetPermission, body_text
from runloopd.broker.ports import Outcome, ProviderError
from runloopd.broker.providers.web import KeyHeader, WebPort, WebRequest, WebResponse
from runloopd.broker.secret_ops import Lent
from runloopd.broker.tool_plan import Plan
from runloopd.broker.toolbox import ToolContext, ToolError, ToolResult

__all__ = ["Errand", "GuestErrand", "HttpErrand", "OfferErrand", "ToolGuests", "result_of"]

MAX_RESULT_BYTES = 1024 * 1024
MAX_RESOURCE = 1_000
_RETRYABLE = frozenset({408, 425, 429, 500, 502, 503, 504})


class ToolGuests(Protocol):
    """Serves tools that agents implement (the runtime does)."""

    async def serve(self, ask: Ask, agent: str | None, tool: str, args: dict[str, Any]) -> Any:
        """The tool's result. The agent that serves has its own rights, as far as the caller has them.

        ``agent`` None: the caller's own bundle. Raises :class:`ToolError`.
        """
        ...


class Errand(Protocol):
    """One call, ready to be carried out."""

    @property
    def resource(self) -> str:
        """What is touched, in canonical form."""
        ...

    @property
    def shown(self) -> dict[str, Any]:
        """Exactly what leaves, apart from the values of secrets."""
        ...

    @property
    def to(self) -> str:
        """Where its secrets go."""
        ...

    def permit(self) -> None:
        """Raise :class:`CapabilityError` unless the rights hold that hang on the arguments."""
        ...

    async def run(self, lent: Lent, due_ms: int) -> ToolResult:
        """Do it. Raises families of :mod:`runloop.errors`."""
        ...

    async def outcome(self, due_ms: int) -> Outcome:
        """What became of it, if it was begun before."""
        ...


def bounded_text(text: str) -> str:
    """A resource as it stands in facts: cut where it is long, and still its own."""
    return text if len(text) <= MAX_RESOURCE else f"{text[: MAX_RESOURCE - 80]}… ({digest(text)})"


# --- requests -------------------------------------------------------------------------------------


class HttpErrand:
    """A request to the place that the bundle fixed."""

    def __init__(self, ask: Ask, plan: Plan, http: HttpTransport, args: dict[str, Any], web: WebPort) -> None:
        self._ask, self._plan, self._http, self._web = ask, plan, http, web
        self._place: Destination = parse_destination(http.fill(args))
        self._body = http.content(args)
        self._permission = NetPermission(ask, why=plan.name)

    @property
    def resource(self) -> str:
        place = self._place
        return bounded_text(f"{self._http.method} {place.scheme}://{place.authority}{place.path}")

    @property
    def shown(self) -> dict[str, Any]:
        return {
            "method": self._http.method,
            "url": str(self._place),
            "headers": dict(self._http.headers),
            "body": orjson.loads(self._body) if self._body else None,
        }

    @property
    def to(self) -> str:
        return self._place.authority

    def permit(self) -> None:
        self._permission.require(self._http.method, self._place)

    async def run(self, lent: Lent, due_ms: int) -> ToolResult:
        request = WebRequest(
            method=self._http.method,
            place=self._place,
            headers=tuple(self._headers()),
            keys=self._keys(lent),
            body=self._body,
            max_bytes=MAX_RESULT_BYTES,
            owner=self._ask.caller.run,
        )
        self._permission.carries = len(self._body)
        answer = await self._web.exchange(request, self._permission)
        confided = bool(self._plan.secrets) or self._permission.inward
        return ToolResult(value=self._value(answer), label=place_label(answer.place, confided=confided))

    async def outcome(self, due_ms: int) -> Outcome:
        return "unknown"  # nobody can be asked what a server did

    def _headers(self) -> list[tuple[str, str]]:
        plain = [pair for pair in self._http.headers if not secrets_in((pair,))]
        made = [("Accept", "application/json, text/plain;q=0.5"), *plain]
        if self._body:
            made.append(("Content-Type", "application/json"))
        if not self._http.reads:
            # The same call, repeated by whoever, is one call to a server that knows the header.
            made.append(("Idempotency-Key", self._ask.key))
        return made

    def _keys(self, lent: Lent) -> tuple[KeyHeader, ...]:
        """Headers that end with a secret: revealed as the bytes leave, and to nobody a redirect names."""
        return tuple(
            KeyHeader(name=header, prefix=value.partition("{secret:")[0], secret=lent.secrets[name])
            for header, value in self._http.headers
            for name in secrets_in(((header, value),))
        )

    def _value(self, answer: WebResponse) -> Any:
        """The answer as a JSON value: parsed, or text as it is."""
        name = self._plan.name
        if not 200 <= answer.status <= 299:
            # A server that says no has not done it; one that broke down may have.
            broke = answer.status >= 500 and not self._http.reads
            raise failed(
                name,
                f"{answer.place.authority} answered HTTP {answer.status}",
                retryable=answer.status in _RETRYABLE,
                outcome="unknown" if broke else "absent",
            )
        if answer.truncated:
            raise unfit(name, f"its result is larger than {MAX_RESULT_BYTES} bytes")
        if not answer.body:
            return None
        text = body_text(answer)
        if text is None:
            raise unfit(name, "its result is neither JSON nor text")
        media = answer.headers.get("content-type", "").lower().partition(";")[0].strip()
        return text if not media.endswith(("/json", "+json")) else parsed(name, text)


# --- offers and agents ----------------------------------------------------------------------------


class OfferErrand:
    """A tool of the host or of a server, carried out by its source."""

    def __init__(self, ask: Ask, plan: Plan, args: dict[str, Any]) -> None:
        assert plan.offer is not None and plan.source is not None
        self._ask, self._plan, self._args = ask, plan, args
        self._offer, self._source = plan.offer, plan.source

    @property
    def resource(self) -> str:
        names = self._offer.resource
        touched = {name: self._args[name] for name in names if name in self._args} if names else self._args
        return bounded_text(f"{self._offer.name} {canonical(touched).decode()}")

    @property
    def shown(self) -> dict[str, Any]:
        return {"tool": self._offer.name, "arguments": self._args}

    @property
    def to(self) -> str:
        family, _, rest = self._offer.name.partition(".")
        return f"mcp:{rest.partition('.')[0]}" if self._offer.source == "mcp" else family

    def permit(self) -> None:
        """What hangs on the arguments is judged by the source, which is told what is granted: here, before a
        person is asked, where it can, and again when it is called."""
        permit = getattr(self._source, "permit", None)
        if permit is not None:
            permit(self._offer, self._args, self._context(None, 0))

    async def run(self, lent: Lent, due_ms: int) -> ToolResult:
        if self._offer.source == "mcp":
            self._ask.outbound(self.to, len(canonical(self._args)), 0)
        return await self._source.call(self._offer, self._args, self._context(lent, due_ms))

    async def outcome(self, due_ms: int) -> Outcome:
        return await self._source.reconcile(self._offer, self._context(None, due_ms))

    def _context(self, lent: Lent | None, due_ms: int) -> ToolContext:
        now = self._ask.check()
        return ToolContext(
            agent=self._ask.agent,
            run=self._ask.caller.run,
            node=self._ask.caller.node,
            key=self._ask.key,
            deadline_ms=due_ms,
            grants=now if isinstance(now, Policy) else self._ask.grants,
            net=NetPermission(self._ask, why=self._plan.name),
            secrets={} if lent is None else dict(lent.secrets),
            args=self._args,
        )


@dataclass
class GuestErrand:
    """A tool that an agent implements."""

    ask: Ask
    plan: Plan
    args: dict[str, Any]
    guests: ToolGuests | None
    _agent: str | None = field(init=False)
    _tool: str = field(init=False)

    def __post_init__(self) -> None:
        assert self.plan.tool is not None and self.plan.tool.wasm is not None
        self._agent, self._tool = self.plan.tool.wasm.agent, self.plan.tool.wasm.tool

    @property
    def resource(self) -> str:
        return f"agent:{self._agent or self.ask.agent} {self._tool}"

    @property
    def shown(self) -> dict[str, Any]:
        return {"agent": self._agent or self.ask.agent, "tool": self._tool, "arguments": self.args}

    @property
    def to(self) -> str:
        return f"agent:{self._agent or self.ask.agent}"

    def permit(self) -> None:
        """The agent is named among the capabilities, and those were judged."""

    async def run(self, lent: Lent, due_ms: int) -> ToolResult:
        if self.guests is None:
            raise ToolError(
                f"{self.plan.name} is served by an agent, and none can be started here",
                hint="call it in a run",
                code="tool.unavailable",
            )
        value = await self.guests.serve(self.ask, self._agent, self._tool, self.args)
        return ToolResult(value=value)

    async def outcome(self, due_ms: int) -> Outcome:
        return "absent"  # it can change nothing


# --- results --------------------------------------------------------------------------------------


async def result_of(work: Awaitable[ToolResult], name: str) -> tuple[Any, str | None]:
    """The value, within bounds and fit to be kept, and its label."""
    result = await work
    try:
        size = len(canonical(result.value))
    except RunloopError as error:
        raise unfit(name, "its result is not JSON that can be kept") from error
    if size > MAX_RESULT_BYTES:
        raise unfit(name, f"its result is larger than {MAX_RESULT_BYTES} bytes")
    return result.value, result.label


def parsed(name: str, text: str) -> Any:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise unfit(name, "its result is not JSON that can be kept") from error


def failed(
    name: str,
    why: str,
    *,
    code: str = "tool.failed",
    retryable: bool = False,
    outcome: Outcome = "absent",
) -> ProviderError:
    """It said no, or broke."""
    return ToolError(
        f"{name} failed: {why}",
        hint="try again later" if retryable else "report it to the author of the agent",
        code=code,
        retryable=retryable,
        outcome=outcome,
    )


def unfit(name: str, why: str) -> ProviderError:
    """It was done, and what it gave is of no use."""
    return failed(name, why, code="tool.result", outcome="done")

"""One call of a tool, ready to be carried out: what leaves, where it goes, and going there.

Knows: how each kind of tool is carried out, and the words and bytes a person is shown of it, which are those
that leave. Does not know: whether it may be (``tool_plan``, ``tool_ops``), where redirects lead
(``tool_reach``), what a result is worth (``tool_results``), or recording (the gate).

A resource names everything that leaves, because a standing grant is given for it: what is not spelled out in
it stands there as a digest. Only the host's own tools may say that fewer arguments name what is touched.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

import orjson

from runloop.bundle.transports import HttpTransport, secrets_in
from runloop.caps.destination import Destination, parse_destination
from runloop.caps.policy import Policy
from runloop.digest import blob_digest, canonical, digest
from runloop.errors import RefusedError, RunloopError
from runloopd.broker.asks import Ask
from runloopd.broker.flows import Flows, place_label
from runloopd.broker.http_ops import body_text
from runloopd.broker.ports import Outcome
from runloopd.broker.providers.http import is_loopback
from runloopd.broker.providers.web import KeyHeader, WebPort, WebRequest, WebResponse
from runloopd.broker.secret_ops import Lent
from runloopd.broker.tool_plan import Plan
from runloopd.broker.tool_reach import Reach
from runloopd.broker.tool_reached import Reached
from runloopd.broker.tool_results import MAX_RESULT_BYTES, failed, parsed, unfit
from runloopd.broker.toolbox import ToolContext, ToolError, ToolResult

__all__ = ["Errand", "GuestErrand", "HttpErrand", "OfferErrand", "ToolGuests", "bounded_text"]

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
        """What is touched, in canonical form: two calls that differ in what leaves have two."""
        ...

    @property
    def shown(self) -> dict[str, Any]:
        """Exactly what leaves, apart from the values of secrets."""
        ...

    @property
    def to(self) -> str:
        """Where its secrets go, as the operator names it. Raises :class:`RefusedError` (``secret.clear``)
        where they would go unencrypted."""
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

    def __init__(
        self, ask: Ask, plan: Plan, http: HttpTransport, args: dict[str, Any], web: WebPort, flows: Flows
    ) -> None:
        self._ask, self._plan, self._http, self._web = ask, plan, http, web
        self._place: Destination = parse_destination(http.fill(args))
        self._body = http.content(args)
        self._permission = Reach(ask, plan, flows, self._place)

    @property
    def resource(self) -> str:
        place, (_, asks, query) = self._place, self._place.target.partition("?")
        words = [self._http.method, f"{place.scheme}://{place.authority}{place.path}"]
        words += [f"query:{digest(query)}"] if asks else []
        words += [f"body:{blob_digest(self._body)}"] if self._body else []
        return bounded_text(" ".join(words))

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
            # A server that says no has not done it. One that broke down may have, and one that did it often
            # sends on to where that is shown.
            broke = not self._http.reads and not 400 <= answer.status <= 499
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

    def __init__(self, ask: Ask, plan: Plan, args: dict[str, Any], flows: Flows) -> None:
        assert plan.offer is not None and plan.source is not None
        self._ask, self._plan, self._args = ask, plan, args
        self._offer, self._source = plan.offer, plan.source
        self._place = _place_in(args) if plan.offer.source == "host" else None
        self._net = Reach(ask, plan, flows, self._place)
        self._reached = Reached(ask)

    @property
    def resource(self) -> str:
        names = self._offer.resource
        touched = {name: self._args[name] for name in names if name in self._args} if names else self._args
        return bounded_text(f"{self._offer.name} {canonical(touched).decode()}")

    @property
    def shown(self) -> dict[str, Any]:
        beside = self._source.touches(self._offer, self._args, self._context(None, 0))
        return {"tool": self._offer.name, "arguments": self._args, **beside}

    @property
    def to(self) -> str:
        """A server by name, or the host and port that the arguments name. A tool that names no place sends
        its secrets nowhere that an operator could have bound them to."""
        family, _, rest = self._offer.name.partition(".")
        if self._offer.source == "mcp":
            return f"mcp:{rest.partition('.')[0]}"
        if self._place is None:
            return family
        if self._place.scheme != "https" and not is_loopback(self._place.host):
            raise RefusedError(
                f"a secret is not sent to {self._place.authority} unencrypted",
                hint="use https",
                code="secret.clear",
            )
        return self._place.authority

    def permit(self) -> None:
        """What hangs on the arguments is judged by the source, which is told what is granted: here, before a
        person is asked, where it can, and again when it is called."""
        self._source.permit(self._offer, self._args, self._context(None, 0))

    async def run(self, lent: Lent, due_ms: int) -> ToolResult:
        if self._offer.source == "mcp":
            self._ask.outbound(self.to, len(canonical(self._args)), 0)
        try:
            return await self._source.call(self._offer, self._args, self._context(lent, due_ms))
        finally:
            self._reached.state()

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
            net=self._net,
            secrets={} if lent is None else dict(lent.secrets),
            args=self._args,
            reached=self._reached.note,
        )


def _place_in(args: dict[str, Any]) -> Destination | None:
    """The place that the arguments name; None: none, or none that can be read, which the tool says itself."""
    url = args.get("url")
    try:
        return parse_destination(url) if isinstance(url, str) else None
    except RunloopError:
        return None


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
        return f"agent:{self._agent or self.ask.agent} {self._tool} args:{digest(self.args)}"

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

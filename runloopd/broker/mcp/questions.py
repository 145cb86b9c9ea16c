"""What a server may ask a person while it works: shown with its origin, never a secret, never a link to open.

Knows: which questions are put and which are declined, how an answer becomes what the server reads. Does not
know: how a person is reached (a promise of the run, as with ``input.ask``).

A form of a foreign server is where a password would be typed by mistake (attacks.md C11): whatever asks for
one, by name or in its words, however they are spelt (``broker.phishing``), is declined before anybody sees
it.
"""

from __future__ import annotations

import asyncio
from typing import Any

import structlog

from runloop.clock import Clock
from runloop.digest import digest
from runloop.errors import RunloopError
from runloop.events import Draft, PromiseCreated, PromiseResolved, Provenance
from runloopd.broker.mcp.definitions import accepting
from runloopd.broker.mcp.messages import Question
from runloopd.broker.phishing import names_secret
from runloopd.broker.ports import FactPort, JournalPort
from runloopd.broker.promises import Promises
from runloopd.broker.toolbox import ToolContext

__all__ = ["Questions", "asks_secret"]

log = structlog.get_logger(__name__)

MAX_WORDS = 1_000
MAX_FIELDS = 16


def asks_secret(question: Question) -> bool:
    """Whether anything in the question, a field's name among it, asks for what must not be typed there."""
    return names_secret(_texts(question))


def _texts(question: Question) -> list[str]:
    found = [question.message]
    left: list[Any] = [question.schema]
    while left:
        value = left.pop()
        if isinstance(value, str):
            found.append(value)
        elif isinstance(value, dict):
            found += [str(key) for key in value]
            left += value.values()
        elif isinstance(value, list):
            left += value
    return found


class Questions:
    """Puts the questions of servers to the operator."""

    def __init__(self, promises: Promises, journal: JournalPort, facts: FactPort, clock: Clock) -> None:
        self._promises = promises
        self._facts = facts
        self._journal = journal
        self._clock = clock

    async def put(
        self, server: str, tool: str, question: Question, context: ToolContext
    ) -> tuple[str, dict[str, Any] | None]:
        """The person's answer as the server reads it; ``decline`` for what is not asked, ``cancel`` when
        nobody answers before the call is over."""
        fields = question.schema.get("properties")
        fields = fields if isinstance(fields, dict) else {}
        if question.url is not None or asks_secret(question) or len(fields) > MAX_FIELDS:
            log.warning("mcp_question_declined", server=server, tool=tool, run=context.run)
            return "decline", None
        name = f"pr_{digest([context.key, server, question.question, question.message])[:20]}"
        await self._journal.append(self._made(name, server, tool, question, fields, context))
        try:
            async with asyncio.timeout(max(0, context.deadline_ms - self._clock.now_ms()) / 1000):
                promise = await self._promises.wait(name, context.run, context.node)
        except TimeoutError:
            return "cancel", None
        if promise.state != "resolved" or promise.settled is None:
            return "cancel", None
        said = (await self._facts.fact(promise.settled)).payload
        assert isinstance(said, PromiseResolved)
        return _answer(question, fields, said.value)

    def _made(
        self,
        name: str,
        server: str,
        tool: str,
        question: Question,
        fields: dict[str, Any],
        context: ToolContext,
    ) -> Draft:
        wanted = ""
        if fields:
            described = [f"{field} ({_kind(schema)})" for field, schema in fields.items()]
            wanted = f" [answer: {', '.join(described)}]"
        words = f"the MCP server {server} asks, while {tool} runs: {question.message}"
        return Draft(
            payload=PromiseCreated(
                promise=name,
                node=context.node,
                attempt=1,
                call=0,
                agent=context.agent,
                resolver="operator",
                question=f"{words[:MAX_WORDS]}{wanted[:MAX_WORDS]}",
                choices=_choices(fields),
                expires_ms=context.deadline_ms,
            ),
            actor="daemon",
            run=context.run,
            provenance=Provenance(node=context.node, agent=context.agent, label=f"mcp:{server}"),
        )


def _kind(schema: Any) -> str:
    if not isinstance(schema, dict):
        return "text"
    if isinstance(schema.get("enum"), list):
        return "one of " + ", ".join(str(one)[:40] for one in schema["enum"][:8])
    return str(schema.get("type", "text"))[:20]


def _choices(fields: dict[str, Any]) -> list[str]:
    if len(fields) != 1:
        return []
    (schema,) = fields.values()
    choices = schema.get("enum") if isinstance(schema, dict) else None
    if not isinstance(choices, list) or not all(isinstance(one, str) for one in choices):
        return []
    return [one for one in choices[:16] if 0 < len(one) <= 200]


def _answer(question: Question, fields: dict[str, Any], value: Any) -> tuple[str, dict[str, Any] | None]:
    if value is None or value is False:
        return "decline", None
    if not fields:
        return "accept", {}
    content = value if isinstance(value, dict) else {next(iter(fields)): value}
    try:
        misfit = accepting(question.schema)[1].misfit(content)
    except RunloopError:
        misfit = "it cannot be compared"
    if misfit is not None:
        log.warning("mcp_answer_misfit", why=misfit[:200])
        return "decline", None
    return "accept", content

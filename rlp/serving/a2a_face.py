"""Runloop as an agent for other agents (Agent2Agent 1.0): exposed openings are skills, runs are tasks.

Knows: which opening a message means, how a run reads as a task, who may see which. Does not know: HTTP
(``a2a_http``), tokens (``keeper``), or whether anything may happen (the daemon's gate). A task that waits for
a person is ``input-required``, and no message of a client is that input: it has nobody's authority
(attacks.md C9, C10).
"""

from __future__ import annotations

import asyncio
import json
from collections import OrderedDict
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any

import msgspec

from rlp.serving import a2a_wire as wire
from rlp.serving.a2a_tasks import (
    Update,
    artifacts_of,
    going_on,
    mine,
    page,
    standing_of,
    status_update,
    task_of,
)
from rlp.serving.exposed import Door, Known
from rlp.serving.keeper import Caller
from rlp.serving.limits import Allowance
from rlp.serving.link import Busy, Link
from rlp.serving.outcome import follow, read, start, take_back
from rlp.session import Session
from runloop import __version__
from runloop.bundle.json_schema import Schema, read_schema
from runloop.clock import SystemClock
from runloop.errors import RefusedError, RunloopError, UsageError
from runloop.ids import new_run_id

__all__ = ["A2AFace"]

_MODES = {"application/json", "text/plain", "*/*", "text/*", "application/*"}
_MAX_WAITING = 1_000
"""Steps that are kept for a client that reads slowly; those beyond are left out."""
_REFUSED = 64
"""Tasks of one client that were refused and can still be asked about."""
_CONTEXTS = 4_096
"""Runs whose conversation is remembered."""


class A2AFace:
    """The protocol's methods, and the little they remember: tasks that never became a run."""

    def __init__(self, link: Link, *, runs: Allowance, url: str) -> None:
        """``runs``: how often a client may start something. ``url``: where it is reached."""
        self._link = link
        self._runs = runs
        self._url = url
        self._clock = SystemClock()
        self._known = Known(link, self._clock)
        self._refused: dict[str, OrderedDict[str, Update]] = {}
        """Client -> its tasks that never became a run. There are as many clients as tokens."""
        self._contexts: OrderedDict[str, str] = OrderedDict()

    # --- the card -----------------------------------------------------------------------------------

    async def card(self, caller: Caller | None) -> dict[str, Any]:
        """Who we are; what we can do is for those who may ask for it."""
        skills = [] if caller is None else [_skill(door) for door in (await self._doors(caller)).values()]
        return {
            "name": "Runloop",
            "description": "Runs things for its user. Whatever would leave the machine waits for the user's "
            "own yes: such a task is input-required, and no message stands for that yes.",
            "version": __version__,
            "supportedInterfaces": [
                {"url": self._url, "protocolBinding": wire.BINDING, "protocolVersion": wire.VERSION}
            ],
            "capabilities": {"streaming": True, "pushNotifications": False, "extendedAgentCard": True},
            "securitySchemes": {"token": {"httpAuthSecurityScheme": {"scheme": "bearer"}}},
            "securityRequirements": [{"schemes": {"token": {}}}],
            "defaultInputModes": ["application/json", "text/plain"],
            "defaultOutputModes": ["application/json"],
            "skills": skills,
        }

    # --- what is asked once -------------------------------------------------------------------------

    async def answer(self, caller: Caller, call: wire.Call) -> dict[str, Any]:
        """The result of a method that answers once. Raises :class:`RunloopError`."""
        match call.method:
            case "SendMessage":
                return {"task": await self._send(caller, wire.params_of(call, wire.Send))}
            case "GetTask":
                return await self._get(caller, wire.params_of(call, wire.GetTask).id)
            case "ListTasks":
                return await self._list(caller, wire.params_of(call, wire.ListTasks))
            case "CancelTask":
                return await self._cancel(caller, wire.params_of(call, wire.ById).id)
            case "GetExtendedAgentCard":
                return await self.card(caller)
            case name if name.endswith(("PushNotificationConfig", "PushNotificationConfigs")):
                raise wire.PushError(
                    "nobody is called back from here", hint="SubscribeToTask tells as it goes"
                )
        raise wire.UnknownMethodError("there is no such method here", hint="this is Agent2Agent 1.0")

    async def _send(self, caller: Caller, asked: wire.Send) -> dict[str, Any]:
        begin = await self._meant(caller, asked)
        if isinstance(begin, dict):
            return begin

        def work(session: Session, gone: Any) -> dict[str, Any]:
            run = begin(session)
            if asked.configuration.return_immediately:
                return task_of(session, read(session, caller.client, run))
            rest = follow(session, run, lambda *_: None, gone, self._link)
            return task_of(session, rest)

        try:
            return await self._link.do(work, caller.client)
        except (RefusedError, UsageError) as error:
            return self._refuse(caller.client, asked.message.context_id, error)

    async def _get(self, caller: Caller, name: str) -> dict[str, Any]:
        refused = self._refused.get(caller.client)
        if refused is not None and name in refused:
            return refused[name]
        return await self._link.ask(
            lambda session: task_of(session, mine(session, caller.client, name)), caller.client
        )

    async def _list(self, caller: Caller, asked: wire.ListTasks) -> dict[str, Any]:
        told = await self._link.ask(
            lambda session: page(session, caller.client, asked, self._contexts), caller.client
        )
        while len(self._contexts) > _CONTEXTS:
            self._contexts.popitem(last=False)
        return told

    async def _cancel(self, caller: Caller, name: str) -> dict[str, Any]:
        def work(session: Session, gone: Any) -> dict[str, Any]:
            rest = mine(session, caller.client, name)
            if rest.over is not None:
                raise wire.NotCancelableError("the task is over")
            take_back(session, caller.client, rest.run)
            ended = follow(session, rest.run, lambda *_: None, gone, self._link, through=True)
            return task_of(session, ended)

        if name in self._refused.get(caller.client, {}):
            raise wire.NotCancelableError("the task was never begun")
        return await self._link.do(work, caller.client)

    # --- what is told as it goes --------------------------------------------------------------------

    async def stream(self, caller: Caller, call: wire.Call) -> AsyncGenerator[Update, None]:
        """The updates of a method that tells as it goes; the first is the task. Raises as :meth:`answer`."""
        begin: Callable[[Session], str] | dict[str, Any]
        context = ""
        if call.method == "SubscribeToTask":
            name = wire.params_of(call, wire.ById).id
            if name in self._refused.get(caller.client, {}):
                raise wire.UnsupportedError("the task was never begun")
            begin = going_on(caller.client, name)
        else:
            asked: wire.Send = wire.params_of(call, wire.Send)
            context = asked.message.context_id
            begin = await self._meant(caller, asked)
        if isinstance(begin, dict):
            yield {"task": begin}
            return
        async with aclosing(self._told(caller.client, begin)) as updates:
            try:
                first = await anext(updates)
            except (RefusedError, UsageError) as error:
                yield {"task": self._refuse(caller.client, context, error)}
                return
            yield first
            async for update in updates:
                yield update

    async def _told(self, client: str, begin: Callable[[Session], str]) -> AsyncGenerator[Update, None]:
        """A client that stops listening stops nothing but the telling: it may subscribe again, or cancel."""
        heard: asyncio.Queue[Update | None] = asyncio.Queue()
        loop = asyncio.get_running_loop()

        def tell(update: Update) -> None:
            loop.call_soon_threadsafe(heard.put_nowait, update)

        def work(session: Session, gone: Any) -> None:
            run = begin(session)
            first = task_of(session, read(session, client, run))
            tell({"task": first})
            context = first["contextId"]

            def step(number: int, line: str) -> None:
                if heard.qsize() < _MAX_WAITING:
                    message = wire.said(line, f"{run}-{number}", run, context)
                    tell(status_update(run, context, wire.status("TASK_STATE_WORKING", 0, message)))

            rest = follow(session, run, step, gone, self._link)
            for artifact in artifacts_of(session, rest):
                tell({"artifactUpdate": {"taskId": run, "contextId": context, "artifact": artifact}})
            tell(status_update(run, context, standing_of(rest, context)))

        doing = asyncio.ensure_future(self._link.do(work, client))
        doing.add_done_callback(lambda _: heard.put_nowait(None))
        try:
            while (update := await heard.get()) is not None:
                yield update
            await doing
        finally:
            doing.cancel()

    # --- what a message means -----------------------------------------------------------------------

    async def _meant(self, caller: Caller, asked: wire.Send) -> Callable[[Session], str] | dict[str, Any]:
        """What begins the run that is asked for; or the task as it stands, where there is none to begin."""
        message, wanted = asked.message, asked.configuration
        if wanted.task_push_notification_config is not None:
            raise wire.PushError(
                "nobody is called back from here", hint="SendStreamingMessage tells as it goes"
            )
        if wanted.accepted_output_modes and not _MODES & set(wanted.accepted_output_modes):
            raise wire.ContentTypeError("the results here are application/json")
        if message.task_id:
            return await self._answered(caller, message.task_id)
        text, data = _content(message)
        if not self._runs.take(caller.client):
            raise Busy("too many runs are asked for", hint="wait a little, and ask for less")
        context = message.context_id
        try:
            door, args = _choice(await self._doors(caller), message.metadata.get("skill"), text, data)
        except UsageError as error:
            return self._refuse(caller.client, context, error)

        def begin(session: Session) -> str:
            said = wire.identity_of(message)
            return start(session, caller.client, door, args, via="a2a", context=context or None, message=said)

        return begin

    async def _answered(self, caller: Caller, name: str) -> dict[str, Any]:
        """A word on a task there is. None is taken: what it waits for is a person's, and so is the answer."""
        task = await self._get(caller, name)
        over = task["status"]["state"] not in ("TASK_STATE_WORKING", "TASK_STATE_INPUT_REQUIRED")
        raise wire.UnsupportedError(
            "the task is over" if over else "nothing that is said here is the answer it waits for",
            hint="send a message without taskId to begin another"
            if over
            else "the user decides in Runloop; ask GetTask later",
        )

    def _refuse(self, client: str, context: str, error: RunloopError) -> dict[str, Any]:
        """A task that is refused: on record here alone, because nothing was begun."""
        name = new_run_id()
        words = f"{error.named_code}: {error.message}" + (f"; {error.hint}" if error.hint else "")
        message = wire.said(words, f"{name}-refused", name, context or name)
        standing = wire.status("TASK_STATE_REJECTED", self._clock.now_ms(), message)
        task = {"id": name, "contextId": context or name, "status": standing}
        mine = self._refused.setdefault(client, OrderedDict())
        mine[name] = task
        while len(mine) > _REFUSED:
            mine.popitem(last=False)
        return task

    async def _doors(self, caller: Caller) -> dict[str, Door]:
        """The exposed openings. Tools and the knowledge are the MCP face's."""
        items = tuple(item for item in caller.items if item.startswith("opening:"))
        found = await self._known.of(items, caller.client)
        return {door.name: door for door in found.values() if door.what == "opening"}


# --- which opening ----------------------------------------------------------------------------------


def _content(message: wire.Message) -> tuple[str, dict[str, Any] | None]:
    """The text of a message, and the object among its parts. Raises :class:`wire.A2AError`."""
    texts: list[str] = []
    found: dict[str, Any] | None = None
    for part in message.parts:
        given = [part.text is not None, part.data is not msgspec.UNSET, bool(part.raw), bool(part.url)]
        if sum(given) != 1:
            raise wire.InvalidParamsError("a part is a text or a JSON object, one of them")
        if part.raw or part.url:
            raise wire.ContentTypeError("files are not taken here", hint="send text, or a JSON object")
        if part.text is not None:
            texts.append(part.text)
        elif found is not None or not isinstance(part.data, dict):
            raise wire.InvalidParamsError("a message has one JSON object at most: the parameters")
        else:
            found = part.data
    return "\n".join(texts), found


def _choice(
    known: dict[str, Door], skill: Any, text: str, data: dict[str, Any] | None
) -> tuple[Door, dict[str, Any]]:
    """The skill that is meant and its parameters. Raises :class:`UsageError` where that cannot be told."""
    names = ", ".join(known) or "none"
    if skill is None and len(known) == 1:
        skill = next(iter(known))
    if skill is None:
        raise UsageError("no skill is named", hint=f"say which in metadata.skill: {names}", code="a2a.skill")
    door = known.get(skill) if isinstance(skill, str) else None
    if door is None:
        raise UsageError("there is no such skill here", hint=f"there are: {names}", code="a2a.skill")
    args = dict(data) if data is not None else {}
    if text.strip():
        args[_words_go_to(door, args)] = text
    findings: list[str] = []
    schema: Schema = read_schema(door.schema, findings)
    why = schema.misfit(args)
    if why is not None:
        raise UsageError(f"{door.name}: parameters{why.removeprefix('$')}"[:500], code="a2a.skill")
    return door, args


def _words_go_to(door: Door, args: dict[str, Any]) -> str:
    """The one parameter of an opening that a text can be meant for."""
    texts = [name for name, one in door.schema["properties"].items() if one.get("type") == "string"]
    free = [name for name in door.schema.get("required", ()) if name in texts and name not in args]
    if len(free) == 1:
        return str(free[0])
    raise UsageError(
        f"{door.name}: a text alone does not say which parameter it is",
        hint="send a JSON object with the parameters",
        code="a2a.skill",
    )


def _skill(door: Door) -> dict[str, Any]:
    return {
        "id": door.name,
        "name": door.name.removeprefix("opening_"),
        "description": f"{door.description} Parameters, as JSON Schema: {json.dumps(door.schema)}",
        "tags": ["opening"],
    }

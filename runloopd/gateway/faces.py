"""Control methods for the outside faces: what programs outside may reach, and what they ask for.

A run that is asked for here has a principal of its own, ``face:<client>``, and nobody attends it: whatever
needs a person waits for one in ``rlp`` (attacks.md C9, C10). An editor is ``face:acp:<name>``: there the user
types, and what he wants there is told apart from what he wants in a terminal. What is read here is read with
addresses masked. Knows nothing of a protocol, and does not decide what is exposed to whom.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal

import msgspec

from runloop.caps.policy import Policy
from runloop.errors import ConflictError, NotFoundError, UsageError
from runloop.ids import RunId, asked_run_id
from runloopd.authority.faces import Faces, principal_of
from runloopd.broker.ports import KnowledgePort
from runloopd.broker.toolbox import Offer, ToolSource
from runloopd.bus.principal import Principal
from runloopd.gateway.methods import Nothing, Params, Row, within
from runloopd.runs.service import Runs, Submission

__all__ = ["FaceMethods"]

Items = Annotated[list[str], msgspec.Meta(max_length=256)]
_MAX_HITS = 20
_MAX_DESCRIPTION = 2_000


class Expose(Params, frozen=True, kw_only=True):
    add: Items = []
    remove: Items = []


class OneToken(Params, frozen=True, kw_only=True):
    name: str


class Editor(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where a run was asked for, if the user typed it into an editor."""

    session: Annotated[str, msgspec.Meta(pattern=r"\Ases_[0-9a-f]{1,32}\Z")]
    prompt: Annotated[str, msgspec.Meta(max_length=65_536)]
    cwd: Annotated[str, msgspec.Meta(max_length=4_096)]
    names_files: bool = False
    """Whether the prompt holds names that the user did not type."""


class Message(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a client asked for, if it says so by a message that it may send again."""

    id: Annotated[str, msgspec.Meta(min_length=1, max_length=256)]
    digest: Annotated[str, msgspec.Meta(pattern=r"\A[0-9a-f]{64}\Z")]
    """Of all it says."""


class SubmitFor(Params, frozen=True, kw_only=True):
    client: str
    source: str
    name: str
    path: str | None = None
    params: dict[str, Any] = {}
    openings: dict[str, str] = {}
    via: Literal["mcp", "a2a"] = "mcp"
    context: Annotated[str, msgspec.Meta(max_length=128)] | None = None
    """What the client calls the conversation."""
    message: Message | None = None
    editor: Editor | None = None


class CancelFor(Params, frozen=True, kw_only=True):
    client: str
    run: str
    reason: Annotated[str, msgspec.Meta(max_length=500)] = ""


class ToolsFor(Params, frozen=True, kw_only=True):
    agent: str


class SearchFor(Params, frozen=True, kw_only=True):
    query: Annotated[str, msgspec.Meta(max_length=1_000)]
    k: int = 8
    kinds: list[str] = []


class ReadFor(Params, frozen=True, kw_only=True):
    kind: str
    id: Annotated[str, msgspec.Meta(max_length=1_000)]


class FaceMethods:
    """``face.*``. ``rights``: an agent's policy as it is now; raises for an agent that is not there."""

    def __init__(
        self,
        faces: Faces,
        *,
        runs: Runs,
        knowledge: KnowledgePort,
        sources: Sequence[ToolSource],
        rights: Callable[[str], Policy],
    ) -> None:
        self._faces = faces
        self._runs = runs
        self._knowledge = knowledge
        self._sources = sources
        self._rights = rights

    def rows(self) -> Sequence[Row]:
        """The methods. All need the operator: the program that serves a face is the operator's own."""
        return (
            ("face.state", Nothing, self._state, True),
            ("face.expose", Expose, self._expose, True),
            ("face.issue", OneToken, self._issue, True),
            ("face.revoke", OneToken, self._revoke, True),
            ("face.tools", ToolsFor, self._tools, True),
            ("face.submit", SubmitFor, self._submit, True),
            ("face.cancel", CancelFor, self._cancel, True),
            ("face.search", SearchFor, self._search, True),
            ("face.read", ReadFor, self._read, True),
        )

    async def _state(self, _: Principal, __: Nothing) -> Any:
        tokens = [
            {"name": one.name, "digest": one.digest, "issued_ms": one.issued_ms} for one in self._faces.tokens
        ]
        return {"exposed": list(self._faces.exposed), "tokens": tokens}

    async def _expose(self, principal: Principal, params: Expose) -> Any:
        return {"exposed": list(await self._faces.expose(params.add, params.remove, principal.label))}

    async def _issue(self, principal: Principal, params: OneToken) -> Any:
        return {"name": params.name, "token": await self._faces.issue(params.name, principal.label)}

    async def _revoke(self, principal: Principal, params: OneToken) -> Any:
        await self._faces.revoke(params.name, principal.label)
        return {"name": params.name}

    async def _tools(self, _: Principal, params: ToolsFor) -> Any:
        rights = self._rights(params.agent)
        offers = [offer for source in self._sources for offer in source.offers()]
        return {"tools": [_shown(one) for one in offers if rights.allows("tools", one.name).allowed]}

    async def _submit(self, _: Principal, params: SubmitFor) -> Any:
        # Not the operator: nothing a face starts is on record as the operator's own word.
        name = principal_of(params.client, editor=params.editor is not None)
        outside = Principal(kind="face", name=name)
        wish = Submission(
            source=params.source,
            name=params.name,
            path=params.path,
            params=params.params,
            openings=params.openings,
            origin=_origin(params),
        )
        if params.message is None:
            return {"run": await self._runs.submit(outside, wish)}
        # The same message is the same run, however often it comes and whenever the daemon died.
        run = asked_run_id(name, params.via, params.message.id)
        await self._runs.submit(outside, wish, run=run)
        begun = await self._runs.started(run)
        if begun is None or begun.origin.get("message") != params.message.digest:
            raise ConflictError(
                "another message came under this id before",
                hint="give each message an id of its own; repeat one word for word",
                code="face.message",
            )
        return {"run": run}

    async def _cancel(self, _: Principal, params: CancelFor) -> Any:
        """In the client's own name, and only what was asked for in it."""
        name = principal_of(params.client)
        run = params.run
        if (await self._runs.principal(run)) != name:
            raise NotFoundError(
                "you started no such run", hint="give the id of a run of yours", code="face.run"
            )
        await self._runs.cancel(Principal(kind="face", name=name), RunId(run), params.reason)
        return {"run": run}

    async def _search(self, _: Principal, params: SearchFor) -> Any:
        if not params.query.strip():
            raise UsageError("the query is empty", hint="give some words", code="face.query")
        k = within(params.k, _MAX_HITS)
        return {"items": await self._knowledge.search(params.query, k, params.kinds, raw=False)}

    async def _read(self, _: Principal, params: ReadFor) -> Any:
        return await self._knowledge.read(params.kind, params.id, raw=False)


def _origin(params: SubmitFor) -> dict[str, Any]:
    if params.editor is None:
        said: dict[str, Any] = {"via": params.via, "client": params.client, "interactive": False}
        if params.context is not None:
            said["context"] = params.context
        if params.message is not None:
            said["message"] = params.message.digest
        return said
    return {
        "via": f"acp:{params.editor.session}",
        "client": params.client,
        "prompt": params.editor.prompt,
        "interactive": True,
        "cwd": params.editor.cwd,
        "names_files": params.editor.names_files,
    }


def _shown(offer: Offer) -> dict[str, Any]:
    return {
        "name": offer.name,
        "description": offer.description[:_MAX_DESCRIPTION],
        "input_schema": offer.input_schema,
        "effect": offer.effect,
        "confirm": offer.confirm,
        "source": offer.source,
    }

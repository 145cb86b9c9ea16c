"""A run as a program outside hears of it: started for it, watched until it ends or waits, told in JSON.

Knows: which events count, how much of a result is told. Does not know: MCP. Nothing here decides a question:
whoever asks from outside has no person's authority.
"""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Literal

from rlp.follow import Follower
from rlp.prepare import prepare
from rlp.serving.exposed import Door
from rlp.serving.link import Link
from rlp.session import COMPILE_S, Session
from runloop.errors import ConflictError, NotFoundError, RunloopError, UsageError

__all__ = [
    "Rest",
    "artifact_uri",
    "file_of",
    "follow",
    "read",
    "rest_of",
    "start",
    "take_back",
    "watch",
]

WAIT_S = 0.5
"""Longest silence before it is asked again whether anybody still waits."""
MAX_OUTPUT_CHARS = 256 * 1024
MAX_FILE = 8 * 1024 * 1024
_ERRAND = """\
version: 0
name: errand
params:
  tool: {type: string}
  args: {type: object}
nodes:
  - id: call
    use: agent:AGENT
    with: {tool: "{{params.tool}}", args: "{{params.args}}"}
"""


def start(
    session: Session,
    client: str,
    door: Door,
    args: dict[str, Any],
    *,
    via: Literal["mcp", "a2a"] = "mcp",
    context: str | None = None,
    message: dict[str, str] | None = None,
) -> str:
    """Start what stands behind a door, for ``client``; the run's id. Raises what the checks say.

    ``context``: what the client calls the conversation it belongs to. ``message``: ``{id, digest}`` of the
    message that asks for it; one that comes again is the run that it began.
    """
    if door.what == "tool":
        answer = session.ask(
            "face.submit",
            COMPILE_S,
            client=client,
            via=via,
            source=_ERRAND.replace("AGENT", door.agent),
            name="errand",
            params={"tool": door.target, "args": args},
        )
        return str(answer["run"])
    wish = prepare(session, door.target, args)
    answer = session.ask(
        "face.submit",
        COMPILE_S,
        client=client,
        via=via,
        context=context,
        message=message,
        source=wish.source,
        name=wish.opening.name,
        path=str(wish.path),
        params=wish.params,
        openings=dict(wish.nested),
    )
    return str(answer["run"])


def watch(
    session: Session,
    client: str,
    run: str,
    told: Callable[[int, str], None],
    gone: threading.Event,
    link: Link,
) -> dict[str, Any]:
    """Follow a run until it ends or waits for a person; then how it stands, see :func:`rest_of`.

    ``told`` is given a count and a line for each step. When ``gone`` is set, nobody waits for the answer any
    more: the run is cancelled.
    """
    rest = follow(session, run, told, gone, link)
    if gone.is_set() and not link.stopping and not (rest.over or rest.waits):
        take_back(session, client, run)
    return rest.told()


def follow(
    session: Session,
    run: str,
    told: Callable[[int, str], None],
    gone: threading.Event,
    link: Link,
    *,
    through: bool = False,
) -> Rest:
    """Follow a run until it ends or waits for a person (``through``: not then), or nobody waits any more."""
    follower = Follower(session, run)
    rest = Rest(run)
    steps = 0
    try:
        while True:
            for event in follower.next(WAIT_S):
                rest.take(event)
                if line := _step(event):
                    steps += 1
                    told(steps, line)
            if rest.over or (rest.waits and not through) or gone.is_set() or link.stopping:
                return rest
    finally:
        session.hang_up()  # and with it what was subscribed to


def take_back(session: Session, client: str, run: str) -> None:
    """Have a run of ``client`` cancelled, in its own name; nothing where it ended meanwhile."""
    with suppress(ConflictError):
        session.ask("face.cancel", client=client, run=run, reason="whoever asked for it cancelled")


def rest_of(session: Session, client: str, run: str) -> dict[str, Any]:
    """How a run of ``client`` stands: ``{run, state, ...}``. Raises :class:`NotFoundError` for any other run,
    which for this client does not exist."""
    return read(session, client, run).told()


def read(session: Session, client: str, run: str) -> Rest:
    """The run of ``client`` as it stands. Raises as :func:`rest_of`."""
    unknown = NotFoundError("you started no such run", hint="give the id of a run of yours", code="face.run")
    try:
        first = session.ask("run.events", run=run, limit=1)
    except RunloopError as error:
        raise unknown from error
    begun: dict[str, Any] = first["events"][0] if first["events"] else {"kind": ""}
    # Ledgers of before say mcp: for the same client.
    mine = (f"face:{client}", f"mcp:{client}")
    if begun["kind"] != "run.started" or begun["payload"]["principal"] not in mine:
        raise unknown
    rest = Rest(first["run"])
    try:
        for event in Follower(session, first["run"]).next(0.0):
            rest.take(event)
    finally:
        session.hang_up()  # and with it what was subscribed to
    return rest


def file_of(session: Session, client: str, run: str, name: str) -> tuple[dict[str, Any], bytes]:
    """A file of a run of ``client``, of those its opening saves: its fact and its bytes. Raises
    :class:`NotFoundError` for any other, :class:`UsageError` for one that is too large to be handed out."""
    rest = read(session, client, run)
    one = rest.files.get(name)
    if one is None:
        raise NotFoundError("the run has no such file", hint="its result lists them", code="face.resource")
    if one["size"] > MAX_FILE:
        raise UsageError(
            f"it has {one['size']} bytes, more than are handed out here",
            hint="the user can get it with 'rlp artifact'",
            code="face.too_large",
        )
    return one, rest.content(session, name)


class Rest:
    """One run's events, folded to what is told of them."""

    def __init__(self, run: str) -> None:
        self.run = run
        self.begun = False
        self.at_work = False
        """Whether any of its nodes was begun."""
        self.at = 0
        """Ledger id of the newest event it was told of."""
        self.at_ms = 0
        self.origin: dict[str, Any] = {}
        self.over: dict[str, Any] | None = None
        self._open: dict[str, str] = {}
        """Approval or promise -> what is waited for, in words."""
        self._outputs: dict[str, Any] = {}
        self.files: dict[str, dict[str, Any]] = {}
        """Name -> ``artifact.created`` of what the opening saves. What its agents put away besides, on their
        way there, is nobody's outside."""
        self._of: dict[str, str] = {}
        self._shown: frozenset[str] = frozenset()
        self._saved: frozenset[str] = frozenset()

    @property
    def waits(self) -> bool:
        """Whether a person is needed."""
        return bool(self._open)

    def take(self, event: dict[str, Any]) -> None:
        """Learn from an event, of the run or of one inside it."""
        payload = event["payload"]
        self.at, self.at_ms = event["id"], event["ts_ms"]
        self.at_work = self.at_work or event["kind"] == "node.scheduled"
        match event["kind"]:
            case "run.started" if not self.begun:
                self.begun, self.run, self.origin = True, event["run"], payload["origin"]
                self._saved = _saved(payload["definition"])
                self._shown = self._saved or _last(payload["definition"])
            case "action.requested":
                # Not what it is in words: those name people by their addresses, for the person in rlp.
                self._open[payload["approval"]] = f"a decision on {payload['action'].get('kind') or 'it'}"
                self._of[payload["approval"]] = event["run"]
            case "action.decided":
                self._open.pop(payload["approval"], None)
            case "promise.created" if payload["resolver"] == "operator":
                self._open[payload["promise"]] = "an answer"
                self._of[payload["promise"]] = event["run"]
            case "promise.resolved" | "promise.timed_out":
                self._open.pop(payload["promise"], None)
            case "node.finished" if event["run"] == self.run and payload["status"] == "succeeded":
                for port, value in ((payload.get("output") or {}).get("ports") or {}).items():
                    if payload["node"] in self._shown or f"{payload['node']}.{port}" in self._shown:
                        self._outputs[f"{payload['node']}.{port}"] = value
            case "artifact.created" if event["run"] == self.run and _port(payload) in self._saved:
                self.files[payload["name"]] = payload
            case "run.finished" if event["run"] == self.run:
                self.over = payload
                self._open.clear()
            case "run.finished":
                for name in [name for name, of in self._of.items() if of == event["run"]]:
                    self._open.pop(name, None)

    def content(self, session: Session, name: str) -> bytes:
        """The bytes of one of its files."""
        return base64.b64decode(session.ask("blob.get", digest=self.files[name]["blob"])["base64"])

    def told(self) -> dict[str, Any]:
        """``{run, state, waiting?, outputs?, artifacts?, error?}``; ``state``: ``running``, ``waiting``,
        ``succeeded``, ``failed`` or ``cancelled``."""
        told: dict[str, Any] = {"run": self.run, "state": "running"}
        if self._open:
            told["state"] = "waiting"
            told["waiting"] = [{"for": what[:200], "id": name} for name, what in self._open.items()]
        if self.over is not None:
            told["state"] = self.over["outcome"]
            if error := self.over.get("error"):
                told["error"] = {"code": error.get("code"), "message": self._why()}
            told["outputs"] = self._within()
        if self.files:
            told["artifacts"] = [
                {
                    "name": name,
                    "uri": artifact_uri(self.run, name),
                    "media_type": one["media_type"],
                    "size": one["size"],
                }
                for name, one in self.files.items()
            ]
        return told

    def _why(self) -> str:
        """Not the agent's own words: one that refuses to guess between two people says who they are, and a
        program that may start it has not been given the address book."""
        return f"it failed; whoever owns this Runloop sees why with: rlp trace {self.run[:8]}"

    def _within(self) -> Any:
        if len(json.dumps(self._outputs)) <= MAX_OUTPUT_CHARS:
            return self._outputs
        return {"left_out": "the outputs are too large to be told here; the artifacts have them"}


def _port(artifact: dict[str, Any]) -> str:
    """The port a file was made from; empty for one that an agent put away by itself."""
    return "" if artifact["port"] is None else f"{artifact['node']}.{artifact['port']}"


def _saved(definition: dict[str, Any]) -> frozenset[str]:
    """The ports an opening saves: its result, where it says so."""
    return frozenset(f"{node}.{port}" for node, port in (definition.get("artifacts") or {}).get("save") or ())


def _last(definition: dict[str, Any]) -> frozenset[str]:
    """Its last nodes, whose outputs are the result where it does not. What passes between its nodes is
    nobody's outside."""
    nodes = {str(node["id"]) for node in definition.get("nodes", ())}
    begin = {edge["from"][0] for edge in definition.get("edges", ()) if isinstance(edge.get("from"), list)}
    return frozenset(nodes - begin)


def artifact_uri(run: str, name: str) -> str:
    """Names a file of a run."""
    from urllib.parse import quote

    return f"runloop://run/{run}/artifact/{quote(name, safe='')}"


def _step(event: dict[str, Any]) -> str:
    payload = event["payload"]
    match event["kind"]:
        case "node.scheduled":
            return f"{payload['node']} starts"
        case "node.finished":
            return f"{payload['node']} {payload['status']}"
        case "action.requested":
            return f"{payload['node']} waits for a person"
    return ""

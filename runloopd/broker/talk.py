"""Messages between the agents of a run: a fold of the ledger, and whoever waits to hear the next one.

Knows: what was said in the runs that are not over, who has heard what and how far each stream has come (all
of it from ``message.posted`` and ``hostcall.delivered``, so that it is the same after a restart), who waits.
Does not know: who may say what (``msg_ops``), or what a message means. A message is in the ledger before it
is in here, and so before anybody hears it.

When nobody can speak any more, waiting is over: see :meth:`Talk.stirred`.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, cast

import structlog

from openings.talk import MESSAGE
from runloop import speech
from runloop.clock import Clock
from runloop.errors import RunloopError
from runloop.events import (
    Event,
    HostcallDelivered,
    MessagePosted,
    NodeExpanded,
    RunFinished,
    RunStarted,
)
from runloop.ids import RunId, run_id_to_int
from runloop.rmp import topics
from runloopd.broker.ports import JournalPort
from runloopd.bus.bus import Bus
from runloopd.bus.parts import ComposedFrame
from runloopd.bus.principal import Principal
from runloopd.waiting import first

__all__ = ["Conversation", "Letter", "Post", "RunTalk", "Silence", "Talk", "letter", "told"]

log = structlog.get_logger(__name__)

Silence = Literal["silent", "late"]
"""Why nothing was heard: nobody is left to speak, or the time is over."""

_HEARING = frozenset({"msg.next", "msg.request"})

NodeKind = Literal["agent", "mapped", "opening"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Post:
    """One message as the ledger has it."""

    event: int
    sent_ms: int
    said: MessagePosted
    label: str | None
    """Trust label of what was said."""
    agent: str
    hops: int
    """Turns taken before it in its conversation."""


class Letter(NamedTuple):
    """A message as it crosses the bus, before it has an id and a time."""

    sender: Principal
    topic: str
    payload: dict[str, Any]


def letter(agent: str, run: str, said: MessagePosted, content: Any) -> Letter:
    """What carries a message: a function of the fact, its content and the agent that speaks for the node."""
    return Letter(
        sender=Principal(kind="agent", name=f"agent:{agent}#{run}/{said.node}/{said.attempt}"),
        topic=topics.run_talk(run, said.to),
        payload={"run": run, **told(said, content)},
    )


def told(said: MessagePosted, content: Any) -> dict[str, Any]:
    """A message as its hearers get it, agents and whoever watches the topic alike."""
    return {
        "message": said.message,
        "from": speech.mailbox(said.node),
        "to": said.to,
        "act": said.act,
        "conversation": said.conversation,
        "in_reply_to": said.in_reply_to,
        "reply_by_ms": said.reply_by_ms,
        "content": content,
    }


@dataclass(slots=True)
class Conversation:
    """Who takes part in one, and how deep it is."""

    depths: dict[str, int] = field(default_factory=dict)
    """Node -> hops of the deepest message it said or heard there."""
    spoke: dict[str, int] = field(default_factory=dict)
    """Node -> hops of the deepest message it said there."""

    def follow_up(self, node: str) -> int:
        """Hops of a message of ``node`` that answers none in particular: one turn after the others' last."""
        others = [depth for name, depth in self.spoke.items() if name != node]
        return max(max(others, default=-1) + 1, self.spoke.get(node, 0))


@dataclass(slots=True)
class RunTalk:
    """What was said in one run."""

    run: str
    lineage: str
    definition: Mapping[str, Any]
    posts: dict[str, Post] = field(default_factory=dict)
    """Message id -> message."""
    by_event: dict[int, Post] = field(default_factory=dict)
    sent_to: dict[str, tuple[list[int], list[Post]]] = field(default_factory=dict)
    """Address -> ledger ids and messages, in order."""
    answers: dict[str, list[Post]] = field(default_factory=dict)
    """Message id -> what answers it, in order."""
    conversations: dict[str, Conversation] = field(default_factory=dict)
    heard: dict[str, set[int]] = field(default_factory=dict)
    """Node -> ledger ids of the messages it has heard, in whatever attempt."""
    taken: dict[tuple[str, int], set[int]] = field(default_factory=dict)
    """Node and attempt -> messages it heard as answers to its requests: no stream hands them out again."""
    at: dict[int, int] = field(default_factory=dict)
    """Stream, by the ledger id of the answer that opened it -> ledger id of the last message handed out."""
    given: dict[int, Post] = field(default_factory=dict)
    """Ledger id of an answer to a request -> the message it holds: a later attempt may be given it again."""
    items: dict[str, int] = field(default_factory=dict)
    """Mapped node -> number of its items, once that is known."""
    said_by: dict[str, int] = field(default_factory=dict)
    """Agent -> messages."""
    bytes: int = 0
    """Of all contents."""
    _kinds: dict[str, NodeKind] | None = None

    def node(self, name: str) -> NodeKind | None:
        """What serves a node of the definition; None: there is no such node."""
        if self._kinds is None:
            self._kinds = _kinds(self.definition)
        return self._kinds.get(name)

    def following(self, addresses: Iterable[str], after: int, by: str, attempt: int) -> Post | None:
        """The first message after a place in the ledger to one of the addresses that somebody else sent."""
        taken = self.taken.get((by, attempt), set())
        best: Post | None = None
        for address in addresses:
            events, posts = self.sent_to.get(address, ((), ()))
            for place in range(bisect_right(events, after), len(events)):
                post = posts[place]
                if best is not None and post.event > best.event:
                    break
                if post.said.node != by and post.event not in taken:
                    best = post
                    break
        return best

    def answer(self, message: str, by: str) -> Post | None:
        """The first answer to a message in its sender's mailbox."""
        mine = speech.mailbox(by)
        return next((post for post in self.answers.get(message, ()) if post.said.to == mine), None)

    def add(self, event: Event) -> None:
        """Take in a message."""
        said = cast(MessagePosted, event.payload)
        talk = self.conversations.setdefault(said.conversation, Conversation())
        answered = None if said.in_reply_to is None else self.posts.get(said.in_reply_to)
        post = Post(
            event=event.id,
            sent_ms=event.ts_ms,
            said=said,
            label=event.provenance.label,
            agent=event.provenance.agent or "",
            hops=talk.follow_up(said.node) if answered is None else answered.hops + 1,
        )
        self.posts[said.message] = self.by_event[event.id] = post
        events, posts = self.sent_to.setdefault(said.to, ([], []))
        events.append(event.id)
        posts.append(post)
        if said.in_reply_to is not None:
            self.answers.setdefault(said.in_reply_to, []).append(post)
        for depths in (talk.depths, talk.spoke):
            depths[said.node] = max(depths.get(said.node, 0), post.hops)
        self.said_by[post.agent] = self.said_by.get(post.agent, 0) + 1
        self.bytes += said.size

    def hear(self, event: Event) -> None:
        """An answer with a message in it was given to a guest: its causes say which, and of which stream."""
        call = cast(HostcallDelivered, event.payload)
        found = (self.by_event.get(cause) or self.given.get(cause) for cause in event.provenance.causes)
        heard = next((post for post in found if post is not None and post.said.node != call.node), None)
        if heard is None or not call.ok:
            return
        self.heard.setdefault(call.node, set()).add(heard.event)
        talk = self.conversations[heard.said.conversation]
        talk.depths[call.node] = max(talk.depths.get(call.node, 0), heard.hops)
        if call.op == "msg.request":
            self.taken.setdefault((call.node, call.attempt), set()).add(heard.event)
            self.given[event.id] = heard
        else:
            self.at[event.provenance.causes[1]] = heard.event


def _kinds(definition: Mapping[str, Any]) -> dict[str, NodeKind]:
    nodes = definition.get("nodes")
    found: dict[str, NodeKind] = {}
    for node in nodes if isinstance(nodes, list) else ():
        if not isinstance(node, Mapping):
            continue
        nested = str(node.get("use", "")).startswith("opening:")
        found[str(node.get("id"))] = "opening" if nested else "mapped" if node.get("for_each") else "agent"
    return found


@dataclass(kw_only=True, slots=True, eq=False)
class _Wait:
    run: str
    node: str
    look: Callable[[], Post | None]
    bounded: bool
    """It ends by the clock, and then its node may speak again."""
    stirred: asyncio.Event = field(default_factory=asyncio.Event)
    silent: bool = False


class Talk:
    """Every run's talk. Listens to the journal by itself."""

    def __init__(self, journal: JournalPort, clock: Clock, bus: Bus) -> None:
        self._clock = clock
        self._bus = bus
        self._runs: dict[str, RunTalk] = {}
        self._waits: dict[str, dict[str, set[_Wait]]] = {}
        """Run -> address -> who waits there."""
        self.active: Callable[[str], Collection[str] | None] = lambda run: None
        """Nodes of a run that execute or will execute by themselves; None while that is being decided. Set
        once, by whoever drives runs."""
        journal.listen(self._take)

    def restore(self, events: Iterable[Event]) -> None:
        """Fold the events of unfinished runs, in order: once, before the first call."""
        self._take(events)

    def of(self, run: str) -> RunTalk | None:
        """The talk of a run that is not over."""
        return self._runs.get(run)

    def parked(self) -> frozenset[tuple[str, str]]:
        """Run and node of every guest that waits for a message at this moment."""
        return frozenset((wait.run, wait.node) for run in self._waits for wait in self._waiting(run))

    # --- the bus ----------------------------------------------------------------------------------

    def compose(self, agent: str, run: str, said: MessagePosted, content: Any) -> ComposedFrame:
        """The frame that carries a message: to be stated with it, and then to be carried."""
        one = letter(agent, run, said, content)
        return self._bus.compose(
            one.sender, one.topic, MESSAGE, one.payload, trace_id=run_id_to_int(RunId(run))
        )

    def carry(self, frame: ComposedFrame) -> None:
        """Publish a frame whose message is in the ledger. Whoever only watches may miss it; nobody else."""
        try:
            self._bus.publish(frame)
        except RunloopError as error:
            log.warning("message_frame_dropped", topic=frame.topic, code=error.named_code)

    # --- waiting ----------------------------------------------------------------------------------

    async def hear(
        self,
        run: str,
        node: str,
        addresses: Sequence[str],
        look: Callable[[], Post | None],
        *,
        due_ms: int | None,
    ) -> Post | Silence:
        """The message that ``look`` finds, now or when one comes to the addresses. Safe to cancel."""
        wait = _Wait(run=run, node=node, look=look, bounded=due_ms is not None)
        here = self._waits.setdefault(run, {})
        for address in addresses:
            here.setdefault(address, set()).add(wait)
        try:
            return await self._heard(wait, due_ms)
        finally:
            for address in addresses:
                here[address].discard(wait)
                if not here[address]:
                    del here[address]
            if not here:
                self._waits.pop(run, None)

    async def _heard(self, wait: _Wait, due_ms: int | None) -> Post | Silence:
        while True:
            wait.stirred.clear()
            found = wait.look()
            if found is not None:
                return found
            if wait.run not in self._runs:
                return "silent"
            if due_ms is not None and self._clock.now_ms() >= due_ms:
                # Even where nobody is left to speak: whoever looks in passing is told that there is nothing.
                self.stirred(wait.run)
                return "silent" if wait.silent else "late"
            self.stirred(wait.run)
            if wait.silent:
                return "silent"
            if due_ms is None:
                await wait.stirred.wait()
            else:
                await first(wait.stirred.wait(), self._clock.sleep_until(due_ms))

    def stirred(self, run: str) -> None:
        """Judge whether those who wait may still hear something; called whenever a run comes to rest.

        A wait is over when every other node that is active waits, too, without a time at which it would go
        on, and has nothing to hear; or when no other node is active. Nodes that have not started only start
        when one of these ends, so nobody is cut off.
        """
        waits = self._waiting(run)
        active = self.active(run) if waits else None
        if active is None:
            return
        idle = [wait for wait in waits if wait.look() is None]
        resting = {wait.node for wait in idle if not wait.bounded}
        speaking = set(active) - resting
        for wait in idle:
            others = set(active) - {wait.node} if wait.bounded else speaking
            if not others:
                wait.silent = True
                wait.stirred.set()

    def _waiting(self, run: str) -> set[_Wait]:
        return {wait for waits in self._waits.get(run, {}).values() for wait in waits}

    # --- the fold ---------------------------------------------------------------------------------

    def _take(self, events: Iterable[Event]) -> None:
        for event in events:
            if event.run is None:
                continue
            payload = event.payload
            if isinstance(payload, RunStarted):
                lineage = payload.lineage or event.run
                self._runs[event.run] = RunTalk(event.run, lineage, payload.definition)
            elif (talk := self._runs.get(event.run)) is None:
                continue
            elif isinstance(payload, MessagePosted):
                talk.add(event)
                self._stir(event.run, payload.to)
            elif isinstance(payload, HostcallDelivered) and payload.op in _HEARING:
                talk.hear(event)
            elif isinstance(payload, NodeExpanded):
                talk.items[payload.node] = payload.items
            elif isinstance(payload, RunFinished):
                del self._runs[event.run]
                for wait in self._waiting(event.run):
                    wait.stirred.set()

    def _stir(self, run: str, address: str) -> None:
        for wait in self._waits.get(run, {}).get(address, ()):
            wait.stirred.set()

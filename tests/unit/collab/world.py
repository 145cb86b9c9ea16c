"""Agents of one run in one process: each a thread that goes on only when it is its turn.

What may be said, who has heard what and when nobody can speak any more is judged by the daemon's own fold and
rules (``runloopd.broker.talk``, ``msg_ops``); what is made up here is who goes next and how time passes, and
both come from one seed. So an outcome that depends on luck shows itself, and shows itself again.
"""

from __future__ import annotations

import json
import random
import threading
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any, cast

from openings.talk import posted
from runloop import speech
from runloop.collab import Room
from runloop.errors import RunloopError
from runloop.events import Event, MessagePosted
from runloop.host import Host
from runloop.ops import MsgNext, MsgPublish, MsgReply, MsgRequest, MsgSubscribe, TimeNow, decode_args
from runloopd.broker import msg_ops
from runloopd.broker.talk import Post, RunTalk

Agent = Callable[[Room], Any]
WAIT_S = 20.0
"""Until a test that hangs is called one."""


class _Over(BaseException):
    """The world has ended: whoever is left ends too."""


class _Node:
    def __init__(self, name: str) -> None:
        self.name = name
        self.turn = threading.Event()
        self.over = False
        self.calls = 0
        self.streams: dict[str, tuple[int, list[str]]] = {}
        self.look: Callable[[], Post | None] | None = None
        """Set while it waits."""
        self.due_ms: int | None = None
        self.silent = False
        self.value: Any = None
        self.error: BaseException | None = None


class World:
    """``World(seed).play({"ann": agent, "many[0]": agent})`` -> what each gave, or how it ended."""

    def __init__(self, seed: int = 0, *, topics: tuple[str, ...] = ("talk/all",), step_ms: int = 3) -> None:
        self.random = random.Random(seed)
        self.topics = topics
        self.step_ms = step_ms
        self.now = 1_000_000
        self.nodes: dict[str, _Node] = {}
        self.said: list[MessagePosted] = []
        self.contents: dict[str, Any] = {}
        """Message id -> content."""
        self.delays: dict[str, int] = {}
        """Node -> ms before it begins."""
        self._back = threading.Event()
        self._ended = False
        self._events = 0

    def play(self, agents: Mapping[str, Agent]) -> dict[str, Any]:
        definition = {"nodes": [_defined(name) for name in agents]}
        self.talk = RunTalk("run", "run", definition)
        self._rules = msg_ops.TalkOps.__new__(msg_ops.TalkOps)
        self._rules._clock = cast(Any, SimpleNamespace(now_ms=lambda: self.now))
        began = self.now
        threads = []
        for name, agent in agents.items():
            node = self.nodes[name] = _Node(name)
            if self.delays.get(name):
                node.look, node.due_ms = (lambda: None), began + self.delays[name]
            thread = threading.Thread(target=self._live, args=(node, agent), daemon=True)
            threads.append(thread)
            thread.start()
        try:
            while (chosen := self._next()) is not None:
                self._back.clear()
                chosen.turn.set()
                assert self._back.wait(WAIT_S), f"{chosen.name} hangs"
        finally:
            self._ended = True
            for node in self.nodes.values():
                node.turn.set()
            for thread in threads:
                thread.join(WAIT_S)
        return {name: node.value if node.error is None else node.error for name, node in self.nodes.items()}

    # --- turns ------------------------------------------------------------------------------------

    def _next(self) -> _Node | None:
        """Who goes on. Time passes by chance, and where all wait, up to the first who may stop waiting."""
        self.now += self.random.randint(0, self.step_ms)
        alive = [node for node in self.nodes.values() if not node.over]
        while alive:
            ready = [node for node in alive if self._ready(node)]
            if ready:
                return self.random.choice(ready)
            resting = [node for node in alive if node.due_ms is None]
            if len(resting) == len(alive):
                for node in resting:
                    node.silent = True
            elif len(alive) == 1:
                alive[0].silent = True
            else:
                self.now = max(self.now, min(node.due_ms for node in alive if node.due_ms is not None))
        return None

    def _ready(self, node: _Node) -> bool:
        late = node.due_ms is not None and self.now >= node.due_ms
        return node.look is None or node.silent or late or node.look() is not None

    def _live(self, node: _Node, agent: Agent) -> None:
        try:
            self._wait_for_turn(node)
            node.look = node.due_ms = None
            node.silent = False
            node.value = agent(
                Room(Host(lambda op, text: self._call(node, op, text)), f"node/{node.name}", *self.topics)
            )
        except _Over:
            return
        except BaseException as error:
            node.error = error
        node.over = True
        self._back.set()

    def _wait_for_turn(self, node: _Node) -> None:
        node.turn.wait()
        node.turn.clear()
        if self._ended:
            raise _Over

    def _yield(self, node: _Node) -> None:
        self._back.set()
        self._wait_for_turn(node)

    # --- the gate ---------------------------------------------------------------------------------

    def _call(self, node: _Node, op: str, text: str) -> tuple[bool, str]:
        self._yield(node)
        node.calls += 1
        args = decode_args(op, json.loads(text))
        try:
            return True, json.dumps(self._answer(node, args))
        except RunloopError as error:
            refused = {"code": error.named_code, "message": str(error), "hint": None, "retryable": False}
            return False, json.dumps(refused)

    def _answer(self, node: _Node, args: Any) -> Any:
        if isinstance(args, TimeNow):
            return {"now_ms": self.now}
        if isinstance(args, MsgSubscribe):
            msg_ops._check_topics(args.topics)
            stream = f"s{node.calls}"
            node.streams[stream] = (0, [speech.mailbox(node.name), *args.topics])
            return {"stream": stream}
        if isinstance(args, MsgNext):
            return self._hear(node, args)
        assert isinstance(args, MsgPublish | MsgReply), args
        fact = self._say(node, args)
        return {"message": fact.message, "conversation": fact.conversation}

    def _say(self, node: _Node, args: MsgPublish | MsgReply | MsgRequest) -> MessagePosted:
        named = args.message if isinstance(args, MsgReply) else args.in_reply_to
        answered = None if named is None else msg_ops._heard(self.talk, node.name, named)
        if not isinstance(args, MsgReply):
            msg_ops._check_address(args.to)
            self._rules._judge_conversation(self.talk, node.name, args.conversation, answered)
            assert named is not None or args.act in speech.OPENERS, args
        assert args.act in speech.ACTS
        self._rules._judge_answer(args.act, answered)
        assert not isinstance(args, MsgRequest)
        within = args.reply_within_ms
        fact, _ = posted(
            args,
            lineage="run",
            node=node.name,
            attempt=1,
            call=node.calls,
            earlier=lambda name: self.talk.posts[name].said,
            reply_by_ms=None if within is None else self.now + within,
        )
        msg_ops._check_reachable(self.talk, fact)
        msg_ops._judge_hops(self.talk, fact, answered)
        self._events += 1
        provenance = SimpleNamespace(label=None, agent=node.name)
        event = SimpleNamespace(id=self._events, ts_ms=self.now, payload=fact, provenance=provenance)
        self.talk.add(cast(Event, event))
        self.said.append(fact)
        self.contents[fact.message] = args.content
        return fact

    def _hear(self, node: _Node, args: MsgNext) -> Any:
        after, addresses = node.streams[args.stream]
        node.look = lambda: self.talk.following(addresses, after, node.name, 1)
        node.due_ms = None if args.timeout_ms is None else self.now + args.timeout_ms
        self._yield(node)
        found, late = node.look(), node.due_ms is not None and self.now >= node.due_ms
        silent, node.silent, node.look, node.due_ms = node.silent, False, None, None
        if found is None:
            assert silent or late
            return {"done": True} if silent else {"timed_out": True}
        node.streams[args.stream] = (found.event, addresses)
        self.talk.heard.setdefault(node.name, set()).add(found.event)
        depths = self.talk.conversations[found.said.conversation].depths
        depths[node.name] = max(depths.get(node.name, 0), found.hops)
        said = found.said
        return {
            "item": {
                "message": said.message,
                "from": speech.mailbox(said.node),
                "to": said.to,
                "act": said.act,
                "conversation": said.conversation,
                "in_reply_to": said.in_reply_to,
                "reply_by_ms": said.reply_by_ms,
                "content": self.contents[said.message],
                "sent_ms": found.sent_ms,
            }
        }


def _defined(name: str) -> dict[str, Any]:
    id, _, index = name.partition("[")
    return {"id": id, "use": "agent:x", **({"for_each": {"port": "item"}} if index else {})}

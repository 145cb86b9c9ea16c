"""Ops between agents of one run: say something, listen, ask and wait, answer.

Knows: who may say what to whom, which act may answer which, quotas, and what a guest hears. Does not know:
how messages wait for their hearers (``broker.talk``).

A guest's word on whom it answers counts for nothing: what is answered must be a message of this run, in the
conversation that is named, heard by this very node, and the act must be one that answers it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import msgspec

from openings.talk import message_id, posted
from runloop import speech
from runloop.clock import Clock
from runloop.digest import canonical
from runloop.errors import NotFoundError, RefusedError, UsageError
from runloop.events import MessagePosted, MessageSent
from runloop.ops import MsgNext, MsgPublish, MsgReply, MsgRequest, MsgSubscribe
from runloop.spelling import did_you_mean
from runloopd.broker.asks import Ask, Done, Handler, require
from runloopd.broker.effects import admitted, bounded, draft
from runloopd.broker.labels import lowest
from runloopd.broker.ports import BlobPort, JournalPort
from runloopd.broker.quotas import Quotas, check
from runloopd.broker.talk import Post, RunTalk, Talk, told
from runloopd.bus.parts import ComposedFrame

__all__ = ["MAX_RUN_BYTES", "MAX_RUN_MESSAGES", "TalkOps", "judge"]

MAX_RUN_MESSAGES = 100_000
"""Of all agents of one run together; each agent has its quota, too."""
MAX_RUN_BYTES = 128 * 1024 * 1024
"""Of all contents in one run."""
MAX_WAIT_MS = 86_400_000

Speaking = MsgPublish | MsgRequest | MsgReply


def judge(ask: Ask) -> None:
    """What is refused without looking at anything that was said; raises."""
    args = ask.args
    if isinstance(args, MsgSubscribe):
        _check_topics(args.topics)
        _may_hear(ask, args.topics)
        return
    assert isinstance(args, Speaking)
    if isinstance(args, MsgReply):
        require(ask, "talk", "")  # to whom it goes is known once the answered message is
    else:
        _check_address(args.to)
        require(ask, "talk", args.to)
    if args.act not in speech.ACTS:
        meant = did_you_mean(args.act, speech.ACTS, "")
        raise UsageError(
            f"{args.act[:80]!r} is no speech act" + (f"; {meant}" if meant else ""),
            hint=f"one of {', '.join(speech.ACTS)}",
            code="msg.act",
        )
    within_ms = args.timeout_ms if isinstance(args, MsgRequest) else args.reply_within_ms
    if within_ms is not None and not 1 <= within_ms <= MAX_WAIT_MS:
        raise UsageError(
            f"{ask.op.name}: an answer within {within_ms} ms, not 1 to {MAX_WAIT_MS}", code="op.args"
        )
    if len(canonical(args.content)) > speech.MAX_CONTENT_BYTES:
        raise UsageError(
            f"the content has more than {speech.MAX_CONTENT_BYTES} bytes",
            hint="keep it with artifact.put and send the digest",
            code="msg.size",
        )
    if not isinstance(args, MsgReply) and args.in_reply_to is None and args.act not in speech.OPENERS:
        raise RefusedError(
            f"{args.act} answers something, and this message names nothing that it answers",
            hint=f"use msg.reply; a conversation begins with {', '.join(sorted(speech.OPENERS))}",
            code="msg.act",
        )


class TalkOps:
    """``msg.publish|subscribe|request|reply``, and ``msg.next`` where it reads messages."""

    def __init__(
        self,
        *,
        talk: Talk,
        journal: JournalPort,
        blobs: BlobPort,
        clock: Clock,
        quotas: Quotas,
        model_next: Handler,
    ) -> None:
        """``model_next`` reads the streams of models."""
        self._talk = talk
        self._journal = journal
        self._blobs = blobs
        self._clock = clock
        self._quotas = quotas
        self._model_next = model_next

    # --- saying -----------------------------------------------------------------------------------

    async def publish(self, ask: Ask) -> Done:
        """``{message, conversation}``; also ``msg.reply``. Said, and on record, in one transaction."""
        judge(ask)
        args = cast(MsgPublish | MsgReply, ask.args)
        said, content, frame = self._composed(ask, args, args.reply_within_ms)
        return Done(
            value={"message": said.message, "conversation": said.conversation},
            facts=[_sent(said, frame), said],
            blobs=[content],
            causes=self._causes(ask, said),
            label=f"agent:{ask.agent}",
            recorded=lambda: self._talk.carry(frame),
        )

    async def request(self, ask: Ask) -> Done:
        """The first answer, as ``item`` of ``msg.next``.

        Asked again after a crash or a retry, the question that is open, or its answer, is found again.
        """
        judge(ask)
        args = cast(MsgRequest, ask.args)
        question = self._asked_before(ask) or await self._ask(ask, args)
        talk, me = self._run(ask), ask.caller.node
        found = await bounded(
            self._talk.hear(
                ask.caller.run,
                me,
                [speech.mailbox(me)],
                lambda: talk.answer(question.said.message, me),
                due_ms=question.said.reply_by_ms,
            ),
            self._clock,
            due_ms=None,
            abandoned=ask.abandoned,
        )
        if isinstance(found, Post):
            return await self._handed(found, causes=(question.event, found.event), bare=True)
        if found == "silent":
            gone = RefusedError(f"nobody is left in this run to answer {args.to}", code="msg.nobody")
            return Done.failed(gone, causes=(question.event,))
        late = RefusedError(f"{args.to} did not answer within {args.timeout_ms} ms", code="msg.timed_out")
        return Done.failed(late, causes=(question.event,))

    # --- hearing ----------------------------------------------------------------------------------

    async def subscribe(self, ask: Ask) -> Done:
        """``{stream}``: nothing but a name for what the record already says of this call."""
        judge(ask)
        return Done(value={"stream": f"s{ask.call.index}"})

    async def next(self, ask: Ask) -> Done:
        """``{item}``, ``{timed_out: true}`` or ``{done: true}``."""
        args = cast(MsgNext, ask.args)
        attempt = ask.run.attempt(ask.caller.node, ask.caller.attempt)
        digits = args.stream[1:]
        number = int(digits) if args.stream[:1] == "s" and digits.isascii() and digits.isdigit() else -1
        source = attempt.calls.get(number)
        if source is None or source.op != "msg.subscribe" or not source.ok or number >= ask.call.index:
            return await self._model_next(ask)
        if args.timeout_ms is not None and not 0 <= args.timeout_ms <= MAX_WAIT_MS:
            raise UsageError(
                f"msg.next: timeout_ms is {args.timeout_ms}, not 0 to {MAX_WAIT_MS}", code="op.args"
            )
        opened = msgspec.json.decode(await self._blobs.blob(source.args_digest), type=MsgSubscribe)
        _may_hear(ask, opened.topics)
        talk, me = self._run(ask), ask.caller
        addresses = [speech.mailbox(me.node), *opened.topics]
        after = talk.at.get(source.event, 0)
        found = await self._talk.hear(
            me.run,
            me.node,
            addresses,
            lambda: talk.following(addresses, after, me.node, me.attempt),
            due_ms=None if args.timeout_ms is None else self._clock.now_ms() + args.timeout_ms,
        )
        if isinstance(found, Post):
            return await self._handed(found, causes=(source.event, found.event))
        return Done(value={"timed_out" if found == "late" else "done": True}, causes=(source.event,))

    async def _handed(self, post: Post, *, causes: tuple[int, ...], bare: bool = False) -> Done:
        """What a guest hears of a message: from the ledger, and as untrusted as its sender's words were."""
        content = msgspec.json.decode(await self._blobs.blob(post.said.content_blob))
        item = {**told(post.said, content), "sent_ms": post.sent_ms}
        return Done(value=item if bare else {"item": item}, causes=causes, label=post.label)

    # --- asking -----------------------------------------------------------------------------------

    def _asked_before(self, ask: Ask) -> Post | None:
        """The question of this very call that is on record without an answer to the call."""
        effect = ask.run.effects.get(ask.key)
        if effect is None or effect.delivered is not None:
            return None
        talk = self._run(ask)
        question = talk.posts.get(message_id(talk.lineage, *effect.place))
        if question is None:
            return None
        mine = effect.place == (ask.caller.node, ask.caller.attempt, ask.call.index)
        by = question.said.reply_by_ms
        open_still = by is not None and self._clock.now_ms() < by
        answered = talk.answer(question.said.message, ask.caller.node) is not None
        return question if mine or open_still or answered else None

    async def _ask(self, ask: Ask, args: MsgRequest) -> Post:
        """State the question and let it cross the bus; the answer to the call comes later."""
        said, content, frame = self._composed(ask, args, args.timeout_ms)
        causes = self._causes(ask, said)
        label = lowest(f"agent:{ask.agent}", ask.run.floor)
        ask.check()
        drafts = [
            admitted(ask),
            draft(ask, _sent(said, frame), causes=causes),
            msgspec.structs.replace(draft(ask, said, causes=causes, label=label), actor=f"agent:{ask.agent}"),
        ]
        await self._journal.append(*drafts, blobs=(ask.args_blob, content))
        self._talk.carry(frame)
        return self._run(ask).posts[said.message]

    # --- judging ----------------------------------------------------------------------------------

    def _composed(
        self, ask: Ask, args: Speaking, within_ms: int | None
    ) -> tuple[MessagePosted, bytes, ComposedFrame]:
        """The fact, the bytes of its content and its frame; raises where it may not be said."""
        talk, caller = self._run(ask), ask.caller
        named = args.message if isinstance(args, MsgReply) else args.in_reply_to
        answered = None if named is None else _heard(talk, caller.node, named)
        if isinstance(args, MsgReply):
            assert answered is not None
            require(ask, "talk", speech.mailbox(answered.said.node))
        else:
            self._judge_conversation(talk, caller.node, args.conversation, answered)
        self._judge_answer(args.act, answered)
        now = self._clock.now_ms()
        said, content = posted(
            args,
            lineage=talk.lineage,
            node=caller.node,
            attempt=caller.attempt,
            call=ask.call.index,
            earlier=lambda name: talk.posts[name].said,
            reply_by_ms=None if within_ms is None else now + within_ms,
        )
        _check_reachable(talk, said)
        _judge_hops(talk, said, answered)
        self._limit(ask, talk, said)
        return said, content, self._talk.compose(ask.agent, caller.run, said, args.content)

    def _judge_conversation(
        self, talk: RunTalk, node: str, conversation: str | None, answered: Post | None
    ) -> None:
        if conversation is None:
            return
        if answered is not None:
            if answered.said.conversation != conversation:
                raise RefusedError(
                    f"{answered.said.message} is not of the conversation {conversation[:80]!r}",
                    hint=f"leave 'conversation' out: it is {answered.said.conversation}",
                    code="msg.conversation",
                )
            return
        known = talk.conversations.get(conversation)
        if known is None or node not in known.depths:
            raise RefusedError(
                f"this node has no part in a conversation {conversation[:80]!r}",
                hint="leave 'conversation' out to begin one, or answer a message of it",
                code="msg.conversation",
            )

    def _judge_answer(self, act: str, answered: Post | None) -> None:
        if answered is None:
            return
        if not speech.may_answer(act, answered.said.act):
            raise RefusedError(
                f"{act} is no answer to {answered.said.act}",
                hint=f"that is answered by {', '.join(sorted(speech.ANSWERS[answered.said.act]))}",
                code="msg.act",
            )
        by = answered.said.reply_by_ms
        if by is not None and self._clock.now_ms() > by:
            raise RefusedError(
                f"the answer to {answered.said.message} was due {self._clock.now_ms() - by} ms ago",
                code="msg.late",
            )

    def _limit(self, ask: Ask, talk: RunTalk, said: MessagePosted) -> None:
        """Raises :class:`QuotaError`, which ends the attempt, or says that the run has talked enough."""
        if len(talk.posts) >= MAX_RUN_MESSAGES or talk.bytes + said.size > MAX_RUN_BYTES:
            raise RefusedError(
                f"this run has said {len(talk.posts)} messages with {talk.bytes} bytes; at most "
                f"{MAX_RUN_MESSAGES} and {MAX_RUN_BYTES} are taken",
                code="msg.full",
            )
        limits = ask.run.limits.get(ask.agent) or self._quotas.of(ask.agent)
        warned = ask.run.warned_agent(ask.agent)
        used = talk.said_by.get(ask.agent, 0)
        ask.facts += check("messages", used, 1, limits["messages"], agent=ask.agent, warned=warned)

    def _causes(self, ask: Ask, said: MessagePosted) -> tuple[int, ...]:
        answered = None if said.in_reply_to is None else self._run(ask).posts[said.in_reply_to]
        return (*ask.known, *(() if answered is None else (answered.event,)))

    def _run(self, ask: Ask) -> RunTalk:
        talk = self._talk.of(ask.caller.run)
        if talk is None:
            raise RefusedError("the run is over", code="gate.no_run")
        return talk


def _may_hear(ask: Ask, topics: Sequence[str]) -> None:
    """A node's own mailbox is part of any right to talk; a topic is named."""
    require(ask, "talk", "")
    for topic in topics:
        require(ask, "talk", topic)


def _heard(talk: RunTalk, node: str, name: str) -> Post:
    """The message that is answered, if this node heard it; of others it does not learn that they exist."""
    post = talk.posts.get(name)
    if post is None or post.event not in talk.heard.get(node, ()):
        raise NotFoundError(
            f"this node has heard no message {name[:80]!r}",
            hint="answer what msg.next or msg.request gave",
            code="msg.unheard",
        )
    return post


def _judge_hops(talk: RunTalk, said: MessagePosted, answered: Post | None) -> None:
    known = talk.conversations.get(said.conversation)
    follow_up = 0 if known is None else known.follow_up(said.node)
    hops = follow_up if answered is None else answered.hops + 1
    if hops > speech.MAX_HOPS:
        raise RefusedError(
            f"the conversation {said.conversation} is {speech.MAX_HOPS} answers deep; it ends here",
            hint="come to an end sooner, or begin another conversation",
            code="msg.hops",
        )


def _check_address(to: str) -> None:
    if not speech.is_address(to):
        raise UsageError(
            f"{to[:80]!r} is no address",
            hint="node/<id>, node/<id>[<index>] for one item of a mapped node, or talk/<name>",
            code="msg.address",
        )


def _check_topics(topics: Sequence[str]) -> None:
    if len(topics) > speech.MAX_TOPICS or len(set(topics)) != len(topics):
        raise UsageError(
            f"msg.subscribe: at most {speech.MAX_TOPICS} topics, each of them once", code="op.args"
        )
    for topic in topics:
        if not speech.is_topic(topic):
            raise UsageError(
                f"{topic[:80]!r} is no topic",
                hint="talk/<name>; a node's own mailbox is always part of the stream",
                code="msg.address",
            )


def _check_reachable(talk: RunTalk, said: MessagePosted) -> None:
    """Whether somebody can ever hear it there, by the definition of the run."""
    place = speech.node_of(said.to)
    if place is None:
        return
    name, index = place
    kind = talk.node(name)
    why = hint = None
    if said.to == speech.mailbox(said.node):
        why = "that is this node itself"
    elif kind is None:
        why = f"the opening has no node {name}"
    elif kind == "opening":
        why = f"node {name} is an opening, whose agents talk among themselves"
    elif kind == "mapped" and index is None:
        why, hint = f"node {name} maps over a list", f"name one item, such as node/{name}[0], or a topic"
    elif kind == "agent" and index is not None:
        why, hint = f"node {name} maps over no list", f"node/{name}"
    elif index is not None and index >= talk.items.get(name, index + 1):
        why = f"node {name} has {talk.items[name]} items"
    if why is not None:
        raise NotFoundError(f"nobody hears {said.to}: {why}", hint=hint, code="msg.unknown")


def _sent(said: MessagePosted, frame: ComposedFrame) -> MessageSent:
    return MessageSent(
        sender=frame.principal.label,
        receiver=said.to,
        topic=frame.topic,
        type=frame.type,
        schema_id=frame.schema_id,
        msg_id=frame.msg_id,
        size=frame.size,
        body_digest=frame.body_digest,
        node=said.node,
        attempt=said.attempt,
    )

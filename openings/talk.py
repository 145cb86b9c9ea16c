"""What a message between agents of a run is, as a function of the call that said it.

Knows: how its id is drawn, to whom an answer goes, which conversation it belongs to. Does not know: whether
it may be said (the daemon's ``broker.msg_ops``), or time: until when an answer counts is given. The daemon
states what :func:`posted` makes, and a replay compares the record with what it makes again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from openings.errors import EngineError
from runloop import speech
from runloop.digest import blob_digest, canonical, digest
from runloop.events import MessagePosted
from runloop.ops import Args, MsgPublish, MsgReply, MsgRequest

__all__ = ["MESSAGE", "SPEAKING", "message_id", "posted"]

MESSAGE = "observation.agent.message.v1"
"""Type of the frames that carry messages."""

SPEAKING: Mapping[str, type[Args]] = {
    "msg.publish": MsgPublish,
    "msg.reply": MsgReply,
    "msg.request": MsgRequest,
}
"""Host calls that say something, with their arguments."""


def message_id(lineage: str, node: str, attempt: int, call: int) -> str:
    """``msg_`` and 16 hex digits: of one call always the same, in a replay and in a fork that repeats it.

    ``lineage`` is the run, or the one it was forked from.
    """
    return f"msg_{digest(['message', lineage, node, attempt, call])[:16]}"


def posted(
    args: Args,
    *,
    lineage: str,
    node: str,
    attempt: int,
    call: int,
    earlier: Callable[[str], MessagePosted | None],
    reply_by_ms: int | None,
) -> tuple[MessagePosted, bytes]:
    """The fact that this call states, and the bytes of its content.

    ``earlier`` finds a message of the run by its id. Raises :class:`EngineError` where the answered one is
    not there, :class:`runloop.errors.UsageError` for content that is no JSON.
    """
    assert isinstance(args, MsgPublish | MsgRequest | MsgReply)
    own = message_id(lineage, node, attempt, call)
    named = args.message if isinstance(args, MsgReply) else args.in_reply_to
    answered = None if named is None else earlier(named)
    if named is not None and answered is None:
        raise EngineError(f"this run has no message {named[:80]!r}", code="msg.unheard")
    if isinstance(args, MsgReply):
        assert answered is not None
        to, conversation = speech.mailbox(answered.node), answered.conversation
    else:
        to = args.to
        conversation = args.conversation or (own if answered is None else answered.conversation)
    content = canonical(args.content)
    fact = MessagePosted(
        node=node,
        attempt=attempt,
        message=own,
        to=to,
        act=args.act,
        conversation=conversation,
        in_reply_to=None if answered is None else answered.message,
        reply_by_ms=reply_by_ms,
        content_digest=blob_digest(content),
        content_blob=blob_digest(content),
        size=len(content),
    )
    return fact, content

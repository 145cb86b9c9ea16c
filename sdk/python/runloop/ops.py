"""Host calls: the closed table of everything a guest can ask of the world.

Each op has an argument type (closed: unknown fields are refused), an effect class, and the capability that
must be held. The gate walks this table; nothing that is not in it can be called.

Effect classes, weakest first:

``pure``      sees nothing of the user's (clock, random, log); recorded once.
``read``      reads the user's knowledge or files, or the web; recorded once.
``write``     changes Runloop's own state, or a granted file; recorded as admitted and delivered.
``spend``     may cost money; as ``write``, under a budget reserved before and reconciled after.
``send``      leaves the machine or cannot be undone; as ``write``, and only after a person approved.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import msgspec

from runloop.errors import UsageError

__all__ = ["OPS", "Effect", "Op", "decode_args"]

Effect = Literal["pure", "read", "write", "spend", "send"]


class Args(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of every argument type."""


class TimeNow(Args, frozen=True, kw_only=True):
    """The time, recorded so that a replay sees the same. Answer: ``{now_ms}``."""


class RandomBytes(Args, frozen=True, kw_only=True):
    """Random bytes, recorded so that a replay sees the same. Answer: ``{base64}``."""

    n: int
    """1 to 65 536."""


class LogWrite(Args, frozen=True, kw_only=True):
    """One log line of the run; its text is on record as the arguments of the call. Answer: ``{}``."""

    message: str
    level: Literal["debug", "info", "warning", "error"] = "info"
    fields: dict[str, Any] = {}


class Progress(Args, frozen=True, kw_only=True):
    """Tell the person watching. Answer: ``{}``."""

    message: str
    fraction: float | None = None
    """0 to 1, or unknown."""


class KbQuery(Args, frozen=True, kw_only=True):
    """One SELECT; only the tables of granted domains exist. Answer: ``{columns, rows, truncated}``."""

    sql: str
    params: list[Any] = []
    limit: int = 200


class KbSearch(Args, frozen=True, kw_only=True):
    """Full-text search. Answer: ``{items: [{kind, id, title, snippet, score, event}]}``."""

    query: str
    k: int = 8
    kinds: list[Literal["contact", "note", "mail", "record", "event"]] = []
    """Empty means all."""


class KbRead(Args, frozen=True, kw_only=True):
    """One whole contact, document or calendar event. Answer: ``{item}``."""

    kind: Literal["contact", "document", "event"]
    id: str


class KbWhy(Args, frozen=True, kw_only=True):
    """Where a thing came from; needs the domain ``history``. Answer: the graph of causes."""

    ref: str


class KbPropose(Args, frozen=True, kw_only=True):
    """State a contact or a document of the agent's own; never replaces another's. Answer: ``{kind, id}``."""

    kind: str
    payload: dict[str, Any]


class MemoryGet(Args, frozen=True, kw_only=True):
    """An agent's durable memory. Answer: ``{value, version}``; version 0 was never written."""

    key: str
    namespace: str = "private"
    """``private`` is the agent's own; ``shared:<name>`` (``shared``: ``shared:all``) needs the capability
    ``memory``."""


class MemoryList(Args, frozen=True, kw_only=True):
    """Keys of a namespace, sorted. Answer: ``{keys: [{key, version, size}], truncated}``."""

    namespace: str = "private"
    prefix: str = ""
    after: str = ""
    """Only keys after this one: the last one of the page before."""
    limit: int = 200
    """1 to 1 000."""


class MemoryPut(Args, frozen=True, kw_only=True):
    """Write durable memory; a version that was overtaken is refused. Answer: ``{version}``."""

    key: str
    value: Any
    namespace: str = "private"
    expected_version: int | None = None
    """None writes whatever was there; a number must be the version last read (0: must not exist)."""


class MemoryDelete(Args, frozen=True, kw_only=True):
    """Forget a key; versions go on counting. Answer: ``{version}``; 0 where nothing was."""

    key: str
    namespace: str = "private"
    expected_version: int | None = None


class PromiseCreate(Args, frozen=True, kw_only=True):
    """Promise that something will be said later, once. Answer: ``{promise, expires_ms}``."""

    timeout_ms: int
    """1 to 31 622 400 000 (366 days): when nobody has resolved it by then, it times out."""
    question: str = ""
    """What a person is asked, when a person is to answer."""
    choices: list[str] = []
    """The only values that may be said; empty: any JSON."""
    resolver: Literal["run", "operator"] = "run"
    """Agents of the same run and the operator, or the operator alone."""


class PromiseAwait(Args, frozen=True, kw_only=True):
    """Wait until a promise of this run is resolved. Answer: ``{value, by}``; late: ``promise.timed_out``."""

    promise: str


class PromiseResolve(Args, frozen=True, kw_only=True):
    """Say what was promised; whoever comes second is refused. Answer: ``{promise}``."""

    promise: str
    value: Any


class InputAsk(Args, frozen=True, kw_only=True):
    """Ask a person and wait: a promise that only the operator resolves. Answer: ``{value, by}``."""

    question: str
    choices: list[str] = []
    timeout_ms: int = 604_800_000


class BlobRead(Args, frozen=True, kw_only=True):
    """Part of an artifact of the same run. Answer: ``{base64, offset, size, eof}``."""

    digest: str
    offset: int = 0
    length: int = 65_536


class ArtifactPut(Args, frozen=True, kw_only=True):
    """Keep a file this run produced: either ``text`` or ``base64``. Answer: ``{name, digest, size}``."""

    name: str
    media_type: str = "text/plain; charset=utf-8"
    text: str | None = None
    base64: str | None = None


class ModelTool(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A function a model may ask for; it is the agent that calls it, or does not."""

    name: str
    """``[A-Za-z0-9_-]{1,64}``: what every provider takes."""
    description: str = ""
    parameters: dict[str, Any] = {}
    """JSON Schema of an object."""


class ModelToolCall(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A function a model asked for, in an earlier answer that is part of the conversation now."""

    id: str
    name: str
    arguments: dict[str, Any] = {}


class ModelMessage(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    role: Literal["system", "user", "assistant", "tool"]
    content: str
    tool_calls: list[ModelToolCall] = []
    """Of an ``assistant`` message: what it asked for."""
    tool_call_id: str | None = None
    """Of a ``tool`` message: which call it answers."""


class ModelComplete(Args, frozen=True, kw_only=True):
    """Ask a model, within the run's budget. Answer: ``{text, provider, model, generated, finish, …}``."""

    messages: list[ModelMessage]
    model: str | None = None
    """A pattern from policy; None lets the route decide."""
    max_tokens: int = 1024
    temperature: float = 0.0
    json_schema: dict[str, Any] | None = None
    """When given, the answer's text is JSON that fits it."""
    template: str | None = None
    """What the offline rules provider fills in: ``{{name}}`` from ``facts``."""
    facts: dict[str, Any] = {}
    stream: bool = False
    """True: the answer is ``{stream: handle}``; read it with ``msg.next``."""
    tools: list[ModelTool] = []
    """At most 128. What the model asks for is ``tool_calls: [{id, name, arguments}]`` of the answer, each
    with arguments that are an object; a call that is not one is ``{id, name, malformed: <text>}``."""
    tool_choice: Literal["auto", "none", "required"] = "auto"


class ModelEmbed(Args, frozen=True, kw_only=True):
    """Turn texts into vectors, within the run's budget. Answer: ``{vectors, embedder, dimensions, …}``.

    A vector is a list of whole numbers from -127 to 127. Only vectors of one ``embedder`` may be compared.
    """

    texts: list[str]
    """1 to 64, at most 262 144 bytes in all."""
    model: str | None = None
    """A pattern; None: a local model where one is configured, else ``lexical:lexical-1``: words only."""


class MsgPublish(Args, frozen=True, kw_only=True):
    """Say something to others of the same run; it is on record. Answer: ``{message, conversation}``."""

    to: str
    """``node/<id>`` or ``talk/<name>``; ``node/<id>[<index>]`` is one item of a mapped node."""
    content: Any
    """Any JSON, at most 262 144 bytes."""
    act: str = "inform"
    """One of ``runloop.speech.ACTS``."""
    conversation: str | None = None
    """None: this message begins one."""
    in_reply_to: str | None = None
    """A message of that conversation which this node heard."""
    reply_within_ms: int | None = None


class MsgSubscribe(Args, frozen=True, kw_only=True):
    """Listen to topics of the run, from its first message on. Answer: ``{stream}``; read with ``msg.next``.

    The node's own mailbox is always part of it.
    """

    topics: list[str] = []
    """``talk/<name>``, at most 32."""


class MsgRequest(Args, frozen=True, kw_only=True):
    """Say something and wait for the answer. Answer: as ``item`` of ``msg.next``; late: ``msg.timed_out``."""

    to: str
    content: Any
    act: str = "request"
    conversation: str | None = None
    in_reply_to: str | None = None
    timeout_ms: int = 30_000
    """1 to 86 400 000."""


class MsgReply(Args, frozen=True, kw_only=True):
    """Answer a message that this node heard. Answer: ``{message, conversation}``."""

    message: str
    content: Any
    act: str = "inform"
    reply_within_ms: int | None = None


class MsgNext(Args, frozen=True, kw_only=True):
    """The next piece of a stream. Answer: ``{item}``, at the end ``{done: true}``.

    Of messages ``item`` is ``{message, from, to, act, conversation, in_reply_to, reply_by_ms, content,
    sent_ms}``; a wait that was too long is ``{timed_out: true}``; the end is when nobody is left to speak.
    """

    stream: str
    timeout_ms: int | None = None
    """Longest wait for a message: 0 to 86 400 000; None: as long as somebody may still speak."""


class HttpFetch(Args, frozen=True, kw_only=True):
    """Read from a web server. Answer: ``{status, url, headers, text|base64, size, truncated}``.

    Any status is an answer. GET and HEAD are served; what changes something elsewhere is refused.
    """

    url: str
    method: str = "GET"
    headers: dict[str, str] = {}
    """None that names a host, frames the message or carries cookies."""
    text: str | None = None
    """The body, for a method that has one; or ``base64``."""
    base64: str | None = None
    max_bytes: int = 262_144
    """1 to 4 194 304; what the unpacked body has beyond is cut off (``truncated``)."""


class FsRead(Args, frozen=True, kw_only=True):
    """Part of a file below a granted directory. Answer: ``{text|base64, offset, size, eof, digest}``.

    ``text`` when the bytes are UTF-8, else ``base64``; ``digest`` is the BLAKE3 of these bytes.
    """

    path: str
    """Absolute and written out: no ``.``, no ``..``, no link on the way."""
    offset: int = 0
    length: int = 65_536
    """1 to 1 048 576 bytes."""


class FsWrite(Args, frozen=True, kw_only=True):
    """Replace a file, or make one, whole or not at all. Answer: ``{digest, size}``."""

    path: str
    """Absolute and written out; the directory exists, and what is replaced is a regular file."""
    text: str | None = None
    """At most 4 194 304 bytes; or ``base64``."""
    base64: str | None = None
    expected: str | None = None
    """The digest the file must have now; empty: it must not exist; None: whatever is there is replaced."""


class FsList(Args, frozen=True, kw_only=True):
    """Names in a directory, sorted by bytes. Answer: ``{entries: [{name, kind, size}], truncated, skipped}``.

    ``kind`` is file, dir, symlink or other; ``skipped`` counts names that are no text.
    """

    path: str
    after: str = ""
    """Only names after this one: the last one of the page before."""
    limit: int = 1_000
    """1 to 1 000."""


class FsStat(Args, frozen=True, kw_only=True):
    """What a path is. Answer: ``{kind, size, mtime_ms}``, for a file ``digest``, too, when asked for."""

    path: str
    digest: bool = False
    """True: with the BLAKE3 of the file, which has at most 4 194 304 bytes."""


class ToolList(Args, frozen=True, kw_only=True):
    """The agent's own tools, and those it may call of the host and of MCP servers (capability ``tools``).

    Answer: ``{tools: [{id, description, kind, source, effect, input_schema, granted, missing, …}]}``.
    """


class ToolCall(Args, frozen=True, kw_only=True):
    """Call a tool; each names the capabilities it needs. Answer: ``{result}``.

    What it is on record as is the tool's matter: ``read``, ``write``, or ``send``, which a person approves.
    """

    tool: str
    args: dict[str, Any] = {}
    """Fit the tool's ``input_schema``; the result fits its ``result_schema``."""


class SecretUse(Args, frozen=True, kw_only=True):
    """A stand-in for a secret, never the secret. Answer: ``{reference}``.

    Where it is the value of a header of ``http.fetch``, or stands after ``Bearer ``, ``Basic ``, ``Token ``,
    the host puts the secret in its place, towards destinations the operator bound it to, nowhere else.
    """

    name: str
    """``runloop/<scope>/<name>``."""


class AgentDelegate(Args, frozen=True, kw_only=True):
    """Have another agent, or a shipped opening, do something. Answer: ``{run, ports}``.

    It is a run of its own inside the caller's, with no more rights than the caller has. When it fails or is
    denied, so is the call (``delegate.failed``); one that takes too long is ended (``delegate.timed_out``).
    """

    use: str
    """``agent:<name>`` (or ``@variant``, ``@version``) or ``opening:<name>``."""
    params: dict[str, Any] = {}
    """What the agent gets as ``with``, the opening as its parameters."""
    caps: dict[str, Any] | None = None
    """The only rights it may have, as ``policy.caps`` says them; each must be the caller's own. None: all the
    caller has."""
    budget_micro_usd: int | None = None
    """Most it may spend, within what the caller's run has left."""
    budget_tokens: int | None = None
    timeout_ms: int = 600_000
    """1 000 to 86 400 000; the time a person takes counts."""


class MailSend(Args, frozen=True, kw_only=True):
    """Send a mail, once a person approved its bytes. Answer: ``{status, message_id, recipients, …}``."""

    to: list[str]
    subject: str
    body: str
    cc: list[str] = []
    bcc: list[str] = []
    in_reply_to: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Op:
    """One row of the table."""

    name: str
    args: type[Args]
    effect: Effect
    capability: str | None
    """Key of ``policy.caps`` that must be granted; None: every guest may."""
    targeted: bool = False
    """The op checks its capability itself, before anything else: the refusal then names the target."""
    far: bool = False
    """Though it only reads, it waits for somebody outside this machine."""
    waits: bool = False
    """It waits for somebody's word, as long as what it waits for allows."""
    also: tuple[str, ...] = ()
    """Capabilities that what it calls may need, beyond its own."""


_OF_TOOLS = ("net", "tools", "exec", "secrets", "fs_ro", "fs_rw", "spawn", "mail", "kb_read")
"""What a tool may name among its capabilities."""

OPS: dict[str, Op] = {
    op.name: op
    for op in (
        Op(name="time.now", args=TimeNow, effect="pure", capability="time"),
        Op(name="random.bytes", args=RandomBytes, effect="pure", capability="random"),
        Op(name="log.write", args=LogWrite, effect="pure", capability=None),
        Op(name="progress", args=Progress, effect="pure", capability=None),
        Op(name="kb.query", args=KbQuery, effect="read", capability="kb_read"),
        Op(name="kb.search", args=KbSearch, effect="read", capability="kb_read"),
        Op(name="kb.read", args=KbRead, effect="read", capability="kb_read"),
        Op(name="kb.why", args=KbWhy, effect="read", capability="kb_read"),
        Op(name="kb.propose", args=KbPropose, effect="write", capability="kb_write"),
        Op(name="memory.get", args=MemoryGet, effect="read", capability=None, also=("memory",)),
        Op(name="memory.list", args=MemoryList, effect="read", capability=None, also=("memory",)),
        Op(name="memory.put", args=MemoryPut, effect="write", capability=None, also=("memory",)),
        Op(name="memory.delete", args=MemoryDelete, effect="write", capability=None, also=("memory",)),
        Op(name="promise.create", args=PromiseCreate, effect="write", capability="promises"),
        Op(name="promise.await", args=PromiseAwait, effect="read", capability="promises", waits=True),
        Op(name="promise.resolve", args=PromiseResolve, effect="write", capability="promises"),
        Op(name="input.ask", args=InputAsk, effect="write", capability="promises", waits=True),
        Op(name="blob.read", args=BlobRead, effect="read", capability=None),
        Op(name="artifact.put", args=ArtifactPut, effect="write", capability=None),
        Op(name="model.complete", args=ModelComplete, effect="spend", capability="model"),
        Op(name="model.embed", args=ModelEmbed, effect="spend", capability="model"),
        Op(name="msg.publish", args=MsgPublish, effect="write", capability="talk", targeted=True),
        Op(name="msg.subscribe", args=MsgSubscribe, effect="read", capability="talk", targeted=True),
        Op(name="msg.request", args=MsgRequest, effect="write", capability="talk", targeted=True, waits=True),
        Op(name="msg.reply", args=MsgReply, effect="write", capability="talk", targeted=True),
        Op(name="msg.next", args=MsgNext, effect="read", capability=None, waits=True),
        Op(name="http.fetch", args=HttpFetch, effect="read", capability="net", targeted=True, far=True),
        Op(name="fs.read", args=FsRead, effect="read", capability="fs_ro", targeted=True),
        Op(name="fs.write", args=FsWrite, effect="write", capability="fs_rw", targeted=True),
        Op(name="fs.list", args=FsList, effect="read", capability="fs_ro", targeted=True),
        Op(name="fs.stat", args=FsStat, effect="read", capability="fs_ro", targeted=True),
        Op(name="tool.list", args=ToolList, effect="read", capability=None),
        Op(name="tool.call", args=ToolCall, effect="read", capability=None, far=True, also=_OF_TOOLS),
        Op(name="secret.use", args=SecretUse, effect="read", capability="secrets", targeted=True),
        Op(
            name="agent.delegate",
            args=AgentDelegate,
            effect="write",
            capability="spawn",
            targeted=True,
            waits=True,
        ),
        Op(name="mail.send", args=MailSend, effect="send", capability="mail"),
    )
}
"""Every op of this build. ``agent.source`` is not in it: the runner's own loader is served by the runtime."""


def decode_args(op: str, value: Any) -> Args:
    """Validate the arguments of a host call; raise :class:`UsageError` naming the op and the field."""
    row = OPS.get(op)
    if row is None:
        raise UsageError(f"unknown host call {op!r}", hint=f"known: {', '.join(OPS)}", code="op.unknown")
    try:
        return msgspec.convert(value, row.args)
    except msgspec.ValidationError as error:
        raise UsageError(f"{op}: {error}", code="op.args") from error

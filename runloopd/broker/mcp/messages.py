"""What the daemon and the bridge of one MCP server say to each other: frames over a socket pair.

Knows: the closed set of messages, their bounds, how a frame is cut from a stream. Does not know: MCP (the
bridge does), who asks, or what a result means. Pure.

A frame is four bytes of length (big endian) and that many bytes of JSON. The bridge parses what a stranger
wrote, so the daemon believes it nothing: every frame is of a known shape and bounded before it is read.
"""

from __future__ import annotations

import struct
from typing import Any, TypeVar

import msgspec

from runloop.errors import FailedError

__all__ = [
    "MAX_FRAME",
    "MAX_TEXT",
    "Answer",
    "Ask",
    "BridgeError",
    "Cancel",
    "Changed",
    "Failure",
    "FromBridge",
    "FromDaemon",
    "Gone",
    "Listened",
    "Progress",
    "Question",
    "Ready",
    "Reply",
    "Start",
    "decode",
    "encode",
    "size_of",
]

MAX_FRAME = 5 * 1024 * 1024
"""Bytes of one frame."""
MAX_TEXT = 4_096
"""Characters of one foreign text that is shown to a person: an error, a question, a name."""
_HEAD = struct.Struct(">I")


class BridgeError(FailedError):
    """The bridge does not speak as it should. It is killed, never argued with."""

    code = "tool.unavailable"


class FromDaemon(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="t"):
    """Base of what the daemon says."""


class FromBridge(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="t"):
    """Base of what the bridge says."""


class Start(FromDaemon, frozen=True, kw_only=True, tag="start"):
    """Once, first: whom to connect to. The only place a secret travels to the bridge."""

    url: str | None = None
    """Of a server over HTTP; None: the two descriptors lead to its standard input and output."""
    bearer: str | None = None
    authorities: str | None = None
    """Certificates (PEM) that count beside the system's."""
    era: str = "auto"
    """``auto``, or ``legacy`` for servers that choke on a question of the new era."""
    connect_ms: int = 20_000


class Ask(FromDaemon, frozen=True, kw_only=True, tag="ask"):
    """One request to the server."""

    id: int
    method: str
    params: dict[str, Any] = {}
    timeout_ms: int = 30_000


class Cancel(FromDaemon, frozen=True, kw_only=True, tag="cancel"):
    """Nobody waits for request ``id`` any more: tell the server."""

    id: int


class Reply(FromDaemon, frozen=True, kw_only=True, tag="reply"):
    """A person's answer to a question of the server."""

    question: int
    action: str
    """``accept``, ``decline`` or ``cancel``."""
    content: dict[str, Any] | None = None


class Ready(FromBridge, frozen=True, kw_only=True, tag="ready"):
    """The server is there."""

    protocol: str
    name: str = ""
    version: str = ""
    instructions: str = ""
    tools: bool = False
    resources: bool = False
    prompts: bool = False


class Answer(FromBridge, frozen=True, kw_only=True, tag="answer"):
    """The result of request ``id``, as JSON."""

    id: int
    value: Any


class Failure(FromBridge, frozen=True, kw_only=True, tag="failure"):
    """Request ``id`` has no result."""

    id: int
    kind: str
    """``refused``: the server said no; ``timeout``; ``closed``: it went away; ``protocol``: it talked
    nonsense."""
    message: str = ""
    code: int | None = None


class Progress(FromBridge, frozen=True, kw_only=True, tag="progress"):
    """How far request ``id`` is."""

    id: int
    progress: float
    total: float | None = None
    message: str = ""


class Changed(FromBridge, frozen=True, kw_only=True, tag="changed"):
    """The server says that a list is another one now."""

    what: str
    """``tools``, ``resources`` or ``prompts``."""


class Listened(FromBridge, frozen=True, kw_only=True, tag="listened"):
    """Changes of lists are told from now on (``True``), or the server does not tell them."""

    honored: bool


class Question(FromBridge, frozen=True, kw_only=True, tag="question"):
    """The server asks a person something while it works on request ``ask``."""

    question: int
    ask: int
    message: str
    schema: dict[str, Any] = {}
    url: str | None = None
    """It wants a person to open this; it is shown and never opened."""


class Gone(FromBridge, frozen=True, kw_only=True, tag="gone"):
    """The last message: there is no server any more, or never was."""

    message: str


_DAEMON = Start | Ask | Cancel | Reply
_BRIDGE = Ready | Answer | Failure | Progress | Changed | Listened | Question | Gone
_TO_BRIDGE = msgspec.json.Decoder(_DAEMON)
_TO_DAEMON = msgspec.json.Decoder(_BRIDGE)
T = TypeVar("T", FromDaemon, FromBridge)


def encode(message: FromDaemon | FromBridge) -> bytes:
    """One frame. Raises :class:`BridgeError` for one that is too large, or whose text is none."""
    try:
        body = msgspec.json.encode(message)
    except UnicodeEncodeError as error:  # half of a surrogate pair
        raise BridgeError("a message with a text that cannot be written as UTF-8") from error
    if len(body) > MAX_FRAME:
        raise BridgeError(f"a message of {len(body)} bytes; at most {MAX_FRAME} are passed on")
    return _HEAD.pack(len(body)) + body


def size_of(head: bytes) -> int:
    """Length of the frame behind its first four bytes; raises :class:`BridgeError` when it is too long."""
    (size,) = _HEAD.unpack(head)
    if size > MAX_FRAME:
        raise BridgeError(f"a message of {size} bytes; at most {MAX_FRAME} are read")
    return int(size)


def decode(body: bytes, kind: type[T]) -> T:
    """Read the body of a frame from ``kind``'s side; raises :class:`BridgeError` for anything else."""
    decoder: Any = _TO_DAEMON if issubclass(kind, FromBridge) else _TO_BRIDGE
    try:
        return decoder.decode(body)  # type: ignore[no-any-return]
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise BridgeError(f"no message: {error}") from error

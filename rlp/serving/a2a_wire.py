"""Agent2Agent 1.0 on the wire: what is asked in JSON-RPC, and what is answered.

Knows: the shapes of the protocol's JSON binding, as far as this face takes part, and its named errors. Does
not know: HTTP, runs, or who asks. Hand-written, because the protocol's own library brings 83 MB (ADR 28); a
test has that library's client talk to us where it is installed. Fields nobody here knows are passed over, as
the protocol wants it.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any, ClassVar, Literal

import msgspec

from runloop.digest import digest
from runloop.errors import FailedError, RunloopError

__all__ = [
    "BINDING",
    "CARD_PATH",
    "VERSION",
    "VERSION_HEADER",
    "A2AError",
    "ById",
    "Call",
    "ContentTypeError",
    "GetTask",
    "InvalidParamsError",
    "InvalidRequestError",
    "ListTasks",
    "Message",
    "NotCancelableError",
    "NotFoundTaskError",
    "Part",
    "PushError",
    "Send",
    "State",
    "UnknownMethodError",
    "UnsupportedError",
    "VersionError",
    "call_of",
    "error_of",
    "identity_of",
    "params_of",
    "said",
    "status",
]

VERSION = "1.0"
VERSION_HEADER = "a2a-version"
BINDING = "JSONRPC"
CARD_PATH = "/.well-known/agent-card.json"

State = Literal[
    "TASK_STATE_SUBMITTED",
    "TASK_STATE_WORKING",
    "TASK_STATE_COMPLETED",
    "TASK_STATE_FAILED",
    "TASK_STATE_CANCELED",
    "TASK_STATE_INPUT_REQUIRED",
    "TASK_STATE_REJECTED",
]

Word = Annotated[str, msgspec.Meta(min_length=1, max_length=128, pattern=r"\A[\x21-\x7e]+\Z")]
"""An id that somebody else made up."""


class A2AError(FailedError):
    """What was asked cannot be answered; ``number`` is the protocol's."""

    code: ClassVar[str] = "a2a.failed"
    number: ClassVar[int] = -32603


class ParseError(A2AError):
    """No JSON came."""

    code, number = "a2a.parse", -32700


class InvalidRequestError(A2AError):
    """JSON came, and no request."""

    code, number = "a2a.request", -32600


class UnknownMethodError(A2AError):
    """A request for something this protocol does not have, or this face leaves out."""

    code, number = "a2a.method", -32601


class InvalidParamsError(A2AError):
    """The parameters are not those of the method."""

    code, number = "a2a.params", -32602


class NotFoundTaskError(A2AError):
    """The client has no such task."""

    code, number = "a2a.task", -32001


class NotCancelableError(A2AError):
    """The task is over."""

    code, number = "a2a.over", -32002


class PushError(A2AError):
    """Nobody is called back from here."""

    code, number = "a2a.push", -32003


class UnsupportedError(A2AError):
    """What is asked is not done here, for reasons."""

    code, number = "a2a.unsupported", -32004


class ContentTypeError(A2AError):
    """What was sent, or is wanted, is neither text nor JSON."""

    code, number = "a2a.content", -32005


class VersionError(A2AError):
    """Another version of the protocol."""

    code, number = "a2a.version", -32009


# --- what is asked ----------------------------------------------------------------------------------


class Wire(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Base of what comes in."""


class Call(msgspec.Struct, frozen=True, kw_only=True):
    """A JSON-RPC request. One without an id wants no answer, and gets one all the same: HTTP has one."""

    jsonrpc: Literal["2.0"]
    method: Annotated[str, msgspec.Meta(max_length=128)]
    params: dict[str, Any] = {}
    id: Annotated[str, msgspec.Meta(max_length=256)] | int | None = None


class Part(Wire, frozen=True, kw_only=True):
    """A piece of a message: of the four fields exactly one."""

    text: str | None = None
    data: Any = msgspec.UNSET
    raw: str | None = None
    url: str | None = None


class Message(Wire, frozen=True, kw_only=True):
    """What a client says."""

    message_id: Annotated[str, msgspec.Meta(min_length=1, max_length=256)]
    role: Literal["ROLE_USER"]
    parts: Annotated[list[Part], msgspec.Meta(min_length=1, max_length=100)]
    task_id: Word | Literal[""] = ""
    context_id: Word | Literal[""] = ""
    metadata: dict[str, Any] = {}


class Configuration(Wire, frozen=True, kw_only=True):
    accepted_output_modes: list[str] = []
    task_push_notification_config: dict[str, Any] | None = None
    return_immediately: bool = False


class Send(Wire, frozen=True, kw_only=True):
    """Of ``SendMessage`` and ``SendStreamingMessage``."""

    message: Message
    configuration: Configuration = Configuration()


class ById(Wire, frozen=True, kw_only=True):
    """Of ``CancelTask`` and ``SubscribeToTask``."""

    id: Word


class GetTask(ById, frozen=True, kw_only=True):
    """Of ``GetTask``. No history is kept of what was said, so none is given back."""


class ListTasks(Wire, frozen=True, kw_only=True):
    """Of ``ListTasks``, newest first."""

    context_id: str = ""
    status: str = "TASK_STATE_UNSPECIFIED"
    page_size: Annotated[int, msgspec.Meta(ge=1, le=100)] = 20
    page_token: Annotated[str, msgspec.Meta(max_length=18, pattern=r"\A[0-9]*\Z")] = ""
    include_artifacts: bool = False


def call_of(body: bytes) -> Call:
    """Read a request. Raises :class:`ParseError`, :class:`InvalidRequestError`."""
    try:
        return msgspec.json.decode(body, type=Call)
    except msgspec.ValidationError as error:
        raise InvalidRequestError(f"this is no JSON-RPC 2.0 request: {error}"[:300]) from error
    except (msgspec.DecodeError, RecursionError) as error:
        raise ParseError("this is no JSON") from error


def params_of(call: Call, kind: type[msgspec.Struct]) -> Any:
    """The parameters of a request as ``kind`` has them. Raises :class:`InvalidParamsError`."""
    try:
        return msgspec.convert(call.params, type=kind)
    except (msgspec.ValidationError, RecursionError) as error:
        raise InvalidParamsError(f"{call.method}: {error}"[:300]) from error


def identity_of(message: Message) -> dict[str, str]:
    """``{id, digest}``: by what a message that comes again is known, and all that it says."""
    return {"id": message.message_id, "digest": digest(msgspec.to_builtins(message))}


# --- what is answered -------------------------------------------------------------------------------


def error_of(error: RunloopError) -> dict[str, Any]:
    """An error, as JSON-RPC has them."""
    number = error.number if isinstance(error, A2AError) else _NUMBERS.get(error.named_code, -32603)
    text = f"{error.message}; {error.hint}" if error.hint else error.message
    reason = error.named_code.upper().replace(".", "_")
    info = {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": reason, "domain": "runloop"}
    return {"code": number, "message": text, "data": [info]}


_NUMBERS = {
    "face.run": NotFoundTaskError.number,
    "face.message": InvalidParamsError.number,
    "face.busy": -32000,
}


def said(words: str, name: str, task: str, context: str) -> dict[str, Any]:
    """A message of ours."""
    return {
        "messageId": name,
        "taskId": task,
        "contextId": context,
        "role": "ROLE_AGENT",
        "parts": [{"text": words}],
    }


def status(state: State, at_ms: int, message: dict[str, Any] | None = None) -> dict[str, Any]:
    """How a task stands, since when."""
    told: dict[str, Any] = {"state": state}
    if at_ms:
        moment = datetime.fromtimestamp(at_ms / 1_000, UTC)
        told["timestamp"] = moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return told if message is None else {**told, "message": message}

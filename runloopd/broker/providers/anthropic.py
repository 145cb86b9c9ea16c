"""The Messages protocol of Anthropic.

Knows: that protocol's JSON, whole and streamed; a schema is asked for by a tool of ours whose input is the
answer, forced unless the model may choose another. Does not know: what sends it (``http``), prices, or
routes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
import orjson

from runloop.ops import ModelComplete, ModelMessage, ModelTool
from runloopd.broker.providers.completion import Finish
from runloopd.broker.providers.dialect import (
    Reader,
    Result,
    SentEventsReader,
    WholeReader,
    decoded,
    said_error,
)
from runloopd.broker.providers.http import HttpRequest
from runloopd.broker.providers.sse import ServerSentEvent
from runloopd.broker.providers.tool_calls import parameters
from runloopd.broker.secrets import Secret

__all__ = ["Anthropic"]

_VERSION = "2023-06-01"
_CHOICE = {"auto": "auto", "none": "none", "required": "any"}
_FINISH: Mapping[str, Finish] = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "tool_use": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "refusal": "filter",
}


class _Block(msgspec.Struct):
    type: str = ""
    text: str = ""
    id: Any = None
    name: Any = None
    input: Any = None


class _Usage(msgspec.Struct):
    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_creation_input_tokens: int | None = None
    cache_read_input_tokens: int | None = None


class _Message(msgspec.Struct):
    model: str | None = None
    content: list[_Block] = []
    stop_reason: str | None = None
    usage: _Usage | None = None


class _Delta(msgspec.Struct):
    text: str = ""
    partial_json: str = ""
    stop_reason: str | None = None


class _Event(msgspec.Struct):
    type: str = ""
    index: int = 0
    content_block: _Block | None = None
    message: _Message | None = None
    delta: _Delta | None = None
    usage: _Usage | None = None
    error: Any = None


class Anthropic:
    """``POST {base_url}/v1/messages``."""

    def __init__(self, base_url: str) -> None:
        self._url = f"{base_url}/v1/messages"

    def request(
        self, request: ModelComplete, *, model: str, stream: bool, key: Secret | None, idempotency_key: str
    ) -> HttpRequest:
        """The request as this protocol writes it: system text apart from the turns."""
        system = "\n\n".join(m.content for m in request.messages if m.role == "system")
        body: dict[str, Any] = {
            "model": model,
            "messages": _turns(request.messages),
            "max_tokens": request.max_tokens,
            "temperature": request.temperature,
            "stream": stream,
        }
        if system:
            body["system"] = system
        body |= _tools(request)
        return HttpRequest(
            url=self._url,
            body=orjson.dumps(body),
            headers={"Content-Type": "application/json", "anthropic-version": _VERSION},
            key=key,
            key_header="x-api-key",
            key_prefix="",
        )

    def reader(self, request: ModelComplete, *, stream: bool) -> Reader:
        """A reader for one answer."""
        answer = None if request.json_schema is None else _answer_name(request)
        if not stream:
            return WholeReader(lambda data, result: _whole(data, result, answer))
        blocks = _Blocks(answer)
        return SentEventsReader(lambda event, result: _event(event, result, blocks))


# --- what is asked --------------------------------------------------------------------------------


def _turns(messages: list[ModelMessage]) -> list[dict[str, Any]]:
    """Users and assistants in turn: what tools said is the user's turn here, one block for each."""
    turns: list[dict[str, Any]] = []
    answering = False
    for message in messages:
        if message.role == "system":
            continue
        if message.role == "tool":
            block = {
                "type": "tool_result",
                "tool_use_id": message.tool_call_id,
                "content": message.content,
            }
            if answering:
                turns[-1]["content"].append(block)
            else:
                turns.append({"role": "user", "content": [block]})
            answering = True
            continue
        if answering and message.role == "user" and message.content:
            turns[-1]["content"].append({"type": "text", "text": message.content})
        else:
            turns.append({"role": message.role, "content": _content(message)})
        answering = False
    return turns


def _content(message: ModelMessage) -> str | list[dict[str, Any]]:
    if not message.tool_calls:
        return message.content
    text = [{"type": "text", "text": message.content}] if message.content else []
    return text + [
        {"type": "tool_use", "id": call.id, "name": call.name, "input": call.arguments}
        for call in message.tool_calls
    ]


def _tools(request: ModelComplete) -> dict[str, Any]:
    tools = [_tool(tool) for tool in request.tools]
    choice: dict[str, Any] = {"type": _CHOICE[request.tool_choice]}
    if request.json_schema is not None:
        answer = _answer_name(request)
        may_choose = bool(tools) and request.tool_choice != "none"
        choice = {"type": "any"} if may_choose else {"type": "tool", "name": answer}
        schema = request.json_schema
        tools.append({"name": answer, "description": "Give the answer.", "input_schema": schema})
    if not tools:
        # A conversation with calls in it is refused unless their tools are told, also when none is offered.
        names = dict.fromkeys(call.name for message in request.messages for call in message.tool_calls)
        tools = [_tool(ModelTool(name=name)) for name in names]
        choice = {"type": "none"}
    return {"tools": tools, "tool_choice": choice} if tools else {}


def _tool(tool: ModelTool) -> dict[str, Any]:
    schema = parameters(tool.parameters)
    return {"name": tool.name, "description": tool.description, "input_schema": schema}


def _answer_name(request: ModelComplete) -> str:
    """A name for our own tool that none of the agent's has."""
    name, taken = "answer", {tool.name for tool in request.tools}
    while name in taken:
        name += "_"
    return name


# --- what is answered -----------------------------------------------------------------------------


class _Blocks:
    """Which block of a stream is what: our own answer, a call, or text."""

    def __init__(self, answer: str | None) -> None:
        self.answer = answer
        self.calls: set[int] = set()


def _whole(data: bytes, result: Result, answer: str | None) -> str:
    message = decoded(data, _Message)
    _note(message, result)
    text = ""
    for number, block in enumerate(message.content):
        if block.type == "text":
            text += block.text
        elif block.type == "tool_use" and answer is not None and block.name == answer:
            text += orjson.dumps(block.input).decode()
        elif block.type == "tool_use":
            result.calls.add(number, id=block.id, name=block.name, piece=block.input)
    return text


def _event(event: ServerSentEvent, result: Result, blocks: _Blocks) -> str:
    body = decoded(event.data, _Event)
    match body.type:
        case "message_start" if body.message is not None:
            _note(body.message, result)
        case "content_block_start" if body.content_block is not None:
            block = body.content_block
            if block.type == "tool_use" and (blocks.answer is None or block.name != blocks.answer):
                blocks.calls.add(body.index)
                result.calls.add(body.index, id=block.id, name=block.name)
        case "content_block_delta" if body.delta is not None:
            if body.index in blocks.calls:
                result.calls.add(body.index, piece=body.delta.partial_json)
                return ""
            return body.delta.text + body.delta.partial_json
        case "message_delta":
            if body.delta is not None and body.delta.stop_reason:
                result.finish = _FINISH.get(body.delta.stop_reason, "other")
            _count(body.usage, result)
        case "message_stop":
            result.ended = True
        case "error":
            raise said_error(body.error)
    return ""


def _note(message: _Message, result: Result) -> None:
    result.model = message.model or result.model
    if message.stop_reason:
        result.finish = _FINISH.get(message.stop_reason, "other")
    _count(message.usage, result)


def _count(usage: _Usage | None, result: Result) -> None:
    """Later counts replace earlier ones; what the cache served is input all the same."""
    if usage is None:
        return
    if usage.input_tokens is not None:
        result.input_tokens = (
            usage.input_tokens
            + (usage.cache_creation_input_tokens or 0)
            + (usage.cache_read_input_tokens or 0)
        )
    if usage.output_tokens is not None:
        result.output_tokens = usage.output_tokens

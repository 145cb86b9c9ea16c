"""The chat-completions protocol, as hosted services and local servers (llama.cpp, vLLM, LM Studio) speak it.

Knows: that protocol's JSON, whole and streamed. Does not know: what sends it (``http``), prices, or routes.
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

__all__ = ["OpenAICompat"]

_FINISH: Mapping[str, Finish] = {
    "stop": "stop",
    "tool_calls": "stop",
    "length": "length",
    "content_filter": "filter",
}


class _Function(msgspec.Struct):
    name: Any = None
    arguments: Any = None


class _Call(msgspec.Struct):
    index: int | None = None
    id: Any = None
    function: _Function | None = None


class _Text(msgspec.Struct):
    content: str | None = None
    refusal: str | None = None
    tool_calls: list[_Call] | None = None


class _Choice(msgspec.Struct):
    index: int = 0
    message: _Text | None = None
    delta: _Text | None = None
    finish_reason: str | None = None


class _Usage(msgspec.Struct):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None


class _Body(msgspec.Struct):
    model: str | None = None
    choices: list[_Choice] = []
    usage: _Usage | None = None
    error: Any = None


class OpenAICompat:
    """``POST {base_url}/chat/completions``."""

    def __init__(self, base_url: str, *, limit_field: str = "max_tokens") -> None:
        """``limit_field`` names the field that bounds the answer (newer hosted models want
        ``max_completion_tokens``)."""
        self._url = f"{base_url}/chat/completions"
        self._limit_field = limit_field

    def request(
        self, request: ModelComplete, *, model: str, stream: bool, key: Secret | None, idempotency_key: str
    ) -> HttpRequest:
        """The request as this protocol writes it."""
        body: dict[str, Any] = {
            "model": model,
            "messages": [_message(message) for message in request.messages],
            self._limit_field: request.max_tokens,
            "temperature": request.temperature,
            "stream": stream,
        }
        if stream:
            body["stream_options"] = {"include_usage": True}
        if request.tools:
            body["tools"] = [_tool(tool) for tool in request.tools]
            body["tool_choice"] = request.tool_choice
        if request.json_schema is not None:
            body["response_format"] = {
                "type": "json_schema",
                "json_schema": {"name": "answer", "schema": request.json_schema},
            }
        return HttpRequest(
            url=self._url,
            body=orjson.dumps(body),
            headers={"Content-Type": "application/json", "Idempotency-Key": idempotency_key},
            key=key,
        )

    def reader(self, request: ModelComplete, *, stream: bool) -> Reader:
        """A reader for one answer."""
        return SentEventsReader(_event) if stream else WholeReader(_whole)


def _tool(tool: ModelTool) -> dict[str, Any]:
    function = {
        "name": tool.name,
        "description": tool.description,
        "parameters": parameters(tool.parameters),
    }
    return {"type": "function", "function": function}


def _message(message: ModelMessage) -> dict[str, Any]:
    row: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.tool_calls:
        row["tool_calls"] = [
            {
                "id": call.id,
                "type": "function",
                "function": {"name": call.name, "arguments": orjson.dumps(call.arguments).decode()},
            }
            for call in message.tool_calls
        ]
    if message.tool_call_id is not None:
        row["tool_call_id"] = message.tool_call_id
    return row


def _whole(data: bytes, result: Result) -> str:
    return _take(decoded(data, _Body), result)


def _event(event: ServerSentEvent, result: Result) -> str:
    if event.data.strip() == "[DONE]":
        result.ended = True
        return ""
    return _take(decoded(event.data, _Body), result)


def _take(body: _Body, result: Result) -> str:
    if body.error is not None:
        raise said_error(body.error)
    result.model = body.model or result.model
    if body.usage is not None:
        result.input_tokens = body.usage.prompt_tokens
        result.output_tokens = body.usage.completion_tokens
    text = ""
    for choice in body.choices:
        if choice.index != 0:
            continue
        if choice.finish_reason:
            result.finish = _FINISH.get(choice.finish_reason, "other")
        if choice.delta is not None:
            text += _said(choice.delta, result, whole=False)
        elif choice.message is not None:
            text += _said(choice.message, result, whole=True)
    return text


def _said(said: _Text, result: Result, *, whole: bool) -> str:
    for number, call in enumerate(said.tool_calls or ()):
        function = call.function or _Function()
        index = number if whole else call.index
        result.calls.add(index, id=call.id, name=function.name, piece=function.arguments)
    if said.refusal:
        result.refused = True
    return (said.content or "") + (said.refusal or "")

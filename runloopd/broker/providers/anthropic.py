"""The Messages protocol of Anthropic.

Knows: that protocol's JSON, whole and streamed; a schema is asked for by forcing one tool whose input is the
answer. Does not know: what sends it (``http``), prices, or routes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
import orjson

from runloop.ops import ModelComplete
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
from runloopd.broker.secrets import Secret

__all__ = ["Anthropic"]

_VERSION = "2023-06-01"
_TOOL = "answer"
_FINISH: Mapping[str, Finish] = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "tool_use": "stop",
    "max_tokens": "length",
    "refusal": "filter",
}


class _Block(msgspec.Struct):
    type: str = ""
    text: str = ""
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
            "messages": [
                {"role": m.role, "content": m.content} for m in request.messages if m.role != "system"
            ],
            "max_tokens": request.max_tokens,
            "temperature": request.temperature,
            "stream": stream,
        }
        if system:
            body["system"] = system
        if request.json_schema is not None:
            body["tools"] = [
                {"name": _TOOL, "description": "Give the answer.", "input_schema": request.json_schema}
            ]
            body["tool_choice"] = {"type": "tool", "name": _TOOL}
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
        return SentEventsReader(_event) if stream else WholeReader(_whole)


def _whole(data: bytes, result: Result) -> str:
    message = decoded(data, _Message)
    _note(message, result)
    return "".join(
        orjson.dumps(block.input).decode() if block.type == "tool_use" else block.text
        for block in message.content
        if block.type in ("text", "tool_use")
    )


def _event(event: ServerSentEvent, result: Result) -> str:
    body = decoded(event.data, _Event)
    match body.type:
        case "message_start" if body.message is not None:
            _note(body.message, result)
        case "content_block_delta" if body.delta is not None:
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

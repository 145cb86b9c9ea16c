"""Ollama's own protocol, and how to find a server of it on this machine.

Knows: ``/api/chat`` (whole and as JSON lines) and ``/api/tags``. Asks no address but the one it is given; the
broker gives it loopback unless the operator wrote another. Does not know: prices or routes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
import orjson

from runloop.ops import ModelComplete, ModelMessage
from runloopd.broker.ports import ModelCallError
from runloopd.broker.providers.completion import Finish
from runloopd.broker.providers.dialect import (
    JsonLinesReader,
    Reader,
    Result,
    WholeReader,
    decoded,
    said_error,
)
from runloopd.broker.providers.http import Http, HttpRequest
from runloopd.broker.providers.tool_calls import parameters
from runloopd.broker.secrets import Secret

__all__ = ["Ollama", "is_hosted", "list_models"]

_FINISH: Mapping[str, Finish] = {"stop": "stop", "length": "length"}
_EMBEDDERS = frozenset({"bert", "nomic-bert"})
_MAX_LIST_BYTES = 1024 * 1024


class _Function(msgspec.Struct):
    name: Any = None
    arguments: Any = None


class _Call(msgspec.Struct):
    id: Any = None
    function: _Function | None = None


class _Text(msgspec.Struct):
    content: str = ""
    tool_calls: list[_Call] | None = None


class _Body(msgspec.Struct):
    model: str | None = None
    message: _Text | None = None
    done: bool = False
    done_reason: str | None = None
    prompt_eval_count: int | None = None
    eval_count: int | None = None
    error: Any = None


class _Details(msgspec.Struct):
    family: str | None = None


class _Model(msgspec.Struct):
    name: str = ""
    remote_host: str | None = None
    details: _Details | None = None


class _Tags(msgspec.Struct):
    models: list[_Model] = []


async def list_models(http: Http, base_url: str, *, timeout_s: float) -> list[str]:
    """Names of the models of this machine that can chat, in order; empty when nobody answers there in time.

    A server of this machine may pass what it is told on to a model elsewhere: those are left out.
    """
    body = await http.get(f"{base_url}/api/tags", timeout_s=timeout_s, max_bytes=_MAX_LIST_BYTES)
    if body is None:
        return []
    try:
        tags = decoded(body, _Tags)
    except ModelCallError:
        return []
    return sorted(
        model.name
        for model in tags.models
        if 0 < len(model.name) <= 200
        and model.name.isprintable()
        and not (model.remote_host or is_hosted(model.name))
        and not (model.details and model.details.family in _EMBEDDERS)
    )


def is_hosted(model: str) -> bool:
    """Whether a model's name says that it runs elsewhere, with the local server as its door."""
    return model.endswith(("-cloud", ":cloud"))


class Ollama:
    """``POST {base_url}/api/chat``."""

    def __init__(self, base_url: str) -> None:
        self._url = f"{base_url}/api/chat"

    def request(
        self, request: ModelComplete, *, model: str, stream: bool, key: Secret | None, idempotency_key: str
    ) -> HttpRequest:
        """The request as this protocol writes it."""
        body: dict[str, Any] = {
            "model": model,
            "messages": _messages(request),
            "stream": stream,
            "options": {"num_predict": request.max_tokens, "temperature": request.temperature},
        }
        offered = request.tools if request.tool_choice != "none" else []
        if offered:
            # This protocol cannot force a call: "required" is a wish here.
            body["tools"] = [
                {
                    "type": "function",
                    "function": {
                        "name": tool.name,
                        "description": tool.description,
                        "parameters": parameters(tool.parameters),
                    },
                }
                for tool in offered
            ]
        if request.json_schema is not None and not offered:
            body["format"] = request.json_schema
        return HttpRequest(
            url=self._url, body=orjson.dumps(body), headers={"Content-Type": "application/json"}, key=key
        )

    def reader(self, request: ModelComplete, *, stream: bool) -> Reader:
        """A reader for one answer."""
        return JsonLinesReader(_take) if stream else WholeReader(_take)


def _messages(request: ModelComplete) -> list[dict[str, Any]]:
    names = {call.id: call.name for message in request.messages for call in message.tool_calls}
    rows = [_message(message, names) for message in request.messages]
    if request.json_schema is not None and request.tools and request.tool_choice != "none":
        # ``format`` binds every word, so that no call could be made: here the schema is asked for in words.
        schema = orjson.dumps(request.json_schema).decode()
        wish = f"When you answer, answer with JSON alone, fitting this schema: {schema}"
        rows.insert(0, {"role": "system", "content": wish})
    return rows


def _message(message: ModelMessage, names: Mapping[str, str]) -> dict[str, Any]:
    row: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.tool_calls:
        row["tool_calls"] = [
            {"id": call.id, "function": {"name": call.name, "arguments": call.arguments}}
            for call in message.tool_calls
        ]
    if message.tool_call_id is not None:
        # Servers of before know a call by the name of its function alone.
        row |= {"tool_call_id": message.tool_call_id, "tool_name": names.get(message.tool_call_id, "")}
    return row


def _take(data: bytes, result: Result) -> str:
    body = decoded(data, _Body)
    if body.error is not None:
        raise said_error(body.error)
    result.model = body.model or result.model
    if body.done:
        result.ended = True
        result.finish = _FINISH.get(body.done_reason or "stop", "other")
        result.input_tokens, result.output_tokens = body.prompt_eval_count, body.eval_count
    if body.message is None:
        return ""
    for call in body.message.tool_calls or ():
        function = call.function or _Function()
        # Each is whole, in whatever line it comes.
        number = len(result.calls)
        result.calls.add(number, id=call.id, name=function.name, piece=function.arguments)
    return body.message.content

"""Ollama's own protocol, and how to find a server of it on this machine.

Knows: ``/api/chat`` (whole and as JSON lines) and ``/api/tags``. Asks no address but the one it is given; the
broker gives it loopback unless the operator wrote another. Does not know: prices or routes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
import orjson

from runloop.ops import ModelComplete
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
from runloopd.broker.secrets import Secret

__all__ = ["Ollama", "list_models"]

_FINISH: Mapping[str, Finish] = {"stop": "stop", "length": "length"}
_EMBEDDERS = frozenset({"bert", "nomic-bert"})
_MAX_LIST_BYTES = 1024 * 1024


class _Text(msgspec.Struct):
    content: str = ""


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
    details: _Details | None = None


class _Tags(msgspec.Struct):
    models: list[_Model] = []


async def list_models(http: Http, base_url: str, *, timeout_s: float) -> list[str]:
    """Names of the models that can chat, in order; empty when nobody answers there in time."""
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
        and not (model.details and model.details.family in _EMBEDDERS)
    )


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
            "messages": [{"role": m.role, "content": m.content} for m in request.messages],
            "stream": stream,
            "options": {"num_predict": request.max_tokens, "temperature": request.temperature},
        }
        if request.json_schema is not None:
            body["format"] = request.json_schema
        return HttpRequest(
            url=self._url, body=orjson.dumps(body), headers={"Content-Type": "application/json"}, key=key
        )

    def reader(self, request: ModelComplete, *, stream: bool) -> Reader:
        """A reader for one answer."""
        return JsonLinesReader(_take) if stream else WholeReader(_take)


def _take(data: bytes, result: Result) -> str:
    body = decoded(data, _Body)
    if body.error is not None:
        raise said_error(body.error)
    result.model = body.model or result.model
    if body.done:
        result.ended = True
        result.finish = _FINISH.get(body.done_reason or "stop", "other")
        result.input_tokens, result.output_tokens = body.prompt_eval_count, body.eval_count
    return body.message.content if body.message is not None else ""

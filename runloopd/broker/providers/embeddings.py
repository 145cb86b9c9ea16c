"""Vectors over HTTP: Ollama's ``/api/embed`` and the ``/v1/embeddings`` of OpenAI-compatible servers.

Knows: both wires, and that a server's numbers are foreign: their count, their dimensions and their being
finite are checked. Does not know: routes, prices, or what is embedded.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import msgspec
import orjson

from runloopd.broker.ports import ModelCallError
from runloopd.broker.providers.dialect import decoded
from runloopd.broker.providers.http import Http, HttpRequest
from runloopd.broker.scrubber import Scrubber
from runloopd.broker.secrets import Secret

__all__ = ["MAX_DIMENSIONS", "Embedded", "HttpEmbedder"]

MAX_DIMENSIONS = 8_192


@dataclass(frozen=True, kw_only=True, slots=True)
class Embedded:
    """What a server answered."""

    vectors: tuple[tuple[float, ...], ...]
    """In the order of the texts; all of one length."""
    input_tokens: int | None
    """None: it did not say."""


class _Ollama(msgspec.Struct):
    embeddings: list[list[float]] = []
    prompt_eval_count: int | None = None


class _Datum(msgspec.Struct):
    index: int
    embedding: list[float]


class _Usage(msgspec.Struct):
    prompt_tokens: int | None = None


class _OpenAI(msgspec.Struct):
    data: list[_Datum] = []
    usage: _Usage | None = None


class HttpEmbedder:
    """One server, one model."""

    def __init__(
        self,
        *,
        name: str,
        kind: Literal["ollama", "openai"],
        base_url: str,
        model: str,
        http: Http,
        key: Callable[[], Secret | None],
    ) -> None:
        """``base_url``: for ``openai`` with its ``/v1``."""
        self._name, self._kind, self._model = name, kind, model
        self._url = f"{base_url}/api/embed" if kind == "ollama" else f"{base_url}/embeddings"
        self._http = http
        self._key = key

    async def embed(self, texts: Sequence[str], *, timeout_s: float) -> Embedded:
        """One vector for each text. Raises :class:`ModelCallError`."""
        key = await asyncio.to_thread(self._key)
        scrubber = Scrubber([key] if key is not None else [])
        body = bytearray()
        asked: dict[str, object] = {"model": self._model, "input": list(texts)}
        if self._kind == "openai":
            asked["encoding_format"] = "float"
        else:
            asked["truncate"] = True
        await self._http.post(
            HttpRequest(
                url=self._url,
                body=orjson.dumps(asked),
                headers={"Content-Type": "application/json"},
                key=key,
            ),
            body.extend,
            name=self._name,
            timeout_s=timeout_s,
            scrubber=scrubber,
        )
        return self._read(bytes(body), len(texts))

    def _read(self, body: bytes, count: int) -> Embedded:
        if self._kind == "ollama":
            ollama = decoded(body, _Ollama)
            vectors, tokens = ollama.embeddings, ollama.prompt_eval_count
        else:
            openai = decoded(body, _OpenAI)
            by_index = {datum.index: datum.embedding for datum in openai.data}
            if len(by_index) != len(openai.data) or set(by_index) != set(range(count)):
                raise _unfit("it does not answer every text once")
            vectors = [by_index[index] for index in range(count)]
            tokens = openai.usage.prompt_tokens if openai.usage else None
        if len(vectors) != count:
            raise _unfit(f"{len(vectors)} vectors for {count} texts")
        sizes = {len(vector) for vector in vectors}
        if len(sizes) != 1 or not 1 <= min(sizes) <= MAX_DIMENSIONS:
            raise _unfit("its vectors are empty, too long, or of different lengths")
        for vector in vectors:
            if not all(map(math.isfinite, vector)) or not any(vector):
                raise _unfit("a vector is zero or not finite")
        return Embedded(vectors=tuple(tuple(vector) for vector in vectors), input_tokens=tokens)


def _unfit(why: str) -> ModelCallError:
    return ModelCallError(
        f"a server's vectors cannot be used: {why}",
        hint="check embed_model and base_url of that provider",
        code="model.protocol",
        cost_micro_usd=None,
    )

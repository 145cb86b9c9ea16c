"""The part all HTTP dialects share: send a request, read the answer whole or streamed, hand out clean text.

A dialect is two pure things: how a request is written, and a reader that turns bytes into text. Knows: that
the key must not come back in an answer, whole, encoded or cut in two (attacks.md K2). Does not know: any
server's JSON (``openai_compat``, ``anthropic``, ``ollama``), routes or prices.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypeVar

import msgspec

from runloop.ops import ModelComplete
from runloopd.broker.ports import ModelCallError
from runloopd.broker.providers.completion import Completion, Finish, Usage
from runloopd.broker.providers.http import Http, HttpRequest, bare, readable
from runloopd.broker.providers.sse import JsonLines, ServerSentEvent, ServerSentEvents, StreamTooLargeError
from runloopd.broker.providers.tool_calls import Gathered, wanted
from runloopd.broker.scrubber import Scrubber
from runloopd.broker.secrets import Secret

__all__ = [
    "Dialect",
    "HttpProvider",
    "JsonLinesReader",
    "Reader",
    "Result",
    "SentEventsReader",
    "WholeReader",
    "decoded",
    "said_error",
]

_T = TypeVar("_T")


class Result(msgspec.Struct, kw_only=True):
    """What a reader has gathered besides the text."""

    model: str = ""
    finish: Finish | None = None
    """None until the server said why it stopped."""
    ended: bool = False
    """The server said that the stream is over."""
    input_tokens: int | None = None
    output_tokens: int | None = None
    calls: Gathered = msgspec.field(default_factory=Gathered)
    refused: bool = False
    """The model itself declined; what it said about it is the text."""

    @property
    def usage(self) -> Usage | None:
        """Both counts, or None."""
        if self.input_tokens is None or self.output_tokens is None:
            return None
        return Usage(input_tokens=self.input_tokens, output_tokens=self.output_tokens)


class Reader(Protocol):
    """Turns the bytes of one answer into text. Raises :class:`ModelCallError` for what it cannot read."""

    result: Result

    def feed(self, data: bytes) -> list[str]:
        """The pieces of text that ``data`` completes."""
        ...

    def end(self) -> list[str]:
        """The pieces still open when the body is over."""
        ...


class Dialect(Protocol):
    """How one family of servers speaks."""

    def request(
        self, request: ModelComplete, *, model: str, stream: bool, key: Secret | None, idempotency_key: str
    ) -> HttpRequest: ...

    def reader(self, request: ModelComplete, *, stream: bool) -> Reader: ...


class HttpProvider:
    """A model server behind one dialect."""

    def __init__(
        self, *, name: str, dialect: Dialect, http: Http, key: Callable[[], Secret | None] | None
    ) -> None:
        """``key`` finds it at each call, and may block; None: this server wants none."""
        self._name = name
        self._dialect = dialect
        self._http = http
        self._key = key

    async def complete(
        self,
        request: ModelComplete,
        *,
        model: str,
        timeout_s: float,
        on_delta: Callable[[str], None] | None,
        idempotency_key: str,
    ) -> Completion:
        """See :class:`ModelProvider`. ``on_delta`` or ``request.stream`` ask the server to stream."""
        import asyncio

        key = None if self._key is None else await asyncio.to_thread(self._key)
        scrubber = Scrubber([key] if key is not None else [])
        stream = request.stream or on_delta is not None
        reader = self._dialect.reader(request, stream=stream)
        text = _Text(scrubber, on_delta)
        await self._http.post(
            self._dialect.request(
                request, model=model, stream=stream, key=key, idempotency_key=idempotency_key
            ),
            lambda data: text.add(reader.feed(data)),
            name=self._name,
            timeout_s=timeout_s,
            scrubber=scrubber,
        )
        failure = _ended(reader, text, self._name)
        if failure is not None:
            raise bare(failure, scrubber)
        result = reader.result
        calls = wanted(result.calls, scrubber, key=idempotency_key)
        finish: Finish = "filter" if result.refused else result.finish or "other"
        if finish == "filter":
            calls = ()  # what a server withdrew is not asked for
        return Completion(
            text="".join(text.parts),
            parts=tuple(text.parts) if stream else (),
            model=scrubber.text(readable(result.model or model, 200)),
            usage=result.usage,
            finish="tools" if calls and finish in ("stop", "other") else finish,
            tool_calls=calls,
        )


def _ended(reader: Reader, text: _Text, name: str) -> ModelCallError | None:
    """Take what is still open; the failure, as a value, when the answer is not whole."""
    try:
        text.add(reader.end())
    except ModelCallError as error:
        return error
    text.close()
    if reader.result.finish is not None or reader.result.ended:
        return None
    return ModelCallError(
        f"the model provider {name} failed: its answer ends in the middle",
        hint="try again",
        code="model.cut",
        retryable=True,
        cost_micro_usd=None,
    )


class _Text:
    """Collects pieces, scrubbed, and shows each as soon as it is known to be clean."""

    def __init__(self, scrubber: Scrubber, on_delta: Callable[[str], None] | None) -> None:
        self._clean = scrubber.stream()
        self._on_delta = on_delta
        self.parts: list[str] = []

    def add(self, pieces: list[str]) -> None:
        for piece in pieces:
            self._show(self._clean.feed(piece))

    def close(self) -> None:
        self._show(self._clean.end())

    def _show(self, text: str) -> None:
        if text:
            self.parts.append(text)
            if self._on_delta is not None:
                self._on_delta(text)


# --- readers --------------------------------------------------------------------------------------


class WholeReader:
    """An answer that is one JSON document; ``take`` fills the result and returns the text."""

    def __init__(self, take: Callable[[bytes, Result], str]) -> None:
        self.result = Result()
        self._take = take
        self._body = bytearray()

    def feed(self, data: bytes) -> list[str]:
        """Gathers; the bound is the exchange's."""
        self._body += data
        return []

    def end(self) -> list[str]:
        """The whole text."""
        text = self._take(bytes(self._body), self.result)
        if not text and not self.result.calls and self.result.finish is None:
            raise _unreadable("it holds no answer")
        self.result.ended = True
        return [text] if text else []


class SentEventsReader:
    """An answer of server-sent events; ``take`` turns one event into text, ``""`` for none."""

    def __init__(self, take: Callable[[ServerSentEvent, Result], str]) -> None:
        self.result = Result()
        self._take = take
        self._events = ServerSentEvents()

    def feed(self, data: bytes) -> list[str]:
        """The text of the events that ``data`` completes."""
        try:
            events = self._events.feed(data)
        except StreamTooLargeError as error:
            raise _unreadable(str(error)) from error
        return [text for event in events if (text := self._take(event, self.result))]

    def end(self) -> list[str]:
        """Nothing: an event without its empty line does not count."""
        return []


class JsonLinesReader:
    """An answer of one JSON object per line."""

    def __init__(self, take: Callable[[bytes, Result], str]) -> None:
        self.result = Result()
        self._take = take
        self._lines = JsonLines()

    def feed(self, data: bytes) -> list[str]:
        """The text of the lines that ``data`` completes."""
        try:
            lines = self._lines.feed(data)
        except StreamTooLargeError as error:
            raise _unreadable(str(error)) from error
        return [text for line in lines if (text := self._take(line, self.result))]

    def end(self) -> list[str]:
        """The last line, if the server left out its line end."""
        return [text for line in self._lines.end() if (text := self._take(line, self.result))]


def decoded(data: bytes | str, kind: type[_T]) -> _T:
    """Foreign JSON as ``kind`` (unknown fields ignored), or :class:`ModelCallError` ``model.protocol``."""
    try:
        return msgspec.json.decode(data, type=kind, strict=True)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise _unreadable(f"it is not the JSON expected ({readable(str(error), 120)})") from error


def said_error(error: Any) -> ModelCallError:
    """The failure a server reports inside a stream that began well; ``error`` is its own object or text."""
    message = error.get("message") if isinstance(error, dict) else error
    return ModelCallError(
        f"the model server broke off: {message}",
        hint="try again",
        code="model.cut",
        retryable=True,
        cost_micro_usd=None,
    )


def _unreadable(why: str) -> ModelCallError:
    return ModelCallError(
        f"a model server's answer cannot be read: {why}",
        hint="check kind and base_url of that provider",
        code="model.protocol",
        cost_micro_usd=None,
    )
